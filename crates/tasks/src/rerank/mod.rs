//! Cross-encoders: models that read a query and a document together and score their relevance.
//!
//! | module | in → out |
//! | --- | --- |
//! | `folder` | a folder → its activation, prompt and length |
//! | [`evaluation`] | queries with relevant and irrelevant documents → MAP, MRR, nDCG |
//!
//! A cross-encoder is a classification model of pairs (Nogueira and Cho 2019), usually with one output. The scores equal
//! those of sentence-transformers' `CrossEncoder.predict` (6.2), and the order that of `CrossEncoder.rank`: see
//! `fixtures/rerank`.

pub mod evaluation;
mod folder;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_engine::Device;
use cloze_model::TaskHead;
use cloze_text::SpecialTokens;

use crate::embed::modules::Activation;
use crate::embed::prompts::{Prompt, Purpose};
use crate::example::{Example, Target};
use crate::inference::executor::{Executor, Output};
use crate::inference::precision::Precision;
use crate::inference::pretrained::Pretrained;
use crate::{TaskError, parallel};
use folder::FolderSettings;
pub(crate) use folder::{activation_of_config, complete, is_cross_encoder, is_cross_encoder_folder};

/// The maximum number of pairs that are encoded at once; among them, pairs of similar length are batched.
const CHUNK_PAIRS: usize = 4096;

/// Options of how pairs are scored.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Maximum number of tokens of a pair with its special tokens. None: the folder's setting, else the number of the
    /// model's positions.
    pub max_len: Option<usize>,
    /// The prompt before the query.
    pub prompt: Prompt,
    /// The function that is applied to the outputs. None: the folder's; else the sigmoid for one output, and none for
    /// several.
    pub activation: Option<Activation>,
    /// How the names of special tokens in texts are tokenized. None: as the model folder says.
    pub special_tokens: Option<SpecialTokens>,
}

/// A model that scores pairs of texts.
pub struct CrossEncoder {
    /// The model.
    pub model: Arc<Pretrained>,
    /// The function that is applied to each output.
    pub activation: Activation,
    /// Notes for the user about settings of the folder that are handled in a different way.
    pub notes: Vec<String>,
    labels: usize,
    max_len: usize,
    prompt: String,
    /// Whether texts are converted to lower case first, which is a setting of sentence-transformers folders.
    lowercase: bool,
    dir: PathBuf,
}

/// The result of [`CrossEncoder::predict`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Predicted {
    /// The outputs of each pair, in order.
    pub rows: Vec<Vec<f32>>,
    /// The number of pairs that were longer than [`CrossEncoder::max_len`] and were truncated.
    pub cut: usize,
}

/// The result of [`CrossEncoder::scores`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Scored {
    /// The score of each pair, in order.
    pub scores: Vec<f32>,
    /// The number of pairs that were longer than [`CrossEncoder::max_len`] and were truncated.
    pub cut: usize,
}

impl CrossEncoder {
    /// Opens a folder of Transformers or of sentence-transformers.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`] and of [`new`](Self::new).
    pub fn open(
        dir: &Path,
        device: Device,
        precision: impl Into<Precision>,
        options: &Options,
    ) -> Result<CrossEncoder, TaskError> {
        let settings = folder::read(dir)?;
        let mut model = Pretrained::open(&settings.layout.model, device, precision)?;
        if let Some(how) = options.special_tokens {
            model.tokenizer = model.tokenizer.with_special_tokens(how);
        }
        CrossEncoder::assemble(Arc::new(model), settings, dir, options)
    }

    /// As [`open`](Self::open), for a model that is already open. `dir` is its folder, or the sentence-transformers
    /// folder that contains it.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model without a classification head, and for modules that are not supported;
    /// [`TaskError::File`] for settings that are not supported; [`TaskError::Setting`] for a length that does not fit
    /// the model's positions and for the name of a prompt that the folder does not have.
    pub fn new(pretrained: Arc<Pretrained>, dir: &Path, options: &Options) -> Result<CrossEncoder, TaskError> {
        CrossEncoder::assemble(pretrained, folder::read(dir)?, dir, options)
    }

