use super::client::{Client, Got, chat, echo_load, greedy};
use super::*;
use crate::engine::protocol::{EngineKind, Task};
use std::collections::BTreeMap;
use tether_wire::infer::{
    Finish, Format, Input, Message, Output, Sampling, Speaker, Tool, ToolChoice, Usage,
};

#[test]
fn an_echo_is_exact_in_text_counts_and_finish() {
    let mut client = Client::loaded(&echo_load(0));
    let got = client.ask(chat("one two  three"), &greedy());
    assert_eq!(got.text, "one two  three");
    let usage = Usage {
        prompt_tokens: 3,
        completion_tokens: 4,
    };
    assert_eq!(got.done, Some((Finish::Stop, usage)));
    assert_eq!(client.end(), ExitCode::SUCCESS);
}

#[test]
fn an_echo_says_the_last_user_message_and_counts_all() {
    let mut client = Client::loaded(&echo_load(0));
    let say = |role, content: &str| Message::new(role, content);
    let input = Input::Chat(vec![
        say(Speaker::System, "be brief"),
        say(Speaker::User, "first"),
        say(Speaker::Assistant, "well well"),
        say(Speaker::User, "second one"),
    ]);
    let got = client.ask(input, &greedy());
    assert_eq!(
        (got.text.as_str(), got.prompt_tokens),
        ("second one", Some(7))
    );
}

#[test]
fn limits_and_stop_strings_hold_for_the_echo_too() {
    let mut client = Client::loaded(&echo_load(0));
    let short = Sampling {
        max_tokens: Some(2),
        ..greedy()
    };
    let got = client.ask(chat("a b c d"), &short);
    assert_eq!(got.text, "a b ");
    assert_eq!(
        got.done
            .map(|(finish, usage)| (finish, usage.completion_tokens)),
        Some((Finish::Length, 2))
    );
    let stopped = Sampling {
        stop: vec!["b c".to_owned()],
        ..greedy()
    };
    let got = client.ask(chat("a b c d"), &stopped);
    assert_eq!((got.text.as_str(), got.tokens.len()), ("a ", 3));
}

#[test]
fn a_prompt_over_the_context_is_the_callers_fault_and_harms_nobody() {
    let mut client = Client::loaded(&echo_load(0));
    let got = client.ask(chat(&"word ".repeat(64)), &greedy());
    let error = got.error.expect("refused");
    assert_eq!(
        (error.code, error.param.as_deref()),
        (Code::Invalid, Some("messages"))
    );
    assert_eq!(client.ask(chat("still here"), &greedy()).text, "still here");
}

#[test]
fn pings_are_answered_while_answers_are_given_and_before_anything_is_loaded() {
    let mut client = Client::start();
    client.send(&ToEngine::Ping { n: 7 });
    assert_eq!(client.receive(), Some(FromEngine::Pong { n: 7 }));
    client.send(&ToEngine::Load(echo_load(60_000)));
    assert!(matches!(client.receive(), Some(FromEngine::Loaded { .. })));
    let id = client.begin(chat("slow"), &greedy());
    assert_eq!(
        client.receive(),
        Some(FromEngine::Started {
            id,
            prompt_tokens: 1
        })
    );
    client.send(&ToEngine::Ping { n: 8 });
    assert_eq!(client.receive(), Some(FromEngine::Pong { n: 8 }));
}

#[test]
fn a_cancelled_answer_is_said_to_be_gone_and_the_next_one_comes() {
    let mut client = Client::loaded(&echo_load(5));
    let id = client.begin(chat(&"word ".repeat(60)), &greedy());
    let mut all = BTreeMap::new();
    while all.get(&id).is_none_or(|got: &Got| got.chunks < 3) {
        client.take(&mut all);
    }
    client.send(&ToEngine::Cancel { id });
    client.send(&ToEngine::Cancel { id: 999 });
    let next = client.begin(chat("after that"), &greedy());
    while ![id, next]
        .iter()
        .all(|id| all.get(id).is_some_and(Got::ended))
    {
        client.take(&mut all);
    }
    assert_eq!(all[&next].text, "after that");
    assert!(all[&id].cancelled && all[&id].chunks < 60);
    assert!(!all.contains_key(&999), "nobody asked for it");
}

#[test]
fn every_answer_ends_exactly_once_whenever_it_is_cancelled() {
    let mut client = Client::loaded(&echo_load(0));
    let ids: Vec<u64> = (0..300)
        .map(|n| {
            let id = client.begin(chat(&"word ".repeat(n % 7)), &greedy());
            client.send(&ToEngine::Cancel { id });
            client.send(&ToEngine::Cancel { id });
            id
        })
        .collect();
    // Whatever is said twice of one of them fails in `take`.
    let mut all = BTreeMap::new();
    while !ids.iter().all(|id| all.get(id).is_some_and(Got::ended)) {
        client.take(&mut all);
    }
    for id in &ids {
        client.send(&ToEngine::Cancel { id: *id });
    }
    let last = client.begin(chat("last"), &greedy());
    while all.get(&last).is_none_or(|got| !got.ended()) {
        client.take(&mut all);
    }
    assert_eq!(all[&last].text, "last");
}

