//! What gateways are told about tenants and models. [T-DIR-1] to [T-DIR-5]
//!
//! There is one current state. Each gateway is given it whole and then what changed between what
//! it was last given and what is current, so that a slow gateway costs no queue: it skips.

pub(crate) mod serve;

use crate::catalogue::Catalogue;
use crate::fleet::Snapshot;
use crate::tenants::Tenants;
use std::sync::Arc;
use tether_wire::directory::{Availability, DirectoryUpdate, ModelEntry, ModelRule};

/// Everything that gateways know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Grows with each change.
    pub version: u64,
    /// All tenants.
    pub tenants: Arc<Tenants>,
    /// All models.
    pub models: Arc<Vec<ModelEntry>>,
    /// Which of them are shown to whom.
    pub rules: Arc<Vec<ModelRule>>,
}

/// The models as tenants see them.
#[must_use]
pub fn models(catalogue: &Catalogue, fleet: &Snapshot) -> Vec<ModelEntry> {
    catalogue
        .entries()
        .map(|entry| {
            let served = fleet.serves(&entry.model, &entry.digest);
            ModelEntry {
                model: entry.model.clone(),
                created_ms: entry.first_seen_ms,
                availability: if served {
                    Availability::Available
                } else {
                    Availability::Unavailable
                },
            }
        })
        .collect()
}

