//! The grammar of an answer that must call a tool, in the way that the model was taught; and of one
//! that may, where the arguments must be valid.

use super::Family;
use crate::text::grammar::{GrammarError, Source, fix_blanks, schema};
use serde_json::{Value, json};
use std::fmt::Write;
use tether_wire::infer::{Output, Tool, ToolChoice};

/// Whether an answer has to follow a grammar of calls: it must be a call, or some tool asks that the
/// arguments of its calls are valid.
pub(crate) fn must_follow(output: &Output) -> bool {
    output.must_call() || output.callable().iter().any(|tool| tool.strict)
}

/// The grammar of such an answer.
pub(crate) fn grammar(family: Family, output: &Output) -> Result<Source, GrammarError> {
    let named = match &output.tool_choice {
        ToolChoice::Named(name) => Some(name),
        _ => None,
    };
    let may_be_chosen = |tool: &&Tool| named.is_none_or(|name| *name == tool.name);
    let tools: Vec<&Tool> = output.callable().iter().filter(may_be_chosen).collect();
    let is_single = named.is_some() || !output.parallel_tool_calls;
    let calls = match (family, is_single) {
        (Family::Hermes, true) => r#"call: "<tool_call>\n" body "\n</tool_call>""#,
        (Family::Hermes, false) => {
            r#"call: one ("\n" one)*
one: "<tool_call>\n" body "\n</tool_call>""#
        }
        (Family::Llama, true) => "call: body",
        (Family::Llama, false) => r#"call: body (";" body)*"#,
        (Family::Mistral, true) => r#"call: "[TOOL_CALLS][" body "]""#,
        (Family::Mistral, false) => r#"call: "[TOOL_CALLS][" body (", " body)* "]""#,
    };
    let mut lark = format!("{}\n{calls}\n", start(family, output));
    let bodies: Vec<String> = (0..tools.len()).map(|n| format!("body_{n}")).collect();
    let mut add = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(lark, "{line}");
    };
    add(format!("body: {}", bodies.join(" | ")));
    let key = family.arguments();
    for (n, tool) in tools.into_iter().enumerate() {
        let arguments = arguments(tool, output)?;
        // The name is of letters, digits, `_` and `-` alone.
        add(format!(
            r#"body_{n}: "{{\"name\": \"{}\", \"{key}\": " arguments_{n} "}}""#,
            tool.name
        ));
        add(format!("arguments_{n}: %json {arguments}"));
    }
    Ok(Source::Lark(lark))
}

/// What the answer begins with: where a call is not demanded, text may come before each, or alone.
fn start(family: Family, output: &Output) -> &'static str {
    match (output.must_call(), family) {
        (true, _) => "start: call",
        (false, Family::Hermes) => {
            r#"start: (before rest)* text
before[lazy]: /(.|\n)*<tool_call>/
rest: "\n" body "\n</tool_call>"
text: /(.|\n)*/"#
        }
        (false, Family::Mistral) => {
            r#"start: before rest | text
before[lazy]: /(.|\n)*\[TOOL_CALLS\]/
rest: "[" body (", " body)* "]"
text: /(.|\n)*/"#
        }
        (false, Family::Llama) => {
            r"start: call | text
text: /[^\s{](.|\n)*/"
        }
    }
}

/// The schema of a tool's arguments. Where the answer may or may not call, it holds for the tools that
/// ask for it.
fn arguments(tool: &Tool, output: &Output) -> Result<Value, GrammarError> {
    let is_free = !output.must_call() && !tool.strict;
    let mut schema = if is_free {
        json!({"type": "object"})
    } else if tool.parameters.is_empty() {
        json!({"type": "object", "properties": {}, "additionalProperties": false})
    } else {
        schema(&tool.parameters)
            .map_err(|error| GrammarError(format!("of the tool {}: {error}", tool.name)))?
    };
    if schema.get("type").is_none() && schema.get("properties").is_some() {
        schema["type"] = json!("object");
    }
    fix_blanks(&mut schema);
    Ok(schema)
}
