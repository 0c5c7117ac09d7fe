//! Fill-mask: the most probable tokens for each \[MASK\] of a text.

use std::sync::Arc;

use cloze_text::{Sequence, Tokenizer};
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
        let Pretrained { model, tokenizer, .. } = &*self.model;
        let Sequence { ids, segments } = tokenizer.template().sequence(&tokenizer.encode_masked(text), None);
        let mask = tokenizer.special().mask;
        let masks: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == mask).collect();
        if masks.is_empty() {
            return Err(TaskError::NoMask { text: text.to_owned(), mask: tokenizer.mask_token().to_owned() });
        }
        let positions = model.architecture().max_sequence_length();
        if ids.len() > positions {
            return Err(TaskError::TooLong { found: ids.len(), positions });
        }
        let sequence = Sequence { ids: ids.clone(), segments };
        let tokens = masks.iter().map(|&i| i as u32).collect();
        let example = Example { tokens, ..Example::new(vec![sequence], Target::value(None)) };
        let mut logits = Vec::new();
        executor.run(&Output::MaskedTokens, &[&example], &mut |_, found| logits = found)?;
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(TaskError::Logits(format!("the text {text:?}")));
        }
        let rows = masks.iter().zip(logits.chunks(model.architecture().vocab_size)).enumerate();
        let text = Masked { text, ids: &ids, masks: masks.len() };
        Ok(rows.map(|(number, (mask, logits))| top_candidates(tokenizer, &text, number, *mask, logits, top)).collect())
    }
}

/// The most probable tokens for the mask with this number, which is at `position`.
fn top_candidates(
    tokenizer: &Tokenizer,
    text: &Masked<'_>,
    number: usize,
    position: usize,
    logits: &[f32],
    top: usize,
) -> Vec<Candidate> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    let mut order: Vec<usize> = (0..tokenizer.vocab_size().min(logits.len())).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let candidate = |id: &usize| {
        let id = *id as u32;
        let mut filled = text.ids.to_vec();
        filled[position] = id;
        let (piece, continues) = (tokenizer.piece_text(id), tokenizer.is_continuation(id));
        Candidate {
            token: tokenizer.token(id).unwrap_or_default().to_owned(),
            id,
            probability: f64::from(logits[id as usize] - max).exp() / sum,
            text: fill_in(text.text, tokenizer.mask_token(), number, &piece, continues),
            sequence: decoded(tokenizer, &filled, text.masks == 1),
        }
    };
    order.iter().take(top).map(candidate).collect()
}

/// A text with its token ids and its number of masks.
struct Masked<'a> {
    text: &'a str,
    ids: &'a [u32],
    masks: usize,
}

/// Replaces the mask with this number, from 0, by a piece. A piece that continues a word is appended to the previous
/// word.
fn fill_in(text: &str, mask: &str, number: usize, piece: &str, continues: bool) -> String {
    let Some((start, _)) = text.match_indices(mask).nth(number) else { return text.to_owned() };
    let (before, after) = (&text[..start], &text[start + mask.len()..]);
    let before = if continues { before.trim_end() } else { before };
    format!("{before}{piece}{after}")
}

/// Decodes ids like Transformers' `decode` with `clean_up_tokenization_spaces`, which is the default of BERT's
/// tokenizers.
fn decoded(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let kept: Vec<u32> = ids.iter().copied().filter(|&id| !skip_special || !tokenizer.is_special(id)).collect();
    let text = tokenizer.decode_all(&kept);
    // The replacements of PreTrainedTokenizerBase.clean_up_tokenization, in the same order.
    let spaced =
        [" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"].map(|spaced| (spaced, spaced.trim()));
    spaced.iter().fold(text, |text, (spaced, joined)| text.replace(spaced, joined))
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
        assert_eq!(decoded(&tokenizer, &one, true), "it's walking, isn't it.");
        let two = ids(&["[CLS]", "it", "is", "[MASK]", ".", "[SEP]"]);
        assert_eq!(decoded(&tokenizer, &two, false), "[CLS] it is [MASK]. [SEP]");
    }
}
