//! `cloze finetune`: a pre-trained model and labelled rows → a model for a task.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use cloze_engine::Device;
use cloze_hub::Wanted;
use cloze_tasks::datasets::Need;
use cloze_tasks::datasets::known::Split;
use cloze_tasks::files::{FromFiles, Notes, Options};
use cloze_tasks::{ClassWeights, Settings};
use cloze_text::Tokenizer;
use cloze_train::recipe::{OptimizerKind, ScheduleKind};

use super::runs::{Common, Ended, Planned, run_all, run_one, summary, table};
use super::{DataArguments, ForTask, Kind, config_of, files_or_known, for_kind, remembered};
use crate::commands::INTERRUPTED;
use crate::commands::model::HubArguments;
use crate::commands::precision::Type;
use crate::terminal::Terminal;

/// `cloze finetune classify|regress|tag|answer|choose`
// Named, for `cloze sweep` has these arguments too beside its own.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "finetune")]
#[command(
    after_help = "Example:\n  cloze finetune --task sst2 --data glue/SST-2 --model runs/mini/model --out runs/sst2",
    after_long_help = "The run's folder receives finetune.toml, data.json, metrics.jsonl, TensorBoard events, scores.json and model/, the \
        best model by the dev rows, in Hugging Face's layout. Ctrl-C finishes the step and saves (exit code 130); the same command with \
        --resume goes on bit-exactly. With --seeds N each seed has a folder of its own, and the best model is kept.\n\nExamples:\n  \
        cloze finetune --task sst2 --data glue/SST-2 --model runs/mini/model --out runs/sst2 --seeds 5\n  \
        cloze finetune classify --train train.tsv --dev dev.tsv --text review --label stars --model M --out runs/stars\n  \
        cloze finetune tag --train en.train.conllu --dev en.dev.conllu --model M --out runs/pos\n  \
        cloze finetune answer --train train-v1.1.json --dev dev-v1.1.json --model M --out runs/qa --lr 3e-5 --epochs 2\n  \
        cloze finetune --recipe sst2.toml          (keys: this command's options, such as lr = 3e-5, and kind = \"tag\")"
)]
pub struct Arguments {
    /// The kind of task; known tasks (--task) know theirs
    #[arg(value_enum, value_name = "TASK")]
    pub kind: Option<Kind>,

    /// Model folder, checkpoint, run folder, or a name on the Hugging Face Hub such as bert-base-uncased, to start from
    ///
    /// A name is looked up in the local cache (HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub); what is not
    /// there is downloaded into it (from HF_ENDPOINT, with HF_TOKEN).
    #[arg(long, value_name = "DIR|NAME", required_unless_present = "recipe")]
    pub model: Option<PathBuf>,

    #[command(flatten)]
    pub hub: HubArguments,

    /// Files to learn from: TSV, CSV, JSONL, Parquet; CoNLL, CoNLL-U, WikiANN; SQuAD's JSON; plain, .gz or .zst
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub train: Vec<PathBuf>,

    /// Files to judge by; without any the last model is kept, of several seeds the first one's
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub dev: Vec<PathBuf>,

    /// The folder of a known task's official files, for --train and --dev
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// The run's folder
    #[arg(long, value_name = "DIR", required_unless_present = "recipe")]
    pub out: Option<PathBuf>,

    /// A TOML file whose keys are this command's options; what the command line says comes first
    #[arg(long, value_name = "FILE.toml")]
    pub recipe: Option<PathBuf>,

    /// Seeds to run, from --seed up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = crate::positive)]
    pub seeds: usize,

    /// Use the first N training rows only
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    pub limit: Option<usize>,

    /// Go on with the run in the folder
    #[arg(long)]
    pub resume: bool,

    /// Print the outcome as one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub read: DataArguments,

    #[command(flatten)]
    pub learn: LearningArguments,
}

/// How a model learns.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Learning")]
pub struct LearningArguments {
    /// Passes over the training rows [default: the task's, or 3]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,

    /// Examples of a step [default: the task's, or 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,

    /// Peak learning rate [default: the task's, or 5e-5]
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,

    /// Micro-batches that a step is cut into, to save memory
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,

    /// Share of the steps over which the rate rises
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    warmup: f64,

    /// What the rate does afterwards
    #[arg(long, value_enum, default_value_t = ScheduleName::Linear)]
    schedule: ScheduleName,

