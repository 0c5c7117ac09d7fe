//! Which heads are on the encoder, and the class of model that they make.

use std::fmt;

use crate::architecture::Architecture;
use crate::error::ModelError;
use crate::role::{Head, Module, Role};

/// The heads of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Heads {
    /// tanh dense on `[CLS]`.
    pub pooler: bool,
    /// Masked-language-model head, its decoder tied to the word embeddings as a rule.
    pub mlm: bool,
    /// Next-sentence head on the pooler's output.
    pub nsp: bool,
    /// The head of a task to fine-tune on.
    pub task: Option<TaskHead>,
}

/// The head of a task (Devlin et al. 2019, section 4 and figure 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskHead {
    /// Logits of a sequence from the pooler's output. One label is a regression. `BertForSequenceClassification`.
    Classify {
        /// C: the logits.
        labels: usize,
    },
    /// Logits of tokens. `BertForTokenClassification`.
    Tag {
        /// C: the logits of a token.
        labels: usize,
        /// How many last layers' states the head reads, concatenated: 1, or more for the feature-based approach (section 5.3), for
        /// which Transformers has no class.
        layers: usize,
    },
    /// A start and an end logit for each token. `BertForQuestionAnswering`.
    Answer,
    /// One logit of a sequence, a choice, from the pooler's output. `BertForMultipleChoice`.
    Choose,
}

/// What a model is for, as Transformers sorts its classes; [`Schema::class_name`](crate::Schema::class_name) gives their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Hidden states, and the pooler's output where there is one.
    Encoder,
    /// MLM and next sentence.
    Pretraining,
    /// MLM alone.
    MaskedLm,
    /// The next token from those before it.
    CausalLm,
    /// Next sentence alone.
    NextSentence,
    /// Labels or values of sequences.
    Classify,
    /// Labels of tokens.
    Tag,
    /// Start and end of an answer.
    Answer,
    /// One of several choices.
    Choose,
}

impl TaskHead {
    /// Whether it reads the pooler's output.
    pub const fn is_pooled(self) -> bool {
        matches!(self, TaskHead::Classify { .. } | TaskHead::Choose)
    }

    /// C: the logits side by side, of a sequence or of a token.
    pub fn logits(self) -> usize {
        self.shape(0)[0]
    }

    /// Where its parameters are.
    pub(crate) fn module(self) -> Module {
        if self == TaskHead::Answer { Module::SpanHead } else { Module::Classifier }
    }

    /// Shape of its weight, given the encoder's width.
    pub(crate) fn shape(self, hidden: usize) -> [usize; 2] {
        match self {
            TaskHead::Classify { labels } => [labels, hidden],
            TaskHead::Tag { labels, layers } => [labels, layers * hidden],
            TaskHead::Answer => [2, hidden],
            TaskHead::Choose => [1, hidden],
        }
    }
}

impl Heads {
    /// No head at all: the encoder's hidden states.
    pub const NONE: Heads = Heads { pooler: false, mlm: false, nsp: false, task: None };
    /// MLM and NSP: the paper's pre-training, `BertForPreTraining`.
    pub const PRETRAINING: Heads = Heads { pooler: true, mlm: true, nsp: true, ..Heads::NONE };
    /// MLM alone: `BertForMaskedLM`.
    pub const MLM: Heads = Heads { mlm: true, ..Heads::NONE };
    /// NSP alone: `BertForNextSentencePrediction`.
    pub const NSP: Heads = Heads { pooler: true, nsp: true, ..Heads::NONE };
    /// Encoder and pooler: `BertModel`.
    pub const ENCODER: Heads = Heads { pooler: true, ..Heads::NONE };

    /// The head of a task, with the pooler if it reads its output.
    pub const fn of(task: TaskHead) -> Heads {
        Heads { pooler: task.is_pooled(), task: Some(task), ..Heads::NONE }
    }

    /// The class of a model with these heads. A pooler beside the MLM head alone counts as a masked language model, whose class in
    /// Transformers leaves it aside when it opens the folder.
    pub fn class(self, causal: bool) -> Class {
        match (self.task, self.mlm, self.nsp) {
            (Some(TaskHead::Classify { .. }), ..) => Class::Classify,
            (Some(TaskHead::Tag { .. }), ..) => Class::Tag,
            (Some(TaskHead::Answer), ..) => Class::Answer,
            (Some(TaskHead::Choose), ..) => Class::Choose,
            (None, true, true) => Class::Pretraining,
            (None, true, false) if causal => Class::CausalLm,
            (None, true, false) => Class::MaskedLm,
            (None, false, true) => Class::NextSentence,
            (None, false, false) => Class::Encoder,
        }
    }

