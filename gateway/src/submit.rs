//! A request on its way to an orchestrator, and its answer on the way back.
//!
//! * `seek` – which orchestrator is asked, and which one goes on when that is lost

mod seek;

use crate::answer::{Piece, Progress};
use crate::orchestrators::Orchestrators;
use crate::problem::Problem;
use axum::http::StatusCode;
use seek::Seeker;
use std::sync::Arc;
use std::time::Duration;
use tether_net::Call;
use tether_wire::codec;
use tether_wire::infer::{Accepted, AnswerEvent, InferRequest, MAX_EVENT_BYTES, MAX_REQUEST_BYTES};
use tether_wire::rpc::{Code, RpcError};

/// How long a whole answer's call is given to end by itself.
const END_GRACE: Duration = Duration::from_secs(1);

/// An answer that has begun. Dropping it cancels it, all the way to the engine.
pub(crate) struct Answer {
    /// Nothing once it is whole.
    call: Option<Call>,
    progress: Progress,
    /// By whom it goes on when its orchestrator is lost.
    seeker: Seeker,
}

/// An answer that has begun, with what came first.
pub(crate) struct Begun {
    pub(crate) accepted: Accepted,
    pub(crate) first: Piece,
    pub(crate) answer: Answer,
}

impl Answer {
    /// The next piece. After the end or an error it is not to be asked again. Dropping the future and
    /// asking anew loses nothing but time.
    pub(crate) async fn next(&mut self) -> Result<Piece, RpcError> {
        loop {
            let Some(call) = &mut self.call else {
                self.progress.ended()?;
                return Err(RpcError::new(Code::Internal, "the answer is over"));
            };
            let event = match seek::event(call, &self.seeker).await {
                Ok(Some(event)) => event,
                Ok(None) => {
                    self.call = None;
                    continue;
                }
                Err(error) => {
                    let started = self.progress.started();
                    self.call = Some(self.seeker.another(call.link(), error, started).await?);
                    self.progress.begin_again();
                    continue;
                }
            };
            if let Some(piece) = self.progress.take(event)? {
                self.seeker.found();
                if let Piece::Done(_) = piece {
                    self.let_end();
                }
                return Ok(piece);
            }
        }
    }

    /// Hears the end of the call, which follows the end of the answer: a call that is dropped
    /// before counts as cancelled. Nobody waits for it.
    fn let_end(&mut self) {
        let Some(mut call) = self.call.take() else {
            return;
        };
        tokio::spawn(async move {
            // An orchestrator that never ends the call is no reason to hold it.
            let _ = tokio::time::timeout(END_GRACE, call.next()).await;
        });
    }
}

/// Submits a request and waits for the first piece of its answer. All that are asked for it have the
/// `timeout` together; once the answer has begun another orchestrator is looked for, for as long as
/// `patience`, where the one that gives it is lost. [T-LNK-5] [T-INF-13]
pub(crate) async fn submit(
    orchestrators: &Arc<Orchestrators>,
    request: InferRequest,
    timeout: Duration,
    patience: Duration,
) -> Result<Begun, Problem> {
    if codec::encode(&request).len() > MAX_REQUEST_BYTES {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("The request has more than {MAX_REQUEST_BYTES} bytes."),
        ));
    }
    let logprobs = request.sampling.top_logprobs.is_some();
    let mut seeker = Seeker::new(orchestrators.clone(), request, timeout, patience);
    let call = seeker.first().await?;
    let mut answer = Answer {
        call: Some(call),
        progress: Progress::new(logprobs),
        seeker,
    };
    let first = answer.next().await?;
    let accepted = answer.progress.accepted().cloned();
    let accepted = accepted.ok_or_else(|| RpcError::new(Code::Internal, "no worker is named"))?;
    Ok(Begun {
        accepted,
        first,
        answer,
    })
}

fn decode(bytes: &[u8]) -> Result<AnswerEvent, RpcError> {
    codec::decode("answer event", bytes, MAX_EVENT_BYTES)
        .map_err(|error| RpcError::new(Code::Internal, error.to_string()))
}
