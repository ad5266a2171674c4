//! One streamed answer of a server, event by event. Pure.
//!
//! An answer is whole when the server said why it ended and then that the stream did; anything
//! else is an error and never shown as an end. [T-INF-8]

use super::calls::{Calls, Part};
use super::usage::Claim;
use serde::Deserialize;
use tether_wire::CorrelationId;
use tether_wire::infer::{Chunk, Finish, Output};
use tether_wire::rpc::{Code, RpcError};

/// Most bytes of text of one answer.
const MAX_TEXT_BYTES: u64 = 16 * 1024 * 1024;
/// Most characters of a server's own words that are passed on.
const MAX_WORDS: usize = 300;
/// What ends a stream.
const END: &str = "[DONE]";

/// What an event means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// Nothing to pass on.
    Nothing,
    /// Text or parts of calls; its place is not known here.
    Piece(Chunk),
    /// The answer is whole.
    End(Finish, Option<Claim>),
}

/// How far an answer is.
#[derive(Debug)]
pub(super) struct Reply {
    model: String,
    bytes: u64,
    is_thinking: bool,
    calls: Calls,
    must_call: bool,
    finish: Option<Finish>,
    claim: Option<Claim>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    /// Thoughts, which some servers part from the text and name in one of two ways.
    #[serde(default, alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// The server does not speak the protocol; another worker may do better.
fn broken(why: impl std::fmt::Display) -> RpcError {
    RpcError::new(
        Code::Unavailable,
        format!("the server of this model broke its answer off: {why}"),
    )
}

/// No tool was called where a call was demanded. Servers whose template knows no tools leave the
/// demand out and say nothing, so that any tenant can bring it about: it is no fault of the worker's.
fn uncalled() -> RpcError {
    let why = "a call was demanded, and the server that runs this model answered without one: its \
               template may know no tools";
    RpcError::new(Code::Invalid, why).with_param("tool_choice")
}

/// What was asked is why, so that another worker of the same provider would do no better.
fn filtered() -> RpcError {
    let why = "the server that runs this model withholds its answer (content_filter)";
    RpcError::new(Code::Invalid, why).with_param("messages")
}

impl Reply {
    /// The answer of what the server calls `model`.
    pub(super) fn new(model: &str, correlation: CorrelationId, output: &Output) -> Self {
        Self {
            model: model.to_owned(),
            bytes: 0,
            is_thinking: false,
            calls: Calls::new(correlation, output),
            must_call: output.must_call(),
            finish: None,
            claim: None,
        }
    }

    /// Bytes of text and calls so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the data of the next event.
    pub(super) fn take(&mut self, data: &str) -> Result<Said, RpcError> {
        if data.trim() == END {
            let finish = self
                .finish
                .ok_or_else(|| broken("it ended the stream without saying why the answer ended"))?;
            if self.must_call && finish == Finish::Stop {
                return Err(uncalled());
            }
            return Ok(Said::End(finish, self.claim));
        }
        let event: Event = serde_json::from_str(data).map_err(|error| {
            // It repeats what it found, however long that is.
            let error = plain(&error.to_string());
            broken(format_args!("an event is not what it should be: {error}"))
        })?;
        if let Some(error) = event.error.filter(|error| !error.is_null()) {
            return Err(broken(words(&error)));
        }
        if let Some(model) = event.model.filter(|model| *model != self.model) {
            let model: String = plain(&model);
            return Err(broken(format_args!("it answers as the model {model:?}")));
        }
        if let Some(usage) = event.usage {
            self.claim = Some(Claim {
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
            });
        }
        let mut piece = Chunk::default();
        for choice in event.choices {
            self.choice(choice, &mut piece)?;
        }
        self.bytes += piece.bytes() as u64;
        if self.bytes > MAX_TEXT_BYTES {
            return Err(broken("it is longer than any answer may be"));
        }
        Ok(if piece.bytes() == 0 {
            Said::Nothing
        } else {
            Said::Piece(piece)
        })
    }

