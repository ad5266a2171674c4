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
const ASK_AFTER: Duration = Duration::from_millis(100);
/// How long an answer holds.
const HOLDS: Duration = Duration::from_millis(100);
/// Shortest time that a peer has to answer: it may be busy, and what it is asked may be lost and sent anew.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);
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
async fn is_heard(
    call: impl Future<Output = ()>,
    has_come: impl Fn() -> bool,
    within: Duration,
) -> bool {
    let looks = async {
        for _ in 0..LOOKS {
            sleep(within / LOOKS).await;
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
    if is_heard(call, || connection.datagrams_received() != before, within).await {
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
    use tokio::time::advance;

    const WITHIN: Duration = Duration::from_millis(400);

    /// Asks a peer, whose answer is read at the look after `starved`, during which this node did not run.
    async fn asked(starved: Duration, answers_after: Duration) -> bool {
        let (received, began) = (Cell::new(false), Instant::now());
        // What came meanwhile is read in a turn after the one in which this node wakes.
        let reads = async {
            tokio::task::yield_now().await;
            advance(starved).await;
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep_until(began + answers_after).await;
            received.set(true);
            pending::<()>().await;
        };
        // However the call ends, and whenever.
        let call = sleep(WITHIN);
        tokio::select! {
            biased;
            heard = is_heard(call, || received.get(), WITHIN) => heard,
            () = reads => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_slept_itself_reads_what_came_before_it_takes_its_peer_for_dead() {
        for starved_ms in [0, 300, 400, 401, 2_000, 60_000] {
            let starved = Duration::from_millis(starved_ms);
            assert!(asked(starved, WITHIN / 2).await, "{starved:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_known_when_the_looks_are_over() {
        let began = Instant::now();
        assert!(!asked(Duration::ZERO, 2 * WITHIN).await);
        assert_eq!(began.elapsed(), WITHIN);
    }
}
