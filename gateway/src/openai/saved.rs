//! Requests and answers as a tenant kept them, so that they can be held against a receipt.
//! [T-RCP-3], [T-RCP-4]
//!
//! A request is read by the very code that reads it when it is sent. An answer is one JSON object, a
//! stream as it came, or a list of a stream's chunks as a client wrote them down.

use super::chat::parse_chat;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;
use tether_wire::infer::{Input, MAX_TOOL_CALLS, Output, Sampling};
use tether_wire::receipt::MAX_RECEIPT_BYTES;
use tether_wire::{Digest, MeshId, receipt::hash};

/// Most answers that one response is read for.
const MAX_ANSWERS: usize = 128;
/// Marks what is no JSON.
const DONE: &str = "[DONE]";

/// A request as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedRequest {
    /// The model as it was named: `NAME` or `NAME@MAJOR.MINOR`.
    pub model: String,
    /// What the model was given.
    pub input: Input,
    /// How the answers were to be drawn.
    pub sampling: Sampling,
    /// What they had to be.
    pub output: Output,
}

impl SavedRequest {
    /// The seed that was asked for, for the answer of this index; nothing where it was left open.
    #[must_use]
    pub fn seed(&self, index: u32) -> Option<u64> {
        let seed = self.sampling.seed?;
        Some(seed.wrapping_add(u64::from(index)))
    }

    /// The digest that a receipt names it by.
    #[must_use]
    pub fn digest(&self, seed: u64) -> Digest {
        hash::request(&self.input, &self.sampling, &self.output, seed)
    }
}

/// One answer of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedAnswer {
    /// Its number, from 0.
    pub index: u32,
    /// Its text.
    pub text: String,
    /// Name and arguments of each call of a tool, in their order.
    pub calls: Vec<(String, String)>,
    /// Why it ended, in OpenAI's words.
    pub finish: Option<String>,
    /// Tokens of the prompt and of the answer, where the response is of one answer and says so.
    pub usage: Option<(u64, u64)>,
    /// The mesh that the response names.
    pub mesh: Option<MeshId>,
    /// The sealed receipt.
    pub receipt: Option<Vec<u8>>,
}

/// Reads the body of a request.
///
/// # Errors
/// What the gateway would have answered.
pub fn request(body: &[u8]) -> Result<SavedRequest, String> {
    let chat = parse_chat(body).map_err(|problem| problem.message)?;
    Ok(SavedRequest {
        model: chat.model,
        input: Input::Chat(chat.messages),
        sampling: chat.sampling,
        output: chat.output,
    })
}

/// Reads a response, whole or streamed: its answers in their order, at least one.
///
/// # Errors
/// Why it is no response of ours, in words.
pub fn answers(bytes: &[u8]) -> Result<Vec<SavedAnswer>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let objects = match text.as_bytes().first() {
        Some(b'[') => json(text)?,
        Some(b'{') => vec![json(text)?],
        _ => events(text)?,
    };
    let mut answers: BTreeMap<u32, Partial> = BTreeMap::new();
    let (mut usage, mut beside) = (None, None);
    for object in &objects {
        take(object, &mut answers)?;
        usage = counts(object).or(usage);
        beside = extension(object).or(beside);
    }
    if answers.is_empty() {
        return Err("it holds no answer of a chat".to_owned());
    }
    let is_one = answers.len() == 1;
    let finish = |(index, partial): (u32, Partial)| {
        let mut answer = partial.answer;
        answer.index = index;
        answer.calls = partial.calls.into_values().collect();
        if is_one {
            answer.usage = usage;
            if let Some((mesh, receipt)) = beside.clone() {
                answer.mesh = answer.mesh.or(mesh);
                answer.receipt = answer.receipt.or(receipt);
            }
        }
        answer
    };
    Ok(answers.into_iter().map(finish).collect())
}

