//! The heads of a model, and the class of model that they make.

use std::fmt;

use crate::architecture::{Architecture, SequenceHead};
use crate::error::ModelError;
use crate::family::FAMILIES;
use crate::role::{Head, Module, Role};
use crate::schema::Schema;

/// The heads of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Heads {
    /// Dense layer with tanh on `[CLS]`. Heads that read its output add it, and families without a pooler have none.
    pub pooler: bool,
    /// Masked-language-model head; its decoder is usually tied to the word embeddings.
    pub mlm: bool,
    /// Next-sentence head on the pooler's output; in ALBERT, the sentence-order head.
    pub nsp: bool,
    /// Head that detects replaced tokens: a discriminator.
    pub rtd: bool,
    /// The head of a fine-tuning task.
    pub task: Option<TaskHead>,
}

/// The head of a task (Devlin et al. 2019, section 4 and figure 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskHead {
    /// Logits of a sequence from the state of its first token, by a [`SequenceHead`]; regression if there is one label.
    /// `BertForSequenceClassification`.
    Classify {
        /// C: number of logits.
        labels: usize,
    },
    /// Logits of tokens. `BertForTokenClassification`.
    Tag {
        /// C: number of logits per token.
        labels: usize,
    },
    /// A start and an end logit for each token. `BertForQuestionAnswering`.
    Answer,
    /// One logit for each sequence, which is a choice, by a [`SequenceHead`]. `BertForMultipleChoice`.
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
    /// Which tokens were replaced.
    ReplacedTokens,
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
    /// C: number of logits per sequence or token.
    pub fn logits(self) -> usize {
        match self {
            TaskHead::Classify { labels } | TaskHead::Tag { labels } => labels,
            TaskHead::Answer => 2,
            TaskHead::Choose => 1,
        }
    }

    /// The part with a dense layer before the output layer; `None` for most heads of tokens, and for heads that do not read
    /// the last hidden states: neither the pooler nor a dense layer as wide as the hidden states would fit them.
    pub(crate) fn sequence_head(self, architecture: &Architecture) -> Option<SequenceHead> {
        match self {
            _ if !architecture.task_input.is_direct() => None,
            TaskHead::Classify { .. } => Some(architecture.classify),
            TaskHead::Choose => Some(architecture.choose),
            // Of all tokens.
            TaskHead::Tag { .. } | TaskHead::Answer => architecture.prediction_head.then_some(architecture.classify),
        }
    }

    /// The output layer.
    pub(crate) fn output(self, architecture: &Architecture) -> Module {
        match self {
            TaskHead::Answer if architecture.prediction_head => Module::Classifier,
            TaskHead::Answer => Module::SpanHead,
            TaskHead::Tag { .. } => Module::Classifier,
            TaskHead::Classify { .. } => architecture.classify.output,
            TaskHead::Choose => architecture.choose.output,
        }
    }

    /// The dropout before the output layer.
    pub(crate) fn dropout(self, architecture: &Architecture) -> f32 {
        let dropouts = architecture.dropouts;
        match self {
            TaskHead::Answer => dropouts.answer,
            TaskHead::Tag { .. } => dropouts.tag,
            TaskHead::Classify { .. } => dropouts.classify,
            TaskHead::Choose => dropouts.choose,
        }
    }
}

impl Class {
    /// Whether it has the head of a fine-tuning task.
    pub fn is_task(self) -> bool {
        matches!(self, Class::Classify | Class::Tag | Class::Answer | Class::Choose)
    }
}

impl Heads {
    /// No heads: only the encoder's hidden states.
    pub const NONE: Heads = Heads { pooler: false, mlm: false, nsp: false, rtd: false, task: None };
    /// MLM and NSP: the paper's pre-training, `BertForPreTraining`.
    pub const PRETRAINING: Heads = Heads { pooler: true, mlm: true, nsp: true, ..Heads::NONE };
    /// Only MLM: `BertForMaskedLM`.
    pub const MLM: Heads = Heads { mlm: true, ..Heads::NONE };
    /// Only NSP: `BertForNextSentencePrediction`.
    pub const NSP: Heads = Heads { pooler: true, nsp: true, ..Heads::NONE };
    /// Only the head that detects replaced tokens: `ElectraForPreTraining`.
    pub const RTD: Heads = Heads { rtd: true, ..Heads::NONE };
    /// Encoder and pooler: `BertModel`.
    pub const ENCODER: Heads = Heads { pooler: true, ..Heads::NONE };

    /// The head of a task.
    pub const fn of(task: TaskHead) -> Heads {
        Heads { task: Some(task), ..Heads::NONE }
    }

    /// These heads in a model of this architecture: with the pooler where a head reads its output, and without it if the
    /// family does not have one.
    pub(crate) fn completed(self, architecture: &Architecture, schema: Schema) -> Heads {
        let reads_pooler =
            |task: TaskHead| task.sequence_head(architecture).is_some_and(|head| head.dense == Module::Pooler);
        let pooler = self.pooler || self.nsp || self.task.is_some_and(reads_pooler);
        Heads { pooler: pooler && schema.has(Module::Pooler), ..self }
    }

