//! Into how many processes a model's engine is divided, and how many threads each of them has. Pure.
//!
//! mistral.rs gives one answer at a time on a CPU, and its kernels lose by being spread over threads
//! what they win: `docs/benchmarks.md` has the figures. So where nothing else is configured the cores
//! are shared out to as many processes as can be of use. What bounds them:
//!
//! * the cores that the worker may use, at least one (or `threads`) for each process;
//! * `slots`: more answers than that are never given at once;
//! * memory, since each process holds the weights: what no other model needs, which the pool knows
//!   ([`crate::models::pool`]) when the model is loaded.
//!
//! Only what is computed by the processor is divided.

use crate::config::{EngineConfig, MAX_THREADS};
use crate::models::pool::Processes;

/// What there is for a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    /// Whether it is computed by the processor.
    pub(crate) is_cpu: bool,
    /// Whether a process gives one answer at a time.
    pub(crate) gives_one: bool,
    /// Cores of the machine.
    pub(crate) cores: u32,
    /// Requests that the worker runs at once.
    pub(crate) slots: u32,
}

/// Threads of the processes of one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Threads {
    /// Of each; 0 means as many as the machine has cores.
    pub(crate) each: u32,
    /// The first so many processes have one more.
    pub(crate) wider: u32,
    /// Whether each process is kept to as many processors: so many were configured. Elsewhere their
    /// number bounds them, and the system's scheduler knows best what else runs on the machine.
    pub(crate) are_pinned: bool,
}

/// Into how many processes a model may be loaded.
pub(crate) fn processes(config: &EngineConfig, means: Means) -> Processes {
    match config.replicas {
        _ if !means.is_cpu => Processes::Exactly(1),
        // An engine that computes nothing.
        0 if !means.gives_one => Processes::Exactly(1),
        0 => {
            let by_cores = cores(config, means) / config.threads.max(1);
            Processes::UpTo(by_cores.min(means.slots).max(1))
        }
        replicas => Processes::Exactly(replicas),
    }
}

/// The threads of so many processes.
pub(crate) fn threads(config: &EngineConfig, means: Means, processes: u32) -> Threads {
    let (cores, processes) = (cores(config, means), processes.max(1));
    match config.threads {
        _ if !means.is_cpu => Threads::default(),
        // Nothing to divide: how many there are is left to the libraries.
        0 if processes == 1 && config.cores == 0 && cores <= MAX_THREADS => Threads::default(),
        0 if cores <= processes => Threads {
            each: 1,
            ..Threads::default()
        },
        0 if cores / processes >= MAX_THREADS => Threads {
            each: MAX_THREADS,
            ..Threads::default()
        },
        0 => Threads {
            each: cores / processes,
            wider: cores % processes,
            are_pinned: false,
        },
        threads => Threads {
            each: threads,
            wider: 0,
            are_pinned: true,
        },
    }
}

fn cores(config: &EngineConfig, means: Means) -> u32 {
    match config.cores {
        0 => means.cores.max(1),
        cores => cores,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEANS: Means = Means {
        is_cpu: true,
        gives_one: true,
        cores: 16,
        slots: 4,
    };

    fn engine(cores: u32, replicas: u32, threads: u32) -> EngineConfig {
        EngineConfig {
            cores,
            replicas,
            threads,
            ..EngineConfig::default()
        }
    }

    /// The threads of each of so many processes.
    fn each(config: &EngineConfig, means: Means, count: u32) -> Vec<u32> {
        let threads = threads(config, means, count);
        let of = |process| threads.each + u32::from(process < threads.wider);
        (0..count).map(of).collect()
    }

    #[test]
    fn by_itself_a_model_gets_as_many_processes_as_cores_and_slots_allow() {
        let by_itself = |means| processes(&engine(0, 0, 0), means);
        assert_eq!(by_itself(MEANS), Processes::UpTo(4));
        assert_eq!(by_itself(Means { slots: 99, ..MEANS }), Processes::UpTo(16));
        assert_eq!(by_itself(Means { cores: 2, ..MEANS }), Processes::UpTo(2));
        assert_eq!(by_itself(Means { cores: 0, ..MEANS }), Processes::UpTo(1));
        assert_eq!(processes(&engine(8, 0, 3), MEANS), Processes::UpTo(2));
        assert_eq!(processes(&engine(2, 0, 3), MEANS), Processes::UpTo(1));
        let computes_nothing = Means {
            gives_one: false,
            ..MEANS
        };
        assert_eq!(by_itself(computes_nothing), Processes::Exactly(1));
    }

    #[test]
    fn a_number_that_is_configured_is_taken_as_it_is() {
        assert_eq!(processes(&engine(2, 4, 0), MEANS), Processes::Exactly(4));
        assert_eq!(processes(&engine(0, 1, 0), MEANS), Processes::Exactly(1));
        assert_eq!(each(&engine(2, 4, 0), MEANS, 4), [1; 4]);
        assert_eq!(each(&engine(0, 2, 16), MEANS, 2), [16; 2]);
        assert_eq!(each(&engine(8, 0, 3), MEANS, 2), [3; 2]);
    }

    #[test]
    fn no_core_is_left_over() {
        let five = Means { cores: 5, ..MEANS };
        assert_eq!(each(&engine(0, 0, 0), five, 4), [2, 1, 1, 1]);
        assert_eq!(each(&engine(0, 0, 0), five, 3), [2, 2, 1]);
        assert_eq!(each(&engine(0, 3, 0), MEANS, 3), [6, 5, 5]);
        assert_eq!(each(&engine(8, 1, 0), MEANS, 1), [8]);
        assert_eq!(each(&engine(1, 0, 0), MEANS, 1), [1]);
        assert_eq!(each(&engine(0, 0, 0), MEANS, 1), [0], "the libraries' own");
    }

    #[test]
    fn only_threads_that_are_configured_are_kept_to_processors() {
        assert!(threads(&engine(0, 2, 4), MEANS, 2).are_pinned);
        assert!(!threads(&engine(8, 2, 0), MEANS, 2).are_pinned);
        assert!(!threads(&engine(0, 0, 0), MEANS, 1).are_pinned);
    }

    #[test]
    fn a_machine_of_very_many_cores_gives_no_process_more_threads_than_it_may_have() {
        let many = Means {
            cores: 4_096,
            ..MEANS
        };
        for (config, count) in [
            (engine(0, 0, 0), 1),
            (engine(0, 0, 0), 4),
            (engine(4_096, 1, 0), 1),
        ] {
            let most = each(&config, many, count).into_iter().max();
            assert_eq!(most, Some(MAX_THREADS));
        }
    }

    #[test]
    fn what_an_accelerator_computes_is_not_divided() {
        let accelerator = Means {
            is_cpu: false,
            gives_one: false,
            ..MEANS
        };
        let config = engine(8, 3, 2);
        assert_eq!(processes(&config, accelerator), Processes::Exactly(1));
        assert_eq!(threads(&config, accelerator, 1), Threads::default());
    }
}
