//! Held-out loss and accuracy, on the same examples with the same masks every time.

use std::path::Path;

use cloze_data::TokenTable;
use cloze_data::batch::{BatchOptions, BatchSize, BatchSource};
use cloze_data::masking::Masking;
use cloze_data::shards::{Documents, Shards, Split};
use cloze_engine::{Device, Pass};
use cloze_model::losses::{MLM, NSP};
use cloze_model::{LossScale, Losses, Model};
use cloze_text::Tokenizer;
use serde::Serialize;

use crate::TrainError;
use crate::batch::PretrainBatch;
use crate::recipe::Precision;

/// The seed of held-out pairs and masks, whatever a run's own: evaluations of different runs can be compared.
const SEED: u64 = 0xe7a1;

/// What a model achieves on held-out documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Sequences scored.
    pub sequences: u64,
    /// Real tokens scored.
    pub tokens: u64,
    /// Tokens predicted.
    pub predicted: u64,
    /// Mean loss of a predicted token, in nats.
    pub mlm_loss: f64,
    /// e to the power of the loss.
    pub mlm_perplexity: f64,
    /// Share of the predicted tokens that were right.
    pub mlm_accuracy: f64,
    /// Mean next-sentence loss of a sequence; none without the head or without pairs.
    pub nsp_loss: Option<f64>,
    /// Share of the sequences whose next-sentence label was right.
    pub nsp_accuracy: Option<f64>,
}

/// How to evaluate a model folder.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Tokens of a sequence at most.
    pub seq_len: usize,
    /// Sequences of a batch.
    pub batch_sequences: usize,
    /// Batches at most; the whole split, once, if none.
    pub batches: Option<u64>,
    /// What is hidden.
    pub masking: Masking,
    /// Type of the activations.
    pub precision: Precision,
    /// CPU threads; all if none.
    pub threads: Option<usize>,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        EvaluateOptions {
            seq_len: 128,
            batch_sequences: 32,
            batches: None,
            masking: Masking::default(),
            precision: Precision::Auto,
            threads: None,
        }
    }
}

/// Batches of held-out documents: pairs, lengths and masks as `options` say, but drawn with a fixed seed.
///
/// # Errors
/// Those of [`BatchSource::new`].
pub fn held_out(documents: &Documents, table: TokenTable, options: BatchOptions) -> Result<BatchSource, TrainError> {
    let options = BatchOptions { seed: SEED, duplicates: None, ..options };
    Ok(BatchSource::new(documents.clone(), table, options)?)
}

/// Scores a model on one pass over the source's documents, or on its first `batches`. `progress` is told the share done.
pub fn evaluate(
    model: &Model,
    device: &Device,
    precision: Precision,
    source: &BatchSource,
    batches: Option<u64>,
    mut progress: impl FnMut(f64),
) -> Evaluation {
    let mut losses = Losses::default();
    let (mut sequences, mut tokens) = (0, 0);
    let all = source.sequences_of(0).max(1);
    let most = batches.map_or(usize::MAX, |n| n as usize);
    for (done, batch) in (1..).zip(source.epoch_batches(0).take(most)) {
        let mut pass = Pass::inference(device, &model.params, precision.dtype(device));
        let PretrainBatch { inputs, labels } = batch.into();
        losses.merge(&model.loss(&mut pass, &inputs, &labels, LossScale::mean(&labels)));
        sequences += inputs.sequences() as u64;
        tokens += inputs.tokens() as u64;
        let share = (sequences as f64 / all as f64).max(done as f64 / most as f64);
        progress(share.min(1.0));
    }
    let [mlm, nsp] = [MLM, NSP].map(|name| losses.get(name).unwrap_or_default());
    Evaluation {
        sequences,
        tokens,
        predicted: mlm.count as u64,
        mlm_loss: mlm.mean(),
        mlm_perplexity: mlm.mean().exp(),
        mlm_accuracy: mlm.accuracy(),
        nsp_loss: (nsp.count > 0).then(|| nsp.mean()),
        nsp_accuracy: (nsp.count > 0).then(|| nsp.accuracy()),
    }
}

/// Scores a model folder on the held-out split of a folder of shards.
///
/// # Errors
/// A folder that cannot be read, a model without the MLM head, shards made with another tokenizer than the model's,
/// sequences longer than the model's positions, an empty split.
pub fn evaluate_folder(
    model_dir: &Path,
    shards_dir: &Path,
    options: &EvaluateOptions,
    progress: impl FnMut(f64),
) -> Result<Evaluation, TrainError> {
    let shards = Shards::open(shards_dir)?;
    let device = Device::cpu(options.threads)?;
    let mut model = Model::load(model_dir, &device)?;
    model.params.cache_packed_weights();
    let tokenizer = Tokenizer::open(model_dir)?;
    require_tokenizer(&shards, model_dir, &tokenizer)?;
    model.check_vocabulary(model_dir, tokenizer.vocab_size())?;
    if !model.heads.mlm {
        return Err(TrainError::NoHead { path: model_dir.to_owned(), head: "masked-language-model" });
    }
    let positions = model.architecture().longest_sequence();
    if options.seq_len > positions {
        return Err(TrainError::TooLong { found: options.seq_len, positions });
    }
    let documents = shards.split(Split::Valid);
    if documents.tokens() == 0 {
        return Err(TrainError::NoHeldOut(shards_dir.to_owned()));
    }
    let table = TokenTable::from(&tokenizer);
    let batches = BatchOptions {
        seq_len: options.seq_len,
        size: BatchSize::Sequences(options.batch_sequences),
        nsp: model.heads.nsp,
        masking: options.masking.clone(),
        ..BatchOptions::default()
    };
    // Documents that give no pairs have no next-sentence score; the other scores they have.
    let batches = batches.fitting(documents, &table);
    let source = held_out(documents, table, batches)?;
    Ok(evaluate(&model, &device, options.precision, &source, options.batches, progress))
}

/// Fails unless the shards were made with the model's tokenizer.
pub(crate) fn require_tokenizer(shards: &Shards, model_dir: &Path, tokenizer: &Tokenizer) -> Result<(), TrainError> {
    let (expected, found) = (tokenizer.fingerprint(), &shards.manifest.tokenizer.fingerprint);
    if expected == *found {
        return Ok(());
    }
    Err(TrainError::OtherTokenizer {
        shards: shards.dir().to_owned(),
        model: model_dir.to_owned(),
        found: found.clone(),
        expected,
    })
}
