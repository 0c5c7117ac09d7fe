//! Extractive question answering, all but the network: a question and its context → windows of ids; an answer → the
//! rows to learn; start and end logits → answers that are substrings of the context.
//!
//! Devlin et al. 2019, sections 4.2 (SQuAD 1.1) and 4.3 (SQuAD 2.0: the answer \[CLS\] means that there is none), and
//! google-research/bert's `run_squad.py`, which Transformers' `squad_metrics.py` and `utils_qa.py` follow.
//!
//! | step | file |
//! | --- | --- |
//! | context → pieces with their place in the text, once for all its questions | `context.rs` |
//! | question + context → windows `[CLS] question [SEP] part of the context [SEP]` | `windows.rs` |
//! | answer → start and end row in a window | `target.rs` |
//! | logits → n-best answers | `extract.rs` |
//!
//! **Stride.** Two recipes give the name to two things. In google-research/bert (`doc_stride`, and the numbers of the
//! paper) it is the *step* from one window's begin to the next one's. In Transformers' `run_qa.py` it is the *overlap*
//! of two windows. Here it is the step. With `room = max_len − 3 − tokens of the question`, an overlap `o` is the step
//! `room − o`.
//!
//! **Places are bytes of the original text**, whatever the normaliser did to it, so an answer is cut out of the context
//! as it was written. Google's code, which has no offsets, maps words to pieces and back: it must shrink a target from
//! whole words to the answer (`_improve_answer_span`) and align a prediction with the text again (`get_final_text`).
//! With offsets neither has anything left to do: characters lead to exactly the pieces that cover them and back.

mod context;
mod extract;
mod target;
mod windows;

#[cfg(test)]
pub(crate) mod tests;

pub use context::EncodedContext;
pub use extract::{Answer, ExtractOptions, Extraction, Logits, extract};
pub use target::target;
pub(crate) use windows::no_tokens;
pub use windows::{Window, WindowOptions, Windows, windows};
