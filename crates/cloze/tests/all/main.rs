//! All integration tests of the binary in one test binary, because linking takes longer than most of the tests.

mod ablate;
mod cli;
mod common;
mod embed;
mod family;
mod finetune_defaults;
mod help;
#[cfg(feature = "hub")]
mod hub;
mod library;
mod long_texts;
mod models_know_their_task;
mod newcomer;
mod other_tokenizers;
mod pipeline;
mod precision;
mod ranks;
mod ranks_training;
mod report;
mod rerank;
mod serve;
mod serve_attacks;
mod serve_traces;
mod serving;
mod tasks;
mod vocabulary;
