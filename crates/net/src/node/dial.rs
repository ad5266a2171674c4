//! Links that this node dials: resolve, connect, greet.

use super::{Inner, bar, run};
use crate::clock::now_ms;
use crate::error::LinkError;
use crate::link::greeting::{self, GreetingError};
use crate::link::rivals::Origin;
use crate::link::{Admitted, Link, LinkEvent};
use crate::rendezvous::Resolved;
use crate::transport::{CloseCode, ConnectError};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tether_wire::link::{Refusal, RefusalCode, admit};
use tether_wire::{NodeId, Role};

/// How long a dial that was refused as a duplicate waits for the link that the peer keeps.
const OTHER_LINK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a quiet link of the same run of a peer that has just answered may take to be heard
/// again: two keep-alives. What is open on it would be lost with it.
const COMEBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the addresses of one record may take to answer: then a newer record is looked for. Far
/// shorter than the silence that a link survives.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

type Dial = Shared<BoxFuture<'static, Result<Link, LinkError>>>;

/// Dials under way, so that concurrent callers share one.
#[derive(Default)]
pub(super) struct Dials {
    by_peer: Mutex<HashMap<NodeId, Dial>>,
}

impl Dials {
    /// The dial to a peer that is under way.
    pub(super) fn under_way(&self, peer: &NodeId) -> Option<Dial> {
        self.by_peer().get(peer).cloned()
    }

    fn by_peer(&self) -> MutexGuard<'_, HashMap<NodeId, Dial>> {
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dials a peer, or waits for the dial that is under way. It goes on when its callers are gone.
pub(super) async fn shared(node: &Arc<Inner>, peer: NodeId) -> Result<Link, LinkError> {
    let dial = {
        let mut dials = node.dials.by_peer();
        match dials.get(&peer) {
            Some(dial) => dial.clone(),
            None => {
                let task = node.tasks.spawn(dial(node.clone(), peer));
                let dial = async { task.await.unwrap_or(Err(LinkError::Shutdown)) };
                let dial = dial.boxed().shared();
                dials.insert(peer, dial.clone());
                dial
            }
        }
    };
    dial.await
}

/// Forgets a dial when it ends, however it ends: whoever asks from then on dials anew, unless there
/// is a link.
struct UnderWay<'a> {
    dials: &'a Dials,
    peer: NodeId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.dials.by_peer().remove(&self.peer);
    }
}

async fn dial(node: Arc<Inner>, peer: NodeId) -> Result<Link, LinkError> {
    let timeout = node.limits.dial_timeout;
    let _under_way = UnderWay {
        dials: &node.dials,
        peer,
    };
    let dialled = tokio::select! {
        dialled = tokio::time::timeout(timeout, attempt(&node, peer)) => dialled,
        () = node.stop.cancelled() => Ok(Err(LinkError::Shutdown)),
    };
    let dialled = dialled.unwrap_or(Err(LinkError::Timeout { peer, timeout }));
    dialled.or_else(|error| {
        tracing::debug!(%peer, %error, "no link");
        // The one that was quiet may be heard again.
        let old = node.links.get(&peer).filter(|link| !link.is_quiet());
        old.ok_or(error)
    })
}

async fn attempt(node: &Arc<Inner>, peer: NodeId) -> Result<Link, LinkError> {
    let unreachable = |why: String| LinkError::Unreachable { peer, why };
    // There is one only where it is quiet.
    let old = node.links.get(&peer);
    let resolved = node.rendezvous.resolve(peer, None).await;
    let resolved = resolved.map_err(|error| unreachable(error.to_string()))?;
    let resolved = resolved.ok_or(LinkError::NotFound(peer))?;
    match connect(node, peer, &resolved, old.as_ref()).await {
        Err(LinkError::Unreachable { why, .. }) => {
            // The record may be an old one: the DHT gives the first it finds, not the newest.
            match node.rendezvous.resolve(peer, Some(resolved.seq)).await {
                Ok(Some(newer)) => connect(node, peer, &newer, old.as_ref()).await,
                _ => Err(unreachable(why)),
            }
        }
        Err(LinkError::Refused(refusal)) if refusal.code == RefusalCode::Busy => {
            match other_link(node, peer).await {
                Some(link) => Ok(link),
                None => Err(LinkError::Refused(refusal)),
            }
        }
        dialled => dialled,
    }
}

