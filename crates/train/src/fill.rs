//! The likeliest tokens for each \[MASK\] of a text.

use std::path::Path;

use cloze_engine::{Device, Pass};
use cloze_model::{Inputs, Model};
use cloze_text::{Sequence, Tokenizer};
use serde::Serialize;

use crate::TrainError;
use crate::checkpoint::check_vocabulary;
use crate::recipe::Precision;

/// A model ready to fill masks.
pub struct Filler {
    model: Model,
    tokenizer: Tokenizer,
    device: Device,
    precision: Precision,
}

/// A token that may stand at a \[MASK\].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The token as the vocabulary has it.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability, 0 to 1.
    pub probability: f64,
    /// The text as it was given, with this token at this \[MASK\]; other \[MASK\]s stay.
    pub text: String,
    /// The filled tokens decoded as Transformers' fill-mask pipeline does: lower-cased by an uncased vocabulary, no special
    /// tokens where the text has one \[MASK\], all of them where it has several.
    pub sequence: String,
}

impl Filler {
    /// Opens a Hugging Face folder with an MLM head.
    ///
    /// # Errors
    /// A folder that cannot be read, no MLM head, a tokenizer larger than the model's vocabulary.
    pub fn open(dir: &Path, precision: Precision, threads: Option<usize>) -> Result<Filler, TrainError> {
        let device = Device::cpu(threads)?;
        let model = Model::load(dir, &device)?;
        let tokenizer = Tokenizer::open(dir)?;
        Filler::new(model, tokenizer, device, precision, dir)
    }

    /// As [`open`](Self::open), of a model at hand; `dir` is what errors call it.
    ///
    /// # Errors
    /// As `open`.
    pub fn new(
        mut model: Model,
        tokenizer: Tokenizer,
        device: Device,
        precision: Precision,
        dir: &Path,
    ) -> Result<Filler, TrainError> {
        if !model.heads.mlm {
            return Err(TrainError::NoHead { path: dir.to_owned(), head: "masked-language-model" });
        }
        check_vocabulary(dir, &tokenizer, &model)?;
        model.params.cache_packed_weights();
        Ok(Filler { model, tokenizer, device, precision })
    }

    /// For each \[MASK\] of the text, in order, its `top` likeliest tokens, likeliest first.
    ///
    /// # Errors
    /// [`TrainError::NoMask`]; [`TrainError::TooLong`] when the text does not fit the model's positions.
    pub fn fill(&self, text: &str, top: usize) -> Result<Vec<Vec<Candidate>>, TrainError> {
        let Sequence { ids, segments } = self.tokenizer.template().sequence(&self.tokenizer.encode_masked(text), None);
        let mask = self.tokenizer.special().mask;
        let masks: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == mask).collect();
        if masks.is_empty() {
            let mask = self.tokenizer.mask_token().to_owned();
            return Err(TrainError::NoMask { text: text.to_owned(), mask });
        }
        let positions = self.model.architecture().longest_sequence();
        if ids.len() > positions {
            return Err(TrainError::TooLong { found: ids.len(), positions });
        }
        let mut inputs = Inputs::default();
        inputs.push(&ids, &segments);
        let rows: Vec<i32> = masks.iter().map(|&i| i as i32).collect();
        let mut pass = Pass::inference(&self.device, &self.model.params, self.precision.dtype(&self.device));
        let logits = match self.model.mlm_logits(&mut pass, &inputs, &rows) {
            Some(logits) => logits.value().to_vec_f32(),
            None => Vec::new(), // `new` saw the head and there is a row: not reached
        };
        let rows = masks.iter().zip(logits.chunks(self.model.architecture().vocab_size)).enumerate();
        let text = Masked { text, ids: &ids, masks: masks.len() };
        Ok(rows.map(|(number, (mask, logits))| self.likeliest(&text, number, *mask, logits, top)).collect())
    }

    /// The likeliest tokens of the mask of this number, which stands at `position`.
    fn likeliest(
        &self,
        text: &Masked<'_>,
        number: usize,
        position: usize,
        logits: &[f32],
        top: usize,
    ) -> Vec<Candidate> {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&l| f64::from(l - most).exp()).sum();
        let mut order: Vec<usize> = (0..self.tokenizer.vocab_size().min(logits.len())).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let candidate = |id: &usize| {
            let id = *id as u32;
            let mut filled = text.ids.to_vec();
            filled[position] = id;
            let (piece, continues) = (self.tokenizer.piece_text(id), self.tokenizer.is_continuation(id));
            Candidate {
                token: self.tokenizer.token(id).unwrap_or_default().to_owned(),
                id,
                probability: f64::from(logits[id as usize] - most).exp() / sum,
                text: fill_in(text.text, self.tokenizer.mask_token(), number, &piece, continues),
                sequence: decoded(&self.tokenizer, &filled, text.masks == 1),
            }
        };
        order.iter().take(top).map(candidate).collect()
    }
}

/// A text with its ids and the number of its masks.
struct Masked<'a> {
    text: &'a str,
    ids: &'a [u32],
    masks: usize,
}

/// A text with a piece at its mask of this number, from 0. A piece that continues a word goes to the end of the word before it.
fn fill_in(text: &str, mask: &str, number: usize, piece: &str, continues: bool) -> String {
    let Some((start, _)) = text.match_indices(mask).nth(number) else { return text.to_owned() };
    let (before, after) = (&text[..start], &text[start + mask.len()..]);
    let before = if continues { before.trim_end() } else { before };
    format!("{before}{piece}{after}")
}

/// What Transformers' `decode` makes of ids, `clean_up_tokenization_spaces` on, as for BERT's tokenizers.
fn decoded(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let special = tokenizer.special().all();
    let kept: Vec<u32> = ids.iter().copied().filter(|id| !skip_special || !special.contains(id)).collect();
    let text = tokenizer.decode_all(&kept);
    // PreTrainedTokenizerBase.clean_up_tokenization, in its order.
    let spaced =
        [" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"].map(|spaced| (spaced, spaced.trim()));
    spaced.iter().fold(text, |text, (spaced, joined)| text.replace(spaced, joined))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `fill` showed tokens joined by spaces, lower-cased: "the capital of france is paris ."
    #[test]
    fn the_text_as_given_is_filled() {
        let text = "The Capital of [MASK] is [MASK]!";
        assert_eq!(fill_in(text, "[MASK]", 0, "france", false), "The Capital of france is [MASK]!");
        assert_eq!(fill_in(text, "[MASK]", 1, "paris", false), "The Capital of [MASK] is paris!");
        assert_eq!(fill_in("He was walk [MASK].", "[MASK]", 0, "ing", true), "He was walking.");
        assert_eq!(fill_in("C[MASK]", "[MASK]", 0, "##", false), "C##");
    }

    #[test]
    fn sequences_are_what_the_pipeline_of_transformers_returns() {
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
