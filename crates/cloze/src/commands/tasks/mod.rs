//! The commands about tasks, and what they share: which task, how its files are read.

pub mod evaluate;
pub mod finetune;
pub mod predict;
mod runs;
pub mod sweep;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cloze_engine::Device;
use cloze_model::{Config, ModelError};
use cloze_tasks::Network;
use cloze_tasks::answer::ExtractOptions;
use cloze_tasks::datasets::known::{Known, Metric, TaskKind};
use cloze_tasks::datasets::table::Column;
use cloze_tasks::datasets::tagged::TagFormat;
use cloze_tasks::files::{FromFiles, Options};
use cloze_tasks::finetune::REMEMBERED;
use cloze_tasks::tasks::answering::Answering;
use cloze_tasks::tasks::choose::Choose;
use cloze_tasks::tasks::classify::Classify;
use cloze_tasks::tasks::regress::Regress;
use cloze_tasks::tasks::tag::Tag;
use serde_json::{Value, json};

use super::precision::Type;
use crate::terminal::Terminal;

/// A kind of task as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A label for a text or a pair
    Classify,
    /// A number for a text or a pair
    Regress,
    /// A label for each word: names, parts of speech
    Tag,
    /// The part of a paragraph that answers a question
    Answer,
    /// The right one of several endings
    Choose,
}

impl From<TaskKind> for Kind {
    fn from(kind: TaskKind) -> Kind {
        match kind {
            TaskKind::Classify => Kind::Classify,
            TaskKind::Regress => Kind::Regress,
            TaskKind::Tag => Kind::Tag,
            TaskKind::Answer => Kind::Answer,
            TaskKind::Choose => Kind::Choose,
        }
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Classify => "classify",
            Kind::Regress => "regress",
            Kind::Tag => "tag",
            Kind::Answer => "answer",
            Kind::Choose => "choose",
        }
    }
}

/// Something to do with a task of any kind.
trait ForTask {
    type Outcome;
    fn run<T: FromFiles>(self) -> Result<Self::Outcome>;
}

fn for_kind<F: ForTask>(kind: Kind, what: F) -> Result<F::Outcome> {
    match kind {
        Kind::Classify => what.run::<Classify>(),
        Kind::Regress => what.run::<Regress>(),
        Kind::Tag => what.run::<Tag>(),
        Kind::Answer => what.run::<Answering>(),
        Kind::Choose => what.run::<Choose>(),
    }
}

/// How the files of a task are read.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct DataArguments {
    /// A task known by name: sst2, cola, mrpc, rte, stsb, qnli, mnli, qqp, wnli, squad1, squad2, conll2003, swag. Its columns,
    /// labels, metrics and the paper's settings are taken unless said otherwise
    #[arg(long, value_name = "NAME")]
    task: Option<String>,

    /// Column of the text, by name or number (#4) [default: text]
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,

    /// Column of the second text, for pairs
    #[arg(long, value_name = "COLUMN")]
    pair: Option<String>,

    /// Column of the label or number [default: label]
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,

    /// The labels in order [default: those of the checkpoint, or those found in the training rows, sorted]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    labels: Option<Vec<String>>,

    /// The score that decides which model is best: accuracy, f1 or matthews to classify, pearson or spearman to regress
    #[arg(long, value_enum, value_name = "SCORE")]
    metric: Option<MetricName>,

    /// Tokens of a sequence at most [default: the task's; 128, to answer 384]
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    max_len: Option<usize>,

    /// Read long texts in windows that begin N tokens apart, their logits averaged, instead of cutting them off; to answer, the
    /// step from one window of a paragraph to the next [default to answer: 128]
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    stride: Option<usize>,

    /// Tokens of a question at most
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    max_question: Option<usize>,

    /// Tokens of an answer at most
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    max_answer: Option<usize>,

    /// Answers listed for each question
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    n_best: Option<usize>,

    /// Questions may have no answer (SQuAD 2.0): "none" is preferred where its score exceeds the best answer's by more than this
    #[arg(long, value_name = "THRESHOLD", num_args = 0..=1, default_missing_value = "0", allow_negative_numbers = true)]
    null_threshold: Option<f32>,

    /// How tagged words are written [default: found out]
    #[arg(long, value_enum, value_name = "FORMAT")]
    tag_format: Option<TagFormatName>,

    /// Column of the tag, from 1 [default: the last one; of CoNLL-U the fourth, UPOS]
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    tag_column: Option<usize>,

    /// A tagger sees what surrounds a sentence in its document, as far as it fits
    #[arg(long)]
    context: bool,

    /// Leave rows of too few or too many columns out, and answers that are not in their paragraph, and count them, instead of stopping
    #[arg(long)]
    skip_bad: bool,
}

