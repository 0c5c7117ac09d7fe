//! Extractive question answering, without the network: question and context → windows of ids; gold answer → target
//! rows; start and end logits → answers, which are spans of the context.
//!
//! Sources: Devlin et al. 2019, sections 4.2 (SQuAD 1.1) and 4.3 (SQuAD 2.0: the answer \[CLS\] means that there is no
//! answer), and `run_squad.py` of google-research/bert, on which `squad_metrics.py` and `utils_qa.py` of Transformers
//! are based.
//!
//! | step | file |
//! | --- | --- |
//! | context → pieces with their offsets in the text, once for all its questions | `context.rs` |
//! | question + context → windows `[CLS] question [SEP] part of the context [SEP]` | `windows.rs` |
//! | answer → start and end row in a window | `target.rs` |
//! | logits → n-best answers | `extract.rs` |
//!
//! ***Stride** has two meanings. In google-research/bert (`doc_stride`, and the numbers of the paper) it is the *step* between the starts of consecutive windows. In Transformers' `run_qa.py` it is the *overlap* of consecutive windows. Here it is the step. With `room = max_len − 3 − tokens of the question`, an overlap of `o` is a step of `room − o`.
//!
//! ***Offsets are bytes of the original text**, before normalization, so an answer is a slice of the original context. Google's code has no offsets. It maps words to pieces and back: it must shrink a target from complete words to the answer (`_improve_answer_span`) and align a prediction with the text (`get_final_text`). With offsets neither is necessary, because they map characters to exactly the pieces that cover them, and pieces to characters.

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
