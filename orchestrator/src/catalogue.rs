//! Which models are known: released ones, and those that a worker ever offered.
//!
//! A known model that nothing serves is unavailable; an unknown one does not exist. The difference
//! is a 503 or a 404 to the tenant.

pub(crate) mod keeper;

use crate::store::KnownModel;
use std::collections::BTreeMap;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelName, ModelRef};

/// Most models that are known; what workers offer beyond is not remembered.
pub const MAX_KNOWN_MODELS: usize = 10_000;

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

/// A known model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name and version.
    pub model: ModelRef,
    /// Unix milliseconds at which it was first known here.
    pub first_seen_ms: u64,
    /// The artifact that it must be, where it is released.
    pub released: Option<Digest>,
}

/// All known models.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    by_name: BTreeMap<ModelName, BTreeMap<(u32, u32), Entry>>,
    len: usize,
}

impl Catalogue {
    /// From what is released and what was ever seen.
    #[must_use]
    pub fn new(releases: &[Release], seen: &[KnownModel]) -> Self {
        let mut catalogue = Self::default();
        for release in releases {
            catalogue.add(Entry {
                model: release.model.clone(),
                first_seen_ms: release.created_ms,
                released: Some(release.digest),
            });
        }
        for known in seen {
            catalogue.see(known);
        }
        catalogue
    }

    fn add(&mut self, entry: Entry) {
        let versions = self.by_name.entry(entry.model.name.clone()).or_default();
        if versions
            .insert(entry.model.version.numbers(), entry)
            .is_none()
        {
            self.len += 1;
        }
    }

    /// Takes a seen model over; says whether it is new. Beyond [`MAX_KNOWN_MODELS`] none is.
    pub fn see(&mut self, known: &KnownModel) -> bool {
        if self.get(&known.model).is_some() || self.len >= MAX_KNOWN_MODELS {
            return false;
        }
        self.add(Entry {
            model: known.model.clone(),
            first_seen_ms: known.first_seen_ms,
            released: None,
        });
        true
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
    /// any version of a name is released, only released ones stand for the bare name, so that a
    /// stranger cannot take a name over by offering a higher version.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not known.
    pub fn resolve(&self, text: &str) -> Result<&Entry, RpcError> {
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
            return self.get(&model).ok_or_else(not_found);
        }
        let name = ModelName::new(text).map_err(|_| not_found())?;
        let versions = self.by_name.get(&name).ok_or_else(not_found)?;
        versions
            .values()
            .rev()
            .find(|entry| entry.released.is_some())
            .or_else(|| versions.values().next_back())
            .ok_or_else(not_found)
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
    fn an_offer_does_not_unbind_a_released_model() {
        let mut catalogue = Catalogue::new(&[release("tiny@1.0", 1)], &[]);
        assert!(!catalogue.see(&seen("tiny@1.0")));
        let entry = catalogue.resolve("tiny").expect("known");
        assert_eq!(entry.released, Some(Digest([1; 32])));
    }

    #[test]
    fn beyond_the_bound_nothing_more_is_remembered() {
        let mut catalogue = Catalogue::default();
        for n in 0..MAX_KNOWN_MODELS + 5 {
            catalogue.see(&seen(&format!("m{n}@1.0")));
        }
        assert_eq!(catalogue.len(), MAX_KNOWN_MODELS);
    }
}
