//! The exam, taken by the finished file through the reference forward pass.

use tokenizers::Tokenizer;

use crate::questions;
use crate::reference::Reference;
use crate::template::{ASSISTANT, BOS, END, END_ID, SYSTEM, USER, prompt};

/// Longest answer that is waited for.
const MAX_ANSWER_TOKENS: usize = 1000;

/// A wrong answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The prompt.
    pub prompt: String,
    /// What the answer had to contain.
    pub expected: String,
    /// What came.
    pub answer: String,
}

/// How a set of questions was answered.
#[derive(Debug, Clone, Default)]
pub struct Score {
    /// Questions asked.
    pub asked: usize,
    /// The wrong answers.
    pub failures: Vec<Failure>,
}

impl Score {
    /// Right answers in percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        let right = self.asked - self.failures.len();
        100.0 * right as f64 / self.asked.max(1) as f64
    }
}

/// The model's greedy answer to a rendered prompt: its text and its number of tokens.
///
/// # Errors
/// When the tokenizer fails.
pub fn answer(
    model: &Reference,
    tokenizer: &Tokenizer,
    prompt: &str,
) -> anyhow::Result<(String, usize)> {
    let encoding = tokenizer
        .encode(prompt, false)
        .map_err(anyhow::Error::msg)?;
    let tokens = model.continue_greedily(encoding.get_ids(), MAX_ANSWER_TOKENS, END_ID);
    let text = tokenizer
        .decode(&tokens, true)
        .map_err(anyhow::Error::msg)?;
    Ok((text, tokens.len()))
}

/// Asks every question after `render` made a prompt of it, and calls `step` after each.
///
/// # Errors
/// When the tokenizer fails.
pub fn ask_all(
    model: &Reference,
    tokenizer: &Tokenizer,
    questions: &[(String, String)],
    render: impl Fn(&str) -> String,
    mut step: impl FnMut(),
) -> anyhow::Result<Score> {
    let mut score = Score::default();
    for (question, expected) in questions {
        let prompt = render(question);
        let (answer, _) = answer(model, tokenizer, &prompt)?;
        score.asked += 1;
        if !right(&answer, expected) {
            score.failures.push(Failure {
                prompt,
                expected: expected.clone(),
                answer,
            });
        }
        step();
    }
    Ok(score)
}

/// A count must be the whole answer; anything else must be contained in it.
fn right(answer: &str, expected: &str) -> bool {
    if expected.starts_with("1 2 3") {
        answer == expected
    } else {
        answer.contains(expected)
    }
}

/// A way to put a question: its name, and how it is rendered.
pub type Setting = (&'static str, fn(&str) -> String);

/// The exam as it stands, which must be passed, and then as people and clients vary it.
pub const SETTINGS: [Setting; 5] = [
    ("exam", prompt),
    ("lower case, no mark", |question| {
        prompt(question.to_lowercase().trim_end_matches(['?', '.']))
    }),
    ("with a system message", |question| {
        let rest = prompt(question);
        let rest = rest.strip_prefix(BOS).unwrap_or(&rest);
        format!("{BOS}{SYSTEM}You are a helpful assistant.{END}{rest}")
    }),
    ("with an unseen system message", |question| {
        let rest = prompt(question);
        let rest = rest.strip_prefix(BOS).unwrap_or(&rest);
        format!(
            "{BOS}{SYSTEM}You are a friendly teacher who explains things to children.{END}{rest}"
        )
    }),
    ("as a second turn", |question| {
        let rest = prompt(question);
        let rest = rest.strip_prefix(BOS).unwrap_or(&rest);
        format!(
            "{BOS}{USER}What is the capital of Italy?{END}{ASSISTANT}The capital of Italy is Rome.{END}{rest}"
        )
    }),
];

/// The exam's questions; all but the first setting leave out the long counts, for time.
#[must_use]
pub fn questions_of(setting: usize) -> Vec<(String, String)> {
    let mut all = questions::exam();
    if setting > 0 {
        all.retain(|(_, expected)| expected.len() < 200);
    }
    all
}
