//! The heads of a model, and the class of model that they make.

use std::fmt;

use crate::architecture::Architecture;
use crate::error::ModelError;
use crate::role::{Head, Module, Role};

/// The heads of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Heads {
    /// Dense layer with tanh on `[CLS]`.
    pub pooler: bool,
    /// Masked-language-model head; its decoder is usually tied to the word embeddings.
    pub mlm: bool,
    /// Next-sentence head on the pooler's output.
    pub nsp: bool,
    /// The head of a fine-tuning task.
    pub task: Option<TaskHead>,
}

/// The head of a task (Devlin et al. 2019, section 4 and figure 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskHead {
    /// Logits of a sequence from the pooler's output; regression if there is one label.
    /// `BertForSequenceClassification`.
    Classify {
        /// C: number of logits.
        labels: usize,
    },
    /// Logits of tokens. `BertForTokenClassification`.
    Tag {
        /// C: number of logits per token.
        labels: usize,
        /// Number of last layers whose concatenated states are the head's input: 1, or more for the feature-based
        /// approach (section 5.3), for which Transformers has no class.
        layers: usize,
    },
    /// A start and an end logit for each token. `BertForQuestionAnswering`.
    Answer,
    /// One logit for each sequence, which is a choice, from the pooler's output. `BertForMultipleChoice`.
    Choose,
}

/// The purpose of a model, in the sense of Transformers' classes. [`Schema::class_name`](crate::Schema::class_name)
/// returns their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Hidden states, and the pooler's output if there is a pooler.
    Encoder,
    /// MLM and next sentence.
    Pretraining,
    /// Only MLM.
    MaskedLm,
    /// The next token from the tokens before it.
    CausalLm,
    /// Only next sentence.
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
    /// Whether its input is the pooler's output.
    pub const fn is_pooled(self) -> bool {
        matches!(self, TaskHead::Classify { .. } | TaskHead::Choose)
    }

    /// C: number of logits per sequence or token.
    pub fn logits(self) -> usize {
        self.shape(0)[0]
    }

    /// The module with its parameters.
    pub(crate) fn module(self) -> Module {
        if self == TaskHead::Answer { Module::SpanHead } else { Module::Classifier }
    }

    /// Shape of its weight for the given hidden size.
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
    /// No heads: only the encoder's hidden states.
    pub const NONE: Heads = Heads { pooler: false, mlm: false, nsp: false, task: None };
    /// MLM and NSP: the paper's pre-training, `BertForPreTraining`.
    pub const PRETRAINING: Heads = Heads { pooler: true, mlm: true, nsp: true, ..Heads::NONE };
    /// Only MLM: `BertForMaskedLM`.
    pub const MLM: Heads = Heads { mlm: true, ..Heads::NONE };
    /// Only NSP: `BertForNextSentencePrediction`.
    pub const NSP: Heads = Heads { pooler: true, nsp: true, ..Heads::NONE };
    /// Encoder and pooler: `BertModel`.
    pub const ENCODER: Heads = Heads { pooler: true, ..Heads::NONE };

    /// The head of a task, with the pooler if it needs that.
    pub const fn of(task: TaskHead) -> Heads {
        Heads { pooler: task.is_pooled(), task: Some(task), ..Heads::NONE }
    }

    /// The class of a model with these heads. A model with pooler and MLM head counts as a masked language model;
    /// Transformers ignores the pooler when it loads the folder.
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

    /// Whether the model has this head.
    pub fn has(self, head: Head) -> bool {
        match head {
            Head::Pooler => self.pooler,
            Head::Mlm => self.mlm,
            Head::Nsp => self.nsp,
            Head::Classifier | Head::Span => self.task.is_some_and(|task| task.module().head() == Some(head)),
        }
    }

    /// The heads that a config declares by its class (`declared`), or whose tensors are stored (`stored`). A declared
    /// head without tensors is then reported as missing. `labels` is the number of labels that the config names;
    /// `shape_of` returns the shape of a stored tensor.
    pub(crate) fn detect(
        declared: impl Fn(Class) -> bool,
        stored: impl Fn(Head) -> bool,
        shape_of: impl Fn(Role) -> Option<Vec<usize>>,
        labels: Option<usize>,
        hidden: usize,
    ) -> Heads {
        let pretraining = declared(Class::Pretraining);
        let mlm = pretraining || declared(Class::MaskedLm) || declared(Class::CausalLm) || stored(Head::Mlm);
        let nsp = pretraining || declared(Class::NextSentence) || stored(Head::Nsp);
        let pooler = stored(Head::Pooler);

        let classifier = shape_of(Module::Classifier.weight());
        let labels = classifier.as_ref().and_then(|shape| shape.first().copied()).or(labels).unwrap_or(2);
        let width = classifier.as_ref().and_then(|shape| shape.get(1).copied()).unwrap_or(hidden);
        let layers = (width / hidden.max(1)).max(1);
        let task = if declared(Class::Classify) {
            Some(TaskHead::Classify { labels })
        } else if declared(Class::Tag) {
            Some(TaskHead::Tag { labels, layers })
        } else if declared(Class::Answer) {
            Some(TaskHead::Answer)
        } else if declared(Class::Choose) {
            Some(TaskHead::Choose)
        } else if classifier.is_some() {
            // Without a class: only the classifier of sequences has a pooler.
            Some(if pooler { TaskHead::Classify { labels } } else { TaskHead::Tag { labels, layers } })
        } else {
            stored(Head::Span).then_some(TaskHead::Answer)
        };
        Heads { pooler: pooler || nsp || task.is_some_and(TaskHead::is_pooled), mlm, nsp, task }
    }

    pub(crate) fn validate(self, architecture: &Architecture) -> Result<(), ModelError> {
        let fail = |problem: String| Err(ModelError::Heads { found: self.to_string(), problem });
        if self.nsp && !self.pooler {
            return fail("the next-sentence head needs the pooler; use both or neither".to_owned());
        }
        if self.task.is_some_and(TaskHead::is_pooled) && !self.pooler {
            return fail("the task's head needs the pooler; use both".to_owned());
        }
        if architecture.causal && (self.nsp || self.task.is_some()) {
            return fail(
                "in a causal model (is_decoder) [CLS] attends to no other token: expected the language-model head or none"
                    .to_owned(),
            );
        }
        let max = architecture.layers + 1;
        match self.task {
            Some(TaskHead::Classify { labels: 0 } | TaskHead::Tag { labels: 0, .. }) => {
                fail("a task needs at least one label".to_owned())
            }
            Some(TaskHead::Tag { layers, .. }) if !(1..=max).contains(&layers) => {
                fail(format!("features from {layers} layers: expected 1 to {max}, including the embeddings"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Heads {
    /// The names of the heads, such as `pooler + mlm + nsp`, or `none`.
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
