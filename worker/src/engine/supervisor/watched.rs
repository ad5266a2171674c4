//! How much an engine's process uses, beside what it may.

use super::ending::Why;
use crate::engine::cgroup::{self, Group};
use crate::engine::memory;
use crate::sandbox::Confine;

/// What an engine's process may use, and the group that it is in.
pub(super) struct Watched {
    pub(super) pid: Option<u32>,
    limit_bytes: u64,
    group: Option<Group>,
}

impl Watched {
    /// Begins before the process does: it waits for its first message.
    pub(super) fn begin(pid: Option<u32>, confine: &mut Confine) -> Self {
        let limit_bytes = confine.memory_limit_bytes;
        let group = match pid {
            Some(pid) if limit_bytes > 0 => {
                cgroup::own().and_then(|own| own.engine(pid, limit_bytes))
            }
            _ => Err("control group: no limit is configured".to_owned()),
        };
        confine.has_cgroup = group.is_ok();
        confine.no_cgroup = group.as_ref().err().cloned().unwrap_or_default();
        Self {
            pid,
            limit_bytes,
            group: group.ok(),
        }
    }

    pub(super) fn look(&self) -> Result<(), Why> {
        let used = self.pid.and_then(memory::usage);
        let excess = used.and_then(|used| memory::excess(used, self.limit_bytes));
        excess.map_or(Ok(()), |why| Err(Why::TooMuch(why)))
    }

    /// Whether the kernel ended it for want of memory in its group.
    pub(super) fn was_full(&self) -> bool {
        self.group.as_ref().is_some_and(Group::was_full)
    }
}
