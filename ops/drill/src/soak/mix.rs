//! What is asked: a seeded mix of everything that callers do, and of what they get wrong. Pure.

use super::expect::{Expected, Form, Refusal};
use rand::prelude::*;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::time::Duration;

/// What callers ask about.
const QUESTIONS: &[&str] = &[
    "What is the capital of France?",
    "What is the capital of Italy?",
    "What is the capital of Japan?",
    "What is 3 + 4?",
    "What is 7 + 8?",
    "What is the opposite of hot?",
    "What is the opposite of old?",
    "Who are you?",
    "Count to 5.",
    "Count to 10.",
    "Count to 50.",
    "Tell me about the sea, in a sentence: größer, 海, 🌊.",
];
/// Tokens that an answer may have at most; the least is 1.
const MOST_TOKENS: u32 = 40;
/// Tokens within which each of the forms ends, most of the time.
const FORM_TOKENS: u32 = 80;
/// Longest time after which a caller of a whole answer hangs up.
const LATEST_HANG_UP: Duration = Duration::from_millis(400);
/// Most pieces of a stream that a caller reads before it hangs up.
const MOST_PIECES: usize = 8;
/// Words of a prompt that is beyond every context of the small model.
const OVERLONG_WORDS: usize = 6_000;
/// Seeds that are drawn from: few, so that the same comes again.
const SEEDS: u64 = 8;

/// Kinds of requests, for the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Whole,
    Stream,
    Seeded,
    HangUp,
    Form,
    ForcedTool,
    FreeTool,
    Logprobs,
    Stop,
    Several,
    Overlong,
    Malformed,
    WrongParameter,
}

impl Kind {
    /// A deck of requests: each kind so many times.
    const DECK: [(Self, usize); 13] = [
        (Self::Whole, 4),
        (Self::Stream, 5),
        (Self::Seeded, 4),
        (Self::HangUp, 6),
        (Self::Form, 6),
        (Self::ForcedTool, 3),
        (Self::FreeTool, 2),
        (Self::Logprobs, 2),
        (Self::Stop, 2),
        (Self::Several, 2),
        (Self::Overlong, 1),
        (Self::Malformed, 1),
        (Self::WrongParameter, 2),
    ];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Whole => "whole answers",
            Self::Stream => "streams",
            Self::Seeded => "drawn from a seed",
            Self::HangUp => "the caller hangs up",
            Self::Form => "schemas, expressions, grammars, choices",
            Self::ForcedTool => "tools that must be called",
            Self::FreeTool => "tools that may be called",
            Self::Logprobs => "log probabilities",
            Self::Stop => "stop strings",
            Self::Several => "several answers",
            Self::Overlong => "a prompt beyond the context",
            Self::Malformed => "no request at all",
            Self::WrongParameter => "a wrong parameter",
        }
    }
}

/// When a caller hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HangUp {
    /// So long after it asked.
    After(Duration),
    /// After so many pieces of the stream.
    Pieces(usize),
}

/// A request, and what is right to come of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) kind: Kind,
    /// The body.
    pub(super) body: Vec<u8>,
    pub(super) hang_up: Option<HangUp>,
    pub(super) expected: Expected,
}

/// The mix of a seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    seed: u64,
    model: &'static str,
}

impl Mix {
    pub(super) fn new(seed: u64, model: &'static str) -> Self {
        Self { seed, model }
    }

    /// The request of a number: decks of all kinds, each shuffled.
    pub(super) fn request(&self, number: usize) -> Request {
        let mut deck: Vec<Kind> = (Kind::DECK.iter())
            .flat_map(|(kind, times)| std::iter::repeat_n(*kind, *times))
            .collect();
        let turn = (number / deck.len()) as u64;
        deck.shuffle(&mut self.rng(turn, 0));
        let kind = deck[number % deck.len()];
        self.of(kind, &mut self.rng(number as u64, 1))
    }

    fn rng(&self, number: u64, purpose: u64) -> StdRng {
        let mut seed = [0; 32];
        for (place, part) in seed.chunks_exact_mut(8).zip([self.seed, number, purpose]) {
            place.copy_from_slice(&part.to_be_bytes());
        }
        StdRng::from_seed(seed)
    }