    /// Whether this head is among them.
    pub fn has(self, head: Head) -> bool {
        match head {
            Head::Pooler => self.pooler,
            Head::Mlm => self.mlm,
            Head::Nsp => self.nsp,
            Head::Classifier | Head::Span => self.task.is_some_and(|task| task.module().head() == Some(head)),
        }
    }

    /// The heads that a config promises by its class (`promised`) or whose tensors are stored (`some`): a promised head without tensors
    /// is then reported missing. `labels` are those that the config names, `shape_of` gives the shape of a stored tensor.
    pub(crate) fn found(
        promised: impl Fn(Class) -> bool,
        some: impl Fn(Head) -> bool,
        shape_of: impl Fn(Role) -> Option<Vec<usize>>,
        labels: Option<usize>,
        hidden: usize,
    ) -> Heads {
        let pretraining = promised(Class::Pretraining);
        let mlm = pretraining || promised(Class::MaskedLm) || promised(Class::CausalLm) || some(Head::Mlm);
        let nsp = pretraining || promised(Class::NextSentence) || some(Head::Nsp);
        let pooler = some(Head::Pooler);

        let stored = shape_of(Module::Classifier.weight());
        let labels = stored.as_ref().and_then(|shape| shape.first().copied()).or(labels).unwrap_or(2);
        let width = stored.as_ref().and_then(|shape| shape.get(1).copied()).unwrap_or(hidden);
        let layers = (width / hidden.max(1)).max(1);
        let task = if promised(Class::Classify) {
            Some(TaskHead::Classify { labels })
        } else if promised(Class::Tag) {
            Some(TaskHead::Tag { labels, layers })
        } else if promised(Class::Answer) {
            Some(TaskHead::Answer)
        } else if promised(Class::Choose) {
            Some(TaskHead::Choose)
        } else if stored.is_some() {
            // No class says what it is: only a sequence's logits stand on a pooler.
            Some(if pooler { TaskHead::Classify { labels } } else { TaskHead::Tag { labels, layers } })
        } else {
            some(Head::Span).then_some(TaskHead::Answer)
        };
        Heads { pooler: pooler || nsp || task.is_some_and(TaskHead::is_pooled), mlm, nsp, task }
    }

    pub(crate) fn validate(self, architecture: &Architecture) -> Result<(), ModelError> {
        let fail = |problem: String| Err(ModelError::Heads { found: self.to_string(), problem });
        if self.nsp && !self.pooler {
            return fail("the next-sentence head stands on the pooler; ask for both or neither".to_owned());
        }
        if self.task.is_some_and(TaskHead::is_pooled) && !self.pooler {
            return fail("the task's head stands on the pooler; ask for both".to_owned());
        }
        if architecture.causal && (self.nsp || self.task.is_some()) {
            return fail(
                "in a causal model (is_decoder) [CLS] sees nothing: expected the language-model head or none"
                    .to_owned(),
            );
        }
        let most = architecture.layers + 1;
        match self.task {
            Some(TaskHead::Classify { labels: 0 } | TaskHead::Tag { labels: 0, .. }) => {
                fail("a task needs at least one label".to_owned())
            }
            Some(TaskHead::Tag { layers, .. }) if !(1..=most).contains(&layers) => {
                fail(format!("features from {layers} layers: the model has 1 to {most}, the embeddings among them"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Heads {
    /// The names of the heads present, such as `pooler + mlm + nsp`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("pooler", self.pooler), ("mlm", self.mlm), ("nsp", self.nsp)];
        let mut present: Vec<String> = named.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()).collect();
        present.extend(self.task.map(|task| match task {
            TaskHead::Classify { labels: 1 } => "regress".to_owned(),
            TaskHead::Classify { labels } => format!("classify ({labels} labels)"),
            TaskHead::Tag { labels, layers: 1 } => format!("tag ({labels} labels)"),
            TaskHead::Tag { labels, layers } => format!("tag ({labels} labels, from {layers} layers)"),
            TaskHead::Answer => "answer".to_owned(),
            TaskHead::Choose => "choose".to_owned(),
        }));
        f.write_str(if present.is_empty() { "none".to_owned() } else { present.join(" + ") }.as_str())
    }
}
