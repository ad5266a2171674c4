//! The `spread` calls among orchestrators: batches out and in. What they mean decides
//! [`tether_presence::Spread`]. (PRE-5) [T-SPR-1]
//!
//! With each orchestrator that this one is linked with, whoever dialled, it opens one call, and
//! takes the peer's. A batch that comes is sifted by the keeper, verified on a thread that may
//! block, and then given to the keeper; only then the next one is read, so that a peer is held up
//! by its own batches alone.

use super::intake::Intake;
use super::peers::{News, Peers, Turn};
use crate::clock;
use crate::fleet::keeper::{Fleet, Outgoing};
use serde_bytes::ByteBuf;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tether_net::{Incoming, Link, Members, Node, redial_pause};
use tether_presence::spread::ROOM;
use tether_presence::{Input, Signatures};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::spread::{Batch, MAX_BATCH_BYTES};
use tether_wire::{NodeId, Role, codec};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How often links are looked at beside what is told of them: events can be missed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// News of calls that wait to be taken at most; calls wait beyond.
const MAX_NEWS: usize = 256;

/// Serves `spread` calls.
pub(crate) struct Spreading {
    members: Members,
    fleet: Fleet,
    news: mpsc::Sender<News>,
    calls: AtomicU64,
    /// Batches that are verified at once.
    threads: Semaphore,
}

impl Spreading {
    /// What is told of calls goes to [`run`].
    pub(crate) fn new(members: Members, fleet: Fleet) -> (Arc<Self>, mpsc::Receiver<News>) {
        let (news, told) = mpsc::channel(MAX_NEWS);
        let spreading = Self {
            members,
            fleet,
            news,
            calls: AtomicU64::new(0),
            threads: Semaphore::new(super::parallelism()),
        };
        (Arc::new(spreading), told)
    }

    async fn tell(&self, news: News) {
        // Nobody listens once the orchestrator ends.
        let _ = self.news.send(news).await;
    }

    fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes batches until the peer ends the call, or opens another.
    pub(crate) async fn serve(self: Arc<Self>, mut call: Incoming) -> Result<(), RpcError> {
        let peer = call.peer().clone();
        if peer.role != Role::Orchestrator {
            let why = format!("a {} spreads nothing", peer.role);
            return Err(RpcError::new(Code::Forbidden, why));
        }
        let (peer, number) = (peer.id, self.next_call());
        let (up, is_up) = oneshot::channel();
        let stop = CancellationToken::new();
        self.tell(News::Heard {
            peer,
            call: number,
            up,
            stop: stop.clone(),
        })
        .await;
        let result = tokio::select! {
            result = self.hear(&mut call, peer, is_up) => result,
            () = stop.cancelled() => {
                Err(RpcError::new(Code::Conflict, "another call took its place"))
            }
        };
        let call = number;
        self.tell(News::Unheard { peer, call }).await;
        result
    }

    async fn hear(
        &self,
        call: &mut Incoming,
        peer: NodeId,
        is_up: oneshot::Receiver<()>,
    ) -> Result<(), RpcError> {
        tokio::select! {
            _ = is_up => {}
            () = call.cancelled() => return Err(RpcError::new(Code::Cancelled, "given up")),
        }
        while let Some(item) = call.recv(MAX_BATCH_BYTES).await? {
            let mut batch = Batch::decode(&item)
                .map_err(|error| RpcError::new(Code::Invalid, error.to_string()))?;
            self.learn(peer, std::mem::take(&mut batch.controls)).await;
            let Some(sifted) = self.fleet.sift(batch).await else {
                return Ok(());
            };
            let members = self.members.current();
            let verifier = Signatures { members };
            let batch = if sifted.costs() == 0 {
                sifted.verify(&verifier, clock::now().unix_ms)
            } else {
                // Neither is ever closed while calls are served.
                let _thread = self.threads.acquire().await;
                let verify = move || sifted.verify(&verifier, clock::now().unix_ms);
                match tokio::task::spawn_blocking(verify).await {
                    Ok(batch) => batch,
                    Err(_) => return Ok(()),
                }
            };
            self.fleet.tell(Input::Batch { from: peer, batch }).await;
        }
        Ok(())
    }