/// An answer, of which more may come.
#[derive(Default)]
struct Partial {
    answer: SavedAnswer,
    calls: BTreeMap<u64, (String, String)>,
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

/// The objects of a stream of events.
fn events(text: &str) -> Result<Vec<Value>, String> {
    let data = (text.lines())
        .filter_map(|line| line.strip_prefix("data:"))
        .map(str::trim)
        .filter(|data| *data != DONE);
    let objects = data.map(json).collect::<Result<Vec<Value>, _>>()?;
    if objects.is_empty() {
        return Err("it is neither JSON nor a stream of events".to_owned());
    }
    Ok(objects)
}

fn take(object: &Value, answers: &mut BTreeMap<u32, Partial>) -> Result<(), String> {
    if let Some(error) = object.get("error").filter(|error| !error.is_null()) {
        let words = error["message"].as_str().unwrap_or("no reason is given");
        let words: String = words.chars().take(200).collect();
        return Err(format!("it is not whole, but ends in an error: {words}"));
    }
    let choices = object["choices"].as_array();
    for (place, choice) in choices.into_iter().flatten().enumerate() {
        let index = choice["index"].as_u64().unwrap_or(place as u64);
        let index = u32::try_from(index).map_err(|_| "it numbers no answer so".to_owned())?;
        if answers.len() >= MAX_ANSWERS && !answers.contains_key(&index) {
            return Err(format!("it holds more than {MAX_ANSWERS} answers"));
        }
        answers.entry(index).or_default().take(choice)?;
    }
    Ok(())
}

impl Partial {
    fn take(&mut self, choice: &Value) -> Result<(), String> {
        // Whole, or a piece.
        for said in [&choice["message"], &choice["delta"]] {
            self.answer.text += said["content"].as_str().unwrap_or_default();
            let calls = said["tool_calls"].as_array();
            for (place, call) in calls.into_iter().flatten().enumerate() {
                let index = call["index"].as_u64().unwrap_or(place as u64);
                if self.calls.len() >= MAX_TOOL_CALLS && !self.calls.contains_key(&index) {
                    return Err("it holds more calls than an answer may".to_owned());
                }
                let (name, arguments) = self.calls.entry(index).or_default();
                *name += call["function"]["name"].as_str().unwrap_or_default();
                *arguments += call["function"]["arguments"].as_str().unwrap_or_default();
            }
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.answer.finish = Some(finish.to_owned());
        }
        if let Some((mesh, receipt)) = extension(choice) {
            self.answer.mesh = mesh;
            self.answer.receipt = receipt;
        }
        Ok(())
    }
}

/// Mesh and receipt, where they stand here.
fn extension(object: &Value) -> Option<(Option<MeshId>, Option<Vec<u8>>)> {
    let tether = object.get("tether").filter(|tether| tether.is_object())?;
    let mesh = tether["mesh"].as_str().and_then(|hex| hex.parse().ok());
    let receipt = tether["receipt"].as_str().and_then(receipt);
    Some((mesh, receipt))
}

/// A sealed receipt in base64.
#[must_use]
pub fn receipt(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    (text.len() <= MAX_RECEIPT_BYTES * 2)
        .then(|| STANDARD.decode(text).ok())
        .flatten()
}

fn counts(object: &Value) -> Option<(u64, u64)> {
    let usage = &object["usage"];
    Some((
        usage["prompt_tokens"].as_u64()?,
        usage["completion_tokens"].as_u64()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Paris"}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3},
        "tether": {"mesh": "0101010101010101010101010101010101010101010101010101010101010101",
                   "receipt": "YSByZWNlaXB0"}}"#;
    const STREAM: &str = "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"\"}}]}\n\n\
        : keep-alive\n\n\
        data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"Par\"}}], \"usage\": null}\n\n\
        data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"is\"}}]}\r\n\r\n\
        data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}], \
        \"tether\": {\"mesh\": \"0101010101010101010101010101010101010101010101010101010101010101\", \
        \"receipt\": \"YSByZWNlaXB0\"}}\n\n\
        data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 11, \"completion_tokens\": 3}}\n\n\
        data: [DONE]\n\n";

    fn paris() -> SavedAnswer {
        SavedAnswer {
            index: 0,
            text: "Paris".into(),
            calls: Vec::new(),
            finish: Some("stop".into()),
            usage: Some((11, 3)),
            mesh: Some(MeshId([1; 32])),
            receipt: Some(b"a receipt".to_vec()),
        }
    }

    #[test]
    fn an_answer_reads_the_same_whole_streamed_and_as_a_list_of_chunks() {
        assert_eq!(answers(WHOLE.as_bytes()), Ok(vec![paris()]));
        assert_eq!(answers(STREAM.as_bytes()), Ok(vec![paris()]));
        let chunks: Vec<Value> = events(STREAM).expect("events");
        let list = serde_json::to_vec(&chunks).expect("JSON");
        assert_eq!(answers(&list), Ok(vec![paris()]));
    }

    #[test]
    fn several_answers_have_a_receipt_each() {
        let several = r#"{"choices": [
            {"index": 1, "message": {"content": "b"}, "tether": {"receipt": "Yg=="}},
            {"index": 0, "message": {"content": "a"}, "tether": {"receipt": "YQ=="}}]}"#;
        let read = answers(several.as_bytes()).expect("a response");
        let [a, b] = read.as_slice() else {
            panic!("{read:?}")
        };
        assert_eq!(
            (a.index, a.text.as_str(), a.receipt.as_deref()),
            (0, "a", Some(&b"a"[..]))
        );
        assert_eq!(
            (b.index, b.text.as_str(), b.receipt.as_deref()),
            (1, "b", Some(&b"b"[..]))
        );
    }

