//! Work in batches of like lengths, so that little is computed at a time and memory does not grow with the work.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_engine::ops::LossSum;
use cloze_engine::{DType, Device, Pass};
use cloze_model::{Model, TaskHead};

use crate::TaskError;
use crate::batch::TaskBatch;
use crate::example::Example;

/// Tokens of a batch when only outputs are wanted: enough for the matrix unit, little for memory.
pub(crate) const BATCH_TOKENS: usize = 4096;

/// Which items are computed together, given their tokens: those of like lengths, some thousand tokens of them.
pub(crate) fn batches_of_like_lengths(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    // The longest first: memory that suffices for them suffices for all.
    order.sort_by_key(|&i| (std::cmp::Reverse(lengths[i]), i));
    let (mut batches, mut rest) = (Vec::new(), &order[..]);
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |i: &&usize| {
            tokens += lengths[**i];
            tokens <= BATCH_TOKENS
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        batches.push(now.to_vec());
        rest = later;
    }
    batches
}

/// What `outputs` gives for batches of like lengths, in the order of the examples: each example's logits, and the summed loss of those
/// with a target. `progress` receives the share that is done; none if it breaks.
pub(crate) fn outputs_of(
    head: TaskHead,
    examples: &[&Example],
    progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
    mut outputs: impl FnMut(&TaskBatch) -> (Vec<Vec<f32>>, LossSum),
) -> Option<(Vec<Vec<f32>>, LossSum)> {
    let lengths: Vec<usize> = examples.iter().map(|example| example.length()).collect();
    let total: usize = lengths.iter().sum();
    let (mut found, mut loss, mut done) = (vec![Vec::new(); examples.len()], LossSum::default(), 0);
    for now in batches_of_like_lengths(&lengths) {
        let chosen: Vec<&Example> = now.iter().map(|&i| examples[i]).collect();
        let (logits, sum) = outputs(&TaskBatch::pack(head, &chosen));
        loss += sum;
        for (&i, own) in now.iter().zip(logits) {
            found[i] = own;
        }
        done += now.iter().map(|&i| lengths[i]).sum::<usize>();
        if progress(done as f64 / total.max(1) as f64).is_break() {
            return None;
        }
    }
    Some((found, loss))
}

/// As [`outputs_of`], of a model that may still be learning; none if `stop` was raised.
pub(crate) fn outputs_of_model(
    model: &Model,
    device: &Device,
    precision: DType,
    head: TaskHead,
    examples: &[&Example],
    stop: &AtomicBool,
) -> Option<(Vec<Vec<f32>>, LossSum)> {
    let mut go_on = |_| if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    outputs_of(head, examples, &mut go_on, |batch| {
        batch.outputs(model, &mut Pass::inference(device, &model.params, precision))
    })
}

/// Sequences must not be longer than the model has positions, nor pairs where it knows one segment only.
pub(crate) fn check_fit<'a>(model: &Model, examples: impl IntoIterator<Item = &'a Example>) -> Result<(), TaskError> {
    let (positions, segments) = (model.architecture().max_sequence_length(), model.architecture().segments);
    for sequence in examples.into_iter().flat_map(|example| &example.sequences) {
        let found = sequence.ids.len();
        if found > positions {
            let problem = format!(
                "a sequence has {found} tokens, the model {positions} positions; lower --max-len to {positions}"
            );
            return Err(TaskError::input("max-len", problem));
        }
        if sequence.segments.iter().any(|segment| usize::from(*segment) >= segments) {
            let problem = format!("two texts a row, but the model's type_vocab_size is {segments}: expected 2");
            return Err(TaskError::input("pair", problem));
        }
    }
    Ok(())
}
