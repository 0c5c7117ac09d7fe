//! `cloze finetune`: fine-tunes a pre-trained model on labelled rows.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use cloze_comm::Communicator;
use cloze_hub::Contents;
use cloze_model::Features;
use cloze_tasks::datasets::format::DataFile;
use cloze_tasks::datasets::preset::Split;
use cloze_tasks::datasets::{LabelsNeeded, plain_name};
use cloze_tasks::finetune::read_tokenizer;
use cloze_tasks::kinds::{self, Kind};
use cloze_tasks::{ClassWeights, Notes, Reading, Settings};
use cloze_train::device::device_of_ranks;
use cloze_train::recipe::{OptimizerKind, Precision, ScheduleKind};
use cloze_train::run::RunFolder;

use serde_json::json;

use super::files::{check_files, files_or_preset};
use super::fine_tuned::{NOT_IN_TRAINING, config_of};
use super::per_kind::{PerKind, TaskArguments, refuse_ineffective};
use super::read::DataArguments;
use super::recipe::with_recipe;
use super::runs::{Common, DryRun, PlannedRun, RunsOutcome, dry_run_all, run_all, run_one, summary, table};
use crate::commands::model::HubArguments;
use crate::commands::tokenizer::{note_special_names, show_notes};
use crate::failure::{INTERRUPTED, usage};
use crate::terminal::Terminal;
use crate::{format, help, program};

/// `cloze finetune [KIND]`
// The group needs an id, because `cloze sweep` flattens these arguments into its own.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "finetune")]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "The kind of task is given as a subcommand, or by a known task (--task) or a recipe. Options such as --lr, --epochs and \
         --max-len are in the help of each kind: cloze finetune classify --help. They are also accepted without a kind.\n\n\
         A recipe is a TOML file whose keys are options, such as lr = 3e-5, and kind = \"tag\". The command line overrides it.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    /// Initial model: model folder, checkpoint, run folder, or a name on the Hugging Face Hub such as bert-base-uncased
    ///
    /// A name is looked up in the local cache (HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub);
    /// missing files are downloaded into the cache (from HF_ENDPOINT, with HF_TOKEN).
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Option<PathBuf>,

    #[command(flatten)]
    pub hub: HubArguments,

    /// Training files: TSV, CSV, JSONL, Parquet; CoNLL, CoNLL-U, WikiANN; SQuAD's JSON; also .gz and .zst
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub train: Vec<PathBuf>,

    /// Dev files; without any, the last model (of the first seed) is kept
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub dev: Vec<PathBuf>,

    /// Folder of a known task with its official files, for --train and --dev
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Run folder [default: runs/ and the name of the task or the data]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// TOML file whose keys are options; the command line overrides it
    #[arg(long, value_name = "FILE.toml")]
    pub recipe: Option<PathBuf>,

    /// Number of runs with consecutive seeds, from --seed up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = crate::values::seeds)]
    pub seeds: usize,

    /// Use only the first N training rows
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = crate::values::positive)]
    pub limit: Option<usize>,

    /// Continue the run in the folder
    #[arg(long)]
    pub resume: bool,

    /// Check everything, measure some steps, estimate the time; write nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub read: DataArguments,

    #[command(flatten)]
    pub training: TrainingArguments,
}

