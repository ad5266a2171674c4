//! Two links to the same peer: which one stays. Pure. [T-LNK-6]
//!
//! Both sides see the same two links and must keep the same one, or they would close both and
//! dial again for ever. What they agree on: who dialled each, and which run of the peer it is of.

use tether_wire::NodeId;

/// Where a link comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Whether this node dialled.
    pub(crate) dialled_here: bool,
    /// The run of the peer, from its greeting.
    pub(crate) peer_boot: u64,
}

/// What becomes of the older of two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is dead, whether it knows already or not: the newer takes its place.
    OldIsDead,
    /// Both sides dialled at once, and the newer is the one to keep. The older lives on until the
    /// calls on it had time to end.
    OldRetires,
    /// Both sides dialled at once, and the older is the one to keep.
    NewGoes,
}

/// Decides between a link that is up and a newer one to the same peer.
pub(crate) fn decide(own: NodeId, peer: NodeId, old: Origin, new: Origin) -> Verdict {
    if old.peer_boot != new.peer_boot {
        // The peer was restarted: whatever it had before is gone.
        return Verdict::OldIsDead;
    }
    if old.dialled_here == new.dialled_here {
        // A side dials only when it has no link: it has lost the older.
        return Verdict::OldIsDead;
    }
    let smaller_dialled_new = new.dialled_here == (own < peer);
    if smaller_dialled_new {
        Verdict::OldRetires
    } else {
        Verdict::NewGoes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    fn origin(dialled_here: bool, peer_boot: u64) -> Origin {
        Origin {
            dialled_here,
            peer_boot,
        }
    }

    #[test]
    fn both_sides_of_a_simultaneous_dial_keep_the_same_link_in_every_order() {
        // The link that A dialled is `true` at A and `false` at B.
        for a_sees_own_first in [true, false] {
            for b_sees_own_first in [true, false] {
                let keeps_own = |own, peer, own_first: bool| {
                    let verdict = decide(own, peer, origin(own_first, 7), origin(!own_first, 7));
                    match verdict {
                        Verdict::NewGoes => own_first,
                        Verdict::OldRetires => !own_first,
                        Verdict::OldIsDead => panic!("both are alive"),
                    }
                };
                assert!(keeps_own(A, B, a_sees_own_first), "A keeps what it dialled");
                assert!(!keeps_own(B, A, b_sees_own_first), "and so does B");
            }
        }
    }

    #[test]
    fn a_restarted_peer_is_linked_at_once_whoever_dials() {
        for old in [true, false] {
            for new in [true, false] {
                for (own, peer) in [(A, B), (B, A)] {
                    let verdict = decide(own, peer, origin(old, 1), origin(new, 2));
                    assert_eq!(verdict, Verdict::OldIsDead);
                }
            }
        }
    }

    #[test]
    fn a_side_that_dials_again_has_lost_the_older_link() {
        for side in [true, false] {
            let verdict = decide(A, B, origin(side, 1), origin(side, 1));
            assert_eq!(verdict, Verdict::OldIsDead);
        }
    }
}
