//! The messages of a chat.

use super::fields::{Object, wrong_type};
use crate::problem::Problem;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use tether_wire::infer::{MAX_MESSAGES, Message, Speaker};

/// Most parts of one message.
const MAX_PARTS: usize = 1_024;

/// Reads the list of messages.
pub(super) fn parse(list: &RawValue) -> Result<Vec<Message>, Problem> {
    let items = bounded_list(list, MAX_MESSAGES, "messages", "a list of messages")?;
    if items.is_empty() {
        return Err(invalid("messages", "must have at least one message"));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| message(Object::of_value(format!("messages[{index}]"), item)?))
        .collect()
}

fn message(mut fields: Object<'_>) -> Result<Message, Problem> {
    let role: String = fields.need("role", "a string")?;
    let role = match role.as_str() {
        // OpenAI's newer name for the same thing.
        "system" | "developer" => Speaker::System,
        "user" => Speaker::User,
        "assistant" => Speaker::Assistant,
        "tool" | "function" => return Err(fields.unsupported("role", &[])),
        _ => {
            return Err(invalid(
                &fields.name("role"),
                "must be 'system', 'developer', 'user' or 'assistant'",
            ));
        }
    };
    let path = fields.name("content");
    let content = match fields.raw("content") {
        Some(value) => content(&path, value)?,
        None => {
            fields.refuse_unless("tool_calls", &[])?;
            return Err(Problem::invalid(
                "missing_required_parameter",
                format!("Missing required parameter: '{path}'."),
            )
            .at(path));
        }
    };
    // What an answer of ours holds may be sent back as it is.
    fields.refuse_unless("annotations", &["[]"])?;
    fields.refuse_unless("tool_calls", &["[]"])?;
    for field in ["refusal", "name", "function_call", "audio", "tool_call_id"] {
        fields.refuse_unless(field, &[])?;
    }
    fields.finish()?;
    Ok(Message::new(role, content))
}

/// A string, or a list of parts of text, which are put together as they are.
fn content(path: &str, value: &RawValue) -> Result<String, Problem> {
    if value.get().starts_with('"') {
        return serde_json::from_str(value.get())
            .map_err(|_| wrong_type(path, "a string or a list of parts"));
    }
    let parts = bounded_list(value, MAX_PARTS, path, "a string or a list of parts")?;
    if parts.is_empty() {
        return Err(invalid(path, "must have at least one part"));
    }
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut fields = Object::of_value(format!("{path}[{index}]"), part)?;
        let kind: String = fields.need("type", "a string")?;
        if kind != "text" {
            return Err(fields.unsupported("type", &["\"text\""]));
        }
        let piece: String = fields.need("text", "a string")?;
        fields.finish()?;
        text.push_str(&piece);
    }
    Ok(text)
}

fn invalid(name: &str, why: &str) -> Problem {
    Problem::invalid("invalid_value", format!("'{name}' {why}.")).at(name)
}

fn bounded_list<'a>(
    value: &'a RawValue,
    limit: usize,
    name: &str,
    expected: &str,
) -> Result<Vec<&'a RawValue>, Problem> {
    if !value.get().starts_with('[') {
        return Err(wrong_type(name, expected));
    }
    let items: Items<'a> =
        serde_json::from_str(value.get()).map_err(|_| wrong_type(name, expected))?;
    if items.0.len() > limit {
        return Err(invalid(name, &format!("has more than {limit} entries")));
    }
    Ok(items.0)
}

/// Entries of a list as text; no more are kept than any list of ours may have.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Items<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() <= MAX_MESSAGES {
                    match list.next_element::<&'de RawValue>()? {
                        Some(item) => items.push(item),
                        None => return Ok(Items(items)),
                    }
                }
                while list.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}
