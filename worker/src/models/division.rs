//! Into how many processes a model's engine is divided, and how many threads each of them has. Pure.
//!
//! mistral.rs gives one answer at a time on a CPU. So where nothing else is configured a model gets as
//! many processes as can be of use, and each of them twice its share of the cores: an answer that is
//! given alone then has more than one core to itself, and several at once take turns on them, which
//! was measured to cost nothing (`docs/benchmarks.md`). What bounds the processes:
//!
//! * the cores that the worker may use, at least one (or `threads`) for each process;
//! * `slots`: more answers than that are never given at once;
//! * memory, since each process holds the weights: what no other model needs, which the pool knows
//!   ([`crate::models::pool`]) when the model is loaded.
//!
//! Only what is computed by the processor is divided.

use crate::config::{EngineConfig, MAX_THREADS};
use crate::models::pool::Processes;

/// A process has this many times its share of the cores as threads.
const SHARES: u32 = 2;

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
        0 => Threads {
            each: (cores.saturating_mul(SHARES) / processes).clamp(1, cores.min(MAX_THREADS)),
            are_pinned: false,
        },
        threads => Threads {
            each: threads,
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

    fn each(config: &EngineConfig, means: Means, count: u32) -> u32 {
        threads(config, means, count).each
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
        assert_eq!(each(&engine(2, 4, 0), MEANS, 4), 1);
        assert_eq!(each(&engine(0, 2, 16), MEANS, 2), 16);
        assert_eq!(each(&engine(8, 0, 3), MEANS, 2), 3);
    }

    #[test]
    fn an_answer_that_is_given_alone_has_more_than_its_share() {
        let of = |cores| Means { cores, ..MEANS };
        assert_eq!(each(&engine(0, 0, 0), of(2), 2), 2, "all there are");
        assert_eq!(each(&engine(0, 0, 0), of(5), 4), 2);
        assert_eq!(each(&engine(0, 0, 0), of(16), 4), 8);
        assert_eq!(each(&engine(0, 3, 0), of(16), 3), 10);
        assert_eq!(each(&engine(8, 1, 0), of(16), 1), 8, "and never more");
        assert_eq!(each(&engine(1, 0, 0), of(16), 1), 1);
        assert_eq!(each(&engine(2, 0, 0), of(16), 64), 1);
        assert_eq!(each(&engine(0, 0, 0), of(16), 1), 0, "the libraries' own");
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
            assert_eq!(each(&config, many, count), MAX_THREADS);
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
