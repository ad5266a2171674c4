//! What a refusal should have told: when those of the tenant who waited before it had had their turn.
//! Pure.

use super::ask::{Asked, End};
use std::time::Duration;

/// What was told of coming again, and what was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) told: Duration,
    /// Until the last of those that were let in before had the first piece of its answer.
    pub(super) needed: Duration,
}

/// For each refusal of a tenant that said when to come again, behind one that was let in.
pub(super) fn told(asked: &[Asked]) -> Vec<Told> {
    let mut asked: Vec<&Asked> = asked.iter().collect();
    asked.sort_by_key(|it| it.at);
    // The last turn of those that came so far: lines keep their order, and answers begin nearly so.
    let mut turn = None;
    let mut all = Vec::new();
    for one in asked {
        match (&one.end, turn) {
            (End::Whole, _) => turn = turn.max(one.first.map(|first| one.at + first)),
            (
                End::Refused {
                    retry_after: Some(told),
                },
                Some(turn),
            ) => all.push(Told {
                told: *told,
                needed: turn.saturating_duration_since(one.at),
            }),
            (End::Refused { .. } | End::Broken(_), _) => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn needed_is_the_turn_of_the_last_one_that_was_let_in_before() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let whole = |at, first| Asked {
            at: now + ms(at),
            first: Some(ms(first)),
            took: ms(first + 10),
            end: End::Whole,
        };
        let refused = |at, told: Option<u64>| Asked {
            at: now + ms(at),
            first: None,
            took: ms(1),
            end: End::Refused {
                retry_after: told.map(ms),
            },
        };
        let asked = [
            refused(150, Some(300)),
            refused(50, Some(70)),
            whole(100, 400),
            refused(160, None),
            whole(200, 500),
            refused(800, Some(5)),
        ];
        let told = told(&asked);
        let pairs: Vec<_> = told
            .iter()
            .map(|it| (it.told.as_millis(), it.needed.as_millis()))
            .collect();
        assert_eq!(pairs, [(300, 350), (5, 0)]);
    }
}
