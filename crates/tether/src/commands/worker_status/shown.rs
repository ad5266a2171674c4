//! A worker's report for people. Pure.

use crate::commands::lifetime::{duration_text, left_text};
use indicatif::{HumanBytes, HumanCount};
use serde_json::Value;
use std::fmt::Write;

/// Everything, one thing a line.
pub(super) fn report(report: &Value) -> String {
    let mut said = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(said, "{name:<14}{text}");
    };
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let number = |value: &Value| HumanCount(value.as_u64().unwrap_or(0)).to_string();
    line(
        "worker",
        format!(
            "{} in region {}",
            text(&report["id"]),
            text(&report["region"])
        ),
    );
    line("mesh", text(&report["mesh"]));
    let up = duration_text(count(&report["up_s"]).saturating_mul(1_000));
    line(
        "state",
        format!(
            "{}, up {up}, tether {}, process {}",
            text(&report["state"]),
            text(&report["version"]),
            count(&report["pid"])
        ),
    );
    let grant = &report["grant"];
    line(
        "grant",
        match grant["expires_ms"].as_u64() {
            Some(expires_ms) => format!(
                "{}, {}",
                text(&grant["tier"]),
                left_text(expires_ms, crate::authority::now_ms())
            ),
            None => "none".to_owned(),
        },
    );
    let known = report["orchestrators"].as_array().map_or(0, Vec::len);
    line(
        "orchestrators",
        format!("{} hear it, {known} known", count(&report["hearing"])),
    );
    let load = &report["load"];
    line(
        "requests",
        format!(
            "{} of {} slots, {} of {} in the queue",
            count(&load["running"]),
            count(&load["slots"]),
            count(&load["waiting"]),
            count(&load["queue_limit"])
        ),
    );
    line(
        "pace",
        format!(
            "{:.1} tokens/s, first token after {} ms",
            load["tokens_per_s"].as_f64().unwrap_or(0.0),
            count(&load["first_token_ms"])
        ),
    );
    let served = &report["served"];
    line(
        "served",
        format!(
            "{} answers, {} failed{}, {} refused{}, {} cancelled",
            number(&served["answered"]),
            sum(&served["failed"]),
            named(&served["failed"]),
            sum(&served["refused"]),
            named(&served["refused"]),
            number(&served["cancelled"]),
        ),
    );
    if sum(&served["shed"]) > 0 {
        line("not taken", causes(&served["shed"]));
    }
    line(
        "tokens",
        format!(
            "{} of prompts, {} of answers",
            number(&served["prompt_tokens"]),
            number(&served["completion_tokens"])
        ),
    );
    line(
        "earned",
        format!(
            "{} micro-credits at {} for a thousand tokens, by its own count",
            number(&served["earned_micro"]),
            number(&served["price_per_1k_micro"])
        ),
    );
    let restarts = sum(&served["engine_restarts"]);
    if restarts > 0 {
        let causes = causes(&served["engine_restarts"]);
        line(
            "engines",
            format!("started again {restarts} times: {causes}"),
        );
    }
    for model in report["models"].as_array().into_iter().flatten() {
        line("model", self::model(model));
    }
    said += &standing(report);
    said
}

fn standing(report: &Value) -> String {
    let reasons = report["reasons"].as_array();
    let mut said = String::new();
    if reasons.is_none_or(Vec::is_empty) {
        said += "\nOrchestrators can send it work.\n";
        return said;
    }
    said += "\nIt gets no work:\n";
    for reason in reasons.into_iter().flatten() {
        let words = |name: &str| reason[name].as_str().unwrap_or("?");
        let _ = writeln!(said, "  {} ({})", words("why"), words("code"));
        let _ = writeln!(said, "    → {}", words("next"));
    }
    said
}

fn model(model: &Value) -> String {
    let part = |name: &str| model["model"][name].as_str();
    let name = match (part("name"), part("version")) {
        (Some(name), Some(version)) => format!("{name}@{version}"),
        _ => model["configured"].as_str().unwrap_or("?").to_owned(),
    };
    let mut said = format!("{name}: {}", model["state"].as_str().unwrap_or("?"));
    if let (Some(done), Some(total)) = (
        model["progress"][0].as_u64(),
        model["progress"][1].as_u64().filter(|total| *total > 0),
    ) {
        let percent = done.saturating_mul(100) / total;
        let _ = write!(said, " {percent} % of {}", HumanBytes(total));
    }
    if let Some(reason) = model["fault"][1].as_str() {
        let _ = write!(
            said,
            " ({}): {reason}",
            model["fault"][0].as_str().unwrap_or("?")
        );
    }
    if let Some(bytes) = model["memory_bytes"].as_u64().filter(|bytes| *bytes > 0) {
        let _ = write!(said, ", about {} of memory", HumanBytes(bytes));
    }
    if let Some(ms) = model["load_ms"].as_u64() {
        let _ = write!(said, ", loaded in {ms} ms");
    }
    if let Some(device) = model["device"].as_str().filter(|device| *device != "cpu") {
        let _ = write!(said, " on {device}");
    }
    let processes = &model["processes"];
    if let (Some(running), Some(of)) = (processes[0].as_u64(), processes[1].as_u64())
        && model["state"] == "warm"
        && of > 1
    {
        let sequences = model["sequences"].as_u64().unwrap_or(0);
        let _ = write!(
            said,
            ", {running} of {of} processes, {sequences} answers at once"
        );
    }
    if model["is_pinned"] == true {
        said += ", pinned";
    }
    if let Some(base) = model["base"].as_str() {
        let _ = write!(said, ", over {}…", base.get(..12).unwrap_or(base));
    }
    said += &kept_from(&model["shields"]);
    for fault in model["process_faults"].as_array().into_iter().flatten() {
        said += &process_fault(fault, processes[1].as_u64().unwrap_or(0));
    }
    said
}

