use super::*;
use serde_json::{Value, json};
use tether_wire::infer::{MAX_LOGIT_BIAS, Speaker};

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]});
    body[field] = value;
    body
}

fn parse(body: &Value) -> Result<ChatRequest, Problem> {
    parse_chat(body.to_string().as_bytes())
}

fn honoured(field: &str, value: Value) -> ChatRequest {
    parse(&with(field, value.clone())).unwrap_or_else(|p| panic!("{field}={value}: {p}"))
}

/// Code and parameter of the refusal.
fn refused(body: &Value) -> (&'static str, String) {
    let problem = parse(body).expect_err("refused");
    assert_eq!(problem.status.as_u16(), 400);
    (problem.code, problem.param.unwrap_or_default())
}

#[test]
fn what_is_honoured_arrives() {
    assert_eq!(
        honoured("max_tokens", json!(7)).sampling.max_tokens,
        Some(7)
    );
    assert_eq!(
        honoured("max_completion_tokens", json!(8))
            .sampling
            .max_tokens,
        Some(8)
    );
    let s = |field: &str, value: Value| honoured(field, value).sampling;
    assert!((s("temperature", json!(0)).temperature).abs() < f32::EPSILON);
    assert!((s("top_p", json!(0.5)).top_p - 0.5).abs() < f32::EPSILON);
    assert!((s("min_p", json!(0.25)).min_p - 0.25).abs() < f32::EPSILON);
    assert!((s("frequency_penalty", json!(-2)).frequency_penalty + 2.0).abs() < f32::EPSILON);
    assert!((s("presence_penalty", json!(1.5)).presence_penalty - 1.5).abs() < f32::EPSILON);
    assert_eq!(s("top_k", json!(40)).top_k, 40);
    assert_eq!(s("seed", json!(42)).seed, Some(42));
    assert_eq!(s("seed", json!(-1)).seed, Some(u64::MAX));
    assert_eq!(s("stop", json!("\n")).stop, ["\n"]);
    assert_eq!(s("stop", json!(["a", "b"])).stop, ["a", "b"]);
    let bias = s("logit_bias", json!({"50256": -100, "7": 1.5})).logit_bias;
    assert_eq!(bias, BTreeMap::from([(7, 1.5), (50256, -100.0)]));
    assert!((s("repetition_penalty", json!(1.5)).repetition_penalty - 1.5).abs() < f32::EPSILON);
    assert_eq!(s("logprobs", json!(true)).top_logprobs, Some(0));
    let mut body = with("top_logprobs", json!(20));
    body["logprobs"] = json!(true);
    let sampling = parse(&body).expect("honoured").sampling;
    assert_eq!(sampling.top_logprobs, Some(20));
    assert_eq!(honoured("n", json!(MAX_ANSWERS)).answers, MAX_ANSWERS);
    assert!(honoured("stream", json!(true)).stream);
    let mut body = with("stream", json!(true));
    body["stream_options"] = json!({"include_usage": true, "include_obfuscation": false});
    assert!(parse(&body).expect("honoured").include_usage);
}

#[test]
fn what_changes_nothing_is_accepted() {
    let plain = honoured("user", Value::Null);
    for (field, value) in [
        ("user", json!("u-1")),
        ("safety_identifier", json!("x")),
        ("prompt_cache_key", json!("x")),
        ("prompt_cache_retention", json!("24h")),
        ("metadata", json!({"a": "b"})),
        ("store", json!(false)),
        ("service_tier", json!("auto")),
        ("service_tier", json!("default")),
        ("n", json!(1)),
        ("logprobs", json!(false)),
        ("top_logprobs", json!(0)),
        ("tools", json!([])),
        ("tool_choice", json!("none")),
        ("tool_choice", json!("auto")),
        ("parallel_tool_calls", json!(false)),
        ("function_call", json!("none")),
        ("functions", json!([])),
        ("response_format", json!({"type": "text"})),
        ("modalities", json!(["text"])),
        ("stream", json!(false)),
    ] {
        assert_eq!(honoured(field, value), plain, "{field}");
    }
    // `null` is as good as absent, for every parameter.
    let legacy = LEGACY.iter().map(|(field, ..)| field);
    for field in UNSUPPORTED.iter().map(|(field, _)| field).chain(LABELS) {
        assert_eq!(honoured(field, Value::Null), plain, "{field}");
    }
    for field in legacy.chain(&[
        "n",
        "logprobs",
        "top_logprobs",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "structured_outputs",
        "repetition_penalty",
    ]) {
        assert_eq!(honoured(field, Value::Null), plain, "{field}");
    }
}

#[test]
fn tenants_can_read_of_each_parameter_what_becomes_of_it() {
    let document = include_str!("../../../../docs/api.md");
    let row = |field: &str| {
        let name = format!("`{field}`");
        let mut rows = document.lines().filter(|line| line.starts_with('|'));
        rows.find(|row| row.split('|').nth(1).is_some_and(|it| it.contains(&name)))
            .unwrap_or_else(|| panic!("docs/api.md says nothing of {field}"))
    };
    let legacy = LEGACY.iter().map(|(field, ..)| field);
    for field in UNSUPPORTED.iter().map(|(field, _)| field).chain(legacy) {
        assert!(row(field).contains("| refused |"), "{field}");
    }
    for field in LABELS {
        assert!(row(field).contains("| changes nothing |"), "{field}");
    }
}