/// The updates that lead from what a gateway has to what is current; from nothing, everything.
/// More than one only where the tenants do not fit one update; they count together. [T-DIR-2]
#[must_use]
pub fn updates(old: Option<&State>, new: &State) -> Vec<DirectoryUpdate> {
    let empty = State::default();
    let have = old.unwrap_or(&empty);
    let changed: Vec<_> = new
        .tenants
        .iter()
        .filter(|(id, entry)| have.tenants.get(id) != Some(entry))
        .map(|(_, entry)| entry.clone())
        .collect();
    let removed: Vec<_> = (have.tenants.keys())
        .filter(|id| !new.tenants.contains_key(id))
        .cloned()
        .collect();
    let models = (old.is_none() || have.models != new.models).then(|| new.models.to_vec());
    let update = DirectoryUpdate {
        version: new.version,
        whole: old.is_none(),
        tenants: changed,
        removed_tenants: removed,
        models,
        rules: (have.rules != new.rules).then(|| new.rules.to_vec()),
        more: false,
    };
    update.pieces()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tether_wire::directory::{MAX_TENANTS_PER_UPDATE, MAX_UPDATE_BYTES, TenantEntry};
    use tether_wire::{Digest, TenantId, codec};

    fn tenants(ids: &[(&str, u8)]) -> Arc<Tenants> {
        Arc::new(
            ids.iter()
                .map(|(id, key)| {
                    let id = TenantId::new(*id).expect("valid");
                    let key_hashes = vec![Digest([*key; 32])];
                    (
                        id.clone(),
                        TenantEntry {
                            id,
                            key_hashes,
                            rule: 0,
                        },
                    )
                })
                .collect(),
        )
    }

    fn state(version: u64, ids: &[(&str, u8)], models: &[&str]) -> State {
        let models = models
            .iter()
            .map(|model| ModelEntry {
                model: model.parse().expect("valid"),
                created_ms: 1,
                availability: Availability::Available,
            })
            .collect();
        State {
            version,
            tenants: tenants(ids),
            models: Arc::new(models),
            rules: Arc::default(),
        }
    }

    /// What a gateway does with updates.
    fn apply(have: &mut State, updates: Vec<DirectoryUpdate>) {
        for update in updates {
            let mut tenants: BTreeMap<_, _> = if update.whole {
                BTreeMap::new()
            } else {
                (*have.tenants).clone()
            };
            for tenant in update.tenants {
                tenants.insert(tenant.id.clone(), tenant);
            }
            for id in &update.removed_tenants {
                tenants.remove(id);
            }
            have.tenants = Arc::new(tenants);
            if let Some(models) = update.models {
                have.models = Arc::new(models);
            }
            if update.whole {
                have.rules = Arc::default();
            }
            if let Some(rules) = update.rules {
                have.rules = Arc::new(rules);
            }
            have.version = update.version;
        }
    }

    #[test]
    fn the_first_update_is_whole_and_replaces_what_a_gateway_had() {
        let new = state(7, &[("a", 1), ("b", 2)], &["tiny@1.0"]);
        let first = updates(None, &new);
        assert!(first.len() == 1 && first[0].whole && first[0].models.is_some());
        let mut gateway = state(3, &[("gone", 9)], &[]);
        apply(&mut gateway, first);
        assert_eq!(gateway, new);
    }

    #[test]
    fn later_updates_hold_only_what_changed() {
        let old = state(1, &[("a", 1), ("b", 2), ("c", 3)], &["tiny@1.0"]);
        let new = state(2, &[("a", 1), ("b", 9), ("d", 4)], &["tiny@1.0"]);
        let delta = updates(Some(&old), &new);
        assert_eq!(delta.len(), 1);
        assert!(!delta[0].whole && delta[0].models.is_none());
        assert_eq!(delta[0].tenants.len(), 2);
        assert_eq!(delta[0].removed_tenants.len(), 1);
        let mut gateway = old;
        apply(&mut gateway, delta);
        assert_eq!(gateway, new);
    }

    /// [T-DIR-5]
    #[test]
    fn rules_are_told_when_they_change_and_that_there_are_none_any_more() {
        let free = state(1, &[("a", 1)], &["tiny@1.0"]);
        assert_eq!(
            updates(None, &free)[0].rules,
            None,
            "as before there were any"
        );
        let mut ruled = state(2, &[("a", 1)], &["tiny@1.0"]);
        ruled.rules = Arc::new(vec![ModelRule {
            allow: None,
            deny: vec!["tiny".parse().expect("valid")],
        }]);
        let mut gateway = free.clone();
        apply(&mut gateway, updates(Some(&free), &ruled));
        assert_eq!(gateway, ruled);
        let same = State {
            version: 3,
            ..ruled.clone()
        };
        assert_eq!(updates(Some(&ruled), &same)[0].rules, None, "unchanged");
        apply(&mut gateway, updates(Some(&ruled), &free));
        assert_eq!(gateway, free);
        apply(&mut gateway, updates(None, &ruled));
        apply(&mut gateway, updates(None, &free));
        assert_eq!(gateway, free, "a whole one replaces everything");
    }

    #[test]
    fn an_empty_mesh_is_told_as_such() {
        let first = updates(None, &State::default());
        assert!(first.len() == 1 && first[0].whole);
        assert_eq!(first[0].models.as_deref(), Some(&[][..]));
    }

    #[test]
    fn more_tenants_than_fit_one_update_come_in_several_each_within_a_frame() {
        let many: Tenants = (0..2 * MAX_TENANTS_PER_UPDATE + 1)
            .map(|n| {
                let id = TenantId::new(format!("{n:064}")).expect("valid");
                let key_hashes = vec![Digest([255; 32]); crate::tenants::MAX_KEYS_PER_TENANT];
                (
                    id.clone(),
                    TenantEntry {
                        id,
                        key_hashes,
                        rule: 0,
                    },
                )
            })
            .collect();
        let new = State {
            version: 2,
            tenants: Arc::new(many),
            models: Arc::new(Vec::new()),
            rules: Arc::default(),
        };
        let whole = updates(None, &new);
        assert_eq!(whole.len(), 3);
        assert_eq!(whole.iter().filter(|u| u.whole).count(), 1);
        assert!(whole[0].more && whole[1].more && !whole[2].more);
        for update in &whole {
            assert!(codec::encode(update).len() < MAX_UPDATE_BYTES);
        }
        let mut gateway = State::default();
        apply(&mut gateway, whole);
        assert_eq!(gateway, new);
        apply(
            &mut gateway,
            updates(
                Some(&new),
                &State {
                    version: 3,
                    ..State::default()
                },
            ),
        );
        assert!(gateway.tenants.is_empty());
    }
}
