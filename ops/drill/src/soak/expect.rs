//! What is right to come of a request. Pure.

use super::answer::{Choice, Reply};
use serde_json::{Value, json};
use tether_wire::grant::Mesh;
use tether_wire::infer::{CallDelta, Finish};
use tether_wire::receipt::{self, hash::Given};
use tether_wire::{Receipt, Signed};

/// How a wrong request must be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    code: Option<&'static str>,
    param: Option<&'static str>,
}

impl Refusal {
    pub(super) const OVERLONG: Self = Self {
        status: 400,
        code: Some("context_length_exceeded"),
        param: Some("messages"),
    };
    pub(super) const MALFORMED: Self = Self {
        status: 400,
        code: Some("invalid_json"),
        param: None,
    };
    pub(super) const UNKNOWN_MODEL: Self = Self {
        status: 404,
        code: Some("model_not_found"),
        param: Some("model"),
    };

    /// As a wrong parameter, by its name.
    pub(super) fn of(param: &'static str) -> Self {
        Self {
            status: 400,
            code: None,
            param: Some(param),
        }
    }

    /// Whether this is it.
    pub(super) fn is(&self, status: u16, error: &Value) -> bool {
        status == self.status
            && self.code.is_none_or(|code| error["code"] == code)
            && self.param == error["param"].as_str()
            && error["message"].as_str().is_some_and(|it| !it.is_empty())
    }
}

/// What an answer must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    /// An object with a city, a number and a yes or no.
    Schema,
    Regex,
    Choice,
    Lark,
    Calls {
        forced: bool,
    },
    Logprobs,
    Stopped(&'static str),
}

impl Form {
    /// Those that a parameter asks for.
    pub(super) const SAID: [Self; 4] = [Self::Schema, Self::Regex, Self::Choice, Self::Lark];

    /// Adds the parameter that asks for it.
    pub(super) fn ask(self, body: &mut Value) {
        let (name, value) = match self {
            Self::Schema => (
                "response_format",
                json!({"type": "json_schema", "json_schema": {"name": "place", "schema": {
                    "type": "object",
                    "properties": {
                        "city": {"enum": ["Paris", "Rome", "海"]},
                        "number": {"type": "integer", "minimum": 0, "maximum": 99},
                        "known": {"type": "boolean"},
                    },
                    "required": ["city", "number", "known"],
                    "additionalProperties": false,
                }}}),
            ),
            Self::Regex => ("structured_outputs", json!({"regex": "[A-Z][a-z]{2,5}!"})),
            Self::Choice => (
                "structured_outputs",
                json!({"choice": ["yes", "no", "größer"]}),
            ),
            Self::Lark => (
                "structured_outputs",
                json!({"grammar": "start: WORD (\", \" WORD)* \".\"\nWORD: \"Paris\" | \"Rome\""}),
            ),
            _ => return,
        };
        body[name] = value;
    }

    /// What is wrong with an answer that ended by itself.
    fn fault(self, choice: &Choice) -> Option<String> {
        let text = choice.text.as_str();
        let right = match self {
            Self::Text => true,
            Self::Schema => is_place(text),
            Self::Regex => {
                let letters = text.strip_suffix('!').unwrap_or_default();
                (3..=6).contains(&letters.len())
                    && letters.starts_with(|it: char| it.is_ascii_uppercase())
                    && letters[1..].chars().all(|it| it.is_ascii_lowercase())
            }
            Self::Choice => ["yes", "no", "größer"].contains(&text),
            Self::Lark => (text.strip_suffix('.'))
                .is_some_and(|it| it.split(", ").all(|it| ["Paris", "Rome"].contains(&it))),
            Self::Calls { forced } => {
                let named = choice.finish.as_deref() == Some("tool_calls");
                (named || !forced)
                    && named != choice.calls.is_empty()
                    && choice.calls.iter().all(|it| is_call(it, forced))
            }
            Self::Logprobs => choice.spelt.as_deref() == Some(text.as_bytes()),
            Self::Stopped(stop) => !text.contains(stop),
        };
        (!right).then(|| format!("{self:?}: {text:?}, calls {:?}", choice.calls))
    }
}

