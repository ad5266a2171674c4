//! Asking a peer whether it is there. [T-LNK-5]
//!
//! Keep-alives tell of a dead peer after two seconds. Who waits for an answer may ask: a peer that lives
//! says something at once, and from one that says nothing the link is quiet. However many wait on a
//! link, it is asked by one of them at a time, and not again for a while once it was heard.

use super::Link;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use std::sync::PoisonError;
use std::time::Duration;
use tether_wire::rpc::method;
use tokio::time::{Instant, sleep};

/// How long nothing is awaited before a peer is asked.
const ASK_AFTER: Duration = Duration::from_millis(150);
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
    asking: Option<WeakShared<BoxFuture<'static, bool>>>,
    heard: Option<Instant>,
}

impl Link {
    /// Waits until it is quiet or down, and asks the peer again and again whether it is there, so that
    /// one that is dead is known by that, sooner than by its silence.
    pub async fn until_unanswered(&self) {
        let asking = async {
            loop {
                sleep(ASK_AFTER).await;
                self.is_answered().await;
            }
        };
        tokio::select! {
            biased;
            () = self.until_quiet() => {}
            () = asking => {}
        }
    }

    /// Asks the peer whether it is there; where nothing is heard of it, the link is quiet.
    async fn is_answered(&self) -> bool {
        let asking = {
            let mut ping = self
                .inner
                .ping
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if ping.heard.is_some_and(|at| at.elapsed() < HOLDS) {
                return true;
            }
            let under_way = ping.asking.as_ref().and_then(WeakShared::upgrade);
            under_way.unwrap_or_else(|| {
                let asking: Shared<BoxFuture<'static, bool>> = ask(self.clone()).boxed().shared();
                ping.asking = asking.downgrade();
                asking
            })
        };
        asking.await
    }
}

/// Whether anything is heard of the peer once it was asked.
async fn ask(link: Link) -> bool {
    let connection = &link.inner.connection;
    let before = connection.datagrams_received();
    let within = ANSWER_WITHIN.max(connection.round_trip() * ROUND_TRIPS);
    let call = async {
        // Even an error is an answer.
        if let Ok(mut call) = link.call(method::PING, Some(within), &[]).await {
            call.finish_sending().await;
            let _ = call.next().await;
        }
    };
    let looks = async {
        for _ in 0..LOOKS {
            sleep(within / LOOKS).await;
            if connection.datagrams_received() != before {
                break;
            }
        }
    };
    tokio::select! {
        () = call => {}
        () = looks => {}
    }
    let is_heard = connection.datagrams_received() != before;
    if is_heard {
        let mut ping = link
            .inner
            .ping
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ping.heard = Some(Instant::now());
    } else if link.is_up() {
        link.unanswered(before);
    }
    is_heard
}
