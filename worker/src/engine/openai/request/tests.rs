use super::*;
use std::collections::BTreeMap;
use tether_wire::CorrelationId;
use tether_wire::infer::{Speaker, ToolCall};

fn task(input: Input) -> Task {
    Task {
        correlation: CorrelationId([1; 16]),
        input,
        sampling: Sampling::default(),
        output: Output::default(),
        transcript: Vec::new(),
    }
}

fn text() -> Task {
    task(Input::Text("hé".to_owned()))
}

fn chat() -> Task {
    task(Input::Chat(vec![Message::new(Speaker::User, "hi")]))
}

fn tool(strict: bool) -> Tool {
    Tool {
        name: "say".to_owned(),
        description: "Says.".to_owned(),
        parameters: r#"{"type":"object"}"#.to_owned(),
        strict,
    }
}

#[test]
fn everything_is_said_also_defaults() {
    let mut task = text();
    task.sampling = Sampling {
        temperature: 0.7,
        repetition_penalty: 1.1,
        max_tokens: Some(9),
        seed: Some(u64::MAX),
        stop: vec!["\n".to_owned()],
        logit_bias: BTreeMap::from([(7, -100.0)]),
        ..Sampling::default()
    };
    let body = body(ServerKind::LlamaCpp, "m", &task).expect("known");
    assert_eq!(body.path, "completions");
    let seed = body.json["seed"].as_u64().expect("a number");
    assert_eq!(
        body.json,
        json!({
            "model": "m", "prompt": "hé", "stream": true, "stream_options": {"include_usage": true},
            "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "frequency_penalty": 0.0,
            "presence_penalty": 0.0, "repeat_penalty": 1.1, "repeat_last_n": 131_072, "seed": seed,
            "max_tokens": 9, "stop": ["\n"], "logit_bias": {"7": -100.0}, "reasoning_format": "none",
        })
    );
}

#[test]
fn a_conversation_with_tools_is_said_in_openais_shape() {
    let mut task = chat();
    let Input::Chat(messages) = &mut task.input else {
        panic!("a chat")
    };
    messages.push(Message {
        tool_calls: vec![ToolCall {
            id: "c1".to_owned(),
            name: "say".to_owned(),
            arguments: "{}".to_owned(),
        }],
        ..Message::new(Speaker::Assistant, "")
    });
    messages.push(Message {
        tool_call_id: Some("c1".to_owned()),
        ..Message::new(Speaker::Tool, "done")
    });
    task.output.tools = vec![tool(true)];
    task.output.tool_choice = ToolChoice::Named("say".to_owned());
    let json = body(ServerKind::Openai, "m", &task).expect("known").json;
    let call =
        json!({"id": "c1", "type": "function", "function": {"name": "say", "arguments": "{}"}});
    assert_eq!(
        json["messages"],
        json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "content": "done", "tool_call_id": "c1"},
        ])
    );
    let function = json!({"name": "say", "description": "Says.", "parameters": {"type": "object"}, "strict": true});
    assert_eq!(
        json["tools"],
        json!([{"type": "function", "function": function}])
    );
    assert_eq!(
        json["tool_choice"],
        json!({"type": "function", "function": {"name": "say"}})
    );
    assert_eq!(json["parallel_tool_calls"], json!(true));
}

#[test]
fn forms_are_said_where_there_is_a_word_for_them() {
    let form = |kind, format| {
        let mut task = chat();
        task.output.format = format;
        body(kind, "m", &task).map(|body| body.json)
    };
    let schema = Format::JsonSchema(r#"{"type":"string"}"#.to_owned());
    for kind in ServerKind::ALL {
        let json = form(kind, schema.clone()).expect("all know it");
        let shape = &json["response_format"]["json_schema"]["schema"];
        assert_eq!(shape, &json!({"type": "string"}));
    }
    let json = form(ServerKind::LlamaCpp, Format::Choice(vec!["a".to_owned()]));
    assert_eq!(
        json.expect("a grammar")["grammar"],
        json!(r#"root ::= "a""#)
    );
    let broken = form(ServerKind::Vllm, Format::JsonSchema("{".to_owned()));
    assert!(broken.expect_err("no JSON").message.contains("not JSON"));
}

#[test]
fn what_a_kind_has_no_word_for_is_refused_by_name() {
    use ServerKind::{LlamaCpp, LmStudio, Ollama, Openai, Vllm};
    let refused = |kinds: &[ServerKind], param: &str, change: fn(&mut Task)| {
        for kind in ServerKind::ALL {
            let mut task = chat();
            change(&mut task);
            let result = body(kind, "m", &task);
            let is_refused = kinds.contains(&kind);
            assert_eq!(result.is_err(), is_refused, "{param} by {}", kind.as_str());
            if let Err(error) = result {
                assert_eq!(error.param.as_deref(), Some(param));
                assert_eq!(error.code, Code::Invalid);
            }
        }
    };
    refused(&[], "", |_| ());
    refused(&[Openai, Ollama], "top_k", |t| t.sampling.top_k = 5);
    refused(&[Openai, Ollama, LmStudio], "min_p", |t| {
        t.sampling.min_p = 0.1
    });
    refused(&[Openai, Ollama], "repetition_penalty", |t| {
        t.sampling.repetition_penalty = 1.1;
    });
    refused(&[Ollama], "logit_bias", |t| {
        t.sampling.logit_bias = BTreeMap::from([(1, 1.0)]);
    });
    refused(&ServerKind::ALL, "logprobs", |t| {
        t.sampling.top_logprobs = Some(0)
    });
    refused(&[], "tools", |t| t.output.tools = vec![tool(false)]);
    refused(&[Vllm, Ollama, LmStudio], "tools", |t| {
        t.output.tools = vec![tool(true)]
    });
    refused(&[Ollama], "tool_choice", |t| {
        t.output.tools = vec![tool(false)];
        t.output.tool_choice = ToolChoice::Required;
    });
    refused(&[LlamaCpp, Ollama, LmStudio], "tool_choice", |t| {
        t.output.tools = vec![tool(false)];
        t.output.tool_choice = ToolChoice::Named("say".to_owned());
    });
    refused(&[Ollama, LmStudio], "parallel_tool_calls", |t| {
        t.output.tools = vec![tool(false)];
        t.output.parallel_tool_calls = false;
    });
    refused(&[LmStudio], "response_format", |t| {
        t.output.format = Format::JsonObject
    });
    refused(&ServerKind::ALL, "response_format", |t| {
        t.output.format = Format::Regex("a".to_owned());
    });
    refused(&ServerKind::ALL, "response_format", |t| {
        t.output.format = Format::Lark("start: \"a\"".to_owned());
    });
    refused(&[Openai, Vllm, Ollama, LmStudio], "response_format", |t| {
        t.output.format = Format::Choice(vec!["a".to_owned()]);
    });
}

#[test]
fn an_answer_that_was_begun_is_for_another_worker_and_this_one_is_not_blamed() {
    let mut task = text();
    task.transcript = vec![1];
    let error = body(ServerKind::Vllm, "m", &task).expect_err("no way to say it");
    assert_eq!(error.code, Code::Conflict);
}

#[test]
fn seeds_differ_where_they_differ_and_are_never_the_one_that_means_none() {
    assert_ne!(seed(1), seed(2));
    assert_ne!(seed(1 << 40), seed(1 << 41));
    assert!(seed(u64::MAX) <= i32::MAX as u32);
}
