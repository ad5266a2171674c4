//! `tether fleet`: the workers as the orchestrator sees them. (FLT-3)
//!
//! # Layout
//!
//! * `admin` – an orchestrator's admin endpoint: where it is, and questions to it
//! * `row` – a worker, as far as it is shown
//! * `table` – rows for people
//! * `watch` – the same again and again, whatever becomes of the orchestrator
//! * `explain` – everything about one worker

mod admin;
mod explain;
mod row;
mod table;
mod watch;

pub(crate) use admin::{Admin, AdminArgs};
pub(crate) use row::Row;
pub(crate) use table::{ago, plain};

use crate::stderr;
use crate::stdout;
use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use explain::ExplainArgs;
use row::Page;
use std::io::IsTerminal;
use tether_orchestrator::admin::{DEFAULT_LIMIT, MAX_LIMIT, states};
use tether_wire::{ModelName, ModelRef, Region};

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = "\
A worker that gets no work, or is chosen only when nothing else is left, says why on the lines below \
it. Workers that get no work come first, then by region, then by id.

Examples:
  tether fleet                                 of the `tether up` on this machine
  tether fleet --watch                         again every 2 s, until ^C
  tether fleet --state unroutable --region eu
  tether fleet --model my-model@1.0 --json
  tether fleet --json --data-dir /srv/tether
  tether fleet --admin http://127.0.0.1:9090 --token-file orchestrator/admin.token
  tether fleet explain 3f9a1c                  everything about one worker")]
pub(crate) struct FleetArgs {
    #[command(subcommand)]
    command: Option<FleetCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Show everything that is known of one worker, and why it gets work or not
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// JSON instead of a table: one array; with --watch one array on each line
    #[arg(long)]
    json: bool,
    /// Show it again every 2 s until interrupted, also after the orchestrator was restarted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What is asked for. Several of one kind mean any of them.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Only workers of this region; may be repeated
    #[arg(long, value_name = "REGION", value_parser = parse_region)]
    region: Vec<String>,
    /// Only workers that serve this model, or should; may be repeated
    #[arg(long, value_name = "NAME[@VERSION]", value_parser = parse_model)]
    model: Vec<String>,
    /// Only workers in this state; may be repeated
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(states()))]
    state: Vec<String>,
    /// Show no more workers than this
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT as u64,
          value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT as u64))]
    limit: u64,
}

fn parse_region(text: &str) -> Result<String, String> {
    let region = Region::new(text).map_err(|error| error.to_string());
    region.map(|_| text.to_owned())
}

fn parse_model(text: &str) -> Result<String, String> {
    let checked = if text.contains('@') {
        text.parse::<ModelRef>().map(|_| ())
    } else {
        ModelName::new(text).map(|_| ())
    };
    checked
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

impl FilterArgs {
    /// As parameters of a question.
    fn query(&self) -> Vec<(&'static str, String)> {
        let all = |key, values: &[String]| {
            values
                .iter()
                .map(move |it| (key, it.clone()))
                .collect::<Vec<_>>()
        };
        let mut query = all("region", &self.region);
        query.extend(all("model", &self.model));
        query.extend(all("state", &self.state));
        query.push(("limit", self.limit.to_string()));
        query
    }

    /// Whether some workers are not asked for.
    fn is_any(&self) -> bool {
        !(self.region.is_empty() && self.model.is_empty() && self.state.is_empty())
    }
}

impl FleetArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        super::runtime()?.block_on(async {
            match self.command {
                Some(FleetCommand::Explain(args)) => args.run().await,
                None if self.list.watch => watch::run(&self.list).await,
                None => {
                    let picture = self.list.picture(&self.list.admin.open()?).await?;
                    Ok(stdout::write(picture)?)
                }
            }
        })
    }
}

impl ListArgs {
    /// The fleet as it is now, as text.
    async fn picture(&self, admin: &Admin) -> anyhow::Result<String> {
        let mut query = self.filter.query();
        if self.json {
            let (rows, left_out) = admin.rows(&query).await?;
            if left_out > 0 {
                stderr::line(format_args!(
                    "{left_out} more workers are left out: see --limit and the filters"
                ));
            }
            return Ok(rows.trim_end().to_owned() + "\n");
        }
        query.push(("counts", "true".to_owned()));
        let text = admin.get("/fleet", &query).await?;
        let page: Page = serde_json::from_str(&text).context("not a fleet")?;
        let style = table::Style {
            colour: is_colourful(),
            filtered: self.filter.is_any(),
        };
        Ok(table::table(&page, style))
    }
}

/// Whether colours are for a person who wants them. (no-color.org)
pub(crate) fn is_colourful() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

#[cfg(test)]
mod tests;
