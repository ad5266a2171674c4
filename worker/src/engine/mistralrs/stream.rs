//! mistral.rs's end of an answer: drained at once, ignored, and dropped to stop the sequence.
//!
//! Dropping is noticed when the engine sends its next response, in the same step if it is done while
//! the step is being computed; so the one who chooses the last token drops it, and no step is wasted.

use mistralrs::Response;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// How it ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// We closed it.
    Closed,
    /// The engine failed.
    Failed(RpcError),
    /// The engine ended it; the last token may be part of a character, then nothing is said.
    EndedEarly,
}

#[derive(Debug)]
struct State {
    receiver: Option<Receiver<Response>>,
    waiting: Option<Waker>,
}

/// A handle of it.
#[derive(Clone, Debug)]
pub(super) struct Stream(Arc<Mutex<State>>);

impl Stream {
    /// With the sender that the engine is given.
    pub(super) fn new(capacity: usize) -> (Sender<Response>, Self) {
        let (sender, receiver) = channel(capacity);
        let state = State {
            receiver: Some(receiver),
            waiting: None,
        };
        (sender, Self(Arc::new(Mutex::new(state))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the sequence.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.receiver = None;
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
    }

    /// Drains until it ends.
    pub(super) async fn drain(&self) -> Outcome {
        let outcome = poll_fn(|context| {
            let mut state = self.state();
            state.waiting = Some(context.waker().clone());
            let Some(receiver) = &mut state.receiver else {
                return Poll::Ready(Outcome::Closed);
            };
            loop {
                match receiver.poll_recv(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(Outcome::EndedEarly),
                    Poll::Ready(Some(response)) => {
                        if let Some(error) = failure(&response) {
                            return Poll::Ready(Outcome::Failed(error));
                        }
                    }
                }
            }
        })
        .await;
        self.close();
        outcome
    }
}

fn failure(response: &Response) -> Option<RpcError> {
    match response {
        Response::InternalError(error) => Some(RpcError::new(Code::Internal, error.to_string())),
        Response::ValidationError(error) => Some(RpcError::new(Code::Invalid, error.to_string())),
        Response::ModelError(error, _) | Response::CompletionModelError(error, _) => {
            Some(RpcError::new(Code::Internal, error.clone()))
        }
        _ => None,
    }
}
