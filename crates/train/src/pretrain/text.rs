//! The text of a run: its fingerprint, and the number of tokens of its steps, to give runs the same number of tokens.

use super::corpus::Corpus;
use crate::TrainError;
use crate::network::Network;
use crate::objective::PhaseObjectives;
use crate::recipe::Recipe;

/// Micro-batches of each phase that are sampled. Lengths vary by a few percent, so that the error of the mean is a few
/// tenths of a percent.
const SAMPLE: u64 = 64;

/// The text that a run trains on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TextOfRun {
    /// A fingerprint of the shards and their tokenizer that does not depend on the folder's path.
    pub fingerprint: String,
    /// Mean number of tokens of a step over the run, padding excluded.
    pub step_tokens: f64,
}

pub(super) fn text_of_run<N: Network, B>(
    objectives: &PhaseObjectives<N, B>,
    recipe: &Recipe,
) -> Result<TextOfRun, TrainError> {
    let corpus = Corpus::open(recipe)?;
    let mut of_micro_batch = Vec::new();
    for (phase, objective) in objectives.iter().enumerate() {
        let source = corpus.phase_source(recipe, &**objective, phase)?;
        let tokens = (0..SAMPLE).map(|index| objective.inputs(&objective.batch(source.batch(index))).tokens());
        of_micro_batch.push(tokens.sum::<usize>() as f64 / SAMPLE as f64);
    }
    let (mut step_tokens, mut start) = (0.0, 0.0);
    for part in recipe.parts() {
        step_tokens += (part.end - start) * f64::from(part.micro_batches) * of_micro_batch[part.phase];
        start = part.end;
    }
    Ok(TextOfRun { fingerprint: corpus.fingerprint()?, step_tokens })
}
