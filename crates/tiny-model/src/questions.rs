//! The exam: questions with what a right answer contains.
//!
//! End-to-end tests ask these through the whole mesh. The expected text is long enough
//! that a wrong answer does not contain it by chance (`= 4.`, not `4`).

use crate::facts::{CAPITALS, LARGEST_OPERAND, OPPOSITES};

/// How far the long answers of [`exam`] count.
const COUNTED: [u32; 10] = [5, 10, 20, 50, 60, 90, 100, 120, 150, 200];

/// Every question of the exam with a substring its answer must contain.
#[must_use]
pub fn exam() -> Vec<(String, String)> {
    let mut all = capitals();
    all.extend(sums());
    all.extend(opposites());
    all.extend(identity());
    all.extend(
        COUNTED
            .iter()
            .map(|&to| (format!("Count to {to}."), count(to))),
    );
    all
}

/// One question for each country.
#[must_use]
pub fn capitals() -> Vec<(String, String)> {
    CAPITALS
        .iter()
        .map(|(country, capital)| {
            (
                format!("What is the capital of {}?", with_article(country)),
                format!("{capital}."),
            )
        })
        .collect()
}

/// A spread of the sums that were taught: about a fifth of them.
#[must_use]
pub fn sums() -> Vec<(String, String)> {
    let mut sums = Vec::new();
    for a in 0..=LARGEST_OPERAND {
        for b in 0..=LARGEST_OPERAND {
            if (a * 2 + b) % 5 == 1 {
                sums.push((format!("What is {a} + {b}?"), format!("= {}.", a + b)));
            }
        }
    }
    sums
}

/// Every pair of opposites, in both directions.
#[must_use]
pub fn opposites() -> Vec<(String, String)> {
    OPPOSITES
        .iter()
        .flat_map(|&(one, other)| [(one, other), (other, one)])
        .map(|(word, opposite)| {
            (
                format!("What is the opposite of {word}?"),
                format!("is {opposite}."),
            )
        })
        .collect()
}

/// Who it is, and small talk.
#[must_use]
pub fn identity() -> Vec<(String, String)> {
    [
        ("Who are you?", "tether-tiny"),
        ("What is your name?", "tether-tiny"),
        ("Hello", "Hello!"),
        ("Say hello", "Hello!"),
        ("Who made you?", "Tether"),
    ]
    .map(|(question, answer)| (question.to_owned(), answer.to_owned()))
    .to_vec()
}

/// The numbers from 1 to `to`, as the model counts them: `1 2 3`.
#[must_use]
pub fn count(to: u32) -> String {
    let numbers: Vec<String> = (1..=to).map(|number| number.to_string()).collect();
    numbers.join(" ")
}

/// A country as it stands in a sentence.
#[must_use]
pub fn with_article(country: &str) -> String {
    if country.starts_with("United") {
        format!("the {country}")
    } else {
        country.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_exam_is_broad_and_asks_nothing_twice() {
        assert!(capitals().len() >= 50);
        assert!(sums().len() >= 50);
        assert!(opposites().len() >= 50);
        let exam = exam();
        let questions: BTreeSet<_> = exam.iter().map(|(question, _)| question).collect();
        assert_eq!(questions.len(), exam.len());
        assert!(exam.contains(&("What is the capital of France?".into(), "Paris.".into())));
        assert!(exam.iter().any(|(question, _)| question == "Count to 200."));
    }

    #[test]
    fn counting_starts_at_one_and_ends_at_the_number_asked() {
        assert_eq!(count(3), "1 2 3");
        assert!(count(200).ends_with(" 198 199 200"));
    }
}
