//! Asking a peer whether it is there. [T-LNK-5]
//!
//! Keep-alives tell of a dead peer after two seconds. Who waits for an answer may ask: a peer that lives
//! says something at once, and from one that says nothing the link is quiet. However many wait on a
//! link, it is asked by one of them at a time, and not again for a while once it was heard.

use super::Link;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use std::future::{Future, pending};
use std::sync::PoisonError;
use std::time::Duration;
use tether_wire::rpc::method;
use tokio::time::{Instant, sleep};

/// How often whoever waits looks whether something has come; where nothing has, the peer is asked.
const ASK_AFTER: Duration = Duration::from_millis(50);
/// How long an answer holds.
const HOLDS: Duration = Duration::from_millis(100);
/// Shortest time that a peer has to answer: it may be busy, and what it is asked may be lost and sent anew.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// At least as many round trips.
const ROUND_TRIPS: u32 = 4;
/// Looks for an answer in that time. They are counted, not the time: a node that was starved itself
/// has not heard the answer either.
const LOOKS: u32 = 16;

/// Whether the peer of one link is there.
#[derive(Default)]
pub(super) struct Ping {
    /// While it is asked.
    asking: Option<WeakShared<BoxFuture<'static, ()>>>,
    heard: Option<Instant>,
}

impl Link {
    /// Waits until it is quiet or down. Whenever nothing comes the peer is asked whether it is there, so
    /// that one that is dead is known sooner than by its silence.
    pub fn until_unanswered(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let link = self.clone();
        async move {
            let asking = async {
                let received = || link.inner.connection.datagrams_received();
                let mut before = received();
                loop {
                    sleep(ASK_AFTER).await;
                    if received() == before {
                        link.asked().await;
                    }
                    before = received();
                }
            };
            tokio::select! {
                biased;
                () = link.until_quiet() => {}
                () = asking => {}
            }
        }
    }

    /// Asks the peer whether it is there; where nothing is heard of it, the link is quiet.
    async fn asked(&self) {
        let asking = {
            let mut ping = self
                .inner
                .ping
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if ping.heard.is_some_and(|at| at.elapsed() < HOLDS) {
                return;
            }
            let under_way = ping.asking.as_ref().and_then(WeakShared::upgrade);
            under_way.unwrap_or_else(|| {
                let asking: Shared<BoxFuture<'static, ()>> = ask(self.clone()).boxed().shared();
                ping.asking = asking.downgrade();
                asking
            })
        };
        asking.await;
    }
}

/// Whether something has come before the looks are over. Nothing else ends the wait: of a call that is
/// over, in whatever way, what came is still to be seen.
async fn is_heard<P: Future<Output = ()>>(
    call: impl Future<Output = ()>,
    pause: impl Fn() -> P,
    has_come: impl Fn() -> bool,
) -> bool {
    let looks = async {
        for _ in 0..LOOKS {
            pause().await;
            if has_come() {
                return true;
            }
        }
        false
    };
    tokio::select! {
        heard = looks => heard,
        () = call.then(|()| pending()) => false,
    }
}

/// Asks, and waits until anything is heard of the peer, for as long as that may take.
async fn ask(link: Link) {
    let connection = &link.inner.connection;
    let before = connection.datagrams_received();
    let within = ANSWER_WITHIN.max(connection.round_trip() * ROUND_TRIPS);
    let call = async {
        // It has no time of its own, and even an error is an answer.
        if let Ok(mut call) = link.call(method::PING, None, &[]).await {
            call.finish_sending().await;
            let _ = call.next().await;
        }
    };
    let pause = || sleep(within / LOOKS);
    if is_heard(call, pause, || connection.datagrams_received() != before).await {
        let mut ping = link
            .inner
            .ping
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ping.heard = Some(Instant::now());
    } else if link.is_up() {
        link.unanswered(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::ready;
    use tokio::task::yield_now;

    /// Whether a peer is heard whose words are seen at a look, and how many looks there were.
    async fn heard_at(look: u32, call: impl Future<Output = ()>) -> (bool, u32) {
        let looks = Cell::new(0);
        let pause = || async {
            yield_now().await;
            looks.set(looks.get() + 1);
        };
        let heard = is_heard(call, pause, || looks.get() == look).await;
        (heard, looks.get())
    }

    #[tokio::test]
    async fn a_node_that_slept_itself_reads_what_came_before_it_takes_its_peer_for_dead() {
        // When it wakes, its call has been over for long, and nothing was read yet.
        for look in 1..=LOOKS {
            assert_eq!(heard_at(look, ready(())).await, (true, look));
        }
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_known_when_the_looks_are_over() {
        for call in [ready(()).boxed(), pending().boxed()] {
            assert_eq!(heard_at(LOOKS + 1, call).await, (false, LOOKS));
        }
    }
}
