//! Failures in the form of the protocol that the client speaks, which follows from the path.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::failure::{Failure, Reason};

/// The form of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// text-embeddings-inference: `{"error", "error_type"}`.
    Tei,
    /// OpenAI, and infinity after it: `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// Cohere: `{"message"}`.
    Cohere,
    /// Jina: `{"detail"}`.
    Jina,
    /// Hugging Face and KServe: `{"error"}`.
    Error,
}

impl Protocol {
    /// The protocol of a path.
    pub fn of(path: &str) -> Protocol {
        match path {
            "/v1/embeddings" | "/embeddings" | "/v1/models" | "/models" | "/classify" | "/score" | "/v1/score" => {
                Protocol::OpenAi
            }
            "/v2/rerank" => Protocol::Cohere,
            "/v1/rerank" => Protocol::Jina,
            _ if path.starts_with("/v2") || path.starts_with("/models/") || path.starts_with("/runs") => {
                Protocol::Error
            }
            _ if path.starts_with("/v1/") => Protocol::OpenAi,
            _ => Protocol::Tei,
        }
    }

    fn status(self, reason: Reason) -> StatusCode {
        match reason {
            Reason::Empty => StatusCode::BAD_REQUEST,
            Reason::Validation | Reason::WrongTask if self == Protocol::Tei => StatusCode::UNPROCESSABLE_ENTITY,
            Reason::Validation | Reason::WrongTask => StatusCode::BAD_REQUEST,
            Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::Unauthorized => StatusCode::UNAUTHORIZED,
            Reason::UnknownModel | Reason::UnknownPath => StatusCode::NOT_FOUND,
            Reason::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Reason::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Reason::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Reason::Backend if self == Protocol::Tei => StatusCode::FAILED_DEPENDENCY,
            Reason::Backend => StatusCode::INTERNAL_SERVER_ERROR,
            Reason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(self, Failure { reason, message, .. }: &Failure) -> Value {
        match self {
            Protocol::Tei => {
                // The names of TEI's `ErrorType`.
                let kind = match reason {
                    Reason::Empty => "Empty",
                    Reason::Overloaded => "Overloaded",
                    Reason::Backend => "Backend",
                    Reason::Unavailable => "Unhealthy",
                    _ => "Validation",
                };
                json!({"error": message, "error_type": kind})
            }
            Protocol::OpenAi => {
                let (kind, code) = match reason {
                    Reason::Unauthorized => ("authentication_error", Some("invalid_api_key")),
                    Reason::UnknownModel => ("invalid_request_error", Some("model_not_found")),
                    Reason::Overloaded => ("rate_limit_error", Some("rate_limit_exceeded")),
                    Reason::Backend | Reason::Unavailable => ("server_error", None),
                    _ => ("invalid_request_error", None),
                };
                json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
            }
            Protocol::Cohere => json!({"message": message}),
            Protocol::Jina => json!({"detail": message}),
            Protocol::Error => json!({"error": message}),
        }
    }

    /// The response to a request that failed.
    pub fn response(self, failure: &Failure) -> Response {
        let mut response = (self.status(failure.reason), Json(self.body(failure))).into_response();
        if let Some(seconds) = failure.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Failure {
    /// A response without a form, which a [layer](super::layers::give_form) replaces by the protocol's.
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_status_and_form() {
        let failure = Failure { retry_after: Some(3), ..Failure::new(Reason::Overloaded, "full") };
        for path in ["/embed", "/v1/embeddings", "/v2/rerank", "/v1/rerank", "/v2/models/a/infer", "/models/a"] {
            let response = Protocol::of(path).response(&failure);
            assert_eq!((response.status().as_u16(), response.headers()[RETRY_AFTER].to_str().unwrap()), (429, "3"));
        }
        let validation = Failure::validation("no");
        let found = |path: &str| {
            let protocol = Protocol::of(path);
            (protocol.status(validation.reason).as_u16(), protocol.body(&validation))
        };
        assert_eq!(found("/embed"), (422, json!({"error": "no", "error_type": "Validation"})));
        let nested = json!({"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": null}});
        assert_eq!(found("/v1/embeddings"), (400, nested.clone()));
        assert_eq!(found("/classify"), (400, nested));
        assert_eq!(found("/v2/rerank"), (400, json!({"message": "no"})));
        assert_eq!(found("/v2/models/m/infer"), (400, json!({"error": "no"})));
    }
}
