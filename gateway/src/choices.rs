//! The answers to one request, side by side: as many as it asked for (`n`). Each is a request of
//! its own to the mesh, with a retry token and a seed that follow from those of the first.
//!
//! What they say is read only as fast as the client reads, so that a slow one grows nothing. The
//! first that fails ends them all: dropping what is left cancels it. (GW-1, GW-4)

use crate::answer::Piece;
use crate::problem::Problem;
use crate::routes::App;
use crate::shares::Share;
use crate::submit::{self, Answer, Begun};
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use tether_wire::CorrelationId;
use tether_wire::infer::{Accepted, InferRequest, MAX_RETRY_TOKEN_BYTES, Usage};
use tracing::{Instrument, Span};

/// What one of the answers tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// Who gives it; comes first.
    Begun(Accepted),
    /// A piece.
    Piece(Piece),
}

type Item = Result<(u32, Told), Problem>;

/// Answers under way. Dropping them cancels those that did not end.
pub(crate) struct Choices {
    told: SelectAll<BoxStream<'static, Item>>,
    /// Told before anybody asked.
    ahead: VecDeque<(u32, Told)>,
    /// Room that the requests take: each may have to be asked again.
    _held: Share,
    usage: Usage,
}

/// The requests for as many answers as it asks for: the first as it is, the others derived from it.
/// [T-INF-2]
pub(crate) fn requests(first: InferRequest) -> Result<Vec<InferRequest>, Problem> {
    let mut requests = Vec::new();
    for index in 1..first.answers {
        let mut request = first.clone();
        // A key of a client has no space, so that none is that of another request's answer.
        request.retry_token = format!("{} {index}", first.retry_token);
        if request.retry_token.len() > MAX_RETRY_TOKEN_BYTES {
            let why = "Idempotency-Key is too long for several answers: each adds its number.";
            return Err(Problem::invalid("invalid_idempotency_key", why));
        }
        request.correlation = CorrelationId::derive(&request.tenant, &request.retry_token);
        let seed = request.sampling.seed;
        request.sampling.seed = seed.map(|seed| seed.wrapping_add(u64::from(index)));
        requests.push(request);
    }
    requests.insert(0, first);
    Ok(requests)
}

impl Choices {
    /// Submits the requests, all at once. `held` is what they take of the room for bodies.
    pub(crate) fn submit(app: &Arc<App>, requests: Vec<InferRequest>, held: Share) -> Self {
        let one = |(index, request)| choice(app.clone(), index, request).boxed();
        Self {
            told: (0..).zip(requests).map(one).collect(),
            ahead: VecDeque::new(),
            _held: held,
            usage: Usage::default(),
        }
    }

    /// Waits until there is a first piece of any of them. Not of all: those that wait for their turn
    /// behind the others could wait until these were read.
    pub(crate) async fn begin(&mut self) -> Result<Accepted, Problem> {
        let mut first = None;
        loop {
            let (index, told) = self.read().await.unwrap_or_else(|| {
                Err(Problem::unavailable("There is no answer to this request."))
            })?;
            let is_piece = matches!(told, Told::Piece(_));
            if let (None, Told::Begun(accepted)) = (&first, &told) {
                first = Some(accepted.clone());
            }
            self.ahead.push_back((index, told));
            if let (true, Some(accepted)) = (is_piece, &first) {
                return Ok(accepted.clone());
            }
        }
    }

    /// What is told next, and of which; nothing once all have ended. After a problem they are not to
    /// be asked again. Losing interest in the future and asking anew loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Item> {
        match self.ahead.pop_front() {
            Some(told) => Some(Ok(told)),
            None => self.read().await,
        }
    }

    /// Tokens of all that have ended; those of the prompt, which is the same, once.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    async fn read(&mut self) -> Option<Item> {
        let item = self.told.next().await?;
        if let Ok((_, Told::Piece(Piece::Done(done)))) = &item {
            let (all, one) = (&mut self.usage, done.usage);
            all.prompt_tokens = all.prompt_tokens.max(one.prompt_tokens);
            all.completion_tokens = all.completion_tokens.saturating_add(one.completion_tokens);
        }
        Some(item)
    }
}

