//! The likeliest tokens for each \[MASK\] of a text.

use std::path::Path;

use cloze_data::batch::Batch;
use cloze_engine::{Device, Pass};
use cloze_model::Model;
use cloze_text::Tokenizer;
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
    /// The text with this token at this \[MASK\]; other \[MASK\]s stay.
    pub text: String,
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
        model.params.keep_copies();
        Ok(Filler { model, tokenizer, device, precision })
    }

    /// For each \[MASK\] of the text, in order, its `top` likeliest tokens, likeliest first.
    ///
    /// # Errors
    /// [`TrainError::NoMask`]; [`TrainError::TooLong`] when the text does not fit the model's positions.
    pub fn fill(&self, text: &str, top: usize) -> Result<Vec<Vec<Candidate>>, TrainError> {
        let special = self.tokenizer.special();
        let mut ids = vec![special.cls];
        ids.extend(self.tokenizer.encode_masked(text));
        ids.push(special.sep);
        let masks: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == special.mask).collect();
        if masks.is_empty() {
            return Err(TrainError::NoMask(text.to_owned()));
        }
        let positions = self.model.config.max_position_embeddings;
        if ids.len() > positions {
            return Err(TrainError::TooLong { found: ids.len(), positions });
        }
        let batch = Batch {
            positions: (0..ids.len() as i32).collect(),
            segments: vec![0; ids.len()],
            cu_seqlens: vec![0, ids.len() as i32],
            mlm_rows: masks.iter().map(|&i| i as i32).collect(),
            mlm_labels: vec![0; masks.len()],
            nsp_labels: Vec::new(),
            ids: ids.iter().map(|&id| id as i32).collect(),
        };
        let mut pass = Pass::inference(&self.device, &self.model.params, self.precision.dtype(&self.device));
        let logits = match self.model.mlm_logits(&mut pass, &batch) {
            Some(logits) => logits.value().to_vec_f32(),
            None => Vec::new(), // `new` saw the head and there is a row: not reached
        };
        let row = |(mask, logits): (&usize, &[f32])| self.likeliest(&ids, *mask, logits, top);
        Ok(masks.iter().zip(logits.chunks(self.model.config.vocab_size)).map(row).collect())
    }

    fn likeliest(&self, ids: &[u32], mask: usize, logits: &[f32], top: usize) -> Vec<Candidate> {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&l| f64::from(l - most).exp()).sum();
        let mut order: Vec<usize> = (0..self.tokenizer.vocab_size().min(logits.len())).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let candidate = |id: &usize| {
            let mut filled = ids.to_vec();
            filled[mask] = *id as u32;
            Candidate {
                token: self.tokenizer.token(*id as u32).unwrap_or_default().to_owned(),
                id: *id as u32,
                probability: f64::from(logits[*id] - most).exp() / sum,
                text: self.tokenizer.decode(&filled),
            }
        };
        order.iter().take(top).map(candidate).collect()
    }
}
