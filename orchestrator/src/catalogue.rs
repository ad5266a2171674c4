//! Which models are known: released ones, those that a trusted worker offered of late, and those
//! that anybody offers now.
//!
//! A known model that nothing serves is unavailable; an unknown one does not exist. The difference
//! is a 503 or a 404 to the tenant. In an open mesh anybody may come with any name, so that what an
//! untrusted worker offers is known only while it is there and stands behind everything else.
//!
//! Each name and version is bound to one artifact: the released one, or the first that was seen.

mod follow;
pub(crate) mod keeper;

pub use follow::{FORGET_MS, Offered};

use crate::store::KnownModel;
use std::collections::BTreeMap;
use tether_wire::card::{MAX_MODELS, ModelOffer};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelName, ModelRef, NodeId};

/// Most models that are remembered; what trusted workers offer beyond counts as passing.
pub const MAX_KNOWN_MODELS: usize = 10_000;
/// Most names that one worker makes remembered, over all the time: as many as it offers at once.
pub const MAX_NAMES_PER_WORKER: usize = MAX_MODELS;
/// Most models that are known only while somebody offers them.
pub const MAX_PASSING_MODELS: usize = 1_000;

/// A released model: its name is bound to one artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Name and version.
    pub model: ModelRef,
    /// The artifact.
    pub digest: Digest,
    /// Unix milliseconds at which it was packed.
    pub created_ms: u64,
}

/// Why a model is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An untrusted worker offers it now.
    Passing,
    /// A trusted worker offered it. Remembered over restarts.
    Known {
        /// Unix milliseconds at which that was noted last.
        last_offered_ms: u64,
        /// The worker that brought it.
        offered_by: Option<NodeId>,
    },
    /// A publisher released it.
    Released,
}

impl Standing {
    /// Which of several versions stands for a bare name.
    fn rank(self) -> u8 {
        match self {
            Self::Passing => 0,
            Self::Known { .. } => 1,
            Self::Released => 2,
        }
    }
}

/// A known model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name and version.
    pub model: ModelRef,
    /// Unix milliseconds at which it was first known here.
    pub first_seen_ms: u64,
    /// The artifact that it must be.
    pub digest: Digest,
    /// Why it is known.
    pub standing: Standing,
}

/// All known models.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    by_name: BTreeMap<ModelName, BTreeMap<(u32, u32), Entry>>,
    len: usize,
    passing: usize,
}

impl Catalogue {
    /// From what is released and what is remembered, the first seen first.
    #[must_use]
    pub fn new(releases: &[Release], seen: &[KnownModel]) -> Self {
        let mut catalogue = Self::default();
        for release in releases {
            catalogue.add(Entry {
                model: release.model.clone(),
                first_seen_ms: release.created_ms,
                digest: release.digest,
                standing: Standing::Released,
            });
        }
        for known in seen {
            if catalogue.get(&known.model).is_none() && catalogue.len < MAX_KNOWN_MODELS {
                catalogue.add(Entry {
                    model: known.model.clone(),
                    first_seen_ms: known.first_seen_ms,
                    digest: known.digest,
                    standing: Standing::Known {
                        last_offered_ms: known.last_offered_ms,
                        offered_by: known.offered_by,
                    },
                });
            }
        }
        catalogue
    }

    /// Adds an entry, or replaces the one of that model.
    fn add(&mut self, entry: Entry) {
        self.remove(&entry.model);
        self.len += 1;
        self.passing += usize::from(entry.standing == Standing::Passing);
        let versions = self.by_name.entry(entry.model.name.clone()).or_default();
        versions.insert(entry.model.version.numbers(), entry);
    }

    fn remove(&mut self, model: &ModelRef) {
        let Some(versions) = self.by_name.get_mut(&model.name) else {
            return;
        };
        if let Some(entry) = versions.remove(&model.version.numbers()) {
            self.len -= 1;
            self.passing -= usize::from(entry.standing == Standing::Passing);
        }
        if versions.is_empty() {
            self.by_name.remove(&model.name);
        }
    }

    /// What is to be remembered over restarts.
    pub fn known(&self) -> impl Iterator<Item = KnownModel> {
        self.entries().filter_map(|entry| match entry.standing {
            Standing::Known {
                last_offered_ms,
                offered_by,
            } => Some(KnownModel {
                model: entry.model.clone(),
                digest: entry.digest,
                first_seen_ms: entry.first_seen_ms,
                last_offered_ms,
                offered_by,
            }),
            Standing::Passing | Standing::Released => None,
        })
    }

    /// Why nothing of this offer is asked for, where its artifact is not that of its name.
    #[must_use]
    pub fn refuses(&self, offer: &ModelOffer) -> Option<String> {
        let entry = self.get(&offer.model)?;
        if entry.digest == offer.digest {
            return None;
        }
        let bound = match entry.standing {
            Standing::Released => "the released one",
            Standing::Known { .. } | Standing::Passing => "the one that was seen first",
        };
        Some(format!(
            "its artifact {} is not {bound}, {}: give it another version, or release it",
            offer.digest, entry.digest
        ))
    }