    fn choice(&mut self, choice: Choice, piece: &mut Chunk) -> Result<(), RpcError> {
        if choice.index != 0 {
            return Err(broken("it gives several answers where one was asked for"));
        }
        let delta = choice.delta.unwrap_or_default();
        let parts = delta.tool_calls.unwrap_or_default();
        let said = delta.content.or(choice.text).unwrap_or_default();
        let thought = delta.reasoning_content.unwrap_or_default();
        if self.finish.is_some() && !(said.is_empty() && thought.is_empty() && parts.is_empty()) {
            return Err(broken("it goes on after its end"));
        }
        // As the model wrote it: most servers cut these marks out.
        if !thought.is_empty() {
            if !std::mem::replace(&mut self.is_thinking, true) {
                piece.text.push_str("<think>");
            }
            piece.text.push_str(&thought);
        }
        if !said.is_empty() {
            if std::mem::take(&mut self.is_thinking) {
                piece.text.push_str("</think>");
            }
            piece.text.push_str(&said);
        }
        for part in parts {
            piece.calls.extend(self.calls.take(part).map_err(broken)?);
        }
        let Some(reason) = choice.finish_reason else {
            return Ok(());
        };
        let finish = match reason.as_str() {
            // Some say so too where a call was demanded.
            "stop" | "tool_calls" if self.calls.is_some() => Finish::ToolCalls,
            "stop" => Finish::Stop,
            "length" => Finish::Length,
            "content_filter" => return Err(filtered()),
            other => {
                let other = plain(other);
                return Err(broken(format_args!("it ended it for the reason {other:?}")));
            }
        };
        if self.finish.is_some_and(|earlier| earlier != finish) {
            return Err(broken("it gives two reasons for its end"));
        }
        self.finish = Some(finish);
        Ok(())
    }

    /// The connection ended before the answer did.
    pub(super) fn cut(&self, why: &str) -> RpcError {
        if self.finish.is_some() {
            broken(format_args!("{why} before the stream was ended"))
        } else {
            broken(why)
        }
    }
}

/// The words of an error in one of the shapes that servers use.
pub(super) fn words(error: &serde_json::Value) -> String {
    let message = error.get("message").unwrap_or(error);
    match message.as_str() {
        Some(text) => plain(text),
        None => plain(&message.to_string()),
    }
}

/// At most [`MAX_WORDS`] characters, none of them a control character.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_WORDS).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::infer::{Tool, ToolChoice};

    fn offer() -> Output {
        let tool = Tool {
            name: "say".to_owned(),
            description: String::new(),
            parameters: String::new(),
            strict: false,
        };
        Output {
            tools: vec![tool],
            ..Output::default()
        }
    }

    type Read = Result<(String, Option<(Finish, Option<Claim>)>), RpcError>;

    fn read(events: &[&str]) -> Read {
        let mut reply = Reply::new("tiny", CorrelationId([1; 16]), &offer());
        let mut text = String::new();
        for event in events {
            match reply.take(event)? {
                Said::Nothing => {}
                Said::Piece(piece) => {
                    text += &piece.text;
                    for call in piece.calls {
                        text += &format!("[{}:{}]", call.name.unwrap_or_default(), call.arguments);
                    }
                }
                Said::End(finish, claim) => return Ok((text, Some((finish, claim)))),
            }
        }
        Ok((text, None))
    }

