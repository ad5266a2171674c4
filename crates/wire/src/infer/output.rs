//! What an answer must be: free text, text of a form, or calls of tools. [T-INF-10]
//!
//! Schemas, patterns and grammars are texts here. Whether they mean something is found by whoever
//! compiles them, at the engine; this bounds what gets there.

use crate::codec::{CodecError, check_field, check_len};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most tools of a request, as in OpenAI's API. [T-INF-10]
pub const MAX_TOOLS: usize = 128;
/// Most bytes of a tool's name, as in OpenAI's API. [T-INF-10]
pub const MAX_TOOL_NAME_BYTES: usize = 64;
/// Most bytes of names, descriptions and parameters of all tools together. [T-INF-10]
pub const MAX_TOOLS_BYTES: usize = 256 * 1024;
/// Most bytes of a schema, pattern or grammar, or of all choices together. [T-INF-10]
pub const MAX_FORMAT_BYTES: usize = 64 * 1024;
/// Most choices. [T-INF-10]
pub const MAX_CHOICES: usize = 256;

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// Tools that the model may call.
    pub tools: Vec<Tool>,
    /// Whether it calls them; without tools this means nothing.
    pub tool_choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel_tool_calls: bool,
    /// The form of the text.
    pub format: Format,
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Letters, digits, `_` and `-`.
    pub name: String,
    /// What it does, for the model.
    #[serde(default)]
    pub description: String,
    /// JSON schema of its arguments, as JSON; empty means that it has none.
    #[serde(default)]
    pub parameters: String,
    /// Whether the arguments of each call must be valid under the schema.
    #[serde(default)]
    pub strict: bool,
}

/// Whether the model calls tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolChoice {
    /// It may not.
    None,
    /// As it likes.
    #[default]
    Auto,
    /// It must call one.
    Required,
    /// It must call this one.
    Named(String),
}

/// The form of an answer's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that is valid under this schema, which is JSON.
    JsonSchema(String),
    /// What this regular expression matches as a whole.
    Regex(String),
    /// What this Lark grammar produces.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
}

impl Default for Output {
    /// Any text, and no tools.
    fn default() -> Self {
        Self {
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
            parallel_tool_calls: true,
            format: Format::default(),
        }
    }
}

impl Output {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the answer must be a call.
    #[must_use]
    pub fn must_call(&self) -> bool {
        matches!(
            self.tool_choice,
            ToolChoice::Required | ToolChoice::Named(_)
        )
    }

    /// The tools that may be called: none when that is forbidden.
    #[must_use]
    pub fn callable(&self) -> &[Tool] {
        match self.tool_choice {
            ToolChoice::None => &[],
            _ => &self.tools,
        }
    }

    /// Checks every part. The field names are OpenAI's, since tenants read them. [T-INF-10]
    ///
    /// # Errors
    /// Names the parameter and its limit.
    pub fn check(&self) -> Result<(), CodecError> {
        let what = "request";
        check_len(what, "tools", self.tools.len(), MAX_TOOLS)?;
        let bytes = |tool: &Tool| tool.name.len() + tool.description.len() + tool.parameters.len();
        let total = self.tools.iter().map(bytes).sum();
        check_len(what, "tools", total, MAX_TOOLS_BYTES)?;
        let mut names = BTreeSet::new();
        for tool in &self.tools {
            check_field(what, "tools", is_tool_name(&tool.name), || {
                let most = MAX_TOOL_NAME_BYTES;
                format!("has a name that is not 1 to {most} letters, digits, `_` or `-`")
            })?;
            check_field(what, "tools", names.insert(tool.name.as_str()), || {
                format!("has two of the name {}", tool.name)
            })?;
        }
        match &self.tool_choice {
            ToolChoice::Named(name) => {
                check_field(what, "tool_choice", names.contains(name.as_str()), || {
                    "names a tool that is not among the tools".to_owned()
                })?;
            }
            ToolChoice::Required => {
                check_field(what, "tool_choice", !names.is_empty(), || {
                    "is required, but there are no tools".to_owned()
                })?;
            }
            ToolChoice::None | ToolChoice::Auto => {}
        }
        let is_one = self.format == Format::Text || self.callable().is_empty();
        check_field(what, "response_format", is_one, || {
            "cannot be combined with tools that may be called; leave one out, or set tool_choice to \
             none"
                .to_owned()
        })?;
        self.format.check()
    }
}