/// One of the answers, from its submission to its end or its first problem.
fn choice(app: Arc<App>, index: u32, request: InferRequest) -> impl Stream<Item = Item> + Send {
    // It may be polled first when the response is under way.
    let span = Span::current();
    let submitted = async move {
        let (timeout, patience) = (app.config.request_timeout(), app.config.resume_timeout());
        submit::submit(&app.orchestrators, request, timeout, patience).await
    };
    stream::once(submitted.instrument(span)).flat_map(move |begun| {
        let (begun, rest): (Vec<Item>, Option<Answer>) = match begun {
            Ok(Begun {
                accepted,
                first,
                answer,
            }) => {
                let rest = more(&first).then_some(answer);
                let told = [Told::Begun(accepted), Told::Piece(first)];
                (told.map(|told| Ok((index, told))).into(), rest)
            }
            Err(problem) => (vec![Err(problem)], None),
        };
        stream::iter(begun).chain(stream::unfold(rest, move |rest| async move {
            let mut answer = rest?;
            match answer.next().await {
                Ok(piece) => {
                    let rest = more(&piece).then_some(answer);
                    Some((Ok((index, Told::Piece(piece))), rest))
                }
                Err(error) => Some((Err(error.into()), None)),
            }
        }))
    })
}

/// Whether there is more after this piece.
fn more(piece: &Piece) -> bool {
    !matches!(piece, Piece::Done(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_id;
    use axum::http::{HeaderMap, HeaderName};
    use tether_wire::infer::{Input, Output, Prefix, Sampling};

    fn request(retry_token: &str, seed: Option<u64>, answers: u32) -> InferRequest {
        let tenant = "acme".parse().expect("valid");
        InferRequest {
            correlation: CorrelationId::derive(&tenant, retry_token),
            tenant,
            retry_token: retry_token.to_owned(),
            model: "tiny".to_owned(),
            input: Input::Text("x".to_owned()),
            sampling: Sampling {
                seed,
                ..Sampling::default()
            },
            output: Output::default(),
            keyed: false,
            answers,
            prefix: Prefix::default(),
            resume: None,
        }
    }

    #[test]
    fn each_answer_has_a_token_and_a_seed_of_its_own_and_the_first_keeps_its() {
        let all = requests(request("order-7", Some(u64::MAX), 3)).expect("three");
        assert_eq!(all[0], request("order-7", Some(u64::MAX), 3));
        assert_eq!(all[1], request("order-7 1", Some(0), 3));
        assert_eq!(all[2], request("order-7 2", Some(1), 3));
        let unseeded = requests(request("x", None, 2)).expect("two");
        assert_eq!(unseeded[1].sampling.seed, None, "drawn for each");
        for all in [all, unseeded] {
            all.iter().for_each(|it| it.check().expect("valid"));
        }
    }

    #[test]
    fn no_key_of_a_client_is_that_of_another_requests_answer() {
        for one in requests(request("order-7", None, 16))
            .expect("all")
            .drain(1..)
        {
            let key = one.retry_token.parse().expect("a header's value");
            let headers = [(HeaderName::from_static("idempotency-key"), key)];
            let told = request_id::retry_token(&HeaderMap::from_iter(headers));
            assert!(told.is_err(), "{:?}", one.retry_token);
        }
    }

    #[test]
    fn a_key_that_is_too_long_to_be_numbered_is_refused() {
        let (long, fits) = ("x".repeat(MAX_RETRY_TOKEN_BYTES), "x".repeat(252));
        assert!(requests(request(&long, None, 1)).is_ok());
        let problem = requests(request(&long, None, 2)).expect_err("too long");
        assert_eq!(problem.code, "invalid_idempotency_key");
        assert_eq!(requests(request(&fits, None, 16)).expect("fits").len(), 16);
    }
}
