//! The pool at work: a lease is a request's hold on a model, given back when it is dropped.

use crate::models::observe::Observer;
use crate::models::pool::{Amount, Asked, Effect, LeaseId, Need, Pool, Room};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

/// The pool of a worker's models. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Leases(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    began: Instant,
    /// Something happened, so that the pool may wake at another time.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    waiters: BTreeMap<LeaseId, oneshot::Sender<Result<(), String>>>,
    /// Into how many processes each model should be loaded, 0 where it should not be; its keeper
    /// follows.
    targets: Vec<watch::Sender<u32>>,
    /// Why each can never be loaded, as things are.
    unfit: Vec<watch::Sender<Option<String>>>,
    /// Who looks at each model's memory.
    observers: Vec<Option<Arc<Observer>>>,
}

/// A request's hold on a model: while it is held the model stays, once it is there.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    id: LeaseId,
    model: usize,
    turn: Option<oneshot::Receiver<Result<(), String>>>,
}

impl Leases {
    pub(crate) fn new(pool: Pool, models: usize) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                pool,
                waiters: BTreeMap::new(),
                targets: (0..models).map(|_| watch::Sender::new(0)).collect(),
                unfit: (0..models).map(|_| watch::Sender::new(None)).collect(),
                observers: vec![None; models],
            }),
            began: Instant::now(),
            changed: Notify::new(),
        }))
    }

    /// Into how many processes a model should be loaded, as that changes; 0 means not at all.
    pub(crate) fn target(&self, model: usize) -> watch::Receiver<u32> {
        self.with(|state, _| (state.targets[model].subscribe(), Vec::new()))
    }

    /// Why a model can never be loaded, as that changes.
    pub(crate) fn unfit(&self, model: usize) -> watch::Receiver<Option<String>> {
        self.with(|state, _| (state.unfit[model].subscribe(), Vec::new()))
    }

    /// Holds a model.
    ///
    /// # Errors
    /// Why it is not loaded for now.
    pub(crate) fn ask(&self, model: usize) -> Result<Lease, String> {
        let asked = self.with(|state, now_ms| {
            let (asked, effects) = state.pool.ask(model, now_ms);
            let lease = |id, turn| Lease {
                leases: self.clone(),
                id,
                model,
                turn,
            };
            let asked = match asked {
                Asked::Ready(id) => Ok(lease(id, None)),
                Asked::Waits(id) => {
                    let (waiter, turn) = oneshot::channel();
                    state.waiters.insert(id, waiter);
                    Ok(lease(id, Some(turn)))
                }
                Asked::Refused(why) => Err(why),
            };
            (asked, effects)
        });
        // Who waits may be let in by nothing but time.
        self.0.changed.notify_one();
        asked
    }

    pub(crate) fn know(&self, model: usize, need: Need) {
        self.tell(|pool, now_ms| pool.know(model, need, now_ms));
    }

    pub(crate) fn forget(&self, model: usize, reason: &str) {
        self.tell(|pool, now_ms| pool.forget(model, reason, now_ms));
    }

    pub(crate) fn loaded(&self, model: usize, load_ms: u64) {
        self.tell(|pool, now_ms| pool.loaded(model, load_ms, now_ms));
    }

    pub(crate) fn observed(&self, model: usize, memory: &Room) {
        self.tell(|pool, now_ms| pool.observed(model, memory.clone(), now_ms));
    }

    /// Whom to ask what a model takes, whenever an answer of it ends.
    pub(super) fn observe_by(&self, model: usize, observer: &Arc<Observer>) {
        let observer = Some(observer.clone());
        self.with(|state, _| (state.observers[model] = observer, Vec::new()));
    }

    pub(crate) fn failed(&self, model: usize, reason: &str, retry: Duration) {
        let retry_ms = ms(retry);
        self.tell(|pool, now_ms| pool.failed(model, reason, retry_ms, now_ms));
    }

    pub(crate) fn gave_up(&self, model: usize, reason: &str, retry: Duration) {
        let retry_ms = ms(retry);
        self.with(|state, now_ms| {
            state.targets[model].send_replace(0);
            ((), state.pool.gave_up(model, reason, retry_ms, now_ms))
        });
        self.0.changed.notify_one();
    }

    pub(crate) fn unloaded(&self, model: usize) {
        self.tell(|pool, now_ms| pool.unloaded(model, now_ms));
    }

    /// What a model is charged, and all that is spoken for.
    pub(crate) fn memory(&self, model: usize) -> (Amount, Amount) {
        self.with(|state, _| {
            let pool = &state.pool;
            ((pool.takes(model), pool.used()), Vec::new())
        })
    }

    /// Wakes the pool when it has to be.
    pub(crate) async fn run(self) {
        loop {
            let changed = self.0.changed.notified();
            let wakes_at = self.with(|state, now_ms| (state.pool.wakes_at_ms(now_ms), Vec::new()));
            let sleep = async {
                match wakes_at {
                    Some(at) => {
                        tokio::time::sleep_until(self.0.began + Duration::from_millis(at)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = sleep => self.tell(Pool::tick),
            }
        }
    }

    fn tell(&self, event: impl FnOnce(&mut Pool, u64) -> Vec<Effect>) {
        self.with(|state, now_ms| ((), event(&mut state.pool, now_ms)));
        self.0.changed.notify_one();
    }

    fn with<T>(&self, change: impl FnOnce(&mut State, u64) -> (T, Vec<Effect>)) -> T {
        let state = self.0.state.lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let now_ms = ms(self.0.began.elapsed());
        let (result, effects) = change(&mut state, now_ms);
        for effect in effects {
            match effect {
                Effect::Load(model, processes) => {
                    state.targets[model].send_replace(processes);
                }
                Effect::Unload(model) => drop(state.targets[model].send_replace(0)),
                Effect::Ready(lease) => state.told(lease, Ok(())),
                Effect::Refuse(lease, why) => state.told(lease, Err(why)),
                Effect::Unfit(model, why) => drop(state.unfit[model].send_replace(why)),
            }
        }
        result
    }
}

impl State {
    fn told(&mut self, lease: LeaseId, what: Result<(), String>) {
        if let Some(waiter) = self.waiters.remove(&lease) {
            // Who is gone gives the lease back by its own drop.
            let _ = waiter.send(what);
        }
    }
}

impl Lease {
    /// Whether the model is there already.
    pub(crate) fn is_ready(&self) -> bool {
        self.turn.is_none()
    }

    /// Waits until the model is there.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    pub(crate) async fn ready(&mut self) -> Result<(), String> {
        let Some(turn) = &mut self.turn else {
            return Ok(());
        };
        let told = turn.await;
        told.unwrap_or_else(|_| Err("the worker stops".to_owned()))?;
        self.turn = None;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (id, model) = (self.id, self.model);
        let observer = self
            .leases
            .with(|state, _| (state.observers[model].clone(), Vec::new()));
        // Before the pool is held, and before it decides by what the model took once.
        let seen = observer.and_then(|observer| observer.look());
        self.leases.with(|state, now_ms| {
            state.waiters.remove(&id);
            let corrected = seen.map(|memory| state.pool.observed(model, memory, now_ms));
            let mut effects = corrected.unwrap_or_default();
            effects.extend(state.pool.release(id, now_ms));
            ((), effects)
        });
        self.leases.0.changed.notify_one();
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::pool::Limits;

    #[tokio::test]
    async fn who_waits_for_nothing_but_time_is_let_in_when_it_has_passed() {
        let limits = Limits {
            memory: 100.into(),
            accelerators: Vec::new(),
            adapters: 0,
            idle_ms: 0,
        };
        let leases = Leases::new(Pool::new(limits, 2), 2);
        let need = || Need {
            memory: 60.into(),
            ..Need::default()
        };
        leases.know(0, need());
        leases.know(1, need());
        // It took a moment to load, so it stays for one.
        leases.loaded(0, 300);
        let mut target = leases.target(0);
        let running = tokio::spawn(leases.clone().run());
        for _ in 0..10 {
            // On this one thread it has come to rest by then.
            tokio::task::yield_now().await;
        }
        let lease = leases.ask(1).expect("it fits when the other one is gone");
        assert!(!lease.is_ready());
        let gives_way = target.wait_for(|processes| *processes == 0);
        let gives_way = tokio::time::timeout(Duration::from_secs(20), gives_way).await;
        assert!(gives_way.is_ok_and(|told| told.is_ok()), "nobody woke up");
        running.abort();
    }
}
