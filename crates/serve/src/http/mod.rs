//! HTTP: what is around the handlers.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`listen`] | a socket → connections, until the server stops |
//! | [`layers`] | a request → its id, log line, metrics, key, limits |
//! | [`body`] | a body → a typed value |
//! | [`error`] | a failure → the status and the form of the path's protocol |
//! | [`schema`] | – → what the OpenAPI document says about payloads |
//! | [`headers`] | what an answer took → headers |

pub mod body;
pub mod error;
pub mod headers;
pub mod layers;
pub mod listen;
pub mod schema;
