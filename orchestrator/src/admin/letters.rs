//! Dead letters: what failed and why, what was tried, and the request, to be run again. (RSV-3)

use super::{Admin, Parameters, bad, parameters};
use crate::clock;
use crate::job::FailedAttempt;
use crate::store::{LetterMark, StoreError, StoredLetter};
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tether_wire::infer::{InferRequest, MAX_REQUEST_BYTES};
use tether_wire::{CorrelationId, NodeId, codec};

/// Most dead letters of one page.
pub const MAX_LETTERS: u32 = 1_000;
/// Those of a page where nobody says how many.
const DEFAULT_LETTERS: u32 = 100;

/// A dead letter, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LetterRow {
    /// The job, by which it is named.
    pub job: CorrelationId,
    /// Whose it is.
    pub tenant: String,
    /// The model that it was resolved to.
    pub model: String,
    /// The code of the error that the tenant was told.
    pub code: String,
    /// Why the job failed, in words of Tether's.
    pub reason: String,
    /// What was tried, the last one last.
    pub attempts: Vec<AttemptRow>,
    /// Unix milliseconds at which it failed last.
    pub failed_ms: u64,
    /// Unix milliseconds until which it is kept.
    pub keep_until_ms: u64,
    /// How often it was run again.
    pub replays: u32,
    /// Unix milliseconds of the last time.
    pub replayed_ms: Option<u64>,
    /// The request, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<serde_json::Value>,
}

/// One of the attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The worker that it was given to.
    pub worker: NodeId,
    /// The code of its error.
    pub code: String,
    /// Its words, where the request was asked for, which they may quote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// Some of the dead letters, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LetterPage {
    /// They.
    pub letters: Vec<LetterRow>,
    /// What to ask for to get the next ones; nothing where there are none.
    pub next: Option<String>,
}

/// What became of one that was run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// `ok`, or the code of the error.
    pub outcome: String,
    /// The words of the error.
    pub message: Option<String>,
}

impl From<StoredLetter> for LetterRow {
    fn from(letter: StoredLetter) -> Self {
        Self {
            job: letter.correlation,
            tenant: letter.tenant.to_string(),
            model: letter.model.to_string(),
            code: letter.code,
            reason: letter.reason,
            attempts: letter.attempts.into_iter().map(AttemptRow::from).collect(),
            failed_ms: letter.created_ms,
            keep_until_ms: letter.keep_until_ms,
            replays: letter.replays,
            replayed_ms: letter.replayed_ms,
            request: None,
        }
    }
}

impl From<FailedAttempt> for AttemptRow {
    fn from(attempt: FailedAttempt) -> Self {
        Self {
            worker: attempt.worker,
            code: attempt.code,
            message: attempt.message,
            at_ms: attempt.at_ms,
        }
    }
}

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/dead-letters", get(list))
        .route("/dead-letters/{job}", get(show).delete(forget))
        .route("/dead-letters/{job}/replay", post(replay))
}

/// What is asked of the list.
struct Asked {
    limit: u32,
    behind: Option<LetterMark>,
}

impl Asked {
    fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let mut asked = Self {
            limit: DEFAULT_LETTERS,
            behind: None,
        };
        for (key, value) in query {
            match key.as_str() {
                "limit" => {
                    let limit = value.parse().ok();
                    let limit = limit.filter(|it| (1..=MAX_LETTERS).contains(it));
                    asked.limit =
                        limit.ok_or_else(|| format!("`limit` is from 1 to {MAX_LETTERS}"))?;
                }
                "behind" => {
                    let mark = parse_mark(value);
                    asked.behind =
                        Some(mark.ok_or("`behind` is what a page before gave as `next`")?);
                }
                _ => return Err("there are only `limit` and `behind` here".to_owned()),
            }
        }
        Ok(asked)
    }
}

fn mark_text(mark: LetterMark) -> String {
    format!("{}-{}", mark.created_ms, mark.correlation.to_hex())
}

fn parse_mark(text: &str) -> Option<LetterMark> {
    let (created_ms, correlation) = text.split_once('-')?;
    Some(LetterMark {
        created_ms: created_ms
            .parse()
            .ok()
            .filter(|it| *it <= i64::MAX as u64)?,
        correlation: correlation.parse().ok()?,
    })
}

