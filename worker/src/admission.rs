//! The quota at work: a permit is a slot, given back when it is dropped.

use crate::engine::Hold;
use crate::quota::{Admission, Claim, Limits, Quota, Ticket};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::Digest;
use tokio::sync::{Notify, oneshot};

/// How many run and how many wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that run.
    pub running: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
}

/// The worker's slots. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    metrics: Arc<WorkerMetrics>,
    departures: Notify,
}

#[derive(Debug)]
struct State {
    quota: Quota,
    wakers: BTreeMap<Ticket, oneshot::Sender<()>>,
}

/// A place that was given; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    slots: Slots,
    ticket: Ticket,
    turn: Option<oneshot::Receiver<()>>,
    is_leaving: bool,
}

impl Slots {
    pub(crate) fn new(limits: Limits, metrics: Arc<WorkerMetrics>) -> Self {
        let state = State {
            quota: Quota::new(limits),
            wakers: BTreeMap::new(),
        };
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                metrics,
                departures: Notify::new(),
            }),
        }
    }

    /// A place at work or in the queue; nothing when both are full.
    pub(crate) fn admit(&self, claim: &Claim) -> Option<Place> {
        self.change(|state| {
            let (ticket, turn) = match state.quota.admit(claim) {
                Admission::Run(ticket) => (ticket, None),
                Admission::Wait(ticket) => {
                    let (waker, turn) = oneshot::channel();
                    state.wakers.insert(ticket, waker);
                    (ticket, Some(turn))
                }
                Admission::Shed => return None,
            };
            Some(Place {
                slots: self.clone(),
                ticket,
                turn,
                is_leaving: false,
            })
        })
    }

    /// A model is loaded: who waited for it may run.
    pub(crate) fn open(&self, model: &Digest, model_slots: u32) {
        self.change(|state| {
            let started = state.quota.open(model, model_slots);
            state.wake(started);
        });
    }

    pub(crate) fn load(&self) -> Load {
        self.change(|state| Load {
            running: state.quota.running(),
            waiting: state.quota.waiting(),
        })
    }

    /// Waits until a caller went whose request is still at work, such a request gave its place back, or
    /// one that waited gave up. Whoever gave the order counts it as gone since its caller went, and
    /// knows of those who wait only what it was told, so only this worker knows. However many go, it
    /// is told once. For one who waits.
    pub(crate) async fn departure(&self) {
        self.inner.departures.notified().await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let (running, waiting) = (state.quota.running(), state.quota.waiting());
        self.inner.metrics.in_flight().set(i64::from(running));
        self.inner.metrics.queued().set(i64::from(waiting));
        result
    }
}

impl State {
    fn wake(&mut self, started: Vec<Ticket>) {
        for ticket in started {
            if let Some(waker) = self.wakers.remove(&ticket) {
                // Who is gone meanwhile gives the place back by its own drop.
                let _ = waker.send(());
            }
        }
    }
}

impl Place {
    /// Waits until it is at work.
    pub(crate) async fn turn(&mut self) {
        if let Some(turn) = &mut self.turn {
            // The waker is dropped unused only together with this place.
            let _ = turn.await;
            self.turn = None;
        }
    }
}

impl Hold for Place {
    fn leaving(&mut self) {
        self.is_leaving = true;
        self.slots.inner.departures.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ticket = self.ticket;
        self.slots.change(|state| {
            state.wakers.remove(&ticket);
            let started = state.quota.leave(ticket);
            state.wake(started);
        });
        // Whoever has a turn left had not begun to work.
        if self.is_leaving || self.turn.is_some() {
            self.slots.inner.departures.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn claim() -> Claim {
        Claim {
            tenant: tether_wire::TenantId::new("a").expect("valid"),
            model: tether_wire::Digest([1; 32]),
            model_slots: 4,
            goes_on: false,
        }
    }

    #[tokio::test]
    async fn the_queue_moves_up_when_a_place_is_dropped() {
        let limits = Limits {
            slots: 1,
            queue: 2,
            per_tenant: 0,
        };
        let registry = tether_telemetry::metrics::Registry::default();
        let slots = Slots::new(limits, WorkerMetrics::register(&registry));
        let claim = claim();
        let mut first = slots.admit(&claim).expect("a slot");
        first.turn().await;
        let impatient = slots.admit(&claim).expect("the queue");
        let mut patient = slots.admit(&claim).expect("the queue");
        assert!(slots.admit(&claim).is_none(), "both are full");
        let load = |running, waiting| Load { running, waiting };
        assert_eq!(slots.load(), load(1, 2));
        drop(impatient);
        drop(first);
        patient.turn().await;
        assert_eq!(slots.load(), load(1, 0));
        drop(patient);
        assert_eq!(slots.load(), load(0, 0));
    }

    #[tokio::test]
    async fn a_request_that_outlives_its_call_is_told_when_it_begins_to_and_when_it_is_gone() {
        let limits = Limits {
            slots: 1,
            queue: 0,
            per_tenant: 0,
        };
        let registry = tether_telemetry::metrics::Registry::default();
        let slots = Slots::new(limits, WorkerMetrics::register(&registry));
        let told = || slots.departure().now_or_never().is_some();
        drop(slots.admit(&claim()).expect("a slot"));
        assert!(!told(), "whoever gave the order knows");
        let mut place = slots.admit(&claim()).expect("a slot");
        place.leaving();
        assert!(told() && !told());
        assert_eq!(slots.load().running, 1);
        drop(place);
        assert!(told() && !told());
        assert_eq!(slots.load().running, 0);
    }

    #[tokio::test]
    async fn the_queue_is_told_as_shorter_when_those_who_wait_give_up() {
        let limits = Limits {
            slots: 1,
            queue: 3,
            per_tenant: 0,
        };
        let registry = tether_telemetry::metrics::Registry::default();
        let slots = Slots::new(limits, WorkerMetrics::register(&registry));
        let told = || slots.departure().now_or_never().is_some();
        let first = slots.admit(&claim()).expect("a slot");
        let waiting = [(); 3].map(|()| slots.admit(&claim()).expect("the queue"));
        assert!(!told());
        let [mut patient, impatient @ ..] = waiting;
        drop(impatient);
        assert_eq!(slots.load().waiting, 1);
        assert!(told() && !told(), "once for all that went together");
        drop(first);
        patient.turn().await;
        drop(patient);
        assert!(!told(), "whoever gave the order knows");
    }
}
