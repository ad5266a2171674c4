//! Orders of the operator that come by the admin port: for one whose key is kept offline, and who
//! carries a sealed file to a machine of the mesh. (PRE-6) [T-CTL-6]

use super::Admin;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use serde::Serialize;
use std::sync::Arc;
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::membership::ControlError;

/// Header of the answer: the key of the orchestrator that took it, which is none to be counted on
/// where it is the one that is revoked.
const TAKEN_BY: &str = "tether-orchestrator";

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct ControlAnswer {
    /// Whether it changed anything: it may have been known.
    news: bool,
}

/// Takes one encoded control message.
pub(super) fn route() -> MethodRouter<Arc<Admin>> {
    post(take).layer(DefaultBodyLimit::max(MAX_CONTROL_BYTES))
}

async fn take(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    match admin.members.learn(&body).await {
        Ok(news) => {
            let by = [(TAKEN_BY, admin.node.id().to_hex())];
            (by, Json(ControlAnswer { news })).into_response()
        }
        Err(error @ ControlError::NotKept(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response(),
    }
}
