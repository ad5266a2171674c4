//! Whether the memory of a process is flat: a rule over looks at it. Pure, but for the looks.

use crate::cost::{self, mib};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Memory is flat where it ends at most this far above where it was when everything was warm.
const FLAT_SHARE: f64 = 0.05;
/// What is allowed in any case: what an allocator keeps is not exact. Over ten thousand requests
/// it is less than a kilobyte for each.
const FLAT_MIB: f64 = 8.0;
/// Parts into which a run is cut. The second is the one that others are held against: in the first
/// caches and pools fill.
const PARTS: usize = 10;

/// Resident MiB over a run, in the order of the looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Memory(Vec<f64>);

/// What is said of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Course {
    pub(crate) first: f64,
    /// Median of the second tenth.
    pub(crate) warm: f64,
    pub(crate) most: f64,
    /// Median of the last tenth.
    pub(crate) end: f64,
}

impl Memory {
    /// Nothing before there is a look in each part.
    pub(crate) fn course(&self) -> Option<Course> {
        if self.0.len() < PARTS {
            return None;
        }
        Some(Course {
            first: *self.0.first()?,
            warm: self.median(1)?,
            most: self.0.iter().copied().fold(0.0, f64::max),
            end: self.median(PARTS - 1)?,
        })
    }

    fn median(&self, part: usize) -> Option<f64> {
        let edge = |part: usize| self.0.len() * part / PARTS;
        let mut part = self.0[edge(part)..edge(part + 1)].to_vec();
        part.sort_by(f64::total_cmp);
        part.get(part.len() / 2).copied()
    }

    /// At most so many of the looks, evenly, for the line of JSON.
    pub(crate) fn some(&self, most: usize) -> Vec<f64> {
        let step = self.0.len().div_ceil(most).max(1);
        self.0.iter().copied().step_by(step).collect()
    }
}

impl FromIterator<f64> for Memory {
    fn from_iter<I: IntoIterator<Item = f64>>(looks: I) -> Self {
        Self(looks.into_iter().collect())
    }
}

impl Course {
    pub(crate) const RULE: &'static str =
        "the last tenth's median is at most 5 % or 8 MiB above the second tenth's";

    pub(crate) fn is_flat(&self) -> bool {
        self.end - self.warm <= FLAT_MIB.max(self.warm * FLAT_SHARE)
    }
}

/// Looks at a process until it is asked what was seen.
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<f64>>>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    pub(crate) fn start(pid: u32) -> Self {
        let seen = Arc::<Mutex<Vec<f64>>>::default();
        let looks = seen.clone();
        let task = tokio::spawn(async move {
            // It ends with the process.
            while let Ok(bytes) = cost::resident_bytes(pid) {
                lock(&looks).push(mib(bytes));
                tokio::time::sleep(LOOK).await;
            }
        });
        Self {
            seen,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(crate) fn seen(&self) -> Memory {
        Memory(lock(&self.seen).clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(of: impl Fn(f64) -> f64) -> Course {
        let memory: Memory = (0..1_000).map(|it| of(f64::from(it) / 1_000.0)).collect();
        memory.course().expect("enough looks")
    }

    #[test]
    fn what_fills_up_at_first_and_stays_is_flat() {
        let filled = course(|at| if at < 0.08 { 20.0 + 500.0 * at } else { 60.0 });
        assert_eq!((filled.first, filled.warm, filled.end), (20.0, 60.0, 60.0));
        assert!(filled.is_flat());
        assert!(
            course(|at| 60.0 + (at * 100.0).sin() * 5.0).is_flat(),
            "it goes up and down"
        );
        let peak = course(|at| if (at - 0.5).abs() < 0.01 { 500.0 } else { 60.0 });
        assert!(
            peak.is_flat() && peak.most == 500.0,
            "what is given back is not held"
        );
    }

    #[test]
    fn what_grows_to_the_end_is_not() {
        assert!(
            !course(|at| 60.0 + 12.0 * at).is_flat(),
            "a kilobyte for each of 10,000"
        );
        assert!(!course(|at| if at > 0.8 { 80.0 } else { 60.0 }).is_flat());
        assert!(course(|at| 600.0 + 12.0 * at).is_flat(), "2 % of much");
        assert!(!course(|at| 600.0 + 60.0 * at).is_flat());
    }

    #[test]
    fn of_too_few_looks_nothing_is_said() {
        assert_eq!([1.0; 9].into_iter().collect::<Memory>().course(), None);
        let ten: Memory = [1.0; 10].into_iter().collect();
        assert!(ten.course().is_some());
        assert_eq!(ten.some(3).len(), 3);
    }
}
