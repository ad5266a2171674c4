//! `tether explain`: why a request went where it went. (SCH-1)

use super::fleet::{Admin, AdminArgs, ago, plain};
use crate::exit::NotReady;
use crate::stdout;
use anyhow::{Context, bail};
use clap::Args;
use reqwest::StatusCode;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use tether_orchestrator::admin::RequestPrefix;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Shows each order that a request led to: which worker got it, why that one, how it ended, and the best \
of those that were looked at with their terms. An orchestrator keeps the last 512 requests that \
failed, and of the others a share (orchestrator.placement.explained). Nothing of a prompt or an \
answer is kept.

Examples:
  tether explain 6f1c0d9e8b7a                  the first digits are enough where no other has them
  tether explain chatcmpl-6f1c0d9e8b7a49d2a1c3e5f708192a3b
  tether explain 6f1c0d9e8b7a --json
  tether explain 6f1c0d9e8b7a --admin http://127.0.0.1:9090 --token-file orchestrator/admin.token

Exit code 1 if nothing is kept of this request.")]
pub(crate) struct ExplainArgs {
    /// The request: what the header `x-tether-correlation-id` says, the first digits of it, or the `id`
    /// of the completion
    #[arg(value_name = "REQUEST", value_parser = parse_id)]
    request: String,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

fn parse_id(text: &str) -> Result<String, String> {
    RequestPrefix::parse(text).map(|it| it.as_str().to_owned())
}

impl ExplainArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        super::runtime()?.block_on(async {
            let text = ask(&self.admin.open()?, &self.request).await?;
            if self.json {
                return Ok(stdout::line(text.trim_end())?);
            }
            let kept: Value = serde_json::from_str(&text).context("not an explanation")?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now_ms = now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0));
            Ok(stdout::write(explanation(&kept, now_ms))?)
        })
    }
}

async fn ask(admin: &Admin, request: &str) -> anyhow::Result<String> {
    let (response, url) = admin.ask(&format!("/requests/{request}"), &[]).await?;
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => {
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            bail!("{}", unknown(&answer))
        }
        status if !status.is_success() => {
            Err(NotReady(format!("{url} answers {status}: {}", text.trim())).into())
        }
        _ => Ok(text),
    }
}

/// What is said where no request, or more than one, is meant.
fn unknown(answer: &Value) -> String {
    let error = answer["error"].as_str();
    let mut said =
        plain(error.unwrap_or("this orchestrator is of a version that explains no requests"));
    let near = answer["near"].as_array().map_or(&[][..], Vec::as_slice);
    for id in near.iter().filter_map(Value::as_str) {
        said.push_str("\n  ");
        said.push_str(&plain(id));
    }
    said
}

/// What is kept of a request, in words: each time that it came, the last one first.
fn explanation(kept: &Value, now_ms: u64) -> String {
    let mut said = format!("request {}\n", text(&kept["request"]));
    for run in list(&kept["runs"]) {
        let came = ago(now_ms.saturating_sub(number(&run["came_ms"])));
        let took = number(&run["took_ms"]);
        let mut line = |label: &str, text: String| {
            let line = format!("  {label:<10}{}", plain(&text));
            said.push_str(line.trim_end());
            said.push('\n');
        };
        line("came", format!("{came} ago, and took {took} ms"));
        line("ended", text(&run["outcome"]));
        line("tenant", text(&run["tenant"]));
        let digest = text(&run["artifact"]);
        let digest = digest.get(..16).unwrap_or("not known");
        line("model", format!("{} ({digest})", text(&run["model"])));
        for (label, field) in [("in place", "degraded_from"), ("forbidden", "rule")] {
            if let Some(said) = run[field].as_str() {
                let of = if field == "rule" { "by" } else { "of" };
                line(label, format!("{of} {said}"));
            }
        }
        line("region", text(&run["region"]));
        let blocks = number(&run["prefix_blocks"]);
        line(
            "prefix",
            format!("{blocks} blocks of the prompt's beginning"),
        );
        if list(&run["orders"]).next().is_none() {
            line("orders", "none: nobody was given it".to_owned());
        }
        for (at, order) in list(&run["orders"]).enumerate() {
            let (after, worker) = (number(&order["after_ms"]), text(&order["worker"]));
            let outcome = text(&order["outcome"]);
            let label = format!("order {}", at + 1);
            let beside = if order["hedge"] == true {
                " beside the one before"
            } else {
                ""
            };
            let given = format!("after {after} ms{beside} to {worker}: {outcome}");
            line(&label, given);
            line("", text(&order["reason"]));
            line("", format!("weights: {}", terms(&order["weights"])));
            for candidate in list(&order["candidates"]) {
                line("", considered(candidate));
                line("", format!("  {}", terms(&candidate["terms"])));
            }
        }
        match number(&run["orders_left_out"]) {
            0 => {}
            more => line("", format!("and {more} more orders, which are not kept")),
        }
        let left_alone: Vec<String> = list(&run["left_alone"]).map(text).collect();
        if !left_alone.is_empty() {
            line("breakers", format!("left alone: {}", left_alone.join(", ")));
        }
    }
    said
}