/// Training settings.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArguments {
    /// Passes over the training rows [default: the task's, or 3]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,

    /// Batch size in examples [default: the task's, or 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,

    /// Peak learning rate [default: the task's, or 5e-5]
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,

    /// Split each batch into N micro-batches, to save memory
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 1)]
    accumulate: usize,

    /// Fraction of the steps for learning rate warmup
    #[arg(long, hide_short_help = true, value_name = "SHARE", default_value_t = 0.1)]
    pub warmup: f64,

    /// Learning rate schedule after the warmup
    #[arg(long, hide_short_help = true, default_value = "linear", value_parser = crate::values::named(&ScheduleKind::ALL))]
    schedule: ScheduleKind,

    /// Optimizer
    #[arg(long, hide_short_help = true, default_value = "adamw", value_parser = crate::values::named(&OptimizerKind::ALL))]
    optimizer: OptimizerKind,

    /// Weight decay of the matrices
    #[arg(long, hide_short_help = true, value_name = "RATE", default_value_t = 0.01)]
    weight_decay: f64,

    /// Maximum norm of the gradient; 0: no clipping
    #[arg(long, hide_short_help = true, value_name = "NORM", default_value_t = 1.0)]
    clip_norm: f64,

    /// Learning rate of each layer relative to the layer above it; 0.8 and 0.9 (large) in ELECTRA
    #[arg(long, hide_short_help = true, value_name = "SHARE", default_value_t = 1.0)]
    layer_decay: f64,

    /// Freeze the embeddings and the first N layers; 0: only the embeddings
    #[arg(long, hide_short_help = true, value_name = "N")]
    freeze: Option<usize>,

    /// Freeze the encoder and train a head on its hidden states (the paper's feature-based approach): embeddings,
    /// second-to-last, last, sum-last-N, concat-last-N, sum-all
    ///
    /// The sums have learned weights (ELMo's: a softmax, and a factor). The paper compares N = 4 for tagging. The default
    /// of --bilstm is then 2, that of --lr 1e-3.
    #[arg(long, hide_short_help = true, value_name = "STATES", conflicts_with = "freeze")]
    pub features: Option<Features>,

    /// Layers of a new BiLSTM between the encoder and the head; 0: none [default: 0; with --features 2]
    ///
    /// Transformers cannot open a model with a BiLSTM.
    #[arg(long, hide_short_help = true, value_name = "N")]
    pub bilstm: Option<usize>,

    /// Units of the BiLSTM in each direction [default: the hidden size]
    #[arg(long, hide_short_help = true, value_name = "N")]
    pub bilstm_size: Option<usize>,

    /// Dropout of hidden states and attention weights [default: the checkpoint's]
    #[arg(long, hide_short_help = true, value_name = "SHARE")]
    dropout: Option<f64>,

    /// Weight of each class in the loss: `balanced`, or a number for each label
    #[arg(long, hide_short_help = true, value_name = "balanced|W,W,…", value_parser = class_weights)]
    class_weights: Option<ClassWeights>,

    /// Number of evaluations per epoch
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 1)]
    evals_per_epoch: u32,

    /// Stop after N evaluations without an improvement
    #[arg(long, hide_short_help = true, value_name = "N")]
    patience: Option<u32>,

    /// Seed of the new head, the order of the rows, and dropout
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Precision of the activations
    #[arg(long, default_value = "auto", value_parser = crate::values::float_precision())]
    precision: Precision,

    /// Recompute activations in the backward pass instead of keeping them (activation checkpointing)
    #[arg(long, hide_short_help = true)]
    recompute: bool,

    /// Steps between checkpoints, in addition to those at evaluations
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

impl TrainingArguments {
    /// The training settings: from the options, otherwise from the known task, otherwise the defaults.
    pub fn settings(&self, reading: &Reading) -> Settings {
        let mut defaults = Settings::default();
        if let Some(preset) = reading.preset().map(|preset| preset.settings) {
            (defaults.epochs, defaults.batch) = (preset.epochs as u32, preset.batch_size);
            defaults.lr = preset.learning_rate;
        }
        self.settings_or(defaults)
    }

