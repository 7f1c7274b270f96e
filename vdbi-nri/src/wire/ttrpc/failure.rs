//! Errors that one side answers and the other gets.

use thiserror::Error;

use crate::proto::ttrpc::Status;

/// How long a message may be, in bytes: the runtime hands it on, up to where kubelet makes an event of 1024 characters of it.
const MAX_MESSAGE: usize = 1000;

/// A call that failed. The message is seen by the other side, and of a container's creation by whoever reads the pod's events.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message} (code {code})")]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) message: String,
}

/// The codes of gRPC that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Failure {
    /// Without secrets. What is too long of the message is cut off.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE).rfind(|end| message.is_char_boundary(*end)).unwrap_or_default();
            message.truncate(end);
            message.push('…');
        }
        Self { code: code as i32, message }
    }
}

impl From<Failure> for Status {
    fn from(Failure { code, message }: Failure) -> Self {
        Self { code, message }
    }
}

impl From<Status> for Failure {
    fn from(Status { code, message }: Status) -> Self {
        Self { code, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_two_characters() {
        let failure = Failure::new(Code::Internal, "ü".repeat(600) + "x");
        assert_eq!(failure.message, "ü".repeat(500) + "…");
    }
}
