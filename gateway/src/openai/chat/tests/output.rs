//! What an answer must be, and the calls of tools in a chat.

use super::{honoured, parse, refused, with};
use serde_json::{Value, json};
use tether_wire::infer::{
    Format, MAX_CALL_ID_BYTES, MAX_CHOICES, MAX_FORMAT_BYTES, MAX_TOOL_CALLS, MAX_TOOLS,
    MAX_TOOLS_BYTES, Output, Speaker, ToolCall, ToolChoice,
};

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

fn calling(choice: Value) -> Value {
    let mut body = with("tools", json!([tool("say"), tool("sing")]));
    body["tool_choice"] = choice;
    body
}

#[test]
fn tools_arrive_as_they_are() {
    let parameters = r#"{"type":"object","properties":{"z":{},"a":{}},"required":["z"]}"#;
    let mut body = with(
        "tools",
        json!([tool("say"), {"type": "function", "function": {
        "name": "sing", "description": "Sings.", "strict": true, "parameters": {"X": 0}}}]),
    );
    body["parallel_tool_calls"] = json!(false);
    let body = body.to_string().replace(r#"{"X":0}"#, parameters);
    let output = super::parse_chat(body.as_bytes()).expect("honoured").output;
    assert_eq!(output.tools.len(), 2);
    assert_eq!(output.tools[0].name, "say");
    assert!(!output.tools[0].strict && output.tools[0].description.is_empty());
    let sing = &output.tools[1];
    assert_eq!((sing.description.as_str(), sing.strict), ("Sings.", true));
    assert_eq!(sing.parameters, parameters, "in their order");
    assert_eq!(output.tool_choice, ToolChoice::Auto);
    assert!(!output.parallel_tool_calls);
    let bare = json!([{"type": "function", "function": {"name": "f", "parameters": null}}]);
    assert_eq!(honoured("tools", bare).output.tools[0].parameters, "");
}

#[test]
fn whether_tools_are_called_arrives() {
    for (choice, expected) in [
        (json!("none"), ToolChoice::None),
        (json!("auto"), ToolChoice::Auto),
        (json!("required"), ToolChoice::Required),
        (
            json!({"type": "function", "function": {"name": "sing"}}),
            ToolChoice::Named("sing".to_owned()),
        ),
    ] {
        let output = parse(&calling(choice)).expect("honoured").output;
        assert_eq!(output.tool_choice, expected);
        assert!(output.parallel_tool_calls);
    }
    for (choice, code, param) in [
        (json!("any"), "invalid_value", "tool_choice"),
        (json!(1), "invalid_type", "tool_choice"),
        (tool_named("hum"), "invalid_value", "tool_choice"),
        (
            json!({"type": "function", "name": "say"}),
            "missing_required_parameter",
            "tool_choice.function",
        ),
        (
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}),
            "unsupported_parameter",
            "tool_choice.type",
        ),
        (
            json!({"type": "custom", "custom": {"name": "say"}}),
            "unsupported_parameter",
            "tool_choice.type",
        ),
    ] {
        assert_eq!(refused(&calling(choice)), (code, param.to_owned()));
    }
    for choice in [json!("required"), tool_named("say")] {
        let body = with("tool_choice", choice);
        assert_eq!(refused(&body).1, "tool_choice", "there are no tools");
    }
}