/// A worker that was looked at.
fn considered(candidate: &Value) -> String {
    let worker = text(&candidate["worker"]);
    let mut said = format!(
        "{} scores {:.3}, has {:.1} to do for {} slots",
        worker.get(..8).unwrap_or(&worker),
        candidate["score"].as_f64().unwrap_or_default(),
        candidate["load"].as_f64().unwrap_or_default(),
        number(&candidate["slots"]),
    );
    match (
        number(&candidate["prefix_blocks"]),
        candidate["over_bound"] == true,
    ) {
        (0, _) => {}
        (blocks, false) => said.push_str(&format!(", was sent {blocks} blocks before")),
        (blocks, true) => said.push_str(&format!(
            ", was sent {blocks} blocks before, which does not count: too much to do"
        )),
    }
    if candidate["suspect"] == true {
        said.push_str(", in doubt");
    }
    if candidate["other_class"] == true {
        said.push_str(", of another numerics class");
    }
    said
}

fn terms(terms: &Value) -> String {
    let terms = terms.as_object().into_iter().flatten();
    let terms: Vec<String> = terms
        .map(|(name, value)| format!("{name} {:.2}", value.as_f64().unwrap_or_default()))
        .collect();
    terms.join(", ")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_told_in_lines_of_words() {
        let kept = json!({
            "request": "6f1c0d9e",
            "runs": [{
                "came_ms": 990_000, "took_ms": 1_234, "outcome": "unavailable", "tenant": "acme",
                "model": "tiny@1.0", "artifact": "00112233445566778899", "region": "eu",
                "prefix_blocks": 12, "orders_left_out": 3,
                "left_alone": ["eeee", "ffff"], "degraded_from": "large@1.0",
                "rule": "global.models.deny (tiny)",
                "orders": [{
                    "after_ms": 2, "worker": "aaaabbbbcccc", "outcome": "unavailable",
                    "reason": "the best of 2", "looked_at": 2, "weights": {"queue": 2.0},
                    "candidates": [
                        {"worker": "aaaabbbbcccc", "score": 0.75, "load": 1, "slots": 4,
                         "terms": {"queue": 0.8}, "prefix_blocks": 8, "over_bound": false,
                         "suspect": false, "other_class": false},
                        {"worker": "dd\u{1b}[2J", "score": 0.5, "load": 9, "slots": 4,
                         "terms": {"queue": 0.3}, "prefix_blocks": 8, "over_bound": true,
                         "suspect": true, "other_class": true},
                    ],
                }, {
                    "after_ms": 302, "worker": "bbbbccccdddd", "outcome": "lost", "hedge": true,
                    "reason": "the only one that could be asked", "candidates": [],
                }],
            }],
        });
        let said = explanation(&kept, 1_000_000);
        for part in [
            "request 6f1c0d9e\n",
            "came      10 s ago, and took 1234 ms\n",
            "ended     unavailable\n",
            "tiny@1.0 (0011223344556677)",
            "prefix    12 blocks",
            "order 1   after 2 ms to aaaabbbbcccc: unavailable\n            the best of 2\n",
            "weights: queue 2.00\n",
            "aaaabbbb scores 0.750, has 1.0 to do for 4 slots, was sent 8 blocks before\n",
            "order 2   after 302 ms beside the one before to bbbbccccdddd: lost\n",
            "does not count: too much to do, in doubt, of another numerics class",
            "and 3 more orders",
            "in place  of large@1.0\n",
            "forbidden by global.models.deny (tiny)\n",
            "breakers  left alone: eeee, ffff\n",
        ] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
        assert!(!said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn a_request_that_nobody_was_given_says_so() {
        let kept = json!({"request": "6f", "runs": [{"outcome": "not-found", "orders": []}]});
        let said = explanation(&kept, 0);
        assert!(said.contains("none: nobody was given it"), "{said}");
    }

    #[test]
    fn where_several_are_meant_they_are_named() {
        let answer = json!({"error": "more than one", "near": ["6f1c", "6f1d"]});
        assert_eq!(unknown(&answer), "more than one\n  6f1c\n  6f1d");
        assert!(unknown(&json!({})).contains("of a version"));
    }
}
