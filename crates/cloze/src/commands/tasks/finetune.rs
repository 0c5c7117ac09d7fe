//! `cloze finetune`: a pre-trained model and labelled rows → a model for a task.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use cloze_engine::Device;
use cloze_hub::Contents;
use cloze_tasks::datasets::format::DataFile;
use cloze_tasks::datasets::preset::Split;
use cloze_tasks::datasets::{LabelsNeeded, plain_name};
use cloze_tasks::finetune::read_tokenizer;
use cloze_tasks::kinds::{self, Kind};
use cloze_tasks::{ClassWeights, Notes, Reading, Settings};
use cloze_train::recipe::{OptimizerKind, Precision, ScheduleKind};
use cloze_train::run::RunFolder;

use serde_json::json;

use super::files::{check_files, files_or_known};
use super::fine_tuned::config_of;
use super::per_kind::{OfTask, PerKind, check_effect};
use super::read::DataArguments;
use super::recipe::with_recipe;
use super::runs::{Common, DryRun, Ended, Planned, dry_run_all, run_all, run_one, summary, table};
use crate::commands::model::HubArguments;
use crate::commands::tokenizer::{tell_notes, tell_special_names};
use crate::failure::{INTERRUPTED, usage};
use crate::terminal::Terminal;
use crate::{format, help, program};

/// `cloze finetune [KIND]`
// The group is named, for `cloze sweep` has these arguments too beside its own.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "finetune")]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "The kind of task is named, or follows from a known task (--task) or a recipe. Options such as --lr, --epochs and --max-len \
         are in the help of each kind: cloze finetune classify --help. They may be given without a kind too.\n\n\
         A recipe is a TOML file whose keys are options, such as lr = 3e-5, and kind = \"tag\". The command line comes before it.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    /// Model folder, checkpoint, run folder, or a name on the Hugging Face Hub such as bert-base-uncased, to start from
    ///
    /// A name is looked up in the local cache (HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub); what is not
    /// there is downloaded into it (from HF_ENDPOINT, with HF_TOKEN).
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Option<PathBuf>,

    #[command(flatten)]
    pub hub: HubArguments,

    /// Files to learn from: TSV, CSV, JSONL, Parquet; CoNLL, CoNLL-U, WikiANN; SQuAD's JSON; also .gz and .zst
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub train: Vec<PathBuf>,

    /// Files to judge by; without any the last model is kept, of several seeds the first one's
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub dev: Vec<PathBuf>,

    /// The folder of a known task's official files, for --train and --dev
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// The run's folder [default: runs/ and the name of the task or of the data]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// A TOML file whose keys are options; the command line comes before it
    #[arg(long, value_name = "FILE.toml")]
    pub recipe: Option<PathBuf>,

    /// Seeds to run, from --seed up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = crate::values::seeds)]
    pub seeds: usize,

    /// Use the first N training rows only
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = crate::values::positive)]
    pub limit: Option<usize>,

    /// Go on with the run in the folder
    #[arg(long)]
    pub resume: bool,

    /// Check everything, measure some steps, say how long it would take, and write nothing
    #[arg(long)]
    pub dry_run: bool,

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
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 1)]
    accumulate: usize,

    /// Share of the steps over which the rate rises
    #[arg(long, hide_short_help = true, value_name = "SHARE", default_value_t = 0.1)]
    pub warmup: f64,

    /// What the rate does afterwards
    #[arg(long, hide_short_help = true, default_value = "linear", value_parser = crate::values::named(&ScheduleKind::ALL))]
    schedule: ScheduleKind,

    /// AdamW with bias correction, or the paper's without
    #[arg(long, hide_short_help = true, default_value = "adamw", value_parser = crate::values::named(&OptimizerKind::ALL))]
    optimizer: OptimizerKind,

    /// Decay of the matrices
    #[arg(long, hide_short_help = true, value_name = "RATE", default_value_t = 0.01)]
    weight_decay: f64,

    /// Largest norm of the gradient; 0: no clipping
    #[arg(long, hide_short_help = true, value_name = "NORM", default_value_t = 1.0)]
    clip_norm: f64,

    /// Each layer's rate as a share of that of the layer above it
    #[arg(long, hide_short_help = true, value_name = "SHARE", default_value_t = 1.0)]
    layer_decay: f64,

    /// Layers that do not learn: the embeddings (0) and so many above them
    #[arg(long, hide_short_help = true, value_name = "N")]
    freeze: Option<usize>,

    /// The feature-based way, to tag: the whole encoder frozen, the head on its last N layers side by side (4 in the paper)
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = crate::values::positive, conflicts_with = "freeze")]
    features: Option<usize>,

    /// Dropout of hidden states and attention weights [default: the checkpoint's]
    #[arg(long, hide_short_help = true, value_name = "SHARE")]
    dropout: Option<f64>,

    /// How much each class counts: `balanced`, or a number for each label
    #[arg(long, hide_short_help = true, value_name = "balanced|W,W,…", value_parser = class_weights)]
    class_weights: Option<ClassWeights>,

    /// Evaluations of an epoch
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 1)]
    evals_per_epoch: u32,

    /// Stop after N evaluations without a better score
    #[arg(long, hide_short_help = true, value_name = "N")]
    patience: Option<u32>,

    /// Seed of the head, the order and the dropout
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Type of the activations
    #[arg(long, default_value = "auto", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,

    /// Compute layers again in the backward pass instead of keeping their activations
    #[arg(long, hide_short_help = true)]
    recompute: bool,

    /// Steps between checkpoints, beside those at evaluations
    #[arg(long, hide_short_help = true, value_name = "N")]
    checkpoint_every: Option<u64>,
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
    pub fn settings(&self, reading: &Reading) -> Settings {
        let known = reading.preset().map(|known| known.settings);
        let mut settings = Settings::default();
        settings.epochs = self.epochs.or(known.map(|known| known.epochs as u32)).unwrap_or(settings.epochs);
        settings.batch = self.batch.or(known.map(|known| known.batch_size)).unwrap_or(settings.batch);
        settings.lr = self.lr.or(known.map(|known| known.learning_rate)).unwrap_or(settings.lr);
        settings.accumulate = self.accumulate;
        settings.warmup = self.warmup;
        settings.schedule = self.schedule;
        settings.optimizer = self.optimizer;
        if self.optimizer == OptimizerKind::BertAdamw {
            settings.eps = 1e-6;
        }
        settings.weight_decay = self.weight_decay;
        settings.clip_norm = self.clip_norm;
        settings.layer_decay = self.layer_decay;
        settings.freeze = self.freeze;
        settings.dropout = self.dropout;
        settings.class_weights = self.class_weights.clone().unwrap_or_default();
        settings.evals_per_epoch = self.evals_per_epoch;
        settings.patience = self.patience;
        settings.seed = self.seed;
        settings.precision = self.precision;
        settings.recompute = self.recompute;
        settings.checkpoint_every = self.checkpoint_every;
        settings
    }
}

