//! Tests of pre-training runs, from shards to weights. They are in one binary because linking takes longer than the tests.

mod corpus;
#[cfg(target_os = "linux")]
mod cuda;
mod killed;
mod objectives;
mod pretraining;
mod ranks;