    /// Takes control messages before what comes with them, so that a card is judged by them. What
    /// counts reaches the fleet by way of [`super::controls`].
    async fn learn(&self, peer: NodeId, controls: Vec<ByteBuf>) {
        if controls.is_empty() {
            return;
        }
        let controls = controls.into_iter().map(ByteBuf::into_vec).collect();
        let heard = self.members.hear(peer, controls).await;
        if heard.news > 0 {
            tracing::info!(%peer, news = heard.news, "who belongs to the mesh has changed");
        }
        if heard.shed > 0 {
            tracing::debug!(%peer, shed = heard.shed, "too many control messages at once");
        }
        if let Some(error) = heard.refused {
            tracing::warn!(%peer, %error, "control messages are not taken");
        }
    }

    /// Speaks on a link for as long as it is up.
    async fn speak(self: Arc<Self>, link: Link, near: bool) {
        let peer = link.peer().id;
        let mut failures = 0;
        loop {
            let call = self.next_call();
            let end = self.say(&link, near, call).await;
            self.tell(News::Closed { peer, call }).await;
            failures += 1;
            if let Err(error) = end {
                tracing::debug!(%peer, %error, failures, "a call to a peer ended");
            }
            tokio::select! {
                () = tokio::time::sleep(redial_pause(failures)) => {}
                _ = link.closed() => return,
            }
        }
    }

    async fn say(&self, link: &Link, near: bool, number: u64) -> Result<(), RpcError> {
        let peer = link.peer().id;
        let mut call = link.call(method::SPREAD, None, &[]).await?;
        let (batches, mut next) = mpsc::channel(ROOM);
        self.tell(News::Opened {
            peer,
            near,
            call: number,
            batches,
        })
        .await;
        loop {
            tokio::select! {
                batch = next.recv() => {
                    let Some(batch) = batch else { return Ok(()) };
                    call.send(&codec::encode(&batch)).await?;
                    self.fleet.tell(Input::Written(peer)).await;
                }
                // Nothing is answered but its end.
                end = call.next() => if end?.is_none() { return Ok(()) },
            }
        }
    }
}

/// Keeps calls to all orchestrators that there are links with, and carries batches, until `stop`.
pub(crate) async fn run(
    spreading: Arc<Spreading>,
    intake: Arc<Intake>,
    node: Node,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut news: mpsc::Receiver<News>,
    stop: CancellationToken,
) {
    let mut events = node.events();
    let mut speakers: HashMap<NodeId, (Link, AbortOnDropHandle<()>)> = HashMap::new();
    let mut peers = Peers::default();
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = true;
    loop {
        for peer in look
            .then(|| speak_on(&spreading, &node, &mut speakers))
            .into_iter()
            .flatten()
        {
            if let Some(input) = peers.lost(peer).input {
                spreading.fleet.tell(input).await;
            }
        }
        look = false;
        let turn = tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {
                look = true;
                Turn::default()
            }
            event = events.recv() => {
                // Where some were missed, what is true now counts.
                look = event.map_or(true, |event| event.peer().role == Role::Orchestrator);
                Turn::default()
            }
            Some(news) = news.recv() => peers.take(news),
            next = outgoing.recv() => match next {
                None => return,
                Some(Outgoing::Send { to, batch }) => Turn {
                    input: peers.send(&to, *batch),
                    then: None,
                },
                Some(Outgoing::WantCard(node)) => {
                    intake.ask(&node);
                    Turn::default()
                }
            },
        };
        if let Some(input) = turn.input {
            spreading.fleet.tell(input).await;
        }
        if let Some(then) = turn.then {
            // Its call may be over.
            let _ = then.send(());
        }
    }
}

/// One speaker for each link with an orchestrator; those whose link gave way to another.
fn speak_on(
    spreading: &Arc<Spreading>,
    node: &Node,
    speakers: &mut HashMap<NodeId, (Link, AbortOnDropHandle<()>)>,
) -> Vec<NodeId> {
    let mut replaced = Vec::new();
    speakers.retain(|_, (_, task)| !task.is_finished());
    for link in node.links() {
        let peer = link.peer();
        if peer.role != Role::Orchestrator || !link.is_up() {
            continue;
        }
        if (speakers.get(&peer.id)).is_some_and(|(known, _)| known.is_same(&link)) {
            continue;
        }
        let near = peer.region == *node.region();
        let task = tokio::spawn(spreading.clone().speak(link.clone(), near));
        let task = AbortOnDropHandle::new(task);
        let id = link.peer().id;
        if speakers.insert(id, (link, task)).is_some() {
            replaced.push(id);
        }
    }
    replaced
}
