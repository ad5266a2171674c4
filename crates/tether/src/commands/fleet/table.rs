//! Rows for people.

use super::row::{Page, Row};

/// Models of a worker that are named in its row.
const NAMED_MODELS: usize = 3;
/// Digits of an id that are shown.
const SHORT: usize = 8;

const BOLD: &str = "1";
const DIM: &str = "2";
const YELLOW: &str = "33";

/// How it is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) colour: bool,
    /// Whether some workers were not asked for.
    pub(super) filtered: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Numbers stand at the right of their column.
const COLUMNS: [(&str, bool); 7] = [
    ("WORKER", false),
    ("STATE", false),
    ("REGION", false),
    ("TIER", false),
    ("RUNS", true),
    ("QUEUE", true),
    ("SEEN", true),
];

pub(super) fn table(page: &Page, style: Style) -> String {
    let mut out = style.paint(BOLD, &summary(page, style.filtered)) + "\n";
    if page.workers.is_empty() {
        return out;
    }
    let cells: Vec<[String; COLUMNS.len()]> = page.workers.iter().map(cells).collect();
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(|at| {
        let all = cells.iter().map(|row| row[at].chars().count());
        all.chain([COLUMNS[at].0.len()]).max().unwrap_or(0)
    });
    let line = |texts: [&str; COLUMNS.len()], last: &str| {
        let mut line = String::new();
        for (at, text) in texts.into_iter().enumerate() {
            let width = widths[at];
            let cell = if COLUMNS[at].1 {
                format!("{text:>width$}")
            } else {
                format!("{text:<width$}")
            };
            line.push_str(&cell);
            line.push_str("  ");
        }
        (line + last).trim_end().to_owned()
    };
    let head = line(std::array::from_fn(|at| COLUMNS[at].0), "MODELS");
    out.push_str(&format!("\n{}\n", style.paint(DIM, &head)));
    for (row, cells) in page.workers.iter().zip(&cells) {
        let text = line(std::array::from_fn(|at| cells[at].as_str()), &models(row));
        let is_well = row.reasons().is_empty();
        out.push_str(&if is_well {
            text
        } else {
            style.paint(YELLOW, &text)
        });
        out.push('\n');
        for note in notes(row) {
            out.push_str(&format!("          {}\n", plain(&note)));
        }
    }
    if page.left_out > 0 {
        let more = format!(
            "{} more are left out: --limit N shows more, --region, --model and --state fewer",
            page.left_out
        );
        out.push_str(&format!("\n{}\n", style.paint(DIM, &more)));
    }
    out
}

fn summary(page: &Page, filtered: bool) -> String {
    let workers = |count: u64| match count {
        0 => "no workers".to_owned(),
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    };
    let begin = if filtered {
        let of = match page.total {
            1 => "1 worker".to_owned(),
            total => format!("{total} workers"),
        };
        format!("{} of {of}", page.matched)
    } else {
        workers(page.matched)
    };
    let states: Vec<String> = (page.states.iter())
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let routable = match page.routable {
        count if count == page.matched && count > 0 => "all routable".to_owned(),
        count => format!("{count} routable"),
    };
    match page.matched {
        0 => begin,
        _ => format!("{begin}: {}; {routable}", states.join(", ")),
    }
}

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    [
        row.id.get(..SHORT).unwrap_or(&row.id).to_owned(),
        row.state.clone(),
        row.region.clone().unwrap_or_else(|| "-".to_owned()),
        row.tier.clone().unwrap_or_else(|| "-".to_owned()),
        format!("{}/{}", row.in_flight, row.slots),
        row.queue_depth.to_string(),
        ago(row.heartbeat_age_ms),
    ]
    .map(|cell| plain(&cell))
}

fn models(row: &Row) -> String {
    let named = row.models.iter().take(NAMED_MODELS);
    let named: Vec<String> = named.map(|it| plain(it)).collect();
    match row.models.len() {
        0 => "none".to_owned(),
        count if count > NAMED_MODELS => {
            format!("{} and {} more", named.join(", "), count - NAMED_MODELS)
        }
        _ => named.join(", "),
    }
}

/// What is said below a row: why it is not routable, then what it should serve and does not.
fn notes(row: &Row) -> Vec<String> {
    let reasons = row.reasons();
    let mut notes: Vec<String> = (reasons.iter())
        .map(|reason| format!("not routable: {reason}"))
        .collect();
    // A reason may quote one of them.
    let is_said = |fault: &String| {
        reasons.iter().any(|reason| {
            reason.contains(fault.as_str())
                || fault.replacen(" is not served: ", ": ", 1) == *reason
        })
    };
    notes.extend(row.fault_texts().filter(|fault| !is_said(fault)));
    notes
}

/// A span of time, short.
pub(crate) fn ago(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        10_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// A text of somebody else's, which must not move the cursor of this terminal.
pub(crate) fn plain(text: &str) -> String {
    let is_bad =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if is_bad(c) { '?' } else { c })
        .collect()
}
