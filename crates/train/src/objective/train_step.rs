//! The interface of objectives, and one training step of an objective.

use cloze_comm::Communicator;
use cloze_data::batch::{Batch, BatchOptions};
use cloze_engine::{DropoutKey, Pass};
use cloze_model::{Inputs, LoadReport, Losses};

use super::start::Start;
use super::term::Term;
use crate::TrainError;
use crate::micro_batch::MicroBatch;
use crate::network::Network;
use crate::step::{StepOutcome, Trainer};

/// The objective of a pre-training: what is learned from text.
pub trait Objective {
    /// The trained network: one model, or several with their parameters in one arena.
    type Network: Network;
    /// A micro-batch in the form that [`loss`](Self::loss) needs.
    type Batch;

    /// The losses, in the order of logs and reports. The best checkpoint is the one with the lowest first loss on
    /// held-out text.
    fn terms(&self) -> &[Term];

    /// The options for sampling batches from documents. `common` has the options that all objectives share, such as
    /// lengths, sizes and the seed.
    fn batch_options(&self, common: BatchOptions) -> BatchOptions;

    /// Converts a sampled batch to one with labels.
    fn batch(&self, sampled: Batch) -> Self::Batch;

    /// The inputs of a batch, whose tokens are counted in the logs.
    fn inputs<'b>(&self, batch: &'b Self::Batch) -> &'b Inputs;

    /// The initial network of a run, new or from a checkpoint, and a report of which weights are new.
    ///
    /// # Errors
    /// Sizes, or a checkpoint, that do not fit the objective.
    fn initial_network(&self, start: &Start<'_>) -> Result<(Self::Network, LoadReport), TrainError>;

    /// Prepares a network for this objective, at the start of a session and of each phase: sets the direction of attention,
    /// and freezes the parameters that are not trained. (They have no gradient, but weight decay would shrink them.)
    fn prepare(&self, network: &mut Self::Network);

    /// The number of predictions of each loss in a batch, in the order of [`terms`](Self::terms). A step divides by the
    /// sums over all its batches.
    fn counts(&self, batch: &Self::Batch) -> Vec<f64>;

    /// Runs a batch forward and returns its losses; their gradients are recorded in the pass. `scales` are the gradient
    /// scales of each loss's sum, in the order of [`terms`](Self::terms). `key` identifies the micro-batch: everything
    /// that is sampled within a step depends only on it, so that a resumed run samples the same.
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

    /// The share of the forward pass in the operations of a batch: that of its loss without the backward pass.
    fn forward_share(&self, _network: &Self::Network, _batch: &Self::Batch) -> f64 {
        1.0 / 3.0
    }

    /// The fingerprint of the teacher, if there is one: a resumed run needs the same.
    fn teacher(&self) -> Option<&str> {
        None
    }
}

/// The objectives of the phases of a run. All of them train the same network.
pub type PhaseObjectives<N, B> = [Box<dyn Objective<Network = N, Batch = B>>];

/// Runs one training step with a learning rate; `number` counts all steps from 0. `batches` are this rank's micro-batches of the
/// `count` of the step: its [`part`](cloze_comm::Communicator::part), so all of them in a job of one process.
pub fn train_step<O: Objective + ?Sized>(
    objective: &O,
    trainer: &mut Trainer<O::Network>,
    batches: &[O::Batch],
    count: usize,
    number: u64,
    lr: f64,
) -> StepOutcome {
    let first = trainer.ranks().part(count).start;
    let scales = scales(objective, &trainer.ranks_of_step(), batches);
    trainer.step(count, number, lr, |network, pass, key| {
        let batch = &batches[key.micro as usize - first];
        MicroBatch {
            losses: objective.loss(network, pass, batch, &scales, key),
            tokens: objective.inputs(batch).tokens() as u64,
            flops: objective.flops(network, batch),
        }
    })
}

/// The gradient scales of a step: the weight of each loss, divided by its predictions in the micro-batches of all
/// ranks that share the step.
fn scales<O: Objective + ?Sized>(objective: &O, ranks: &Communicator, batches: &[O::Batch]) -> Vec<f32> {
    let terms = objective.terms();
    let mut counts = vec![0.0; terms.len()];
    for batch in batches {
        counts.iter_mut().zip(objective.counts(batch)).for_each(|(sum, count)| *sum += count);
    }
    let all = ranks.all_gather_numbers(&counts);
    let of_term = |(index, term): (usize, &Term)| {
        // Whole numbers: their sum does not depend on the order.
        let count: f64 = all.iter().skip(index).step_by(terms.len()).sum();
        (term.weight / count.max(1.0)) as f32
    };
    terms.iter().enumerate().map(of_term).collect()
}
