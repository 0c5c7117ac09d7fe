//! `cloze finetune embed`: trains a model that embeds texts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use cloze_hub::Contents;
use cloze_tasks::datasets::format::{FORMATS, Format};
use cloze_tasks::datasets::table::Column;
use cloze_tasks::embed::prompts::Prompt;
use cloze_tasks::embed::{Options, PoolChoice};
use cloze_tasks::embed_training::losses::{Candidates, Compare, Distance, Hardness};
use cloze_tasks::embed_training::rows::{Columns, TextRow, read};
use cloze_tasks::embed_training::{EmbedRun, EmbedSettings, LossKind, dry_run, train};
use cloze_tasks::finetune::{Outcome, device_of_run};
use cloze_tasks::{FileRows, TaskError};
use cloze_train::device::device_of_ranks;
use cloze_train::run::RunFolder;
use cloze_train::train_loop::Event;
use serde_json::json;

use super::files::check_files;
use super::finetune::TrainingArguments;
use super::runs::{describe_estimate, show_event};
use crate::commands::model::HubArguments;
use crate::commands::tokenizer::SpecialTokensArgument;
use crate::failure::{INTERRUPTED, usage};
use crate::interrupt::GracefulStop;
use crate::terminal::Terminal;
use crate::{format, help, program};

/// `cloze finetune embed --model DIR --train FILE… --out RUN`
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "Without names of columns, their order decides: anchor, positive, negatives. A column with the name label, labels, score or \
         scores has the score of a pair (a similarity), or a teacher's scores. In JSON and Parquet a cell may be a list: several \
         positives, negatives or scores. Plain lines are trained without labels: each text is its own positive, and dropout makes the two \
         vectors different (SimCSE). With --loss denoising, a decoder learns to restore each text from the vector of a copy without \
         60 % of its words (TSDAE).\n\n\
         All other texts of a batch are negatives, except for those with the same text as the anchor or one of its positives. The \
         batch may have any size: texts beyond --micro-tokens are computed in several passes, and the gradient is that of the \
         complete batch.\n\n\
         The best model on the dev rows is in model/, a sentence-transformers folder: `cloze embed`, `cloze similar`, \
         `cloze evaluate retrieval` and sentence-transformers open it. Dev rows with scores are scored by Spearman's correlation; \
         others by a search of each anchor among all texts of the dev rows (nDCG@10).",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    /// Initial model: model folder, sentence-transformers folder, run folder, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,

    #[command(flatten)]
    hub: HubArguments,

    /// Training files: TSV, CSV, JSONL, Parquet, or plain lines; also .gz and .zst
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    train: Vec<PathBuf>,

    /// Dev files; without any, the last model is kept
    #[arg(long, value_name = "FILE", num_args = 1..)]
    dev: Vec<PathBuf>,

    /// Run folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Continue the run in the folder
    #[arg(long)]
    resume: bool,

    /// Check everything, measure some steps, estimate the time; write nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data: DataArguments,

    #[command(flatten)]
    objective: LossArguments,

    #[command(flatten)]
    vectors: VectorArguments,

    #[command(flatten)]
    training: TrainingArguments,
}

/// How rows are read.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Data")]
struct DataArguments {
    /// Column of the anchors: a name, or a number such as #1 [default: the first]
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    anchor: Option<Column>,

    /// Columns of the positives [default: the second]
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', value_parser = column)]
    positive: Vec<Column>,

    /// Columns of the negatives [default: all others]
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', value_parser = column)]
    negative: Vec<Column>,

    /// Column of the scores [default: label, labels, score or scores]
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    score: Option<Column>,

    /// Format of the files [default: from the extension, else from the first lines]
    #[arg(long, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    format: Option<Format>,

    /// Skip rows that cannot be used, and count them, instead of stopping
    #[arg(long)]
    skip_bad: bool,

    /// Use only the first N training rows
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = crate::values::positive)]
    limit: Option<usize>,

    #[command(flatten)]
    special_tokens: SpecialTokensArgument,
}

/// The loss.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Loss")]
struct LossArguments {
    /// Loss [default: cosent for pairs with a score, kl for several scores, else info-nce]
    #[arg(long, value_parser = crate::values::named(&LossKind::ALL))]
    loss: Option<LossKind>,

