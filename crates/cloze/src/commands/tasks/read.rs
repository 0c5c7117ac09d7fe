//! How the files of a task are read: as the command line says, as a fine-tuned model was trained, as the known task has it.

use anyhow::Result;
use cloze_tasks::answer::ExtractOptions;
use cloze_tasks::datasets::known::{Known, Metric};
use cloze_tasks::datasets::table::Column;
use cloze_tasks::datasets::tagged::TagFormat;
use cloze_tasks::files::{Options, TrainedOn};

use super::Kind;
use super::remembered::Remembered;
use crate::commands::usage;

/// How the files of a task are read.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct DataArguments {
    /// A task known by name, with its columns, labels, metrics and the paper's settings: sst2, cola, mrpc, rte, stsb, qnli, mnli,
    /// qqp, wnli, squad1, squad2, conll2003, swag
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,

    /// Column of the text, by name or number (#4) [default: the model's, or text]
    #[arg(long, value_name = "COLUMN")]
    pub text: Option<String>,

    /// Column of the second text, for pairs [default: the model's]
    #[arg(long, value_name = "COLUMN")]
    pub pair: Option<String>,

    /// Column of the label or number [default: the model's, or label]
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,

    /// The labels in order [default: those of the checkpoint, or those found in the training rows, sorted]
    #[arg(long, hide_short_help = true, value_name = "A,B,…", value_delimiter = ',')]
    pub labels: Option<Vec<String>>,

    /// The score that decides which model is best: accuracy, f1 or matthews to classify, pearson or spearman to regress
    #[arg(long, hide_short_help = true, value_enum, value_name = "SCORE")]
    metric: Option<MetricName>,

    /// Tokens of a sequence at most [default: the model's or the task's; 128, to answer 384]
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    max_len: Option<usize>,

    /// Read long texts in windows that begin N tokens apart instead of cutting them off; their logits are averaged. 0: cut
    /// them off though the model was trained otherwise [default: the model's; to answer 128]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,

    /// Tokens of a question at most
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = crate::positive)]
    max_question: Option<usize>,

    /// Tokens of an answer at most
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = crate::positive)]
    max_answer: Option<usize>,

    /// Answers listed for each question
    #[arg(long, value_name = "N", value_parser = crate::positive)]
    n_best: Option<usize>,

    /// Questions may have no answer (SQuAD 2.0): "none" is preferred where its score exceeds the best answer's by more than this;
    /// inf: never
    #[arg(long, hide_short_help = true, value_name = "THRESHOLD", num_args = 0..=1, default_missing_value = "0", allow_negative_numbers = true)]
    null_threshold: Option<f32>,

    /// How tagged words are written [default: found out]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub tag_format: Option<TagFormatName>,

    /// Column of the tag, from 1 [default: the last one; of CoNLL-U the fourth, UPOS]
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = crate::positive)]
    pub tag_column: Option<usize>,

    /// A tagger sees what surrounds a sentence in its document, as far as it fits
    #[arg(long, overrides_with = "no_context")]
    context: bool,

    /// A tagger sees each sentence alone, though the model was trained with --context
    #[arg(long, hide_short_help = true, overrides_with = "context")]
    no_context: bool,

    /// Leave out and count rows of too few or too many columns and answers that are not in their paragraph, instead of stopping
    #[arg(long, hide_short_help = true)]
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
pub enum TagFormatName {
    /// Columns between white space, one word a line (CoNLL-2003)
    Columns,
    /// `en:word`, a tab, the tag
    Wikiann,
    /// CoNLL-U
    Conllu,
}

impl TagFormatName {
    fn name(self) -> &'static str {
        match self {
            TagFormatName::Columns => "columns",
            TagFormatName::Wikiann => "wikiann",
            TagFormatName::Conllu => "conllu",
        }
    }

    fn named(name: &str) -> Option<TagFormatName> {
        <TagFormatName as clap::ValueEnum>::from_str(name, false).ok()
    }
}

impl DataArguments {
    /// The task known by the name given.
    pub fn known(&self) -> Result<Option<Known>> {
        Ok(self.task.as_deref().map(Known::named).transpose()?)
    }

    /// The kind of task: as asked, as the known task is; none if neither says.
    pub fn kind(&self, asked: Option<Kind>) -> Result<Option<Kind>> {
        let known = self.known()?.map(|known| Kind::from(known.kind));
        match (asked, known) {
            (Some(asked), Some(known)) if asked != known => {
                let name = self.task.as_deref().unwrap_or_default();
                Err(usage(format!("{name} is a task to {}, not to {}", known.name(), asked.name())))
            }
            _ => Ok(asked.or(known)),
        }
    }

    /// Refuses what cannot have an effect on a task of this kind.
    pub fn check(&self, kind: Kind) -> Result<()> {
        if self.stride == Some(0) && kind == Kind::Answer {
            return Err(usage("--stride 0: paragraphs are always read in windows to answer; give a number above 0"));
        }
        let given = [
            ("text", self.text.is_some()),
            ("pair", self.pair.is_some()),
            ("label", self.label.is_some()),
            ("labels", self.labels.is_some()),
            ("stride", self.stride.is_some()),
            ("max_question", self.max_question.is_some()),
            ("max_answer", self.max_answer.is_some()),
            ("n_best", self.n_best.is_some()),
            ("null_threshold", self.null_threshold.is_some()),
            ("tag_format", self.tag_format.is_some()),
            ("tag_column", self.tag_column.is_some()),
            ("context", self.context),
            ("no_context", self.no_context),
            ("skip_bad", self.skip_bad),
        ];
        let wrong = given.into_iter().find(|(option, given)| *given && !Kind::with_option(option).contains(&kind));
        let Some((option, _)) = wrong else { return Ok(()) };
        let names: Vec<&str> = Kind::with_option(option).iter().map(|kind| kind.name()).collect();
        Err(usage(format!(
            "--{} has no effect where the task is to {}; it is for {}",
            option.replace('_', "-"),
            kind.name(),
            names.join(", ")
        )))
    }

