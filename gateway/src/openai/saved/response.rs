//! A response that was kept: one JSON object, a stream as it came, or a list of a stream's chunks as a
//! client wrote them down.

use super::COMPLETION_ID;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;
use tether_wire::infer::MAX_TOOL_CALLS;
use tether_wire::receipt::MAX_RECEIPT_BYTES;
use tether_wire::{CorrelationId, MeshId};

/// Most answers that one response is read for.
const MAX_ANSWERS: usize = 128;
/// Marks what is no JSON.
const DONE: &str = "[DONE]";

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedResponse {
    /// Its answers in their order, at least one.
    pub answers: Vec<SavedAnswer>,
    /// The counts of tokens, of all of them together, where it gives them.
    pub usage: Option<SavedUsage>,
}

/// Counts of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedUsage {
    /// Of the prompt, once.
    pub prompt: u64,
    /// Of all answers.
    pub completion: u64,
    /// Of both, where it is there.
    pub total: Option<u64>,
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
    /// The id of each of them, where it has one.
    pub call_ids: Vec<Option<String>>,
    /// Why it ended, in OpenAI's words.
    pub finish: Option<String>,
    /// What the response says of it.
    pub says: Says,
    /// The sealed receipt.
    pub receipt: Option<Vec<u8>>,
}

/// What a response says of an answer beside the answer, as far as a receipt says it too: each as it
/// stands there, and nothing of what is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Says {
    /// `model`: as it was asked for, with or without its version.
    pub model: Option<String>,
    /// `id`
    pub id: Option<String>,
    /// `system_fingerprint`
    pub fingerprint: Option<String>,
    /// `tether.mesh`
    pub mesh: Option<String>,
    /// `tether.worker`
    pub worker: Option<String>,
    /// `tether.model`
    pub tether_model: Option<String>,
    /// `tether.seed`
    pub seed: Option<String>,
    /// `tether.degraded_from`: the model that was asked for, where a smaller one answered.
    pub degraded_from: Option<String>,
    /// `tether.max_tokens`: the limit of a policy, where the request set none.
    pub max_tokens: Option<String>,
}

impl Says {
    /// The mesh that it names.
    #[must_use]
    pub fn mesh(&self) -> Option<MeshId> {
        self.mesh.as_deref()?.parse().ok()
    }

    /// The job that its id names; nothing where the id is not one of ours.
    #[must_use]
    pub fn job(&self) -> Option<CorrelationId> {
        self.id
            .as_deref()?
            .strip_prefix(COMPLETION_ID)?
            .parse()
            .ok()
    }

    /// The limit that a policy set where the request set none.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        self.max_tokens.as_deref()?.parse().ok()
    }

    fn take_head(&mut self, object: &Value) -> Result<(), String> {
        agree(&mut self.model, "model", &object["model"])?;
        agree(&mut self.id, "id", &object["id"])?;
        let fingerprint = &object["system_fingerprint"];
        agree(&mut self.fingerprint, "system_fingerprint", fingerprint)
    }

    fn take_extension(&mut self, tether: &Value) -> Result<(), String> {
        agree(&mut self.mesh, "tether.mesh", &tether["mesh"])?;
        agree(&mut self.worker, "tether.worker", &tether["worker"])?;
        agree(&mut self.tether_model, "tether.model", &tether["model"])?;
        agree(&mut self.seed, "tether.seed", &tether["seed"])?;
        let from = &tether["degraded_from"];
        agree(&mut self.degraded_from, "tether.degraded_from", from)?;
        agree(
            &mut self.max_tokens,
            "tether.max_tokens",
            &tether["max_tokens"],
        )
    }
}

/// Each piece of a response that names something names the same.
fn agree(said: &mut Option<String>, name: &str, value: &Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let text = (value.as_str()).map_or_else(|| value.to_string(), str::to_owned);
    match said {
        Some(other) if *other != text => {
            Err(format!("its pieces contradict each other in `{name}`"))
        }
        _ => {
            *said = Some(text);
            Ok(())
        }
    }
}

/// The answers of a response, see [`response`].
///
/// # Errors
/// See there.
pub fn answers(bytes: &[u8]) -> Result<Vec<SavedAnswer>, String> {
    Ok(response(bytes)?.answers)
}

/// Reads a response, whole or streamed.
///
/// # Errors
/// Why it is no response of ours, in words.
pub fn response(bytes: &[u8]) -> Result<SavedResponse, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let objects = match text.as_bytes().first() {
        Some(b'[') => json(text)?,
        Some(b'{') => vec![json(text)?],
        _ => events(text)?,
    };
    let mut answers: BTreeMap<u32, Partial> = BTreeMap::new();
    // What stands beside the answers is said of all of them.
    let mut all = Partial::default();
    let mut usage = None;
    for object in &objects {
        take(object, &mut answers)?;
        usage = counts(object).or(usage);
        all.answer.says.take_head(object)?;
        all.take_extension(object)?;
    }
    if answers.is_empty() {
        return Err("it holds no answer of a chat".to_owned());
    }
    let finished = answers
        .into_iter()
        .map(|(index, one)| one.finish(index, &all.answer));
    Ok(SavedResponse {
        answers: finished.collect::<Result<_, _>>()?,
        usage,
    })
}

/// An answer, of which more may come.
#[derive(Default)]
struct Partial {
    answer: SavedAnswer,
    calls: BTreeMap<u64, Call>,
}

