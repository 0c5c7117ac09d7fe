//! Fill-mask: the most probable tokens for each \[MASK\] of a text.

use std::sync::Arc;

use cloze_text::Tokenizer;
use serde::Serialize;

use crate::TaskError;
use crate::example::{Example, Target};
use crate::inference::executor::{Executor, Output};
use crate::inference::pretrained::Pretrained;

/// A model that predicts masked tokens.
pub struct Filler {
    model: Arc<Pretrained>,
}

/// A candidate token for a \[MASK\].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Candidate {
    /// The token, as in the vocabulary.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability, 0 to 1.
    pub probability: f64,
    /// The given text with this token in place of this \[MASK\]; other \[MASK\]s are not replaced.
    pub text: String,
    /// The decoded token sequence, as in Transformers' fill-mask pipeline: lower-cased if the vocabulary is uncased;
    /// without special tokens if the text has one \[MASK\], with them if it has several.
    pub sequence: String,
}

impl Filler {
    /// Checks that a model has a masked-language-model head.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model without that head, and for a causal language model.
    pub fn new(model: Arc<Pretrained>) -> Result<Filler, TaskError> {
        if model.model.architecture().causal {
            let problem = format!(
                "expected a masked language model, found a causal language model ({}), which predicts only next tokens",
                model.model.class_name()
            );
            return Err(TaskError::Folder { path: model.dir().to_owned(), problem });
        }
        if !model.model.heads.mlm {
            let problem = "expected a model with a masked-language-model head, found none".to_owned();
            return Err(TaskError::Folder { path: model.dir().to_owned(), problem });
        }
        Ok(Filler { model })
    }

    /// For each \[MASK\] of the text, in order, its `top` most probable tokens, in descending order of probability.
    ///
    /// # Errors
    /// [`TaskError::NoMask`]; [`TaskError::TooLong`] if the text has more tokens than the model has positions;
    /// [`TaskError::Logits`].
    pub fn fill(&self, text: &str, top: usize) -> Result<Vec<Vec<Candidate>>, TaskError> {
        self.fill_on(&*self.model, text, top)
    }

    /// As [`fill`](Self::fill); `executor` runs the model's forward pass.
    ///
    /// # Errors
    /// Those of [`fill`](Self::fill) and of the executor.
    pub fn fill_on(&self, executor: &dyn Executor, text: &str, top: usize) -> Result<Vec<Vec<Candidate>>, TaskError> {
        let masked = &self.encode(text)?;
        let tokenizer = &self.model.tokenizer;
        let size = tokenizer.vocab_size();
        let filled = self.rank(executor, std::slice::from_ref(masked), |logits| {
            let mut order: Vec<usize> = (0..size.min(logits.len())).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            order.truncate(top);
            order
        })?;
        let candidate = |number: usize, Filled { id, probability }: &Filled| {
            let (piece, continues) = (tokenizer.piece_text(*id), tokenizer.is_continuation(*id));
            Candidate {
                token: tokenizer.token(*id).unwrap_or_default().to_owned(),
                id: *id,
                probability: *probability,
                text: fill_in(text, tokenizer.mask_token(), number, &piece, continues),
                sequence: masked.decoded(tokenizer, number, *id),
            }
        };
        let masks = filled.iter().flatten().enumerate();
        Ok(masks.map(|(number, all)| all.iter().map(|filled| candidate(number, filled)).collect()).collect())
    }

    /// The model.
    pub(crate) fn model(&self) -> &Arc<Pretrained> {
        &self.model
    }

