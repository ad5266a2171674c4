//! What a drill found: tables, promises, a line of JSON, an exit code.

use crate::figures::Distribution;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::ExitCode;

/// Something that the mesh promises, and whether it kept it this time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Promise {
    what: String,
    found: String,
    held: bool,
}

/// What a drill found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    name: &'static str,
    /// What was run, for people.
    setting: String,
    parts: Vec<String>,
    promises: Vec<Promise>,
    samples: serde_json::Map<String, Value>,
}

impl Report {
    pub(crate) fn new(name: &'static str, setting: String) -> Self {
        Self {
            name,
            setting,
            ..Self::default()
        }
    }

    /// A table with these heads.
    pub(crate) fn table(&mut self, heads: &[&str], rows: &[Vec<String>]) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
        let rule = format!("|{}\n", "---|".repeat(heads.len()));
        let rows: String = rows.iter().map(|row| line(row)).collect();
        self.parts.push([line(&heads), rule, rows].concat());
    }

    /// A table of distributions, with so many digits after the point; their samples go into the
    /// JSON under their names.
    pub(crate) fn distributions(
        &mut self,
        head: &str,
        digits: usize,
        rows: &[(&str, Distribution)],
    ) {
        // What was not asked for is not shown.
        let rows: Vec<_> = rows.iter().filter(|(_, found)| found.len() > 0).collect();
        let heads: Vec<&str> = [head].into_iter().chain(Distribution::HEADS).collect();
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|(name, found)| [vec![(*name).to_owned()], found.cells(digits)].concat())
            .collect();
        self.table(&heads, &cells);
        for (name, found) in &rows {
            self.sample(&format!("{name}, {head}"), found.to_json());
        }
    }

    /// Something for the JSON alone.
    pub(crate) fn sample(&mut self, name: &str, value: Value) {
        self.samples.insert(name.to_owned(), value);
    }

    /// Something that must hold.
    pub(crate) fn promise(&mut self, what: &str, held: bool, found: impl ToString) {
        self.promises.push(Promise {
            what: what.to_owned(),
            found: found.to_string(),
            held,
        });
    }

    /// That the worst sample is at most this; without a sample nothing was shown.
    pub(crate) fn promise_at_most(&mut self, what: &str, most: f64, found: &Distribution) {
        let worst = found.max();
        let text = worst.map_or("nothing was measured".to_owned(), |it| format!("{it:.0}"));
        self.promise(what, worst.is_some_and(|worst| worst <= most), text);
    }

    /// Those that did not hold.
    fn broken(&self) -> Vec<&Promise> {
        self.promises.iter().filter(|it| !it.held).collect()
    }

    /// What was promised and did not hold.
    #[cfg(test)]
    pub(crate) fn broken_names(&self) -> Vec<String> {
        self.broken().iter().map(|it| it.what.clone()).collect()
    }

    fn to_json(&self) -> Value {
        let promises: Vec<Value> = (self.promises.iter())
            .map(|it| json!({"what": it.what, "held": it.held, "found": it.found}))
            .collect();
        json!({
            "drill": self.name,
            "version": env!("CARGO_PKG_VERSION"),
            "setting": self.setting,
            "cpu": cpu(),
            "cores": cores(),
            "held": self.broken().is_empty(),
            "promises": promises,
            "samples": self.samples,
        })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "Version {}; {}; {}, {} cores.\n\n",
            env!("CARGO_PKG_VERSION"),
            self.setting,
            cpu(),
            cores()
        );
        for part in &self.parts {
            text.push_str(part);
            text.push('\n');
        }
        text.push_str("| promised | found | held |\n|---|---|---|\n");
        for Promise { what, found, held } in &self.promises {
            let held = if *held { "yes" } else { "**no**" };
            text.push_str(&format!("| {what} | {found} | {held} |\n"));
        }
        text
    }

    /// Prints it; the exit code says whether all promises held.
    pub(crate) fn print(&self) -> ExitCode {
        let out = format!("{}\n{}\n", self.text(), self.to_json());
        if let Err(error) = std::io::stdout().write_all(out.as_bytes()) {
            eprintln!("tether-drill: nobody reads what was found: {error}");
            return ExitCode::FAILURE;
        }
        let broken = self.broken();
        for promise in &broken {
            eprintln!(
                "tether-drill {}: not held: {} (found: {})",
                self.name, promise.what, promise.found
            );
        }
        if broken.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Tells on standard error how far a drill is.
pub(crate) fn progress(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "… {text}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_did_not_hold_is_named_and_counts() {
        let mut report = Report::new("kill", "2 workers".to_owned());
        report.promise_at_most("at most 10 ms", 10.0, &[1.0, 9.0].into_iter().collect());
        assert_eq!(report.to_json()["held"], true);
        report.promise_at_most("at most 5 ms", 5.0, &[1.0, 9.0].into_iter().collect());
        report.promise_at_most("of nothing", 5.0, &Distribution::default());
        assert_eq!(report.broken_names(), ["at most 5 ms", "of nothing"]);
        assert_eq!(report.to_json()["held"], false);
        assert!(report.text().contains("| at most 5 ms | 9 | **no** |"));
    }

    #[test]
    fn tables_are_markdown_and_samples_are_in_the_json() {
        let mut report = Report::new("kill", "2 workers".to_owned());
        report.distributions("ms", 0, &[("suspect", [2.0].into_iter().collect())]);
        let text = report.text();
        assert!(text.contains("| ms | samples | min | p50 | p90 | p99 | max |\n|---|---|"));
        assert!(text.contains("| suspect | 1 | 2 | 2 | 2 | 2 | 2 |"));
        let json = report.to_json();
        assert_eq!(json["samples"]["suspect, ms"]["samples"][0], 2.0);
    }
}
