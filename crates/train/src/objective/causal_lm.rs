//! Causal language modelling: each token is predicted from those before it (Radford et al. 2018; the left-to-right
//! ablation of Devlin et al. 2019, section 5.1), as Transformers' `BertLMHeadModel` with `labels = input_ids`.

use cloze_data::batch::{Batch, BatchOptions, PairTask};
use cloze_engine::{DropoutKey, Pass};
use cloze_model::losses::CLM;
use cloze_model::{FlopsOf, Heads, Inputs, LoadReport, LossScale, Losses, Model, PretrainLabels};

use super::start::{Start, initial_model};
use super::term::{Metrics, Term};
use super::train_step::Objective;
use crate::TrainError;
use crate::batch::PretrainBatch;

/// Predicts the next token of every token except for the last one of each sequence. The model is a `BertLMHeadModel`:
/// attention is causal, and the head is the MLM head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CausalLm;

const TERMS: [Term; 1] = [Term { name: CLM, weight: 1.0, metrics: Metrics::Tokens }];

impl Objective for CausalLm {
    type Network = Model;
    type Batch = PretrainBatch;

    fn terms(&self) -> &[Term] {
        &TERMS
    }

    /// Full sentences of one document; nothing is masked.
    fn batch_options(&self, mut options: BatchOptions) -> BatchOptions {
        options.pairs = PairTask::None;
        options.masking = None;
        options
    }

    fn batch(&self, sampled: Batch) -> PretrainBatch {
        let mut batch = PretrainBatch::from(sampled);
        batch.labels = next_tokens(&batch.inputs);
        batch
    }

    fn inputs<'b>(&self, batch: &'b PretrainBatch) -> &'b Inputs {
        &batch.inputs
    }

    fn initial_network(&self, start: &Start<'_>) -> Result<(Model, LoadReport), TrainError> {
        initial_model(start, true, Heads::MLM, |_| None)
    }

    fn prepare(&self, model: &mut Model) {
        model.set_causal(true);
    }

    fn counts(&self, batch: &PretrainBatch) -> Vec<f64> {
        vec![batch.labels.mlm_rows.len() as f64]
    }

    fn loss(&self, model: &Model, pass: &mut Pass<'_>, batch: &PretrainBatch, scales: &[f32], _: DropoutKey) -> Losses {
        model.loss(pass, &batch.inputs, &batch.labels, LossScale { mlm: scales[0], nsp: 0.0 })
    }

    fn flops(&self, model: &Model, batch: &PretrainBatch) -> f64 {
        model.useful_flops(&batch.inputs, &batch.labels, FlopsOf::ForwardBackward)
    }
}

/// The label of each token is the next one: ids shifted by one within each sequence. The last token of a sequence has
/// no label.
pub fn next_tokens(inputs: &Inputs) -> PretrainLabels {
    let mut labels = PretrainLabels::default();
    for pair in inputs.cu_seqlens.windows(2) {
        labels.mlm_rows.extend(pair[0]..pair[1] - 1);
        labels.mlm_labels.extend_from_slice(&inputs.ids[pair[0] as usize + 1..pair[1] as usize]);
    }
    labels
}
