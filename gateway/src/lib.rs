//! The tenants' edge: OpenAI's dialect in, the mesh's requests out. (GW-1 to GW-4, GW-7)
//!
//! A gateway opens no database and knows no worker. It learns tenants and models from an
//! orchestrator, checks keys and limits, turns JSON into a request of the mesh, submits it over a
//! link, and turns the events of the answer back into JSON or server-sent events.
//!
//! # Layout
//!
//! * [`config`] – what an operator may set; every bound is here
//! * `server` – start, accept, drain; `routes` – which path does what
//! * `openai` – the only module that knows OpenAI's JSON
//! * `problem` – every error that a client can see, and the one mapping of codes to statuses
//! * `auth`, `limits`, `request_id` – who asks, how much at once, under which id
//! * `body` – bodies: each, those of a tenant and all of them together bounded
//! * `shares` – what each tenant and all together hold of something
//! * `orchestrators`, `directory` – links to orchestrators, and what they tell about tenants
//! * `presence` – what orchestrators hear of this gateway
//! * `exchange`, `submit`, `answer`, `sse` – a request on its way out and its answer on its way back;
//!   `choices` – the answers to one that asked for several
//! * `account` – what is counted and traced of a request
//! * `stall`, `hangup` – a connection whose reader stands still, or is gone, is closed
//! * `decoders` – private decoders for the fuzz targets, only with the feature `testing`
//!
//! Deliberately absent: placement, retries on another worker, anything about engines.
#![forbid(unsafe_code)]

mod account;
mod answer;
mod auth;
mod body;
mod choices;
pub mod config;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod decoders;
mod directory;
mod exchange;
mod hangup;
mod limits;
mod openai;
mod orchestrators;
mod presence;
mod problem;
mod request_id;
mod routes;
mod server;
mod shares;
mod sse;
mod stall;
mod submit;

/// Requests and answers as tenants kept them, to be held against receipts.
pub mod saved {
    pub use crate::openai::saved::{
        SavedAnswer, SavedRequest, SavedResponse, SavedUsage, Says, answers, fingerprint, receipt,
        request, response,
    };
}

pub use config::{ConfigError, GatewayConfig};
pub use server::{Gateway, GatewayError, start};