    #[test]
    fn calls_of_tools_are_put_together() {
        let piece = |calls: &str| {
            format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":{calls}}}}}]}}\n\n"
            )
        };
        let stream = [
            piece(r#"[{"index":0,"id":"x","function":{"name":"f","arguments":""}}]"#),
            piece(r#"[{"index":0,"function":{"arguments":"{\"a\":"}}]"#),
            piece(r#"[{"index":0,"function":{"arguments":"1}"}},{"index":1,"function":{"name":"g","arguments":"{}"}}]"#),
        ]
        .concat();
        let calls = vec![
            ("f".to_owned(), r#"{"a":1}"#.to_owned()),
            ("g".to_owned(), "{}".to_owned()),
        ];
        assert_eq!(
            answers(stream.as_bytes()).expect("a stream")[0].calls,
            calls
        );
    }

    #[test]
    fn what_is_no_whole_response_is_refused_in_words() {
        let refused = |text: &str, words: &str| {
            let why = answers(text.as_bytes()).expect_err(words);
            assert!(why.contains(words), "{why}");
        };
        refused("Paris", "neither JSON nor a stream");
        refused("{\"choices\": []}", "no answer");
        refused("{", "not JSON");
        refused(
            "data: {\"error\": {\"message\": \"cut off\"}}\n\n",
            "cut off",
        );
        let many: Vec<Value> = (0..=MAX_ANSWERS).map(|_| serde_json::json!({})).collect();
        refused(
            &serde_json::json!({"choices": many}).to_string(),
            "more than 128",
        );
        assert!(answers(&[0xff]).is_err());
        assert_eq!(receipt("no base64!"), None);
        assert_eq!(
            receipt(&"A".repeat(100_000)),
            None,
            "longer than any receipt"
        );
    }

    #[test]
    fn a_request_is_read_as_the_gateway_reads_it() {
        let body =
            br#"{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "seed": -1}"#;
        let read = request(body).expect("a request");
        assert_eq!(read.model, "tiny");
        assert_eq!((read.seed(0), read.seed(1)), (Some(u64::MAX), Some(0)));
        assert_ne!(read.digest(1), read.digest(2));
        assert!(request(b"{}").expect_err("no model").contains("model"));
    }
}
