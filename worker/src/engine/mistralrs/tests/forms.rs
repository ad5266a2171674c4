//! Answers that must have a form, and calls of tools, with models that were taught neither.

use super::*;
use crate::engine::protocol::Task;
use serde_json::Value;
use tether_wire::infer::{Format as Form, Output, Tool, ToolChoice};

fn formed(format: Form, sampling: Sampling) -> Task {
    Task {
        output: Output {
            format,
            ..Output::default()
        },
        ..Task::new(chat("Hello"), sampling)
    }
}

fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters: &str| Tool {
        name: name.to_owned(),
        description: format!("Does {name}."),
        parameters: parameters.to_owned(),
        strict: true,
    };
    vec![
        tool(
            "weather",
            r##"{"type":"object","properties":{"city":{"$ref":"#/$defs/city"},"days":{"type":"integer","minimum":1,"maximum":9}},
            "required":["city","days"],"additionalProperties":false,"$defs":{"city":{"enum":["Paris","Oslo"]}}}"##,
        ),
        tool("now", ""),
    ]
}

#[test]
fn an_answer_has_its_form_whatever_the_model_would_have_said() {
    for (_folder, load) in [small_model(), random_model()] {
        let mut client = Client::loaded(&load);
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer","minimum":0,"maximum":99},
            "who":{"enum":["é","🌍"]}},"required":["n","who"],"additionalProperties":false}"#;
        for seed in 0..3 {
            let got = client.perform(formed(Form::JsonSchema(schema.into()), warm(seed)));
            let (finish, usage) = got.done.expect("done");
            assert_eq!(finish, Finish::Stop, "{}", got.text);
            assert_eq!(usage.completion_tokens as usize, got.tokens.len());
            let value: Value = got.text.parse().expect("JSON");
            assert!(value["n"].as_u64().is_some_and(|n| n < 100), "{value}");
            assert!(value["who"] == "é" || value["who"] == "🌍", "{value}");
            let got = client.perform(formed(Form::Regex("[a-c]{3}".into()), warm(seed)));
            assert!(got.text.len() == 3 && got.text.bytes().all(|b| (b'a'..=b'c').contains(&b)));
            let choice = Form::Choice(vec!["yes".into(), "no".into()]);
            let got = client.perform(formed(choice, warm(seed)));
            assert!(["yes", "no"].contains(&got.text.as_str()), "{}", got.text);
            let lark = Form::Lark("start: \"<\" /[0-9]/ \">\"".into());
            assert_eq!(client.perform(formed(lark, warm(seed))).text.len(), 3);
        }
        let object = client.perform(formed(Form::JsonObject, warm(1)));
        if object.done.expect("done").0 == Finish::Stop {
            let value: Value = object.text.parse().expect("JSON");
            assert!(value.is_object());
        }
    }
}

#[test]
fn a_form_cut_by_max_tokens_is_length_and_nothing_else() {
    let (_folder, mut client) = client();
    let sampling = Sampling {
        max_tokens: Some(3),
        ..greedy()
    };
    let schema = r#"{"type":"object","properties":{"name":{"type":"string","minLength":40}},"required":["name"]}"#;
    let got = client.perform(formed(Form::JsonSchema(schema.into()), sampling));
    let (finish, usage) = got.done.expect("done");
    assert_eq!((finish, usage.completion_tokens), (Finish::Length, 3));
    assert!(got.text.starts_with('{'), "{}", got.text);
}

