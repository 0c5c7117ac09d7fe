//! Masked language modelling with or without a task of sentence pairs: next-sentence prediction (Devlin et al. 2019, section
//! 3.1 and appendix A.2) or sentence-order prediction (Lan et al. 2020, section 3.1).

use cloze_data::batch::{Batch, BatchOptions, PairTask};
use cloze_engine::{DropoutKey, Pass};
use cloze_model::losses::{MLM, NSP, SOP};
use cloze_model::{Family, FlopsOf, Heads, Inputs, LoadReport, LossScale, Losses, Model};

use super::start::{Start, initial_model};
use super::term::{Metrics, Term};
use super::train_step::Objective;
use crate::TrainError;
use crate::batch::PretrainBatch;

/// BERT's objective: the mean loss of the masked tokens and, with pairs, that of their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskedLm {
    /// What the model predicts from sentence pairs. Both tasks have the next-sentence head.
    pub pairs: PairTask,
}

const TOKENS: Term = Term { name: MLM, weight: 1.0, metrics: Metrics::Tokens };
/// Always both: without pairs, the second loss has no predictions and is shown as absent.
const NEXT_SENTENCE: [Term; 2] = [TOKENS, Term { name: NSP, weight: 1.0, metrics: Metrics::Classes }];
const SENTENCE_ORDER: [Term; 2] = [TOKENS, Term { name: SOP, weight: 1.0, metrics: Metrics::Classes }];

/// The key of config.json for the task of the head of sentence pairs, [`NSP`] or [`SOP`], if it is not the family's own.
const PAIR_TASK: &str = "cloze_pair_task";

/// The task of the head of sentence pairs in the models of a family.
fn own_task(family: &Family) -> &'static str {
    if family.orders_sentences { SOP } else { NSP }
}

impl MaskedLm {
    /// The objective that a model was trained with, according to its heads and its configuration.
    pub fn of(model: &Model) -> MaskedLm {
        let named = model.config().extra.get(PAIR_TASK).and_then(|task| task.as_str());
        let is_order = named.unwrap_or(own_task(model.schema().family())) == SOP;
        MaskedLm {
            pairs: match model.heads.nsp {
                false => PairTask::None,
                true if is_order => PairTask::Sop,
                true => PairTask::Nsp,
            },
        }
    }

    /// The heads that are trained.
    fn heads(self) -> Heads {
        if self.pairs.has_pairs() { Heads::PRETRAINING } else { Heads::MLM }
    }
}

impl Objective for MaskedLm {
    type Network = Model;
    type Batch = PretrainBatch;

    fn terms(&self) -> &[Term] {
        if self.pairs == PairTask::Sop { &SENTENCE_ORDER } else { &NEXT_SENTENCE }
    }

    fn batch_options(&self, mut options: BatchOptions) -> BatchOptions {
        options.pairs = self.pairs;
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
        let has_pairs = self.pairs.has_pairs();
        let (mut model, report) = initial_model(start, false, self.heads(), |stored| {
            let is_complete = stored.mlm && (stored.nsp || !has_pairs);
            let mut heads = Heads::MLM;
            heads.pooler = stored.pooler || has_pairs;
            heads.nsp = stored.nsp || has_pairs;
            (!is_complete).then_some(heads)
        })?;
        let mut config = model.config().clone();
        let task = if self.pairs == PairTask::Sop { SOP } else { NSP };
        if has_pairs && task == own_task(model.schema().family()) {
            config.extra.remove(PAIR_TASK);
        } else if has_pairs {
            config.extra.insert(PAIR_TASK.to_owned(), task.into());
        }
        model.set_config(config)?;
        Ok((model, report))
    }

    fn prepare(&self, model: &mut Model) {
        model.set_causal(false);
        model.freeze_unused_heads(self.heads());
    }

    fn counts(&self, batch: &PretrainBatch) -> Vec<f64> {
        vec![batch.labels.mlm_rows.len() as f64, batch.labels.nsp_labels.len() as f64]
    }

    fn loss(&self, model: &Model, pass: &mut Pass<'_>, batch: &PretrainBatch, scales: &[f32], _: DropoutKey) -> Losses {
        let scale = LossScale { mlm: scales[0], nsp: scales[1] };
        let mut losses = model.loss(pass, &batch.inputs, &batch.labels, scale);
        if self.pairs == PairTask::Sop {
            losses.rename(NSP, SOP);
        }
        losses
    }

    fn flops(&self, model: &Model, batch: &PretrainBatch) -> f64 {
        model.useful_flops(&batch.inputs, &batch.labels, FlopsOf::ForwardBackward)
    }
}
