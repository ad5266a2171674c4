//! Which orchestrators are peers: those with which a `spread` call is open in each direction. Pure.
//! [T-SPR-1]

use std::collections::HashMap;
use tether_presence::Input;
use tether_wire::NodeId;
use tether_wire::spread::Batch;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What happened to a `spread` call.
#[derive(Debug)]
pub(crate) enum News {
    /// One to a peer is open; what is put into `batches` is sent over it.
    Opened {
        peer: NodeId,
        /// Whether the peer serves the same region.
        near: bool,
        call: u64,
        batches: mpsc::Sender<Batch>,
    },
    /// It is over.
    Closed { peer: NodeId, call: u64 },
    /// One of a peer's came.
    Heard {
        peer: NodeId,
        call: u64,
        /// Told when batches may be taken: a peer that is not up is not listened to.
        up: oneshot::Sender<()>,
        /// Cancelled when another call took its place.
        stop: CancellationToken,
    },
    /// It is over.
    Unheard { peer: NodeId, call: u64 },
}

#[derive(Debug, Default)]
struct Peer {
    near: bool,
    outgoing: Option<(u64, mpsc::Sender<Batch>)>,
    incoming: Option<(u64, CancellationToken)>,
    waiting: Option<oneshot::Sender<()>>,
    is_up: bool,
}

/// The orchestrators to or from which a call is open. As many as there are links.
#[derive(Debug, Default)]
pub(crate) struct Peers(HashMap<NodeId, Peer>);

/// What follows.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// What the fleet is to be told.
    pub(crate) input: Option<Input>,
    /// Who is to be told after that.
    pub(crate) then: Option<oneshot::Sender<()>>,
}

impl Peers {
    /// Takes what happened.
    pub(crate) fn take(&mut self, news: News) -> Turn {
        match news {
            News::Opened {
                peer,
                near,
                call,
                batches,
            } => {
                let known = self.0.entry(peer).or_default();
                known.near = near;
                known.outgoing = Some((call, batches));
                // Whoever is at the other end of a new call has been told nothing yet.
                known.is_up = false;
                known.settle(peer)
            }
            News::Heard {
                peer,
                call,
                up,
                stop,
            } => {
                let known = self.0.entry(peer).or_default();
                if let Some((_, older)) = known.incoming.replace((call, stop)) {
                    older.cancel();
                }
                known.waiting = Some(up);
                known.settle(peer)
            }
            News::Closed { peer, call } => self.end(peer, |known| {
                if known.outgoing.as_ref().is_some_and(|it| it.0 == call) {
                    known.outgoing = None;
                }
            }),
            News::Unheard { peer, call } => self.end(peer, |known| {
                if known.incoming.as_ref().is_some_and(|it| it.0 == call) {
                    known.incoming = None;
                    known.waiting = None;
                }
            }),
        }
    }

    /// The call to a peer was dropped.
    pub(crate) fn lost(&mut self, peer: NodeId) -> Turn {
        self.end(peer, |known| known.outgoing = None)
    }

    fn end(&mut self, peer: NodeId, change: impl FnOnce(&mut Peer)) -> Turn {
        let Some(known) = self.0.get_mut(&peer) else {
            return Turn::default();
        };
        change(known);
        let turn = known.settle(peer);
        if known.outgoing.is_none() && known.incoming.is_none() {
            self.0.remove(&peer);
        }
        turn
    }

    /// Gives a batch to the call to a peer. Nothing where it can never be sent and the fleet must
    /// know.
    pub(crate) fn send(&self, to: &NodeId, batch: Batch) -> Option<Input> {
        // Who is not up was told to be down: nothing is owed.
        let (_, call) = self.0.get(to)?.outgoing.as_ref()?;
        let sent = call.try_send(batch);
        sent.err().map(|_| Input::Written(*to))
    }
}

impl Peer {
    fn settle(&mut self, peer: NodeId) -> Turn {
        let both = self.outgoing.is_some() && self.incoming.is_some();
        let was_up = std::mem::replace(&mut self.is_up, both);
        Turn {
            input: match (was_up, both) {
                (false, true) => Some(Input::PeerUp {
                    peer,
                    near: self.near,
                }),
                (true, false) => Some(Input::PeerDown(peer)),
                _ => None,
            },
            then: both.then(|| self.waiting.take()).flatten(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([7; 32]);

    fn opened(call: u64) -> (News, mpsc::Receiver<Batch>) {
        let (batches, sent) = mpsc::channel(1);
        let news = News::Opened {
            peer: PEER,
            near: true,
            call,
            batches,
        };
        (news, sent)
    }

    fn heard(call: u64) -> (News, CancellationToken) {
        let stop = CancellationToken::new();
        let news = News::Heard {
            peer: PEER,
            call,
            up: oneshot::channel().0,
            stop: stop.clone(),
        };
        (news, stop)
    }

    fn is_up(turn: &Turn) -> Option<bool> {
        match turn.input {
            Some(Input::PeerUp { .. }) => Some(true),
            Some(Input::PeerDown(_)) => Some(false),
            _ => None,
        }
    }

    #[test]
    fn a_peer_is_up_while_both_directions_are_open_and_heard_only_then() {
        let mut peers = Peers::default();
        let turn = peers.take(heard(1).0);
        assert!(is_up(&turn).is_none() && turn.then.is_none());
        let turn = peers.take(opened(2).0);
        assert_eq!(is_up(&turn), Some(true));
        assert!(turn.then.is_some(), "now its batches count");
        let call = 1;
        let turn = peers.take(News::Unheard { peer: PEER, call });
        assert_eq!(is_up(&turn), Some(false));
        let turn = peers.take(heard(3).0);
        assert_eq!(is_up(&turn), Some(true));
        assert!(turn.then.is_some());
        let call = 2;
        let turn = peers.take(News::Closed { peer: PEER, call });
        assert_eq!(is_up(&turn), Some(false));
        let call = 3;
        let turn = peers.take(News::Unheard { peer: PEER, call });
        assert_eq!(is_up(&turn), None);
        assert!(peers.0.is_empty());
    }

    #[test]
    fn a_new_call_begins_anew_and_the_end_of_the_one_before_means_nothing() {
        let mut peers = Peers::default();
        peers.take(opened(1).0);
        let (first, stopped) = heard(2);
        peers.take(first);
        assert_eq!(
            is_up(&peers.take(opened(3).0)),
            Some(true),
            "told all again"
        );
        let call = 1;
        assert_eq!(is_up(&peers.take(News::Closed { peer: PEER, call })), None);
        assert_eq!(is_up(&peers.take(heard(4).0)), None);
        assert!(stopped.is_cancelled(), "one call of a peer is listened to");
        let call = 2;
        assert_eq!(is_up(&peers.take(News::Unheard { peer: PEER, call })), None);
    }

    #[test]
    fn what_a_call_has_no_room_for_is_told_so() {
        let mut peers = Peers::default();
        assert!(peers.send(&PEER, Batch::default()).is_none(), "no peer");
        let (news, mut sent) = opened(1);
        peers.take(news);
        assert!(peers.send(&PEER, Batch::default()).is_none());
        let beyond = peers.send(&PEER, Batch::default());
        assert!(matches!(beyond, Some(Input::Written(PEER))));
        assert!(sent.try_recv().is_ok() && sent.try_recv().is_err());
    }
}