/// A score as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum MetricName {
    Accuracy,
    F1,
    Matthews,
    Pearson,
    Spearman,
}

/// A way to write tagged words as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TagFormatName {
    /// Columns between white space, one word a line (CoNLL-2003)
    Columns,
    /// `en:word`, a tab, the tag
    Wikiann,
    /// CoNLL-U
    Conllu,
}

impl DataArguments {
    /// The task known by the name given.
    fn known(&self) -> Result<Option<Known>> {
        Ok(self.task.as_deref().map(Known::named).transpose()?)
    }

    /// The kind of task: as asked, as the known task is.
    fn kind(&self, asked: Option<Kind>) -> Result<Kind> {
        let known = self.known()?.map(|known| Kind::from(known.kind));
        match (asked, known) {
            (Some(asked), Some(known)) if asked != known => {
                let name = self.task.as_deref().unwrap_or_default();
                bail!("{name} is a task to {}, not to {}", known.name(), asked.name())
            }
            (Some(kind), _) | (None, Some(kind)) => Ok(kind),
            (None, None) => bail!("which task? Say classify, regress, tag, answer or choose, or give --task NAME"),
        }
    }

    /// Refuses what cannot have an effect on a task of this kind.
    fn check(&self, kind: Kind) -> Result<()> {
        use Kind::{Answer, Classify, Regress, Tag};
        let given: [(&str, bool, &[Kind]); 13] = [
            ("--text", self.text.is_some(), &[Classify, Regress, Tag]),
            ("--pair", self.pair.is_some(), &[Classify, Regress]),
            ("--label", self.label.is_some(), &[Classify, Regress]),
            ("--labels", self.labels.is_some(), &[Classify, Tag]),
            ("--stride", self.stride.is_some(), &[Classify, Regress, Answer]),
            ("--max-question", self.max_question.is_some(), &[Answer]),
            ("--max-answer", self.max_answer.is_some(), &[Answer]),
            ("--n-best", self.n_best.is_some(), &[Answer]),
            ("--null-threshold", self.null_threshold.is_some(), &[Answer]),
            ("--tag-format", self.tag_format.is_some(), &[Tag]),
            ("--tag-column", self.tag_column.is_some(), &[Tag]),
            ("--context", self.context, &[Tag]),
            ("--skip-bad", self.skip_bad, &[Classify, Regress, Answer]),
        ];
        match given.into_iter().find(|(_, given, kinds)| *given && !kinds.contains(&kind)) {
            None => Ok(()),
            Some((option, _, kinds)) => {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                bail!("{option} has no effect where the task is to {}; it is for {}", kind.name(), names.join(", "))
            }
        }
    }

    /// How rows are read: as asked, else as a fine-tuned model remembers, else as the known task and the paper have it.
    fn options(&self, kind: Kind, model: Option<&Config>) -> Result<Options> {
        self.check(kind)?;
        let remembered = model.and_then(|config| config.extra.get(REMEMBERED)).cloned().unwrap_or(Value::Null);
        let number = |key: &str| remembered.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let named = self.task.clone().or(remembered.get("task").and_then(Value::as_str).map(str::to_owned));
        let known = named.as_deref().map(Known::named).transpose()?.filter(|known| Kind::from(known.kind) == kind);
        let settings = known.as_ref().map(|known| known.settings);
        let column = |given: &Option<String>| given.as_deref().map(Column::parse).transpose();
        let default_length = if kind == Kind::Answer { 384 } else { 128 };
        let unanswerable = known.as_ref().is_some_and(|known| known.name == "squad2");
        let null_threshold = self
            .null_threshold
            .or(remembered.get("null_threshold").and_then(Value::as_f64).map(|threshold| threshold as f32))
            .or(unanswerable.then_some(0.0));
        let default = ExtractOptions::default();
        Ok(Options {
            columns: [column(&self.text)?, column(&self.pair)?, column(&self.label)?],
            labels: self.labels.clone(),
            metric: self.metric(kind, remembered.get("metric").and_then(Value::as_str))?,
            max_len: self
                .max_len
                .or(number("max_len"))
                .or(settings.map(|settings| settings.max_length))
                .unwrap_or(default_length),
            stride: self.stride.or(number("stride")).or(settings.and_then(|settings| settings.stride)),
            max_question: self
                .max_question
                .or(number("max_question"))
                .or(settings.and_then(|settings| settings.max_question))
                .unwrap_or(64),
            extract: ExtractOptions {
                n_best: self.n_best.unwrap_or(default.n_best),
                max_answer: self.max_answer.or(number("max_answer")).unwrap_or(default.max_answer),
                null_threshold,
            },
            tag_format: self.tag_format()?,
            context: self.context || remembered.get("context").and_then(Value::as_bool).unwrap_or(false),
            layers: 1,
            skip_bad: self.skip_bad,
            known,
            ..Options::default()
        })
    }

