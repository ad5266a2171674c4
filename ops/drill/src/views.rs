//! What the orchestrators of a mesh say of their fleets, and when they say it.

use crate::mesh::{Admin, Row};
use anyhow::bail;
use futures_util::future::{join_all, try_join_all};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pause between two looks: the resolution of what is timed by them.
const LOOK: Duration = Duration::from_millis(20);

/// A fleet, by id.
pub(crate) type Fleet = BTreeMap<String, Row>;

/// All views of a mesh.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) admins: Vec<Admin>,
}

impl Views {
    pub(crate) fn new(admins: Vec<Admin>) -> Self {
        Self { admins }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.admins.len()
    }

    /// All fleets, as they are now.
    pub(crate) async fn fleets(&self) -> anyhow::Result<Vec<Fleet>> {
        try_join_all(self.admins.iter().map(Admin::fleet)).await
    }

    /// All fleets, each worker with its run.
    pub(crate) async fn fleets_in_full(&self) -> anyhow::Result<Vec<Fleet>> {
        try_join_all(self.admins.iter().map(Admin::fleet_in_full)).await
    }

    /// Waits until something holds in every view at once.
    pub(crate) async fn until(
        &self,
        patience: Duration,
        what: &str,
        holds: impl Fn(&Fleet) -> bool,
    ) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        loop {
            let fleets = join_all(self.admins.iter().map(Admin::fleet)).await;
            if fleets.iter().all(|it| it.as_ref().is_ok_and(&holds)) {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > patience {
                let seen: Vec<String> = (fleets.iter())
                    .map(|fleet| match fleet {
                        Ok(fleet) => states(fleet),
                        Err(error) => format!("{error:#}"),
                    })
                    .collect();
                bail!(
                    "not within {} s: {what}; the views: {seen:?}",
                    patience.as_secs()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// For each thing and each view, how long after `begin` the view first says so; nothing where it
    /// does not within `patience`.
    pub(crate) async fn first<T>(
        &self,
        begin: Instant,
        patience: Duration,
        things: &[T],
        says: impl Fn(&Fleet, &T) -> bool,
    ) -> anyhow::Result<Vec<Vec<Option<Duration>>>> {
        let mut found = vec![vec![None; self.len()]; things.len()];
        loop {
            let fleets = self.fleets().await?;
            let now = begin.elapsed();
            for (thing, found) in things.iter().zip(&mut found) {
                for (fleet, found) in fleets.iter().zip(found) {
                    if found.is_none() && says(fleet, thing) {
                        *found = Some(now);
                    }
                }
            }
            let all = found.iter().flatten().all(Option::is_some);
            if all || now > patience {
                return Ok(found);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How many there are in each state, for people.
pub(crate) fn states(fleet: &Fleet) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in fleet.values() {
        *counts.entry(&row.state).or_default() += 1;
    }
    let counts: Vec<String> = (counts.iter())
        .map(|(state, n)| format!("{n} {state}"))
        .collect();
    counts.join(", ")
}

/// Who gets work, and in which run, as far as that is shown.
pub(crate) fn routable(fleet: &Fleet) -> BTreeSet<(&str, Option<u64>)> {
    (fleet.values())
        .filter(|row| row.is_routable())
        .map(|row| (row.id.as_str(), row.epoch))
        .collect()
}

/// What views disagree about: for each view, those that are routable there and not in every other.
pub(crate) fn differences(fleets: &[Fleet]) -> Vec<Vec<String>> {
    let sets: Vec<_> = fleets.iter().map(routable).collect();
    (sets.iter())
        .map(|set| {
            (set.iter())
                .filter(|it| !sets.iter().all(|other| other.contains(it)))
                .map(|(id, _)| (*id).to_owned())
                .collect()
        })
        .collect()
}

/// Whether all views are equal: the same workers, in the same runs, get work.
pub(crate) fn are_equal(fleets: &[Fleet]) -> bool {
    differences(fleets).iter().all(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, state: &str, epoch: u64) -> (String, Row) {
        let row = Row {
            id: id.to_owned(),
            state: state.to_owned(),
            models: vec!["m@1.0".to_owned()],
            reason: (state != "serving").then(|| state.to_owned()),
            epoch: Some(epoch),
        };
        (id.to_owned(), row)
    }

    fn fleet(rows: &[(&str, &str, u64)]) -> Fleet {
        rows.iter().map(|it| row(it.0, it.1, it.2)).collect()
    }

    #[test]
    fn views_are_equal_when_the_same_workers_get_work() {
        let one = fleet(&[("a", "serving", 1), ("b", "serving", 1)]);
        assert!(are_equal(&[one.clone(), one.clone(), one.clone()]));
        assert!(are_equal(&[]));
        let fewer = fleet(&[("a", "serving", 1), ("b", "suspect", 1)]);
        assert_eq!(
            differences(&[one.clone(), fewer.clone()]),
            [vec!["b".to_owned()], vec![]]
        );
        // Who gets no work in either is no difference that a request could see.
        let without = fleet(&[("a", "serving", 1)]);
        assert!(are_equal(&[fewer, without]));
    }

    #[test]
    fn the_same_worker_in_another_run_is_a_difference() {
        let (old, new) = (fleet(&[("a", "serving", 1)]), fleet(&[("a", "serving", 2)]));
        assert!(!are_equal(&[old.clone(), new]));
        assert!(are_equal(&[old.clone(), old]));
    }

    #[test]
    fn states_are_counted() {
        let fleet = fleet(&[
            ("a", "serving", 1),
            ("b", "suspect", 1),
            ("c", "serving", 1),
        ]);
        assert_eq!(states(&fleet), "2 serving, 1 suspect");
    }
}