    fn assemble(
        model: Arc<Pretrained>,
        settings: FolderSettings,
        dir: &Path,
        options: &Options,
    ) -> Result<CrossEncoder, TaskError> {
        let Some(TaskHead::Classify { labels }) = model.model.heads.task else {
            let problem = format!(
                "expected a cross-encoder, a model with a classification head such as BertForSequenceClassification, found a {}",
                model.model.class_name()
            );
            return Err(TaskError::Folder { path: dir.to_owned(), problem });
        };
        let stored = settings.activation(model.model.config())?;
        let default = if labels == 1 { Activation::Sigmoid } else { Activation::Identity };
        let prompt = settings.prompts.resolve(&options.prompt, Purpose::Text)?.to_owned();
        let mut notes = settings.notes;
        notes.extend(stored.note);
        if options.prompt == Prompt::Auto {
            notes.extend(settings.prompts.note(Purpose::Text));
        }
        Ok(CrossEncoder {
            activation: options.activation.or(stored.activation).unwrap_or(default),
            notes,
            labels,
            max_len: max_len(&model, settings.max_len, options, dir)?,
            prompt,
            // No change if the tokenizer converts to lower case anyway.
            lowercase: settings.lowercase && model.tokenizer.is_cased(),
            dir: dir.to_owned(),
            model,
        })
    }

    /// The number of outputs.
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// Maximum number of tokens of a pair with its special tokens; the longer text of a longer pair is truncated.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// The prompt before each query; empty for none.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Checks that the model has one output, which is a score.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for several outputs.
    pub fn check_scores(&self) -> Result<(), TaskError> {
        if self.labels == 1 {
            return Ok(());
        }
        let problem = format!(
            "expected a reranker, a model with one output, found {} outputs: they are classes and not a score of relevance",
            self.labels
        );
        Err(TaskError::Folder { path: self.dir.clone(), problem })
    }

