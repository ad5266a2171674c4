//! A worker, as far as it is shown.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Rows with their counts.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(super) total: u64,
    pub(super) matched: u64,
    pub(super) routable: u64,
    pub(super) states: BTreeMap<String, u64>,
    pub(super) left_out: u64,
    pub(super) workers: Vec<Row>,
}

/// A worker.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(super) state: String,
    #[serde(default)]
    pub(super) region: Option<String>,
    #[serde(default)]
    pub(super) tier: Option<String>,
    #[serde(default)]
    pub(super) models: Vec<String>,
    #[serde(default)]
    pub(super) in_flight: u64,
    #[serde(default)]
    pub(super) queue_depth: u64,
    #[serde(default)]
    pub(super) slots: u64,
    #[serde(default)]
    pub(super) heartbeat_age_ms: u64,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) reasons: Vec<String>,
    #[serde(default)]
    faults: Vec<serde_json::Value>,
}

impl Row {
    /// Why it gets no work, if it gets none.
    pub(crate) fn why_not_routable(&self) -> Option<String> {
        if let Some(reason) = &self.reason {
            return Some(reason.clone());
        }
        if self.models.is_empty() {
            let faults: Vec<String> = self.fault_texts().collect();
            return Some(if faults.is_empty() {
                "serves no model yet".to_owned()
            } else {
                faults.join(", ")
            });
        }
        (self.state != "serving").then(|| self.state.clone())
    }

    /// How many of its models are either served or refused.
    pub(crate) fn settled(&self) -> usize {
        self.models.len() + self.faults.len()
    }

    /// Whether it offers no model.
    pub(crate) fn serves_nothing(&self) -> bool {
        self.models.is_empty()
    }

    /// What it was told to serve and does not.
    pub(crate) fn fault_texts(&self) -> impl Iterator<Item = String> {
        self.faults.iter().map(fault_text)
    }

    /// All that keeps it from work.
    pub(super) fn reasons(&self) -> Vec<&str> {
        let told = || self.reasons.iter().map(String::as_str);
        if self.reasons.is_empty() {
            self.reason.as_deref().into_iter().collect()
        } else {
            told().collect()
        }
    }
}

pub(super) fn fault_text(fault: &serde_json::Value) -> String {
    match (fault.get("model"), fault.get("reason")) {
        (Some(model), Some(reason)) => format!(
            "{} is not served: {}",
            model.as_str().unwrap_or("a model"),
            reason.as_str().unwrap_or("no reason given")
        ),
        _ => fault
            .as_str()
            .map_or_else(|| fault.to_string(), str::to_owned),
    }
}
