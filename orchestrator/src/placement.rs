//! What placement goes by, from the configuration or from a file of its own that people edit while
//! requests are placed. (SCH-1, SCH-2)
//!
//! ```toml
//! near_equal = 0.05
//! [weights]
//! queue = 3.0
//! ```
//!
//! A file with a mistake is refused whole, with the line, and what was in force stays.

use crate::score::{Weights, ranged};
use arc_swap::ArcSwap;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tether_net::FollowedFile;
use tether_wire::ModelName;
use tokio_util::sync::CancellationToken;

/// Most bytes of the file.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Most models that have a class of accelerator that they are best given to.
pub const MAX_GPU_CLASSES: usize = 1_024;
/// Most times the mean load at which a worker still has its prefixes.
pub const MAX_PREFIX_LOAD: f32 = 16.0;
/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);

/// How requests are placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Placement {
    /// Candidates whose score is within this much of the best count as equal, and one of them is
    /// drawn: orchestrators with the same stale view would otherwise all choose the same one.
    #[serde(deserialize_with = "share")]
    pub near_equal: f32,
    /// A worker is preferred for the prefixes that were sent to it as long as its load, with the
    /// request, is at most this many times the mean of those that are looked at. From 1 to 16.
    #[serde(deserialize_with = "prefix_load")]
    pub prefix_load: f32,
    /// Share of the requests whose placement is kept for `tether explain` although they ended well,
    /// or their caller went. Those that failed are always kept.
    #[serde(deserialize_with = "share")]
    pub explained: f32,
    /// How much each term of the affinity score counts.
    pub weights: Weights,
    /// By the name of a model: the class of accelerator that its requests are best given to, as
    /// workers name it.
    #[serde(deserialize_with = "gpu_class")]
    pub gpu_class: BTreeMap<ModelName, String>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            near_equal: 0.05,
            prefix_load: 1.25,
            explained: 0.01,
            weights: Weights::default(),
            gpu_class: BTreeMap::new(),
        }
    }
}

/// What is in force, for everybody who places.
pub type InForce = Arc<ArcSwap<Placement>>;

impl Placement {
    /// Puts it in force.
    #[must_use]
    pub fn in_force(self) -> InForce {
        Arc::new(ArcSwap::from_pointee(self))
    }

    /// Checks each setting.
    ///
    /// # Errors
    /// The first that is outside its limits, by its name, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let share = |value| ranged(value, 0.0, 1.0).map(|_| ());
        share(self.near_equal).map_err(|why| ("near_equal", why))?;
        share(self.explained).map_err(|why| ("explained", why))?;
        ranged(self.prefix_load, 1.0, MAX_PREFIX_LOAD).map_err(|why| ("prefix_load", why))?;
        self.weights.check().map_err(|why| ("weights", why))?;
        bounded(&self.gpu_class).map_err(|why| ("gpu_class", why))
    }

    /// The class of accelerator that a model is best given to.
    #[must_use]
    pub fn gpu_class(&self, model: &ModelName) -> Option<&str> {
        self.gpu_class.get(model).map(String::as_str)
    }
}

fn bounded(classes: &BTreeMap<ModelName, String>) -> Result<(), String> {
    if classes.len() > MAX_GPU_CLASSES {
        return Err(format!("has more than {MAX_GPU_CLASSES} models"));
    }
    Ok(())
}

// Checked where they are read, too, so that a mistake is told with its line.

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    ranged(f32::deserialize(from)?, 0.0, 1.0).map_err(D::Error::custom)
}

fn prefix_load<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    ranged(f32::deserialize(from)?, 1.0, MAX_PREFIX_LOAD).map_err(D::Error::custom)
}

fn gpu_class<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<ModelName, String>, D::Error> {
    let classes = BTreeMap::deserialize(from)?;
    bounded(&classes).map_err(D::Error::custom)?;
    Ok(classes)
}

/// Why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// It cannot be read.
    #[error("the placement file {path} cannot be read: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// It holds a mistake.
    #[error("the placement file {path}, line {line}: {why}")]
    Mistake {
        /// The file.
        path: PathBuf,
        /// Line of the mistake, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// Parses the text of a file; what it does not say has its default. `path` is for the messages only.
///
/// # Errors
/// The first mistake, with its line.
pub fn parse(path: &Path, text: &str) -> Result<Placement, PlacementError> {
    let mistake = |at: usize, why: String| PlacementError::Mistake {
        path: path.to_owned(),
        line: text[..at.min(text.len())].matches('\n').count() + 1,
        why,
    };
    let placement: Placement = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        mistake(at, error.message().to_owned())
    })?;
    // What no single value is wrong in.
    placement.check().map_err(|(field, why)| {
        mistake(text.find(field).unwrap_or(0), format!("`{field}` {why}"))
    })?;
    Ok(placement)
}