    /// AdamW with bias correction, or the paper's without
    #[arg(long, value_enum, default_value_t = OptimizerName::Adamw)]
    optimizer: OptimizerName,

    /// Decay of the matrices
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    weight_decay: f64,

    /// Largest norm of the gradient; 0: no clipping
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    clip_norm: f64,

    /// Each layer's rate as a share of that of the layer above it
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    layer_decay: f64,

    /// Layers that do not learn: the embeddings (0) and so many above them
    #[arg(long, value_name = "N")]
    freeze: Option<usize>,

    /// The feature-based way, to tag: the whole encoder frozen, the head on its last N layers side by side (4 in the paper)
    #[arg(long, value_name = "N", value_parser = crate::positive, conflicts_with = "freeze")]
    features: Option<usize>,

    /// Dropout of hidden states and attention weights [default: the checkpoint's]
    #[arg(long, value_name = "SHARE")]
    dropout: Option<f64>,

    /// How much each class counts: `balanced`, or a number for each label
    #[arg(long, value_name = "balanced|W,W,…", value_parser = class_weights)]
    class_weights: Option<ClassWeights>,

    /// Evaluations of an epoch
    #[arg(long, value_name = "N", default_value_t = 1)]
    evals_per_epoch: u32,

    /// Stop after N evaluations without a better score
    #[arg(long, value_name = "N")]
    patience: Option<u32>,

    /// Seed of the head, the order and the dropout
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Type of the activations
    #[arg(long, value_enum, default_value_t = Type::Auto)]
    precision: Type,

    /// Compute layers again in the backward pass instead of keeping their activations
    #[arg(long)]
    recompute: bool,

    /// Steps between checkpoints, beside those at evaluations
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<u64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ScheduleName {
    Linear,
    Cosine,
    Constant,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OptimizerName {
    Adamw,
    BertAdamw,
}

fn class_weights(text: &str) -> Result<ClassWeights, String> {
    if text == "balanced" {
        return Ok(ClassWeights::Balanced);
    }
    let weights: Result<Vec<f32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    weights.map(ClassWeights::Given).map_err(|_| "expected `balanced` or numbers such as 1,2.5".to_owned())
}

impl LearningArguments {
    /// The settings: as asked, else as the known task has them, else the usual ones.
    pub fn settings(&self, options: &Options) -> Settings {
        let known = options.known.as_ref().map(|known| known.settings);
        let default = Settings::default();
        Settings {
            epochs: self.epochs.or(known.map(|known| known.epochs as u32)).unwrap_or(default.epochs),
            batch: self.batch.or(known.map(|known| known.batch_size)).unwrap_or(default.batch),
            lr: self.lr.or(known.map(|known| known.learning_rate)).unwrap_or(default.lr),
            accumulate: self.accumulate,
            warmup: self.warmup,
            schedule: match self.schedule {
                ScheduleName::Linear => ScheduleKind::Linear,
                ScheduleName::Cosine => ScheduleKind::Cosine,
                ScheduleName::Constant => ScheduleKind::Constant,
            },
            optimizer: match self.optimizer {
                OptimizerName::Adamw => OptimizerKind::Adamw,
                OptimizerName::BertAdamw => OptimizerKind::BertAdamw,
            },
            eps: match self.optimizer {
                OptimizerName::Adamw => default.eps,
                OptimizerName::BertAdamw => 1e-6,
            },
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm,
            layer_decay: self.layer_decay,
            freeze: self.freeze,
            dropout: self.dropout,
            class_weights: self.class_weights.clone().unwrap_or_default(),
            evals_per_epoch: self.evals_per_epoch,
            patience: self.patience,
            seed: self.seed,
            precision: self.precision.into(),
            instruction_set: None,
            recompute: self.recompute,
            checkpoint_every: self.checkpoint_every,
        }
    }
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    let arguments = match &arguments.recipe {
        Some(path) => with_recipe(path, "finetune")?,
        None => arguments.clone(),
    };
    let settings = |options: &Options, arguments: &Arguments| {
        let base = arguments.learn.settings(options);
        let seeds = (0..arguments.seeds as u64).map(|number| base.seed.saturating_add(number));
        let planned = |seed| Planned { name: format!("seed-{seed}"), settings: Settings { seed, ..base.clone() } };
        seeds.map(planned).collect()
    };
    learn(&arguments, &settings, terminal)
}

/// Reads the rows, runs what is planned and shows the outcome: for `cloze finetune` and `cloze sweep` alike.
pub fn learn(
    arguments: &Arguments,
    plan: &dyn Fn(&Options, &Arguments) -> Vec<Planned>,
    terminal: &Terminal,
) -> Result<ExitCode> {
    let kind = arguments.read.kind(arguments.kind)?;
    let model = arguments.model.as_deref().context("no model to start from: give --model DIR")?;
    let out = arguments.out.as_deref().context("no folder for the run: give --out DIR")?;
    let mut options = arguments.read.options(kind, None)?;
    if let Some(layers) = arguments.learn.features {
        if kind != Kind::Tag {
            bail!("--features: the feature-based way is for taggers; freeze layers with --freeze N instead");
        }
        options.layers = layers;
    }
    let model = &arguments.hub.find(model, Wanted::Model, terminal)?;
    let stop = cloze_train::interrupt::watch()?;
    for_kind(kind, Learn { kind, arguments, model, out, options, plan, stop: &stop, terminal })
}

struct Learn<'a> {
    kind: Kind,
    arguments: &'a Arguments,
    model: &'a Path,
    out: &'a Path,
    options: Options,
    plan: &'a dyn Fn(&Options, &Arguments) -> Vec<Planned>,
    stop: &'a AtomicBool,
    terminal: &'a Terminal,
}

impl ForTask for Learn<'_> {
    type Outcome = ExitCode;

