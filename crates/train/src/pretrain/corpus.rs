//! The shards of a run: training and held-out batches.

use std::path::Path;

use cloze_data::batch::{BatchSource, PairTask};
use cloze_data::shards::{Shards, Split};
use cloze_data::{DataError, TokenTable};
use cloze_text::Tokenizer;

use crate::TrainError;
use crate::evaluate::{HeldOut, held_out};
use crate::network::Network;
use crate::objective::{Objective, PhaseObjectives};
use crate::recipe::{Phase, Recipe};

/// The shards of a run with their tokenizer.
pub(super) struct Corpus {
    pub shards: Shards,
    pub tokenizer: Tokenizer,
}

impl Corpus {
    /// Opens the shards of a recipe.
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

    /// Checks, before training starts, that the documents provide what each phase needs; returns messages about
    /// limitations.
    pub fn check<N: Network, B>(
        &self,
        recipe: &Recipe,
        objectives: &PhaseObjectives<N, B>,
    ) -> Result<Vec<String>, TrainError> {
        let mut messages = Vec::new();
        for (phase, objective) in objectives.iter().enumerate() {
            let pairs = self.phase_source(recipe, &**objective, phase)?.options().pairs;
            let mut notes: Vec<String> = self.one_sentence_note(pairs).into_iter().collect();
            notes.extend(self.small_text_note(&recipe.phase[phase]));
            if !recipe.eval.every.is_never() {
                let held_out = self.phase_held_out(recipe, &**objective, phase)?;
                if pairs.has_pairs() && !held_out.source.options().pairs.has_pairs() {
                    notes.push(
                        "the held-out documents contain no sentence pairs (too few documents, or only one sentence in each): evaluations \
                         score only masked tokens"
                            .to_owned(),
                    );
                }
            }
            // Most phases have the same notes.
            notes.retain(|note| !messages.contains(note));
            messages.extend(notes);
        }
        Ok(messages)
    }

    /// A note if more than half of the documents have one sentence, so that their pairs teach little.
    fn one_sentence_note(&self, pairs: PairTask) -> Option<String> {
        let report = &self.shards.manifest.report;
        let consequence = match pairs {
            PairTask::Nsp => "so their next sentence is always a random one",
            PairTask::Sop => "which is cut in two to make a pair whose order is predicted",
            PairTask::None => return None,
        };
        (2 * report.one_sentence_documents > report.documents).then(|| {
            let percent = 100.0 * report.one_sentence_documents as f64 / report.documents as f64;
            format!(
                "{percent:.0} % of the documents have only one sentence, {consequence}; if there are blank lines between sentences, \
                 remove them and prepare the text again"
            )
        })
    }

    /// A note if the text does not fill a batch.
    fn small_text_note(&self, phase: &Phase) -> Option<String> {
        let tokens = self.shards.split(Split::Train).tokens();
        let sequences = phase.batch_sequences.map(|sequences| sequences * phase.seq_len);
        let batch = sequences.or(phase.batch_tokens).unwrap_or_default() as u64;
        (tokens < batch).then(|| {
            format!(
                "the training text has only {tokens} tokens, fewer than a batch of {batch}: each batch is all of it; expected more \
                 text, or a smaller `batch_sequences`"
            )
        })
    }

    /// The batches of a phase.
    pub fn phase_source(
        &self,
        recipe: &Recipe,
        objective: &(impl Objective + ?Sized),
        phase: usize,
    ) -> Result<BatchSource, TrainError> {
        let documents = self.shards.split(Split::Train).clone();
        let options = objective.batch_options(recipe.batch_options(phase));
        Ok(BatchSource::new(documents, TokenTable::from(&self.tokenizer), options)?)
    }

    /// The held-out batches of a phase; without sentence pairs if the held-out documents contain none, for example
    /// because there is only one document.
    pub fn phase_held_out(
        &self,
        recipe: &Recipe,
        objective: &(impl Objective + ?Sized),
        phase: usize,
    ) -> Result<HeldOut, TrainError> {
        let (documents, table) = (self.shards.split(Split::Valid), TokenTable::from(&self.tokenizer));
        let options = objective.batch_options(recipe.batch_options(phase)).without_unavailable_pairs(documents, &table);
        held_out(&self.shards, table, options).map_err(|e| match e {
            TrainError::Data(DataError::Sampling { reason }) => {
                let reason = format!("the held-out split: {reason}; or set `eval.every = 0`");
                TrainError::Data(DataError::Sampling { reason })
            }
            other => other,
        })
    }

    /// A fingerprint of the shards that does not depend on their path: of the tokenizer and of every file's checksum.
    pub fn fingerprint(&self) -> Result<String, TrainError> {
        let manifest = &self.shards.manifest;
        let splits = serde_json::to_vec(&manifest.splits)
            .map_err(|e| TrainError::io("compute the fingerprint of", self.shards.dir(), e.into()))?;
        Ok(cloze_files::digest::of_bytes(&[manifest.tokenizer.fingerprint.as_bytes(), &splits].concat()))
    }

    /// Fails unless these are the shards with the fingerprint of the run to resume.
    pub fn require(&self, expected: &str, data: &Path) -> Result<(), TrainError> {
        let found = self.fingerprint()?;
        if expected == found {
            return Ok(());
        }
        Err(TrainError::OtherShards { path: data.to_owned(), expected: expected.to_owned(), found })
    }
}
