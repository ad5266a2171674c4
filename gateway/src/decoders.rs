//! This crate's private decoders of outside bytes, for the fuzz targets (feature `testing`).

use crate::auth;
use crate::directory::Told;
use crate::openai::{parse_chat_for, problem_response};
use crate::problem::Problem;
use crate::request_id::{self, RequestId};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::collections::BTreeSet;
use tether_wire::directory::DirectoryUpdate;
use tether_wire::infer::{Message, Output, Sampling};

/// A refusal, as a client sees it: its status and its message.
pub type Refused = (StatusCode, String);

fn refused(problem: &Problem) -> Refused {
    // Its headers are made of it.
    let response = problem_response(problem);
    assert_eq!(response.status(), problem.status);
    (problem.status, problem.message.clone())
}

/// What a body of a chat completion asks for.
#[derive(Debug)]
pub struct Chat {
    /// The model's name.
    pub model: String,
    /// The messages.
    pub messages: Vec<Message>,
    /// How the answer is drawn.
    pub sampling: Sampling,
    /// What the answer must be.
    pub output: Output,
    /// How many answers.
    pub answers: u32,
}

/// A body of a chat completion.
pub fn chat(body: &[u8]) -> Result<Chat, Refused> {
    let chat = parse_chat_for(body, |_| ()).map_err(|problem| refused(&problem))?;
    Ok(Chat {
        model: chat.model,
        messages: chat.messages,
        sampling: chat.sampling,
        output: chat.output,
        answers: chat.answers,
    })
}

/// What is read of the headers of one request.
#[derive(Debug)]
pub struct Headers {
    /// The key of `Authorization`.
    pub key: Result<String, Refused>,
    /// The request's id.
    pub id: String,
    /// The retry token.
    pub token: Result<String, Refused>,
}

/// A request whose headers each have these bytes. Nothing where HTTP allows no such header.
pub fn headers(value: &[u8]) -> Option<Headers> {
    let value = HeaderValue::from_bytes(value).ok()?;
    let names = ["authorization", "x-request-id", "idempotency-key"];
    let header = |name| (HeaderName::from_static(name), value.clone());
    let headers = HeaderMap::from_iter(names.map(header));
    let key = auth::bearer(&headers).map(str::to_owned);
    let id = RequestId::of(&headers);
    let _ = id.header();
    let token = request_id::retry_token(&headers);
    Some(Headers {
        key: key.map_err(|problem| refused(&problem)),
        id: id.0,
        token: token.map_err(|problem| refused(&problem)),
    })
}

/// What a gateway knows after these updates of one subscription: how many of them counted.
pub fn directory(updates: impl IntoIterator<Item = DirectoryUpdate>) -> usize {
    let (mut told, mut counted) = (Told::default(), 0);
    for update in updates {
        let tenants = update.tenants.clone();
        let (version, more) = (update.version, update.more);
        let Ok(taken) = told.take(update) else {
            continue;
        };
        assert_eq!(taken.is_none(), more, "pieces count together");
        let Some(taken) = taken else { continue };
        counted += 1;
        assert_eq!(taken.version(), version);
        for tenant in &tenants {
            let _ = taken.available(&tenant.id);
        }
        // A key leads to somebody, unless the update itself takes it from its tenant again.
        let ids: BTreeSet<_> = tenants.iter().map(|tenant| &tenant.id).collect();
        let hashes = || tenants.iter().flat_map(|tenant| &tenant.key_hashes);
        let apart = ids.len() == tenants.len()
            && hashes().collect::<BTreeSet<_>>().len() == hashes().count();
        assert!(
            !apart || hashes().all(|hash| taken.tenant(hash).is_some()),
            "a key is nobody's"
        );
    }
    counted
}