#[test]
fn what_we_do_not_have_is_refused_by_name() {
    for (field, value) in [
        ("functions", json!([{"name": "f"}])),
        ("function_call", json!("auto")),
        ("guided_regex", json!("a+")),
        ("guided_choice", json!(["a"])),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "alloy", "format": "wav"})),
        ("prediction", json!({"type": "content", "content": "x"})),
        ("reasoning_effort", json!("low")),
        ("verbosity", json!("low")),
        ("web_search_options", json!({})),
        ("store", json!(true)),
        ("service_tier", json!("flex")),
    ] {
        assert_eq!(
            refused(&with(field, value)),
            ("unsupported_parameter", field.to_owned())
        );
    }
    let hint = |field, value| parse(&with(field, value)).expect_err("refused").message;
    assert!(hint("functions", json!([{"name": "f"}])).contains("use 'tools'"));
    assert!(hint("guided_json", json!({})).contains("use 'structured_outputs'"));
    assert_eq!(
        refused(&with("best_of", json!(1))),
        ("unknown_parameter", "best_of".to_owned())
    );
    let mut body = with("stream", json!(true));
    body["stream_options"] = json!({"include_usage": true, "other": 1});
    assert_eq!(
        refused(&body),
        ("unknown_parameter", "stream_options.other".to_owned())
    );
    body["stream_options"] = json!({"include_obfuscation": true});
    assert_eq!(refused(&body).0, "unsupported_parameter");
}

