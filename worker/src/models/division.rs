//! Into how many processes a model's engine is divided, and how many threads each of them has. Pure.
//!
//! mistral.rs gives one answer at a time on a CPU, and its kernels lose by being spread over threads
//! what they win: `docs/benchmarks.md` has the figures. So where nothing else is configured the cores
//! are shared out to as many processes as can be of use. What bounds them:
//!
//! * the cores that the worker may use, at least one (or `threads`) for each process;
//! * `slots`: more answers than that are never given at once;
//! * memory, since each process holds the weights: the model's processes together take no more than
//!   its share of the budget, one of as many as there are models, so that none is pushed out for the
//!   sake of another's copies.

use crate::config::EngineConfig;

/// How an engine is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Processes; at least 1.
    pub(crate) processes: u32,
    /// Threads of each; 0 means as many as the machine has cores.
    pub(crate) threads: u32,
}

/// What there is for a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    /// Whether a process gives one answer at a time.
    pub(crate) gives_one: bool,
    /// Cores of the machine.
    pub(crate) cores: u32,
    /// Requests that the worker runs at once.
    pub(crate) slots: u32,
    /// The model's share of the memory budget.
    pub(crate) share_bytes: u64,
    /// What one process of it needs.
    pub(crate) process_bytes: u64,
}

impl Division {
    pub(crate) fn of(config: &EngineConfig, means: Means) -> Self {
        let cores = match config.cores {
            0 => means.cores.max(1),
            cores => cores,
        };
        let processes = match config.replicas {
            // Accelerators, and engines that compute nothing.
            0 if !means.gives_one => 1,
            0 => {
                let by_cores = cores / config.threads.max(1);
                let by_memory = means.share_bytes / means.process_bytes.max(1);
                let by_memory = u32::try_from(by_memory).unwrap_or(u32::MAX);
                by_cores.min(means.slots).min(by_memory).max(1)
            }
            replicas => replicas,
        };
        let threads = match config.threads {
            // Nothing to divide: how many there are is left to the libraries.
            0 if processes == 1 && config.cores == 0 => 0,
            0 => (cores / processes).max(1),
            threads => threads,
        };
        Self { processes, threads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEANS: Means = Means {
        gives_one: true,
        cores: 16,
        slots: 4,
        share_bytes: 100,
        process_bytes: 1,
    };

    fn divided(config: EngineConfig, means: Means) -> (u32, u32) {
        let Division { processes, threads } = Division::of(&config, means);
        (processes, threads)
    }

    #[test]
    fn cores_are_shared_out_to_as_many_processes_as_slots_cores_and_memory_allow() {
        let engine = EngineConfig::default;
        assert_eq!(divided(engine(), MEANS), (4, 4));
        assert_eq!(divided(engine(), Means { slots: 99, ..MEANS }), (16, 1));
        assert_eq!(divided(engine(), Means { cores: 2, ..MEANS }), (2, 1));
        assert_eq!(divided(engine(), Means { cores: 0, ..MEANS }), (1, 0));
        let large = Means {
            process_bytes: 45,
            ..MEANS
        };
        assert_eq!(divided(engine(), large), (2, 8));
        let larger = Means {
            process_bytes: u64::MAX,
            ..MEANS
        };
        assert_eq!(
            divided(engine(), larger),
            (1, 0),
            "it is tried all the same"
        );
    }

    #[test]
    fn what_is_configured_counts() {
        let engine = |cores, replicas, threads| EngineConfig {
            cores,
            replicas,
            threads,
            ..EngineConfig::default()
        };
        assert_eq!(divided(engine(0, 3, 0), MEANS), (3, 5));
        assert_eq!(divided(engine(0, 1, 0), MEANS), (1, 0));
        assert_eq!(divided(engine(8, 1, 0), MEANS), (1, 8));
        assert_eq!(divided(engine(8, 0, 3), MEANS), (2, 3));
        assert_eq!(divided(engine(1, 0, 0), MEANS), (1, 1));
        assert_eq!(divided(engine(2, 4, 0), MEANS), (4, 1));
        assert_eq!(divided(engine(0, 2, 16), MEANS), (2, 16));
        let many = Means {
            gives_one: false,
            ..MEANS
        };
        assert_eq!(divided(engine(0, 0, 0), many), (1, 0));
        assert_eq!(divided(engine(0, 2, 0), many), (2, 8));
    }
}