fn tool_named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[test]
fn tools_that_mean_nothing_are_refused_by_their_place() {
    let function = |function: Value| json!({"type": "function", "function": function});
    for (tool, code, param) in [
        (json!("say"), "invalid_type", ""),
        (
            json!({"function": {"name": "f"}}),
            "missing_required_parameter",
            ".type",
        ),
        (
            json!({"type": "custom", "custom": {"name": "f"}}),
            "unsupported_parameter",
            ".type",
        ),
        (
            function(json!({})),
            "missing_required_parameter",
            ".function.name",
        ),
        (
            function(json!({"name": "a b"})),
            "invalid_value",
            ".function.name",
        ),
        (
            function(json!({"name": "x".repeat(65)})),
            "invalid_value",
            ".function.name",
        ),
        (
            function(json!({"name": "f", "parameters": "{}"})),
            "invalid_type",
            ".function.parameters",
        ),
        (
            function(json!({"name": "f", "parameters": {"type": "string"}})),
            "invalid_value",
            ".function.parameters",
        ),
        (
            function(json!({"name": "f", "parameters": {"x": "x".repeat(MAX_TOOLS_BYTES)}})),
            "invalid_value",
            ".function.parameters",
        ),
        (
            function(json!({"name": "f", "strict": "yes"})),
            "invalid_type",
            ".function.strict",
        ),
        (
            function(json!({"name": "f", "returns": 1})),
            "unknown_parameter",
            ".function.returns",
        ),
        (
            json!({"type": "function", "function": {"name": "f"}, "x": 1}),
            "unknown_parameter",
            ".x",
        ),
    ] {
        let found = refused(&with("tools", json!([tool])));
        assert_eq!(found, (code, format!("tools[0]{param}")));
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
    let body = with(
        "tools",
        json!([function(json!({"name": "f", "parameters": {"X": 0}}))]),
    );
    let body = body.to_string().replace(r#"{"X":0}"#, &deep);
    let problem = super::parse_chat(body.as_bytes()).expect_err("too deep");
    assert_eq!(
        problem.param.as_deref(),
        Some("tools[0].function.parameters")
    );
    let many: Vec<Value> = (0..=MAX_TOOLS).map(|n| tool(&format!("f{n}"))).collect();
    let twice = vec![tool("say"), tool("say")];
    let long = json!({"name": "f", "description": "x".repeat(MAX_TOOLS_BYTES)});
    for tools in [many, twice, vec![function(long)]] {
        assert_eq!(refused(&with("tools", json!(tools))).1, "tools");
    }
    assert_eq!(refused(&with("tools", json!({}))).1, "tools");
}

#[test]
fn forms_of_text_arrive() {
    let schema = r#"{"type":"object","properties":{"z":{"type":"string"},"a":{}}}"#;
    let strict = json!({"name": "s", "description": "d", "strict": true, "schema": {"X": 0}});
    let body = with(
        "response_format",
        json!({"type": "json_schema", "json_schema": strict}),
    );
    let body = body.to_string().replace(r#"{"X":0}"#, schema);
    let output = super::parse_chat(body.as_bytes()).expect("honoured").output;
    assert_eq!(output.format, Format::JsonSchema(schema.to_owned()));
    for (field, value, expected) in [
        (
            "response_format",
            json!({"type": "json_object"}),
            Format::JsonObject,
        ),
        ("response_format", json!({"type": "text"}), Format::Text),
        (
            "structured_outputs",
            json!({"json": {"type": "object"}}),
            Format::JsonSchema(r#"{"type":"object"}"#.to_owned()),
        ),
        (
            "structured_outputs",
            json!({"json": "{ }"}),
            Format::JsonSchema("{ }".to_owned()),
        ),
        (
            "structured_outputs",
            json!({"json_object": true, "regex": null}),
            Format::JsonObject,
        ),
        (
            "structured_outputs",
            json!({"regex": "[a-z]+"}),
            Format::Regex("[a-z]+".to_owned()),
        ),
        (
            "structured_outputs",
            json!({"grammar": "start: \"a\""}),
            Format::Lark("start: \"a\"".to_owned()),
        ),
        (
            "structured_outputs",
            json!({"choice": ["yes", "no"], "json_object": false}),
            Format::Choice(vec!["yes".to_owned(), "no".to_owned()]),
        ),
    ] {
        let output = honoured(field, value).output;
        assert_eq!(output.format, expected);
        let plain = Output {
            format: Format::Text,
            ..output
        };
        assert!(plain.is_plain());
    }
}

#[test]
fn forms_that_mean_nothing_are_refused_by_name() {
    let schema = |inside: Value| json!({"type": "json_schema", "json_schema": inside});
    let long = "x".repeat(MAX_FORMAT_BYTES + 1);
    for (value, code, param) in [
        (json!("json"), "invalid_type", ""),
        (json!({}), "missing_required_parameter", ".type"),
        (json!({"type": "xml"}), "unsupported_parameter", ".type"),
        (json!({"type": "text", "x": 1}), "unknown_parameter", ".x"),
        (
            json!({"type": "json_schema"}),
            "missing_required_parameter",
            ".json_schema",
        ),
        (
            schema(json!({"schema": {}})),
            "missing_required_parameter",
            ".json_schema.name",
        ),
        (
            schema(json!({"name": "a b", "schema": {}})),
            "invalid_value",
            ".json_schema.name",
        ),
        (
            schema(json!({"name": "s"})),
            "missing_required_parameter",
            ".json_schema.schema",
        ),
        (
            schema(json!({"name": "s", "schema": []})),
            "invalid_type",
            ".json_schema.schema",
        ),
        (
            schema(json!({"name": "s", "schema": {"title": long}})),
            "invalid_value",
            ".json_schema.schema",
        ),
        (
            schema(json!({"name": "s", "schema": {}, "x": 1})),
            "unknown_parameter",
            ".json_schema.x",
        ),
    ] {
        let found = refused(&with("response_format", value));
        assert_eq!(found, (code, format!("response_format{param}")));
    }
    let many = vec!["x"; MAX_CHOICES + 1];
    for (value, code, param) in [
        (json!("a+"), "invalid_type", ""),
        (json!({}), "invalid_value", ""),
        (json!({"json_object": false}), "invalid_value", ""),
        (json!({"regex": "a", "grammar": "b"}), "invalid_value", ""),
        (json!({"regex": ""}), "invalid_value", ".regex"),
        (json!({"regex": long}), "invalid_value", ".regex"),
        (json!({"grammar": long}), "invalid_value", ".grammar"),
        (json!({"grammar": {}}), "invalid_type", ".grammar"),
        (json!({"json": "no"}), "invalid_type", ".json"),
        (json!({"json": "[]"}), "invalid_type", ".json"),
        (json!({"json": long}), "invalid_value", ".json"),
        (json!({"choice": []}), "invalid_value", ".choice"),
        (json!({"choice": [""]}), "invalid_value", ".choice"),
        (json!({"choice": [1]}), "invalid_type", ".choice"),
        (json!({"choice": many}), "invalid_value", ".choice"),
        (json!({"choice": [long, long]}), "invalid_value", ".choice"),
        (
            json!({"regex": "a", "whitespace_pattern": " "}),
            "unsupported_parameter",
            ".whitespace_pattern",
        ),
        (
            json!({"structural_tag": "{}"}),
            "unsupported_parameter",
            ".structural_tag",
        ),
        (json!({"regex": "a", "x": 1}), "unknown_parameter", ".x"),
    ] {
        let found = refused(&with("structured_outputs", value));
        assert_eq!(found, (code, format!("structured_outputs{param}")));
    }
}

#[test]
fn forms_do_not_go_together_with_each_other_and_with_calls() {
    let mut body = with("response_format", json!({"type": "json_object"}));
    body["structured_outputs"] = json!({"regex": "a"});
    assert_eq!(refused(&body).1, "structured_outputs");
    for (field, value) in [
        ("response_format", json!({"type": "json_object"})),
        ("structured_outputs", json!({"regex": "a"})),
    ] {
        let mut body = calling(json!("auto"));
        body[field] = value;
        let problem = parse(&body).expect_err("refused");
        assert_eq!(problem.param.as_deref(), Some(field));
        assert!(problem.message.starts_with(&format!("'{field}' ")));
        body["tool_choice"] = json!("none");
        assert!(parse(&body).is_ok(), "with tools that are not called");
    }
}

fn assistant(ids: &[&str]) -> Value {
    let call = |id: &&str| {
        json!({"id": id, "type": "function",
               "function": {"name": "say", "arguments": "{\"a\": 1}"}})
    };
    json!({"role": "assistant", "content": null,
           "tool_calls": ids.iter().map(call).collect::<Vec<_>>()})
}

fn result(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": "done"})
}

fn user() -> Value {
    json!({"role": "user", "content": "hi", "name": "ann"})
}

#[test]
fn calls_and_their_results_arrive() {
    // As the SDKs send back what they were given.
    let mut parsed = assistant(&["c"]);
    parsed["parsed"] = Value::Null;
    parsed["refusal"] = Value::Null;
    parsed["content"] = json!("Let me see.");
    parsed["tool_calls"][0]["index"] = json!(0);
    parsed["tool_calls"][0]["function"]["parsed_arguments"] = json!({"a": 1});
    parsed["tool_calls"][0]["function"]["arguments"] = json!("");
    let chat = honoured(
        "messages",
        json!([
            user(),
            assistant(&["a", "b"]),
            result("b"),
            result("a"),
            parsed,
            result("c")
        ]),
    );
    let call = |id: &str, arguments: &str| ToolCall {
        id: id.to_owned(),
        name: "say".to_owned(),
        arguments: arguments.to_owned(),
    };
    let messages = chat.messages;
    assert_eq!(messages[0].name.as_deref(), Some("ann"));
    assert_eq!(
        messages[1].tool_calls,
        [call("a", "{\"a\": 1}"), call("b", "{\"a\": 1}")]
    );
    assert_eq!(messages[1].content, "");
    assert_eq!(messages[2].role, Speaker::Tool);
    assert_eq!(messages[2].tool_call_id.as_deref(), Some("b"));
    assert_eq!(messages[2].name.as_deref(), Some("say"), "its tool's");
    assert_eq!(messages[4].content, "Let me see.");
    assert_eq!(messages[4].tool_calls, [call("c", "{}")]);
}

#[test]
fn calls_without_results_and_results_without_calls_are_refused_by_their_place() {
    let ids: Vec<String> = (0..=MAX_TOOL_CALLS).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let long = "x".repeat(MAX_CALL_ID_BYTES + 1);
    for (messages, param) in [
        (json!([user(), result("a")]), "[1].tool_call_id"),
        (
            json!([user(), assistant(&["a"]), result("b")]),
            "[2].tool_call_id",
        ),
        (
            json!([user(), assistant(&["a"]), result("a"), result("a")]),
            "[3].tool_call_id",
        ),
        (
            json!([user(), assistant(&["a"]), result("a"), user(), result("a")]),
            "[4].tool_call_id",
        ),
        (json!([user(), assistant(&["a"]), user()]), "[1].tool_calls"),
        (
            json!([user(), assistant(&["a", "b"]), result("a"), user()]),
            "[1].tool_calls",
        ),
        (json!([user(), assistant(&["a"])]), "[1].tool_calls"),
        (json!([user(), assistant(&["a", "a"])]), "[1].tool_calls"),
        (json!([user(), assistant(&ids)]), "[1].tool_calls"),
        (json!([assistant(&[&long])]), "[0].tool_calls[0].id"),
        (json!([assistant(&[""])]), "[0].tool_calls[0].id"),
        (json!([result(&long)]), "[0].tool_call_id"),
    ] {
        let found = refused(&with("messages", messages));
        assert_eq!(found, ("invalid_value", format!("messages{param}")));
    }
    let without = json!({"role": "tool", "content": "done"});
    let (code, param) = refused(&with("messages", json!([without])));
    assert_eq!(code, "missing_required_parameter");
    assert_eq!(param, "messages[0].tool_call_id");
}

#[test]
fn calls_that_mean_nothing_are_refused_by_their_place() {
    for (path, value, code) in [
        ("/type", json!("custom"), "unsupported_parameter"),
        ("/type", Value::Null, "missing_required_parameter"),
        ("/id", Value::Null, "missing_required_parameter"),
        ("/id", json!(1), "invalid_type"),
        ("/function", json!("say"), "invalid_type"),
        ("/function/name", json!("a b"), "invalid_value"),
        ("/function/arguments", json!("{"), "invalid_type"),
        ("/function/arguments", json!({}), "invalid_type"),
        (
            "/function/arguments",
            Value::Null,
            "missing_required_parameter",
        ),
    ] {
        let mut message = assistant(&["a"]);
        let place = format!("/tool_calls/0{path}");
        *message.pointer_mut(&place).expect("it is there") = value;
        let found = refused(&with("messages", json!([message])));
        let param = format!("messages[0].tool_calls[0]{}", path.replace('/', "."));
        assert_eq!(found, (code, param));
    }
}
