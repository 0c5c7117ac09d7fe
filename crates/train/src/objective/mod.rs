//! What pre-training learns from text: which batches, which network, which losses.
//!
//! | file | objective |
//! | --- | --- |
//! | `masked_lm.rs` | masked tokens and next sentences: BERT's |
//! | `causal_lm.rs` | every token from those before it |
//! | `term.rs` | the losses of an objective: names, weights, figures |
//! | `start.rs` | the model that a run starts from |
//!
//! With Cₗ the count of loss l over *all* micro-batches of a step (predicted tokens, labelled sequences), a step minimises
//! Σₗ wₗ · (Σ losses of l) / Cₗ: the weighted sum of the mean losses. Each micro-batch's gradient is scaled by the step's counts,
//! never by its own: accumulation then equals the big batch, whatever the micro-batches hold.

mod causal_lm;
mod learn;
mod masked_lm;
mod start;
mod term;
#[cfg(test)]
mod tests;

pub use causal_lm::{CausalLm, next_tokens};
pub use learn::{Objective, learn};
pub use masked_lm::MaskedLm;
pub use start::Start;
pub use term::{Term, figures, total};
