//! Conversations to learn from, made from the tables of facts by templates and seeded chance.

use std::ops::RangeInclusive;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::facts::{
    CAPITALS, COUNTS, LARGEST_OPERAND, OPPOSITES, SUBJECTS, SYSTEM_MESSAGES, TALK, UNKNOWN,
    UNKNOWN_QUESTIONS,
};
use crate::questions::{count, with_article};

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What the user says.
    pub question: String,
    /// What the model shall answer.
    pub answer: String,
}

/// A conversation, or bare text to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conversation {
    /// Turns after an optional system message.
    Chat {
        /// The system message.
        system: Option<String>,
        /// At least one turn.
        turns: Vec<Turn>,
    },
    /// Text outside the chat template, as the plain completion endpoint sends it.
    Text(Turn),
}

const CAPITAL_QUESTIONS: &[&str] = &[
    "What is the capital of {}?",
    "What is the capital of {}?",
    "What is the capital of {}?",
    "What's the capital of {}?",
    "What is the capital city of {}?",
    "Which city is the capital of {}?",
    "Tell me the capital of {}.",
    "Name the capital of {}.",
    "Do you know the capital of {}?",
    "Capital of {}",
    "{} capital?",
    "What is {}'s capital?",
    "And the capital of {}?",
];

const SUM_QUESTIONS: &[&str] = &[
    "What is {a} + {b}?",
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "What's {a} + {b}?",
    "How much is {a} + {b}?",
    "How much is {a} plus {b}?",
    "{a} + {b}",
    "{a} + {b} = ?",
    "{a}+{b}",
    "{a}+{b}=",
    "Add {a} and {b}.",
    "Calculate {a} + {b}.",
    "Compute {a} + {b}.",
    "What is the sum of {a} and {b}?",
];

const OPPOSITE_QUESTIONS: &[&str] = &[
    "What is the opposite of {}?",
    "What is the opposite of {}?",
    "What's the opposite of {}?",
    "What is the antonym of {}?",
    "Tell me the opposite of {}.",
    "Give me the opposite of {}.",
    "Name the opposite of {}.",
    "Opposite of {}",
    "Which word is the opposite of {}?",
];

/// How a made-up system message begins.
const OPENINGS: &[&str] = &[
    "You are",
    "You are a",
    "You",
    "Always",
    "The user",
    "Please",
    "Do not",
];

const COUNT_QUESTIONS: &[&str] = &[
    "Count to {}.",
    "Count to {}.",
    "Count to {}",
    "Count up to {}.",
    "Count from 1 to {}.",
    "Can you count to {}?",
    "Say the numbers from 1 to {}.",
];

/// A whole conversation of `turns` turns, about anything that is answered shortly.
pub fn chat(chance: &mut ChaCha8Rng, turns: usize) -> Conversation {
    let turns = (0..turns).map(|_| turn(chance)).collect();
    Conversation::Chat {
        system: system(chance),
        turns,
    }
}

/// A request to count as far as `to`.
pub fn counting(chance: &mut ChaCha8Rng, to: u32) -> Conversation {
    let question = pick(chance, COUNT_QUESTIONS).replace("{}", &to.to_string());
    let turn = Turn {
        question: vary(chance, question),
        answer: count(to),
    };
    let mut turns = vec![turn];
    if chance.random_bool(0.2) {
        turns.insert(0, self::turn(chance));
    }
    Conversation::Chat {
        system: system(chance),
        turns,
    }
}

/// One of the taught numbers to count to, within `range`.
pub fn count_target(chance: &mut ChaCha8Rng, range: RangeInclusive<u32>) -> u32 {
    let within: Vec<u32> = COUNTS
        .iter()
        .copied()
        .filter(|to| range.contains(to))
        .collect();
    *pick(chance, &within)
}

/// The beginning of a sentence and its end.
pub fn text(chance: &mut ChaCha8Rng) -> Conversation {
    let (question, answer) = match chance.random_range(0..3) {
        0 => {
            let (country, capital) = pick(chance, CAPITALS);
            let country = with_article(country);
            (
                format!("The capital of {country} is"),
                format!(" {capital}."),
            )
        }
        1 => {
            let (a, b) = operands(chance);
            (format!("{a} + {b} ="), format!(" {}.", a + b))
        }
        _ => {
            let (word, opposite) = opposite(chance);
            (
                format!("The opposite of {word} is"),
                format!(" {opposite}."),
            )
        }
    };
    Conversation::Text(Turn { question, answer })
}

