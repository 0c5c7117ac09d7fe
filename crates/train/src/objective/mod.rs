//! Objectives of pre-training: batches, network and losses.
//!
//! | file | objective |
//! | --- | --- |
//! | `masked_lm.rs` | masked tokens, with next sentences as in BERT or sentence order as in ALBERT |
//! | `causal_lm.rs` | the next token |
//! | `replaced_tokens.rs` | replaced tokens, as in ELECTRA |
//! | `distill.rs` | masked tokens and the states of a teacher, as in DistilBERT and MiniLM |
//! | `term.rs` | the losses of an objective: names, weights, metrics |
//! | `start.rs` | the initial model of a run |
//!
//! Let Cₗ be the number of predictions of loss l in *all* micro-batches of a step (predicted tokens, labelled
//! sequences). A step minimises Σₗ wₗ · (Σ losses of l) / Cₗ, the weighted sum of the mean losses. The gradient of each
//! micro-batch is scaled by the step's counts, never by its own: so gradient accumulation equals one large batch,
//! regardless of how predictions are distributed over micro-batches.

mod causal_lm;
mod distill;
mod masked_lm;
mod replaced_tokens;
mod start;
mod term;
#[cfg(test)]
mod tests;
mod train_step;

pub use causal_lm::{CausalLm, next_tokens};
pub use distill::Distill;
pub use masked_lm::MaskedLm;
pub use replaced_tokens::ReplacedTokens;
pub use start::Start;
pub use term::{Metrics, ScoredText, Term, figures, total};
pub use train_step::{Objective, PhaseObjectives, train_step};
