//! Held-out loss and accuracy, always on the same examples with the same masks.

use std::ops::ControlFlow;
use std::path::Path;

use cloze_comm::Communicator;
use cloze_data::TokenTable;
use cloze_data::batch::{BatchOptions, BatchSize, BatchSource};
use cloze_data::masking::Masking;
use cloze_data::shards::{Shards, Split};
use cloze_engine::{DType, Device, DropoutKey, Pass};
use cloze_model::{Losses, Model};
use cloze_text::Tokenizer;
use serde::Serialize;

use crate::TrainError;
use crate::micro_batch::{MicroBatch, gather_in_turn};
use crate::network::Network;
use crate::objective::{CausalLm, MaskedLm, Objective, ScoredText, figures};
use crate::recipe::Precision;
use crate::run::LossFigures;
use crate::vocabulary::require_tokenizer;

/// The seed of held-out pairs and masks. Independent of the run's seed, so that evaluations of different runs are
/// comparable.
const SEED: u64 = 0xe7a1;

/// The results of a model on held-out documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Number of sequences scored.
    pub sequences: u64,
    /// Number of tokens scored.
    pub tokens: u64,
    /// Number of predictions in the first loss.
    pub predicted: u64,
    /// The losses of the objective: `mlm_loss`, `mlm_perplexity`, `mlm_accuracy`, and so on.
    #[serde(flatten)]
    pub losses: LossFigures,
}

/// Options for evaluating a model folder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EvaluateOptions {
    /// Maximum number of tokens of a sequence.
    pub seq_len: usize,
    /// Sequences per batch.
    pub batch_sequences: usize,
    /// Maximum number of batches; `None` for one pass over the split.
    pub batches: Option<u64>,
    /// Masking of the text, for masked language models.
    pub masking: Masking,
    /// Type of the activations.
    pub precision: Precision,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        EvaluateOptions {
            seq_len: 128,
            batch_sequences: 32,
            batches: None,
            masking: Masking::default(),
            precision: Precision::Auto,
        }
    }
}

/// Held-out text.
#[derive(Debug)]
pub struct HeldOut {
    /// Its batches.
    pub source: BatchSource,
    /// Characters (Unicode scalar values) of the held-out documents per token, without special tokens; `None` for shards that were
    /// prepared before characters were counted.
    pub characters_per_token: Option<f64>,
}

/// The held-out text of shards, with pairs, lengths and masks as in `options`, but with a fixed seed. With a schedule of the
/// masking rate, the rate is always the final one, so that evaluations during a run are comparable.
///
/// # Errors
/// Those of [`BatchSource::new`].
pub fn held_out(shards: &Shards, table: TokenTable, mut options: BatchOptions) -> Result<HeldOut, TrainError> {
    options.seed = SEED;
    options.duplicates = None;
    if let Some(masking) = &mut options.masking {
        masking.rate = masking.final_rate.take().unwrap_or(masking.rate);
    }
    let counts = shards.manifest.split(Split::Valid);
    let characters_per_token = counts.characters().map(|characters| characters as f64 / counts.tokens() as f64);
    let source = BatchSource::new(shards.split(Split::Valid).clone(), table, options)?;
    Ok(HeldOut { source, characters_per_token })
}