    /// The training settings: from the options, otherwise these defaults.
    pub fn settings_or(&self, defaults: Settings) -> Settings {
        let mut settings = defaults;
        settings.epochs = self.epochs.unwrap_or(settings.epochs);
        settings.batch = self.batch.unwrap_or(settings.batch);
        settings.lr = match self.features {
            // Only new layers are trained: their rate is that of training from scratch.
            Some(_) => self.lr.unwrap_or(1e-3),
            None => self.lr.unwrap_or(settings.lr),
        };
        settings.accumulate = self.accumulate;
        settings.warmup = self.warmup;
        settings.schedule = self.schedule;
        settings.optimizer = self.optimizer;
        // These optimizers were published with a larger ε than PyTorch's AdamW.
        if self.optimizer != OptimizerKind::Adamw {
            settings.eps = 1e-6;
        }
        settings.weight_decay = self.weight_decay;
        settings.clip_norm = self.clip_norm;
        settings.layer_decay = self.layer_decay;
        settings.freeze = self.freeze;
        settings.features = self.features;
        settings.bilstm = self.bilstm.unwrap_or(if self.features.is_some() { 2 } else { 0 });
        settings.bilstm_size = self.bilstm_size;
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

/// Examples for the help, one per line.
const EXAMPLES: [&str; 5] = [
    "cloze finetune --task sst2 --data glue/SST-2 --model runs/mini",
    "cloze finetune classify --train stars/train.tsv --dev stars/dev.tsv --text review --label stars --model runs/mini --out runs/stars",
    "cloze finetune tag --train en.train.conllu --dev en.dev.conllu --model runs/mini --out runs/pos",
    "cloze finetune answer --train train-v1.1.json --dev dev-v1.1.json --model runs/mini --out runs/qa --lr 3e-5 --epochs 2",
    "cloze finetune --recipe sst2.toml --seeds 5",
];

impl TaskArguments for Arguments {
    const NAME: &'static str = "finetune";
    const OVERVIEW: &'static [&'static str] = &[
        "model", "revision", "offline", "train", "dev", "data", "out", "recipe", "seeds", "resume", "dry_run", "json",
        "task",
    ];

    fn about(kind: &Kind) -> String {
        format!("Fine-tune a model to predict {}", kind.description.about)
    }

    fn details(_: &Kind) -> String {
        "The run folder contains finetune.toml, data.json, metrics.jsonl, TensorBoard events, scores.json and model/: the best model \
         on the dev rows, in the layout of Hugging Face. The model stores how its rows are read, so that `cloze predict` and \
         `cloze evaluate` need only the model. Ctrl-C finishes the step and saves (exit code 130); the same command with \
         --resume continues bit-exactly. With --seeds N each seed has its own folder, and the best model is kept."
            .to_owned()
    }

    fn examples(kind: &Kind) -> &'static [&'static str] {
        kind.description.examples.finetune
    }

    fn ineffective_options(kind: &Kind) -> Vec<(&'static str, &'static str)> {
        [&[NOT_IN_TRAINING][..], kind.description.rejected_options.finetune].concat()
    }
}

pub fn run(parsed: PerKind<Arguments>, terminal: &Terminal) -> Result<ExitCode> {
    let given = parsed.given.clone();
    let (kind, arguments) = with_recipe(parsed, |arguments| arguments.recipe.as_deref())?;
    let kind = arguments.read.kind(kind)?;
    kind.map_or(Ok(()), |kind| refuse_ineffective::<Arguments>(&given, kind))?;
    let settings = |reading: &Reading, arguments: &Arguments| {
        let base = arguments.training.settings(reading);
        let seeds = (0..arguments.seeds as u64).map(|number| base.seed.saturating_add(number));
        let planned = |seed| {
            let mut settings = base.clone();
            settings.seed = seed;
            PlannedRun { name: format!("seed-{seed}"), settings }
        };
        seeds.map(planned).collect()
    };
    run_planned(kind, &arguments, "", &settings, terminal)
}