/// Why a dead letter is not shown, dropped or run again.
fn refuse(error: &StoreError) -> Response {
    let status = match error {
        StoreError::Refused { .. } => StatusCode::CONFLICT,
        StoreError::KeyGone(_) | StoreError::Unreadable(_) => StatusCode::GONE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{error}\n")).into_response()
}

fn unknown() -> Response {
    let why = "there is no such dead letter: `tether dlq ls` shows them\n";
    (StatusCode::NOT_FOUND, why).into_response()
}

fn job(text: &str) -> Result<CorrelationId, Box<Response>> {
    let id = text.parse();
    id.map_err(|_| {
        Box::new(bad(
            "a dead letter is named by the 32 hex digits of its job",
        ))
    })
}

async fn list(
    State(admin): State<Arc<Admin>>,
    RawQuery(raw): RawQuery,
    query: Parameters,
) -> Response {
    let asked = match parameters(raw.as_deref(), query).and_then(|it| Asked::parse(&it)) {
        Ok(asked) => asked,
        Err(why) => return bad(&why),
    };
    match admin.store.dead_letters(asked.behind, asked.limit).await {
        Ok(letters) => {
            let is_full = letters.len() == asked.limit as usize;
            let last = letters.last().filter(|_| is_full);
            let next = last.map(|letter| mark_text(letter.mark()));
            let letters = letters.into_iter().map(LetterRow::from).collect();
            Json(LetterPage { letters, next }).into_response()
        }
        Err(error) => refuse(&error),
    }
}

/// Whether the request is to be shown, which is the tenant's, and with it the words of workers.
#[derive(Deserialize)]
struct Showing {
    #[serde(default)]
    request: bool,
}

async fn show(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(showing): Query<Showing>,
) -> Response {
    let id = match job(&name) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    // Without the request it needs no key of the tenant's, which may be gone.
    if !showing.request {
        return match admin.store.dead_letter_as_listed(id).await {
            Ok(Some(letter)) => Json(LetterRow::from(letter)).into_response(),
            Ok(None) => unknown(),
            Err(error) => refuse(&error),
        };
    }
    let (letter, payload) = match admin.store.dead_letter(id).await {
        Ok(Some(found)) => found,
        Ok(None) => return unknown(),
        Err(error) => return refuse(&error),
    };
    let Ok(Ok(request)) = request(&payload).map(serde_json::to_value) else {
        return unreadable();
    };
    let row = LetterRow {
        request: Some(request),
        ..letter.into()
    };
    Json(row).into_response()
}

async fn forget(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Response {
    let id = match job(&name) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    match admin.store.drop_dead_letter(id).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => unknown(),
        Err(error) => refuse(&error),
    }
}

/// Runs the request again under its own key, and tells what became of it once it ended.
async fn replay(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Response {
    let id = match job(&name) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let (letter, payload) = match admin.store.dead_letter(id).await {
        Ok(Some(found)) => found,
        Ok(None) => return unknown(),
        Err(error) => return refuse(&error),
    };
    let Ok(request) = request(&payload) else {
        return unreadable();
    };
    let now_ms = clock::now().unix_ms;
    let marked = admin.store.mark_replayed(id, letter.replays, now_ms).await;
    if let Err(error) = marked {
        return refuse(&error);
    }
    let replayed = match admin.dispatcher.replay(request).await {
        Ok(()) => Replayed {
            outcome: "ok".to_owned(),
            message: None,
        },
        Err(error) => Replayed {
            outcome: error.code.as_str().to_owned(),
            message: Some(error.message),
        },
    };
    Json(replayed).into_response()
}

fn request(payload: &[u8]) -> Result<InferRequest, codec::CodecError> {
    codec::decode("the request of a dead letter", payload, MAX_REQUEST_BYTES)
}

fn unreadable() -> Response {
    let why =
        "the request of this dead letter cannot be read by this version: `tether dlq drop` it\n";
    (StatusCode::GONE, why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_for_by_what_the_one_before_gave() {
        let mark = LetterMark {
            created_ms: 77,
            correlation: CorrelationId([9; 16]),
        };
        let query = |key: &str, value: String| vec![(key.to_owned(), value)];
        let asked = Asked::parse(&query("behind", mark_text(mark))).expect("valid");
        assert_eq!((asked.behind, asked.limit), (Some(mark), DEFAULT_LETTERS));
        for wrong in ["", "77", "x-00", "77-zz", "18446744073709551615-00"] {
            assert!(Asked::parse(&query("behind", wrong.to_owned())).is_err());
        }
        for wrong in ["0", "1001", "x", "-1"] {
            assert!(Asked::parse(&query("limit", wrong.to_owned())).is_err());
        }
        assert!(Asked::parse(&query("other", String::new())).is_err());
        assert_eq!(
            Asked::parse(&query("limit", "1000".into())).map(|it| it.limit),
            Ok(1_000)
        );
    }
}
