//! Who goes next into an engine that has fewer places than requests: answers that go on first, whose
//! callers have been given some of them and wait for the next piece, then new ones; of each the one that
//! came first. (SCH-8)

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The places of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    free: usize,
    going_on: VecDeque<oneshot::Sender<Turn>>,
    new: VecDeque<oneshot::Sender<Turn>>,
}

/// A place; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Turn(Option<Turns>);

impl Turns {
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Places {
            free: places,
            going_on: VecDeque::new(),
            new: VecDeque::new(),
        })))
    }

    /// Waits for a place. Dropping the future gives up the wait, or the place.
    pub(crate) async fn next(&self, goes_on: bool) -> Turn {
        let (give, given) = oneshot::channel();
        {
            let mut places = self.places();
            if places.free > 0 {
                places.free -= 1;
                return Turn(Some(self.clone()));
            }
            if goes_on {
                places.going_on.push_back(give);
            } else {
                places.new.push_back(give);
            }
        }
        // The sender is dropped only when the place was given, or with all places.
        given.await.unwrap_or(Turn(None))
    }

    /// Gives a place to the next who still waits.
    fn give_back(&self) {
        loop {
            let next = {
                let mut places = self.places();
                let next = (places.going_on.pop_front()).or_else(|| places.new.pop_front());
                if next.is_none() {
                    places.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                // Who gave up the wait is passed over, and the place goes to who comes next.
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn answers_that_go_on_go_first_and_each_kind_in_its_order() {
        let turns = Turns::new(1);
        let first = turns.next(false).await;
        let mut waiting = Vec::new();
        for (name, goes_on) in [("a", false), ("b", true), ("c", false), ("d", true)] {
            let mut next = turns.next(goes_on).boxed();
            assert!((&mut next).now_or_never().is_none(), "{name}");
            waiting.push((name, next));
        }
        let (mut order, mut turn) = (String::new(), Some(first));
        while !waiting.is_empty() {
            drop(turn.take());
            let mut looked = waiting.iter_mut().enumerate();
            let found = looked.find_map(|(at, (_, next))| Some((at, next.now_or_never()?)));
            let (at, given) = found.expect("somebody is next");
            turn = Some(given);
            order += waiting.remove(at).0;
        }
        assert_eq!(order, "bdac");
        drop(turn);
        assert_eq!(turns.places().free, 1);
    }

    #[tokio::test]
    async fn who_gives_up_loses_no_place_neither_waiting_nor_just_when_it_is_given() {
        let turns = Turns::new(1);
        let first = turns.next(false).await;
        let mut waits = Box::pin(turns.next(true));
        assert!(waits.as_mut().now_or_never().is_none());
        let mut given = Box::pin(turns.next(false));
        assert!(given.as_mut().now_or_never().is_none());
        drop(waits);
        drop(first);
        // It has the place, and has not looked.
        assert_eq!(turns.places().free, 0);
        drop(given);
        assert_eq!(turns.places().free, 1);
        let again = turns.next(true).now_or_never();
        assert!(again.is_some());
    }
}
