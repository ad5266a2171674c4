//! Limits what a fault of this process may cost the machine.

use super::EXIT_PANIC;
use rustix::process::{Resource, Rlimit, setrlimit};
#[cfg(target_os = "linux")]
use rustix::process::{Signal, set_parent_process_death_signal};

/// Raised so that the kernel, short of memory, ends an engine before the worker or anything else.
const OOM_SCORE_ADJ: &str = "500";

/// Applies to the whole process. What the system does not allow is said and gone without.
pub(super) fn process() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        eprintln!("tether engine: core dumps stay on: {error}");
    }
    // Linux sends it when the thread that started this process ends, so the worker starts engines on
    // a thread that lives as long as they should. The end of the socket says the same, but only to a
    // process that reads.
    #[cfg(target_os = "linux")]
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("tether engine: no parent-death signal: {error}");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        eprintln!("tether engine: oom_score_adj stays as it is: {error}");
    }
    // A panic on one thread leaves the engine half alive: locks poisoned, answers that never end.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::exit(i32::from(EXIT_PANIC));
    }));
}
