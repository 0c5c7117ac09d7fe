//! Held-out loss and accuracy, on the same examples with the same masks every time.

use std::ops::ControlFlow;
use std::path::Path;

use cloze_data::TokenTable;
use cloze_data::batch::{BatchOptions, BatchSize, BatchSource};
use cloze_data::masking::Masking;
use cloze_data::shards::{Documents, Shards, Split};
use cloze_engine::{DType, Device, DropoutKey, Pass};
use cloze_model::{Losses, Model};
use cloze_text::Tokenizer;
use serde::Serialize;

use crate::TrainError;
use crate::network::Network;
use crate::objective::{CausalLm, MaskedLm, Objective, figures};
use crate::recipe::Precision;
use crate::run::LossFigures;
use crate::vocabulary::require_tokenizer;

/// The seed of held-out pairs and masks, whatever a run's own: evaluations of different runs can be compared.
const SEED: u64 = 0xe7a1;

/// What a model achieves on held-out documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Sequences scored.
    pub sequences: u64,
    /// Real tokens scored.
    pub tokens: u64,
    /// Predictions that count in the first loss: tokens.
    pub predicted: u64,
    /// The objective's losses: `mlm_loss`, `mlm_perplexity`, `mlm_accuracy`, and so on.
    #[serde(flatten)]
    pub losses: LossFigures,
}

/// How to evaluate a model folder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EvaluateOptions {
    /// Tokens of a sequence at most.
    pub seq_len: usize,
    /// Sequences of a batch.
    pub batch_sequences: usize,
    /// Batches at most; the whole split, once, if none.
    pub batches: Option<u64>,
    /// What is masked of a masked language model's text.
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

/// Batches of held-out documents: pairs, lengths and masks as `options` say, but drawn with a fixed seed.
///
/// # Errors
/// Those of [`BatchSource::new`].
pub fn held_out(
    documents: &Documents,
    table: TokenTable,
    mut options: BatchOptions,
) -> Result<BatchSource, TrainError> {
    options.seed = SEED;
    options.duplicates = None;
    Ok(BatchSource::new(documents.clone(), table, options)?)
}

/// Scores a network on one pass over the source's documents, or on its first `batches`. `progress` is told the share done; none if it
/// breaks.
pub fn evaluate<O: Objective>(
    objective: &O,
    network: &O::Network,
    device: &Device,
    precision: DType,
    source: &BatchSource,
    batches: Option<u64>,
    mut progress: impl FnMut(f64) -> ControlFlow<()>,
) -> Option<Evaluation> {
    let mut losses = Losses::default();
    let (mut sequences, mut tokens) = (0, 0);
    let all = source.sequences_of(0).max(1);
    let most = batches.map_or(usize::MAX, |n| n as usize);
    let terms = objective.terms();
    let scales = vec![1.0; terms.len()];
    for (done, drawn) in (1..).zip(source.epoch_batches(0).take(most)) {
        let batch = objective.batch(drawn);
        let mut pass = Pass::inference(device, network.params(), precision);
        let key = DropoutKey { seed: SEED, step: 0, micro: done };
        losses.merge(&objective.loss(network, &mut pass, &batch, &scales, key));
        sequences += objective.inputs(&batch).sequences() as u64;
        tokens += objective.inputs(&batch).tokens() as u64;
        let share = (sequences as f64 / all as f64).max(f64::from(done) / most as f64);
        if progress(share.min(1.0)).is_break() {
            return None;
        }
    }
    let sum = |name: &str| losses.get(name).unwrap_or_default();
    Some(Evaluation {
        sequences,
        tokens,
        predicted: terms.first().map_or(0, |term| sum(term.name).count as u64),
        losses: figures(terms, sum, true),
    })
}

/// Scores a model folder on the held-out split of a folder of shards: a causal language model by its next tokens, others by masked
/// tokens and, with the head, sentence pairs.
///
/// # Errors
/// A folder that cannot be read, a model without the MLM head, shards made with another tokenizer than the model's,
/// sequences longer than the model's positions, an empty split; [`TrainError::NoNumbers`] for losses that are not numbers.
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
        evaluate_model(&CausalLm, &model, device, shards.split(Split::Valid), table, options, progress)?
    } else {
        let objective = MaskedLm { nsp: model.heads.nsp };
        evaluate_model(&objective, &model, device, shards.split(Split::Valid), table, options, progress)?
    };
    if evaluation.losses.iter().any(|figure| figure.loss.is_some_and(|loss| !loss.is_finite())) {
        return Err(TrainError::NoNumbers(model_dir.to_owned()));
    }
    Ok(evaluation)
}

fn evaluate_model<O: Objective<Network = Model>>(
    objective: &O,
    model: &Model,
    device: &Device,
    documents: &Documents,
    table: TokenTable,
    options: &EvaluateOptions,
    mut progress: impl FnMut(f64),
) -> Result<Evaluation, TrainError> {
    let mut batches = BatchOptions::default();
    batches.seq_len = options.seq_len;
    batches.size = BatchSize::Sequences(options.batch_sequences);
    batches.masking = Some(options.masking.clone());
    let batches = objective.batch_options(batches);
    // Documents that give no pairs have no next-sentence score; the other scores they have.
    let batches = batches.fitting(documents, &table);
    let source = held_out(documents, table, batches)?;
    let precision = options.precision.dtype(device);
    let progress = |share: f64| {
        progress(share);
        ControlFlow::Continue(())
    };
    let evaluation = evaluate(objective, model, device, precision, &source, options.batches, progress);
    Ok(evaluation.expect("nothing breaks it"))
}