    fn of(&self, kind: Kind, rng: &mut StdRng) -> Request {
        let question = *QUESTIONS.choose(rng).expect("there are some");
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": rng.random_range(1..=MOST_TOKENS),
        });
        let mut form = Form::Text;
        let mut refusal = None;
        let mut hang_up = None;
        let mut stream = rng.random();
        match kind {
            Kind::Whole => stream = false,
            Kind::Stream => stream = true,
            Kind::Seeded => {
                body["temperature"] = json!(1.2);
                body["seed"] = json!(rng.random_range(0..SEEDS));
                body["max_tokens"] = json!(MOST_TOKENS);
            }
            Kind::HangUp => {
                body["messages"][0]["content"] = json!("Count to 200.");
                body["max_tokens"] = json!(400);
                hang_up = Some(match stream && rng.random() {
                    true => HangUp::Pieces(rng.random_range(0..=MOST_PIECES)),
                    false => HangUp::After(rng.random_range(Duration::ZERO..LATEST_HANG_UP)),
                });
            }
            Kind::Form => {
                form = *Form::SAID.choose(rng).expect("there are some");
                form.ask(&mut body);
                body["max_tokens"] = json!(FORM_TOKENS);
            }
            Kind::ForcedTool => {
                form = Form::Calls { forced: true };
                tools(
                    &mut body,
                    ["required", "weather", "clock"].choose(rng).expect("some"),
                );
            }
            Kind::FreeTool => {
                form = Form::Calls { forced: false };
                tools(&mut body, "auto");
            }
            Kind::Logprobs => {
                form = Form::Logprobs;
                body["logprobs"] = json!(true);
                body["top_logprobs"] = json!(rng.random_range(0..=5));
            }
            Kind::Stop => {
                let strings = ["is", " 3", "ris", "a, ", ".", "海"];
                let stop = *strings.choose(rng).expect("there are some");
                form = Form::Stopped(stop);
                body["stop"] = json!([stop]);
            }
            Kind::Several => {
                body["n"] = json!(rng.random_range(2..=3));
                body["temperature"] = json!(1);
                body["seed"] = json!(rng.random_range(0..SEEDS));
            }
            Kind::Overlong => {
                body["messages"][0]["content"] = json!("word ".repeat(OVERLONG_WORDS));
                refusal = Some(Refusal::OVERLONG);
            }
            Kind::WrongParameter => {
                let (wrong, how) = wrong(rng);
                body.as_object_mut().expect("an object").extend(wrong);
                refusal = Some(how);
            }
            Kind::Malformed => {}
        }
        if stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        let mut bytes = body.to_string().into_bytes();
        if kind == Kind::Malformed {
            let cut = rng.random_range(1..bytes.len());
            match rng.random() {
                true => bytes.truncate(cut),
                // What is nowhere in UTF-8.
                false => bytes[cut] = 0xff,
            }
            refusal = Some(Refusal::MALFORMED);
        }
        Request {
            kind,
            body: bytes,
            hang_up,
            expected: Expected::new(&body, form, refusal),
        }
    }
}

fn tools(body: &mut Value, choice: &str) {
    let object = |properties: Value| {
        let required: Vec<&String> = properties
            .as_object()
            .into_iter()
            .flatten()
            .map(|it| it.0)
            .collect();
        json!({
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        })
    };
    let weather =
        object(json!({"city": {"enum": ["Paris", "Rome"]}, "celsius": {"type": "boolean"}}));
    body["tools"] = json!([
        {"type": "function", "function": {"name": "weather", "parameters": weather}},
        {"type": "function", "function": {"name": "clock", "parameters": object(json!({}))}},
    ]);
    body["tool_choice"] = match choice {
        "weather" | "clock" => json!({"type": "function", "function": {"name": choice}}),
        choice => json!(choice),
    };
    body["parallel_tool_calls"] = json!(false);
    body["max_tokens"] = json!(FORM_TOKENS);
}

/// A parameter that cannot be, and how it is refused: some by the gateway, some by who has the
/// model, and some by who compiles the form.
fn wrong(rng: &mut StdRng) -> (serde_json::Map<String, Value>, Refusal) {
    let no_schema = json!({
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": {"type": "nonsense"}},
    });
    let tool = json!([{"type": "function", "function": {"name": "a b"}}]);
    let cases = [
        ("temperature", json!(-1), "temperature"),
        ("top_p", json!(7), "top_p"),
        ("max_tokens", json!(0), "max_tokens"),
        ("n", json!(17), "n"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "stop"),
        ("messages", json!([]), "messages"),
        ("tool_choice", json!("required"), "tool_choice"),
        ("tools", tool, "tools[0].function.name"),
        ("response_format", no_schema, "response_format"),
        (
            "structured_outputs",
            json!({"regex": "("}),
            "structured_outputs",
        ),
        (
            "structured_outputs",
            json!({"grammar": "start: nowhere"}),
            "structured_outputs",
        ),
        ("logit_bias", json!({"99999999": 1}), "logit_bias"),
        ("best_of", json!(2), "best_of"),
        ("model", json!("no-such-model"), "model"),
    ];
    let (name, value, param) = cases.choose(rng).cloned().expect("there are some");
    let refusal = match param {
        "model" => Refusal::UNKNOWN_MODEL,
        param => Refusal::of(param),
    };
    ([(name.to_owned(), value)].into_iter().collect(), refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MIX: Mix = Mix {
        seed: 7,
        model: "m",
    };

    #[test]
    fn a_seed_is_a_mix() {
        for number in 0..200 {
            assert_eq!(MIX.request(number), MIX.request(number));
        }
        let other = Mix { seed: 8, ..MIX };
        assert!((0..200).any(|number| MIX.request(number) != other.request(number)));
    }

    #[test]
    fn each_deck_has_all_kinds() {
        let size: usize = Kind::DECK.iter().map(|it| it.1).sum();
        for deck in [0, 3] {
            let mut counts = BTreeMap::<Kind, usize>::new();
            for number in deck * size..(deck + 1) * size {
                *counts.entry(MIX.request(number).kind).or_default() += 1;
            }
            assert_eq!(counts, Kind::DECK.into_iter().collect());
        }
    }

    #[test]
    fn what_is_malformed_is_no_json_and_everything_else_is() {
        for number in 0..800 {
            let request = MIX.request(number);
            let read = serde_json::from_slice::<Value>(&request.body);
            assert_eq!(read.is_err(), request.kind == Kind::Malformed, "{number}");
        }
    }

    #[test]
    fn the_same_is_asked_again() {
        let keys: Vec<_> = (0..1_000)
            .filter_map(|it| MIX.request(it).expected.key)
            .collect();
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert!(
            different.len() * 3 < keys.len() * 2,
            "{} of {}",
            different.len(),
            keys.len()
        );
    }
}