    /// Temperature [default: 0.05; kl: 1]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,

    /// Learn the temperature (info-nce)
    #[arg(long, hide_short_help = true)]
    learn_temperature: bool,

    /// Comparison in the loss [default: cosine; margin-mse and kl: dot]
    #[arg(long, hide_short_help = true, value_parser = crate::values::named(&COMPARE))]
    compare: Option<Compare>,

    /// What anchors are compared with (info-nce)
    #[arg(long, hide_short_help = true, default_value = "in-batch", value_parser = crate::values::named(&CANDIDATES))]
    candidates: Candidates,

    /// The positives also select their anchors (info-nce)
    #[arg(long)]
    symmetric: bool,

    /// Raise the weight of similar negatives by this strength (info-nce); sentence-transformers suggests 5 to 9
    #[arg(long, hide_short_help = true, value_name = "ALPHA", default_value_t = 0.0)]
    hardness_strength: f64,

    /// Which negatives --hardness-strength is for
    #[arg(long, hide_short_help = true, default_value = "in-batch", value_parser = crate::values::named(&HARDNESS))]
    hardness: Hardness,

    /// Distance (triplet)
    #[arg(long, hide_short_help = true, default_value = "euclidean", value_parser = crate::values::named(&DISTANCE))]
    distance: Distance,

    /// Margin (triplet) [default: 5; cosine distance: 0.5]
    #[arg(long, hide_short_help = true, value_name = "M")]
    margin: Option<f64>,

    /// Part of the words that the damaged copy of a text does not have (denoising)
    #[arg(long, hide_short_help = true, value_name = "P", default_value_t = 0.6)]
    deletion_ratio: f64,

    /// Numbers of leading dimensions that are useful alone (Matryoshka): 256,128,64
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = crate::values::positive)]
    dimensions: Vec<usize>,

    /// Mine hard negatives among all training texts with the current model: at the start and after every N steps (info-nce)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    mine_every: Option<u64>,

    /// Number of mined negatives of each row
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 1, value_parser = crate::values::positive)]
    mine_negatives: usize,

    /// How much less similar than the positive a mined negative must be, as a part of the positive's similarity
    #[arg(long, hide_short_help = true, value_name = "P", default_value_t = 0.05)]
    mine_margin: f32,

    /// Maximum number of tokens of a forward pass
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 8192, value_parser = crate::values::items)]
    micro_tokens: usize,
}

/// How texts become vectors.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Vectors")]
struct VectorArguments {
    /// How the token vectors of a text are pooled
    #[arg(long, default_value = "auto", hide_possible_values = true, value_parser = crate::values::named(&PoolChoice::ALL))]
    pool: PoolChoice,

    /// A new dense layer of this width after the pooling
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = crate::values::positive)]
    dense: Option<usize>,

    /// Maximum number of tokens of a text; longer texts are truncated [default: the model's]
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    max_len: Option<usize>,

    /// Prompt before each anchor; "" for none [default: the model's prompt "query"]
    #[arg(long, value_name = "TEXT")]
    query_prompt: Option<String>,

    /// Prompt before all other texts; "" for none [default: the model's prompt "document"]
    #[arg(long, value_name = "TEXT")]
    document_prompt: Option<String>,
}

const COMPARE: [(Compare, &str, &str); 2] =
    [(Compare::Cosine, "cosine", "The cosine"), (Compare::Dot, "dot", "The dot product")];
const CANDIDATES: [(Candidates, &str, &str); 2] = [
    (Candidates::InBatch, "in-batch", "With all texts of the batch"),
    (Candidates::Own, "own", "With the negatives of their row"),
];
const HARDNESS: [(Hardness, &str, &str); 3] = [
    (Hardness::InBatch, "in-batch", "The texts of other rows"),
    (Hardness::Hard, "hard", "The negatives of the row"),
    (Hardness::All, "all", "Both"),
];
const DISTANCE: [(Distance, &str, &str); 2] =
    [(Distance::Euclidean, "euclidean", "The Euclidean distance"), (Distance::Cosine, "cosine", "1 - cosine")];