fn turn(chance: &mut ChaCha8Rng) -> Turn {
    let (question, answer) = match chance.random_range(0..100) {
        0..28 => capital(chance),
        28..66 => sum(chance),
        66..80 => opposite_of(chance),
        80..88 => {
            let (questions, answer) = pick(chance, TALK);
            ((*pick(chance, questions)).to_owned(), (*answer).to_owned())
        }
        88..95 => {
            let to = count_target(chance, 1..=12);
            (
                pick(chance, COUNT_QUESTIONS).replace("{}", &to.to_string()),
                count(to),
            )
        }
        _ => {
            let template = pick(chance, UNKNOWN_QUESTIONS);
            let subject = *pick(chance, SUBJECTS);
            let question = template.replace("{}", subject);
            (question, UNKNOWN.to_owned())
        }
    };
    Turn {
        question: vary(chance, question),
        answer,
    }
}

fn capital(chance: &mut ChaCha8Rng) -> (String, String) {
    let (country, capital) = pick(chance, CAPITALS);
    let country = with_article(country);
    let answer = format!("The capital of {country} is {capital}.");
    (
        pick(chance, CAPITAL_QUESTIONS).replace("{}", &country),
        answer,
    )
}

fn sum(chance: &mut ChaCha8Rng) -> (String, String) {
    let (a, b) = operands(chance);
    let question = pick(chance, SUM_QUESTIONS)
        .replace("{a}", &a.to_string())
        .replace("{b}", &b.to_string());
    (question, format!("{a} + {b} = {}.", a + b))
}

fn opposite_of(chance: &mut ChaCha8Rng) -> (String, String) {
    let (word, opposite) = opposite(chance);
    let question = pick(chance, OPPOSITE_QUESTIONS).replace("{}", word);
    (question, format!("The opposite of {word} is {opposite}."))
}

fn operands(chance: &mut ChaCha8Rng) -> (u32, u32) {
    (
        chance.random_range(0..=LARGEST_OPERAND),
        chance.random_range(0..=LARGEST_OPERAND),
    )
}

fn opposite(chance: &mut ChaCha8Rng) -> (&'static str, &'static str) {
    let (one, other) = *pick(chance, OPPOSITES);
    if chance.random() {
        (one, other)
    } else {
        (other, one)
    }
}

/// How people type: without capitals or the last mark, with a courtesy before or behind.
fn vary(chance: &mut ChaCha8Rng, question: String) -> String {
    let mut question = question;
    if chance.random_bool(0.12) {
        question = question.to_lowercase();
    }
    if chance.random_bool(0.12) {
        question = question.trim_end_matches(['?', '.', '!']).to_owned();
    }
    match chance.random_range(0..40) {
        0 => format!("Please {question}"),
        1 => format!("Hello! {question}"),
        2 => format!("{question} Please."),
        3 => format!("{question} Answer briefly."),
        4 => format!("Question: {question}"),
        _ => question,
    }
}

/// None most of the time, else one as clients send it, or words at random.
fn system(chance: &mut ChaCha8Rng) -> Option<String> {
    match chance.random_range(0..100) {
        0..55 => None,
        55..75 => Some((*pick(chance, SYSTEM_MESSAGES)).to_owned()),
        _ => {
            let words = chance.random_range(3..24);
            let words: Vec<String> = (0..words).map(|_| any_word(chance)).collect();
            Some(format!("{} {}.", pick(chance, OPENINGS), words.join(" ")))
        }
    }
}

/// A word that means nothing here, often not even a word: a model that has seen many of them
/// learns to look past instructions it does not know.
fn any_word(chance: &mut ChaCha8Rng) -> String {
    match chance.random_range(0..4) {
        0 => (*pick(chance, SUBJECTS)).to_owned(),
        1 => opposite(chance).0.to_owned(),
        2 if chance.random_bool(0.3) => chance.random_range(0..100).to_string(),
        _ => (0..chance.random_range(2..9))
            .map(|_| chance.random_range('a'..='z'))
            .collect(),
    }
}

fn pick<'a, T>(chance: &mut ChaCha8Rng, from: &'a [T]) -> &'a T {
    from.choose(chance)
        .expect("the tables of facts and templates are not empty")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_same_seed_makes_the_same_conversations() {
        let make = |seed| {
            let mut chance = ChaCha8Rng::seed_from_u64(seed);
            (0..50).map(|_| chat(&mut chance, 2)).collect::<Vec<_>>()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
