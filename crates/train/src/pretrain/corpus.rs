//! The text that a run learns from and is judged by.

use std::path::Path;

use cloze_data::batch::BatchSource;
use cloze_data::shards::{Shards, Split};
use cloze_data::{DataError, TokenTable};
use cloze_text::Tokenizer;

use crate::TrainError;
use crate::evaluate::held_out;
use crate::objective::Objective;
use crate::recipe::Recipe;

/// The shards of a run with their tokenizer.
pub(super) struct Corpus {
    pub shards: Shards,
    pub tokenizer: Tokenizer,
}

impl Corpus {
    /// Opens the shards that a recipe names.
    pub fn open(recipe: &Recipe) -> Result<Corpus, TrainError> {
        let shards = Shards::open(&recipe.data)?;
        let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
        shards.check_tokenizer(&tokenizer)?;
        let evaluates = !recipe.eval.every.is_never();
        if evaluates && shards.split(Split::Valid).tokens() == 0 {
            return Err(TrainError::NoHeldOut(recipe.data.clone()));
        }
        Ok(Corpus { shards, tokenizer })
    }

    /// Fails for what a phase's documents cannot give, before the phase begins; returns what there is to say of them.
    pub fn check(&self, recipe: &Recipe, objective: &impl Objective) -> Result<Vec<String>, TrainError> {
        let mut messages = Vec::new();
        for phase in 0..recipe.phase.len() {
            let source = self.phase_source(recipe, objective, phase)?;
            if !recipe.eval.every.is_never() {
                let held_out = self.phase_held_out(recipe, objective, phase)?;
                if source.options().nsp && !held_out.options().nsp && messages.is_empty() {
                    messages.push(
                        "the held-out documents give no sentence pairs (too few, or of one sentence each): evaluations \
                         score masked tokens alone"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(messages)
    }

    /// The batches of a phase.
    pub fn phase_source(
        &self,
        recipe: &Recipe,
        objective: &impl Objective,
        phase: usize,
    ) -> Result<BatchSource, TrainError> {
        let documents = self.shards.split(Split::Train).clone();
        let options = objective.batch_options(recipe.batch_options(phase));
        Ok(BatchSource::new(documents, TokenTable::from(&self.tokenizer), options)?)
    }

    /// The batches that a phase is evaluated on: without sentence pairs where the held-out documents give none, as one alone does.
    pub fn phase_held_out(
        &self,
        recipe: &Recipe,
        objective: &impl Objective,
        phase: usize,
    ) -> Result<BatchSource, TrainError> {
        let (documents, table) = (self.shards.split(Split::Valid), TokenTable::from(&self.tokenizer));
        let options = objective.batch_options(recipe.batch_options(phase)).disable_nsp_if_unavailable(documents, &table);
        held_out(documents, table, options).map_err(|e| match e {
            TrainError::Data(DataError::Sampling { reason }) => {
                let reason = format!("the held-out split: {reason}; or set eval.every = 0");
                TrainError::Data(DataError::Sampling { reason })
            }
            other => other,
        })
    }

    /// What the shards are, whatever their path: their tokenizer and every file's checksum.
    pub fn fingerprint(&self) -> Result<String, TrainError> {
        let manifest = &self.shards.manifest;
        let splits = serde_json::to_vec(&manifest.splits)
            .map_err(|e| TrainError::io("take the fingerprint of", self.shards.dir(), e.into()))?;
        Ok(cloze_files::digest::of_bytes(&[manifest.tokenizer.fingerprint.as_bytes(), &splits].concat()))
    }

    /// Fails unless a run began with these shards, whose fingerprint it kept.
    pub fn require(&self, expected: &str, data: &Path) -> Result<(), TrainError> {
        let found = self.fingerprint()?;
        if expected == found {
            return Ok(());
        }
        Err(TrainError::OtherShards { path: data.to_owned(), expected: expected.to_owned(), found })
    }
}