fn is_place(text: &str) -> bool {
    let Ok(Value::Object(place)) = serde_json::from_str(text) else {
        return false;
    };
    place.len() == 3
        && place
            .get("city")
            .and_then(Value::as_str)
            .is_some_and(|it| ["Paris", "Rome", "海"].contains(&it))
        && place
            .get("number")
            .and_then(Value::as_u64)
            .is_some_and(|it| it <= 99)
        && place.get("known").is_some_and(Value::is_boolean)
}

/// Whether a call is one of a tool that there is. Only a forced one has a grammar for what is
/// inside.
fn is_call((name, arguments): &(String, String), forced: bool) -> bool {
    let Ok(Value::Object(given)) = serde_json::from_str(arguments) else {
        return false;
    };
    match name.as_str() {
        _ if !forced => !name.is_empty(),
        "clock" => given.is_empty(),
        "weather" => {
            given.len() == 2
                && given
                    .get("city")
                    .and_then(Value::as_str)
                    .is_some_and(|it| ["Paris", "Rome"].contains(&it))
                && given.get("celsius").is_some_and(Value::is_boolean)
        }
        _ => false,
    }
}

/// What is right to come of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expected {
    pub(super) refusal: Option<Refusal>,
    /// Requests with the same key have the same answer; nothing where chance is not seeded.
    pub(super) key: Option<String>,
    form: Form,
    answers: usize,
    most_tokens: u64,
    seed: Option<u64>,
}

impl Expected {
    pub(super) fn new(body: &Value, form: Form, refusal: Option<Refusal>) -> Self {
        let mut asked = body.clone();
        if let Some(fields) = asked.as_object_mut() {
            // How an answer comes changes nothing of it.
            fields.retain(|name, _| !name.starts_with("stream"));
        }
        let number = |field: &str| body[field].as_u64();
        let is_fixed = body["temperature"] == 0 || number("seed").is_some();
        Self {
            key: (refusal.is_none() && is_fixed).then(|| asked.to_string()),
            refusal,
            form,
            answers: number("n").and_then(|it| it.try_into().ok()).unwrap_or(1),
            most_tokens: number("max_tokens").unwrap_or(u64::MAX),
            seed: number("seed"),
        }
    }

    /// What is wrong with a whole answer, if anything is.
    pub(super) fn fault(&self, reply: &Reply, mesh: &Mesh) -> Option<String> {
        if reply.choices.len() != self.answers {
            return Some(format!(
                "{} answers, not {}",
                reply.choices.len(),
                self.answers
            ));
        }
        let Some(usage) = reply.usage else {
            return Some("no usage".to_owned());
        };
        let mut counted = 0;
        for (index, choice) in (0..).zip(&reply.choices) {
            let receipt = match signed(choice, mesh) {
                Ok(receipt) => receipt,
                Err(why) => return Some(why),
            };
            let tokens = u64::from(receipt.completion_tokens);
            counted += tokens;
            let finish = choice.finish.as_deref().unwrap_or_default();
            let fault = if u64::from(receipt.prompt_tokens) != usage.prompt {
                Some(format!(
                    "{} tokens of the prompt, not those of the usage",
                    receipt.prompt_tokens
                ))
            } else if finish != Finish::as_str(receipt.finish) {
                Some(format!("it ended by {finish}, which was not signed"))
            } else if self.seed.is_some_and(|seed| seed + index != receipt.seed) {
                Some(format!("drawn from {}", receipt.seed))
            } else if finish == "length" {
                (tokens != self.most_tokens).then(|| format!("cut after {tokens} tokens"))
            } else if tokens > self.most_tokens {
                Some(format!("{tokens} tokens"))
            } else {
                self.form.fault(choice)
            };
            if fault.is_some() {
                return fault;
            }
        }
        let right = usage.completion == counted && usage.total == usage.prompt + counted;
        (!right).then(|| format!("the usage is {usage:?}, and {counted} tokens were signed"))
    }
}

