//! Fencing: an order of an owner that was replaced is refused. [T-INF-6]

use std::collections::{HashMap, VecDeque};
use tether_wire::CorrelationId;

/// Most jobs whose fence is remembered. An order of a replaced owner comes within seconds of its
/// replacement; at a thousand orders a second this reaches back more than a minute.
pub const MAX_FENCES: usize = 65_536;

/// The highest fence seen for each recent job.
#[derive(Debug)]
pub struct Fences {
    limit: usize,
    seen: HashMap<CorrelationId, u64>,
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

    /// Takes a fence, or says which higher one was seen.
    ///
    /// # Errors
    /// The higher fence.
    pub fn admit(&mut self, job: CorrelationId, fence: u64) -> Result<(), u64> {
        if let Some(seen) = self.seen.get_mut(&job) {
            if fence < *seen {
                return Err(*seen);
            }
            *seen = fence;
            return Ok(());
        }
        if self.order.len() >= self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(job);
        self.seen.insert(job, fence);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_of_a_replaced_owner_is_refused() {
        let mut fences = Fences::default();
        let job = CorrelationId([1; 16]);
        assert_eq!(fences.admit(job, 2), Ok(()));
        assert_eq!(fences.admit(job, 2), Ok(()), "the same owner tries again");
        assert_eq!(fences.admit(job, 1), Err(2));
        assert_eq!(fences.admit(job, 3), Ok(()));
        assert_eq!(fences.admit(job, 2), Err(3));
        assert_eq!(fences.admit(CorrelationId([2; 16]), 0), Ok(()));
    }

    #[test]
    fn no_number_of_jobs_grows_it_past_its_limit() {
        let mut fences = Fences::with_limit(3);
        for n in 0..10 {
            assert_eq!(fences.admit(CorrelationId([n; 16]), 5), Ok(()));
        }
        assert_eq!(fences.seen.len(), 3);
        assert_eq!(fences.order.len(), 3);
        assert_eq!(fences.admit(CorrelationId([9; 16]), 4), Err(5));
        assert_eq!(fences.admit(CorrelationId([0; 16]), 4), Ok(()), "forgotten");
    }
}
