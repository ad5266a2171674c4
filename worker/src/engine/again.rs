//! A request whose process ended before anything of the answer was given: another process of the same
//! engine takes it up, and who asked notices nothing but the time.
//!
//! It waits until one that answers has room, for as long as somebody waits for the answer and one of
//! them answers at all. What it occupies it keeps meanwhile. It may be what ended its process, so it
//! is given to another one once: the second process that ends with it is its own fault.

use crate::engine::board::{Board, Room};
use crate::engine::handle::Line;
use crate::engine::protocol::Generate;
use crate::engine::reader::Sink;
use std::sync::Arc;
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Processes that end with a request until it counts as what ended them.
const MOST_ENDED: u32 = 2;

/// A request on its way to a process.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) generate: Generate,
    pub(super) sink: Sink,
    pub(super) tries: Tries,
}

/// What became of a request so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tries {
    /// Processes that ended while they had it.
    ended: u32,
    /// How often it came to a process that was not there any more.
    missed: u32,
}

/// Where requests go that lost their process. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Again {
    pub(super) board: Arc<Board>,
    pub(super) lines: Arc<[Line]>,
    pub(super) stop: CancellationToken,
}

impl Tries {
    /// Its process ended while it had it. Whether another may have it.
    fn ended(&mut self) -> bool {
        self.ended += 1;
        self.ended < MOST_ENDED
    }

    /// It came too late to a process, one of so many. Whether another may have it.
    fn missed(&mut self, processes: usize) -> bool {
        self.missed += 1;
        usize::try_from(self.missed).is_ok_and(|missed| missed <= processes)
    }
}

impl Again {
    /// Whether there can be another process than the one that ends.
    pub(super) fn is_possible(&self) -> bool {
        self.lines.len() > 1
    }

    /// Gives requests to others that a process had when it ended, for the reason of `error`. Returns
    /// how many.
    pub(super) fn take_up(&self, requests: Vec<Request>, error: &RpcError) -> usize {
        let mut taken = 0;
        for mut request in requests {
            if request.tries.ended() {
                taken += 1;
                self.give(request, error.clone());
            } else {
                request.sink.fail(error.clone());
            }
        }
        taken
    }

    /// Gives a request to another that never reached the process it was for, for the reason of
    /// `error`.
    pub(super) fn pass_on(&self, mut request: Request, error: RpcError) {
        if request.tries.missed(self.lines.len()) {
            self.give(request, error);
        } else {
            request.sink.fail(error);
        }
    }

    /// In a task of its own: a request may wait for room. There are at most as many as were admitted.
    fn give(&self, mut request: Request, error: RpcError) {
        request.sink.occupied.leave_place();
        tokio::spawn(self.clone().find(request, error));
    }

    async fn find(self, mut request: Request, error: RpcError) {
        loop {
            let changed = self.board.changed();
            tokio::pin!(changed);
            // Before it is looked, so that no change is missed.
            changed.as_mut().enable();
            match self.board.room() {
                Room::Free(place) => {
                    let line = &self.lines[place.process()];
                    request.sink.occupied.sit(place);
                    if let Err(not_sent) = line.requests.try_send(request) {
                        let (mpsc::error::TrySendError::Full(request)
                        | mpsc::error::TrySendError::Closed(request)) = not_sent;
                        request.sink.fail(error);
                    }
                    return;
                }
                Room::None => return request.sink.fail(error),
                Room::Full => {}
            }
            tokio::select! {
                () = changed => {}
                // What it occupies is given back.
                () = request.sink.reader.gone() => return,
                () = self.stop.cancelled() => {
                    let why = RpcError::new(Code::Unavailable, "the engine was stopped");
                    return request.sink.fail(why);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_given_to_another_process_once_after_one_ended_with_it() {
        let mut tries = Tries::default();
        assert!(tries.ended(), "it may have been chance");
        assert!(!tries.ended(), "it ends whatever has it");
    }

    #[test]
    fn a_request_that_comes_too_late_everywhere_is_not_passed_round_for_ever() {
        let mut tries = Tries::default();
        let passed = (0..100).filter(|_| tries.missed(3)).count();
        assert_eq!(passed, 3);
        assert!(tries.ended(), "no process has ended with it");
    }
}
