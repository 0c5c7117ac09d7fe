//! Inference in batches of sequences of similar length, so that the memory does not grow with the number of examples.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_engine::ops::LossSum;
use cloze_engine::{DType, Device, Pass};
use cloze_model::{Model, TaskHead};

use crate::TaskError;
use crate::batch::TaskBatch;
use crate::example::Example;

/// Tokens of an inference batch: enough to use the matrix unit well, few enough to need little memory.
pub(crate) const BATCH_TOKENS: usize = 4096;

/// Groups items of similar length into batches of up to [`BATCH_TOKENS`] tokens. `lengths` are the items' numbers of
/// tokens; the result holds their indices.
pub(crate) fn batches_by_length(lengths: &[usize]) -> Vec<Vec<usize>> {
    batches_of_tokens(lengths, BATCH_TOKENS)
}

/// As [`batches_by_length`], with batches of up to `most` tokens. A longer item is a batch of its own.
pub(crate) fn batches_of_tokens(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    // Longest first: the first batch needs the most memory.
    order.sort_by_key(|&i| (std::cmp::Reverse(lengths[i]), i));
    let (mut batches, mut rest) = (Vec::new(), &order[..]);
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |i: &&usize| {
            tokens += lengths[**i];
            tokens <= most
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        batches.push(now.to_vec());
        rest = later;
    }
    batches
}

/// Runs `outputs` on batches of similar length. Returns, in the order of the examples, each example's logits, and the
/// summed loss of the examples with a target. `progress` receives the completed fraction; the result is none if it
/// breaks.
pub(crate) fn run_batches(
    head: TaskHead,
    examples: &[&Example],
    progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
    mut outputs: impl FnMut(&TaskBatch) -> (Vec<Vec<f32>>, LossSum),
) -> Option<(Vec<Vec<f32>>, LossSum)> {
    let lengths: Vec<usize> = examples.iter().map(|example| example.length()).collect();
    let total: usize = lengths.iter().sum();
    let (mut found, mut loss, mut done) = (vec![Vec::new(); examples.len()], LossSum::default(), 0);
    for now in batches_by_length(&lengths) {
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

/// [`run_batches`] for a model that may be in training. None if `stop` was set.
pub(crate) fn run_model(
    model: &Model,
    device: &Device,
    precision: DType,
    head: TaskHead,
    examples: &[&Example],
    stop: &AtomicBool,
) -> Option<(Vec<Vec<f32>>, LossSum)> {
    let mut proceed = |_| if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    run_batches(head, examples, &mut proceed, |batch| {
        batch.logits_and_loss(model, &mut Pass::inference(device, &model.params, precision))
    })
}

/// Checks that no sequence is longer than the model's positions, and that there are no pairs if the model has only one
/// segment type.
pub(crate) fn check_fit<'a>(model: &Model, examples: impl IntoIterator<Item = &'a Example>) -> Result<(), TaskError> {
    let (positions, segments) = (model.architecture().max_sequence_length(), model.architecture().segments);
    for sequence in examples.into_iter().flat_map(|example| &example.sequences) {
        let found = sequence.ids.len();
        if found > positions {
            let problem = format!(
                "a sequence has {found} tokens, but the model has {positions} positions; lower `max_len` to {positions}"
            );
            return Err(TaskError::input("`max_len`", problem));
        }
        // Without a table of segments, they are not read.
        if segments > 0 && sequence.segments.iter().any(|segment| usize::from(*segment) >= segments) {
            let problem = format!("the rows have two texts, but the model's type_vocab_size is {segments}, expected 2");
            return Err(TaskError::input("`pair`", problem));
        }
    }
    Ok(())
}
