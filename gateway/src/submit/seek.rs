//! Which orchestrator is asked for an answer, and which one goes on with it. [T-LNK-5] [T-INF-13]
//!
//! An orchestrator whose link breaks is lost, and so is one of which nothing is heard where there is
//! another. Then another is looked for, or the same one once it is back, for as long as the patience
//! allows, with the same correlation id, so that the work is known to be the same. Before the answer
//! has begun that ends after a few: what kills whoever takes it is not carried to all. One that cannot
//! go on is asked again only when all others were asked: it may just be back, and know no worker yet.
//!
//! Where an orchestrator is unavailable one other is asked, once: a request that fails wherever it comes
//! is not carried to all either. One that stops, or was just started and may not know all workers yet,
//! says so, and does not count as that one.
//!
//! In which order they are asked, [`Way`] says: by the key of a request that has one, else by how its
//! prompt begins.

use super::decode;
use crate::orchestrators::{Orchestrators, UnderWay, Way};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tether_net::{Call, Link};
use tether_wire::infer::{AnswerEvent, InferRequest, MAX_LOST, Resume, Started};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{NodeId, codec};
use tokio::time::Instant;

/// How long a failed call waits to learn whether its whole link is gone.
const LINK_LOSS_GRACE: Duration = Duration::from_millis(100);
/// How often another orchestrator is looked for while the one that answers is quiet.
const LOOK: Duration = Duration::from_millis(100);
/// Longest pause before all orchestrators are asked again.
const PAUSE_MS: u64 = 250;
/// An orchestrator that is lost so soon after it was asked may have been lost by what it was asked.
const SOON: Duration = Duration::from_secs(2);
/// Most orchestrators that a request may lose like that before its answer begins.
const MAX_LOST_SOON: usize = 3;
/// How often in a row one is asked since another one named it. Two may name each other.
const MAX_FOLLOWED: u32 = 4;

/// What is asked, and of whom it was.
pub(super) struct Seeker {
    orchestrators: Arc<Orchestrators>,
    request: InferRequest,
    /// In which order they are asked.
    way: Way,
    /// Counts it where it is.
    under_way: Option<UnderWay>,
    by: Instant,
    patience: Duration,
    /// Lost to this request, the last one last.
    lost: Vec<NodeId>,
    /// Asked before the answer began.
    asked: Vec<NodeId>,
    /// Asked in this round of a search. No more than there are links.
    round: Vec<NodeId>,
    /// Why one was unavailable before the answer began.
    refusal: Option<RpcError>,
    /// Those that stop, or were just started.
    untried: Vec<NodeId>,
    has_begun: bool,
    /// How often one was asked since another one named it, without a piece that came.
    followed: u32,
    /// When the last one was asked, and how many were lost soon after.
    asked_at: Instant,
    lost_soon: usize,
    /// Until when one is looked for that goes on, while none was found.
    seeking_until: Option<Instant>,
}

impl Seeker {
    pub(super) fn new(
        orchestrators: Arc<Orchestrators>,
        request: InferRequest,
        timeout: Duration,
        patience: Duration,
    ) -> Self {
        Self {
            orchestrators,
            way: Way::of(&request),
            under_way: None,
            request,
            by: Instant::now() + timeout,
            patience,
            lost: Vec::new(),
            asked: Vec::new(),
            round: Vec::new(),
            refusal: None,
            untried: Vec::new(),
            has_begun: false,
            followed: 0,
            asked_at: Instant::now(),
            lost_soon: 0,
            seeking_until: None,
        }
    }

    /// Asks the first one that takes a call.
    pub(super) async fn first(&mut self) -> Result<Call, RpcError> {
        let why = "No orchestrator can be reached now.";
        let nobody = RpcError::new(Code::Unavailable, why);
        self.next_unasked(nobody, None).await
    }

