//! The interface of objectives, and a step of one.

use cloze_data::batch::{Batch, BatchOptions};
use cloze_engine::{DropoutKey, Pass};
use cloze_model::{Inputs, LoadReport, Losses};

use super::start::Start;
use super::term::Term;
use crate::TrainError;
use crate::network::Network;
use crate::step::{StepOutcome, Trainer};

/// What pre-training learns from text.
pub trait Objective {
    /// What is trained: a model, or several with their parameters in one arena.
    type Network: Network;
    /// A micro-batch as [`loss`](Self::loss) needs it.
    type Batch;

    /// The losses, in the order of logs and reports. The first one on held-out text decides which checkpoint is the best.
    fn terms(&self) -> &'static [Term];

    /// How batches are drawn from documents: `common` says what objectives have in common, such as lengths, sizes and the seed.
    fn batch_options(&self, common: BatchOptions) -> BatchOptions;

    /// A drawn batch with what is to be predicted of it.
    fn batch(&self, drawn: Batch) -> Self::Batch;

    /// The tokens of a batch that count as read.
    fn inputs<'b>(&self, batch: &'b Self::Batch) -> &'b Inputs;

    /// The network that a run starts from, fresh or from a checkpoint, and which of its weights are new.
    ///
    /// # Errors
    /// Sizes or a checkpoint that do not fit the objective.
    fn first_network(&self, start: &Start<'_>) -> Result<(Self::Network, LoadReport), TrainError>;

    /// Keeps what the objective does not train as it is: it has no gradient, but decay would shrink it.
    fn freeze(&self, network: &mut Self::Network);

    /// What a batch counts of each loss, in the order of [`terms`](Self::terms). Steps divide by the sums over all their batches.
    fn counts(&self, batch: &Self::Batch) -> Vec<f64>;

    /// Runs a batch forward to its losses, whose gradients are recorded in the pass. In the gradient a unit of each loss's sum weighs
    /// as much as `scales` says, in the order of [`terms`](Self::terms). `key` tells micro-batches apart: whatever is drawn in the
    /// middle of a step depends on it alone, so that a resumed run draws the same.
    fn loss(
        &self,
        network: &Self::Network,
        pass: &mut Pass<'_>,
        batch: &Self::Batch,
        scales: &[f32],
        key: DropoutKey,
    ) -> Losses;

    /// Useful floating-point operations of a batch's loss and its backward pass.
    fn flops(&self, network: &Self::Network, batch: &Self::Batch) -> f64;
}

/// One step on some micro-batches at a learning rate; `number` counts all steps, from 0.
pub fn learn<O: Objective>(
    objective: &O,
    trainer: &mut Trainer<O::Network>,
    batches: &[O::Batch],
    number: u64,
    lr: f64,
) -> StepOutcome {
    let mut scales = Vec::new();
    for (index, term) in objective.terms().iter().enumerate() {
        let count: f64 = batches.iter().map(|batch| objective.counts(batch)[index]).sum();
        scales.push((term.weight / count.max(1.0)) as f32);
    }
    let update = trainer.step(batches.len(), number, lr, |network, pass, key| {
        objective.loss(network, pass, &batches[key.micro as usize], &scales, key)
    });
    StepOutcome {
        update,
        tokens: batches.iter().map(|batch| objective.inputs(batch).tokens() as u64).sum(),
        flops: batches.iter().map(|batch| objective.flops(&trainer.network, batch)).sum(),
    }
}
