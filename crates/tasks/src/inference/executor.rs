//! Where forward passes run: at once ([`Pretrained`] itself), or in the queue of a server, which computes sequences of
//! several requests in one batch.

use std::mem::discriminant;

use cloze_model::Inputs;

use crate::TaskError;
use crate::batch::TaskBatch;
use crate::embed::pooling::{Pooling, pooled_states};
use crate::example::Example;
use crate::forward::batches_by_length;
use crate::inference::pretrained::Pretrained;

/// What is computed for an example. Examples of the same model and the same output can be in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// The logits of the model's task head, row by row: see [`TaskBatch::logits`].
    Task,
    /// The pooled vector of each sequence. The first `excluded` tokens of each are excluded from the pooling.
    Pooled {
        /// How hidden states become a vector.
        pooling: Pooling,
        /// The number of leading tokens of each sequence that are excluded.
        excluded: usize,
    },
    /// The hidden states of all tokens: of the embeddings (0) or of a layer (1 … L).
    HiddenStates {
        /// The number of the hidden state.
        layer: usize,
    },
    /// The logits over the vocabulary of each of the example's [tokens](Example::tokens), by the masked-language-model
    /// head.
    MaskedTokens,
    /// The two logits of next-sentence prediction of each sequence: that the second text follows the first, and that it
    /// does not.
    NextSentence,
}

/// Runs forward passes of one model. [`Pretrained`] runs them at once, batch by batch.
///
/// A server passes its own executor to [`Predictor::predict_on`](crate::Predictor::predict_on) and similar functions, so that they read and decode
/// texts as always, while their sequences share batches with those of other requests.
pub trait Executor: Sync {
    /// Computes an output of examples. `done` receives the index of each example with its numbers, row by row. Examples with the same
    /// number of tokens are completed in their order.
    ///
    /// # Errors
    /// [`TaskError::Executor`] if the executor does not compute them.
    fn run(
        &self,
        output: &Output,
        examples: &[&Example],
        done: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Result<(), TaskError>;
}

/// The numbers of each example, in the order of the examples.
///
/// # Errors
/// Those of the executor.
pub(crate) fn run_all(
    executor: &dyn Executor,
    output: &Output,
    examples: &[&Example],
) -> Result<Vec<Vec<f32>>, TaskError> {
    let mut found = vec![Vec::new(); examples.len()];
    executor.run(output, examples, &mut |i, numbers| found[i] = numbers)?;
    Ok(found)
}

impl Executor for Pretrained {
    fn run(
        &self,
        output: &Output,
        examples: &[&Example],
        done: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Result<(), TaskError> {
        let lengths: Vec<usize> = examples.iter().map(|example| example.length()).collect();
        for now in batches_by_length(&lengths) {
            let batch: Vec<&Example> = now.iter().map(|&i| examples[i]).collect();
            for (&i, numbers) in now.iter().zip(self.compute(output, &batch)) {
                done(i, numbers);
            }
        }
        Ok(())
    }
}

impl Pretrained {
    /// Computes an output of the examples of one batch: the numbers of each example, row by row. Panics if the model does not have the
    /// head, or if a sequence does not fit its positions.
    pub fn compute(&self, output: &Output, batch: &[&Example]) -> Vec<Vec<f32>> {
        if *output == Output::Task {
            let head = self.model.heads.task.expect("a model with the head of a task");
            let Some(kind) = batch.first().map(|example| discriminant(&example.target)) else { return Vec::new() };
            // Requests of different kinds may have targets of different losses, which cannot be in one batch.
            if batch.iter().any(|example| discriminant(&example.target) != kind) {
                let (own, others): (Vec<usize>, Vec<usize>) =
                    (0..batch.len()).partition(|&i| discriminant(&batch[i].target) == kind);
                let mut found = vec![Vec::new(); batch.len()];
                for part in [own, others] {
                    let examples: Vec<&Example> = part.iter().map(|&i| batch[i]).collect();
                    for (i, logits) in part.into_iter().zip(self.compute(output, &examples)) {
                        found[i] = logits;
                    }
                }
                return found;
            }
            return self.forward(|model, pass| TaskBatch::pack(head, batch).logits_and_loss(model, pass)).0;
        }
        let (mut inputs, mut tokens) = (Inputs::default(), Vec::new());
        for example in batch {
            let first = inputs.tokens() as i32;
            tokens.extend(example.tokens.iter().map(|token| first + *token as i32));
            for sequence in &example.sequences {
                inputs.push(&sequence.ids, &sequence.segments);
            }
        }
        let (numbers, width) = self.forward(|model, pass| {
            let rows = match output {
                Output::Task => None,
                Output::Pooled { pooling, excluded } => Some(pooled_states(model, pass, pooling, &inputs, *excluded)),
                Output::HiddenStates { layer } => model.hidden_states(pass, &inputs, &[*layer]).pop(),
                Output::MaskedTokens => model.mlm_logits(pass, &inputs, &tokens),
                Output::NextSentence => model.nsp_logits(pass, &inputs),
            };
            let rows = rows.expect("a model with the head of the output");
            (rows.value().to_vec_f32(), rows.value().shape()[1])
        });
        let mut rest = &numbers[..];
        let own = |example: &&Example| {
            let rows = match output {
                Output::MaskedTokens => example.tokens.len(),
                Output::HiddenStates { .. } => example.length(),
                Output::Task | Output::Pooled { .. } | Output::NextSentence => example.sequences.len(),
            };
            let (own, others) = rest.split_at(rows * width);
            rest = others;
            own.to_vec()
        };
        batch.iter().map(own).collect()
    }
}