    /// Asks another one after a call failed; an error is what the caller is to be told.
    pub(super) async fn another(
        &mut self,
        link: &Link,
        error: RpcError,
        started: Option<Started>,
    ) -> Result<Call, RpcError> {
        let link = link.clone();
        let peer = link.peer().id;
        let is_lost = is_lost(&link, &error).await;
        tracing::warn!(%peer, %error, is_lost, "no answer from this orchestrator");
        if error.code == Code::Elsewhere {
            return self.follow(&link, error, started).await;
        }
        if is_lost {
            self.lose(peer);
            self.lost_soon += usize::from(self.asked_at.elapsed() < SOON);
            if !self.has_begun && self.lost_soon > MAX_LOST_SOON {
                return Err(error);
            }
            return self.seek(error, started).await;
        }
        // Who has been given nothing may come again, and is told so at once.
        let is_shed = error.code == Code::Overloaded && !self.has_begun;
        if self.seeking_until.is_some() && may_pass(error.code) && !is_shed {
            return self.seek(error, started).await;
        }
        match self.refusal.take() {
            // They share their jobs, and the first one had the request.
            Some(refusal) if error.code == Code::Conflict => Err(refusal),
            refusal if !self.has_begun && self.may_be_elsewhere(peer, &error) => {
                self.untried.push(peer);
                self.refusal = refusal;
                let told = self.refusal.clone().unwrap_or(error);
                self.next_unasked(told, started).await
            }
            None if error.code == Code::Unavailable && !self.has_begun => {
                self.refusal = Some(error.clone());
                self.next_unasked(error, started).await
            }
            _ => Err(error),
        }
    }

