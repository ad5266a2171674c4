//! Calls of tools in the messages of a chat: what an answer held, and that each was answered.

use super::fields::{Object, invalid, wrong_type};
use super::lists::bounded_list;
use crate::problem::Problem;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tether_wire::infer::{
    MAX_CALL_ID_BYTES, MAX_TOOL_CALLS, Message, Speaker, ToolCall, is_tool_name,
};

/// What the name of a tool, and of who speaks, is made of.
pub(super) const NAME_MUST_BE: &str = "must have 1 to 64 letters, digits, '_' or '-'";
/// Most characters of an id that an error repeats.
const MAX_SHOWN: usize = 64;

/// Reads the calls of an assistant's message.
pub(super) fn parse(fields: &mut Object<'_>) -> Result<Vec<ToolCall>, Problem> {
    let path = fields.name("tool_calls");
    let Some(list) = fields.raw("tool_calls") else {
        return Ok(Vec::new());
    };
    bounded_list(list, MAX_TOOL_CALLS, &path, "a list of calls")?
        .into_iter()
        .enumerate()
        .map(|(index, item)| call(Object::of_value(format!("{path}[{index}]"), item)?))
        .collect()
}

fn call(mut fields: Object<'_>) -> Result<ToolCall, Problem> {
    let id: String = fields.need("id", "a string")?;
    if !(1..=MAX_CALL_ID_BYTES).contains(&id.len()) {
        let why = format!("must have 1 to {MAX_CALL_ID_BYTES} bytes");
        return Err(invalid(&fields.name("id"), &why));
    }
    let kind: String = fields.need("type", "a string")?;
    if kind != "function" {
        return Err(fields.unsupported("type", &["\"function\""]));
    }
    // Where the call stood in a stream; the list has the same order.
    let _: Option<u32> = fields.take("index", "a whole number, 0 or more")?;
    let path = fields.name("function");
    let function: &RawValue = fields.need("function", "an object")?;
    fields.finish()?;
    let mut fields = Object::of_value(path, function)?;
    let name: String = fields.need("name", "a string")?;
    if !is_tool_name(&name) {
        return Err(invalid(&fields.name("name"), NAME_MUST_BE));
    }
    let mut arguments: String = fields.need("arguments", "a string that holds JSON")?;
    if arguments.is_empty() {
        // What some servers answer where a tool takes none.
        "{}".clone_into(&mut arguments);
    }
    if serde_json::from_str::<IgnoredAny>(&arguments).is_err() {
        return Err(wrong_type(
            &fields.name("arguments"),
            "a string that holds JSON",
        ));
    }
    // The SDKs' own reading of the arguments, which they send back beside them.
    fields.raw("parsed_arguments");
    fields.finish()?;
    Ok(ToolCall {
        id,
        name,
        arguments,
    })
}

/// Calls that wait for the messages of their tools: these follow at once, in any order.
#[derive(Debug, Default)]
pub(super) struct OpenCalls {
    /// Names of the tools by the ids of the calls.
    waiting: BTreeMap<String, String>,
    /// The message that holds them.
    message: usize,
}

impl OpenCalls {
    /// Takes the next message. A tool's gets the name of its tool, which templates ask for and
    /// tenants do not send.
    pub(super) fn take(&mut self, index: usize, message: &mut Message) -> Result<(), Problem> {
        if message.role == Speaker::Tool {
            let id = message.tool_call_id.as_deref().unwrap_or_default();
            let Some(tool) = self.waiting.remove(id) else {
                return Err(invalid(
                    &format!("messages[{index}].tool_call_id"),
                    "is not the id of a call of the assistant's message before it that waits for \
                     its answer",
                ));
            };
            message.name.get_or_insert(tool);
            return Ok(());
        }
        self.end()?;
        self.message = index;
        for call in &message.tool_calls {
            let (id, tool) = (call.id.clone(), call.name.clone());
            if self.waiting.insert(id, tool).is_some() {
                let name = format!("messages[{index}].tool_calls");
                return Err(invalid(&name, "has two calls of the same id"));
            }
        }
        Ok(())
    }

    /// That nothing waits.
    pub(super) fn end(&self) -> Result<(), Problem> {
        let Some(id) = self.waiting.keys().next() else {
            return Ok(());
        };
        let id: String = id.chars().take(MAX_SHOWN).collect();
        let name = format!("messages[{}].tool_calls", self.message);
        let why = format!(
            "must be followed by a message of the role 'tool' for each call; there is none for '{id}'"
        );
        Err(invalid(&name, &why))
    }
}
