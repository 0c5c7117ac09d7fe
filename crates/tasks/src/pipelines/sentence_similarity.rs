//! Sentence similarity: a sentence and others → the cosines of their vectors, as in the hosted API (which has no pipeline in
//! Transformers, but uses sentence-transformers).

use serde::Deserialize;
use serde_json::Value;

use super::fields::Fields;
use crate::TaskError;
use crate::datasets::table::kind;
use crate::embed::Embedder;
use crate::embed::prompts::Purpose;
use crate::inference::executor::Executor;

/// A sentence and those with which it is compared. From JSON: an object with these two keys.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
#[non_exhaustive]
pub struct Sentences {
    /// The sentence.
    pub source_sentence: String,
    /// The others.
    pub sentences: Vec<String>,
}

impl Sentences {
    /// A sentence and others.
    pub fn new(source_sentence: impl Into<String>, sentences: Vec<String>) -> Sentences {
        Sentences { source_sentence: source_sentence.into(), sentences }
    }
}

impl TryFrom<Value> for Sentences {
    type Error = TaskError;

    fn try_from(value: Value) -> Result<Sentences, TaskError> {
        let object = match value {
            Value::Object(object) => object,
            other => {
                let problem = format!(
                    "expected an object {{\"source_sentence\": …, \"sentences\": […]}}, found {}",
                    kind(&other)
                );
                return Err(TaskError::input("\"inputs\"", problem));
            }
        };
        let fields = Fields::of_object(object);
        let missing = |key: &str| TaskError::input(format!("\"{key}\""), "missing from the object in \"inputs\"");
        Ok(Sentences {
            source_sentence: fields.text("source_sentence")?.ok_or_else(|| missing("source_sentence"))?,
            sentences: fields.texts("sentences")?.ok_or_else(|| missing("sentences"))?,
        })
    }
}

/// Compares sentences with the vectors of an embedding model.
pub struct SentenceSimilarity<'a> {
    embedder: &'a Embedder,
}

impl SentenceSimilarity<'_> {
    /// With this model.
    pub fn new(embedder: &Embedder) -> SentenceSimilarity<'_> {
        SentenceSimilarity { embedder }
    }

    /// The cosine of the vector of each sentence and that of the source sentence, in order; 0 for a vector of zeros.
    ///
    /// # Errors
    /// Those of [`Embedder::embed`].
    pub fn run(&self, sentences: &Sentences) -> Result<Vec<f32>, TaskError> {
        self.run_on(&*self.embedder.model, sentences)
    }

    /// As [`run`](Self::run); `executor` runs the model's forward passes.
    ///
    /// # Errors
    /// [`TaskError::Input`] for an empty list of sentences; those of [`Embedder::embed_on`].
    pub fn run_on(&self, executor: &dyn Executor, sentences: &Sentences) -> Result<Vec<f32>, TaskError> {
        let Sentences { source_sentence, sentences } = sentences;
        if sentences.is_empty() {
            return Err(TaskError::input("\"sentences\"", "expected at least one sentence, found an empty list"));
        }
        let texts: Vec<&str> = std::iter::once(source_sentence).chain(sentences).map(String::as_str).collect();
        let embedded = self.embedder.embed_on(executor, &texts, Purpose::Text, &mut |_| ())?;
        let unit = embedded.vectors.normalized();
        let cosine = |vector: &[f32]| {
            let products = unit.row(0).iter().zip(vector).map(|(a, b)| f64::from(*a) * f64::from(*b));
            products.sum::<f64>() as f32
        };
        Ok(unit.rows().skip(1).map(cosine).collect())
    }
}
