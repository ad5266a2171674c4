//! OpenAI's JSON: the only module that knows it. (GW-1)
//!
//! * `chat` – requests for chat completions, every parameter honoured or refused by name
//! * `messages` – their messages; `calls` – the calls of tools in them
//! * `sampling` – how an answer is drawn
//! * `tools`, `form` – what an answer must be: calls of tools, text of a form
//! * `fields` – JSON objects whose fields are taken one by one, so that none is ignored; `lists`
//! * `response` – what completions have in common; `whole`, `chunks` – in one piece and in many;
//!   `logprobs` – how likely their tokens were
//! * `extension` – what Tether adds: who answered, and the receipt
//! * `saved` – requests and answers as tenants kept them, for receipts
//! * `models` – the list of models
//! * `error` – problems in OpenAI's shape
//!
//! Source: OpenAI API reference, chat completions and models, as of 2026.

mod calls;
mod chat;
mod chunks;
mod error;
mod extension;
mod fields;
mod form;
mod lists;
mod logprobs;
mod messages;
mod models;
mod response;
mod sampling;
pub(crate) mod saved;
mod tools;
mod whole;

pub(crate) use chat::{ChatRequest, parse_chat_for};
pub(crate) use chunks::ChunkWriter;
pub(crate) use error::problem_response;
pub(crate) use models::{model_json, models_json};
pub(crate) use response::Head;
pub(crate) use whole::Whole;