async fn connect(
    node: &Arc<Inner>,
    peer: NodeId,
    to: &Resolved,
    old: Option<&Link>,
) -> Result<Link, LinkError> {
    let busy = |why: String| Refusal::new(RefusalCode::Busy, why);
    (node.config.members.current().check_key(&peer)).map_err(LinkError::Rejected)?;
    if let Some(old) = old
        && old.is_quiet()
        && old.has_moved(&to.record.addresses)
    {
        // The transport sends what is for a peer where it is linked already: to where nobody is.
        old.close("its peer is somewhere else now");
    }
    let place = node
        .gate
        .leave_home()
        .map_err(|full| LinkError::Rejected(busy(full.to_string())))?;
    let connection = node.endpoint.connect(peer, &to.record);
    let connection = tokio::time::timeout(CONNECT_TIMEOUT, connection).await;
    let connection = connection.unwrap_or_else(|_| {
        let ms = CONNECT_TIMEOUT.as_millis();
        Err(ConnectError::Failed(format!("no answer within {ms} ms")))
    });
    let connection = connection.map_err(|error| match error {
        ConnectError::Version(why) => LinkError::Version { peer, why },
        ConnectError::Busy => LinkError::Refused(busy("it takes no more links from here".into())),
        ConnectError::Failed(why) => LinkError::Unreachable { peer, why },
    })?;
    let metrics = &node.config.metrics;
    let timeout = node.limits.greeting_timeout;
    let greeted = tokio::time::timeout(timeout, greeting::dial(&connection, &node.hello())).await;
    let greeted = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => {
            connection.close(CloseCode::Done, "");
            return Err(match error {
                GreetingError::RefusedByPeer(mut refusal) => {
                    metrics.refused_by_peer(refusal.code.as_str());
                    if let Some(control) = refusal.revocation.take() {
                        // It counts wherever it comes from, and where it is wrong, it does not.
                        node.config.members.hear(peer, vec![control]).await;
                    }
                    LinkError::Refused(refusal)
                }
                GreetingError::Malformed(refusal) => {
                    metrics.refused(refusal.code.as_str());
                    LinkError::Rejected(refusal)
                }
                GreetingError::Lost(why) => LinkError::Unreachable { peer, why },
            });
        }
        Err(_) => {
            connection.close(CloseCode::Refused, "no answer to the greeting");
            return Err(LinkError::Timeout { peer, timeout });
        }
    };
    let (config, hello) = (&node.config, &greeted.hello);
    let members = config.members.current();
    let admitted = match admit(&members, &config.accept, peer, hello, now_ms()) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            metrics.refused(refusal.code.as_str());
            connection.close(CloseCode::Refused, &refusal.message);
            return Err(LinkError::Rejected(refusal));
        }
    };
    if admitted.role == Role::Orchestrator
        && let Some(address) = hello.observed
    {
        // Nobody else is believed: what is published is where strangers then send datagrams.
        node.endpoint.observed_by(peer, address).await;
    }
    let origin = Origin {
        dialled_here: true,
        peer_boot: hello.boot,
    };
    if let Some(old) = old
        && comes_back(old, origin).await
    {
        connection.close(CloseCode::Duplicate, "the link that was quiet is kept");
        return Ok(old.clone());
    }
    if let Err(refusal) = bar::learn(node, hello.grant.as_deref()).await {
        metrics.refused(refusal.code.as_str());
        connection.close(CloseCode::Refused, &refusal.message);
        return Err(LinkError::Rejected(refusal));
    }
    let link = Link::new(
        Admitted::new(admitted, hello.clone()),
        connection,
        origin,
        to.record.addresses.clone(),
        node.limits.clone(),
        metrics.clone(),
        node.look.clone(),
    );
    match run::install(node, link, place) {
        Ok(link) => {
            greeted.confirm();
            Ok(link)
        }
        Err(kept) => Ok(kept),
    }
}

/// Whether a link that was quiet is heard again, now that the same run of its peer has answered: a
/// peer that was starved has lost nothing, and must not lose its calls to a new link either.
async fn comes_back(old: &Link, new: Origin) -> bool {
    if old.origin().peer_boot != new.peer_boot {
        return false;
    }
    let _ = tokio::time::timeout(COMEBACK_TIMEOUT, old.until_lively()).await;
    old.is_up() && !old.is_quiet()
}

/// The link that the peer keeps instead of ours: it is there already, or will be in a moment.
async fn other_link(node: &Inner, peer: NodeId) -> Option<Link> {
    let mut events = node.links.events();
    let appears = async {
        loop {
            if let Some(link) = node.links.get(&peer) {
                return Some(link);
            }
            match events.recv().await {
                Ok(LinkEvent::Up(up)) if up.id == peer => return node.links.get(&peer),
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
            }
        }
    };
    let appeared = tokio::time::timeout(OTHER_LINK_TIMEOUT, appears).await;
    appeared.ok().flatten()
}
