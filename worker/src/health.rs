//! What a worker knows about its machine. (WRK-6)
//!
//! Asked once at the start: what changes between two heartbeats is counted elsewhere. GPUs are not
//! looked for yet; their class is configured.

use crate::config::WorkerConfig;

const GIB: u64 = 1024 * 1024 * 1024;

/// What a heartbeat says about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Class of its accelerator.
    pub gpu_class: String,
    /// Number of accelerators.
    pub accelerators: u32,
    /// Memory for models, in GiB.
    pub memory_gib: u32,
}

impl Machine {
    /// As configured, and found where nothing is configured.
    #[must_use]
    pub fn of(config: &WorkerConfig) -> Self {
        let memory_gib = match config.memory_gib {
            0 => total_memory_gib(),
            configured => configured,
        };
        Self {
            gpu_class: config.gpu_class.clone(),
            accelerators: config.accelerators,
            memory_gib,
        }
    }
}

fn total_memory_gib() -> u32 {
    let memory = sysinfo::MemoryRefreshKind::nothing().with_ram();
    let system =
        sysinfo::System::new_with_specifics(sysinfo::RefreshKind::nothing().with_memory(memory));
    // A container's share counts, where there is one.
    let limit = system
        .cgroup_limits()
        .map_or(u64::MAX, |limits| limits.total_memory);
    u32::try_from(system.total_memory().min(limit) / GIB).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_found_and_a_setting_wins() {
        let found = Machine::of(&WorkerConfig::default());
        assert!(found.memory_gib > 0, "no machine that builds this has less");
        let config = WorkerConfig {
            memory_gib: 80,
            gpu_class: "h100".to_owned(),
            accelerators: 1,
            ..WorkerConfig::default()
        };
        let told = Machine::of(&config);
        assert_eq!((told.memory_gib, told.accelerators), (80, 1));
    }
}