/// Examples of the command, a line each.
const EXAMPLES: [&str; 5] = [
    "cloze finetune --task sst2 --data glue/SST-2 --model runs/mini",
    "cloze finetune classify --train stars/train.tsv --dev stars/dev.tsv --text review --label stars --model runs/mini --out runs/stars",
    "cloze finetune tag --train en.train.conllu --dev en.dev.conllu --model runs/mini --out runs/pos",
    "cloze finetune answer --train train-v1.1.json --dev dev-v1.1.json --model runs/mini --out runs/qa --lr 3e-5 --epochs 2",
    "cloze finetune --recipe sst2.toml --seeds 5",
];

impl OfTask for Arguments {
    const NAME: &'static str = "finetune";
    const OVERVIEW: &'static [&'static str] = &[
        "model", "revision", "offline", "train", "dev", "data", "out", "recipe", "seeds", "resume", "dry_run", "json",
        "task",
    ];

    fn about(kind: &Kind) -> String {
        format!("Learn to predict {}", kind.description.about)
    }

    fn details(_: &Kind) -> String {
        "The run's folder receives finetune.toml, data.json, metrics.jsonl, TensorBoard events, scores.json and model/, the best model \
         by the dev rows, in Hugging Face's layout, which remembers how its rows are read: `cloze predict` and `cloze evaluate` \
         need no more than the model. Ctrl-C finishes the step and saves (exit code 130); the same command with --resume goes on \
         bit-exactly. With --seeds N each seed has a folder of its own, and the best model is kept."
            .to_owned()
    }

    fn examples(kind: &Kind) -> &'static [&'static str] {
        kind.description.examples.finetune
    }

    fn without_effect(kind: &Kind) -> Vec<(&'static str, &'static str)> {
        kind.description.rejected_options.finetune.to_vec()
    }
}