    fn run<T: FromFiles>(self) -> Result<ExitCode> {
        let Learn { kind, arguments, model, out, options, plan, stop, terminal } = self;
        let known = options.known.as_ref();
        let data = arguments.data.as_ref();
        let train_files = files_or_known(&arguments.train, data, known, Split::Train)?;
        let dev_files = files_or_known(&arguments.dev, data, known, Split::Dev)?;
        if train_files.is_empty() {
            bail!("nothing to learn from: give --train FILE, or --task NAME with --data DIR");
        }
        let config = config_of(model)?;
        let device = Device::cpu(terminal.threads)?;
        let tokenizer = Tokenizer::open(model)?;
        let options = Options { threads: device.threads(), ..options };
        let mut notes = Notes::default();
        let (task, mut train) = T::learned_from(&options, &train_files, &config, &tokenizer, &mut notes)?;
        let dev = task.read(&options, &dev_files, Need::Required, &tokenizer, &mut notes)?;
        if let Some(limit) = arguments.limit {
            train.truncate(limit);
        }
        for note in &notes.0 {
            terminal.warn(note);
        }
        let mut planned = plan(&options, arguments);
        // Before the first run, not hours later.
        planned.iter().try_for_each(|run| run.settings.validate())?;
        if arguments.learn.features.is_some() {
            planned.iter_mut().for_each(|run| run.settings.freeze = Some(config.num_hidden_layers));
        }
        let (train_rows, dev_rows) = (train.len(), dev.len());
        let remember = remembered(&options, kind);
        let common = Common {
            task: &task,
            train: &train,
            dev: &dev,
            model,
            out,
            resume: arguments.resume,
            device: &device,
            remember: &remember,
        };
        let ended = match &planned[..] {
            [only] => run_one(&common, only, stop, terminal)?,
            several => run_all(&common, several, stop, terminal)?,
        };
        show(&ended, out, [train_rows, dev_rows], arguments.json)?;
        if ended.finished && ended.model.is_none() {
            bail!("no run came to a model: each failed; lower --lr, or look at the data and the model");
        }
        Ok(if ended.finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
    }
}

fn show(ended: &Ended, out: &Path, [train_rows, dev_rows]: [usize; 2], json: bool) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{}", summary(ended, out, train_rows, dev_rows))?;
        return Ok(());
    }
    write!(stdout, "{}", table(ended))?;
    match &ended.model {
        Some(model) if ended.finished => writeln!(stdout, "model in {}", model.display())?,
        None if ended.finished => {}
        _ => writeln!(stdout, "interrupted; go on with the same command and --resume")?,
    }
    Ok(())
}