    /// The class of a model with these heads. A model with pooler and MLM head counts as a masked language model;
    /// Transformers ignores the pooler when it loads the folder.
    pub fn class(self, causal: bool) -> Class {
        match (self.task, self.mlm, self.nsp) {
            (None, ..) if self.rtd => Class::ReplacedTokens,
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
            Head::Prediction => self.mlm || self.task.is_some(),
            Head::Mlm => self.mlm,
            Head::Nsp => self.nsp,
            Head::Rtd => self.rtd,
            Head::Features => self.task.is_some(),
            // In ModernBERT, the head of answers is a classifier, too.
            Head::Classifier => self.task.is_some(),
            Head::Span => self.task == Some(TaskHead::Answer),
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
    ) -> Heads {
        let pretraining = declared(Class::Pretraining);
        // A prediction head without a task's output layer is that of the MLM head.
        let of_mlm = stored(Head::Mlm) || stored(Head::Prediction) && !stored(Head::Classifier);
        let mlm = pretraining || declared(Class::MaskedLm) || declared(Class::CausalLm) || of_mlm;
        let nsp = pretraining || declared(Class::NextSentence) || stored(Head::Nsp);
        let pooler = stored(Head::Pooler);

        let rtd = declared(Class::ReplacedTokens) || stored(Head::Rtd);

        let of_sequences = shape_of(Module::SequenceClassifier.weight());
        let has_dense = shape_of(Module::ClassifierDense.weight()).is_some();
        let classifier = of_sequences.clone().or_else(|| shape_of(Module::Classifier.weight()));
        let labels = classifier.as_ref().and_then(|shape| shape.first().copied()).or(labels).unwrap_or(2);
        let task = if declared(Class::Classify) {
            Some(TaskHead::Classify { labels })
        } else if declared(Class::Tag) {
            Some(TaskHead::Tag { labels })
        } else if declared(Class::Answer) {
            Some(TaskHead::Answer)
        } else if declared(Class::Choose) || shape_of(Module::ChoiceDense.weight()).is_some() {
            Some(TaskHead::Choose)
        } else if classifier.is_some() {
            // Without a class: only the classifier of sequences has a pooler or a dense layer before it.
            let of_sequences = of_sequences.is_some() || has_dense || pooler;
            Some(if of_sequences { TaskHead::Classify { labels } } else { TaskHead::Tag { labels } })
        } else {
            stored(Head::Span).then_some(TaskHead::Answer)
        };
        Heads { pooler, mlm, nsp, rtd, task }
    }

    /// Checks [completed](Self::completed) heads.
    pub(crate) fn validate(self, architecture: &Architecture, schema: Schema) -> Result<(), ModelError> {
        let fail = |problem: String| Err(ModelError::Heads { found: self.to_string(), problem });
        let family = schema.family();
        for (has, module, head) in [
            (self.nsp, Module::NspHead, Head::Nsp),
            (self.rtd, Module::RtdOutput, Head::Rtd),
            (self.mlm, Module::MlmBias, Head::Mlm),
        ] {
            if has && !schema.has(module) {
                let with: Vec<&str> = FAMILIES
                    .into_iter()
                    .filter(|other| Schema::new(other, 1).has(module))
                    .map(|other| other.title)
                    .collect();
                return fail(format!("{} has no {}; expected {}", family.title, head.name(), with.join(" or ")));
            }
        }
        if schema.class_name(self.class(architecture.causal)).is_none() {
            let what = if architecture.causal { "causal language model" } else { "model with only these heads" };
            return fail(format!("{} has no class of {what} in Transformers", family.title));
        }
        if architecture.causal && (self.nsp || self.rtd) {
            return fail(
                "in a causal model (is_decoder) [CLS] attends to no other token: expected the language-model head, the head of a task or none"
                    .to_owned(),
            );
        }
        match self.task {
            Some(TaskHead::Classify { labels: 0 } | TaskHead::Tag { labels: 0 }) => {
                fail("a task needs at least one label".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Heads {
    /// The names of the heads, such as `pooler + mlm + nsp`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("pooler", self.pooler), ("mlm", self.mlm), ("nsp", self.nsp), ("rtd", self.rtd)];
        let mut present: Vec<String> = named.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()).collect();
        present.extend(self.task.map(|task| match task {
            TaskHead::Classify { labels: 1 } => "regress".to_owned(),
            TaskHead::Classify { labels } => format!("classify ({labels} labels)"),
            TaskHead::Tag { labels } => format!("tag ({labels} labels)"),
            TaskHead::Answer => "answer".to_owned(),
            TaskHead::Choose => "choose".to_owned(),
        }));
        f.write_str(if present.is_empty() { "none".to_owned() } else { present.join(" + ") }.as_str())
    }
}
