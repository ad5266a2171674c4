//! What workers offer, each content once: a fleet of one operator says a few things many times.

use super::worker::Offering;
use std::collections::HashSet;
use std::sync::Arc;

/// Unused ones that are kept at least, before a look for them.
const SPARE: usize = 64;

/// The contents in use, and some that were.
#[derive(Debug, Default)]
pub(crate) struct Offerings {
    all: HashSet<Arc<Offering>>,
    /// How many there were after the last look for unused ones.
    kept: usize,
}

impl Offerings {
    /// The shared one of this content.
    pub(crate) fn share(&mut self, offering: Offering) -> Arc<Offering> {
        if let Some(known) = self.all.get(&offering) {
            return known.clone();
        }
        if self.all.len() >= 2 * self.kept + SPARE {
            self.all.retain(|it| Arc::strong_count(it) > 1);
            self.kept = self.all.len();
        }
        let offering = Arc::new(offering);
        self.all.insert(offering.clone());
        offering
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{card, offer, region};

    fn offering(n: u8) -> Offering {
        let mut worker = card().worker.expect("a worker");
        worker.models = vec![offer("tiny@1.0", n)];
        Offering {
            region: region("local"),
            card: worker,
        }
    }

    #[test]
    fn what_many_say_is_kept_once_and_what_nobody_says_any_more_is_dropped() {
        let mut offerings = Offerings::default();
        let one = offerings.share(offering(1));
        assert!(Arc::ptr_eq(&one, &offerings.share(offering(1))));
        for _ in 0..10 {
            for n in 2..=255 {
                offerings.share(offering(n));
            }
        }
        assert!(offerings.len() <= 2 * SPARE, "{}", offerings.len());
        assert!(Arc::ptr_eq(&one, &offerings.share(offering(1))));
    }
}
