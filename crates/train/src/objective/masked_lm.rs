//! Masked language modelling with or without next-sentence prediction (Devlin et al. 2019, section 3.1 and appendix
//! A.2).

use cloze_data::batch::{Batch, BatchOptions};
use cloze_engine::{DropoutKey, Pass};
use cloze_model::losses::{MLM, NSP};
use cloze_model::{FlopsOf, Heads, Inputs, LoadReport, LossScale, Losses, Model};

use super::start::{Start, initial_model};
use super::term::Term;
use super::train_step::Objective;
use crate::TrainError;
use crate::batch::PretrainBatch;

/// BERT's objective: the mean loss of the masked tokens and, with `nsp`, that of the sentence pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskedLm {
    /// Whether sequences are sentence pairs, and the model predicts whether the second sentence follows the first.
    pub nsp: bool,
}

/// Always both: without pairs, the second loss has no predictions and is shown as absent.
const TERMS: [Term; 2] =
    [Term { name: MLM, weight: 1.0, has_perplexity: true }, Term { name: NSP, weight: 1.0, has_perplexity: false }];

impl MaskedLm {
    /// The heads that are trained.
    fn heads(self) -> Heads {
        if self.nsp { Heads::PRETRAINING } else { Heads::MLM }
    }
}

impl Objective for MaskedLm {
    type Network = Model;
    type Batch = PretrainBatch;

    fn terms(&self) -> &'static [Term] {
        &TERMS
    }

    fn batch_options(&self, mut options: BatchOptions) -> BatchOptions {
        options.nsp = self.nsp;
        options
    }

    fn batch(&self, sampled: Batch) -> PretrainBatch {
        sampled.into()
    }

    fn inputs<'b>(&self, batch: &'b PretrainBatch) -> &'b Inputs {
        &batch.inputs
    }

    /// Heads that are needed but missing in the checkpoint are new; its other heads are kept.
    fn initial_network(&self, start: &Start<'_>) -> Result<(Model, LoadReport), TrainError> {
        let nsp = self.nsp;
        initial_model(start, false, self.heads(), |stored| {
            let is_complete = stored.mlm && (stored.nsp || !nsp);
            let mut heads = Heads::MLM;
            heads.pooler = stored.pooler || nsp;
            heads.nsp = stored.nsp || nsp;
            (!is_complete).then_some(heads)
        })
    }

    fn freeze(&self, model: &mut Model) {
        model.freeze_unused_heads(self.heads());
    }

    fn counts(&self, batch: &PretrainBatch) -> Vec<f64> {
        vec![batch.labels.mlm_rows.len() as f64, batch.labels.nsp_labels.len() as f64]
    }

    fn loss(&self, model: &Model, pass: &mut Pass<'_>, batch: &PretrainBatch, scales: &[f32], _: DropoutKey) -> Losses {
        model.loss(pass, &batch.inputs, &batch.labels, LossScale { mlm: scales[0], nsp: scales[1] })
    }

    fn flops(&self, model: &Model, batch: &PretrainBatch) -> f64 {
        model.useful_flops(&batch.inputs, &batch.labels, FlopsOf::ForwardBackward)
    }
}
