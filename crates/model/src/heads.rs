//! Which heads stand on the encoder.

use std::fmt;

use crate::config::Config;
use crate::error::ModelError;

/// Which heads stand on the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Heads {
    /// tanh dense on `[CLS]`.
    pub pooler: bool,
    /// Masked-language-model head, its decoder tied to the word embeddings.
    pub mlm: bool,
    /// Next-sentence head on the pooler.
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
        /// How many last layers lie side by side under the head: 1, or more for the feature-based way (section 5.3), which
        /// Transformers has no class for.
        layers: usize,
    },
    /// A start and an end logit for each token. `BertForQuestionAnswering`.
    Answer,
    /// One logit of a sequence, a choice, from the pooler's output. `BertForMultipleChoice`.
    Choose,
}

impl TaskHead {
    /// Whether it stands on the pooler.
    pub const fn is_pooled(self) -> bool {
        matches!(self, TaskHead::Classify { .. } | TaskHead::Choose)
    }

    /// The name of its tensors.
    pub(crate) fn tensors(self) -> &'static str {
        if self == TaskHead::Answer { "qa_outputs" } else { "classifier" }
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

    /// The head of a task, with the pooler if it stands on that.
    pub const fn of(task: TaskHead) -> Heads {
        Heads { pooler: task.is_pooled(), task: Some(task), ..Heads::NONE }
    }

    /// The Transformers class with these heads. A pooler beside the MLM head alone counts as `BertForMaskedLM`,
    /// which leaves it aside when it opens the folder.
    pub fn architecture(self) -> &'static str {
        match (self.task, self.mlm, self.nsp) {
            (Some(TaskHead::Classify { .. }), ..) => "BertForSequenceClassification",
            (Some(TaskHead::Tag { .. }), ..) => "BertForTokenClassification",
            (Some(TaskHead::Answer), ..) => "BertForQuestionAnswering",
            (Some(TaskHead::Choose), ..) => "BertForMultipleChoice",
            (None, true, true) => "BertForPreTraining",
            (None, true, false) => "BertForMaskedLM",
            (None, false, true) => "BertForNextSentencePrediction",
            (None, false, false) => "BertModel",
        }
    }

    /// The heads that a folder's config promises or whose tensors are there (`shape_of` gives a tensor's shape): a promised head
    /// without tensors is then reported missing.
    pub(crate) fn found_in(config: &Config, shape_of: impl Fn(&str) -> Option<Vec<usize>>, names: &[&str]) -> Heads {
        let promised = |class: &str| config.architectures.iter().flatten().any(|name| name == class);
        let some = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
        let mlm = promised("BertForPreTraining") || promised("BertForMaskedLM") || some("cls.predictions.");
        let pretraining = promised("BertForPreTraining") || promised("BertForNextSentencePrediction");
        let nsp = pretraining || some("cls.seq_relationship.");
        let pooler = some("bert.pooler.");

        let stored = shape_of("classifier.weight");
        let labels = stored.as_ref().and_then(|shape| shape.first().copied());
        let labels = labels.or(config.labels().map(|labels| labels.len())).unwrap_or(2);
        let width = stored.as_ref().and_then(|shape| shape.get(1).copied()).unwrap_or(config.hidden_size);
        let layers = (width / config.hidden_size.max(1)).max(1);
        let task = if promised("BertForSequenceClassification") {
            Some(TaskHead::Classify { labels })
        } else if promised("BertForTokenClassification") {
            Some(TaskHead::Tag { labels, layers })
        } else if promised("BertForQuestionAnswering") {
            Some(TaskHead::Answer)
        } else if promised("BertForMultipleChoice") {
            Some(TaskHead::Choose)
        } else if stored.is_some() {
            // No class says what it is: only a sequence's logits stand on a pooler.
            Some(if pooler { TaskHead::Classify { labels } } else { TaskHead::Tag { labels, layers } })
        } else {
            some("qa_outputs.").then_some(TaskHead::Answer)
        };
        Heads { pooler: pooler || nsp || task.is_some_and(TaskHead::is_pooled), mlm, nsp, task }
    }

    pub(crate) fn validate(self, config: &Config) -> Result<(), ModelError> {
        let fail = |problem: String| Err(ModelError::Heads { found: self.to_string(), problem });
        if self.nsp && !self.pooler {
            return fail("the next-sentence head stands on the pooler; ask for both or neither".to_owned());
        }
        if self.task.is_some_and(TaskHead::is_pooled) && !self.pooler {
            return fail("the task's head stands on the pooler; ask for both".to_owned());
        }
        let most = config.num_hidden_layers + 1;
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
