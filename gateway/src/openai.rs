//! OpenAI's JSON: the only module that knows it. (GW-1)
//!
//! * `chat` – requests for chat completions, every parameter honoured or refused by name
//! * `messages` – their messages
//! * `fields` – JSON objects whose fields are taken one by one, so that none is ignored
//! * `response` – completions and their chunks
//! * `extension` – what Tether adds: who answered, and the receipt
//! * `saved` – requests and answers as tenants kept them, for receipts
//! * `models` – the list of models
//! * `error` – problems in OpenAI's shape
//!
//! Source: OpenAI API reference, chat completions and models, as of 2026.

mod chat;
mod error;
mod extension;
mod fields;
mod messages;
mod models;
mod response;
pub(crate) mod saved;

pub(crate) use chat::{ChatRequest, parse_chat};
pub(crate) use error::problem_response;
pub(crate) use models::{model_json, models_json};
pub(crate) use response::{ChunkWriter, Head, completion};
