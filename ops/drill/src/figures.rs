//! Distributions of samples. Pure.

use serde_json::{Value, json};

/// Samples of one measure, sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Distribution(Vec<f64>);

impl FromIterator<f64> for Distribution {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }
}

impl Distribution {
    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The sample below or at which a share of all lies, by nearest rank; nothing of nothing.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is between 1 and the number of samples"
    )]
    pub(crate) fn percentile(&self, percent: f64) -> Option<f64> {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied()
    }

    /// The least.
    pub(crate) fn min(&self) -> Option<f64> {
        self.0.first().copied()
    }

    /// The most.
    pub(crate) fn max(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// Heads of [`Distribution::cells`].
    pub(crate) const HEADS: [&'static str; 6] = ["samples", "min", "p50", "p90", "p99", "max"];

    /// Cells of a row of a table, with so many digits after the point.
    pub(crate) fn cells(&self, digits: usize) -> Vec<String> {
        let show = |it: Option<f64>| it.map_or("–".to_owned(), |it| format!("{it:.digits$}"));
        vec![
            self.len().to_string(),
            show(self.min()),
            show(self.percentile(50.0)),
            show(self.percentile(90.0)),
            show(self.percentile(99.0)),
            show(self.max()),
        ]
    }

    /// For the line of JSON: the quantiles and every sample.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "min": self.min(), "p50": self.percentile(50.0), "p90": self.percentile(90.0),
            "p99": self.percentile(99.0), "max": self.max(), "samples": self.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: &[f64]) -> Distribution {
        samples.iter().copied().collect()
    }

    #[test]
    fn percentiles_are_samples_that_were_seen() {
        let hundred: Distribution = (1..=100).rev().map(f64::from).collect();
        assert_eq!(hundred.percentile(50.0), Some(50.0));
        assert_eq!(hundred.percentile(90.0), Some(90.0));
        assert_eq!(hundred.percentile(99.0), Some(99.0));
        assert_eq!(hundred.percentile(100.0), Some(100.0));
        assert_eq!((hundred.min(), hundred.max()), (Some(1.0), Some(100.0)));
        let few = of(&[3.0, 1.0, 2.0]);
        assert_eq!(few.percentile(50.0), Some(2.0));
        assert_eq!(
            few.percentile(99.0),
            Some(3.0),
            "never below the worst of a few"
        );
        assert_eq!(few.percentile(0.0), Some(1.0));
    }

    #[test]
    fn one_sample_is_all_quantiles_and_none_is_none() {
        assert_eq!(
            of(&[7.0]).cells(1),
            ["1", "7.0", "7.0", "7.0", "7.0", "7.0"]
        );
        assert_eq!(of(&[]).percentile(50.0), None);
        assert_eq!(of(&[]).cells(0), ["0", "–", "–", "–", "–", "–"]);
        assert_eq!(of(&[]).cells(0).len(), Distribution::HEADS.len());
    }
}