    /// The tokens of a text with masks.
    ///
    /// # Errors
    /// [`TaskError::NoMask`]; [`TaskError::TooLong`].
    pub(crate) fn encode(&self, text: &str) -> Result<Masked, TaskError> {
        let Pretrained { model, tokenizer, .. } = &*self.model;
        let sequence = tokenizer.template().sequence(&tokenizer.encode_masked(text), None);
        let (ids, mask) = (&sequence.ids, tokenizer.special().mask);
        let masks: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == mask).collect();
        if masks.is_empty() {
            return Err(TaskError::NoMask { text: text.to_owned(), mask: tokenizer.mask_token().to_owned() });
        }
        let positions = model.architecture().max_sequence_length();
        if ids.len() > positions {
            return Err(TaskError::TooLong { found: ids.len(), positions });
        }
        let tokens = masks.iter().map(|&i| i as u32).collect();
        let example = Example { tokens, ..Example::new(vec![sequence], Target::value(None)) };
        Ok(Masked { text: text.to_owned(), masks, example })
    }

    /// For each mask of each text, the tokens that `choose` selects by the logits of the vocabulary, with their probabilities.
    ///
    /// # Errors
    /// [`TaskError::Logits`] and those of the executor.
    pub(crate) fn rank(
        &self,
        executor: &dyn Executor,
        texts: &[Masked],
        choose: impl Fn(&[f32]) -> Vec<usize>,
    ) -> Result<Vec<Vec<Vec<Filled>>>, TaskError> {
        let examples: Vec<&Example> = texts.iter().map(|text| &text.example).collect();
        let mut logits = vec![Vec::new(); texts.len()];
        executor.run(&Output::MaskedTokens, &examples, &mut |i, found| logits[i] = found)?;
        let of_mask = |logits: &[f32]| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
            let filled = |id: usize| Filled { id: id as u32, probability: f64::from(logits[id] - max).exp() / sum };
            choose(logits).into_iter().map(filled).collect()
        };
        let of_text = |(text, logits): (&Masked, &Vec<f32>)| {
            if logits.is_empty() || logits.iter().any(|logit| logit.is_nan()) {
                return Err(TaskError::Logits(format!("the text {:?}", text.text)));
            }
            Ok(logits.chunks(self.model.model.architecture().vocab_size).map(of_mask).collect())
        };
        texts.iter().zip(&logits).map(of_text).collect()
    }
}

/// A text with masks.
pub(crate) struct Masked {
    text: String,
    /// The positions of the masks.
    pub(crate) masks: Vec<usize>,
    example: Example,
}

/// A token for a mask.
pub(crate) struct Filled {
    /// Its id.
    pub(crate) id: u32,
    /// Its probability.
    pub(crate) probability: f64,
}

impl Masked {
    /// The tokens with the mask of this number replaced, decoded as by Transformers' fill-mask pipeline.
    pub(crate) fn decoded(&self, tokenizer: &Tokenizer, number: usize, id: u32) -> String {
        let mut ids = self.example.sequences[0].ids.clone();
        ids[self.masks[number]] = id;
        decoded(tokenizer, &ids, self.masks.len() == 1)
    }
}

/// Replaces the mask with this number, from 0, by a piece. A piece that continues a word is appended to the previous
/// word.
fn fill_in(text: &str, mask: &str, number: usize, piece: &str, continues: bool) -> String {
    let Some((start, _)) = text.match_indices(mask).nth(number) else { return text.to_owned() };
    let (before, after) = (&text[..start], &text[start + mask.len()..]);
    let before = if continues { before.trim_end() } else { before };
    format!("{before}{piece}{after}")
}

/// Decodes ids as Transformers' fill-mask pipeline: without padding.
fn decoded(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let pad = tokenizer.special().pad;
    let kept: Vec<u32> = ids.iter().copied().filter(|&id| id != pad).collect();
    tokenizer.decode_as_written(&kept, skip_special)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression test: `fill` returned lower-cased tokens joined by spaces: "the capital of france is paris ."
    #[test]
    fn the_original_text_is_filled() {
        let text = "The Capital of [MASK] is [MASK]!";
        assert_eq!(fill_in(text, "[MASK]", 0, "france", false), "The Capital of france is [MASK]!");
        assert_eq!(fill_in(text, "[MASK]", 1, "paris", false), "The Capital of [MASK] is paris!");
        assert_eq!(fill_in("He was walk [MASK].", "[MASK]", 0, "ing", true), "He was walking.");
        assert_eq!(fill_in("C[MASK]", "[MASK]", 0, "##", false), "C##");
    }

    #[test]
    fn sequences_are_those_of_the_pipeline_of_transformers() {
        let words =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "'", "s", "walk", "##ing", ",", "is", "n't", "."];
        let tokenizer = Tokenizer::from_tokens(words.map(str::to_owned).to_vec(), false).unwrap();
        let ids = |words: &[&str]| words.iter().map(|word| tokenizer.id(word).unwrap()).collect::<Vec<_>>();
        let one = ids(&["[CLS]", "it", "'", "s", "walk", "##ing", ",", "[UNK]", "is", "n't", "it", ".", "[SEP]"]);
        // Transformers 5 joins "it ' s" only if tokenizer_config.json has clean_up_tokenization_spaces.
        assert_eq!(decoded(&tokenizer, &one, true), "it ' s walking, isn't it.");
        let two = ids(&["[CLS]", "it", "is", "[MASK]", ".", "[SEP]"]);
        assert_eq!(decoded(&tokenizer, &two, false), "[CLS] it is [MASK]. [SEP]");
    }
}
