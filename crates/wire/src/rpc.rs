//! Calls over a link: frames and errors. [T-RPC-1] to [T-RPC-6]
//!
//! Each call is one bidirectional stream. A frame is `length (u32, big endian) ‖ kind (u8) ‖
//! payload`; the length counts kind and payload. The caller sends a [`Kind::Call`] with a
//! [`CallHead`], then any number of [`Kind::Item`]s; the callee answers with items and ends with
//! [`Kind::End`] or [`Kind::Error`]. Either side cancels by resetting the stream.

use crate::codec::CodecError;
use serde::{Deserialize, Serialize};

/// Most bytes of one frame, kind and payload together. [T-RPC-2]
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Opens a call: a [`CallHead`].
    Call = 1,
    /// One message of the call, in its own encoding.
    Item = 2,
    /// The call ended well. Empty.
    End = 3,
    /// The call failed: an [`RpcError`].
    Error = 4,
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Call, Self::Item, Self::End, Self::Error]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Names of methods. [T-RPC-5]
pub mod method {
    /// Gateway → orchestrator: [`crate::infer::InferRequest`], answered by [`crate::infer::AnswerEvent`]s.
    pub const SUBMIT: &str = "submit";
    /// Orchestrator → worker: [`crate::infer::WorkOrder`], answered by [`crate::infer::AnswerEvent`]s.
    pub const INFER: &str = "infer";
    /// Worker, gateway → orchestrator: items are [`crate::spread::Push`]es, each answered by a
    /// [`crate::spread::PushReply`] or not at all.
    pub const PRESENCE: &str = "presence";
    /// Orchestrator → orchestrator: items are [`crate::spread::Batch`]es, without answers; one call in
    /// each direction.
    pub const SPREAD: &str = "spread";
    /// Orchestrator, operator → any node: items are [`crate::control::Control`]s, without answers.
    pub const CONTROL: &str = "control";
    /// Worker with an invite → orchestrator: [`crate::invite::Join`], answered by
    /// [`crate::invite::Joined`].
    pub const JOIN: &str = "join";
    /// Gateway → orchestrator: answered by [`crate::directory::DirectoryUpdate`]s without end.
    pub const DIRECTORY: &str = "directory";
    /// Any node → any node: ended at once, which says that the callee is there.
    pub const PING: &str = "ping";
}

/// Opens a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallHead {
    /// Which method.
    pub method: String,
    /// Milliseconds that the caller waits at most; relative, so that clocks need not agree.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// W3C `traceparent` of the caller's span. (OBS-1)
    #[serde(default)]
    pub traceparent: Option<String>,
}

/// Why a call failed, in a form that programs can branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The caller's input is wrong; the same call fails everywhere.
    Invalid,
    /// No such thing.
    NotFound,
    /// The caller may not.
    Forbidden,
    /// The same key was used for another body.
    Conflict,
    /// Another node of the same role has it: [`RpcError::param`] names that by its key, where it is
    /// known. [T-INF-13]
    Elsewhere,
    /// Nothing can do it now; later perhaps.
    Unavailable,
    /// Too much to do; later.
    Overloaded,
    /// The tenant is over a limit that this callee holds it to; later, or another callee.
    /// [`RpcError::param`] says what there was too much of.
    RateLimited,
    /// The caller's time is over.
    Deadline,
    /// The caller or an operator cancelled it.
    Cancelled,
    /// A fault of the callee.
    Internal,
    /// A method or feature that the callee does not have.
    Unimplemented,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Code {
    /// Those by which a callee refuses what it was asked: nothing failed.
    pub const REFUSALS: [Self; 6] = [
        Self::Invalid,
        Self::NotFound,
        Self::Forbidden,
        Self::Conflict,
        Self::RateLimited,
        Self::Unimplemented,
    ];

    /// Its name on the wire, for metrics and spans.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::Forbidden => "forbidden",
            Self::Conflict => "conflict",
            Self::Elsewhere => "elsewhere",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate-limited",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
            Self::Unimplemented => "unimplemented",
            Self::Unknown => "unknown",
        }
    }
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
    /// The field of the request that is wrong, where one is; of a [`Code::RateLimited`], which limit.
    #[serde(default)]
    pub param: Option<String>,
    /// Milliseconds after which another try makes sense.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    /// Of a [`Code::Unavailable`]: this call gave it to nobody, and others may know somebody for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untried: bool,
}

impl RpcError {
    /// An error.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            retry_after_ms: None,
            untried: false,
        }
    }

    /// For a value that is refused, with the field that is wrong.
    #[must_use]
    pub fn invalid(error: &CodecError) -> Self {
        let refused = Self::new(Code::Invalid, error.to_string());
        match error {
            CodecError::Field { field, .. } => refused.with_param(*field),
            _ => refused,
        }
    }

    /// With the field that is wrong.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// With the time after which another try makes sense.
    #[must_use]
    pub fn with_retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Of a call that gave nothing to anybody, where others may know somebody for it.
    #[must_use]
    pub fn untried(mut self) -> Self {
        self.untried = true;
        self
    }

    /// Whether the fault lies with the callee, so that another may do better.
    #[must_use]
    pub fn is_callee_fault(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable | Code::Overloaded | Code::Internal | Code::Unknown
        )
    }
}
