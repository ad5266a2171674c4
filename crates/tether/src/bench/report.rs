//! Medians, a table, a line of JSON.

use crate::stdout::{self, StdoutError};
use serde_json::{Value, json};

/// What a benchmark found.
#[derive(Debug)]
pub(super) struct Report {
    name: &'static str,
    runs: u32,
    table: String,
    samples: Value,
}

impl Report {
    pub(super) fn new(name: &'static str, runs: u32, table: String, samples: Value) -> Self {
        Self {
            name,
            runs,
            table,
            samples,
        }
    }

    pub(super) fn print(&self) -> Result<(), StdoutError> {
        let cores = cores();
        let (cpu, version) = (cpu(), env!("CARGO_PKG_VERSION"));
        stdout::line(format_args!(
            "Version {version}, {} runs, medians; {cpu}, {cores} cores.\n\n{}",
            self.runs, self.table
        ))?;
        stdout::line(json!({
            "benchmark": self.name,
            "version": version,
            "runs": self.runs,
            "cpu": cpu,
            "cores": cores,
            "samples": self.samples,
        }))
    }
}

/// The machine, for people.
pub(super) fn machine() -> String {
    format!("{}, {} cores", cpu(), cores())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// Name of the processor, where the system tells it.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(
            || std::env::consts::ARCH.to_owned(),
            |(_, name)| name.trim().to_owned(),
        )
}

/// The middle one; the mean of both where two are in the middle.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The least and the most.
pub(super) fn range(samples: &[f64]) -> (f64, f64) {
    samples
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), sample| {
            (low.min(*sample), high.max(*sample))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
        assert_eq!(range(&[2.0, 1.0, 3.0]), (1.0, 3.0));
    }
}
