//! The messages of a chat.

use super::calls::{self, OpenCalls};
use super::fields::{Object, invalid, wrong_type};
use super::lists::bounded_list;
use crate::problem::Problem;
use serde_json::value::RawValue;
use tether_wire::infer::{MAX_CALL_ID_BYTES, MAX_MESSAGES, Message, Speaker, is_tool_name};

/// Most parts of one message.
const MAX_PARTS: usize = 1_024;

/// Reads the list of messages.
pub(super) fn parse(list: &RawValue) -> Result<Vec<Message>, Problem> {
    let items = bounded_list(list, MAX_MESSAGES, "messages", "a list of messages")?;
    if items.is_empty() {
        return Err(invalid("messages", "must have at least one message"));
    }
    let mut messages = Vec::with_capacity(items.len());
    let mut open = OpenCalls::default();
    for (index, item) in items.into_iter().enumerate() {
        let fields = Object::of_value(format!("messages[{index}]"), item)?;
        let mut message = message(fields)?;
        open.take(index, &mut message)?;
        messages.push(message);
    }
    open.end()?;
    Ok(messages)
}

fn message(mut fields: Object<'_>) -> Result<Message, Problem> {
    let role: String = fields.need("role", "a string")?;
    let role = match role.as_str() {
        // OpenAI's newer name for the same thing.
        "system" | "developer" => Speaker::System,
        "user" => Speaker::User,
        "assistant" => Speaker::Assistant,
        "tool" => Speaker::Tool,
        "function" => return Err(fields.unsupported("role", &["\"tool\""])),
        _ => {
            return Err(invalid(
                &fields.name("role"),
                "must be 'system', 'developer', 'user', 'assistant' or 'tool'",
            ));
        }
    };
    let tool_calls = match role {
        Speaker::Assistant => calls::parse(&mut fields)?,
        _ => Vec::new(),
    };
    let path = fields.name("content");
    let content = match fields.raw("content") {
        Some(value) => content(&path, value)?,
        // An answer that only called.
        None if !tool_calls.is_empty() => String::new(),
        None => {
            return Err(Problem::invalid(
                "missing_required_parameter",
                format!("Missing required parameter: '{path}'."),
            )
            .at(path));
        }
    };
    let tool_call_id = match role {
        Speaker::Tool => Some(call_id(&mut fields)?),
        _ => None,
    };
    let name = name(&mut fields)?;
    // What an answer of ours holds may be sent back as it is.
    fields.refuse_unless("annotations", &["[]"])?;
    fields.refuse_unless("tool_calls", &["[]"])?;
    fields.refuse_for("function_call", &[], "tool_calls")?;
    for field in ["refusal", "audio", "tool_call_id"] {
        fields.refuse_unless(field, &[])?;
    }
    if role == Speaker::Assistant {
        // The SDKs' own reading of the content, which they send back beside it.
        fields.raw("parsed");
    }
    fields.finish()?;
    Ok(Message {
        tool_calls,
        tool_call_id,
        name,
        ..Message::new(role, content)
    })
}

/// Which call a tool's message answers.
fn call_id(fields: &mut Object<'_>) -> Result<String, Problem> {
    let id: String = fields.need("tool_call_id", "a string")?;
    if id.len() > MAX_CALL_ID_BYTES {
        let why = format!("has more than {MAX_CALL_ID_BYTES} bytes");
        return Err(invalid(&fields.name("tool_call_id"), &why));
    }
    Ok(id)
}

/// Who of several speaks; it stands in the prompt, so that it may be nothing but a name.
fn name(fields: &mut Object<'_>) -> Result<Option<String>, Problem> {
    let name: Option<String> = fields.take("name", "a string")?;
    if name.as_deref().is_some_and(|name| !is_tool_name(name)) {
        return Err(invalid(&fields.name("name"), calls::NAME_MUST_BE));
    }
    Ok(name)
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
