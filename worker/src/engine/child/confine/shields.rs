//! From what each step did to what a provider asks for. Pure.

use super::Step;
use crate::sandbox::{Protection, Shield};

/// What each step did.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// An empty network of its own.
    pub(super) network: Step,
    /// A root of its own.
    pub(super) root: Step,
    /// The other namespaces.
    pub(super) other: Step,
    /// Landlock's rules for files.
    pub(super) landlock: Step,
    /// Landlock's rules for TCP.
    pub(super) ports: Step,
    /// Landlock's scope for signals and abstract sockets.
    pub(super) scope: Step,
    /// The limit of memory.
    pub(super) memory: Step,
    /// The limit of threads.
    pub(super) threads: Step,
    /// The other limits.
    pub(super) limits: Step,
    /// Capabilities.
    pub(super) privileges: Step,
    /// The filter of system calls.
    pub(super) syscalls: Step,
    /// The control group that the worker put it into.
    pub(super) cgroup: Step,
}

/// What holds. One of the steps of `enough` is enough for a protection; those of `besides` are walls
/// behind it.
pub(super) fn of(steps: &Steps) -> Vec<Shield> {
    let shield = |protection, enough: &[&Step], besides: &[&Step]| {
        let is_done = |step: &&&Step| matches!(step, Step::Done(_));
        let all = || enough.iter().chain(besides);
        Shield {
            protection,
            enforced: enough.iter().any(|step| is_done(&step)),
            by: all()
                .filter_map(|step| match step {
                    Step::Done(what) => Some(what.clone()),
                    Step::Missing(_) => None,
                })
                .collect(),
            missing: all()
                .filter_map(|step| match step {
                    Step::Missing(why) => Some(why.clone()),
                    Step::Done(_) => None,
                })
                .collect(),
        }
    };
    vec![
        // Landlock knows TCP only, so it is not enough.
        shield(
            Protection::Network,
            &[&steps.syscalls, &steps.network],
            &[&steps.ports],
        ),
        shield(Protection::Files, &[&steps.root, &steps.landlock], &[]),
        shield(Protection::Syscalls, &[&steps.syscalls], &[]),
        shield(Protection::Privileges, &[&steps.privileges], &[]),
        shield(
            Protection::Processes,
            &[&steps.syscalls],
            &[&steps.scope, &steps.other, &steps.threads],
        ),
        shield(Protection::Memory, &[&steps.memory, &steps.cgroup], &[]),
        shield(Protection::Limits, &[&steps.limits], &[]),
    ]
}

/// Nothing holds.
#[cfg_attr(target_os = "linux", expect(dead_code, reason = "for other systems"))]
pub(super) fn nothing(why: &str) -> Vec<Shield> {
    Protection::ALL
        .into_iter()
        .map(|protection| Shield::none(protection, why))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(done: bool) -> Steps {
        let step = |name: &str| {
            if done {
                Step::Done(name.to_owned())
            } else {
                Step::Missing(name.to_owned())
            }
        };
        Steps {
            network: step("network"),
            root: step("root"),
            other: step("other"),
            landlock: step("landlock"),
            ports: step("ports"),
            scope: step("scope"),
            memory: step("memory"),
            threads: step("threads"),
            limits: step("limits"),
            privileges: step("privileges"),
            syscalls: step("syscalls"),
            cgroup: step("cgroup"),
        }
    }

    fn enforced(steps: &Steps) -> Vec<Protection> {
        let shields = of(steps);
        let held = shields.iter().filter(|shield| shield.enforced);
        held.map(|shield| shield.protection).collect()
    }

    #[test]
    fn every_protection_is_told_of_with_every_reason() {
        assert_eq!(enforced(&all(true)), Protection::ALL);
        assert_eq!(enforced(&all(false)), []);
        for shield in of(&all(false)) {
            assert!(shield.by.is_empty() && !shield.missing.is_empty());
        }
    }

    #[test]
    fn one_wall_is_enough_only_where_it_closes_all_of_it() {
        let mut steps = all(false);
        steps.landlock = Step::Done(String::new());
        steps.ports = Step::Done(String::new());
        assert_eq!(enforced(&steps), [Protection::Files], "UDP is left open");
        steps = all(false);
        steps.cgroup = Step::Done(String::new());
        assert_eq!(enforced(&steps), [Protection::Memory]);
        steps = all(false);
        steps.syscalls = Step::Done(String::new());
        let held = [
            Protection::Network,
            Protection::Syscalls,
            Protection::Processes,
        ];
        assert_eq!(enforced(&steps), held);
    }
}
