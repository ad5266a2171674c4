//! `tether dlq`: requests that workers failed at, kept by an orchestrator for whoever looks after the
//! mesh. (RSV-3)

use super::fleet::{Admin, AdminArgs, ago, plain};
use crate::authority::now_ms;
use crate::stdout;
use anyhow::{Context, bail};
use clap::Subcommand;
use reqwest::Method;
use std::time::Duration;
use tether_orchestrator::admin::{LetterPage, LetterRow, MAX_LETTERS, Replayed};
use tether_wire::CorrelationId;

/// Dead letters that are listed where nobody says how many.
const DEFAULT_LIMIT: u32 = 100;
/// Most that are listed: as many as a store keeps.
const MAX_LIMIT: u32 = tether_orchestrator::store::MAX_DEAD_LETTERS;
/// How long a request that runs again may take; it goes on at the orchestrator where this is over.
const REPLAY_PATIENCE: Duration = Duration::from_secs(3_600);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List dead letters, the newest first
    #[command(after_long_help = "\
Examples:
  tether dlq ls                              of the `tether up` on this machine
  tether dlq ls --limit 1000 --json
  tether dlq ls --admin http://127.0.0.1:9464 --token-file orchestrator/admin.token")]
    Ls {
        /// One JSON array
        #[arg(long)]
        json: bool,
        /// Show no more than this
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT,
              value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))]
        limit: u32,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Show a dead letter: why it failed, and what was tried
    ///
    /// What workers said when they failed may quote the request, so it is shown with that.
    #[command(after_long_help = "\
