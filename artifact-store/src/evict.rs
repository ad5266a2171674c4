//! What goes from the store when there is no room. Pure. (WRK-5)

use crate::error::ArtifactError;
use crate::store::Stored;
use tether_wire::Digest;

/// What to remove so that `needed` bytes fit beside the rest: first what was never whole, since it
/// serves nobody, then the least recently used.
/// `keep` says what must stay: what is in use or pinned. A budget of 0 is none.
///
/// # Errors
/// When it would not fit even then; nothing is to be removed.
pub(crate) fn victims(
    stored: &[Stored],
    needed: u64,
    budget: u64,
    keep: impl Fn(&Digest) -> bool,
) -> Result<Vec<Stored>, ArtifactError> {
    let sum = |of: &dyn Fn(&&Stored) -> bool| {
        let chosen = stored.iter().filter(of);
        chosen.fold(0_u64, |sum, it| sum.saturating_add(it.bytes))
    };
    let mut total = sum(&|_| true);
    if budget == 0 || total.saturating_add(needed) <= budget {
        return Ok(Vec::new());
    }
    let kept = sum(&|it| keep(&it.digest));
    if kept.saturating_add(needed) > budget {
        return Err(ArtifactError::OverBudget {
            needed,
            budget,
            kept,
        });
    }
    let mut idle: Vec<&Stored> = stored.iter().filter(|it| !keep(&it.digest)).collect();
    idle.sort_by_key(|it| (it.is_whole, it.last_used, it.digest));
    let mut gone = Vec::new();
    for it in idle {
        if total.saturating_add(needed) <= budget {
            break;
        }
        total -= it.bytes;
        gone.push(it.clone());
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn stored(n: u8, bytes: u64, used: u64) -> Stored {
        Stored {
            digest: Digest([n; 32]),
            bytes,
            last_used: SystemTime::UNIX_EPOCH + Duration::from_secs(used),
            is_whole: true,
        }
    }

    fn digests(gone: Vec<Stored>) -> Vec<Digest> {
        gone.into_iter().map(|it| it.digest).collect()
    }

    #[test]
    fn the_least_recently_used_goes_and_what_is_kept_stays() {
        let all = [stored(1, 40, 3), stored(2, 40, 1), stored(3, 20, 2)];
        let none = |_: &Digest| false;
        let go = |needed, budget| digests(victims(&all, needed, budget, none).expect("fits"));
        assert_eq!(go(10, 0), [], "no budget");
        assert_eq!(go(10, 110), []);
        assert_eq!(go(10, 100), [Digest([2; 32])]);
        assert_eq!(go(50, 100), [Digest([2; 32]), Digest([3; 32])]);
        let keep = |digest: &Digest| *digest == Digest([2; 32]);
        let gone = digests(victims(&all, 50, 100, keep).expect("fits"));
        assert_eq!(gone, [Digest([3; 32]), Digest([1; 32])]);
        let error = victims(&all, 61, 100, keep).expect_err("40 stay");
        assert_eq!(error.code(), "over-disk-budget");
        assert!(error.to_string().contains("40"), "{error}");
    }

    #[test]
    fn what_was_never_whole_counts_and_goes_first() {
        let cut_off = Stored {
            is_whole: false,
            ..stored(3, 40, 9)
        };
        let all = [stored(1, 40, 1), cut_off];
        let go = |needed| digests(victims(&all, needed, 100, |_| false).expect("fits"));
        assert_eq!(go(20), []);
        assert_eq!(go(30), [Digest([3; 32])]);
        assert_eq!(go(70), [Digest([3; 32]), Digest([1; 32])]);
        let error = victims(&all, 70, 100, |it| *it == Digest([3; 32])).expect_err("40 stay");
        assert_eq!(error.code(), "over-disk-budget");
    }
}
