//! `tether fleet explain`: everything about one worker.

use super::table::{ago, plain};
use super::{Admin, AdminArgs};
use crate::exit::NotReady;
use crate::stdout;
use anyhow::{Context, bail};
use clap::Args;
use reqwest::StatusCode;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use tether_orchestrator::admin::Prefix;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether fleet explain 3f9a1c                  the first digits are enough where no other has them
  tether fleet explain 3f9a1c --json
  tether fleet explain 3f9a1c --admin http://127.0.0.1:9090 --token-file orchestrator/admin.token

A worker that went is told of for ten minutes, with how and when. Exit code 1 if no node is known by
this id; ids that are like it are named.")]
pub(super) struct ExplainArgs {
    /// Its id, or the first digits of it
    #[arg(value_name = "WORKER", value_parser = parse_id)]
    worker: String,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

fn parse_id(text: &str) -> Result<String, String> {
    Prefix::parse(text).map(|_| text.to_ascii_lowercase())
}

impl ExplainArgs {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let text = ask(&self.admin.open()?, &self.worker).await?;
        if self.json {
            return Ok(stdout::line(text.trim_end())?);
        }
        let node: Value = serde_json::from_str(&text).context("not an explanation")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0));
        Ok(stdout::write(explanation(&node, now_ms))?)
    }
}

async fn ask(admin: &Admin, worker: &str) -> anyhow::Result<String> {
    let (response, url) = admin.ask(&format!("/fleet/{worker}"), &[]).await?;
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => {
            bail!(
                "{}",
                unknown(&serde_json::from_str(&text).unwrap_or_default())
            )
        }
        status if !status.is_success() => {
            Err(NotReady(format!("{url} answers {status}: {}", text.trim())).into())
        }
        _ => Ok(text),
    }
}

/// What is said where no node, or more than one, is meant.
fn unknown(answer: &Value) -> String {
    let error = answer["error"].as_str();
    let mut said =
        plain(error.unwrap_or("this orchestrator is of a version that explains nothing"));
    let near = answer["near"].as_array().map_or(&[][..], Vec::as_slice);
    let near: Vec<&str> = near.iter().filter_map(Value::as_str).collect();
    if !near.is_empty() {
        said.push_str("; there are:");
        for id in near {
            said.push_str("\n  ");
            said.push_str(&plain(id));
        }
    } else if let Some(workers) = answer["workers"].as_u64() {
        said.push_str(&format!(
            "; `tether fleet` lists the {workers} that there are"
        ));
    }
    said
}

/// Lines of a label and a text.
struct Sheet(String);