Examples:
  tether dlq show 3f9a1c0de52b47f8a6b1c2d3e4f50617
  tether dlq show 3f9a1c0de52b47f8a6b1c2d3e4f50617 --request   with the tenant's request, and workers' words")]
    Show {
        /// The job, as `ls` names it
        job: CorrelationId,
        /// Show the request as well, which is the tenant's, prompts and all, and what workers said
        #[arg(long)]
        request: bool,
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Run the requests of dead letters again, each under its own key
    ///
    /// Each runs once: one that is under way is joined, and one that was answered meanwhile is not run.
    /// The answer is kept for the tenant, who gets it by coming again with the same Idempotency-Key;
    /// where the tenant gave none, nobody can come for it.
    #[command(after_long_help = "\
Examples:
  tether dlq replay 3f9a1c0de52b47f8a6b1c2d3e4f50617
  tether dlq replay $(tether dlq ls --json | jq -r '.[].job')")]
    Replay {
        /// The jobs, as `ls` names them
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<CorrelationId>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Forget dead letters
    #[command(after_long_help = "\
Examples:
  tether dlq drop 3f9a1c0de52b47f8a6b1c2d3e4f50617")]
    Drop {
        /// The jobs, as `ls` names them
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<CorrelationId>,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

impl DlqCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        super::runtime()?.block_on(async {
            match self {
                Self::Ls { json, limit, admin } => {
                    let letters = list(&admin.open()?, limit).await?;
                    if json {
                        return Ok(stdout::line(serde_json::to_string(&letters)?)?);
                    }
                    Ok(stdout::write(table(&letters, now_ms()))?)
                }
                Self::Show {
                    job,
                    request,
                    json,
                    admin,
                } => {
                    let query = [("request", request.to_string())];
                    let text = admin.open()?.get(&path(&job), &query).await?;
                    if json {
                        return Ok(stdout::line(text.trim_end())?);
                    }
                    let letter = serde_json::from_str(&text).context("not a dead letter")?;
                    Ok(stdout::write(whole(&letter, now_ms())?)?)
                }
                Self::Replay { jobs, admin } => replay(&admin.open()?, &jobs).await,
                Self::Drop { jobs, admin } => {
                    let admin = admin.open()?;
                    for job in &jobs {
                        (admin.order(Method::DELETE, &path(job), PATIENCE)).await?;
                        stdout::line(format_args!("{job} is forgotten"))?;
                    }
                    Ok(())
                }
            }
        })
    }
}

fn path(job: &CorrelationId) -> String {
    format!("/dead-letters/{}", job.to_hex())
}

/// So many at most, page by page.
async fn list(admin: &Admin, limit: u32) -> anyhow::Result<Vec<LetterRow>> {
    let mut letters: Vec<LetterRow> = Vec::new();
    let mut behind = None;
    loop {
        let left = limit.saturating_sub(u32::try_from(letters.len())?);
        let mut query = vec![("limit", left.clamp(1, MAX_LETTERS).to_string())];
        query.extend(behind.take().map(|mark| ("behind", mark)));
        let text = admin.get("/dead-letters", &query).await?;
        let page: LetterPage = serde_json::from_str(&text).context("no dead letters")?;
        letters.extend(page.letters);
        match page.next {
            Some(next) if letters.len() < limit as usize => behind = Some(next),
            _ => return Ok(letters),
        }
    }
}

/// Runs one after the other, and fails where one of them did.
async fn replay(admin: &Admin, jobs: &[CorrelationId]) -> anyhow::Result<()> {
    let mut failed = 0;
    for job in jobs {
        let path = format!("{}/replay", path(job));
        let ended = admin.order(Method::POST, &path, REPLAY_PATIENCE).await;
        let said = match ended {
            Ok(text) => {
                let replayed: Replayed =
                    serde_json::from_str(&text).context("not what became of a request")?;
                match (replayed.outcome.as_str(), replayed.message) {
                    ("ok", _) => "answered".to_owned(),
                    (code, message) => {
                        failed += 1;
                        format!("failed again: {code}: {}", message.unwrap_or_default())
                    }
                }
            }
            // The others are tried all the same.
            Err(error) => {
                failed += 1;
                format!("not run: {error:#}")
            }
        };
        stdout::line(plain(&format!("{job} {said}")))?;
    }
    match failed {
        0 => Ok(()),
        count => bail!("{count} of {} were not answered", jobs.len()),
    }
}

/// A line for each.
fn table(letters: &[LetterRow], now_ms: u64) -> String {
    if letters.is_empty() {
        return "there are no dead letters\n".to_owned();
    }
    let line = |letter: &LetterRow| {
        let replays = match letter.replays {
            0 => String::new(),
            1 => ", run again once".to_owned(),
            count => format!(", run again {count} times"),
        };
        let text = format!(
            "{}  {} ago  {}  {}  {} attempts{replays}  {}",
            letter.job,
            ago(now_ms.saturating_sub(letter.failed_ms)),
            letter.tenant,
            letter.model,
            letter.attempts.len(),
            letter.reason
        );
        plain(&text) + "\n"
    };
    letters.iter().map(line).collect()
}

/// Everything about one.
fn whole(letter: &LetterRow, now_ms: u64) -> anyhow::Result<String> {
    let mut lines = vec![
        format!("job {}", letter.job),
        format!("  tenant   {}", letter.tenant),
        format!("  model    {}", letter.model),
        format!(
            "  failed   {} ago",
            ago(now_ms.saturating_sub(letter.failed_ms))
        ),
        format!("  reason   {}", letter.reason),
        format!(
            "  kept     {} more",
            ago(letter.keep_until_ms.saturating_sub(now_ms))
        ),
    ];
    if let Some(at_ms) = letter.replayed_ms {
        let last = ago(now_ms.saturating_sub(at_ms));
        lines.push(format!(
            "  replays  {}, the last {last} ago",
            letter.replays
        ));
    }
    for attempt in &letter.attempts {
        let when = ago(letter.failed_ms.saturating_sub(attempt.at_ms));
        let said = attempt.message.as_ref();
        lines.push(format!(
            "  attempt  {} {}{}, {when} before the end",
            attempt.worker.short(),
            attempt.code,
            said.map_or_else(String::new, |said| format!(": {said}"))
        ));
    }
    let mut text: String = lines.iter().map(|line| plain(line) + "\n").collect();
    if let Some(request) = &letter.request {
        let request = serde_json::to_string_pretty(request)?;
        text.extend(request.lines().map(|line| plain(line) + "\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_orchestrator::admin::AttemptRow;
    use tether_wire::NodeId;

    fn letter() -> LetterRow {
        LetterRow {
            job: CorrelationId([7; 16]),
            tenant: "acme".into(),
            model: "tiny@1.0".into(),
            code: "internal".into(),
            reason: "internal: the worker sent what is no answer".into(),
            attempts: vec![AttemptRow {
                worker: NodeId([1; 32]),
                code: "internal".into(),
                message: Some("fell\u{1b}[2J".into()),
                at_ms: 9_000,
            }],
            failed_ms: 10_000,
            keep_until_ms: 80_000,
            replays: 2,
            replayed_ms: Some(10_000),
            request: Some(serde_json::json!({"input": {"text": "hello"}})),
        }
    }

    #[test]
    fn a_list_says_whose_it_was_and_why_it_failed() {
        let text = table(&[letter()], 15_000);
        for part in [
            "07070707",
            "5.0 s ago",
            "acme",
            "tiny@1.0",
            "run again 2 times",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(table(&[], 1).contains("no dead letters"));
    }

    #[test]
    fn all_that_was_tried_is_told_and_moves_no_cursor() {
        let text = whole(&letter(), 15_000).expect("written");
        for part in [
            "attempt  ",
            "fell?[2J, 1.0 s before",
            "65 s more",
            "\"hello\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
        let mut sealed = letter();
        sealed.request = None;
        sealed.attempts[0].message = None;
        let text = whole(&sealed, 15_000).expect("written");
        assert!(text.contains(" internal, 1.0 s before"), "{text}");
    }
}