/// The file, and what was last read of it.
#[derive(Debug)]
pub struct PlacementFile(FollowedFile);

impl PlacementFile {
    /// A file that was not read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(FollowedFile::new(path, MAX_FILE_BYTES))
    }

    /// Reads the file if it was changed since the last time; nothing if it was not.
    ///
    /// # Errors
    /// Why it is refused; told once for each change.
    pub fn poll(&mut self) -> Result<Option<Placement>, PlacementError> {
        let text = self.0.poll().map_err(|why| PlacementError::Read {
            path: self.0.path().to_owned(),
            why: why.to_string(),
        })?;
        text.map(|text| parse(self.0.path(), &text)).transpose()
    }

    /// Follows the file until `stop`.
    pub(crate) async fn follow(mut self, in_force: InForce, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            let in_force = in_force.clone();
            let looked = tokio::task::spawn_blocking(move || {
                self.look(&in_force);
                self
            });
            let Ok(back) = looked.await else { return };
            self = back;
        }
    }

    /// Puts a changed file in force. One with a mistake changes nothing.
    fn look(&mut self, in_force: &InForce) {
        match self.poll() {
            Ok(None) => {}
            Ok(Some(placement)) => {
                tracing::info!("placement read again");
                in_force.store(Arc::new(placement));
            }
            Err(error) => tracing::error!(%error, "placement kept as it was"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(Path::new("p.toml"), text)
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn what_a_file_does_not_say_has_its_default() {
        let text = "near_equal = 0.1\n[weights]\nqueue = 3\n[gpu_class]\nlarge = \"h100\"\n";
        let read = parse(Path::new("p.toml"), text).expect("read");
        assert_eq!(read.near_equal, 0.1);
        assert_eq!(
            (read.weights.queue, read.weights.warm),
            (3.0, Weights::default().warm)
        );
        let large = ModelName::new("large").expect("valid");
        assert_eq!(read.gpu_class(&large), Some("h100"));
        assert_eq!(
            parse(Path::new("p.toml"), "").expect("read"),
            Placement::default()
        );
    }

    #[test]
    fn each_mistake_is_told_with_its_line() {
        assert!(refused("near_equal = 0.1\n\n[weights]\nquee = 1\n").contains("line 4"));
        assert!(refused("[weights]\nwarm = 1\nqueue = 101\n").contains("line 3"));
        assert!(refused("\nnear_equal = 2\n").contains("line 2: is 2, not between 0 and 1"));
        assert!(refused("\nprefix_load = 0.5\n").contains("line 2"));
        assert!(refused("explained = -1\n").contains("line 1"));
        assert!(refused("\n\n[gpu_class]\n\"A b\" = \"x\"\n").contains("line 4"));
        assert!(refused("near_equal = \n").contains("line 1"));
        let zero = ["model", "region", "gpu_class", "queue", "warm"];
        let zero = zero.map(|name| format!("{name} = 0\n")).concat();
        let text = format!("\n[weights]\n{zero}prefix = 0\ntrust = 0\nprice = 0\nlatency = 0\n");
        assert!(
            refused(&text).contains("line 2: `weights` are all 0"),
            "{}",
            refused(&text)
        );
        let many: String = (0..=MAX_GPU_CLASSES)
            .map(|n| format!("m{n} = \"x\"\n"))
            .collect();
        assert!(refused(&format!("[gpu_class]\n{many}")).contains("more than 1024 models"));
    }

    #[test]
    fn a_changed_file_counts_from_the_next_look_on_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("placement.toml");
        let mut file = PlacementFile::new(path.clone());
        assert!(file.poll().is_err(), "missing");
        let in_force = Placement::default().in_force();
        let mut look = |text: &str| {
            std::fs::write(&path, text).expect("written");
            file.look(&in_force);
            in_force.load().near_equal
        };
        assert_eq!(look("near_equal = 0.25\n"), 0.25);
        assert_eq!(look("near_equal = 25\n"), 0.25);
        assert_eq!(look("near_equal = 0.125\n"), 0.125);
    }
}
