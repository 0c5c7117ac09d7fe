//! Models of the BERT family over HTTP, compatible with existing clients.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`settings`] | options and a file → the server's settings |
//! | [`models`] | folders → open models with their tasks, by name |
//! | [`scheduler`] | sequences of requests → batches → their numbers |
//! | [`app`] | what all handlers share; how a request is computed |
//! | [`protocols`] | requests of each family of clients → answers |
//! | [`http`] | what is around the handlers: ids, keys, limits, failures, connections |
//! | [`log`] | events → lines on standard error |
//! | [`notes`] | the computations of a request → what its line of the log and its span say |
//! | [`traces`] | requests → spans at a collector (OTLP) |
//! | [`runs`] | folders of training runs, read by the caller → their curves |
//! | [`web`] | the page: a playground, the attention viewer, curves |
//! | [`failure`] | why a request has no answer |
//!
//! [`serve`] starts a server and returns when it has stopped.
#![forbid(unsafe_code)]

pub mod app;
pub mod failure;
pub mod http;
pub mod log;
pub mod models;
pub mod notes;
pub mod protocols;
pub mod runs;
pub mod scheduler;
mod server;
pub mod settings;
pub mod traces;
pub mod web;

pub use models::Spec;
pub use models::served::Opening;
pub use server::{Control, ServeError, serve};
pub use settings::{ConfigFile, ConfigModel, Settings};
