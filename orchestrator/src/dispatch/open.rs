//! The jobs that this process still has to end, so that upkeep can tell them from those that nobody
//! will end any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::CorrelationId;

/// The open jobs. Cheap to clone. As many as requests under way and ends to be recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenJobs(Arc<Mutex<HashMap<CorrelationId, usize>>>);

impl OpenJobs {
    /// Holds a job until what comes back is dropped. To be called before the job is reserved.
    pub(crate) fn hold(&self, job: CorrelationId) -> Held {
        *self.jobs().entry(job).or_default() += 1;
        Held {
            open: self.clone(),
            job,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.jobs().len()
    }

    /// Whether somebody here will end the job.
    pub(crate) fn contains(&self, job: &CorrelationId) -> bool {
        self.jobs().contains_key(job)
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn jobs(&self) -> MutexGuard<'_, HashMap<CorrelationId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that is held. A repeated key holds it as well, also while its end waits to be
/// recorded.
#[derive(Debug)]
pub(crate) struct Held {
    open: OpenJobs,
    job: CorrelationId,
}

impl Held {
    /// Whether somebody else here holds it too.
    pub(crate) fn is_shared(&self) -> bool {
        self.open.jobs().get(&self.job).is_some_and(|it| *it > 1)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut jobs = self.open.jobs();
        if let Some(count) = jobs.get_mut(&self.job) {
            *count -= 1;
            if *count == 0 {
                jobs.remove(&self.job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_open_until_the_last_who_holds_it_lets_go() {
        let (open, job) = (OpenJobs::default(), CorrelationId([1; 16]));
        let first = open.hold(job);
        let repeated = open.hold(job);
        assert!(first.is_shared() && repeated.is_shared());
        drop(repeated);
        assert!(!first.is_shared());
        assert_eq!(open.len(), 1);
        assert!(open.contains(&job));
        drop(first);
        assert!(!open.contains(&job) && open.jobs().is_empty());
    }
}
