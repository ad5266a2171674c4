use super::*;
use proptest::prelude::*;
use tether_wire::CorrelationId;
use tether_wire::infer::{CallDelta, Finish, Output, Tool, ToolChoice};

fn tool(name: &str) -> Tool {
    Tool {
        name: name.to_owned(),
        description: String::new(),
        parameters: String::new(),
        strict: false,
    }
}

fn output() -> Output {
    Output {
        tools: vec![tool("say"), tool("sing")],
        ..Output::default()
    }
}

fn reader(family: Family, output: &Output) -> CallReader {
    CallReader::new(Some(family), output, CorrelationId([7; 16])).expect("tools")
}

/// The text and the calls of an answer, given in pieces.
fn read(family: Family, output: &Output, pieces: &[&str]) -> (String, Vec<(String, String)>) {
    let mut reader = reader(family, output);
    let mut text = String::new();
    let mut calls: Vec<CallDelta> = Vec::new();
    for piece in pieces {
        let read = reader.push(piece);
        text += &read.text;
        calls.extend(read.calls);
    }
    if !reader.ended() {
        let rest = reader.finish();
        text += &rest.text;
        calls.extend(rest.calls);
    }
    for (index, call) in (0u32..).zip(&calls) {
        assert_eq!(call.index, index);
        assert_eq!(call.id.as_ref().map(String::len), Some(9));
    }
    assert_eq!(reader.made() as usize, calls.len());
    let calls = calls.into_iter();
    let calls = calls.map(|call| (call.name.unwrap_or_default(), call.arguments));
    (text, calls.collect())
}

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

const ONE: &str = "<tool_call>\n{\"name\": \"say\", \"arguments\": {\"what\": \"} </tool_call> \\\"{\"}}\n</tool_call>";
const TWO: &str = "<tool_call>{\"arguments\":{},\"name\":\"sing\"}</tool_call>";

