//! `tether-sim run SCENARIO.toml`: runs a scenario over seeds, and a seed that failed again.
#![forbid(unsafe_code)]

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use tether_sim::report::{self, Summary};
use tether_sim::tether::Tether;
use tether_sim::{Outcome, Scenario, replay, run_all};

/// Simulates presence: thousands of nodes, hours in seconds.
#[derive(Parser)]
#[command(name = "tether-sim")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a scenario; exits with 1 when something did not hold that it expects.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// The scenario's file.
    scenario: PathBuf,
    /// Seeds, from A up to but without B.
    #[arg(long, value_name = "A..B", default_value = "0..10", value_parser = seeds)]
    seeds: Range<u64>,
    /// Another number of nodes than the file says.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Runs this seed alone and shows what led to what went wrong first.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    replay: Option<u64>,
    /// Seeds that run at the same time; all cores without it.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Prints JSON on standard output.
    #[arg(long)]
    json: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parse = |number: &str| {
        number
            .parse::<u64>()
            .map_err(|_| format!("`{number}` is not a seed"))
    };
    let (from, until) = text
        .split_once("..")
        .ok_or("expected A..B, such as 0..200")?;
    let (from, until) = (parse(from)?, parse(until)?);
    if from >= until {
        return Err(format!("{from}..{until} is empty"));
    }
    Ok(from..until)
}

fn main() -> anyhow::Result<ExitCode> {
    let Command::Run(run) = Cli::parse().command;
    let mut scenario = Scenario::load(&run.scenario)
        .with_context(|| format!("{} cannot be run", run.scenario.display()))?;
    if let Some(nodes) = run.nodes {
        scenario = scenario.with_nodes(nodes)?;
    }
    let held = match run.replay {
        Some(seed) => again(&run, &scenario, seed)?,
        None => all(&run, &scenario)?,
    };
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn all(run: &Run, scenario: &Scenario) -> anyhow::Result<bool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = run.threads.unwrap_or(cores);
    if threads == 0 {
        bail!("--threads must be at least 1");
    }
    let outcomes = run_all::<Tether>(scenario, run.seeds.clone(), threads, |outcome| {
        eprintln!("{}", report::line(outcome));
    });
    for outcome in outcomes.iter().filter(|it| !it.holds()) {
        tell_failure(run, scenario, outcome);
    }
    let summary = Summary::of(&scenario.name, &outcomes);
    if run.json {
        let all = serde_json::json!({ "summary": summary, "runs": outcomes });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", summary.table());
    }
    Ok(summary.held == summary.seeds)
}

fn again(run: &Run, scenario: &Scenario, seed: u64) -> anyhow::Result<bool> {
    let replay = replay::<Tether>(scenario, seed);
    eprintln!("{}", report::line(&replay.outcome));
    if run.json {
        println!("{}", serde_json::to_string_pretty(&replay.outcome)?);
    } else {
        for line in &replay.lines {
            println!("{line}");
        }
        print!(
            "{}",
            Summary::of(&scenario.name, std::slice::from_ref(&replay.outcome)).table()
        );
    }
    for failure in &replay.outcome.failures {
        eprintln!("did not hold: {failure}");
    }
    if let Some(violation) = &replay.violation {
        eprintln!(
            "first at {} ms, viewer {:?}, about {:?}: {}",
            violation.at_ms, violation.viewer, violation.subject, violation.what
        );
    }
    Ok(replay.outcome.holds())
}

fn tell_failure(run: &Run, scenario: &Scenario, outcome: &Outcome) {
    eprintln!("seed {} of {} failed:", outcome.seed, scenario.name);
    for failure in &outcome.failures {
        eprintln!("  {failure}");
    }
    eprintln!(
        "  again: cargo run --release -p tether-sim -- run {} --nodes {} --replay {}",
        run.scenario.display(),
        scenario.nodes,
        outcome.seed
    );
}
