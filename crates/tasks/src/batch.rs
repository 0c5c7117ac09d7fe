//! Some examples end to end, their targets beside them; the forward pass to logits and to the loss.

use cloze_engine::ops::{self, ClassLabels, LossSum};
use cloze_engine::{Pass, Var};
use cloze_model::{Inputs, Model, TaskHead};

use crate::example::{Example, Target};

/// A micro-batch of G examples of a task.
#[derive(Debug, Clone)]
pub struct TaskBatch {
    /// The tokens of all S sequences.
    inputs: Inputs,
    /// \[G+1\] first sequence of each example, then S.
    groups: Vec<i32>,
    /// The tokens whose logits are read: a tagger's.
    tokens: Vec<i32>,
    /// \[G+1\] first row of each example's logits, then R.
    rows: Vec<i32>,
    /// Whether an example's rows of logits are averaged to one: those of a long text's windows.
    averaged: bool,
    target: Target,
}

impl TaskBatch {
    /// Packs examples for a network with this head; panics on a mixture of losses, which no task makes.
    pub fn pack(head: TaskHead, examples: &[&Example]) -> TaskBatch {
        let target = match examples {
            [] => Target::Classes(Vec::new()),
            [first, others @ ..] => others.iter().fold(first.target.clone(), |mut target, example| {
                target.append(&example.target);
                target
            }),
        };
        let (inputs, groups, rows) = (Inputs::default(), vec![0], vec![0]);
        let mut batch = TaskBatch { inputs, groups, tokens: Vec::new(), rows, averaged: false, target };
        for example in examples {
            let first = batch.inputs.tokens() as i32;
            for sequence in &example.sequences {
                batch.inputs.push(&sequence.ids, &sequence.segments);
            }
            batch.groups.push(batch.inputs.sequences() as i32);
            batch.tokens.extend(example.tokens.iter().map(|token| first + *token as i32));
            let rows = match head {
                TaskHead::Classify { .. } => 1,
                TaskHead::Choose => example.sequences.len(),
                TaskHead::Tag { .. } => example.tokens.len(),
                TaskHead::Answer => example.length(),
            };
            batch.rows.push(batch.rows[batch.rows.len() - 1] + rows as i32);
        }
        batch.averaged = matches!(head, TaskHead::Classify { .. }) && batch.inputs.sequences() > examples.len();
        batch
    }

    /// The tokens of all sequences.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The weight of what the loss counts: a mean over a step divides by the sum of its micro-batches'. Half a unit for either
    /// end of a span, so that the loss is the mean of the two (`BertForQuestionAnswering`).
    pub fn weight(&self, classes: Option<&[f32]>) -> f64 {
        match (&self.target, classes) {
            (Target::Classes(labels), Some(weights)) => {
                labels.iter().filter_map(|label| weights.get(*label as usize)).map(|w| f64::from(*w)).sum()
            }
            (target, _) => target.known() as f64,
        }
    }

    /// Forward to the logits: `[G, C]` of each example, `[R, C]` of each tagged token, `[T, 2]` of each token for an answer,
    /// `[S, 1]` of each choice. A long text's windows are averaged. Panics for a model without a task's head.
    pub fn logits(&self, model: &Model, pass: &mut Pass<'_>) -> Var {
        let logits = model.task_logits(pass, &self.inputs, &self.tokens).expect("a model with the head of a task");
        if self.averaged {
            let groups = pass.device().tensor_i32(&self.groups, &[self.groups.len()]);
            return ops::segment_mean(pass, &logits, &groups);
        }
        logits
    }

    /// The summed loss of these logits, a unit of it weighing `scale` in the gradient; classes may count differently.
    pub fn loss(&self, pass: &mut Pass<'_>, logits: &Var, classes: Option<&[f32]>, scale: f32) -> LossSum {
        let device = pass.device().clone();
        match &self.target {
            Target::Classes(labels) => {
                let labels = &device.tensor_i32(labels, &[labels.len()]);
                ops::cross_entropy(pass, logits, ClassLabels { labels, weights: classes }, scale)
            }
            Target::Values(values) => {
                let targets = device.tensor_f32(values, logits.value().shape());
                ops::mse_loss(pass, logits, &targets, scale)
            }
            Target::Binary(labels) => {
                let targets = device.tensor_f32(labels, logits.value().shape());
                ops::binary_cross_entropy(pass, logits, &targets, scale)
            }
            Target::Positions(labels) => {
                let ends = device.tensor_i32(&self.rows, &[self.rows.len()]);
                let examples = self.rows.len() - 1;
                let labels = device.tensor_i32(labels, &[examples, labels.len() / examples.max(1)]);
                ops::segment_cross_entropy(pass, logits, &ends, &labels, scale)
            }
        }
    }

    /// Each example's share of the logits, row by row.
    pub fn split(&self, logits: &Var) -> Vec<Vec<f32>> {
        let width = logits.value().shape()[1];
        let values = logits.value().to_vec_f32();
        let own = |rows: &[i32]| values[rows[0] as usize * width..rows[1] as usize * width].to_vec();
        self.rows.windows(2).map(own).collect()
    }

    /// Forward alone: each example's share of the logits, and the summed loss of those with a target.
    pub fn outputs(&self, model: &Model, pass: &mut Pass<'_>) -> (Vec<Vec<f32>>, LossSum) {
        let logits = self.logits(model, pass);
        let is_known = self.target.known() > 0;
        let loss = if is_known { self.loss(pass, &logits, None, 1.0) } else { LossSum::default() };
        (self.split(&logits), loss)
    }
}