#[test]
fn calls_of_each_family_are_read() {
    let what = call("say", "{\"what\": \"} </tool_call> \\\"{\"}");
    let both = format!("Well. {ONE}\n{TWO}\n");
    let (text, calls) = read(Family::Hermes, &output(), &[&both]);
    assert_eq!(
        (text.as_str(), calls),
        ("Well. ", vec![what, call("sing", "{}")])
    );
    let llama = r#" {"name": "say", "parameters": {"n": 1.50}}; {"name":"sing","parameters":{}}"#;
    let (text, calls) = read(Family::Llama, &output(), &[llama]);
    let expected = vec![call("say", r#"{"n": 1.50}"#), call("sing", "{}")];
    assert_eq!(
        (text.as_str(), &calls),
        ("", &expected),
        "as it was written"
    );
    let mistral = r#"[TOOL_CALLS] [{"name": "say", "arguments": {"n": 1.50}}, {"name":"sing","arguments":{}}]"#;
    let (text, calls) = read(Family::Mistral, &output(), &[mistral]);
    assert_eq!((text.as_str(), calls), ("", expected));
}

#[test]
fn what_is_no_call_is_text_and_nothing_of_it_is_lost() {
    for (family, text) in [
        (Family::Hermes, "<tool_call>"),
        (Family::Hermes, "<tool_ca"),
        (Family::Hermes, "a <tool_call> b <b>"),
        (
            Family::Hermes,
            "<tool_call>{\"name\": \"say\", \"arguments\": {",
        ),
        (
            Family::Hermes,
            "<tool_call>{\"name\": \"hum\", \"arguments\": {}}</tool_call>",
        ),
        (
            Family::Hermes,
            "<tool_call>{\"name\": \"say\", \"arguments\": 1}</tool_call>",
        ),
        (
            Family::Hermes,
            "<tool_call>{\"name\": \"say\"}</tool_call> ",
        ),
        (Family::Hermes, "<tool_call>{not json}</tool_call>"),
        (Family::Hermes, "  \n"),
        (
            Family::Llama,
            "  Hello {\"name\": \"say\", \"parameters\": {}}",
        ),
        (Family::Llama, "{\"a\": 1} and more"),
        (Family::Llama, ""),
        (Family::Mistral, "[TOOL_CALLS] sorry [TOOL"),
        (Family::Mistral, "[TOOL_CALLS][[1]]"),
    ] {
        let (read, calls) = read(family, &output(), &[text]);
        assert_eq!((read.as_str(), calls.len()), (text, 0));
    }
    // A call behind one that was none.
    let (text, calls) = read(
        Family::Hermes,
        &output(),
        &["<tool_call><tool_call>!", TWO, " done"],
    );
    assert_eq!(
        (text.as_str(), calls.len()),
        ("<tool_call><tool_call>! done", 1)
    );
    // A broken one behind a whole one.
    let broken = "{\"name\": \"say\", \"parameters\": {}} or not";
    let (text, calls) = read(Family::Llama, &output(), &[broken]);
    assert_eq!((text.as_str(), calls.len()), (" or not", 1));
}

#[test]
fn a_call_without_end_is_text_again_and_does_not_grow() {
    let mut reader = reader(Family::Hermes, &output());
    assert_eq!(reader.push("<tool_call>{").text, "");
    let mut seen = String::new();
    for _ in 0..100 {
        seen += &reader.push(&"x".repeat(1_000)).text;
    }
    seen += &reader.finish().text;
    assert_eq!(seen.len(), "<tool_call>{".len() + 100_000);
}

#[test]
fn an_answer_of_one_call_ends_with_it() {
    let single = Output {
        parallel_tool_calls: false,
        ..output()
    };
    let mut one = reader(Family::Hermes, &single);
    let read = one.push(&format!("{ONE}{TWO} more"));
    assert_eq!((read.text.as_str(), read.calls.len()), ("", 1));
    assert!(one.ended());
    let named = Output {
        tool_choice: ToolChoice::Named("sing".into()),
        ..output()
    };
    let mut other = reader(Family::Hermes, &named);
    let text = other.push(ONE).text;
    assert!(
        text.contains("say") && !other.ended(),
        "another tool was named"
    );
    assert!(other.push(TWO).calls.len() == 1 && other.ended());
    let none = Output {
        tool_choice: ToolChoice::None,
        ..output()
    };
    let none = CallReader::new(Some(Family::Hermes), &none, CorrelationId([0; 16]));
    assert!(none.is_none());
    let _ = Finish::ToolCalls;
}

#[test]
fn families_are_known_by_their_templates() {
    let of = Family::of_template;
    assert_eq!(
        of("{% if tools %}<tool_call>{% endif %}"),
        Some(Family::Hermes)
    );
    assert_eq!(
        of("{{ tools }}<|start_header_id|>\"parameters\""),
        Some(Family::Llama)
    );
    assert_eq!(
        of("{{ tools }}[AVAILABLE_TOOLS][TOOL_CALLS]"),
        Some(Family::Mistral)
    );
    assert_eq!(
        of("{{ tools }}[TOOL_CALLS][ARGS]"),
        None,
        "written otherwise"
    );
    assert_eq!(of("{{ tools }}<tool_call><function=x>"), None);
    assert_eq!(of("{{ messages }}"), None);
    assert_eq!(of("{{ tools }}"), None);
}

proptest! {
    #[test]
    fn what_is_read_does_not_depend_on_how_it_came_in_pieces(
        parts in proptest::collection::vec(prop_oneof![
            Just(ONE), Just(TWO), Just("<tool_call>"), Just("</tool_call>"), Just("{"), Just("}"),
            Just("\n"), Just(" a"), Just("\""), Just("<"), Just("[TOOL_CALLS]"), Just("["), Just("]"),
            Just(r#"{"name":"say","parameters":{}}"#), Just(";"), Just(","), Just("é"),
        ], 0..12),
        family in prop_oneof![Just(Family::Hermes), Just(Family::Llama), Just(Family::Mistral)],
        single: bool,
    ) {
        let output = Output { parallel_tool_calls: !single, ..output() };
        let whole = parts.concat();
        let letters: Vec<String> = whole.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        let once = read(family, &output, &[&whole]);
        prop_assert_eq!(&once, &read(family, &output, &parts));
        prop_assert_eq!(&once, &read(family, &output, &letters));
        if once.1.is_empty() {
            prop_assert_eq!(once.0, whole, "nothing is lost");
        }
    }
}

/// Looking at all of them each time would take minutes.
#[test]
fn many_blanks_behind_a_call_take_no_time_and_are_text_before_text() {
    let blanks = " \n".repeat(200_000);
    let begin = std::time::Instant::now();
    let call_alone = TWO.trim_end_matches("</tool_call>");
    for (whole, family) in [
        (call_alone, Family::Hermes),
        (TWO, Family::Hermes),
        ("{\"name\": \"sing\", \"parameters\": {}}", Family::Llama),
    ] {
        let (text, calls) = read(family, &output(), &[whole, &blanks, "x"]);
        assert_eq!(calls, [call("sing", "{}")]);
        assert!(text == format!("{blanks}x"), "{} bytes", text.len());
        let (text, calls) = read(family, &output(), &[whole, &blanks]);
        assert_eq!((text.as_str(), calls.len()), ("", 1));
    }
    assert!(begin.elapsed() < std::time::Duration::from_secs(30));
}