    /// The score that decides: the one that was asked for, if the task has it; else the one that chose a fine-tuned model.
    fn metric(&self, kind: Kind, remembered: Option<&str>) -> Result<Option<Metric>> {
        let fits = match kind {
            Kind::Classify => &[Metric::Accuracy, Metric::F1, Metric::Matthews][..],
            Kind::Regress => &[Metric::Pearson, Metric::Spearman],
            Kind::Tag | Kind::Answer | Kind::Choose => &[],
        };
        let metric = match self.metric {
            None => return Ok(fits.iter().copied().find(|fit| remembered == Some(fit.name()))),
            Some(MetricName::Accuracy) => Metric::Accuracy,
            Some(MetricName::F1) => Metric::F1,
            Some(MetricName::Matthews) => Metric::Matthews,
            Some(MetricName::Pearson) => Metric::Pearson,
            Some(MetricName::Spearman) => Metric::Spearman,
        };
        if fits.is_empty() {
            bail!("--metric is for classify and regress; a task to {} is judged by the field's own score", kind.name())
        }
        if !fits.contains(&metric) {
            let names: Vec<&str> = fits.iter().map(|fit| fit.name()).collect();
            bail!("--metric {}: a task to {} is judged by {}", metric.name(), kind.name(), names.join(" or "));
        }
        Ok(Some(metric))
    }

    fn tag_format(&self) -> Result<Option<TagFormat>> {
        Ok(match (self.tag_format, self.tag_column) {
            (None, None) => None,
            (Some(TagFormatName::Wikiann), None) => Some(TagFormat::WikiAnn),
            (Some(TagFormatName::Wikiann), Some(_)) => bail!("--tag-column: WikiANN's lines have one tag only"),
            (Some(TagFormatName::Conllu), column) => {
                Some(column.map_or(TagFormat::UPOS, |tag| TagFormat::ConllU { tag }))
            }
            (Some(TagFormatName::Columns) | None, tag) => Some(TagFormat::Columns { word: 1, tag }),
        })
    }
}

/// What a fine-tuned model remembers of how its rows were read and scored.
pub fn remembered(options: &Options, kind: Kind) -> Value {
    let mut value = json!({"kind": kind.name(), "max_len": options.max_len});
    if let Some(known) = &options.known {
        value["task"] = known.name.into();
    }
    if let Some(stride) = options.stride {
        value["stride"] = stride.into();
    }
    if options.context {
        value["context"] = true.into();
    }
    if let Some(metric) = options.metric {
        value["metric"] = metric.name().into();
    }
    if kind == Kind::Answer {
        value["max_question"] = options.max_question.into();
        value["max_answer"] = options.extract.max_answer.into();
        if let Some(threshold) = options.extract.null_threshold {
            value["null_threshold"] = threshold.into();
        }
    }
    value
}

/// A fine-tuned model at work, its task and how its rows are read.
struct FineTuned<T> {
    network: Network,
    task: T,
    options: Options,
}

impl<T: FromFiles> FineTuned<T> {
    fn open(
        kind: Kind,
        model: &Path,
        read: &DataArguments,
        precision: Type,
        terminal: &Terminal,
    ) -> Result<FineTuned<T>> {
        if read.labels.is_some() {
            bail!("--labels: a fine-tuned model has its labels; those of {} are in its config.json", model.display());
        }
        let device = Device::cpu(terminal.threads)?;
        let precision = precision.settle(&device, terminal).dtype(&device);
        let network = Network::open(model, device, precision)?;
        let threads = network.device.threads();
        let options = Options { threads, ..read.options(kind, Some(&network.model.config))? };
        let task = T::of_model(&options, &network.model.config, network.head(model)?, model)?;
        Ok(FineTuned { network, task, options })
    }
}

/// A model folder's configuration.
pub fn config_of(model: &Path) -> Result<Config> {
    if !model.is_dir() {
        let problem = "expected a folder with config.json and model.safetensors".to_owned();
        return Err(ModelError::Folder { path: model.to_owned(), problem }.into());
    }
    Ok(Config::read(&model.join("config.json"))?)
}

/// Files of a split that were given, or those of the known task in its folder.
fn files_or_known(
    given: &[PathBuf],
    data: Option<&PathBuf>,
    known: Option<&Known>,
    split: cloze_tasks::datasets::known::Split,
) -> Result<Vec<PathBuf>> {
    match (given, data, known) {
        ([], Some(folder), Some(known)) => Ok(vec![known.find(folder, split)?]),
        _ => Ok(given.to_vec()),
    }
}
