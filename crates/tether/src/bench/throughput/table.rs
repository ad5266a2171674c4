//! What was found, as a table: a row for everybody, a column for each number of answers at once.

use super::Measured;
use crate::bench::report::{median, range};
use crate::bench::round::Answered;
use serde::Serialize;

/// Of one number of answers at once.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Found {
    /// Tokens in a second, of each run.
    pub(super) per_s: Vec<f64>,
    /// Answers, and those of them that were others than when asked alone.
    pub(super) answers: usize,
    pub(super) different: usize,
}

/// Of one side.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    /// The text of each answer when it was asked for alone.
    alone: Vec<String>,
    pub(super) found: Vec<Found>,
}

impl Row {
    pub(super) fn new(name: &str, alone: Vec<String>, columns: usize) -> Self {
        Self {
            name: name.to_owned(),
            alone,
            found: vec![Found::default(); columns],
        }
    }

    pub(super) fn add(&mut self, column: usize, answered: &Answered) {
        let found = &mut self.found[column];
        let tokens: u64 = answered.answers.iter().map(|(_, tokens)| tokens).sum();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand tokens")]
        found.per_s.push(tokens as f64 / answered.seconds);
        let pairs = answered.answers.iter().zip(&self.alone);
        found.answers += answered.answers.len();
        found.different += pairs.filter(|((text, _), alone)| text != *alone).count();
    }

    fn cell(found: &Found) -> String {
        let (least, most) = range(&found.per_s);
        let mut cell = format!("{:.0} ({least:.0}–{most:.0})", median(&found.per_s));
        if found.different > 0 {
            cell += &format!(
                "; **{} of {} other than alone**",
                found.different, found.answers
            );
        }
        cell
    }
}

/// Of one model.
pub(super) fn table(model: &Measured, tokens: u32, streams: &[u16], rows: &[Row]) -> String {
    let mut table = format!("\n| {}, {tokens} tokens |", model.words);
    for streams in streams {
        table += &match streams {
            1 => " 1 answer |".to_owned(),
            some => format!(" {some} at once |"),
        };
    }
    table += &format!("\n|---|{}\n", "---|".repeat(streams.len()));
    for row in rows {
        let cells = row.found.iter().map(Row::cell);
        let cells = cells.collect::<Vec<_>>().join(" | ");
        table += &format!("| {} | {cells} |\n", row.name);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_medians_and_says_which_answers_were_others_than_alone() {
        let alone = vec!["a".to_owned(), "b".to_owned()];
        let mut row = Row::new("somebody", alone, 2);
        let answered = |seconds, second: &str| Answered {
            seconds,
            answers: vec![("a".to_owned(), 50), (second.to_owned(), 50)],
        };
        row.add(1, &answered(1.0, "b"));
        row.add(1, &answered(2.0, "mixed"));
        row.add(1, &answered(4.0, "b"));
        assert_eq!(
            Row::cell(&row.found[1]),
            "50 (25–100); **1 of 6 other than alone**"
        );
        let answered = Answered {
            seconds: 0.5,
            answers: vec![("a".to_owned(), 5)],
        };
        row.add(0, &answered);
        assert_eq!(Row::cell(&row.found[0]), "10 (10–10)");
    }
}