    fn fails(events: &[&str], words: &str) {
        let error = read(events).expect_err(words);
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.message.contains(words), "{error}");
    }

    const STOP: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const HI: &str =
        r#"{"model":"tiny","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}"#;

    #[test]
    fn a_chat_and_a_completion_come_whole() {
        let usage =
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;
        let first = r#"{"choices":[{"delta":{"role":"assistant","content":null}}],"usage":null}"#;
        let claim = Claim {
            prompt_tokens: 3,
            completion_tokens: 2,
        };
        assert_eq!(
            read(&[first, HI, HI, STOP, usage, "[DONE]"]),
            Ok(("hihi".to_owned(), Some((Finish::Stop, Some(claim)))))
        );
        let text = r#"{"choices":[{"text":"ho","finish_reason":"length"}]}"#;
        assert_eq!(
            read(&[text, "[DONE]"]),
            Ok(("ho".to_owned(), Some((Finish::Length, None))))
        );
    }

    #[test]
    fn an_end_that_was_not_said_is_none() {
        fails(&[HI, "[DONE]"], "without saying why");
        assert_eq!(read(&[HI, STOP]).expect("so far").1, None);
        let unknown = r#"{"choices":[{"delta":{},"finish_reason":"tired"}]}"#;
        fails(&[HI, unknown], "tired");
        let length = r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#;
        fails(&[STOP, length], "two reasons");
        assert!(read(&[STOP, STOP, "[DONE]"]).is_ok(), "the same one twice");
        fails(&[STOP, HI], "after its end");
    }

    #[test]
    fn an_answer_that_is_withheld_for_what_was_asked_is_no_fault_of_the_workers() {
        let filter = r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#;
        let told = read(&[HI, filter]).expect_err("withheld");
        assert_eq!(
            (told.code, told.param.as_deref()),
            (Code::Invalid, Some("messages"))
        );
    }

    #[test]
    fn what_is_no_answer_is_an_error_in_plain_words() {
        fails(&["{"], "not what it should be");
        fails(&[r#"{"choices":7}"#], "not what it should be");
        fails(&[&"[".repeat(9_999)], "not what it should be");
        fails(
            &[r#"{"error":{"message":"out of\u0000memory","code":500}}"#],
            "out of memory",
        );
        fails(&[r#"{"error":"no"}"#], "no");
        fails(&[r#"{"model":"other","choices":[]}"#], "other");
        fails(&[r#"{"choices":[{"index":1,"text":"x"}]}"#], "several");
        let call = r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"rm"}}]}}]}"#;
        fails(&[call], "nobody offered");
        let end = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
        fails(&[HI, end], "tool_calls");
        fails(
            &[r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":2}}"#],
            "not what",
        );
    }

    #[test]
    fn of_what_is_no_answer_only_a_part_is_repeated() {
        let long = "x".repeat(128 * 1024);
        for event in [
            format!(r#"{{"choices":"{long}"}}"#),
            format!(r#"{{"choices":[{{"index":"{long}"}}]}}"#),
            format!(r#"{{"error":{{"message":"{long}"}}}}"#),
            format!(r#"{{"model":"{long}","choices":[]}}"#),
            format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{long}"}}]}}"#),
        ] {
            let error = read(&[&event]).expect_err("no answer");
            assert!(error.message.contains("xxx"), "{}", &event[..40]);
            assert!(error.message.len() < 2 * MAX_WORDS, "{}", &event[..40]);
        }
    }

    #[test]
    fn thoughts_are_shown_between_their_marks() {
        let think = |key| format!(r#"{{"choices":[{{"delta":{{"{key}":"hm"}}}}]}}"#);
        let (a, b) = (think("reasoning_content"), think("reasoning"));
        let text = read(&[&a, &b, HI, HI]).expect("so far").0;
        assert_eq!(text, "<think>hmhm</think>hihi");
    }

    #[test]
    fn a_call_ends_as_one_also_where_the_server_says_stop() {
        let call = r#"{"choices":[{"delta":{"content":null,"tool_calls":[{"index":0,"id":"x","function":{"name":"say","arguments":"{}"}}]}}]}"#;
        let end = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
        for end in [end, STOP] {
            assert_eq!(
                read(&[call, end, "[DONE]"]),
                Ok(("[say:{}]".to_owned(), Some((Finish::ToolCalls, None))))
            );
        }
    }

    #[test]
    fn a_demand_for_a_call_that_was_not_met_is_no_answer_and_no_fault_of_the_worker() {
        let output = Output {
            tool_choice: ToolChoice::Required,
            ..offer()
        };
        let mut reply = Reply::new("tiny", CorrelationId([1; 16]), &output);
        for event in [HI, STOP] {
            reply.take(event).expect("so far");
        }
        let error = reply.take("[DONE]").expect_err("no call");
        assert_eq!(
            (error.code, error.param.as_deref()),
            (Code::Invalid, Some("tool_choice"))
        );
        assert!(error.message.contains("demanded"), "{error}");
    }
}
