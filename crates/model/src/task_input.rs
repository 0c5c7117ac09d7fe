//! What the head of a task reads: which hidden states, the BiLSTM between them and the head, and which token of a
//! sequence. Transformers has no such keys or tensors: only Cloze opens a model whose head reads something other than the
//! last state of the first token or of all tokens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the head of a task reads, with its keys of config.json.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskInput {
    /// The hidden states of each token.
    #[serde(rename = "cloze_features", skip_serializing_if = "Features::is_last")]
    pub features: Features,
    /// A BiLSTM between the features and the head.
    #[serde(rename = "cloze_bilstm", skip_serializing_if = "Option::is_none")]
    pub bilstm: Option<BiLstmSize>,
    /// The token whose state represents a sequence.
    #[serde(rename = "cloze_sequence_token", skip_serializing_if = "SequenceToken::is_first")]
    pub token: SequenceToken,
}

/// Hidden states of a token, by their names in table 7 of Devlin et al. 2019. State 0 is the output of the embeddings,
/// state n that of the n-th of L layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Features {
    /// `embeddings`: state 0.
    Embeddings,
    /// `second-to-last`: state L − 1.
    SecondToLast,
    /// `last`: state L.
    #[default]
    Last,
    /// `concat-last-N`: states L, L − 1, … (N of them) side by side.
    ConcatLast(usize),
    /// `sum-last-N`: states L, L − 1, … (N of them), summed with learned weights: γ Σ softmax(w)ₖ xₖ (Peters et al. 2018,
    /// equation 1).
    SumLast(usize),
    /// `sum-all`: the states of all layers, without the embeddings, summed with learned weights.
    SumAll,
}

/// The size of a BiLSTM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BiLstmSize {
    /// Layers, each of which reads the outputs of both directions of the one below.
    pub layers: usize,
    /// Units in each direction: the output is twice as wide.
    pub size: usize,
}

/// The token whose state represents a sequence in the heads that classify sequences and score choices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SequenceToken {
    /// The first: `[CLS]`.
    #[default]
    First,
    /// The last: `[SEP]`. For left-to-right models, whose first token attends to no other token.
    Last,
}

impl TaskInput {
    /// Maximum number of layers of a BiLSTM.
    pub const MAX_BILSTM_LAYERS: usize = 16;
    /// Maximum number of units in each direction of a BiLSTM.
    pub const MAX_BILSTM_SIZE: usize = 1 << 14;

    /// Whether the head reads the last hidden states without a BiLSTM, as in Transformers.
    pub fn is_direct(&self) -> bool {
        self.features.is_last() && self.bilstm.is_none()
    }

    /// W: width of what the head reads, for hidden states of this width.
    pub fn width(&self, hidden: usize) -> usize {
        match self.bilstm {
            Some(BiLstmSize { size, .. }) => 2 * size,
            None => self.features.width(hidden),
        }
    }

    /// What is wrong with it, in a model with this number of layers.
    pub(crate) fn problem(&self, layers: usize) -> Option<String> {
        let max = layers + 1;
        match self.features {
            Features::ConcatLast(found) | Features::SumLast(found) if found > max => {
                return Some(format!("features from {found} layers: expected 1 to {max}, including the embeddings"));
            }
            _ => {}
        }
        let BiLstmSize { layers, size } = self.bilstm?;
        let (max, max_size) = (TaskInput::MAX_BILSTM_LAYERS, TaskInput::MAX_BILSTM_SIZE);
        let fits = (1..=max).contains(&layers) && (1..=max_size).contains(&size);
        (!fits).then(|| {
            format!("a BiLSTM of {layers} layers of {size}: expected 1 to {max} layers and a size of 1 to {max_size}")
        })
    }
}

impl fmt::Display for TaskInput {
    /// The parts that differ from Transformers' heads, such as `features concat-last-4, last token of a sequence`; may be
    /// empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = (!self.features.is_last()).then(|| format!("features {}", self.features));
        let bilstm = self
            .bilstm
            .map(|BiLstmSize { layers, size }| format!("{layers}-layer BiLSTM with {size} units in each direction"));
        let token = (!self.token.is_first()).then(|| "last token of a sequence".to_owned());
        f.write_str(&[features, bilstm, token].into_iter().flatten().collect::<Vec<String>>().join(", "))
    }
}

impl Features {
    /// The numbers of the states in a model with this number of layers.
    pub fn states(self, layers: usize) -> Vec<usize> {
        let last = |count: usize| (0..=layers).rev().take(count).collect();
        match self {
            Features::Embeddings => vec![0],
            Features::SecondToLast => vec![layers.saturating_sub(1)],
            Features::Last => vec![layers],
            Features::ConcatLast(count) | Features::SumLast(count) => last(count),
            Features::SumAll => last(layers),
        }
    }

    /// Whether the states are summed with learned weights.
    pub fn is_sum(self) -> bool {
        matches!(self, Features::SumLast(_) | Features::SumAll)
    }

    pub(crate) fn is_last(&self) -> bool {
        *self == Features::Last
    }

    /// The width of the features, for hidden states of this width.
    pub fn width(self, hidden: usize) -> usize {
        match self {
            Features::ConcatLast(count) => count.saturating_mul(hidden),
            _ => hidden,
        }
    }
}

impl SequenceToken {
    fn is_first(&self) -> bool {
        *self == SequenceToken::First
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Features::Embeddings => f.write_str("embeddings"),
            Features::SecondToLast => f.write_str("second-to-last"),
            Features::Last => f.write_str("last"),
            Features::ConcatLast(count) => write!(f, "concat-last-{count}"),
            Features::SumLast(count) => write!(f, "sum-last-{count}"),
            Features::SumAll => f.write_str("sum-all"),
        }
    }
}

impl FromStr for Features {
    type Err = String;

    fn from_str(text: &str) -> Result<Features, String> {
        let count = |prefix: &str| text.strip_prefix(prefix)?.parse::<usize>().ok().filter(|count| *count > 0);
        let named = [Features::Embeddings, Features::SecondToLast, Features::Last, Features::SumAll];
        if let Some(features) = named.into_iter().find(|features| features.to_string() == text) {
            Ok(features)
        } else if let Some(count) = count("concat-last-") {
            Ok(Features::ConcatLast(count))
        } else if let Some(count) = count("sum-last-") {
            Ok(Features::SumLast(count))
        } else {
            Err("expected embeddings, second-to-last, last, sum-last-4, concat-last-4 or sum-all".to_owned())
        }
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Features, D::Error> {
        let text = <String as Deserialize>::deserialize(from)?;
        text.parse().map_err(|expected| serde::de::Error::custom(format!("{text:?}: {expected}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_features_convert_both_ways() {
        for (name, states) in [
            ("embeddings", vec![0]),
            ("second-to-last", vec![5]),
            ("last", vec![6]),
            ("concat-last-4", vec![6, 5, 4, 3]),
            ("sum-last-4", vec![6, 5, 4, 3]),
            ("sum-all", vec![6, 5, 4, 3, 2, 1]),
        ] {
            let features: Features = name.parse().unwrap();
            assert_eq!((features.to_string().as_str(), features.states(6)), (name, states));
        }
        for unknown in ["", "4", "concat-last-0", "concat-last-", "sum-last-x", "first"] {
            assert!(unknown.parse::<Features>().unwrap_err().contains("concat-last-4"), "{unknown}");
        }
    }
}
