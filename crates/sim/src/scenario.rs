//! Scenario files: what there is, what happens to it, and what must hold.
//!
//! # Layout
//!
//! * [`network`] – delay, loss, clocks, discovery
//! * [`disturbance`] – what happens, and when
//! * [`expect`] – what must hold

pub mod disturbance;
pub mod expect;
pub mod network;

use crate::queue::{Us, seconds};
pub use disturbance::Disturbance;
pub use expect::Expect;
pub use network::{Clocks, Discovery, Network};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Most nodes of a run: what one machine carries in memory.
pub const MAX_NODES: usize = 200_000;
/// Longest run, in simulated seconds.
pub const MAX_DURATION_S: f64 = 24.0 * 3_600.0;

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: std::io::Error,
    },
    /// Not TOML, a key that nothing knows, a key that is missing or of another type.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// A value that makes no sense.
    #[error("`{field}` {why}")]
    Value {
        /// Which value.
        field: String,
        /// What is wrong with it.
        why: String,
    },
}

/// One scenario, as its file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, in tables.
    pub name: String,
    /// What it shows, for people.
    pub about: String,
    /// Nodes: workers, orchestrators and those of the attacker together.
    pub nodes: usize,
    /// How many of them are orchestrators. Those that join late are counted too.
    pub orchestrators: usize,
    /// How many of the orchestrators an attacker controls. They relay honestly beside what the
    /// disturbances let them do; what *they* see is not judged.
    #[serde(default)]
    pub attackers: usize,
    /// To how many orchestrators a worker keeps links.
    #[serde(default = "three")]
    pub links: usize,
    /// How long a run is, in simulated seconds.
    pub duration_s: f64,
    /// In how many seconds from the start the nodes start, one after the other.
    #[serde(default = "five")]
    pub start_within_s: f64,
    /// How the network behaves all the time.
    #[serde(default)]
    pub network: Network,
    /// How wrong the clocks are.
    #[serde(default)]
    pub clocks: Clocks,
    /// How nodes find orchestrators.
    #[serde(default)]
    pub discovery: Discovery,
    /// What happens.
    #[serde(default)]
    pub disturbance: Vec<Disturbance>,
    /// What must hold.
    pub expect: Expect,
}

fn three() -> usize {
    3
}

fn five() -> f64 {
    5.0
}

impl Scenario {
    /// Reads a file and checks it.
    ///
    /// # Errors
    /// When it cannot be read, is not a scenario, or makes no sense.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|why| ScenarioError::Read {
            path: path.to_owned(),
            why,
        })?;
        Self::parse(&text)
    }

    /// Reads a text and checks it.
    ///
    /// # Errors
    /// As [`Scenario::load`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The same with another number of nodes.
    ///
    /// # Errors
    /// When there are too few or too many.
    pub fn with_nodes(mut self, nodes: usize) -> Result<Self, ScenarioError> {
        self.nodes = nodes;
        self.check()?;
        Ok(self)
    }

    /// How long a run is.
    #[must_use]
    pub fn duration(&self) -> Us {
        seconds(self.duration_s)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        whole("nodes", self.nodes, 2, MAX_NODES)?;
        whole("orchestrators", self.orchestrators, 1, self.nodes - 1)?;
        whole("attackers", self.attackers, 0, self.orchestrators - 1)?;
        whole("links", self.links, 1, 16)?;
        range("duration_s", self.duration_s, 1.0, MAX_DURATION_S)?;
        range("start_within_s", self.start_within_s, 0.0, self.duration_s)?;
        self.network.check()?;
        self.clocks.check()?;
        self.discovery.check()?;
        for disturbance in &self.disturbance {
            disturbance.check(self)?;
        }
        self.expect.check()
    }
}

/// Checks a number of things.
fn whole(field: &str, value: usize, low: usize, high: usize) -> Result<(), ScenarioError> {
    holds(field, (low..=high).contains(&value), || {
        format!("is {value}, not between {low} and {high}")
    })
}

/// Checks a measure.
fn range(field: &str, value: f64, low: f64, high: f64) -> Result<(), ScenarioError> {
    holds(field, (low..=high).contains(&value), || {
        format!("is {value}, not between {low} and {high}")
    })
}

fn holds(field: &str, ok: bool, why: impl FnOnce() -> String) -> Result<(), ScenarioError> {
    if ok {
        Ok(())
    } else {
        Err(ScenarioError::Value {
            field: field.to_owned(),
            why: why(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        name = "small"
        about = "for tests"
        nodes = 10
        orchestrators = 2
        duration_s = 60.0
        [expect]
        converge_within_ms = 1000
    "#;

    fn refusal(change: impl Fn(&str) -> String) -> String {
        Scenario::parse(&change(SMALL))
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn a_short_file_has_the_defaults() {
        let scenario = Scenario::parse(SMALL).expect("valid");
        assert_eq!((scenario.links, scenario.attackers), (3, 0));
        assert_eq!(scenario.expect.ghosts, 0);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_wherever_it_is() {
        assert!(refusal(|text| format!("nodez = 3\n{text}")).contains("nodez"));
        assert!(refusal(|text| format!("{text}\nghost = 3")).contains("ghost"));
        let network = refusal(|text| format!("{text}\n[network]\nlose = 0.5"));
        assert!(network.contains("lose"), "{network}");
        let churn = "[[disturbance]]\nkind = \"churn\"\nfrom_s = 1.0\nuntil_s = 2.0\nper_minute = 0.1\nfrequency = 3";
        let disturbance = refusal(|text| format!("{text}\n{churn}"));
        assert!(disturbance.contains("frequency"), "{disturbance}");
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_with_its_name_and_range() {
        let why = refusal(|text| text.replace("orchestrators = 2", "orchestrators = 10"));
        assert_eq!(why, "`orchestrators` is 10, not between 1 and 9");
        let why = refusal(|text| format!("{text}\n[network]\nloss = 1.5"));
        assert_eq!(why, "`network.loss` is 1.5, not between 0 and 0.9");
        let why = refusal(|text| {
            format!(
                "{text}\n[[disturbance]]\nkind = \"partition\"\nfrom_s = 50.0\nuntil_s = 70.0\nshare = 0.3"
            )
        });
        assert_eq!(why, "`partition.until_s` is 70, not between 50 and 60");
    }
}