    /// The next one that was not asked yet, in the order in which a request that comes again asks.
    async fn next_unasked(
        &mut self,
        mut error: RpcError,
        started: Option<Started>,
    ) -> Result<Call, RpcError> {
        for link in self.orchestrators.ranked(&self.way) {
            let peer = link.peer().id;
            if self.asked.contains(&peer) {
                continue;
            }
            self.asked.push(peer);
            match self.ask(&link, started.clone()).await {
                Ok(call) => return Ok(call),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// Another one has the request, by the word of one that was asked.
    async fn follow(
        &mut self,
        link: &Link,
        error: RpcError,
        started: Option<Started>,
    ) -> Result<Call, RpcError> {
        let owner = (error.param.as_deref()).and_then(|id| id.parse::<NodeId>().ok());
        let named = owner.filter(|_| self.followed < MAX_FOLLOWED);
        let links = self.orchestrators.ranked(&self.way);
        let to = links.into_iter().find(|it| Some(it.peer().id) == named);
        let Some(to) = to else {
            // Nobody here can reach it, or it was named too often: who is told so takes the request
            // over. Where none is named the one that was asked stops, or lost the request to somebody
            // that it does not know.
            self.lose(owner.unwrap_or(link.peer().id));
            return self.seek(error, started).await;
        };
        self.followed += 1;
        match self.ask(&to, started.clone()).await {
            Err(failed) if may_pass(failed.code) => {
                self.lose(to.peer().id);
                self.seek(failed, started).await
            }
            asked => asked,
        }
    }

    /// Asks one after the other, again and again, until one goes on or the patience is over.
    async fn seek(
        &mut self,
        mut error: RpcError,
        started: Option<Started>,
    ) -> Result<Call, RpcError> {
        let mut changes = self.orchestrators.watch();
        let patience = Instant::now() + self.patience;
        let by = self.by.min(*self.seeking_until.get_or_insert(patience));
        loop {
            let links = self.orchestrators.ranked(&self.way);
            let ids = links.iter().map(|link| link.peer().id);
            let next = next_in_round(ids, &self.lost, &self.round);
            let link = links.iter().find(|link| Some(link.peer().id) == next);
            let Some(link) = link else {
                self.round.clear();
                let ms = rand::rng().random_range(PAUSE_MS / 2..=PAUSE_MS);
                tokio::select! {
                    () = tokio::time::sleep_until(by) => return Err(error),
                    // A link that comes is asked at once.
                    _ = changes.changed() => {}
                    () = tokio::time::sleep(Duration::from_millis(ms)) => {}
                }
                continue;
            };
            self.round.push(link.peer().id);
            match self.ask(link, started.clone()).await {
                Ok(call) => return Ok(call),
                Err(failed) if !may_pass(failed.code) => return Err(failed),
                Err(failed) => {
                    tracing::info!(peer = %link.peer().id, error = %failed, "it does not go on");
                    error = failed;
                }
            }
        }
    }

    /// A new piece came: the answer has begun, or goes on.
    pub(super) fn found(&mut self) {
        self.has_begun = true;
        self.followed = 0;
        self.round.clear();
        if self.seeking_until.take().is_some() {
            let after_ms = self.asked_at.elapsed().as_millis();
            tracing::info!(after_ms, "the answer goes on elsewhere");
        }
    }

    /// Submits the request to one of them.
    async fn ask(&mut self, link: &Link, started: Option<Started>) -> Result<Call, RpcError> {
        let mut request = self.request.clone();
        if started.is_some() || !self.lost.is_empty() {
            request.resume = Some(Resume {
                lost: self.lost.clone(),
                started,
            });
        }
        self.under_way = Some(self.orchestrators.occupy(link.peer().id));
        self.asked_at = Instant::now();
        let left = self.by.saturating_duration_since(Instant::now());
        let body = codec::encode(&request);
        drop(request);
        let mut call = link.call(method::SUBMIT, Some(left), &body).await?;
        call.finish_sending().await;
        Ok(call)
    }

    /// Whether a refusal says nothing of what others know. Nobody's second one, since one that has the
    /// request may be named again and again; and after the first that a model is not known neither.
    fn may_be_elsewhere(&self, peer: NodeId, error: &RpcError) -> bool {
        let may = match error.code {
            Code::Unavailable => error.untried,
            Code::NotFound => !self.untried.is_empty(),
            _ => false,
        };
        may && !self.untried.contains(&peer)
    }

    fn lose(&mut self, orchestrator: NodeId) {
        self.lost.retain(|it| *it != orchestrator);
        if self.lost.len() == MAX_LOST {
            self.lost.remove(0);
        }
        self.lost.push(orchestrator);
    }

    /// Whether there is another one than this that is not in doubt.
    fn has_other(&self, link: &Link) -> bool {
        let links = self.orchestrators.ranked(&self.way);
        links.iter().any(|it| it.peer().id != link.peer().id)
    }
}

/// The next event of a call; nothing at its end. Dropping the future loses nothing.
pub(super) async fn event(
    call: &mut Call,
    seeker: &Seeker,
) -> Result<Option<AnswerEvent>, RpcError> {
    let link = call.link().clone();
    let doubted = async {
        while link.is_up() {
            link.until_unanswered().await;
            // One that is heard again is in doubt no more.
            while link.is_up() && link.is_quiet() {
                if seeker.has_other(&link) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    };
    let item = tokio::select! {
        biased;
        item = call.next() => item?,
        () = doubted => {
            let why = "nothing is heard of the orchestrator";
            return Err(RpcError::new(Code::Unavailable, why));
        }
    };
    item.map(|bytes| decode(&bytes)).transpose()
}

/// Whether a refusal may be over a moment later, or elsewhere.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Overloaded | Code::Elsewhere | Code::NotFound | Code::Cancelled
    )
}

/// Whether the link is gone, or as good as gone. The error of a call may come a moment before that
/// of its link; what only an orchestrator says is passed on without waiting.
async fn is_lost(link: &Link, error: &RpcError) -> bool {
    if !link.is_up() || link.is_quiet() {
        return true;
    }
    let closed = tokio::time::timeout(LINK_LOSS_GRACE, link.closed());
    may_be_its_link(error) && closed.await.is_ok()
}

/// Whether a call whose link breaks may end with this.
fn may_be_its_link(error: &RpcError) -> bool {
    let may = matches!(
        error.code,
        Code::Unavailable | Code::Cancelled | Code::Internal | Code::Unknown
    );
    may && error.retry_after_ms.is_none()
}

/// Who is asked next in a round of a search, of those that are linked, the best first: whoever was not
/// asked in it. One that was lost may be back, and comes last. Pure.
fn next_in_round(
    linked: impl Iterator<Item = NodeId>,
    lost: &[NodeId],
    round: &[NodeId],
) -> Option<NodeId> {
    let mut left: Vec<NodeId> = linked.filter(|id| !round.contains(id)).collect();
    left.sort_by_key(|id| lost.contains(id));
    left.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_asked_once_in_a_round_and_those_that_were_lost_last() {
        let [one, two, three] = [1, 2, 3].map(|n| NodeId([n; 32]));
        let next = |round: &[NodeId]| next_in_round([one, two, three].into_iter(), &[one], round);
        assert_eq!(next(&[]), Some(two));
        assert_eq!(next(&[two]), Some(three));
        assert_eq!(next(&[two, three]), Some(one));
        assert_eq!(next(&[one, two, three]), None);
    }
}
