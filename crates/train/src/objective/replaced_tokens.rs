//! Replaced-token detection (Clark et al. 2020): a generator fills masked tokens, and a discriminator predicts for each
//! token whether it was replaced.

use cloze_data::batch::{Batch, BatchOptions, PairTask};
use cloze_engine::{DropoutKey, Pass};
use cloze_files::machine;
use cloze_model::losses::{MLM, RTD};
use cloze_model::rtd_pair::DISCRIMINATOR;
use cloze_model::{Inputs, LoadReport, Losses, RtdPair};
use cloze_text::Tokenizer;

use super::start::{Start, check_memory};
use super::term::{Metrics, Term};
use super::train_step::Objective;
use crate::TrainError;
use crate::batch::PretrainBatch;
use crate::vocabulary::require_tokenizer;

/// ELECTRA's objective: the generator's MLM loss, and the discriminator's loss over all tokens. The run's network is an
/// [`RtdPair`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplacedTokens;

/// `gen_weight` and `disc_weight` of google-research/electra's `configure_pretraining.py`. The first loss decides which
/// checkpoint is the best: the discriminator's, for which the run is made.
const TERMS: [Term; 2] = [
    Term { name: RTD, weight: 50.0, metrics: Metrics::Classes },
    Term { name: MLM, weight: 1.0, metrics: Metrics::Tokens },
];

impl Objective for ReplacedTokens {
    type Network = RtdPair;
    type Batch = PretrainBatch;

    fn terms(&self) -> &[Term] {
        &TERMS
    }

    /// Full sentences of one document, masked.
    fn batch_options(&self, mut options: BatchOptions) -> BatchOptions {
        options.pairs = PairTask::None;
        options
    }

    fn batch(&self, sampled: Batch) -> PretrainBatch {
        sampled.into()
    }

    fn inputs<'b>(&self, batch: &'b PretrainBatch) -> &'b Inputs {
        &batch.inputs
    }

    fn initial_network(&self, start: &Start<'_>) -> Result<(RtdPair, LoadReport), TrainError> {
        let Start { recipe, shards, tokenizer, device } = *start;
        let segments = tokenizer.template().segments(false);
        let (pair, dir) = match &recipe.model.init {
            None => {
                let [generator, discriminator] = recipe.rtd_configs(tokenizer.vocab_size(), tokenizer.special())?;
                let parameters = RtdPair::count_parameters(&generator, &discriminator)?;
                check_memory(parameters as u64, machine::memory())?;
                (RtdPair::new(generator, discriminator, device, recipe.seed)?, shards.dir())
            }
            Some(init) => {
                let discriminator = init.join(DISCRIMINATOR);
                require_tokenizer(shards, init, &Tokenizer::open(&discriminator)?)?;
                (RtdPair::load(init, device)?, init.as_path())
            }
        };
        let architecture = pair.discriminator.architecture();
        recipe.check_fit(architecture.max_sequence_length(), architecture.segments)?;
        pair.discriminator.check_tokenizer(dir, tokenizer.vocab_size(), segments)?;
        Ok((pair, LoadReport::default()))
    }

    fn prepare(&self, _: &mut RtdPair) {}

    fn counts(&self, batch: &PretrainBatch) -> Vec<f64> {
        // A batch without predicted tokens has no loss.
        let predicted = batch.labels.mlm_rows.len();
        let tokens = if predicted > 0 { batch.inputs.tokens() } else { 0 };
        vec![tokens as f64, predicted as f64]
    }

    fn loss(
        &self,
        pair: &RtdPair,
        pass: &mut Pass<'_>,
        batch: &PretrainBatch,
        scales: &[f32],
        key: DropoutKey,
    ) -> Losses {
        pair.loss(pass, &batch.inputs, &batch.labels, [scales[1], scales[0]], key)
    }

    fn flops(&self, pair: &RtdPair, batch: &PretrainBatch) -> f64 {
        pair.useful_flops(&batch.inputs, &batch.labels)
    }
}