/// Reads the rows, does the planned runs and prints the result, for `cloze finetune` and `cloze sweep`. `suffix` is
/// appended to the default name of the run folder.
pub fn run_planned(
    kind: Option<&'static Kind>,
    arguments: &Arguments,
    suffix: &str,
    plan: &PlanOf<'_>,
    terminal: &Terminal,
) -> Result<ExitCode> {
    let Executed { out, rows, example_file, result } =
        execute(kind, arguments, suffix, plan, crate::ranks::current(), terminal)?;
    let outcome = match result {
        Executing::Interrupted => return Ok(ExitCode::from(INTERRUPTED)),
        Executing::DryRun(report) => {
            write_dry_run(&report, &out, arguments.json)?;
            return Ok(ExitCode::SUCCESS);
        }
        Executing::Runs(outcome) => outcome,
    };
    if arguments.json {
        writeln!(crate::output::stdout(), "{}", summary(&outcome, &out, rows[0], rows[1]))?;
    } else {
        write_results(&outcome, example_file.map(|file| example_command(&out, &file)))?;
    }
    if outcome.finished && outcome.model.is_none() {
        bail!("every run failed, so there is no model; use a lower --lr, or check the data and the model");
    }
    Ok(if outcome.finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// The runs for these rows and options.
type PlanOf<'a> = dyn Fn(&Reading, &Arguments) -> Vec<PlannedRun> + 'a;

/// The planned runs after they were done.
pub struct Executed {
    /// The run folder.
    pub out: PathBuf,
    /// The numbers of training rows and dev rows.
    pub rows: [usize; 2],
    /// A file of rows to try the model with.
    example_file: Option<PathBuf>,
    pub result: Executing,
}

/// What was done with the planned runs.
pub enum Executing {
    /// Interrupted before there was a result.
    Interrupted,
    DryRun(DryRun),
    Runs(RunsOutcome),
}

/// Reads the rows and does the planned runs.
pub fn execute(
    kind: Option<&'static Kind>,
    arguments: &Arguments,
    suffix: &str,
    plan: &PlanOf<'_>,
    ranks: &Communicator,
    terminal: &Terminal,
) -> Result<Executed> {
    let kind = kind.ok_or_else(|| usage(format!("no kind of task; give {}, or --task NAME", kinds::names())))?;
    let named = arguments.model.as_deref().ok_or_else(|| usage("no model; give --model DIR or NAME"))?;
    arguments.read.check(kind, false)?;
    let device = device_of_ranks(ranks, terminal.threads, || Ok::<_, anyhow::Error>(terminal.open_device()?))?;
    let given = arguments.read.given(device.threads())?;
    let reading = Reading::new(&kind.description, given, None)?;
    // Check the command line before anything is downloaded.
    let (known, data) = (reading.preset(), arguments.data.as_ref());
    let files = [
        files_or_preset(&arguments.train, data, known, Split::Train)?,
        files_or_preset(&arguments.dev, data, known, Split::Dev)?,
    ];
    if files[0].is_empty() {
        return Err(usage("no training rows; give --train FILE, or --task NAME with --data DIR"));
    }
    check_files(files.iter().flatten())?;
    let mut planned = plan(&reading, arguments);
    // Validate all runs before the first one starts.
    planned.iter().try_for_each(|run| run.settings.validate())?;
    let special_tokens = arguments.read.common.special_tokens.given();
    planned.iter_mut().for_each(|run| run.settings.special_tokens = special_tokens);
    let out = &match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let out = default_out(kind, arguments, suffix);
            terminal.note(&format!("run folder: {} (change it with --out)", out.display()));
            out
        }
    };
    if !ranks.is_single() && (planned.len() > 1 || arguments.dry_run) {
        return Err(usage("several ranks train one model: give one value of each setting, and no --dry-run"));
    }
    if !arguments.resume && ranks.is_root() {
        RunFolder::new(out).check_new()?;
    }
    let model = &arguments.hub.find(named, Contents::Model, terminal)?;
    let stop = crate::interrupt::stop();
    let config = config_of(model)?;
    let tokenizer = read_tokenizer(model, special_tokens)?;
    show_notes(&tokenizer, terminal);
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
    note_special_names(&tokenizer, terminal);
    let (train_rows, dev_rows) = (train.len(), dev.len());
    let task_settings = task.settings(&reading);
    if terminal.is_verbose() {
        let named =
            |files: &[PathBuf]| files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        terminal.detail(&format!("{train_rows} training rows: {}", named(&files[0])));
        terminal.detail(&format!("{dev_rows} dev rows: {}", named(&files[1])));
        terminal.detail(&format!("stored in the model: {}", task_settings.to_json()));
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
        ranks,
        task_settings: &task_settings,
    };
    let result = match &planned[..] {
        several if arguments.dry_run => {
            dry_run_all(&common, several, stop)?.map_or(Executing::Interrupted, Executing::DryRun)
        }
        [only] => Executing::Runs(run_one(&common, only, stop, terminal)?),
        several => Executing::Runs(run_all(&common, several, stop, terminal)?),
    };
    let example_file = files[1].first().or(files[0].first()).cloned();
    Ok(Executed { out: out.clone(), rows: [train_rows, dev_rows], example_file, result })
}

