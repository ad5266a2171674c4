//! What happens next: by time, then in the order in which it was planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Simulated microseconds since the start of the run.
pub type Us = u64;
/// Microseconds in a millisecond.
pub const MS: Us = 1_000;
/// Microseconds in a second.
pub const SECOND: Us = 1_000_000;

/// Seconds of a scenario file as simulated time.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "scenarios are validated to be hours at most, and not negative"
)]
pub fn seconds(seconds: f64) -> Us {
    (seconds * SECOND as f64).round() as Us
}

struct Planned<E> {
    at: Us,
    sequence: u64,
    event: E,
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<E> Eq for Planned<E> {}
impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Planned<E> {
    /// The heap gives its greatest first, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// Events in the order of their time; those of one time in the order in which they were planned,
/// so that a run is the same each time.
pub struct Queue<E> {
    heap: BinaryHeap<Planned<E>>,
    sequence: u64,
    now: Us,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: 0,
            now: 0,
        }
    }
}

impl<E> Queue<E> {
    /// The time of the last event that was taken.
    #[must_use]
    pub fn now(&self) -> Us {
        self.now
    }

    /// Plans an event. A time that has passed means now.
    pub fn plan(&mut self, at: Us, event: E) {
        self.sequence += 1;
        self.heap.push(Planned {
            at: at.max(self.now),
            sequence: self.sequence,
            event,
        });
    }

    /// Takes the next event that is due before `end`.
    pub fn take(&mut self, end: Us) -> Option<E> {
        if self.heap.peek()?.at >= end {
            self.now = end;
            return None;
        }
        let planned = self.heap.pop()?;
        self.now = planned.at;
        Some(planned.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_planned() {
        let mut queue = Queue::default();
        for (at, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b'), (9, 'z')] {
            queue.plan(at, name);
        }
        let mut taken = String::new();
        while let Some(name) = queue.take(9) {
            taken.push(name);
        }
        assert_eq!(taken, "abcd", "what is due at the end is not taken");
        assert_eq!(queue.now(), 9);
    }

    #[test]
    fn the_past_means_now() {
        let mut queue = Queue::default();
        queue.plan(4, 'a');
        assert_eq!(queue.take(10), Some('a'));
        queue.plan(1, 'b');
        assert_eq!((queue.take(10), queue.now()), (Some('b'), 4));
    }
}