impl Format {
    fn check(&self) -> Result<(), CodecError> {
        let (what, field) = ("request", "response_format");
        let text = match self {
            Self::Text | Self::JsonObject => return Ok(()),
            Self::Choice(choices) => {
                check_len(what, field, choices.len(), MAX_CHOICES)?;
                let are_some = !choices.is_empty() && choices.iter().all(|it| !it.is_empty());
                check_field(what, field, are_some, || {
                    "has no choices, or an empty one".to_owned()
                })?;
                let total = choices.iter().map(String::len).sum();
                return check_len(what, field, total, MAX_FORMAT_BYTES);
            }
            Self::JsonSchema(text) | Self::Regex(text) | Self::Lark(text) => text,
        };
        check_field(what, field, !text.is_empty(), || "is empty".to_owned())?;
        check_len(what, field, text.len(), MAX_FORMAT_BYTES)
    }
}

/// Whether a text can be the name of a tool.
#[must_use]
pub fn is_tool_name(name: &str) -> bool {
    (1..=MAX_TOOL_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Tool {
        Tool {
            name: name.to_owned(),
            description: "Says something.".to_owned(),
            parameters: r#"{"type":"object"}"#.to_owned(),
            strict: true,
        }
    }

    /// [T-INF-10]
    #[test]
    fn each_part_beyond_its_bound_is_named() {
        let wrong = |field: &str, change: fn(&mut Output)| {
            let mut output = Output {
                tools: vec![tool("say"), tool("sing")],
                ..Output::default()
            };
            output.check().expect("in order");
            change(&mut output);
            let error = output.check().expect_err(field).to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        };
        wrong("tools", |o| o.tools[0].name.clear());
        wrong("tools", |o| o.tools[0].name = "a b".into());
        wrong("tools", |o| {
            o.tools[0].name = "x".repeat(MAX_TOOL_NAME_BYTES + 1)
        });
        wrong("tools", |o| o.tools[0].name = "sing".into());
        wrong("tools", |o| o.tools = vec![tool("a"); MAX_TOOLS + 1]);
        wrong("tools", |o| {
            o.tools[1].parameters = "x".repeat(MAX_TOOLS_BYTES)
        });
        wrong("tool_choice", |o| {
            o.tool_choice = ToolChoice::Named("hum".into())
        });
        wrong("tool_choice", |o| {
            (o.tools, o.tool_choice) = (Vec::new(), ToolChoice::Required);
        });
        wrong("response_format", |o| o.format = Format::JsonObject);
        let form = |format| Output {
            format,
            ..Output::default()
        };
        for format in [
            Format::JsonSchema(String::new()),
            Format::JsonSchema("x".repeat(MAX_FORMAT_BYTES + 1)),
            Format::Regex("x".repeat(MAX_FORMAT_BYTES + 1)),
            Format::Lark("x".repeat(MAX_FORMAT_BYTES + 1)),
            Format::Choice(Vec::new()),
            Format::Choice(vec![String::new()]),
            Format::Choice(vec!["x".into(); MAX_CHOICES + 1]),
            Format::Choice(vec!["x".repeat(MAX_FORMAT_BYTES); 2]),
        ] {
            let error = form(format).check().expect_err("refused").to_string();
            assert!(error.contains("`response_format`"), "{error}");
        }
        form(Format::Choice(vec!["yes".into(), "no".into()]))
            .check()
            .expect("in order");
    }

    #[test]
    fn a_form_goes_with_tools_that_may_not_be_called() {
        let output = Output {
            tools: vec![tool("say")],
            tool_choice: ToolChoice::None,
            format: Format::JsonObject,
            ..Output::default()
        };
        output.check().expect("in order");
        assert!(output.callable().is_empty() && !output.must_call());
    }
}
