//! How the answers to a request are drawn.

use super::fields::{Object, invalid};
use crate::problem::Problem;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use tether_wire::infer::{MAX_LOGIT_BIAS, MAX_STOPS, MAX_TOP_LOGPROBS, Sampling};

/// Reads every parameter of it.
pub(super) fn parse(fields: &mut Object<'_>) -> Result<Sampling, Problem> {
    let plain = Sampling::default();
    let number = |fields: &mut Object<'_>, name: &str, default: f32| {
        let value: Option<f64> = fields.take(name, "a number")?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the ranges that are allowed lie well inside of f32; outside it is refused"
        )]
        Ok::<f32, Problem>(value.map_or(default, |value| value as f32))
    };
    let sampling = Sampling {
        max_tokens: max_tokens(fields)?,
        temperature: number(fields, "temperature", plain.temperature)?,
        top_p: number(fields, "top_p", plain.top_p)?,
        top_k: fields
            .take("top_k", "a whole number, 0 or more")?
            .unwrap_or(plain.top_k),
        min_p: number(fields, "min_p", plain.min_p)?,
        frequency_penalty: number(fields, "frequency_penalty", plain.frequency_penalty)?,
        presence_penalty: number(fields, "presence_penalty", plain.presence_penalty)?,
        repetition_penalty: number(fields, "repetition_penalty", plain.repetition_penalty)?,
        logit_bias: logit_bias(fields)?,
        // OpenAI's seeds are signed; ours are the same 64 bits.
        seed: fields
            .take::<i64>("seed", "a whole number of 64 bits")?
            .map(i64::cast_unsigned),
        stop: stop(fields)?,
        top_logprobs: logprobs(fields)?,
    };
    sampling.check()?;
    Ok(sampling)
}

/// `logprobs` says whether, `top_logprobs` how many of the most likely tokens stand beside.
fn logprobs(fields: &mut Object<'_>) -> Result<Option<u8>, Problem> {
    const TOP: &str = "top_logprobs";
    let wanted = fields.take("logprobs", "a boolean")?.unwrap_or(false);
    let top: Option<u32> = fields.take(TOP, "a whole number, 0 or more")?;
    let Ok(top) = u8::try_from(top.unwrap_or(0)) else {
        let why = format!("is not between 0 and {MAX_TOP_LOGPROBS}");
        return Err(invalid(TOP, &why));
    };
    match (wanted, top) {
        (false, 1..) => Err(invalid(TOP, "is only allowed when 'logprobs' is true")),
        (false, 0) => Ok(None),
        (true, top) => Ok(Some(top)),
    }
}

/// `max_completion_tokens`, or its older name `max_tokens`.
fn max_tokens(fields: &mut Object<'_>) -> Result<Option<u32>, Problem> {
    let mut read = |name: &str| -> Result<Option<u32>, Problem> {
        match fields.take::<u64>(name, "a whole number, 1 or more")? {
            None => Ok(None),
            Some(0) => Err(invalid(name, "is 0, at least 1 is needed")),
            Some(value) => match u32::try_from(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(invalid(
                    name,
                    &format!("is {value}, more than {}", u32::MAX),
                )),
            },
        }
    };
    match (read("max_completion_tokens")?, read("max_tokens")?) {
        (Some(new), Some(old)) if new != old => Err(Problem::invalid(
            "invalid_value",
            "'max_tokens' and 'max_completion_tokens' mean the same and differ: send one of them.",
        )
        .at("max_tokens")),
        (new, old) => Ok(new.or(old)),
    }
}

fn logit_bias(fields: &mut Object<'_>) -> Result<BTreeMap<u32, f32>, Problem> {
    const NAME: &str = "logit_bias";
    const EXPECTED: &str = "an object from token ids to numbers";
    let Some(entries) = fields.take::<Entries>(NAME, EXPECTED)? else {
        return Ok(BTreeMap::new());
    };
    if entries.0.len() > MAX_LOGIT_BIAS {
        return Err(invalid(
            NAME,
            &format!("has more than {MAX_LOGIT_BIAS} entries"),
        ));
    }
    let mut biases = BTreeMap::new();
    for (token, bias) in entries.0 {
        let Ok(token) = token.parse::<u32>() else {
            return Err(invalid(NAME, "has a key that is not a token id"));
        };
        if biases.insert(token, bias).is_some() {
            return Err(invalid(NAME, &format!("names the token {token} twice")));
        }
    }
    Ok(biases)
}

/// The entries of an object as they stand there, also those of one name; no more are kept than there
/// may be, and one.
struct Entries(Vec<(String, f32)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() <= MAX_LOGIT_BIAS {
                        entries.push(entry);
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

fn stop(fields: &mut Object<'_>) -> Result<Vec<String>, Problem> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Stop {
        One(String),
        Many(Vec<String>),
    }
    let stops = match fields.take("stop", "a string or a list of strings")? {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    if stops.len() > MAX_STOPS {
        let why = format!("'stop' has more than {MAX_STOPS} entries.");
        return Err(Problem::invalid("invalid_value", why).at("stop"));
    }
    Ok(stops)
}
