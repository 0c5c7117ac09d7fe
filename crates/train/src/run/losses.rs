//! The figures of a list of losses, as lines of metrics.jsonl hold them: the loss called `mlm` has `mlm_loss`, `mlm_perplexity` (where
//! that means something) and `mlm_accuracy`.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LOSS: &str = "_loss";
const PERPLEXITY: &str = "_perplexity";
const ACCURACY: &str = "_accuracy";

/// The figures of one loss.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LossFigure {
    /// Its name, such as `mlm`.
    pub name: String,
    /// The mean loss, in nats; none where nothing was counted.
    pub loss: Option<f64>,
    /// e to the power of the loss; none if the loss is not one of tokens, or if perplexities are not wanted.
    pub perplexity: Option<f64>,
    /// Share of the predictions that were right; none where nothing was counted.
    pub accuracy: Option<f64>,
}

impl LossFigure {
    /// A loss of which nothing is known yet.
    pub fn named(name: &str) -> LossFigure {
        LossFigure { name: name.to_owned(), ..LossFigure::default() }
    }

    /// What people call it, such as "MLM".
    pub fn title(&self) -> String {
        self.name.to_uppercase()
    }

    /// Its figures that are there, by their keys: `mlm_loss` and so on.
    pub fn figures(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        let figures = [(LOSS, self.loss), (PERPLEXITY, self.perplexity), (ACCURACY, self.accuracy)];
        figures.into_iter().filter_map(|(suffix, value)| Some((format!("{}{suffix}", self.name), value?)))
    }
}

/// The figures of an objective's losses, in their order: the first decides which evaluation is the best.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LossFigures(Vec<LossFigure>);

impl LossFigures {
    /// The figures of a loss.
    pub fn get(&self, name: &str) -> Option<&LossFigure> {
        self.0.iter().find(|figure| figure.name == name)
    }

    /// The mean of a loss, if it was counted.
    pub fn loss(&self, name: &str) -> Option<f64> {
        self.get(name)?.loss
    }

    /// The accuracy of a loss, if it was counted.
    pub fn accuracy(&self, name: &str) -> Option<f64> {
        self.get(name)?.accuracy
    }

    /// The figures of the loss that decides.
    pub fn deciding(&self) -> Option<&LossFigure> {
        self.0.first()
    }

    /// Each loss in turn.
    pub fn iter(&self) -> impl Iterator<Item = &LossFigure> {
        self.0.iter()
    }

    /// The figures of a loss, which enters the list if it is new.
    fn entry(&mut self, name: &str) -> &mut LossFigure {
        let at = self.0.iter().position(|figure| figure.name == name).unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push(LossFigure::named(name));
        }
        &mut self.0[at]
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
        for LossFigure { name, loss, perplexity, accuracy } in &self.0 {
            map.serialize_entry(&format!("{name}{LOSS}"), loss)?;
            if perplexity.is_some() {
                map.serialize_entry(&format!("{name}{PERPLEXITY}"), perplexity)?;
            }
            map.serialize_entry(&format!("{name}{ACCURACY}"), accuracy)?;
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
