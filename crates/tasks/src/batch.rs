//! Some examples end to end, their targets beside them; the forward pass to logits and to the loss.

use cloze_engine::ops::{self, ClassLabels, LossSum};
use cloze_engine::{Pass, Var};
use cloze_model::{Inputs, Model};

use crate::example::{Example, Target};

/// PyTorch's `ignore_index`: a row that is not counted.
const IGNORED: i32 = -100;

/// A micro-batch of a task.
#[derive(Debug, Clone)]
pub struct TaskBatch {
    /// The tokens of all sequences.
    inputs: Inputs,
    /// \[G+1\] first sequence of each example, then S.
    groups: Vec<i32>,
    /// The tokens whose logits are wanted: a tagger's.
    rows: Vec<i32>,
    /// How many of `rows` are each example's.
    rows_of: Vec<usize>,
    labels: Labels,
}

/// The targets of all examples.
#[derive(Debug, Clone)]
enum Labels {
    /// Of examples.
    Classes(Vec<i32>),
    /// Of `rows`.
    Tags(Vec<i32>),
    /// Of examples.
    Values(Vec<f32>),
    /// Two of each sequence, start and end.
    Spans(Vec<i32>),
    /// Of examples.
    Choices(Vec<i32>),
}

impl TaskBatch {
    /// Packs examples of one kind of task; panics on a mixture, which no task makes.
    pub fn pack(examples: &[&Example]) -> TaskBatch {
        let class = |label: Option<usize>| label.map_or(IGNORED, |label| label as i32);
        let labels = match examples.first().map(|example| &example.target) {
            Some(Target::Value(_)) => Labels::Values(Vec::new()),
            Some(Target::Span(_)) => Labels::Spans(Vec::new()),
            Some(Target::Choice(_)) => Labels::Choices(Vec::new()),
            Some(Target::Tags { .. }) => Labels::Tags(Vec::new()),
            Some(Target::Class(_)) | None => Labels::Classes(Vec::new()),
        };
        let (inputs, groups) = (Inputs::default(), vec![0]);
        let mut batch = TaskBatch { inputs, groups, rows: Vec::new(), rows_of: Vec::new(), labels };
        for example in examples {
            let first = batch.inputs.tokens() as i32;
            for sequence in &example.sequences {
                batch.inputs.push(&sequence.ids, &sequence.segments);
            }
            batch.groups.push(batch.inputs.sequences() as i32);
            let mut rows_here = 0;
            match (&mut batch.labels, &example.target) {
                (Labels::Classes(classes), Target::Class(label)) => classes.push(class(*label)),
                (Labels::Tags(classes), Target::Tags { rows, labels }) => {
                    batch.rows.extend(rows.iter().map(|row| first + *row as i32));
                    match labels {
                        Some(labels) => classes.extend(labels.iter().map(|label| *label as i32)),
                        None => classes.extend(rows.iter().map(|_| IGNORED)),
                    }
                    rows_here = rows.len();
                }
                (Labels::Values(values), Target::Value(value)) => values.push(value.unwrap_or(f32::NAN)),
                (Labels::Spans(spans), Target::Span(span)) => {
                    let rows = span.map_or([IGNORED; 2], |(start, end)| [start as i32, end as i32]);
                    spans.extend(rows);
                }
                (Labels::Choices(choices), Target::Choice(label)) => choices.push(class(*label)),
                (_, target) => panic!("a batch of one kind of task, found {target:?} among others"),
            }
            batch.rows_of.push(rows_here);
        }
        batch
    }

    /// The tokens of all sequences.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The weight of what the loss counts: a mean over a step divides by the sum of its micro-batches'. Half a unit for either
    /// end of a span, so that the loss is the mean of the two (`BertForQuestionAnswering`).
    pub fn weight(&self, classes: Option<&[f32]>) -> f64 {
        let known = |labels: &[i32]| labels.iter().filter(|label| **label != IGNORED).count() as f64;
        match &self.labels {
            Labels::Classes(labels) | Labels::Tags(labels) => match classes {
                Some(weights) => {
                    labels.iter().filter_map(|label| weights.get(*label as usize)).map(|w| f64::from(*w)).sum()
                }
                None => known(labels),
            },
            Labels::Values(values) => values.iter().filter(|value| !value.is_nan()).count() as f64,
            Labels::Spans(labels) | Labels::Choices(labels) => known(labels),
        }
    }

    /// Forward to the logits: `[G, C]` of each example, `[R, C]` of each tagged token, `[T, 2]` of each token for an answer,
    /// `[S, 1]` of each choice. A long text's windows are averaged. Panics for a model without a task's head.
    pub fn logits(&self, model: &Model, pass: &mut Pass<'_>) -> Var {
        let logits = model.task_logits(pass, &self.inputs, &self.rows).expect("a model with the head of a task");
        let one_window_each = self.groups.len() == self.inputs.cu_seqlens.len();
        let of_examples = matches!(self.labels, Labels::Classes(_) | Labels::Values(_));
        if of_examples && !one_window_each {
            let groups = pass.device().tensor_i32(&self.groups, &[self.groups.len()]);
            return ops::mean_rows(pass, &logits, &groups);
        }
        logits
    }

    /// The summed loss of these logits, a unit of it weighing `scale` in the gradient; classes may count differently.
    pub fn loss(&self, pass: &mut Pass<'_>, logits: &Var, classes: Option<&[f32]>, scale: f32) -> LossSum {
        let device = pass.device().clone();
        match &self.labels {
            Labels::Classes(labels) | Labels::Tags(labels) => {
                let labels = &device.tensor_i32(labels, &[labels.len()]);
                ops::class_loss(pass, logits, ClassLabels { labels, weights: classes }, scale)
            }
            Labels::Values(values) => {
                let targets = device.tensor_f32(values, &[values.len(), 1]);
                ops::square_loss(pass, logits, &targets, scale)
            }
            Labels::Spans(labels) => {
                let ends = device.tensor_i32(&self.inputs.cu_seqlens, &[self.inputs.cu_seqlens.len()]);
                let labels = device.tensor_i32(labels, &[labels.len() / 2, 2]);
                ops::position_loss(pass, logits, &ends, &labels, scale)
            }
            Labels::Choices(labels) => {
                let ends = device.tensor_i32(&self.groups, &[self.groups.len()]);
                let labels = device.tensor_i32(labels, &[labels.len(), 1]);
                ops::position_loss(pass, logits, &ends, &labels, scale)
            }
        }
    }

    /// Each example's share of the logits, row by row.
    pub fn split(&self, logits: &Var) -> Vec<Vec<f32>> {
        let width = logits.value().shape()[1];
        let values = logits.value().to_vec_f32();
        let sequences = self.groups.windows(2).map(|group| (group[1] - group[0]) as usize);
        let counts: Vec<usize> = match &self.labels {
            Labels::Spans(_) => self.inputs.lengths().collect(),
            Labels::Choices(_) => sequences.collect(),
            Labels::Tags(_) => self.rows_of.clone(),
            Labels::Classes(_) | Labels::Values(_) => vec![1; self.rows_of.len()],
        };
        let mut rest = &values[..];
        let mut take = |count: usize| {
            let (own, others) = rest.split_at((count * width).min(rest.len()));
            rest = others;
            own.to_vec()
        };
        counts.into_iter().map(&mut take).collect()
    }
}