/// Scores a network on one pass over held-out text, or on its first `batches`. The ranks of a job share the batches; the result has the
/// same bits for any number of them. Calls `progress` with the fraction that is done; returns `None` if it breaks at one of the ranks.
#[expect(clippy::too_many_arguments, reason = "a network, where it runs, what it is scored on")]
pub fn evaluate<O: Objective + ?Sized>(
    objective: &O,
    network: &O::Network,
    device: &Device,
    precision: DType,
    ranks: &Communicator,
    held_out: &HeldOut,
    batches: Option<u64>,
    mut progress: impl FnMut(f64) -> ControlFlow<()>,
) -> Option<Evaluation> {
    let source = &held_out.source;
    let total = source.epoch_sequences(0).max(1);
    let max = batches.map_or(usize::MAX, |n| n as usize);
    let terms = objective.terms();
    let scales = vec![1.0; terms.len()];
    let mut own = Vec::new();
    let (mut seen, mut is_stopped) = (0, false);
    for (done, sampled) in (1..).zip(source.epoch_batches(0).take(max)) {
        let batch = objective.batch(sampled);
        let sequences = objective.inputs(&batch).sequences() as u64;
        seen += sequences;
        if (done as usize - 1) % ranks.size() != ranks.rank() {
            continue;
        }
        let mut pass = Pass::inference(device, network.params(), precision);
        let key = DropoutKey { seed: SEED, step: 0, micro: done };
        let losses = objective.loss(network, &mut pass, &batch, &scales, key);
        let tokens = objective.inputs(&batch).tokens() as u64;
        own.push((sequences, MicroBatch { losses, tokens, flops: 0.0 }));
        let fraction = (seen as f64 / total as f64).max(f64::from(done) / max as f64);
        is_stopped = progress(fraction.min(1.0)).is_break();
        if is_stopped {
            break;
        }
    }
    if ranks.any(is_stopped) {
        return None;
    }
    let own_sequences: u64 = own.iter().map(|(sequences, _)| sequences).sum();
    let sequences: u64 = ranks.all_gather_numbers(&[own_sequences]).into_iter().sum();
    let mut losses = Losses::default();
    let mut tokens = 0;
    for MicroBatch { losses: of_batch, tokens: more, .. } in
        gather_in_turn(ranks, own.into_iter().map(|(_, r)| r).collect())
    {
        losses.merge(&of_batch);
        tokens += more;
    }
    let sum = |name: &str| losses.get(name).unwrap_or_default();
    let text = ScoredText {
        tokens: tokens - sequences * source.added_tokens() as u64,
        characters_per_token: held_out.characters_per_token,
    };
    Some(Evaluation {
        sequences,
        tokens,
        predicted: terms.first().map_or(0, |term| sum(term.name).count as u64),
        losses: figures(terms, sum, Some(text)),
    })
}

/// Scores a model folder on the held-out split of a folder of shards: a causal language model on next tokens, other
/// models on masked tokens and, if they have the head, on sentence pairs.
///
/// # Errors
/// A folder that cannot be read, a model without the MLM head, shards of another tokenizer, sequences that are longer
/// than the model's positions, an empty split; [`TrainError::LossNotFinite`] for a loss that is NaN or infinite.
pub fn evaluate_folder(
    model_dir: &Path,
    shards_dir: &Path,
    device: &Device,
    options: &EvaluateOptions,
    progress: impl FnMut(f64),
) -> Result<Evaluation, TrainError> {
    let shards = Shards::open(shards_dir)?;
    let mut model = Model::load(model_dir, device)?;
    model.params.cache_packed_weights();
    let tokenizer = Tokenizer::open(model_dir)?;
    require_tokenizer(&shards, model_dir, &tokenizer)?;
    let segments = tokenizer.template().segments(model.heads.nsp);
    model.check_tokenizer(model_dir, tokenizer.vocab_size(), segments)?;
    if !model.heads.mlm {
        return Err(TrainError::NoHead { path: model_dir.to_owned(), head: "masked-language-model" });
    }
    let positions = model.architecture().max_sequence_length();
    if options.seq_len > positions {
        return Err(TrainError::TooLong { found: options.seq_len, positions });
    }
    if shards.split(Split::Valid).tokens() == 0 {
        return Err(TrainError::NoHeldOut(shards_dir.to_owned()));
    }
    let table = TokenTable::from(&tokenizer);
    let evaluation = if model.architecture().causal {
        evaluate_model(&CausalLm, &model, device, &shards, table, options, progress)?
    } else {
        evaluate_model(&MaskedLm::of(&model), &model, device, &shards, table, options, progress)?
    };
    if evaluation.losses.iter().any(|figure| figure.loss.is_some_and(|loss| !loss.is_finite())) {
        return Err(TrainError::LossNotFinite(model_dir.to_owned()));
    }
    Ok(evaluation)
}

fn evaluate_model<O: Objective<Network = Model>>(
    objective: &O,
    model: &Model,
    device: &Device,
    shards: &Shards,
    table: TokenTable,
    options: &EvaluateOptions,
    mut progress: impl FnMut(f64),
) -> Result<Evaluation, TrainError> {
    let mut batches = BatchOptions::default();
    batches.seq_len = options.seq_len;
    batches.size = BatchSize::Sequences(options.batch_sequences);
    batches.masking = Some(options.masking.clone());
    let batches = objective.batch_options(batches);
    // If the documents contain no pairs, there is no score of pairs; the other scores are computed.
    let batches = batches.without_unavailable_pairs(shards.split(Split::Valid), &table);
    let held_out = held_out(shards, table, batches)?;
    let precision = options.precision.dtype(device);
    let progress = |share: f64| {
        progress(share);
        ControlFlow::Continue(())
    };
    let evaluation =
        evaluate(objective, model, device, precision, &Communicator::single(), &held_out, options.batches, progress);
    Ok(evaluation.expect("progress never breaks"))
}