#[test]
fn wrong_values_are_named() {
    for (field, value, code) in [
        ("temperature", json!("hot"), "invalid_type"),
        ("temperature", json!(-0.1), "invalid_value"),
        ("temperature", json!(2.1), "invalid_value"),
        ("temperature", json!(1e300), "invalid_value"),
        ("top_p", json!(1.1), "invalid_value"),
        ("min_p", json!(-1), "invalid_value"),
        ("top_k", json!(-1), "invalid_type"),
        ("max_tokens", json!(0), "invalid_value"),
        ("max_completion_tokens", json!(0), "invalid_value"),
        ("max_tokens", json!(1.5), "invalid_type"),
        ("max_tokens", json!(-1), "invalid_type"),
        ("frequency_penalty", json!(3), "invalid_value"),
        ("presence_penalty", json!(-3), "invalid_value"),
        ("seed", json!(1.5), "invalid_type"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "invalid_value"),
        ("stop", json!(""), "invalid_value"),
        ("stop", json!(5), "invalid_type"),
        ("logit_bias", json!({"x": 1}), "invalid_value"),
        ("logit_bias", json!({"1": 101}), "invalid_value"),
        ("logit_bias", json!([1]), "invalid_type"),
        ("logit_bias", json!({"7": 1, "07": 2}), "invalid_value"),
        ("max_tokens", json!(4_294_967_296_u64), "invalid_value"),
        ("max_tokens", json!(1.5), "invalid_type"),
        ("repetition_penalty", json!(0), "invalid_value"),
        ("repetition_penalty", json!(10.5), "invalid_value"),
        ("n", json!(0), "invalid_value"),
        ("n", json!(MAX_ANSWERS + 1), "invalid_value"),
        ("n", json!(-1), "invalid_type"),
        ("n", json!("2"), "invalid_type"),
        ("logprobs", json!(5), "invalid_type"),
        ("top_logprobs", json!(3), "invalid_value"),
        ("top_logprobs", json!(300), "invalid_value"),
        ("stream", json!("yes"), "invalid_type"),
        (
            "stream_options",
            json!({"include_usage": true}),
            "invalid_value",
        ),
        ("model", json!(5), "invalid_type"),
        ("model", json!(""), "invalid_value"),
        ("user", json!(5), "invalid_type"),
        ("user", json!("x".repeat(600)), "invalid_value"),
        ("metadata", json!({"a": 1}), "invalid_type"),
        ("metadata", json!({"a": "x".repeat(513)}), "invalid_value"),
        ("messages", json!([]), "invalid_value"),
        ("messages", json!("hi"), "invalid_type"),
        ("messages", json!({}), "invalid_type"),
    ] {
        let (found, param) = refused(&with(field, value.clone()));
        assert_eq!((found, param.as_str()), (code, field), "{field}={value}");
    }
    let mut body = with("top_logprobs", json!(21));
    body["logprobs"] = json!(true);
    assert_eq!(refused(&body), ("invalid_value", "top_logprobs".to_owned()));
    let mut body = with("max_tokens", json!(5));
    body["max_completion_tokens"] = json!(6);
    assert_eq!(refused(&body).1, "max_tokens");
    let missing = json!({"messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(
        refused(&missing),
        ("missing_required_parameter", "model".to_owned())
    );
    assert_eq!(refused(&json!({"model": "m"})).1, "messages");
}

#[test]
fn messages_of_every_form_arrive() {
    let messages = json!([
        {"role": "system", "content": "a"},
        {"role": "developer", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
        // An answer of ours, sent back as the SDK dumps it.
        {"role": "assistant", "content": "e", "refusal": null, "annotations": [], "audio": null,
         "function_call": null, "tool_calls": null},
        {"role": "user", "content": "é\u{0}\n"},
    ]);
    let found: Vec<(Speaker, String)> = honoured("messages", messages)
        .messages
        .into_iter()
        .map(|message| (message.role, message.content))
        .collect();
    let expected = [
        (Speaker::System, "a"),
        (Speaker::System, "b"),
        (Speaker::User, "cd"),
        (Speaker::Assistant, "e"),
        (Speaker::User, "é\u{0}\n"),
    ];
    assert_eq!(found, expected.map(|(role, text)| (role, text.to_owned())));
}

#[test]
fn messages_that_we_cannot_read_whole_are_refused_by_their_place() {
    for (message, code, param) in [
        (
            json!({"content": "a"}),
            "missing_required_parameter",
            "role",
        ),
        (
            json!({"role": "user"}),
            "missing_required_parameter",
            "content",
        ),
        (
            json!({"role": "user", "content": null}),
            "missing_required_parameter",
            "content",
        ),
        (
            json!({"role": "robot", "content": "a"}),
            "invalid_value",
            "role",
        ),
        (
            json!({"role": "function", "content": "a", "name": "f"}),
            "unsupported_parameter",
            "role",
        ),
        (
            json!({"role": "user", "content": 5}),
            "invalid_type",
            "content",
        ),
        (
            json!({"role": "user", "content": []}),
            "invalid_value",
            "content",
        ),
        (
            json!({"role": "user", "content": "a", "name": "<b>"}),
            "invalid_value",
            "name",
        ),
        (
            json!({"role": "user", "content": "a", "x": 1}),
            "unknown_parameter",
            "x",
        ),
        (
            json!({"role": "user", "content": "a", "tool_calls": [{"id": "1"}]}),
            "unsupported_parameter",
            "tool_calls",
        ),
        (
            json!({"role": "user", "content": "a", "tool_call_id": "1"}),
            "unsupported_parameter",
            "tool_call_id",
        ),
        (
            json!({"role": "user", "content": "a", "parsed": {}}),
            "unknown_parameter",
            "parsed",
        ),
        (
            json!({"role": "assistant", "content": null, "tool_calls": []}),
            "missing_required_parameter",
            "content",
        ),
        (
            json!({"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": "{}"}}),
            "unsupported_parameter",
            "function_call",
        ),
        (
            json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
            "unsupported_parameter",
            "content[0].type",
        ),
        (
            json!({"role": "user", "content": [{"type": "text"}]}),
            "missing_required_parameter",
            "content[0].text",
        ),
    ] {
        let found = refused(&with("messages", json!([message])));
        assert_eq!(found, (code, format!("messages[0].{param}")));
    }
}

#[test]
fn more_than_any_list_may_hold_is_refused() {
    let message = json!({"role": "user", "content": "x"});
    let many = vec![message; tether_wire::infer::MAX_MESSAGES + 1];
    assert_eq!(refused(&with("messages", json!(many))).1, "messages");
    let bias: serde_json::Map<String, Value> = (0..=MAX_LOGIT_BIAS)
        .map(|id| (id.to_string(), json!(0)))
        .collect();
    assert_eq!(
        refused(&with("logit_bias", Value::Object(bias))).1,
        "logit_bias"
    );
    let twice =
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"logit_bias":{"7":1,"7":2}}"#;
    let problem = parse_chat(twice.as_bytes()).expect_err("which one is meant");
    assert_eq!(problem.message, "'logit_bias' names the token 7 twice.");
    let huge = parse(&with("max_tokens", json!(4_294_967_296_u64))).expect_err("too many");
    assert_eq!(
        huge.message,
        "'max_tokens' is 4294967296, more than 4294967295."
    );
    let fields: serde_json::Map<String, Value> =
        (0..200).map(|n| (format!("f{n}"), json!(0))).collect();
    assert_eq!(refused(&Value::Object(fields)).0, "invalid_json");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"{{"model":"m","messages":{deep}}}"#);
    assert!(parse_chat(body.as_bytes()).is_err());
    let body = format!(r#"{{"model":"m","messages":[],"tools":{deep}}}"#);
    assert!(parse_chat(body.as_bytes()).is_err());
}

#[test]
fn what_is_no_json_is_refused_with_its_position() {
    let message = |body: &[u8]| {
        let problem = parse_chat(body).expect_err("refused");
        assert_eq!(problem.code, "invalid_json");
        problem.message
    };
    assert!(message(b"{\"model\": \"m\",\n oops}").contains("line 2 column 2"));
    assert!(message(b"{\"model\": \"m\"").contains("line 1"));
    assert!(message(b"{\"model\": \"\xff\"}").contains("byte 11"));
    assert!(message(b"[]").contains("must be a JSON object"));
    assert!(message(b"").contains("line 1"));
    assert!(message(br#"{"model":"a","model":"b"}"#).contains("'model' comes twice"));
}

mod output;