    /// A model by name and version.
    #[must_use]
    pub fn get(&self, model: &ModelRef) -> Option<&Entry> {
        self.by_name.get(&model.name)?.get(&model.version.numbers())
    }

    /// All of them, by name and version.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_name.values().flat_map(BTreeMap::values)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The model that a tenant means: `NAME@MAJOR.MINOR`, or `NAME` for its highest version. Where
    /// any version of a name is released, only released ones stand for the bare name, and untrusted
    /// workers' only where there is no other, so that a stranger cannot take a name over by offering
    /// a higher version.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not known.
    pub fn resolve(&self, text: &str) -> Result<&Entry, RpcError> {
        self.resolve_among(text, |_| true)
    }

    /// The same among those that a tenant may use, so that a bare name means the highest of these.
    ///
    /// # Errors
    /// As for what is not known.
    pub fn resolve_among(
        &self,
        text: &str,
        may: impl Fn(&ModelRef) -> bool,
    ) -> Result<&Entry, RpcError> {
        let not_found = || {
            let shown: String = text.chars().take(80).collect();
            RpcError::new(
                Code::NotFound,
                format!("the model `{shown}` does not exist"),
            )
            .with_param("model")
        };
        if text.contains('@') {
            let model: ModelRef = text.parse().map_err(|_| not_found())?;
            let entry = self.get(&model).filter(|entry| may(&entry.model));
            return entry.ok_or_else(not_found);
        }
        let name = ModelName::new(text).map_err(|_| not_found())?;
        let versions = self.by_name.get(&name).ok_or_else(not_found)?;
        let mine = versions.values().filter(|entry| may(&entry.model));
        // Of equals the last, which is the highest version.
        (mine.max_by_key(|entry| entry.standing.rank())).ok_or_else(not_found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(model: &str, digest: u8) -> Release {
        Release {
            model: model.parse().expect("valid"),
            digest: Digest([digest; 32]),
            created_ms: 1,
        }
    }

    fn seen(model: &str) -> KnownModel {
        KnownModel {
            model: model.parse().expect("valid"),
            digest: Digest([9; 32]),
            first_seen_ms: 2,
            last_offered_ms: 2,
            offered_by: None,
        }
    }

    fn resolved(catalogue: &Catalogue, text: &str) -> String {
        catalogue.resolve(text).expect(text).model.to_string()
    }

    #[test]
    fn a_bare_name_means_the_highest_version_by_number() {
        let catalogue = Catalogue::new(
            &[],
            &[seen("tiny@9.0"), seen("tiny@10.0"), seen("tiny@9.10")],
        );
        assert_eq!(resolved(&catalogue, "tiny"), "tiny@10.0");
        assert_eq!(resolved(&catalogue, "tiny@9.10"), "tiny@9.10");
    }

    #[test]
    fn a_bare_name_means_the_highest_version_of_those_that_one_may_use() {
        let catalogue = Catalogue::new(&[], &[seen("tiny@1.0"), seen("tiny@2.0")]);
        let is_old = |model: &ModelRef| model.version.numbers() < (2, 0);
        let among = |text| catalogue.resolve_among(text, is_old);
        assert_eq!(among("tiny").expect("known").model.to_string(), "tiny@1.0");
        let error = among("tiny@2.0").expect_err("not among them");
        assert_eq!(error.code, Code::NotFound);
        assert!(catalogue.resolve_among("tiny", |_| false).is_err());
    }

    #[test]
    fn a_stranger_cannot_take_a_released_name_over() {
        let catalogue = Catalogue::new(&[release("tiny@1.0", 1)], &[seen("tiny@99999.0")]);
        assert_eq!(resolved(&catalogue, "tiny"), "tiny@1.0");
        assert_eq!(
            resolved(&catalogue, "tiny@99999.0"),
            "tiny@99999.0",
            "by its full name only"
        );
    }

    #[test]
    fn what_is_not_known_is_not_found_by_the_field_that_names_it() {
        let catalogue = Catalogue::new(&[release("tiny@1.0", 1)], &[]);
        for text in [
            "other",
            "tiny@1.1",
            "",
            "@",
            "tiny@",
            "TINY",
            &"x".repeat(500),
        ] {
            let error = catalogue.resolve(text).expect_err(text);
            assert_eq!(error.code, Code::NotFound, "{text}");
            assert_eq!(error.param.as_deref(), Some("model"));
            assert!(error.message.len() < 200);
        }
    }

    #[test]
    fn what_is_remembered_does_not_unbind_a_released_model() {
        let catalogue = Catalogue::new(&[release("tiny@1.0", 1)], &[seen("tiny@1.0")]);
        let entry = catalogue.resolve("tiny").expect("known");
        assert_eq!((entry.digest, catalogue.len()), (Digest([1; 32]), 1));
    }

    #[test]
    fn beyond_the_bound_nothing_more_is_remembered() {
        let many: Vec<_> = (0..MAX_KNOWN_MODELS + 5)
            .map(|n| seen(&format!("m{n}@1.0")))
            .collect();
        assert_eq!(Catalogue::new(&[], &many).len(), MAX_KNOWN_MODELS);
    }
}
