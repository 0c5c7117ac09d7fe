//! Fine-tuning, inference and parity, in one binary: linking takes longer than the tests.

mod finetuning;
mod inference;
mod long_texts;
mod parity;
