//! Two counts over the last while: what happened, in slots of time. Pure.

/// Slots that a window is divided into. What is counted leaves it a slot at a time, so that a
/// window is up to a tenth shorter than its name says, never longer.
pub(crate) const SLOTS: usize = 10;

/// Two counts over the last while. How long that is comes with each call, so that it can be
/// configured anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    slots: [[u32; 2]; SLOTS],
    /// Number of the newest slot, counted from the clock's start.
    newest: u64,
}

impl Window {
    /// Counts one more of the first or second kind.
    pub(crate) fn add(&mut self, kind: usize, span_ms: u64, now_ms: u64) {
        self.turn_to(number(span_ms, now_ms));
        let count = &mut self.slots[at(self.newest)][kind];
        *count = count.saturating_add(1);
    }

    /// Both counts over the last `span_ms`.
    pub(crate) fn sums(&self, span_ms: u64, now_ms: u64) -> [u32; 2] {
        let now = number(span_ms, now_ms);
        let passed = now.saturating_sub(self.newest);
        // A clock that went back further than the window: what is here is of no time that is known.
        if self.newest.saturating_sub(now) >= SLOTS as u64 {
            return [0; 2];
        }
        // From the oldest slot that is kept, which may be from before the clock's start.
        let kept = (passed + 1..=SLOTS as u64).map(|it| self.slots[at(self.newest + it)]);
        kept.fold([0; 2], |sums, slot| {
            [
                sums[0].saturating_add(slot[0]),
                sums[1].saturating_add(slot[1]),
            ]
        })
    }

    /// Makes this the newest slot. Where the clock went back a little, the newest one stays.
    fn turn_to(&mut self, number: u64) {
        let back = self.newest.saturating_sub(number);
        let forward = number.saturating_sub(self.newest);
        if back >= SLOTS as u64 || forward >= SLOTS as u64 {
            *self = Self {
                newest: number,
                ..Self::default()
            };
            return;
        }
        for _ in 0..forward {
            self.newest += 1;
            self.slots[at(self.newest)] = [0; 2];
        }
    }
}

fn number(span_ms: u64, now_ms: u64) -> u64 {
    now_ms / (span_ms / SLOTS as u64).max(1)
}

fn at(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: u64 = 1_000;

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::default();
        window.add(0, SPAN, 5_050);
        window.add(1, SPAN, 5_950);
        assert_eq!(window.sums(SPAN, 5_999), [1, 1]);
        assert_eq!(window.sums(SPAN, 6_000), [0, 1], "its slot is over");
        assert_eq!(window.sums(SPAN, 7_000), [0, 0]);
        window.add(0, SPAN, 90_000);
        assert_eq!(window.sums(SPAN, 90_000), [1, 0]);
    }

    #[test]
    fn a_clock_that_goes_back_a_little_stands_still_and_otherwise_the_counts_begin_anew() {
        let mut window = Window::default();
        window.add(0, SPAN, 9_500);
        window.add(0, SPAN, 9_100);
        assert_eq!(window.sums(SPAN, 9_100), [2, 0]);
        assert_eq!(window.sums(SPAN, 10_450), [2, 0], "counted where it stood");
        assert_eq!(window.sums(SPAN, 100), [0, 0]);
        window.add(1, SPAN, 100);
        assert_eq!(window.sums(SPAN, 100), [0, 1]);
    }

    proptest! {
        /// Held against a plain list of what happened.
        #[test]
        fn sums_are_those_of_the_last_slots(
            steps in proptest::collection::vec((0_u64..400, 0_usize..2), 1..200),
            later in 0_u64..3_000,
        ) {
            let (mut window, mut now, mut all) = (Window::default(), 0, Vec::new());
            for (after, kind) in steps {
                now += after;
                window.add(kind, SPAN, now);
                all.push((now, kind));
            }
            now += later;
            let slot = SPAN / SLOTS as u64;
            let counts = |of: usize| {
                let recent = all.iter().filter(|(at, kind)| {
                    *kind == of && now / slot - at / slot < SLOTS as u64
                });
                u32::try_from(recent.count()).expect("small")
            };
            prop_assert_eq!(window.sums(SPAN, now), [counts(0), counts(1)]);
        }
    }
}
