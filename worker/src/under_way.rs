//! Answers under way, by their jobs: the next owner of a job takes its answer over as it stands. [T-INF-15]
//!
//! An orchestrator that is lost leaves its answers at work here, and what it was told it never says.
//! Whoever has the job next orders the same answer behind what somebody got of it. To make that anew
//! would take as long as the first time, beside the one that nobody waits for any more; so the task
//! that has it gives it away, with all that it gave so far.
//!
//! * `told` – what was given so far, and how it is told to the next owner: pure

mod told;

use crate::engine::{Answer, EngineDone};
use crate::models::Served;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tether_wire::infer::WorkOrder;
use tether_wire::receipt::hash;
use tether_wire::{CorrelationId, Digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

pub(crate) use told::Given;

/// How long an answer is kept after its end: whoever got it may have been lost with it.
const KEPT: Duration = Duration::from_secs(3);
/// Most answers that are kept after their end; the bytes of each are bounded.
const MAX_KEPT: usize = 64;

/// An answer as it stands.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) served: Served,
    pub(crate) making: Making,
    /// Whether the engine turned to it, and the tokens of its prompt where the engine said so.
    pub(crate) begun: Option<Option<u32>>,
    /// Tokens that were given to whom it was begun for, and not drawn here.
    pub(crate) drawn_from: usize,
    pub(crate) given: Given,
}

/// Where an answer comes from.
#[derive(Debug)]
pub(crate) enum Making {
    /// The engine makes it. Dropping it cancels it there.
    Engine(Answer),
    /// It is whole.
    Ended(EngineDone),
}

/// All answers under way. Bounded by what is admitted, and what is kept.
#[derive(Debug)]
pub(crate) struct UnderWay {
    entries: Mutex<Entries>,
    kept: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Entries {
    by_job: HashMap<CorrelationId, Entry>,
    next_number: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    fence: u64,
    asked: Digest,
    takers: mpsc::Sender<Taker>,
}

/// Who takes an answer over; it is dropped by one that has nothing to give yet.
pub(crate) type Taker = oneshot::Sender<Standing>;

/// The place of an answer among those under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    under_way: Arc<UnderWay>,
    job: CorrelationId,
    number: u64,
    takers: mpsc::Receiver<Taker>,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            kept: Arc::new(Semaphore::new(MAX_KEPT)),
        }
    }
}

impl UnderWay {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An order was taken. It is the one that counts of its job.
    pub(crate) fn register(self: &Arc<Self>, order: &WorkOrder) -> Registered {
        let asked = asked(order);
        let (takers, receiver) = mpsc::channel(1);
        let mut entries = self.entries();
        let number = entries.next_number;
        entries.next_number += 1;
        let entry = Entry {
            number,
            fence: order.fence,
            asked,
            takers,
        };
        entries.by_job.insert(order.correlation, entry);
        Registered {
            under_way: self.clone(),
            job: order.correlation,
            number,
            takers: receiver,
        }
    }

    /// What a former owner's order of the same job came to. That one ends with this, whether it can be
    /// gone on from or not: nobody waits for it any more. An owner's own next attempt takes nothing over:
    /// it gave up the one before.
    pub(crate) async fn take(&self, order: &WorkOrder) -> Option<Standing> {
        let (takers, is_same) = {
            let entries = self.entries();
            let entry = entries.by_job.get(&order.correlation)?;
            if entry.fence >= order.fence {
                return None;
            }
            (entry.takers.clone(), entry.asked == asked(order))
        };
        let (taker, standing) = oneshot::channel();
        takers.try_send(taker).ok()?;
        standing.await.ok().filter(|_| is_same)
    }

    /// Keeps an answer that ended, for one who comes for it soon.
    pub(crate) fn keep(&self, mut registered: Registered, standing: Standing) {
        let Ok(permit) = self.kept.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let _permit: OwnedSemaphorePermit = permit;
            if let Ok(taker) = timeout(KEPT, registered.taker()).await {
                // Who is gone needs it no more.
                let _ = taker.send(standing);
            }
        });
    }
}

impl Registered {
    /// Waits for the next owner. Cancel-safe.
    pub(crate) async fn taker(&mut self) -> Taker {
        match self.takers.recv().await {
            Some(taker) => taker,
            // Another order has its place, whose taker is not this one's.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut entries = self.under_way.entries();
        let entry = entries.by_job.get(&self.job);
        if entry.is_some_and(|entry| entry.number == self.number) {
            entries.by_job.remove(&self.job);
        }
    }
}

/// What is asked for: two orders with the same are for the same answer.
fn asked(order: &WorkOrder) -> Digest {
    let seed = order.sampling.seed.unwrap_or_default();
    let request = hash::request(&order.input, &order.sampling, &order.output, seed);
    Digest::of(&[order.digest.0, request.0].concat())
}