/// The command line once more, with the recipe's keys as options before those that it gives itself.
pub fn with_recipe<A: clap::Args>(path: &Path, command: &'static str) -> Result<A> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table = toml::from_str(&text).with_context(|| path.display().to_string())?;
    // The global options stand on this command line too, where they have been obeyed.
    let globals = crate::Arguments::command();
    let globals = globals.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect::<Vec<_>>();
    let is_global = |key: &&String| globals.iter().any(|arg| arg.get_long() == Some(key.as_str()));
    if let Some(key) = table.keys().find(is_global) {
        bail!("{}: `{key}` is no key of a recipe: give --{key} on the command line", path.display());
    }
    // What stands before the command's name is global.
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let given: Vec<String> = words.skip_while(|word| word != command).skip(1).collect();
    let all = [from_table(&table, &given).with_context(|| path.display().to_string())?, given].concat();
    let matches = A::augment_args(clap::Command::new(command)).args(globals);
    let matches = matches.try_get_matches_from(std::iter::once(command.to_owned()).chain(all));
    let matches = matches.map_err(|error| {
        // The first paragraph says what is wrong, the others how commands are used.
        let text = error.to_string();
        let said = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        anyhow::anyhow!("{}: {said}", path.display())
    })?;
    Ok(A::from_arg_matches(&matches)?)
}

/// The keys of a table as options, but for those given on the command line.
fn from_table(table: &toml::Table, given: &[String]) -> Result<Vec<String>> {
    let mut options = Vec::new();
    for (key, value) in table {
        let flag = format!("--{}", key.replace('_', "-"));
        if flag == "--recipe" {
            bail!("`recipe`: a recipe cannot name another");
        }
        if given.iter().any(|word| *word == flag || word.starts_with(&format!("{flag}="))) {
            continue;
        }
        let plain = |value: &toml::Value| match value {
            toml::Value::String(text) => Ok(text.clone()),
            toml::Value::Integer(number) => Ok(number.to_string()),
            toml::Value::Float(number) => Ok(number.to_string()),
            _ => bail!("`{key}` is {value}: expected a string, a number, true, false or a list of strings"),
        };
        match value {
            // The kind of task is no option but the word after the command.
            toml::Value::String(kind) if key == "kind" => {
                if !given.iter().any(|word| Kind::is_named(word)) {
                    options.push(kind.clone());
                }
            }
            toml::Value::Boolean(true) => options.push(flag),
            toml::Value::Boolean(false) => {}
            // Each file with the option's name: a word that follows must not be taken for one more.
            toml::Value::Array(values) if key == "train" || key == "dev" => {
                for value in values {
                    options.push(format!("{flag}={}", plain(value)?));
                }
            }
            toml::Value::Array(values) => {
                let values: Result<Vec<String>> = values.iter().map(plain).collect();
                options.push(format!("{flag}={}", values?.join(",")));
            }
            other => options.push(format!("{flag}={}", plain(other)?)),
        }
    }
    Ok(options)
}

impl Kind {
    fn is_named(word: &str) -> bool {
        <Kind as clap::ValueEnum>::from_str(word, false).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str, given: &[&str]) -> Vec<String> {
        let given: Vec<String> = given.iter().map(|word| (*word).to_owned()).collect();
        from_table(&toml::from_str(text).unwrap(), &given).unwrap()
    }

    #[test]
    fn recipes_are_options_and_the_command_line_comes_first() {
        let text = "kind = \"tag\"\nlr = 3e-5\nmax_len = 64\ncontext = true\nresume = false\nlabels = [\"a\", \"b\"]\ndev = [\"x\", \"y\"]";
        let found = options(text, &["--max-len", "32"]);
        assert!(found.contains(&"tag".to_owned()) && found.contains(&"--lr=0.00003".to_owned()), "{found:?}");
        assert!(!found.iter().any(|word| word.starts_with("--max-len") || word == "--resume"));
        assert!(found.contains(&"--labels=a,b".to_owned()), "{found:?}");
        assert!(found.windows(2).any(|words| words == ["--dev=x", "--dev=y"]));
        assert!(options(text, &["classify"]).iter().all(|word| word != "tag"));
        assert!(from_table(&toml::from_str("a = { b = 1 }").unwrap(), &[]).is_err());
    }

    #[test]
    fn weights_are_balanced_or_numbers() {
        assert_eq!(class_weights("balanced"), Ok(ClassWeights::Balanced));
        assert_eq!(class_weights("1, 2.5"), Ok(ClassWeights::Given(vec![1.0, 2.5])));
        assert!(class_weights("1,x").is_err());
    }
}
