//! A micro-batch of examples, packed without padding, with its targets; the forward pass to logits and loss.

use cloze_engine::ops::{self, LossSum};
use cloze_engine::{Pass, Var};
use cloze_model::{Inputs, Model, TaskHead};

use crate::example::{Example, Target};

/// A micro-batch of G examples of a task with S sequences in total.
#[derive(Debug, Clone)]
pub struct TaskBatch {
    /// The tokens of all S sequences.
    inputs: Inputs,
    /// \[G+1\]: the first sequence of each example, then S.
    groups: Vec<i32>,
    /// The tokens whose logits are computed, for a tagger; else empty.
    tokens: Vec<i32>,
    /// \[G+1\]: the first row of each example's logits, then R, the number of rows.
    rows: Vec<i32>,
    /// Whether the logits of an example's sequences (the windows of a long text) are averaged.
    averaged: bool,
    target: Target,
}

impl TaskBatch {
    /// Packs examples for a network with this head. Panics if the examples have targets of different losses; no task
    /// produces such a mixture.
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
        // A list of documents: the logits of its sequences are compared with each other.
        let is_list = matches!((head, &batch.target), (TaskHead::Classify { .. }, Target::Positions(_)));
        for example in examples {
            let first = batch.inputs.tokens() as i32;
            for sequence in &example.sequences {
                batch.inputs.push(&sequence.ids, &sequence.segments);
            }
            batch.groups.push(batch.inputs.sequences() as i32);
            batch.tokens.extend(example.tokens.iter().map(|token| first + *token as i32));
            let rows = match head {
                TaskHead::Classify { .. } if is_list => example.sequences.len(),
                TaskHead::Classify { .. } => 1,
                TaskHead::Choose => example.sequences.len(),
                TaskHead::Tag { .. } => example.tokens.len(),
                TaskHead::Answer => example.length(),
            };
            batch.rows.push(batch.rows[batch.rows.len() - 1] + rows as i32);
        }
        let is_split = matches!(head, TaskHead::Classify { .. }) && batch.inputs.sequences() > examples.len();
        batch.averaged = is_split && !is_list;
        batch
    }

    /// The tokens of all sequences.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The total weight of the targets. The mean loss of a step is the summed loss divided by the sum of its
    /// micro-batches' weights. The start and the end of a span count one each, so that the loss is the mean of the two
    /// (`BertForQuestionAnswering`).
    pub fn weight(&self, classes: Option<&[f32]>) -> f64 {
        match (&self.target, classes) {
            (Target::Classes(labels), Some(weights)) => {
                labels.iter().filter_map(|label| weights.get(*label as usize)).map(|w| f64::from(*w)).sum()
            }
            (target, _) => target.known_count() as f64,
        }
    }

    /// The forward pass to the logits: `[G, C]` for classification, `[R, C]` for tagging, `[T, 2]` for extractive
    /// answers, `[S, 1]` for choices and for lists of documents. The logits of a long text's windows are averaged. Panics for a model without a
    /// task head.
    pub fn logits(&self, model: &Model, pass: &mut Pass<'_>) -> Var {
        let logits = model.task_logits(pass, &self.inputs, &self.tokens).expect("a model with the head of a task");
        if self.averaged {
            let groups = pass.device().tensor_i32(&self.groups, &[self.groups.len()]);
            return ops::segment_mean(pass, &logits, &groups);
        }
        logits
    }

    /// The summed loss of these logits; its gradient is multiplied by `scale`. `classes` are weights of the classes.
    pub fn loss(&self, pass: &mut Pass<'_>, logits: &Var, classes: Option<&[f32]>, scale: f32) -> LossSum {
        self.target.loss(pass, logits, &self.rows, classes, scale)
    }

    /// The logits of each example, row by row.
    pub fn split(&self, logits: &Var) -> Vec<Vec<f32>> {
        let width = logits.value().shape()[1];
        let values = logits.value().to_vec_f32();
        let own = |rows: &[i32]| values[rows[0] as usize * width..rows[1] as usize * width].to_vec();
        self.rows.windows(2).map(own).collect()
    }

    /// The forward pass without gradients: the logits of each example, and the summed loss of the examples with a
    /// target.
    pub fn logits_and_loss(&self, model: &Model, pass: &mut Pass<'_>) -> (Vec<Vec<f32>>, LossSum) {
        let logits = self.logits(model, pass);
        let is_known = self.target.known_count() > 0;
        let loss = if is_known { self.loss(pass, &logits, None, 1.0) } else { LossSum::default() };
        (self.split(&logits), loss)
    }
}
