//! Tools, forms of answers and logarithmic probabilities, on their way out and back.

use crate::world::{World, events, send, within};
use serde_json::{Value, json};
use tether_wire::infer::{Format, Input, Output, Speaker, Tool, ToolChoice};

fn calling(stream: bool) -> Value {
    json!({
        "model": "calls",
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [
            {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "clock"}},
        ],
        "tool_choice": "required",
        "stream": stream,
    })
}

fn chunks(events: &[String]) -> Vec<Value> {
    let (last, chunks) = events.split_last().expect("events");
    assert_eq!(last, "[DONE]");
    let parse = |event: &String| serde_json::from_str(event).expect("JSON");
    chunks.iter().map(parse).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_tools_come_whole_with_their_ids_and_their_results_go_back() {
    let mut world = World::new().await;
    let (status, _, body) = send(world.post(&calling(false))).await;
    assert_eq!(status, 200, "{body}");
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let message = &choice["message"];
    assert!(message["content"].is_null() && message["refusal"].is_null());
    assert!(message.get("content").is_some(), "null, not absent");
    assert_eq!(
        message["tool_calls"],
        json!([
            {"id": "call00001", "type": "function",
             "function": {"name": "weather", "arguments": "{\"city\":\"Paris\"}"}},
            {"id": "call00002", "type": "function",
             "function": {"name": "clock", "arguments": "{}"}},
        ])
    );
    let seen = world.reports.seen.recv().await.expect("it arrived").request;
    let tool = |name: &str, parameters: &str| Tool {
        name: name.to_owned(),
        description: String::new(),
        parameters: parameters.to_owned(),
        strict: false,
    };
    let expected = Output {
        tools: vec![tool("weather", r#"{"type":"object"}"#), tool("clock", "")],
        tool_choice: ToolChoice::Required,
        ..Output::default()
    };
    assert_eq!(seen.output, expected);

    // The answer goes back as it came, with the results.
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "ok"});
    let mut next = calling(false);
    next["model"] = json!("tiny");
    let question = next["messages"][0].clone();
    next["messages"] = json!([question, message, result("call00001"), result("call00002")]);
    let (status, _, body) = send(world.post(&next)).await;
    assert_eq!(status, 200, "{body}");
    assert!(body["choices"][0]["message"].get("tool_calls").is_none());
    let seen = world.reports.seen.recv().await.expect("it arrived").request;
    let Input::Chat(messages) = seen.input else {
        panic!("a chat");
    };
    assert_eq!(messages[1].tool_calls.len(), 2);
    assert_eq!(messages[2].role, Speaker::Tool);
    assert_eq!(messages[3].name.as_deref(), Some("clock"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_tools_are_streamed_as_the_sdks_put_them_together() {
    let world = World::new().await;
    let request = world.post(&calling(true));
    let response = within(request.send()).await.expect("a head");
    let chunks = chunks(&events(response).await);
    let deltas: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"])
        .collect();
    let call = |calls: Value| json!({"tool_calls": calls});
    let begin = |index: u32, id: &str, name: &str| {
        json!({"index": index, "id": id, "type": "function",
               "function": {"name": name, "arguments": ""}})
    };
    let more =
        |index: u32, arguments: &str| json!({"index": index, "function": {"arguments": arguments}});
    let expected = [
        json!({"role": "assistant", "content": null, "refusal": null}),
        call(json!([
            begin(0, "call00001", "weather"),
            more(0, "{\"city\":")
        ])),
        call(json!([more(0, "\"Paris\"}")])),
        call(json!([begin(1, "call00002", "clock"), more(1, "{}")])),
        json!({}),
    ];
    assert_eq!(deltas, expected.iter().collect::<Vec<_>>());
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logprobs_come_where_they_were_asked_for_whole_and_streamed() {
    let world = World::new().await;
    let ask = |stream: bool| {
        world.post(&json!({
            "model": "tiny",
            "messages": [{"role": "user", "content": "Capital of France?"}],
            "logprobs": true,
            "top_logprobs": 2,
            "stream": stream,
        }))
    };
    let token = |text: &str| {
        json!({
            "token": text, "logprob": -0.5, "bytes": text.as_bytes(),
            "top_logprobs": [
                {"token": "a", "logprob": -1.0, "bytes": [97]},
                {"token": "b", "logprob": -1.0, "bytes": [98]},
            ],
        })
    };
    let (status, _, body) = send(ask(false)).await;
    assert_eq!(status, 200, "{body}");
    let expected = json!({"content": [token("Par"), token("is")], "refusal": null});
    assert_eq!(body["choices"][0]["logprobs"], expected);

    let response = within(ask(true).send()).await.expect("a head");
    let chunks = chunks(&events(response).await);
    let told = |chunk: &Value| chunk["choices"][0]["logprobs"]["content"].clone();
    let told: Vec<Value> = chunks.iter().map(told).collect();
    let nothing = Value::Null;
    let expected = [
        nothing.clone(),
        json!([token("Par")]),
        // A token that has no text.
        json!([]),
        json!([token("is")]),
        nothing,
    ];
    assert_eq!(told, expected);

    let (_, _, body) = send(world.chat("tiny", false)).await;
    assert!(body["choices"][0]["logprobs"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_of_an_answer_arrives() {
    let mut world = World::new().await;
    let (status, _, body) = send(world.post(&json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "Capital of France?"}],
        "response_format": {"type": "json_schema", "json_schema":
            {"name": "city", "strict": true, "schema": {"type": "object"}}},
    })))
    .await;
    assert_eq!(status, 200, "{body}");
    let seen = world.reports.seen.recv().await.expect("it arrived").request;
    let schema = r#"{"type":"object"}"#.to_owned();
    assert_eq!(seen.output.format, Format::JsonSchema(schema));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_cannot_be_followed_is_refused_by_the_name_that_the_tenant_gave_it() {
    let world = World::new().await;
    for (field, form) in [
        ("response_format", json!({"type": "json_object"})),
        ("structured_outputs", json!({"regex": "("})),
    ] {
        let mut body = json!({
            "model": "no-such-form",
            "messages": [{"role": "user", "content": "Capital of France?"}],
        });
        body[field] = form;
        let (status, _, body) = send(world.post(&body)).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(body["error"]["param"], field);
        let message = body["error"]["message"].as_str().expect("text");
        assert!(message.starts_with(field), "{message}");
    }
}