/// Examples for the help, one per line.
const EXAMPLES: [&str; 3] = [
    "cloze finetune embed --model all-MiniLM-L6-v2 --train pairs.tsv --dev dev.tsv --out runs/search",
    "cloze finetune embed --model runs/mini --train sts.tsv --anchor sentence1 --positive sentence2 --score score --out runs/sts",
    "cloze finetune embed --model runs/mini --train lines.txt --batch 512 --lr 3e-5 --out runs/simcse",
];

fn column(text: &str) -> Result<Column, String> {
    Column::parse(text).map_err(|e| e.to_string())
}

impl Arguments {
    /// The settings for these rows.
    fn settings(&self, rows: &[TextRow]) -> EmbedSettings {
        let loss = &self.objective;
        let mut settings = EmbedSettings::default();
        settings.loss = loss.loss.unwrap_or(match rows.first() {
            Some(row) if row.scores.len() == 1 && row.negatives.is_empty() && row.positives.len() == 1 => {
                LossKind::Cosent
            }
            Some(row) if row.scores.len() > 1 && row.scores.len() == row.positives.len() + row.negatives.len() => {
                LossKind::Kl
            }
            _ => LossKind::InfoNce,
        });
        settings.temperature = loss.temperature;
        settings.learn_temperature = loss.learn_temperature;
        settings.compare = loss.compare;
        settings.candidates = loss.candidates;
        settings.symmetric = loss.symmetric;
        settings.hardness = loss.hardness;
        settings.hardness_strength = loss.hardness_strength;
        settings.distance = loss.distance;
        settings.margin = loss.margin;
        settings.deletion_ratio = loss.deletion_ratio;
        settings.mine_every = loss.mine_every;
        settings.mine_negatives = loss.mine_negatives;
        settings.mine_margin = loss.mine_margin;
        settings.dimensions = loss.dimensions.clone();
        settings.micro_tokens = loss.micro_tokens;
        settings.dense = self.vectors.dense;
        if settings.loss == LossKind::Denoising {
            // A text has no negatives in its batch: small steps learn more. The paper: 8.
            settings.training.batch = 32;
        }
        settings.training = self.training.settings_or(settings.training);
        settings.training.special_tokens = self.data.special_tokens.given();
        settings
    }

    fn options(&self) -> Options {
        let prompt = |given: &Option<String>| given.clone().map_or(Prompt::Auto, Prompt::Text);
        let mut options = Options::default();
        options.pool = self.vectors.pool;
        options.max_len = self.vectors.max_len;
        options.prompts.query = prompt(&self.vectors.query_prompt);
        options.prompts.document = prompt(&self.vectors.document_prompt);
        options.special_tokens = self.data.special_tokens.given();
        options
    }