#[derive(Default)]
struct Call {
    id: Option<String>,
    name: String,
    arguments: String,
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
        // Whoever answered wrote them; they go onto a screen.
        let legible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let words: String = words.chars().map(legible).take(200).collect();
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
                let it = self.calls.entry(index).or_default();
                agree(&mut it.id, "tool_calls.id", &call["id"])?;
                it.name += call["function"]["name"].as_str().unwrap_or_default();
                it.arguments += call["function"]["arguments"].as_str().unwrap_or_default();
            }
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.answer.finish = Some(finish.to_owned());
        }
        self.take_extension(choice)
    }

    /// Takes the field `tether` of a response or of a choice, where it is there.
    fn take_extension(&mut self, object: &Value) -> Result<(), String> {
        let Some(tether) = object.get("tether").filter(|tether| tether.is_object()) else {
            return Ok(());
        };
        self.answer.says.take_extension(tether)?;
        if let Some(sealed) = tether["receipt"].as_str().and_then(receipt) {
            self.answer.receipt = Some(sealed);
        }
        Ok(())
    }

    /// The answer of this number, with what is said of all.
    fn finish(self, index: u32, all: &SavedAnswer) -> Result<SavedAnswer, String> {
        let mut answer = self.answer;
        answer.index = index;
        for call in self.calls.into_values() {
            answer.calls.push((call.name, call.arguments));
            answer.call_ids.push(call.id);
        }
        let says = &mut answer.says;
        for (own, beside, name) in [
            (&mut says.model, &all.says.model, "model"),
            (&mut says.id, &all.says.id, "id"),
            (
                &mut says.fingerprint,
                &all.says.fingerprint,
                "system_fingerprint",
            ),
            (&mut says.mesh, &all.says.mesh, "tether.mesh"),
            (&mut says.worker, &all.says.worker, "tether.worker"),
            (
                &mut says.tether_model,
                &all.says.tether_model,
                "tether.model",
            ),
            (&mut says.seed, &all.says.seed, "tether.seed"),
            (
                &mut says.degraded_from,
                &all.says.degraded_from,
                "tether.degraded_from",
            ),
            (
                &mut says.max_tokens,
                &all.says.max_tokens,
                "tether.max_tokens",
            ),
        ] {
            agree(
                own,
                name,
                &beside.clone().map_or(Value::Null, Value::String),
            )?;
        }
        answer.receipt = answer.receipt.or_else(|| all.receipt.clone());
        Ok(answer)
    }
}

/// A sealed receipt in base64.
#[must_use]
pub fn receipt(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    (text.len() <= MAX_RECEIPT_BYTES * 2)
        .then(|| STANDARD.decode(text).ok())
        .flatten()
}

fn counts(object: &Value) -> Option<SavedUsage> {
    let usage = &object["usage"];
    Some(SavedUsage {
        prompt: usage["prompt_tokens"].as_u64()?,
        completion: usage["completion_tokens"].as_u64()?,
        total: usage["total_tokens"].as_u64(),
    })
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
            call_ids: Vec::new(),
            finish: Some("stop".into()),
            says: Says {
                mesh: Some("01".repeat(32)),
                ..Says::default()
            },
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
        let usage = SavedUsage {
            prompt: 11,
            completion: 3,
            total: None,
        };
        for text in [WHOLE, STREAM] {
            let response = response(text.as_bytes()).expect("a response");
            assert_eq!(response.usage, Some(usage));
            assert_eq!(response.answers[0].says.mesh(), Some(MeshId([1; 32])));
        }
    }

    #[test]
    fn what_a_response_says_of_itself_is_said_of_each_answer_and_once() {
        let several = r#"{"model": "tiny", "id": "chatcmpl-03030303030303030303030303030303",
            "choices": [
            {"index": 0, "message": {"content": "a"}, "tether": {"worker": "w", "seed": 5}},
            {"index": 1, "message": {"content": "b"}, "tether": {"worker": "v", "seed": 6}}]}"#;
        let read = answers(several.as_bytes()).expect("a response");
        for (answer, worker, seed) in [(&read[0], "w", "5"), (&read[1], "v", "6")] {
            let says = &answer.says;
            assert_eq!(says.model.as_deref(), Some("tiny"));
            assert_eq!(says.job(), Some(CorrelationId([3; 16])));
            assert_eq!(
                (says.worker.as_deref(), says.seed.as_deref()),
                (Some(worker), Some(seed))
            );
        }
        let beside = several.replace("\"model\"", "\"tether\": {\"worker\": \"w\"}, \"model\"");
        let why = answers(beside.as_bytes()).expect_err("two are said to be one");
        assert!(why.contains("tether.worker"), "{why}");
        let pieces = "data: {\"model\": \"a\", \"choices\": [{\"index\": 0}]}\n\n\
            data: {\"model\": \"b\", \"choices\": [{\"index\": 0}]}\n\n";
        let why = answers(pieces.as_bytes()).expect_err("two models");
        assert!(why.contains("contradict each other in `model`"), "{why}");
    }

    #[test]
    fn words_of_an_error_do_not_reach_a_screen_as_they_are() {
        let cut = br#"data: {"error": {"message": "gone\u001b[2J"}}"#;
        let why = answers(cut).expect_err("no answer");
        assert!(why.ends_with("gone\u{fffd}[2J"), "{why}");
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
}