    /// How rows are read: as asked, else as a fine-tuned model remembers, else as the known task and the paper have it.
    pub fn options(&self, kind: Kind, remembered: &Remembered) -> Result<Options> {
        self.check(kind)?;
        let named = self.task.as_deref().or(remembered.task.as_deref());
        let known = named.map(Known::named).transpose()?.filter(|known| Kind::from(known.kind) == kind);
        let settings = known.as_ref().map(|known| known.settings);
        let default_length = if kind == Kind::Answer { 384 } else { 128 };
        let unanswerable = known.as_ref().is_some_and(|known| known.name == "squad2");
        let default = ExtractOptions::default();
        // Another task's files have neither the documents nor the lengths of those that the model was trained on.
        let alike = if self.is_other_task(known.as_ref(), remembered) { &Remembered::default() } else { remembered };
        let stride = self.stride.or(alike.stride).or(settings.and_then(|settings| settings.stride));
        Ok(Options {
            columns: columns([&self.text, &self.pair, &self.label])?,
            trained_on: self.trained_on(known.as_ref(), remembered)?,
            labels: self.labels.clone(),
            metric: self.metric(kind, remembered.metric.as_deref())?,
            max_len: self
                .max_len
                .or(remembered.max_len)
                .or(settings.map(|settings| settings.max_length))
                .unwrap_or(default_length),
            stride: stride.filter(|stride| *stride > 0),
            max_question: self
                .max_question
                .or(remembered.max_question)
                .or(settings.and_then(|settings| settings.max_question))
                .unwrap_or(64),
            extract: ExtractOptions {
                n_best: self.n_best.unwrap_or(default.n_best),
                max_answer: self.max_answer.or(remembered.max_answer).unwrap_or(default.max_answer),
                null_threshold: self.null_threshold.or(alike.null_threshold).or(unanswerable.then_some(0.0)),
            },
            tag_format: self.tag_format(remembered)?,
            context: (self.context || alike.context) && !self.no_context,
            layers: 1,
            skip_bad: self.skip_bad,
            known,
            ..Options::default()
        })
    }

    /// What a fine-tuned model is to remember of how its rows were read and scored: what predicting and evaluating take for their
    /// defaults. --skip-bad is not among it: a row is left out of other files only where somebody asks for it.
    pub fn to_remember(&self, kind: Kind, options: &Options) -> Remembered {
        Remembered {
            text: self.text.clone(),
            pair: self.pair.clone(),
            label: self.label.clone(),
            tag_format: self.tag_format.map(|format| format.name().to_owned()),
            tag_column: self.tag_column,
            ..Remembered::of(kind, options)
        }
    }

    /// Whether the command line names another task than the model was trained on.
    fn is_other_task(&self, known: Option<&Known>, remembered: &Remembered) -> bool {
        self.task.is_some() && known.map(|known| known.name) != remembered.task.as_deref()
    }

    /// How the training files were read, unless the command line says that these are another task's.
    fn trained_on(&self, known: Option<&Known>, remembered: &Remembered) -> Result<TrainedOn> {
        if self.is_other_task(known, remembered) {
            return Ok(TrainedOn::default());
        }
        let format = remembered.tag_format.as_deref().and_then(TagFormatName::named);
        Ok(TrainedOn {
            columns: columns([&remembered.text, &remembered.pair, &remembered.label])?,
            tag_format: tag_format(format, remembered.tag_column)?,
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
            let kind = kind.name();
            let problem =
                format!("--metric is for classify and regress; a task to {kind} is judged by the field's own score");
            return Err(usage(problem));
        }
        if !fits.contains(&metric) {
            let names: Vec<&str> = fits.iter().map(|fit| fit.name()).collect();
            let (metric, kind, names) = (metric.name(), kind.name(), names.join(" or "));
            return Err(usage(format!("--metric {metric}: a task to {kind} is judged by {names}")));
        }
        Ok(Some(metric))
    }

    /// How tagged words are written, if the command line says anything of it: a column alone is one of the model's format.
    fn tag_format(&self, remembered: &Remembered) -> Result<Option<TagFormat>> {
        let trained = || remembered.tag_format.as_deref().and_then(TagFormatName::named);
        let name = self.tag_format.or_else(|| self.tag_column.and_then(|_| trained()));
        tag_format(name, self.tag_column)
    }
}

fn columns(names: [&Option<String>; 3]) -> Result<[Option<Column>; 3]> {
    let mut columns = [None, None, None];
    for (column, name) in columns.iter_mut().zip(names) {
        *column = name.as_deref().map(Column::parse).transpose()?;
    }
    Ok(columns)
}

fn tag_format(name: Option<TagFormatName>, column: Option<usize>) -> Result<Option<TagFormat>> {
    Ok(match (name, column) {
        (None, None) => None,
        (Some(TagFormatName::Wikiann), None) => Some(TagFormat::WikiAnn),
        (Some(TagFormatName::Wikiann), Some(_)) => {
            return Err(usage("--tag-column: WikiANN's lines have one tag only"));
        }
        (Some(TagFormatName::Conllu), column) => Some(column.map_or(TagFormat::UPOS, |tag| TagFormat::ConllU { tag })),
        (Some(TagFormatName::Columns) | None, tag) => Some(TagFormat::Columns { word: 1, tag }),
    })
}