    /// The rows of files.
    fn rows(&self, paths: &[PathBuf], terminal: &Terminal) -> Result<Vec<TextRow>> {
        let DataArguments { anchor, positive, negative, score, format, skip_bad, .. } = &self.data;
        let mut columns = Columns::default();
        columns.anchor.clone_from(anchor);
        columns.positives.clone_from(positive);
        columns.negatives.clone_from(negative);
        columns.scores.clone_from(score);
        let mut rows: FileRows<TextRow> = Vec::new();
        for path in paths {
            rows.append(&mut read(path, &columns, *format)?);
        }
        if !skip_bad {
            return Ok(rows.into_iter().collect::<Result<Vec<TextRow>, TaskError>>()?);
        }
        let all = rows.len();
        let mut first = None;
        let usable: Vec<TextRow> =
            rows.into_iter().filter_map(|row| row.map_err(|e| first.get_or_insert(e.to_string()).len()).ok()).collect();
        if let Some(first) = first {
            let skipped = format::count((all - usable.len()) as u64);
            terminal.warn(&format!(
                "rows that cannot be used, skipped: {skipped} of {}; the first: {first}",
                format::count(all as u64)
            ));
        }
        Ok(usable)
    }
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    check_files(arguments.train.iter().chain(&arguments.dev))?;
    if arguments.vectors.pool == PoolChoice::Last4 {
        return Err(usage(
            "--pool last4: a sentence-transformers folder has only the last layer; choose another pooling",
        ));
    }
    let ranks = crate::ranks::current();
    if !ranks.is_single() && arguments.dry_run {
        return Err(usage("--dry-run runs in one process"));
    }
    if !arguments.resume && ranks.is_root() {
        RunFolder::new(&arguments.out).check_new()?;
    }
    let device = device_of_ranks(ranks, terminal.threads, || {
        let device = terminal.open_device()?;
        Ok::<_, anyhow::Error>(if arguments.resume { device_of_run(&arguments.out, &device)? } else { device })
    })?;
    let mut rows = arguments.rows(&arguments.train, terminal)?;
    if let Some(limit) = arguments.data.limit {
        rows.truncate(limit);
    }
    let dev = arguments.rows(&arguments.dev, terminal)?;
    let settings = arguments.settings(&rows);
    settings.validate()?;
    let model = arguments.hub.find(&arguments.model, Contents::Vectors, terminal)?;
    let options = arguments.options();
    let stop = crate::interrupt::stop();
    let embed_run = EmbedRun {
        train: &rows,
        dev: &dev,
        files: [&arguments.train, &arguments.dev],
        model: &model,
        options: &options,
        settings: &settings,
        out: &arguments.out,
        resume: arguments.resume,
        device: &device,
        ranks,
    };
    let loss = settings.loss.name();
    terminal.note(&format!(
        "{} training rows, {} dev rows, loss {loss}",
        format::count(rows.len() as u64),
        format::count(dev.len() as u64)
    ));
    if arguments.dry_run {
        let Some(estimate) = dry_run(&embed_run, stop)? else { return Ok(ExitCode::from(INTERRUPTED)) };
        let mut out = crate::output::stdout();
        if arguments.json {
            let line = json!({
                "dry_run": true, "out": format::path(&arguments.out), "steps": estimate.steps, "evaluations": estimate.evaluations,
                "seconds": estimate.seconds, "peak_rss_bytes": cloze_files::machine::peak_memory(),
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{}", describe_estimate(&estimate))?;
            writeln!(out, "nothing was written; without --dry-run the run folder is {}", arguments.out.display())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bar = terminal.progress_timed("training");
    let mut graceful_stop = None;
    let outcome = train(&embed_run, stop, &mut |event| {
        if let Event::Start(_) = event {
            graceful_stop = Some(GracefulStop::begin());
        }
        show_event(&bar, event);
    });
    bar.finish();
    let outcome = outcome?;
    write(arguments, &outcome, &settings, [rows.len(), dev.len()])?;
    Ok(if outcome.finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

fn write(arguments: &Arguments, outcome: &Outcome, settings: &EmbedSettings, rows: [usize; 2]) -> Result<()> {
    let mut out = crate::output::stdout();
    if arguments.json {
        let line = json!({
            "out": format::path(&arguments.out),
            "finished": outcome.finished,
            "model": outcome.model.as_deref().map(format::path),
            "loss": settings.loss.name(),
            "train_rows": rows[0],
            "dev_rows": rows[1],
            "best": outcome.best,
            "steps": outcome.steps,
            "train_seconds": outcome.train_seconds,
            "peak_rss_bytes": cloze_files::machine::peak_memory(),
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    if let Some(best) = &outcome.best {
        let scores = best.scores.as_object().into_iter().flatten();
        let values: Vec<String> = scores
            .filter(|(name, value)| value.is_f64() && *name != "rows")
            .map(|(name, value)| format!("{name} {:.4}", value.as_f64().unwrap_or(f64::NAN)))
            .collect();
        writeln!(out, "epoch {:.2}: dev loss {:.4}, {}", best.epoch, best.loss, values.join(", "))?;
    }
    match &outcome.model {
        Some(model) if outcome.finished => {
            writeln!(out, "model in {}, trained for {}", model.display(), format::duration(outcome.train_seconds))?;
            writeln!(out, "try it: {}", example(&arguments.out))?;
        }
        _ => writeln!(out, "interrupted and saved; continue with the same command and --resume")?,
    }
    Ok(())
}

/// A command to try the model.
fn example(out: &Path) -> String {
    format!("{} embed --model {} --input lines.txt --out lines.npy", program::name(), program::quoted(out.display()))
}
