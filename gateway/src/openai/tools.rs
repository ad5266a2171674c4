//! The tools of a request, and whether the model calls them.

use super::calls::NAME_MUST_BE;
use super::fields::{Object, invalid, wrong_type};
use super::lists::bounded_list;
use crate::problem::Problem;
use serde_json::value::RawValue;
use tether_wire::infer::{MAX_TOOLS, MAX_TOOLS_BYTES, Output, Tool, ToolChoice, is_tool_name};

/// Reads `tools`, `tool_choice` and `parallel_tool_calls` into what the answer must be.
pub(super) fn parse(fields: &mut Object<'_>, output: &mut Output) -> Result<(), Problem> {
    let tools = match fields.raw("tools") {
        Some(list) => tools(list)?,
        None => Vec::new(),
    };
    let choice = match fields.raw("tool_choice") {
        Some(value) => choice(value)?,
        None => ToolChoice::Auto,
    };
    let parallel = fields.take("parallel_tool_calls", "a boolean")?;
    // Without tools nothing is called, which is all that these two could ask for.
    if tools.is_empty() && matches!(choice, ToolChoice::None | ToolChoice::Auto) {
        return Ok(());
    }
    output.tools = tools;
    output.tool_choice = choice;
    output.parallel_tool_calls = parallel.unwrap_or(true);
    Ok(())
}

fn tools(list: &RawValue) -> Result<Vec<Tool>, Problem> {
    bounded_list(list, MAX_TOOLS, "tools", "a list of tools")?
        .into_iter()
        .enumerate()
        .map(|(index, item)| tool(Object::of_value(format!("tools[{index}]"), item)?))
        .collect()
}

fn tool(fields: Object<'_>) -> Result<Tool, Problem> {
    let mut fields = function(fields)?;
    let name: String = fields.need("name", "a string")?;
    if !is_tool_name(&name) {
        return Err(invalid(&fields.name("name"), NAME_MUST_BE));
    }
    let description: Option<String> = fields.take("description", "a string")?;
    let parameters = fields.json_object("parameters", MAX_TOOLS_BYTES)?;
    if let Some(schema) = &parameters
        && !is_of_objects(schema)
    {
        let why = "must be the schema of an object: its 'type' is another one";
        return Err(invalid(&fields.name("parameters"), why));
    }
    let strict: Option<bool> = fields.take("strict", "a boolean")?;
    fields.finish()?;
    Ok(Tool {
        name,
        description: description.unwrap_or_default(),
        parameters: parameters.unwrap_or_default(),
        strict: strict.unwrap_or(false),
    })
}

/// Whether a schema may be that of the arguments of a call, which are an object: its type says so, or
/// nothing else.
fn is_of_objects(schema: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Schema {
        #[serde(default, rename = "type")]
        kind: Option<serde_json::Value>,
    }
    // One that names its type twice is for the engine to read.
    match serde_json::from_str::<Schema>(schema).map(|schema| schema.kind) {
        Ok(Some(serde_json::Value::String(kind))) => kind == "object",
        _ => true,
    }
}

/// The inside of `{"type": "function", "function": {…}}`.
fn function(mut fields: Object<'_>) -> Result<Object<'_>, Problem> {
    let kind: String = fields.need("type", "a string")?;
    if kind != "function" {
        return Err(fields.unsupported("type", &["\"function\""]));
    }
    let path = fields.name("function");
    let inside: &RawValue = fields.need("function", "an object")?;
    fields.finish()?;
    Object::of_value(path, inside)
}

fn choice(value: &RawValue) -> Result<ToolChoice, Problem> {
    const NAME: &str = "tool_choice";
    if !value.get().starts_with('"') {
        if !value.get().starts_with('{') {
            return Err(wrong_type(NAME, "a string or an object"));
        }
        let mut fields = function(Object::of_value(NAME.to_owned(), value)?)?;
        let name = fields.need("name", "a string")?;
        fields.finish()?;
        return Ok(ToolChoice::Named(name));
    }
    match value.get() {
        "\"none\"" => Ok(ToolChoice::None),
        "\"auto\"" => Ok(ToolChoice::Auto),
        "\"required\"" => Ok(ToolChoice::Required),
        _ => Err(invalid(
            NAME,
            "must be 'none', 'auto', 'required' or an object that names a function",
        )),
    }
}