/// The receipt of an answer, if that is what its worker signed.
fn signed(choice: &Choice, mesh: &Mesh) -> Result<Receipt, String> {
    let sealed = choice.receipt.clone().ok_or("no receipt")?;
    let proof = receipt::verify(&Signed::from_bytes(sealed), mesh).map_err(|it| it.to_string())?;
    let mut given = Given::default();
    given.take_text(&choice.text);
    for (index, (name, arguments)) in (0..).zip(&choice.calls) {
        given.take_call(&CallDelta {
            index,
            id: None,
            name: Some(name.clone()),
            arguments: arguments.clone(),
        });
    }
    if given.text() != proof.receipt.text || given.calls() != proof.receipt.calls {
        return Err("not what its worker signed".to_owned());
    }
    Ok((*proof.receipt).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Choice {
        Choice {
            text: text.to_owned(),
            ..Choice::default()
        }
    }

    #[test]
    fn a_form_is_followed_or_not() {
        let cases = [
            (
                Form::Schema,
                r#"{"city":"海","number":7,"known":true}"#,
                r#"{"city":"Oslo","number":7,"known":true}"#,
            ),
            (
                Form::Schema,
                r#"{"city":"Rome","number":0,"known":false}"#,
                r#"{"city":"Rome","number":0"#,
            ),
            (Form::Regex, "Paris!", "paris!"),
            (Form::Regex, "Rome!", "Ro!"),
            (Form::Choice, "größer", "yes "),
            (Form::Lark, "Paris, Rome.", "Paris, Oslo."),
            (Form::Stopped("is"), "Par", "Paris"),
        ];
        for (form, right, wrong) in cases {
            assert_eq!(form.fault(&text(right)), None);
            assert!(form.fault(&text(wrong)).is_some(), "{form:?} {wrong}");
        }
    }

    #[test]
    fn a_forced_call_has_its_arguments() {
        let called = |name: &str, arguments: &str| Choice {
            finish: Some("tool_calls".to_owned()),
            calls: vec![(name.to_owned(), arguments.to_owned())],
            ..Choice::default()
        };
        let forced = Form::Calls { forced: true };
        let right = called("weather", r#"{"city":"Rome","celsius":true}"#);
        assert_eq!(forced.fault(&right), None);
        assert_eq!(forced.fault(&called("clock", "{}")), None);
        assert!(forced.fault(&called("weather", "{}")).is_some());
        assert!(forced.fault(&called("other", "{}")).is_some());
        assert!(forced.fault(&text("no call")).is_some());
        let free = Form::Calls { forced: false };
        assert_eq!(free.fault(&text("no call")), None);
        assert!(free.fault(&called("clock", "{")).is_some());
    }

    #[test]
    fn a_refusal_names_its_parameter() {
        let error = json!({"message": "m", "code": "invalid_value", "param": "top_p"});
        assert!(Refusal::of("top_p").is(400, &error));
        assert!(!Refusal::of("top_p").is(500, &error));
        assert!(!Refusal::of("stop").is(400, &error));
        assert!(!Refusal::OVERLONG.is(400, &error));
    }

    #[test]
    fn a_stream_is_the_same_answer() {
        let whole = json!({"temperature": 0, "max_tokens": 3});
        let stream = json!({"temperature": 0, "max_tokens": 3, "stream": true});
        let by_chance = json!({"temperature": 1});
        let key = |body| Expected::new(body, Form::Text, None).key;
        assert_eq!(key(&whole), key(&stream));
        assert_eq!(key(&by_chance), None);
    }
}
