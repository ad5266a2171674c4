//! Questions that are asked at once, and what became of them.

use serde::{Deserialize, Serialize};

/// What is asked, all at once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Round {
    pub(super) questions: Vec<String>,
    /// Most tokens of each answer.
    pub(super) tokens: u32,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) seconds: f64,
    /// Text and number of tokens of each answer.
    pub(super) answers: Vec<(String, u64)>,
}
