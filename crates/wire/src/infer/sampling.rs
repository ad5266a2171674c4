//! How each token of an answer is drawn. [T-INF-4]

use crate::codec::{CodecError, check_field, check_len};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most stop strings, as in OpenAI's API. [T-INF-3]
pub const MAX_STOPS: usize = 4;
/// Most bytes of a stop string. [T-INF-3]
pub const MAX_STOP_BYTES: usize = 512;
/// Most entries of `logit_bias`. [T-INF-3]
pub const MAX_LOGIT_BIAS: usize = 1_024;
/// Most likely tokens that may be named beside each token, as in OpenAI's API. [T-INF-4]
pub const MAX_TOP_LOGPROBS: u8 = 20;
/// Largest `repetition_penalty`; beyond it every token that was there is as good as forbidden. [T-INF-4]
pub const MAX_REPETITION_PENALTY: f32 = 10.0;

/// How the answer is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Most tokens of the answer; nothing means as many as the context holds.
    pub max_tokens: Option<u32>,
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens with this probability together.
    pub top_p: f32,
    /// Only the most likely tokens; 0 means all.
    pub top_k: u32,
    /// Only tokens at least this probable in relation to the most likely.
    pub min_p: f32,
    /// Penalty for each time that a token was drawn already.
    pub frequency_penalty: f32,
    /// Penalty for a token that was drawn at all.
    pub presence_penalty: f32,
    /// What the logits of tokens of prompt and answer are divided by where they are positive, and
    /// multiplied by where they are not; as in Hugging Face's `transformers` and vLLM. 1 is none.
    pub repetition_penalty: f32,
    /// Added to the logits of tokens by id.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The answer is a function of it; the orchestrator chooses one where the caller did not. [T-INF-5]
    pub seed: Option<u64>,
    /// Strings before which the answer ends.
    pub stop: Vec<String>,
    /// Whether each token comes with its logarithmic probability, and with how many of the most
    /// likely ones beside it. Nothing means without.
    pub top_logprobs: Option<u8>,
}

impl Default for Sampling {
    /// OpenAI's defaults.
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: BTreeMap::new(),
            seed: None,
            stop: Vec::new(),
            top_logprobs: None,
        }
    }
}

impl Sampling {
    /// Checks every parameter. The field names are OpenAI's, since tenants read them. [T-INF-4]
    ///
    /// # Errors
    /// Names the parameter and its range.
    pub fn check(&self) -> Result<(), CodecError> {
        let within = |field: &'static str, value: f32, low: f32, high: f32| {
            check_field("request", field, (low..=high).contains(&value), || {
                format!("is {value}, not between {low} and {high}")
            })
        };
        check_field("request", "max_tokens", self.max_tokens != Some(0), || {
            "is 0, at least 1 is needed".to_owned()
        })?;
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        let repetition = self.repetition_penalty;
        check_field(
            "request",
            "repetition_penalty",
            repetition > 0.0 && repetition <= MAX_REPETITION_PENALTY,
            || format!("is {repetition}, not above 0 and up to {MAX_REPETITION_PENALTY}"),
        )?;
        let top = self.top_logprobs.unwrap_or(0);
        check_field("request", "top_logprobs", top <= MAX_TOP_LOGPROBS, || {
            format!("is {top}, not between 0 and {MAX_TOP_LOGPROBS}")
        })?;
        check_len(
            "request",
            "logit_bias",
            self.logit_bias.len(),
            MAX_LOGIT_BIAS,
        )?;
        for (token, bias) in &self.logit_bias {
            check_field(
                "request",
                "logit_bias",
                (-100.0..=100.0).contains(bias),
                || format!("of token {token} is {bias}, not between -100 and 100"),
            )?;
        }
        check_len("request", "stop", self.stop.len(), MAX_STOPS)?;
        for stop in &self.stop {
            check_field("request", "stop", !stop.is_empty(), || {
                "holds an empty string".to_owned()
            })?;
            check_len("request", "stop", stop.len(), MAX_STOP_BYTES)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_outside_its_range_is_named() {
        let wrong = |field: &str, change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            let error = sampling.check().expect_err(field).to_string();
            assert!(error.contains(field), "{error}");
        };
        wrong("temperature", |s| s.temperature = -1.0);
        wrong("temperature", |s| s.temperature = f32::NAN);
        wrong("top_p", |s| s.top_p = 7.0);
        wrong("min_p", |s| s.min_p = -0.1);
        wrong("max_tokens", |s| s.max_tokens = Some(0));
        wrong("presence_penalty", |s| s.presence_penalty = 2.1);
        wrong("repetition_penalty", |s| s.repetition_penalty = 0.0);
        wrong("repetition_penalty", |s| s.repetition_penalty = 10.1);
        wrong("repetition_penalty", |s| s.repetition_penalty = f32::NAN);
        wrong("top_logprobs", |s| s.top_logprobs = Some(21));
        wrong("stop", |s| s.stop = vec![String::new()]);
        wrong("stop", |s| s.stop = vec!["x".into(); 5]);
        wrong("logit_bias", |s| s.logit_bias = [(1, 101.0)].into());
    }
}
