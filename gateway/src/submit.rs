//! A request on its way to an orchestrator, and its answer on the way back.

use crate::answer::{Piece, Progress};
use crate::orchestrators::Orchestrators;
use crate::problem::Problem;
use axum::http::StatusCode;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::time::{Duration, Instant};
use tether_net::{Call, Link};
use tether_wire::codec;
use tether_wire::infer::{Accepted, AnswerEvent, InferRequest, MAX_EVENT_BYTES, MAX_REQUEST_BYTES};
use tether_wire::rpc::{Code, RpcError, method};

/// How long a failed call waits to learn whether its whole link is gone.
const LINK_LOSS_GRACE: Duration = Duration::from_millis(100);

/// How long a whole answer's call is given to end by itself.
const END_GRACE: Duration = Duration::from_secs(1);

/// An answer that has begun. Dropping it cancels it, all the way to the engine.
pub(crate) struct Answer {
    events: BoxStream<'static, Result<AnswerEvent, RpcError>>,
    progress: Progress,
}

/// An answer that has begun, with what came first.
pub(crate) struct Begun {
    pub(crate) accepted: Accepted,
    pub(crate) first: Piece,
    pub(crate) answer: Answer,
}

impl Answer {
    fn new(call: Call, logprobs: bool) -> Self {
        let events = stream::unfold(Some(call), |call| async move {
            let mut call = call?;
            match call.next().await {
                Ok(None) => None,
                Ok(Some(bytes)) => match codec::decode("answer event", &bytes, MAX_EVENT_BYTES) {
                    Ok(event) => Some((Ok(event), Some(call))),
                    Err(error) => {
                        let error = RpcError::new(Code::Internal, error.to_string());
                        Some((Err(error), None))
                    }
                },
                Err(error) => Some((Err(error), None)),
            }
        });
        Self {
            events: events.boxed(),
            progress: Progress::new(logprobs),
        }
    }

    /// The next piece. After the end or an error it is not to be asked again. Losing interest in
    /// the future and asking anew loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Piece, RpcError> {
        loop {
            match self.events.next().await {
                Some(event) => {
                    if let Some(piece) = self.progress.take(event?)? {
                        if let Piece::Done(_) = piece {
                            self.let_end();
                        }
                        return Ok(piece);
                    }
                }
                None => {
                    self.progress.ended()?;
                    return Err(RpcError::new(Code::Internal, "the answer is over"));
                }
            }
        }
    }

    /// Hears the end of the call, which follows the end of the answer: a call that is dropped
    /// before counts as cancelled. Nobody waits for it.
    fn let_end(&mut self) {
        let mut events = std::mem::replace(&mut self.events, stream::empty().boxed());
        tokio::spawn(async move {
            // An orchestrator that never ends the call is no reason to hold it.
            let _ = tokio::time::timeout(END_GRACE, events.next()).await;
        });
    }
}

/// Submits a request and waits for the first piece of its answer.
///
/// A link that breaks or becomes quiet before anything was received is no answer: another
/// orchestrator is asked, with the same correlation id, so that the work is known to be the same.
/// So is one other, once, where an orchestrator is unavailable: it may be alone in that it stops, or
/// in what it tried, but a request that fails wherever it comes is not carried to all. All of them
/// together have the `timeout`. Once the answer has begun it is kept while the link is up. [T-LNK-5]
pub(crate) async fn submit(
    orchestrators: &Orchestrators,
    request: InferRequest,
    timeout: Duration,
) -> Result<Begun, Problem> {
    let body = codec::encode(&request);
    let correlation = request.correlation;
    let logprobs = request.sampling.top_logprobs.is_some();
    // It may wait for long, and once is enough to hold a prompt.
    drop(request);
    if body.len() > MAX_REQUEST_BYTES {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("The request has more than {MAX_REQUEST_BYTES} bytes."),
        ));
    }
    let mut problem = Problem::unavailable("No orchestrator can be reached now.");
    let (began, mut was_refused) = (Instant::now(), false);
    for link in orchestrators.ranked(&correlation) {
        let left = timeout.saturating_sub(began.elapsed());
        let error = match ask(&link, &body, logprobs, left).await {
            Ok(begun) => return Ok(begun),
            // They share their jobs, and the first one had the request.
            Err(error) if was_refused && error.code == Code::Conflict => return Err(problem),
            Err(error) if error.code == Code::Unavailable => error,
            Err(error) => return Err(error.into()),
        };
        tracing::warn!(peer = %link.peer().id, %error, "no answer began at this orchestrator");
        problem = error.into();
        let is_left = link.is_up() && !link.is_quiet();
        if is_left && was_refused && !is_lost(&link).await {
            break;
        }
        was_refused |= is_left;
    }
    Err(problem)
}

async fn ask(
    link: &Link,
    body: &[u8],
    logprobs: bool,
    timeout: Duration,
) -> Result<Begun, RpcError> {
    let mut call = link.call(method::SUBMIT, Some(timeout), body).await?;
    call.finish_sending().await;
    let mut answer = Answer::new(call, logprobs);
    let first = tokio::select! {
        biased;
        first = answer.next() => first?,
        () = link.until_quiet() => {
            let why = "nothing is heard of the orchestrator";
            return Err(RpcError::new(Code::Unavailable, why));
        }
    };
    let accepted = answer.progress.accepted().cloned();
    let accepted = accepted.ok_or_else(|| RpcError::new(Code::Internal, "no worker is named"))?;
    Ok(Begun {
        accepted,
        first,
        answer,
    })
}

/// Whether the link is gone, or as good as gone. The error of a call may come a moment before that
/// of its link.
async fn is_lost(link: &Link) -> bool {
    !link.is_up()
        || link.is_quiet()
        || tokio::time::timeout(LINK_LOSS_GRACE, link.closed())
            .await
            .is_ok()
}
