//! Types that only describe payloads in the OpenAPI document.

use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, ToSchema};

/// A text, texts, token ids of a text, or token ids of texts.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum InputsSchema {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Token ids of a text.
    Ids(Vec<u32>),
    /// Token ids of texts.
    IdsOfTexts(Vec<Vec<u32>>),
}

/// A text or texts.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TextsSchema {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
}

/// A text, a pair of texts, or a batch of lists of one or two texts.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PairsSchema {
    /// A text.
    Text(String),
    /// One text or a pair.
    Pair(Vec<String>),
    /// A batch.
    Batch(Vec<Vec<String>>),
}

/// A document: a text, or an object with a text.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum DocumentSchema {
    /// A text.
    Text(String),
    /// An object with a text.
    Object {
        /// The text.
        text: String,
    },
}

/// Why a request has no answer. Each family of clients gets the form that it expects: `{"error", "error_type"}` (TEI), `{"error": {"message", …}}`
/// (OpenAI), `{"message"}` (Cohere), `{"detail"}` (Jina), `{"error"}` (Hugging Face, KServe).
#[derive(IntoResponses)]
#[allow(dead_code)]
pub enum Failures {
    /// A value that is not possible, or no inputs.
    #[response(status = 400)]
    BadRequest(#[to_schema] FailureSchema),
    /// No key, or a wrong one.
    #[response(status = 401)]
    Unauthorized(#[to_schema] FailureSchema),
    /// No such model.
    #[response(status = 404)]
    NotFound(#[to_schema] FailureSchema),
    /// The request did not arrive in time.
    #[response(status = 408)]
    TimedOut(#[to_schema] FailureSchema),
    /// Too many bytes or inputs.
    #[response(status = 413)]
    TooLarge(#[to_schema] FailureSchema),
    /// A value that is not possible (TEI).
    #[response(status = 422)]
    Unprocessable(#[to_schema] FailureSchema),
    /// The model failed (TEI).
    #[response(status = 424)]
    FailedDependency(#[to_schema] FailureSchema),
    /// The wait would be too long; `Retry-After` says when to try again.
    #[response(status = 429)]
    Overloaded(#[to_schema] FailureSchema),
    /// The model failed.
    #[response(status = 500)]
    Backend(#[to_schema] FailureSchema),
    /// The server is stopping.
    #[response(status = 503)]
    Unavailable(#[to_schema] FailureSchema),
}

/// The reason, in the form of the protocol.
#[derive(Serialize, ToSchema)]
pub struct FailureSchema {}