impl Sheet {
    fn line(&mut self, label: &str, text: impl AsRef<str>) {
        let line = format!("  {label:<12}{}", plain(text.as_ref()));
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

/// A node in words.
fn explanation(node: &Value, now_ms: u64) -> String {
    let since = |unix_ms: &Value| ago(now_ms.saturating_sub(number(unix_ms)));
    let role = node["role"].as_str().unwrap_or("node");
    let mut sheet = Sheet(format!("{role} {}\n", text(&node["id"])));
    let age = ago(number(&node["age_ms"]));
    let standing = text(&node["standing"]);
    sheet.line(
        "standing",
        match standing.as_str() {
            "live" => format!("live, heard {age} ago"),
            "unproven" => format!("unproven: a beat was heard {age} ago, which proves no life now"),
            "departed" => format!("gone: it said goodbye {age} ago"),
            "expired" => format!("gone: it was silent for too long, {age} ago"),
            "revoked" => format!("gone: its key or its grant was revoked {age} ago"),
            "ungranted" => format!("gone: its grant ended {age} ago"),
            other => format!("{other}, {age} ago"),
        },
    );
    if standing == "live" {
        let state = text(&node["state"]);
        sheet.line(
            "state",
            format!("{state} for {}", since(&node["state_since_ms"])),
        );
    }
    if let Some(row) = node["row"].as_object() {
        let reasons = row.get("reasons").and_then(Value::as_array);
        let reasons: Vec<&str> = (reasons.into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        match reasons.split_first() {
            None => sheet.line("routable", "yes"),
            Some((first, more)) => {
                sheet.line("routable", format!("no: {first}"));
                for reason in more {
                    sheet.line("", *reason);
                }
            }
        }
    } else if standing == "live" && node["card"].is_null() {
        sheet.line("routable", "no: its card has not come");
    }
    if !node["suspect"].is_null() {
        let for_ms = ago(number(&node["suspect"]["for_ms"]));
        sheet.line(
            "suspect",
            format!("for {for_ms}: {}", text(&node["suspect"]["why"])),
        );
    }
    let refused = &node["refused"];
    if !refused.is_null() {
        let (reason, means) = (text(&refused["reason"]), text(&refused["means"]));
        let (when, count) = (ago(number(&refused["ms_ago"])), number(&refused["count"]));
        sheet.line(
            "refused",
            format!("{when} ago, {count} times ({reason}): {means}"),
        );
    }
    beat(&mut sheet, node, &since);
    link(&mut sheet, node);
    grant(&mut sheet, node, now_ms);
    card(&mut sheet, node, &since);
    load(&mut sheet, node);
    models(&mut sheet, node);
    sheet.0
}

fn beat(sheet: &mut Sheet, node: &Value, since: &impl Fn(&Value) -> String) {
    let beat = &node["beat"];
    let (epoch, seq) = (number(&beat["epoch"]), number(&beat["seq"]));
    let run = since(&beat["epoch_since_ms"]);
    sheet.line(
        "run",
        format!("epoch {epoch}, first heard {run} ago, last beat {seq}"),
    );
    let ahead = beat["clock_ahead_ms"].as_i64().unwrap_or_default();
    let clock = match ahead {
        0 => "as this orchestrator's".to_owned(),
        1.. => format!("{ahead} ms ahead of this orchestrator's"),
        _ => format!("{} ms behind this orchestrator's", ahead.unsigned_abs()),
    };
    sheet.line("clock", clock);
    if let Some(ms) = node["clone_seen_ms_ago"].as_u64() {
        let text = format!("a second process with this key was heard {} ago", ago(ms));
        sheet.line("clone", text);
    }
}

fn link(sheet: &mut Sheet, node: &Value) {
    let link = &node["link"];
    let peers: Vec<String> = list(&link["peers"]).map(short).collect();
    let state = match link["state"].as_str().unwrap_or_default() {
        "direct" => "direct".to_owned(),
        "relayed" => "over a relay".to_owned(),
        "quiet" => "quiet: nothing came over it for a while".to_owned(),
        _ if peers.is_empty() => "none".to_owned(),
        _ => format!("none: heard through orchestrators ({})", peers.join(", ")),
    };
    sheet.line("link", state);
    match number(&link["redial_in_ms"]) {
        0 => {}
        ms => sheet.line("", format!("not dialled for another {}", ago(ms))),
    }
}

fn grant(sheet: &mut Sheet, node: &Value, now_ms: u64) {
    let Some(tier) = node["tier"].as_str() else {
        return;
    };
    let until = match node["granted_until_ms"].as_u64() {
        None => "no grant that ends".to_owned(),
        Some(until_ms) => format!("its grant ends in {}", ago(until_ms.saturating_sub(now_ms))),
    };
    sheet.line("tier", format!("{tier}; {until}"));
}

fn card(sheet: &mut Sheet, node: &Value, since: &impl Fn(&Value) -> String) {
    let card = &node["card"];
    if card.is_null() {
        return;
    }
    sheet.line("region", text(&card["region"]));
    let addresses: Vec<&str> = list(&card["addresses"]).collect();
    sheet.line(
        "addresses",
        match addresses.as_slice() {
            [] => "none given".to_owned(),
            some => some.join(", "),
        },
    );
    let (agent, minor) = (text(&card["agent"]), number(&card["protocol_minor"]));
    sheet.line("software", format!("{agent}, protocol minor {minor}"));
    sheet.line(
        "card",
        format!(
            "revision {}, made {} ago, {}",
            number(&card["revision"]),
            since(&card["issued_ms"]),
            text(&card["digest"]).get(..16).unwrap_or_default(),
        ),
    );
    let worker = &card["worker"];
    if worker.is_null() {
        return;
    }
    sheet.line("engine", text(&worker["engine"]));
    sheet.line(
        "machine",
        format!(
            "{}, {} accelerators, {} GiB for models, {} slots",
            text(&worker["gpu_class"]),
            number(&worker["accelerators"]),
            number(&worker["vram_gb"]),
            number(&worker["capacity"]),
        ),
    );
    let price = number(&worker["price_per_1k_micro"]);
    sheet.line(
        "price",
        format!("{price} micro-credits for a thousand tokens"),
    );
}

fn load(sheet: &mut Sheet, node: &Value) {
    let load = &node["load"];
    if load.is_null() {
        return;
    }
    sheet.line(
        "load",
        format!(
            "{} of ours; it says {} run and {} wait; {} counted for {} slots",
            number(&load["ours"]),
            number(&load["in_flight"]),
            number(&load["queue_depth"]),
            number(&load["counted"]),
            number(&load["slots"]),
        ),
    );
    let first = match number(&load["first_token_ms"]) {
        0 => "first token not known".to_owned(),
        ms => format!("first token after {ms} ms"),
    };
    let tokens = load["tokens_per_s"].as_f64().unwrap_or_default();
    sheet.line("pace", format!("{tokens:.1} tokens/s, {first}"));
}

fn models(sheet: &mut Sheet, node: &Value) {
    for model in node["models"].as_array().into_iter().flatten() {
        let warm = if model["warm"] == true {
            "loaded"
        } else {
            "not loaded"
        };
        let digest = text(&model["digest"]);
        let digest = digest.get(..16).unwrap_or_default();
        sheet.line(
            "model",
            format!("{} ({digest}), {warm}", text(&model["model"])),
        );
        let of = number(&model["of"]);
        if let Some(why) = model["why_not"].as_str() {
            sheet.line("", format!("no candidate: {why}"));
        } else if let Some(rank) = model["rank"].as_u64() {
            let score = model["score"].as_f64().unwrap_or_default();
            sheet.line(
                "",
                format!("candidate, rank {rank} of {of}, score {score:.3}"),
            );
            sheet.line("", format!("  {}", terms(&model["terms"])));
        }
        let best = &model["best"];
        if !best.is_null() && best["worker"] != node["id"] {
            let score = best["score"].as_f64().unwrap_or_default();
            let who = short(best["worker"].as_str().unwrap_or_default());
            sheet.line("", format!("the best is {who}, score {score:.3}"));
            sheet.line("", format!("  {}", terms(&best["terms"])));
        }
    }
    let faults = &node["row"]["faults"];
    for fault in faults.as_array().into_iter().flatten() {
        sheet.line("fault", super::row::fault_text(fault));
    }
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

fn list(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn short(id: &str) -> String {
    id.get(..8).unwrap_or(id).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_worker_is_told_in_lines_of_words() {
        let node = json!({
            "id": "3f9a1c00aa", "standing": "live", "age_ms": 1_200, "role": "worker",
            "state": "serving", "state_since_ms": 400_000,
            "row": {"reasons": ["suspect: it did not answer", "no room"],
                    "faults": [{"model": "big@1.0", "reason": "no\u{1b}[2J room"}]},
            "suspect": {"for_ms": 800, "why": "its link broke"},
            "beat": {"epoch": 7, "epoch_since_ms": 0, "seq": 12, "issued_ms": 0, "clock_ahead_ms": -30},
            "link": {"state": "none", "peers": ["aaaabbbbcccc"], "redial_in_ms": 2_500},
            "clone_seen_ms_ago": 3_000, "tier": "untrusted", "granted_until_ms": null,
            "card": {"digest": "0011223344556677aa", "revision": 3, "issued_ms": 990_000,
                     "region": "eu", "agent": "tether/0.1.0", "protocol_minor": 0,
                     "addresses": ["192.0.2.1:4433"],
                     "worker": {"engine": "echo", "gpu_class": "cpu", "accelerators": 0,
                                "vram_gb": 8, "capacity": 4, "price_per_1k_micro": 5}},
            "load": {"ours": 1, "in_flight": 2, "queue_depth": 3, "counted": 5, "slots": 4,
                     "tokens_per_s": 20.55, "first_token_ms": 40},
            "models": [
                {"model": "tiny@1.0", "digest": "ffeeddccbbaa998877", "warm": true, "why_not": null,
                 "rank": 2, "of": 3, "score": 0.5, "terms": {"queue": 0.25, "warm": 1.0},
                 "best": {"worker": "bbbbbbbb1", "score": 0.75, "terms": {"queue": 1.0}}},
                {"model": "big@1.0", "digest": "00", "warm": false, "why_not": "it is draining",
                 "rank": null, "of": 0, "score": null, "terms": null, "best": null}
            ]
        });
        let said = explanation(&node, 1_000_000);
        for part in [
            "worker 3f9a1c00aa\n",
            "live, heard 1.2 s ago",
            "serving for 10 min",
            "no: suspect: it did not answer\n              no room\n",
            "for 0.8 s: its link broke",
            "epoch 7, first heard 16 min ago, last beat 12",
            "30 ms behind",
            "a second process with this key was heard 3.0 s ago",
            "none: heard through orchestrators (aaaabbbb)",
            "not dialled for another 2.5 s",
            "untrusted; no grant that ends",
            "192.0.2.1:4433",
            "1 of ours; it says 2 run and 3 wait; 5 counted for 4 slots",
            "first token after 40 ms",
            "tiny@1.0 (ffeeddccbbaa9988), loaded",
            "candidate, rank 2 of 3, score 0.500",
            "queue 0.25, warm 1.00",
            "the best is bbbbbbbb, score 0.750",
            "no candidate: it is draining",
            "big@1.0 is not served: no?[2J room",
        ] {
            assert!(said.contains(part), "{part:?} in\n{said}");
        }
    }

    #[test]
    fn who_is_gone_is_told_with_how_and_when() {
        let node = json!({
            "id": "3f9a1c", "standing": "expired", "age_ms": 130_000, "role": null,
            "beat": {"epoch": 1, "epoch_since_ms": 0, "seq": 1, "clock_ahead_ms": 0},
            "link": {"state": "none", "peers": [], "redial_in_ms": 0}, "models": []
        });
        let said = explanation(&node, 200_000);
        assert!(said.contains("node 3f9a1c"), "{said}");
        assert!(
            said.contains("gone: it was silent for too long, 2 min ago"),
            "{said}"
        );
        assert!(!said.contains("routable"), "{said}");
    }

    #[test]
    fn who_is_not_known_is_told_who_is_like_that() {
        let answer =
            json!({"error": "nothing is heard of ab", "near": ["abc", "abd"], "workers": 9});
        let said = unknown(&answer);
        assert_eq!(said, "nothing is heard of ab; there are:\n  abc\n  abd");
        let answer = json!({"error": "nothing is heard of ab", "near": [], "workers": 9});
        assert!(unknown(&answer).contains("lists the 9"));
    }
}
