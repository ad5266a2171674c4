//! Pushing over one `presence` call. The callee gets the card with the first beat that names it, and
//! again when it asks. [T-PUS-1] to [T-PUS-4]

use super::compose::Sealed;
use crate::link::Link;
use std::sync::Arc;
use tether_wire::codec;
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::spread::{Push, PushReply};
use tether_wire::{Digest, beat::Order};
use tokio::sync::{mpsc, watch};

/// Most bytes of an answer to a push.
const MAX_REPLY_BYTES: usize = 1_024;

/// What was pushed over one call. Pure.
#[derive(Debug, Default)]
struct Pushed {
    card: Option<Digest>,
    order: Option<Order>,
}

impl Pushed {
    /// The next push; nothing where this beat was pushed already.
    fn push(&mut self, sealed: &Sealed) -> Option<Push> {
        if self.order >= Some(sealed.order) {
            return None;
        }
        self.order = Some(sealed.order);
        let is_known = self.card.replace(sealed.digest) == Some(sealed.digest);
        Some(Push {
            beat: sealed.beat.as_bytes().to_vec(),
            card: (!is_known).then(|| sealed.card.as_bytes().to_vec()),
        })
    }

    /// The callee answers; whether it is to get a beat with the card now.
    fn replied(&mut self, reply: PushReply) -> bool {
        if reply.wants_card {
            self.card = None;
        }
        reply.wants_card
    }
}

pub(super) async fn run(
    link: Link,
    mut sealed: watch::Receiver<Option<Arc<Sealed>>>,
    wishes: mpsc::Sender<()>,
    mut on_push: impl FnMut(),
) -> Result<(), RpcError> {
    let mut pushed = Pushed {
        card: None,
        // What is sealed now was seen by others, and may not be the first here.
        order: sealed.borrow_and_update().as_ref().map(|it| it.order),
    };
    let mut call = link.call(method::PRESENCE, None, &[]).await?;
    // A full channel already holds a wish.
    let _ = wishes.try_send(());
    let quiet = link.until_quiet();
    tokio::pin!(quiet);
    let unavailable = |why| RpcError::new(Code::Unavailable, why);
    loop {
        tokio::select! {
            changed = sealed.changed() => {
                if changed.is_err() && sealed.borrow().as_ref().is_none_or(|it| !it.is_goodbye) {
                    return Ok(());
                }
            }
            () = &mut quiet => return Err(unavailable("nothing is heard of the orchestrator")),
            reply = call.next() => {
                let reply = reply?.ok_or_else(|| unavailable("the orchestrator ended the call"))?;
                let reply: PushReply = codec::decode("answer to a push", &reply, MAX_REPLY_BYTES)
                    .map_err(|error| RpcError::new(Code::Internal, error.to_string()))?;
                if pushed.replied(reply) {
                    let _ = wishes.try_send(());
                }
                continue;
            }
        }
        let Some(newest) = sealed.borrow_and_update().clone() else {
            continue;
        };
        if let Some(push) = pushed.push(&newest) {
            call.send(&codec::encode(&push)).await?;
            on_push();
        }
        if newest.is_goodbye {
            call.finish_sending().await;
            // Its end says that it was heard; answers before it do not matter any more.
            while let Ok(Some(_)) = call.next().await {}
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compose::tests::{composer, told};
    use super::super::compose::{Composer, Load};
    use super::*;
    use std::net::SocketAddr;
    use tether_wire::beat::NodeState;

    fn next(composer: &mut Composer, port: u16) -> Sealed {
        let at = [SocketAddr::from(([127, 0, 0, 1], port))];
        composer
            .compose(&told(NodeState::Serving), &at, Load::default(), 1, [0; 16])
            .expect("inside limits")
    }

    #[test]
    fn the_card_comes_with_the_first_beat_that_names_it_and_with_no_other() {
        let (mut composer, mut pushed) = (composer(), Pushed::default());
        let mut has_card = |port| {
            let sealed = next(&mut composer, port);
            let push = pushed.push(&sealed).expect("a new beat");
            assert_eq!(push.beat, sealed.beat.as_bytes());
            if let Some(card) = &push.card {
                assert_eq!(Digest::of(card), sealed.digest);
            }
            push.card.is_some()
        };
        let cards = [1, 1, 1, 2, 2, 1].map(&mut has_card);
        assert_eq!(cards, [true, false, false, true, false, true]);
    }

    #[test]
    fn who_wants_the_card_gets_it_whole_with_the_next_beat() {
        let (mut composer, mut pushed) = (composer(), Pushed::default());
        pushed.push(&next(&mut composer, 1)).expect("a new beat");
        assert!(!pushed.replied(PushReply { wants_card: false }));
        let push = pushed.push(&next(&mut composer, 1)).expect("a new beat");
        assert_eq!(push.card, None);
        assert!(pushed.replied(PushReply { wants_card: true }));
        let sealed = next(&mut composer, 1);
        let push = pushed.push(&sealed).expect("a new beat");
        assert_eq!(push.card.as_deref(), Some(sealed.card.as_bytes()));
    }

    #[test]
    fn no_beat_is_pushed_twice() {
        let (mut composer, mut pushed) = (composer(), Pushed::default());
        let sealed = next(&mut composer, 1);
        assert!(pushed.push(&sealed).is_some());
        assert!(pushed.push(&sealed).is_none());
    }
}