pub fn run(asked: PerKind<Arguments>, terminal: &Terminal) -> Result<ExitCode> {
    let given = asked.given.clone();
    let (kind, arguments) = with_recipe(asked, |arguments| arguments.recipe.as_deref())?;
    let kind = arguments.read.kind(kind)?;
    kind.map_or(Ok(()), |kind| check_effect::<Arguments>(&given, kind))?;
    let settings = |reading: &Reading, arguments: &Arguments| {
        let base = arguments.learn.settings(reading);
        let seeds = (0..arguments.seeds as u64).map(|number| base.seed.saturating_add(number));
        let planned = |seed| {
            let mut settings = base.clone();
            settings.seed = seed;
            Planned { name: format!("seed-{seed}"), settings }
        };
        seeds.map(planned).collect()
    };
    learn(kind, &arguments, "", &settings, terminal)
}

/// Reads the rows, runs what is planned and shows the outcome: for `cloze finetune` and `cloze sweep` alike. `suffix` ends the
/// name of a folder that is not named.
pub fn learn(
    kind: Option<&'static Kind>,
    arguments: &Arguments,
    suffix: &str,
    plan: &dyn Fn(&Reading, &Arguments) -> Vec<Planned>,
    terminal: &Terminal,
) -> Result<ExitCode> {
    let kind = kind.ok_or_else(|| usage(format!("which task? Say {}, or give --task NAME", kinds::names())))?;
    let named = arguments.model.as_deref().ok_or_else(|| usage("no model to start from: give --model DIR"))?;
    arguments.read.check(kind, false)?;
    let device = Device::cpu(terminal.threads)?;
    let mut given = arguments.read.given(device.threads())?;
    if let Some(layers) = arguments.learn.features {
        if !kind.description.has_option("features") {
            return Err(usage(
                "--features: the feature-based way is for taggers; freeze layers with --freeze N instead",
            ));
        }
        if arguments.learn.freeze.is_some() {
            return Err(usage("--features freezes all layers; give either it or --freeze"));
        }
        given.settings.own.insert("layers".to_owned(), layers.into());
    }
    let reading = Reading::new(&kind.description, given, None)?;
    // What is wrong with the command line is found before anything is downloaded.
    let (known, data) = (reading.preset(), arguments.data.as_ref());
    let files = [
        files_or_known(&arguments.train, data, known, Split::Train)?,
        files_or_known(&arguments.dev, data, known, Split::Dev)?,
    ];
    if files[0].is_empty() {
        return Err(usage("nothing to learn from: give --train FILE, or --task NAME with --data DIR"));
    }
    check_files(files.iter().flatten())?;
    let mut planned = plan(&reading, arguments);
    // Before the first run, not hours later.
    planned.iter().try_for_each(|run| run.settings.validate())?;
    let special_tokens = arguments.read.common.special_tokens.given();
    planned.iter_mut().for_each(|run| run.settings.special_tokens = special_tokens);
    let out = &match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let out = default_out(kind, arguments, suffix);
            terminal.note(&format!("the run's folder is {} (--out)", out.display()));
            out
        }
    };
    if !arguments.resume {
        RunFolder::new(out).check_new()?;
    }
    let model = &arguments.hub.find(named, Contents::Model, terminal)?;
    let stop = crate::interrupt::stop();
    let config = config_of(model)?;
    let tokenizer = read_tokenizer(model, special_tokens)?;
    tell_notes(&tokenizer, terminal);
    let mut notes = Notes::default();
    let (task, mut train) = kind.learn(&reading, &files[0], &config, &tokenizer, &mut notes)?;
    let dev = task.read(&reading, &files[1], LabelsNeeded::Required, &tokenizer, &mut notes)?;
    if let Some(limit) = arguments.limit {
        train.truncate(limit);
    }
    for note in &notes.0 {
        terminal.warn(note);
    }
    train.summary().iter().for_each(|line| terminal.note(line));
    tell_special_names(&tokenizer, terminal);
    if arguments.learn.features.is_some() {
        planned.iter_mut().for_each(|run| run.settings.freeze = Some(config.num_hidden_layers));
    }
    let (train_rows, dev_rows) = (train.len(), dev.len());
    let task_settings = task.settings(&reading);
    if terminal.is_verbose() {
        let named =
            |files: &[PathBuf]| files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        terminal.detail(&format!("{train_rows} rows to learn from: {}", named(&files[0])));
        terminal.detail(&format!("{dev_rows} rows to judge by: {}", named(&files[1])));
        terminal.detail(&format!("the model will remember {}", task_settings.to_json()));
        let settings = planned.first().map_or(Ok(String::new()), |run| run.settings.to_toml())?;
        terminal.detail(&format!("settings: {}", settings.trim_end().replace('\n', ", ")));
    }
    let common = Common {
        task: &*task,
        train: &*train,
        dev: &*dev,
        files: [&files[0], &files[1]],
        model,
        out,
        resume: arguments.resume,
        device: &device,
        task_settings: &task_settings,
    };
    if arguments.dry_run {
        let Some(said) = dry_run_all(&common, &planned, stop)? else { return Ok(ExitCode::from(INTERRUPTED)) };
        show_dry_run(&said, out, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = match &planned[..] {
        [only] => run_one(&common, only, stop, terminal)?,
        several => run_all(&common, several, stop, terminal)?,
    };
    if arguments.json {
        writeln!(crate::output::results(), "{}", summary(&ended, out, train_rows, dev_rows))?;
    } else {
        let example = files[1].first().or(files[0].first());
        show(&ended, example.map(|file| trial(out, file)))?;
    }
    if ended.finished && ended.model.is_none() {
        bail!("no run came to a model: each failed; lower --lr, or look at the data and the model");
    }
    Ok(if ended.finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// The folder of a run that names none: runs/ and the name of the known task, else of the training file or of its folder, else of
/// the kind of task.
fn default_out(kind: &Kind, arguments: &Arguments, suffix: &str) -> PathBuf {
    let known = arguments.read.known().ok().flatten().map(|known| known.name.to_owned());
    let name = known.or_else(|| arguments.train.first().and_then(|path| name_of_data(path)));
    Path::new("runs").join(name.unwrap_or_else(|| kind.name().to_owned()) + suffix)
}

/// What a training file is called: "stars" of `stars.train.tsv` and of `stars/train.tsv`.
fn name_of_data(path: &Path) -> Option<String> {
    let name = plain_name(path);
    let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
    let stem = stem.strip_suffix("train").map_or(stem, |rest| rest.trim_end_matches(['.', '-', '_']));
    if stem.is_empty() || stem.starts_with("train") {
        return Some(path.parent()?.file_name()?.to_string_lossy().into_owned());
    }
    Some(stem.to_owned())
}

fn show_dry_run(said: &DryRun, out: &Path, json: bool) -> Result<()> {
    let mut stdout = crate::output::results();
    let DryRun { runs, steps, evaluations, seconds } = said;
    if json {
        let line = json!({
            "dry_run": true, "out": format::path(out), "runs": runs, "steps": steps, "evaluations": evaluations, "seconds": seconds,
            "peak_rss_bytes": format::peak_memory(),
        });
        writeln!(stdout, "{line}")?;
        return Ok(());
    }
    let of_runs = if *runs == 1 { String::new() } else { format!("{runs} runs, ") };
    writeln!(
        stdout,
        "{of_runs}{} steps, {} evaluations: about {}",
        format::count(*steps),
        format::count(*evaluations),
        format::duration(*seconds)
    )?;
    writeln!(stdout, "nothing was written; without --dry-run the run's folder is {}", out.display())?;
    Ok(())
}

/// `trial`: a command that shows what the model can do.
fn show(ended: &Ended, trial: Option<String>) -> Result<()> {
    let mut stdout = crate::output::results();
    write!(stdout, "{}", table(ended))?;
    match &ended.model {
        Some(model) if ended.finished => {
            writeln!(stdout, "model in {}", model.display())?;
            if let Some(trial) = trial {
                writeln!(stdout, "try it: {trial}")?;
            }
        }
        None if ended.finished => {}
        _ => writeln!(stdout, "interrupted and saved; go on with the same command and --resume")?,
    }
    Ok(())
}

/// A command that predicts a file's rows with the model of a run, or judges it on them where the file's name does not say how it is
/// written.
fn trial(out: &Path, file: &Path) -> String {
    let (cloze, out, quoted) = (program::name(), program::quoted(out.display()), program::quoted(file.display()));
    if DataFile::from(file).is_named() {
        format!("{cloze} predict --model {out} --input {quoted}")
    } else {
        format!("{cloze} evaluate --model {out} --data {quoted}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_called_after_its_data() {
        for (path, name) in [
            ("stars/train.tsv", Some("stars")),
            ("data/stars.train.tsv.gz", Some("stars")),
            ("en_ewt-ud-train.conllu", Some("en_ewt-ud")),
            ("squad/train-v1.1.json", Some("squad")),
            ("reviews.csv", Some("reviews")),
            ("train.tsv", None),
        ] {
            assert_eq!(name_of_data(Path::new(path)).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn weights_are_balanced_or_numbers() {
        assert_eq!(class_weights("balanced"), Ok(ClassWeights::Balanced));
        assert_eq!(class_weights("1, 2.5"), Ok(ClassWeights::Given(vec![1.0, 2.5])));
        assert!(class_weights("1,x").is_err());
    }
}