#[test]
fn a_form_that_is_none_and_one_that_leads_nowhere_are_errors_by_name() {
    let (_folder, mut client) = client();
    for format in [
        Form::JsonSchema(r#"{"type":"nothing"}"#.into()),
        Form::Regex("[".into()),
        Form::Lark("start: nothing".into()),
    ] {
        let error = client
            .perform(formed(format, greedy()))
            .error
            .expect("refused");
        assert_eq!(
            (error.code, error.param.as_deref()),
            (Code::Invalid, Some("response_format"))
        );
    }
    // A wrong one harms nobody.
    let next = client.ask(chat("What is the capital of France?"), &greedy());
    assert!(next.text.contains("Paris"), "{next:?}");
}

/// What is compiled may still lead to a place from which no token leads on.
#[test]
fn an_answer_whose_form_leads_nowhere_fails_by_name_and_the_next_is_given() {
    let (_folder, mut client) = client();
    for seed in 0..3 {
        let nowhere = "start: \"yes, \" NOTHING\nNOTHING: /x[a&&b]/";
        let got = client.perform(formed(Form::Lark(nowhere.into()), warm(seed)));
        assert!(got.done.is_none(), "{got:?}");
        assert!(!got.tokens.is_empty(), "it is found on the way");
        assert!("yes, ".starts_with(&got.text), "{got:?}");
        let error = got.error.expect("it says so");
        assert_eq!(
            (error.code, error.param.as_deref()),
            (Code::Invalid, Some("response_format")),
            "{error}"
        );
        let next = client.ask(chat("What is the capital of France?"), &greedy());
        assert!(next.text.contains("Paris"), "{next:?}");
    }
}

#[test]
fn forms_that_take_long_to_compile_hold_up_no_answer_without_one() {
    let (_folder, mut client) = client();
    let long = formed(Form::Regex("a?".repeat(3_000)), greedy());
    let forms: Vec<u64> = (0..8).map(|_| client.begin_task(long.clone())).collect();
    let plain = client.begin(chat("What is 2 + 2?"), &greedy());
    let mut all = BTreeMap::new();
    while !all.get(&plain).is_some_and(Got::ended) {
        client.take(&mut all);
    }
    let ended = |id: &u64| all.get(id).is_some_and(Got::ended);
    assert!(!forms.iter().all(ended), "it waited for all of them");
    assert!(all[&plain].done.is_some());
    while !forms.iter().all(|id| all.get(id).is_some_and(Got::ended)) {
        client.take(&mut all);
    }
}

#[test]
fn a_forced_call_can_be_read_and_its_arguments_are_valid() {
    for (_folder, load) in [small_model(), random_model()] {
        let mut client = Client::loaded(&load);
        for (tool_choice, parallel_tool_calls) in [
            (ToolChoice::Named("weather".into()), true),
            (ToolChoice::Named("now".into()), true),
            (ToolChoice::Required, false),
        ] {
            for seed in 0..3 {
                let mut sampling = warm(seed);
                sampling.max_tokens = Some(200);
                // What ends a text is no reason to break off a call.
                sampling.stop = vec!["\n".into(), "{".into()];
                let got = client.perform(Task {
                    output: Output {
                        tools: tools(),
                        tool_choice: tool_choice.clone(),
                        parallel_tool_calls,
                        ..Output::default()
                    },
                    ..Task::new(chat("Hello"), sampling)
                });
                assert_eq!(got.error, None);
                assert_eq!(
                    got.done.map(|done| done.0),
                    Some(Finish::ToolCalls),
                    "{got:?}"
                );
                assert_eq!((got.text.as_str(), got.calls.len()), ("", 1));
                let call = &got.calls[0];
                let arguments: Value = call.arguments.parse().expect("JSON");
                match call.name.as_deref() {
                    Some("weather") => {
                        assert!(
                            ["Paris", "Oslo"].contains(&arguments["city"].as_str().unwrap_or(""))
                        );
                        assert!(
                            arguments["days"]
                                .as_u64()
                                .is_some_and(|n| (1..=9).contains(&n))
                        );
                    }
                    name => assert_eq!((name, arguments), (Some("now"), serde_json::json!({}))),
                }
                if let ToolChoice::Named(name) = &tool_choice {
                    assert_eq!(call.name.as_ref(), Some(name));
                }
            }
        }
    }
}

#[test]
fn a_free_answer_beside_strict_tools_may_be_text() {
    let (_folder, mut client) = client();
    let got = client.perform(Task {
        output: Output {
            tools: tools(),
            ..Output::default()
        },
        ..Task::new(
            chat("What is the capital of France?"),
            Sampling {
                max_tokens: Some(12),
                ..greedy()
            },
        )
    });
    assert_eq!(got.error, None);
    assert!(got.done.is_some() && got.calls.is_empty(), "{got:?}");
}

#[test]
fn tools_are_refused_by_name_where_the_template_knows_none() {
    let (folder, load) = small_model();
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    std::fs::write(folder.path().join("chat_template.jinja"), template).expect("write");
    let mut client = Client::loaded(&load);
    let got = client.perform(Task {
        output: Output {
            tools: tools(),
            ..Output::default()
        },
        ..Task::new(chat("Hello"), greedy())
    });
    let error = got.error.expect("refused");
    assert_eq!(error.param.as_deref(), Some("tools"), "{error}");
}