#[test]
fn many_answers_at_once_do_not_mix() {
    let mut client = Client::loaded(&echo_load(1));
    let requests = (0..50)
        .map(|n| (chat(&format!("answer number {n} of fifty")), greedy()))
        .collect();
    for (n, got) in client.ask_all(requests).iter().enumerate() {
        assert_eq!(got.text, format!("answer number {n} of fifty"));
    }
}

#[test]
fn more_answers_than_the_process_gives_are_refused() {
    let mut client = Client::loaded(&echo_load(60_000));
    for _ in 0..=MAX_ANSWERS {
        client.begin(chat("wait"), &greedy());
    }
    let mut all = BTreeMap::new();
    while !all.values().any(Got::ended) {
        client.take(&mut all);
    }
    let refused = all
        .values()
        .find_map(|got| got.error.clone())
        .expect("refused");
    assert_eq!(refused.code, Code::Overloaded);
}

#[test]
fn a_conversation_that_does_not_begin_with_a_model_ends() {
    let mut client = Client::start();
    client.begin(chat("hello?"), &greedy());
    assert!(matches!(
        client.receive(),
        Some(FromEngine::LoadFailed { .. })
    ));
    assert_eq!(client.receive(), None);
    assert_eq!(client.end(), ExitCode::FAILURE);
}

#[test]
fn a_model_that_cannot_be_loaded_is_said_and_the_process_ends() {
    let mut client = Client::start();
    let load = crate::engine::protocol::Load {
        kind: EngineKind::Mistralrs,
        root: std::env::temp_dir().join("tether-no-such-model"),
        ..echo_load(0)
    };
    client.send(&ToEngine::Load(load));
    let Some(FromEngine::LoadFailed { reason }) = client.receive() else {
        panic!("it must fail");
    };
    let expected = if cfg!(feature = "mistralrs") {
        "tether-no-such-model"
    } else {
        "no engine"
    };
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(client.end(), ExitCode::FAILURE);
}

#[test]
fn the_end_of_the_socket_is_noticed_while_an_answer_is_given() {
    let mut client = Client::loaded(&echo_load(60_000));
    client.begin(chat("slow"), &greedy());
    assert_eq!(client.end(), ExitCode::SUCCESS);
}

/// [T-INF-11]
#[test]
fn an_answer_goes_on_behind_what_was_given_and_counts_all_of_it() {
    let mut client = Client::loaded(&echo_load(0));
    let whole = client.ask(chat("one two three four"), &greedy());
    for given in 0..=whole.tokens.len() {
        let got = client.perform(Task {
            transcript: whole.tokens[..given].to_vec(),
            ..Task::new(chat("one two three four"), greedy())
        });
        assert_eq!(got.tokens, whole.tokens[given..]);
        assert_eq!(got.retold, whole.tokens[..given]);
        assert_eq!(got.retold_text + &got.text, whole.text);
        assert_eq!(got.done, whole.done);
    }
    let got = client.perform(Task {
        transcript: vec![0, 7],
        ..Task::new(chat("one two three four"), greedy())
    });
    let error = got.error.expect("refused");
    assert_eq!(error.param.as_deref(), Some("transcript"));
}

#[test]
fn an_echo_calls_a_tool_when_it_is_told_to_and_its_words_are_certain() {
    let mut client = Client::loaded(&echo_load(0));
    let tool = Tool {
        name: "weather".to_owned(),
        description: String::new(),
        parameters: String::new(),
        strict: false,
    };
    let output = Output {
        tools: vec![tool],
        ..Output::default()
    };
    let said = "Let me see. <tool_call> {\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}} </tool_call>";
    let task = Task {
        output: output.clone(),
        ..Task::new(
            chat(said),
            Sampling {
                top_logprobs: Some(1),
                ..greedy()
            },
        )
    };
    let whole = client.perform(task.clone());
    assert_eq!(whole.text, "Let me see. ");
    assert_eq!(whole.done.map(|done| done.0), Some(Finish::ToolCalls));
    assert_eq!(whole.calls.len(), 1);
    assert_eq!(whole.calls[0].name.as_deref(), Some("weather"));
    assert_eq!(whole.calls[0].arguments, "{\"city\": \"Paris\"}");
    assert_eq!(whole.logprobs.len(), whole.tokens.len());
    let bytes: Vec<u8> = whole
        .logprobs
        .iter()
        .flat_map(|it| it.bytes.clone())
        .collect();
    assert_eq!(bytes, said.as_bytes());
    // Taken up again anywhere, the call has the same id, and comes once.
    for given in 0..whole.tokens.len() {
        let rest = client.perform(Task {
            transcript: whole.tokens[..given].to_vec(),
            ..task.clone()
        });
        assert_eq!(rest.done, whole.done);
        assert_eq!([rest.retold_calls, rest.calls].concat(), whole.calls);
    }
    let refused = |output: Output, param: &str| {
        let mut client = Client::loaded(&echo_load(0));
        let task = Task {
            output,
            ..Task::new(chat("hi"), greedy())
        };
        let error = client.perform(task).error.expect("refused");
        assert_eq!(error.param.as_deref(), Some(param), "{error}");
    };
    let format = Format::JsonObject;
    let formed = Output {
        format,
        ..Output::default()
    };
    refused(formed, "response_format");
    let tool_choice = ToolChoice::Required;
    refused(
        Output {
            tool_choice,
            ..output
        },
        "tool_choice",
    );
}
