//! The kinds of tasks, and which options concern which of them.

use anyhow::Result;
use cloze_model::TaskHead;
use cloze_tasks::datasets::known::TaskKind;
use cloze_tasks::files::FromFiles;
use cloze_tasks::tasks::answering::Answering;
use cloze_tasks::tasks::choose::Choose;
use cloze_tasks::tasks::classify::Classify;
use cloze_tasks::tasks::regress::Regress;
use cloze_tasks::tasks::tag::Tag;

/// A kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Classify,
    Regress,
    Tag,
    Answer,
    Choose,
}

/// The options that concern some kinds of tasks alone, by the parser's ids; all others concern every kind.
const ONLY_FOR: [(&str, &[Kind]); 17] = [
    ("text", &[Kind::Classify, Kind::Regress, Kind::Tag]),
    ("pair", &[Kind::Classify, Kind::Regress]),
    ("label", &[Kind::Classify, Kind::Regress]),
    ("labels", &[Kind::Classify, Kind::Tag]),
    ("metric", &[Kind::Classify, Kind::Regress]),
    ("stride", &[Kind::Classify, Kind::Regress, Kind::Answer]),
    ("max_question", &[Kind::Answer]),
    ("max_answer", &[Kind::Answer]),
    ("n_best", &[Kind::Answer]),
    ("null_threshold", &[Kind::Answer]),
    ("tag_format", &[Kind::Tag]),
    ("tag_column", &[Kind::Tag]),
    ("context", &[Kind::Tag]),
    ("no_context", &[Kind::Tag]),
    ("skip_bad", &[Kind::Classify, Kind::Regress, Kind::Answer]),
    ("features", &[Kind::Tag]),
    ("class_weights", &[Kind::Classify, Kind::Tag]),
];

/// Why files of tagged words take no --text.
pub const NO_TEXT_COLUMN: (&str, &str) =
    ("text", "a file of tagged words has no column of texts; see --tag-format and --tag-column");

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Classify, Kind::Regress, Kind::Tag, Kind::Answer, Kind::Choose];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Classify => "classify",
            Kind::Regress => "regress",
            Kind::Tag => "tag",
            Kind::Answer => "answer",
            Kind::Choose => "choose",
        }
    }

    /// What a model of this kind predicts.
    pub fn about(self) -> &'static str {
        match self {
            Kind::Classify => "a label for each text or pair of texts",
            Kind::Regress => "a number for each text or pair of texts",
            Kind::Tag => "a label for each word: names, parts of speech",
            Kind::Answer => "the part of a paragraph that answers a question",
            Kind::Choose => "the right one of several endings",
        }
    }

    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kinds that an option concerns.
    pub fn with_option(option: &str) -> &'static [Kind] {
        ONLY_FOR.iter().find(|(name, _)| *name == option).map_or(&Kind::ALL, |(_, kinds)| kinds)
    }

    /// The kind of task that a head is for.
    pub fn of_head(head: TaskHead) -> Kind {
        match head {
            TaskHead::Classify { labels: 1 } => Kind::Regress,
            TaskHead::Classify { .. } => Kind::Classify,
            TaskHead::Tag { .. } => Kind::Tag,
            TaskHead::Answer => Kind::Answer,
            TaskHead::Choose => Kind::Choose,
        }
    }

    /// The names of all kinds, for people.
    pub fn names() -> String {
        let [others @ .., last] = Kind::ALL.map(Kind::name);
        format!("{} or {last}", others.join(", "))
    }
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

/// Something to do with a task of any kind.
pub trait ForTask {
    type Outcome;
    fn run<T: FromFiles>(self) -> Result<Self::Outcome>;
}

pub fn for_kind<F: ForTask>(kind: Kind, what: F) -> Result<F::Outcome> {
    match kind {
        Kind::Classify => what.run::<Classify>(),
        Kind::Regress => what.run::<Regress>(),
        Kind::Tag => what.run::<Tag>(),
        Kind::Answer => what.run::<Answering>(),
        Kind::Choose => what.run::<Choose>(),
    }
}
