//! The metrics of several losses, as stored in lines of metrics.jsonl: the loss called `mlm` has `mlm_loss`,
//! `mlm_perplexity` and `mlm_bits_per_character` (if it is a loss over tokens) and `mlm_accuracy`.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LOSS: &str = "_loss";
const PERPLEXITY: &str = "_perplexity";
const BITS: &str = "_bits_per_character";
const ACCURACY: &str = "_accuracy";

/// The metrics of one loss.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LossFigure {
    /// The name, such as `mlm`.
    pub name: String,
    /// The mean loss in nats; `None` without predictions.
    pub loss: Option<f64>,
    /// The exponential of the loss; `None` if it is not a loss over tokens, or if perplexities are not requested.
    pub perplexity: Option<f64>,
    /// The loss in bits per character of the text, which can be compared between vocabularies; `None` if it is not a loss
    /// over tokens, if it is a training loss, or if the shards lack the number of characters.
    pub bits_per_character: Option<f64>,
    /// Fraction of correct predictions; `None` without predictions, or for a distance.
    pub accuracy: Option<f64>,
}

impl LossFigure {
    /// A loss without metrics.
    pub fn named(name: &str) -> LossFigure {
        LossFigure { name: name.to_owned(), ..LossFigure::default() }
    }

    /// The name for display: abbreviations such as "MLM" in capitals, words such as "cosine" as they are.
    pub fn title(&self) -> String {
        if self.name.len() <= 4 { self.name.to_uppercase() } else { self.name.clone() }
    }

    /// The metrics that are not `None`, with their keys: `mlm_loss` and so on.
    pub fn figures(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        let figures = [
            (LOSS, self.loss),
            (PERPLEXITY, self.perplexity),
            (BITS, self.bits_per_character),
            (ACCURACY, self.accuracy),
        ];
        figures.into_iter().filter_map(|(suffix, value)| Some((format!("{}{suffix}", self.name), value?)))
    }
}

/// The metrics of an objective's losses, in their order. The first loss decides which evaluation is the best.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LossFigures(Vec<LossFigure>);

impl LossFigures {
    /// The metrics of a loss.
    pub fn get(&self, name: &str) -> Option<&LossFigure> {
        self.0.iter().find(|figure| figure.name == name)
    }

    /// The mean of a loss; `None` without predictions.
    pub fn loss(&self, name: &str) -> Option<f64> {
        self.get(name)?.loss
    }

    /// The accuracy of a loss; `None` without predictions.
    pub fn accuracy(&self, name: &str) -> Option<f64> {
        self.get(name)?.accuracy
    }

    /// The metrics of the loss that decides which evaluation is the best.
    pub fn deciding(&self) -> Option<&LossFigure> {
        self.0.first()
    }

    /// The losses in their order.
    pub fn iter(&self) -> impl Iterator<Item = &LossFigure> {
        self.0.iter()
    }

    /// The metrics of a loss, which is appended if it is new.
    fn entry(&mut self, name: &str) -> &mut LossFigure {
        let index = self.0.iter().position(|figure| figure.name == name).unwrap_or(self.0.len());
        if index == self.0.len() {
            self.0.push(LossFigure::named(name));
        }
        &mut self.0[index]
    }
}

impl FromIterator<LossFigure> for LossFigures {
    fn from_iter<I: IntoIterator<Item = LossFigure>>(figures: I) -> LossFigures {
        LossFigures(figures.into_iter().collect())
    }
}

impl Serialize for LossFigures {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for LossFigure { name, loss, perplexity, bits_per_character, accuracy } in &self.0 {
            map.serialize_entry(&format!("{name}{LOSS}"), loss)?;
            if perplexity.is_some() {
                map.serialize_entry(&format!("{name}{PERPLEXITY}"), perplexity)?;
            }
            if bits_per_character.is_some() {
                map.serialize_entry(&format!("{name}{BITS}"), bits_per_character)?;
            }
            if accuracy.is_some() || loss.is_none() {
                map.serialize_entry(&format!("{name}{ACCURACY}"), accuracy)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LossFigures {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<LossFigures, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = LossFigures;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("figures of losses")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LossFigures, A::Error> {
                let mut found = LossFigures::default();
                while let Some(key) = map.next_key::<String>()? {
                    if let Some(name) = key.strip_suffix(LOSS) {
                        found.entry(name).loss = map.next_value()?;
                    } else if let Some(name) = key.strip_suffix(PERPLEXITY) {
                        found.entry(name).perplexity = map.next_value()?;
                    } else if let Some(name) = key.strip_suffix(BITS) {
                        found.entry(name).bits_per_character = map.next_value()?;
                    } else if let Some(name) = key.strip_suffix(ACCURACY) {
                        found.entry(name).accuracy = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }
        from.deserialize_map(Keys)
    }
}
