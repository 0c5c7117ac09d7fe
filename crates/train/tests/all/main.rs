//! Pre-training runs from shards to weights, in one binary: linking takes longer than the tests.

mod corpus;
mod killed;
mod pretraining;
