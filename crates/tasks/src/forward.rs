//! Inference in batches of sequences of similar length, so that the memory does not grow with the number of examples.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_engine::Pass;
use cloze_engine::ops::LossSum;
use cloze_model::{Losses, Model, TaskHead};
use cloze_train::micro_batch::{MicroBatch, gather_in_turn};
use cloze_train::step::Trainer;

use crate::TaskError;
use crate::batch::TaskBatch;
use crate::example::Example;

/// The name of the loss between ranks.
const TERM: &str = "task";

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

/// As [`run_batches`], for a model in training. The ranks of a job share the batches; all get all logits. None if `stop` was set at one of
/// them.
pub(crate) fn run_model(
    trainer: &Trainer<Model>,
    head: TaskHead,
    examples: &[&Example],
    stop: &AtomicBool,
) -> Option<(Vec<Vec<f32>>, LossSum)> {
    let (model, ranks) = (&trainer.network, trainer.ranks());
    let lengths: Vec<usize> = examples.iter().map(|example| example.length()).collect();
    let batches = batches_by_length(&lengths);
    let (mut own, mut counts, mut losses, mut is_stopped) = (Vec::new(), Vec::new(), Vec::new(), false);
    for (_, now) in batches.iter().enumerate().filter(|(number, _)| number % ranks.size() == ranks.rank()) {
        is_stopped = stop.load(Ordering::Relaxed);
        if is_stopped {
            break;
        }
        let chosen: Vec<&Example> = now.iter().map(|&i| examples[i]).collect();
        let mut pass = Pass::inference(trainer.device(), &model.params, trainer.precision());
        let (logits, loss) = TaskBatch::pack(head, &chosen).logits_and_loss(model, &mut pass);
        counts.extend(logits.iter().map(|row| row.len() as u64));
        own.extend(logits.into_iter().flatten());
        let mut of_batch = Losses::default();
        of_batch.add(TERM, loss);
        losses.push(MicroBatch { losses: of_batch, ..MicroBatch::default() });
    }
    if ranks.any(is_stopped) {
        return None;
    }
    let (all, counts) = (ranks.all_gather(&own), ranks.all_gather(&counts));
    let mut rest: Vec<_> = all.iter().zip(&counts).map(|(logits, counts)| (&logits[..], counts.iter())).collect();
    let mut found = vec![Vec::new(); examples.len()];
    for (number, now) in batches.iter().enumerate() {
        let (logits, counts) = &mut rest[number % ranks.size()];
        for (&i, count) in now.iter().zip(counts) {
            found[i] = logits.split_off(..*count as usize).unwrap_or_default().to_vec();
        }
    }
    let mut loss = LossSum::default();
    for of_batch in gather_in_turn(ranks, losses) {
        loss += of_batch.losses.get(TERM).unwrap_or_default();
    }
    Some((found, loss))
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