/// The default run folder: runs/ and the name of the known task, otherwise of the training file or its folder,
/// otherwise of the kind of task.
fn default_out(kind: &Kind, arguments: &Arguments, suffix: &str) -> PathBuf {
    let known = arguments.read.known().ok().flatten().map(|known| known.name.to_owned());
    let name = known.or_else(|| arguments.train.first().and_then(|path| data_name(path)));
    Path::new("runs").join(name.unwrap_or_else(|| kind.name().to_owned()) + suffix)
}

/// The name of a data set, from a training file: "stars" for `stars.train.tsv` and `stars/train.tsv`.
fn data_name(path: &Path) -> Option<String> {
    let name = plain_name(path);
    let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
    let stem = stem.strip_suffix("train").map_or(stem, |rest| rest.trim_end_matches(['.', '-', '_']));
    if stem.is_empty() || stem.starts_with("train") {
        return Some(path.parent()?.file_name()?.to_string_lossy().into_owned());
    }
    Some(stem.to_owned())
}

fn write_dry_run(report: &DryRun, out: &Path, json: bool) -> Result<()> {
    let mut stdout = crate::output::stdout();
    let DryRun { runs, steps, evaluations, seconds } = report;
    if json {
        let line = json!({
            "dry_run": true, "out": format::path(out), "runs": runs, "steps": steps, "evaluations": evaluations, "seconds": seconds,
            "peak_rss_bytes": cloze_files::machine::peak_memory(),
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
    writeln!(stdout, "nothing was written; without --dry-run the run folder is {}", out.display())?;
    Ok(())
}

/// Prints the scores and the model's folder. `example` is a command to try the model.
fn write_results(outcome: &RunsOutcome, example: Option<String>) -> Result<()> {
    let mut stdout = crate::output::stdout();
    write!(stdout, "{}", table(outcome))?;
    match &outcome.model {
        Some(model) if outcome.finished => {
            writeln!(stdout, "model in {}", model.display())?;
            if let Some(example) = example {
                writeln!(stdout, "try it: {example}")?;
            }
        }
        None if outcome.finished => {}
        _ => writeln!(stdout, "interrupted and saved; continue with the same command and --resume")?,
    }
    Ok(())
}

/// A command to try the model of a run: predict a file's rows, or evaluate on them if the file's name does not tell its
/// format.
fn example_command(out: &Path, file: &Path) -> String {
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
    fn run_folders_are_named_after_the_data() {
        for (path, name) in [
            ("stars/train.tsv", Some("stars")),
            ("data/stars.train.tsv.gz", Some("stars")),
            ("en_ewt-ud-train.conllu", Some("en_ewt-ud")),
            ("squad/train-v1.1.json", Some("squad")),
            ("reviews.csv", Some("reviews")),
            ("train.tsv", None),
        ] {
            assert_eq!(data_name(Path::new(path)).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn class_weights_are_balanced_or_numbers() {
        assert_eq!(class_weights("balanced"), Ok(ClassWeights::Balanced));
        assert_eq!(class_weights("1, 2.5"), Ok(ClassWeights::Given(vec![1.0, 2.5])));
        assert!(class_weights("1,x").is_err());
    }
}