/// Lines of its own: the model is served all the same.
fn process_fault(fault: &Value, of: u64) -> String {
    let words = |name: &str| fault[name].as_str().unwrap_or("?");
    let count = fault["processes"].as_u64().unwrap_or(0);
    let verb = if count == 1 { "does" } else { "do" };
    format!(
        "\n  {count} of {of} processes {verb} not answer ({}): {}\n    → {}",
        words("code"),
        words("reason"),
        words("next")
    )
}

/// What the engine is kept from; of what is missing the reason is in `--json` and `tether worker
/// doctor`.
fn kept_from(shields: &Value) -> String {
    let (mut holds, mut lacks) = (Vec::new(), Vec::new());
    for shield in shields.as_array().into_iter().flatten() {
        let name = shield["protection"].as_str().unwrap_or("?");
        let list = if shield["enforced"] == true {
            &mut holds
        } else {
            &mut lacks
        };
        list.push(name);
    }
    match (holds.as_slice(), lacks.as_slice()) {
        ([], []) => String::new(),
        (_, []) => ", kept in".to_owned(),
        (_, lacks) => format!(", NOT kept in by {}", lacks.join(", ")),
    }
}

fn sum(counts: &Value) -> u64 {
    let counts = counts.as_object().into_iter().flatten();
    counts.filter_map(|(_, count)| count.as_u64()).sum()
}

/// The causes in brackets, where there are any.
fn named(counts: &Value) -> String {
    let causes = causes(counts);
    if causes.is_empty() {
        return causes;
    }
    format!(" ({causes})")
}

fn causes(counts: &Value) -> String {
    let counts = counts.as_object().into_iter().flatten();
    let named = counts.map(|(name, count)| format!("{count} {name}"));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reasons_come_with_what_to_do_and_models_with_how_far_they_are() {
        let said = report(&json!({
            "id": "ab", "region": "eu", "state": "serving",
            "models": [
                {"configured": "/m", "state": "verifying", "progress": [50, 200]},
                {"configured": "/w", "state": "warm", "device": "cuda:1", "shields": [
                    {"protection": "network", "enforced": true},
                    {"protection": "files", "enforced": false},
                ]},
                {"configured": "/c", "state": "warm", "device": "cpu",
                    "shields": [{"protection": "network", "enforced": true}]},
                {"configured": "/o", "state": "warm", "processes": [2, 3], "sequences": 8,
                    "load_ms": 176, "process_faults": [{
                        "processes": 1, "code": "corrupt-file", "reason": "it is damaged",
                        "next": "mend it",
                    }]},
                {"configured": "/n", "state": "faulted", "fault": ["corrupt-file", "it is damaged"]},
            ],
            "served": {
                "answered": 9, "failed": {"overloaded": 2}, "refused": {"invalid": 3}, "cancelled": 1,
                "shed": {"queue-full": 2},
            },
            "reasons": [{"code": "no-orchestrator", "why": "none was found", "next": "check bootstrap"}],
        }));
        for words in [
            "verifying 25 % of 200 B",
            "(corrupt-file): it is damaged",
            "/w: warm on cuda:1, NOT kept in by files",
            "/c: warm, kept in",
            "/o: warm, loaded in 176 ms, 2 of 3 processes, 8 answers at once",
            "\n  1 of 3 processes does not answer (corrupt-file): it is damaged\n    → mend it\n",
            "9 answers, 2 failed (2 overloaded), 3 refused (3 invalid), 1 cancelled",
            "not taken     2 queue-full",
            "none was found (no-orchestrator)",
            "→ check bootstrap",
        ] {
            assert!(said.contains(words), "{words} in {said}");
        }
        let well = report(&json!({"is_routable": true, "reasons": []}));
        assert!(well.contains("can send it work"), "{well}");
    }
}