    /// The outputs of each pair of a query and a document, in order, after the activation. The outputs of a pair do not
    /// depend on the other pairs, except for rounding. `progress` receives the completed fraction.
    ///
    /// # Errors
    /// [`TaskError::Input`] if the model does not support pairs; [`TaskError::Logits`] if its outputs are not finite.
    pub fn predict<Q: AsRef<str> + Sync, D: AsRef<str> + Sync>(
        &self,
        pairs: &[(Q, D)],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Predicted, TaskError> {
        self.predict_on(&*self.model, pairs, progress)
    }

    /// As [`predict`](Self::predict); `executor` runs the model's forward passes.
    ///
    /// # Errors
    /// Those of [`predict`](Self::predict) and of the executor.
    pub fn predict_on<Q: AsRef<str> + Sync, D: AsRef<str> + Sync>(
        &self,
        executor: &dyn Executor,
        pairs: &[(Q, D)],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Predicted, TaskError> {
        let mut predicted = self.logits_on(executor, pairs, progress)?;
        for logit in predicted.rows.iter_mut().flatten() {
            *logit = self.activation.apply(*logit);
        }
        Ok(predicted)
    }

    /// As [`predict_on`](Self::predict_on), without the activation.
    ///
    /// # Errors
    /// Those of [`predict_on`](Self::predict_on).
    pub fn logits_on<Q: AsRef<str> + Sync, D: AsRef<str> + Sync>(
        &self,
        executor: &dyn Executor,
        pairs: &[(Q, D)],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Predicted, TaskError> {
        let mut predicted = Predicted::default();
        let total = pairs.len().max(1) as f64;
        for chunk in pairs.chunks(CHUNK_PAIRS) {
            let (before, share) = (predicted.rows.len() as f64, chunk.len() as f64);
            let (examples, cut) = self.encode(chunk);
            self.model.check(&examples)?;
            predicted.cut += cut;
            let (mut logits, mut done) = (vec![Vec::new(); examples.len()], 0);
            executor.run(&Output::Task, &examples.iter().collect::<Vec<_>>(), &mut |i, row| {
                logits[i] = row;
                done += 1;
                progress((before + done as f64 / examples.len() as f64 * share) / total);
            })?;
            for (row, (query, document)) in logits.into_iter().zip(chunk) {
                if row.is_empty() || row.iter().any(|logit| !logit.is_finite()) {
                    let pair = format!("query {:?}, document {:?}", query.as_ref(), document.as_ref());
                    return Err(TaskError::Logits(pair));
                }
                predicted.rows.push(row);
            }
        }
        Ok(predicted)
    }

    /// The score of each pair of a query and a document, in order: as [`predict`](Self::predict), for a model with one
    /// output.
    ///
    /// # Errors
    /// Those of [`check_scores`](Self::check_scores) and of [`predict`](Self::predict).
    pub fn scores<Q: AsRef<str> + Sync, D: AsRef<str> + Sync>(
        &self,
        pairs: &[(Q, D)],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Scored, TaskError> {
        self.check_scores()?;
        let Predicted { rows, cut } = self.predict(pairs, progress)?;
        Ok(Scored { scores: rows.into_iter().flatten().collect(), cut })
    }

    /// The sequences of pairs, and how many of them were truncated. Each distinct text is tokenized once.
    fn encode<Q: AsRef<str> + Sync, D: AsRef<str> + Sync>(&self, pairs: &[(Q, D)]) -> (Vec<Example>, usize) {
        let mut number_of: HashMap<(bool, &str), usize> = HashMap::new();
        let mut texts: Vec<(bool, &str)> = Vec::new();
        let mut number = |is_query: bool, text| {
            *number_of.entry((is_query, text)).or_insert_with(|| {
                texts.push((is_query, text));
                texts.len() - 1
            })
        };
        let numbers: Vec<(usize, usize)> = pairs
            .iter()
            .map(|(query, document)| (number(true, query.as_ref()), number(false, document.as_ref())))
            .collect();
        let threads = self.model.device.threads();
        let tokens = parallel::map(&texts, threads, |&(is_query, text)| self.tokens(is_query, text));
        let tokenizer = &self.model.tokenizer;
        let room = tokenizer.template().room(self.max_len, true);
        let sequences = parallel::map(&numbers, threads, |&(query, document)| {
            let (mut query, mut document) = (tokens[query].clone(), tokens[document].clone());
            let cut = tokenizer.truncate_pair(&mut query, &mut document, room);
            (tokenizer.template().sequence(&query, Some(&document)), cut > 0)
        });
        let cut = sequences.iter().filter(|(_, is_cut)| *is_cut).count();
        // The target is not known.
        let example = |(sequence, _)| Example::new(vec![sequence], Target::value(None));
        (sequences.into_iter().map(example).collect(), cut)
    }

    fn tokens(&self, is_query: bool, text: &str) -> Vec<u32> {
        let mut text = match is_query && !self.prompt.is_empty() {
            true => Cow::Owned(format!("{}{text}", self.prompt)),
            false => Cow::Borrowed(text),
        };
        if self.lowercase {
            // Character by character: a final sigma is not treated differently.
            text = Cow::Owned(text.chars().flat_map(char::to_lowercase).collect());
        }
        self.model.tokenizer.encode(&text)
    }
}

/// The rows of scores, best first; equal scores keep their order.
pub fn order(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Adding 0 converts −0 to 0, so that they are equal.
    order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
    order
}

/// Maximum number of tokens of a pair. `stored` is the setting of the sentence-transformers folder.
fn max_len(model: &Pretrained, stored: Option<usize>, options: &Options, dir: &Path) -> Result<usize, TaskError> {
    let positions = model.model.architecture().max_sequence_length();
    let special = model.tokenizer.template().added(true);
    // The tokenizer's limit applies if nothing else sets one.
    match (options.max_len, stored.or(model.tokenizer.model_max_length())) {
        (Some(found), _) if !(special + 1..=positions).contains(&found) => {
            let problem =
                format!("expected {} to {positions}, the model's number of positions, found {found}", special + 1);
            Err(TaskError::setting("max_len", problem))
        }
        (Some(found), _) => Ok(found),
        (None, Some(found)) if found <= special => {
            let problem = format!(
                "expected a maximum length above {special}, the number of special tokens of a pair, found {found}; set `max_len`"
            );
            Err(TaskError::Folder { path: dir.to_owned(), problem })
        }
        (None, found) => Ok(found.unwrap_or(positions).min(positions)),
    }
}

#[cfg(test)]
mod tests;
