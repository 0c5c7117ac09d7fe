//! Why a request has no answer: one type for all protocols, which give it their own status and form.

use cloze_tasks::TaskError;

use crate::scheduler::{Refusal, retry_after};

/// The reason, which decides the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is no input.
    Empty,
    /// The body is not JSON, or a value has the wrong type or is not possible.
    Validation,
    /// The body, or the number of inputs, is above a limit of the server.
    TooLarge,
    /// The key is missing or wrong.
    Unauthorized,
    /// There is no model of this name.
    UnknownModel,
    /// The model does not have this task.
    WrongTask,
    /// There is no such path.
    UnknownPath,
    /// The path does not have this method.
    WrongMethod,
    /// Too many requests wait.
    Overloaded,
    /// The client sent its request too slowly.
    TimedOut,
    /// The model failed.
    Backend,
    /// The server is starting or stopping.
    Unavailable,
}

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The reason.
    pub reason: Reason,
    /// What was expected, what was found, what to do.
    pub message: String,
    /// After how many seconds the client may try again.
    pub retry_after: Option<u64>,
}

impl Failure {
    /// A failure.
    pub fn new(reason: Reason, message: impl Into<String>) -> Failure {
        Failure { reason, message: message.into(), retry_after: None }
    }

    /// A value that cannot be used.
    pub fn validation(message: impl Into<String>) -> Failure {
        Failure::new(Reason::Validation, message)
    }

    /// The failure of a task.
    pub fn of(error: &TaskError) -> Failure {
        match error {
            TaskError::Row(inner) => Failure::of(inner),
            TaskError::Executor(inner) => match inner.downcast_ref::<Refusal>() {
                Some(refusal) => Failure::from(refusal.clone()),
                None => Failure::new(Reason::Backend, inner.to_string()),
            },
            TaskError::Input { .. }
            | TaskError::Setting { .. }
            | TaskError::NoMask { .. }
            | TaskError::TooLong { .. } => Failure::validation(error.to_string()),
            _ => Failure::new(Reason::Backend, error.to_string()),
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Failure {
        Failure::of(&error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let message = refusal.to_string();
        match refusal {
            Refusal::Overloaded { wait, limit } => {
                Failure { retry_after: Some(retry_after(wait, limit)), ..Failure::new(Reason::Overloaded, message) }
            }
            Refusal::Stopped => Failure::new(Reason::Unavailable, message),
            Refusal::Cancelled => Failure::new(Reason::TimedOut, message),
            Refusal::Panicked(_) | Refusal::NotFinite => Failure::new(Reason::Backend, message),
        }
    }
}
