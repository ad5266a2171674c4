//! Requests for chat completions. Each documented parameter is honoured, accepted because it
//! changes nothing, or refused by name.

use super::fields::{Object, invalid};
use super::{form, messages, sampling, tools};
use crate::problem::Problem;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tether_wire::infer::{Message, Output, Sampling};

/// Most entries of `metadata`, and their sizes, as OpenAI bounds them.
const MAX_METADATA: usize = 16;
const MAX_METADATA_KEY_CHARS: usize = 64;
const MAX_METADATA_VALUE_CHARS: usize = 512;
/// Longest label such as `user`.
const MAX_LABEL_BYTES: usize = 512;

/// Most answers to one request (`n`). Each is a request of its own to the mesh.
pub(crate) const MAX_ANSWERS: u32 = 16;

/// A chat, in our words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChatRequest {
    /// The model as the tenant named it.
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    pub(crate) sampling: Sampling,
    pub(crate) output: Output,
    form_name: &'static str,
    /// How many answers are asked for.
    pub(crate) answers: u32,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl ChatRequest {
    /// A problem that the mesh has with it, in the tenant's words.
    pub(crate) fn problem(&self, problem: Problem) -> Problem {
        form_named(self.form_name, problem)
    }
}

/// Parameters that would change the answer and that we do not have, with the values that ask for
/// what happens anyway.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("modalities", &[r#"["text"]"#]),
    ("audio", &[]),
    ("prediction", &[]),
    ("reasoning_effort", &[]),
    ("verbosity", &[]),
    ("web_search_options", &[]),
    ("moderation", &[]),
    ("prompt_cache_options", &[]),
    ("store", &["false"]),
    ("service_tier", &["\"auto\"", "\"default\""]),
];

/// What OpenAI had before `tools`: the values that ask for nothing, and what to use instead.
const LEGACY: &[(&str, &[&str], &str)] = &[
    ("functions", &["[]"], "tools"),
    ("function_call", &["\"none\""], "tool_choice"),
];

/// Parameters that change nothing about an answer: labels for statistics and hints for caches.
const LABELS: &[&str] = &[
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
];

/// Reads a body.
pub(crate) fn parse_chat(body: &[u8]) -> Result<ChatRequest, Problem> {
    parse_chat_for(body, |_| ())
}

/// Reads a body, and tells which model it names, also where something else in it is wrong.
pub(crate) fn parse_chat_for(
    body: &[u8],
    asked: impl FnOnce(&str),
) -> Result<ChatRequest, Problem> {
    let mut fields = Object::of_body(body)?;
    let model: String = fields.need("model", "a string")?;
    asked(&model);
    if model.is_empty() {
        return Err(Problem::invalid("invalid_value", "The model's name is empty.").at("model"));
    }
    let list: &RawValue = fields.need("messages", "a list of messages")?;
    let messages = messages::parse(list)?;
    let sampling = sampling::parse(&mut fields)?;
    let (output, form_name) = output(&mut fields)?;
    let answers = answers(&mut fields)?;
    let stream = fields.take("stream", "a boolean")?.unwrap_or(false);
    let include_usage = stream_options(&mut fields, stream)?;
    for (field, neutral) in UNSUPPORTED {
        fields.refuse_unless(field, neutral)?;
    }
    for (field, neutral, instead) in LEGACY {
        fields.refuse_for(field, neutral, instead)?;
    }
    for field in LABELS {
        label(&mut fields, field)?;
    }
    metadata(&mut fields)?;
    fields.finish()?;
    Ok(ChatRequest {
        model,
        messages,
        sampling,
        output,
        form_name,
        answers,
        stream,
        include_usage,
    })
}

/// What the answer must be, and the name under which its form was asked for.
fn output(fields: &mut Object<'_>) -> Result<(Output, &'static str), Problem> {
    let mut output = Output::default();
    tools::parse(fields, &mut output)?;
    let (format, name) = form::parse(fields)?;
    output.format = format;
    let checked = output.check();
    checked.map_err(|error| form_named(name, error.into()))?;
    Ok((output, name))
}

/// A problem with the form of the text, by the name under which it was asked for: the mesh has but
/// one.
fn form_named(name: &'static str, mut problem: Problem) -> Problem {
    if problem.param.as_deref() == Some(form::RESPONSE_FORMAT) {
        problem.message = problem.message.replacen(form::RESPONSE_FORMAT, name, 1);
        problem.param = Some(name.to_owned());
    }
    problem
}

/// How many answers.
fn answers(fields: &mut Object<'_>) -> Result<u32, Problem> {
    let answers = fields.take("n", "a whole number, 1 or more")?.unwrap_or(1);
    if (1..=MAX_ANSWERS).contains(&answers) {
        return Ok(answers);
    }
    let why = format!("is {answers}, not between 1 and {MAX_ANSWERS}");
    Err(invalid("n", &why))
}

/// Whether the stream ends with the usage.
fn stream_options(fields: &mut Object<'_>, stream: bool) -> Result<bool, Problem> {
    let Some(value) = fields.raw("stream_options") else {
        return Ok(false);
    };
    if !stream {
        return Err(Problem::invalid(
            "invalid_value",
            "'stream_options' is only allowed when 'stream' is true.",
        )
        .at("stream_options"));
    }
    let mut options = Object::of_value("stream_options".to_owned(), value)?;
    let include_usage = options.take("include_usage", "a boolean")?.unwrap_or(false);
    // Padding against guessing from sizes: not done, so not promised.
    options.refuse_unless("include_obfuscation", &["false"])?;
    options.finish()?;
    Ok(include_usage)
}

fn label(fields: &mut Object<'_>, name: &str) -> Result<(), Problem> {
    let label: Option<String> = fields.take(name, "a string")?;
    if label.is_some_and(|label| label.len() > MAX_LABEL_BYTES) {
        let why = format!("'{name}' has more than {MAX_LABEL_BYTES} bytes.");
        return Err(Problem::invalid("invalid_value", why).at(name));
    }
    Ok(())
}

fn metadata(fields: &mut Object<'_>) -> Result<(), Problem> {
    const EXPECTED: &str = "an object from strings to strings";
    let Some(entries) = fields.take::<BTreeMap<String, String>>("metadata", EXPECTED)? else {
        return Ok(());
    };
    let fits = entries.len() <= MAX_METADATA
        && entries.iter().all(|(key, value)| {
            key.chars().count() <= MAX_METADATA_KEY_CHARS
                && value.chars().count() <= MAX_METADATA_VALUE_CHARS
        });
    if fits {
        return Ok(());
    }
    Err(Problem::invalid(
        "invalid_value",
        format!(
            "'metadata' may have {MAX_METADATA} entries, with keys of {MAX_METADATA_KEY_CHARS} and values of {MAX_METADATA_VALUE_CHARS} characters."
        ),
    )
    .at("metadata"))
}

#[cfg(test)]
mod tests;
