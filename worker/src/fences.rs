//! Fencing: an order of an owner that was replaced, or one that came before, is refused. [T-INF-6]

use std::collections::{HashMap, VecDeque};
use tether_wire::CorrelationId;
use tether_wire::infer::WorkOrder;

/// Most jobs whose fence is remembered. An order of a replaced owner comes within seconds of its
/// replacement; at a thousand orders a second this reaches back more than a minute.
pub const MAX_FENCES: usize = 65_536;

/// Owner and attempt of an order, in the order in which a job has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// Number of the job's owner.
    pub fence: u64,
    /// Which attempt of that owner.
    pub attempt: u32,
}

impl Turn {
    /// That of an order.
    #[must_use]
    pub fn of(order: &WorkOrder) -> Self {
        Self {
            fence: order.fence,
            attempt: order.attempt,
        }
    }
}

/// The highest turn taken of each recent job.
#[derive(Debug)]
pub struct Fences {
    limit: usize,
    seen: HashMap<CorrelationId, Turn>,
    order: VecDeque<CorrelationId>,
}

impl Default for Fences {
    fn default() -> Self {
        Self::with_limit(MAX_FENCES)
    }
}

impl Fences {
    fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            seen: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether an order may be taken: its turn comes after every one that was.
    ///
    /// # Errors
    /// The highest turn that was taken.
    pub fn check(&self, job: CorrelationId, turn: Turn) -> Result<(), Turn> {
        match self.seen.get(&job) {
            Some(seen) if turn <= *seen => Err(*seen),
            _ => Ok(()),
        }
    }

    /// An order that passed [`Fences::check`] was taken. One that was turned away for want of room
    /// is not: it may come again.
    pub fn taken(&mut self, job: CorrelationId, turn: Turn) {
        if self.seen.insert(job, turn).is_some() {
            return;
        }
        if self.order.len() >= self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(fence: u64, attempt: u32) -> Turn {
        Turn { fence, attempt }
    }

    fn admit(fences: &mut Fences, job: u8, turn: Turn) -> Result<(), Turn> {
        let job = CorrelationId([job; 16]);
        fences.check(job, turn)?;
        fences.taken(job, turn);
        Ok(())
    }

    #[test]
    fn an_order_that_came_before_or_of_a_replaced_owner_is_refused() {
        let mut fences = Fences::default();
        let mut one = |turn| admit(&mut fences, 1, turn);
        assert_eq!(one(turn(2, 1)), Ok(()));
        assert_eq!(one(turn(2, 1)), Err(turn(2, 1)), "the same order again");
        assert_eq!(one(turn(2, 2)), Ok(()), "the owner's next attempt");
        assert_eq!(one(turn(2, 1)), Err(turn(2, 2)), "late");
        assert_eq!(one(turn(1, 9)), Err(turn(2, 2)), "a replaced owner");
        assert_eq!(one(turn(3, 1)), Ok(()), "a new owner counts anew");
        assert_eq!(one(turn(2, 3)), Err(turn(3, 1)));
        assert_eq!(admit(&mut fences, 2, turn(0, 1)), Ok(()), "another job");
    }

    #[test]
    fn an_order_that_was_not_taken_may_come_again() {
        let mut fences = Fences::default();
        let job = CorrelationId([1; 16]);
        assert_eq!(fences.check(job, turn(1, 1)), Ok(()));
        assert_eq!(fences.check(job, turn(1, 1)), Ok(()));
        fences.taken(job, turn(1, 1));
        assert!(fences.check(job, turn(1, 1)).is_err());
    }

    #[test]
    fn no_number_of_jobs_grows_it_past_its_limit() {
        let mut fences = Fences::with_limit(3);
        for n in 0..10 {
            assert_eq!(admit(&mut fences, n, turn(5, 1)), Ok(()));
        }
        assert_eq!(fences.seen.len(), 3);
        assert_eq!(fences.order.len(), 3);
        assert_eq!(admit(&mut fences, 9, turn(4, 1)), Err(turn(5, 1)));
        assert_eq!(admit(&mut fences, 0, turn(4, 1)), Ok(()), "forgotten");
    }
}
