//! `tether topics`: what the orchestrator announces on the DHT and sees there. (NET-2)

use super::fleet::{AdminArgs, ago, plain};
use crate::stdout;
use anyhow::Context;
use clap::Args;
use serde::Deserialize;

/// Keys of a topic that are named.
const NAMED_KEYS: usize = 5;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Shows the topics that the orchestrator announces or looked up, each with its key on the DHT: when it was
announced and will be again, what failed, and how many keys the last look-up gave. Anybody may
announce a key; only those that are linked have proved who they are. Then the orchestrators that it
knows of, and how it stands with each.

Examples:
  tether topics                                of the `tether up` on this machine
  tether topics --lookup                       look on the DHT first: some seconds
  tether topics --json --data-dir /srv/tether
  tether topics --admin http://127.0.0.1:9090 --token-file orchestrator/admin.token")]
pub(crate) struct TopicsArgs {
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    /// Have the orchestrator look its region's topics up first, those of workers as well
    #[arg(long)]
    lookup: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Deserialize)]
struct Page {
    id: String,
    role: String,
    mesh: String,
    region: String,
    addresses: Vec<String>,
    links: u64,
    topics: Vec<Topic>,
    orchestrators: Vec<Orchestrator>,
}

#[derive(Debug, Deserialize)]
struct Topic {
    name: String,
    key: String,
    announced: Option<Announced>,
    seen: Option<Seen>,
}

#[derive(Debug, Deserialize)]
struct Announced {
    last_ms_ago: Option<u64>,
    next_in_ms: Option<u64>,
    failures: u64,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    ms_ago: u64,
    found: u64,
    linked: u64,
    keys: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Orchestrator {
    id: String,
    source: String,
    state: String,
    failures: u64,
    linked_ms_ago: Option<u64>,
    dial_in_ms: Option<u64>,
    addresses: Vec<String>,
}

impl TopicsArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        super::runtime()?.block_on(async {
            let lookup = [("lookup", self.lookup.to_string())];
            let text = self.admin.open()?.get("/topics", &lookup).await?;
            if self.json {
                return Ok(stdout::line(text.trim_end())?);
            }
            let page: Page = serde_json::from_str(&text).context("not a page of topics")?;
            Ok(stdout::write(page.to_text())?)
        })
    }
}

impl Page {
    fn to_text(&self) -> String {
        let mut lines = vec![
            format!("{} {}", self.role, self.id),
            format!("  mesh       {}", self.mesh),
            format!("  region     {}", self.region),
            format!("  addresses  {}", self.addresses.join(", ")),
            format!("  links      {}", self.links),
        ];
        for topic in &self.topics {
            lines.push(String::new());
            lines.extend(topic.lines());
        }
        lines.push(String::new());
        lines.push(match self.orchestrators.len() {
            0 => "no other orchestrators are known".to_owned(),
            1 => "1 other orchestrator is known".to_owned(),
            count => format!("{count} other orchestrators are known"),
        });
        lines.extend(self.orchestrators.iter().map(Orchestrator::line));
        lines.iter().map(|line| plain(line) + "\n").collect()
    }
}

impl Topic {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.name.clone(), format!("  key        {}", self.key)];
        if let Some(it) = &self.announced {
            lines.push(format!("  announced  {}", it.line()));
        }
        if let Some(it) = &self.seen {
            lines.push(format!("  seen       {}", it.line()));
        }
        lines
    }
}

impl Announced {
    fn line(&self) -> String {
        let last = match self.last_ms_ago {
            Some(ms) => format!("{} ago", ago(ms)),
            None => "not yet".to_owned(),
        };
        let next = (self.next_in_ms).map(|ms| format!(", again in {}", ago(ms)));
        let error =
            (self.error.as_ref()).map(|it| format!("; failed {} times: {it}", self.failures));
        last + &next.unwrap_or_default() + &error.unwrap_or_default()
    }
}

impl Seen {
    fn line(&self) -> String {
        let keys: Vec<&str> = (self.keys.iter().take(NAMED_KEYS))
            .map(|it| it.get(..8).unwrap_or(it))
            .collect();
        let more = self.found.saturating_sub(keys.len() as u64);
        let named = match (keys.len(), more) {
            (0, _) => String::new(),
            (_, 0) => format!(": {}", keys.join(", ")),
            _ => format!(": {} and {more} more", keys.join(", ")),
        };
        let (found, linked, when) = (self.found, self.linked, ago(self.ms_ago));
        let counts = match found {
            0 => "nobody else".to_owned(),
            1 => format!("1 key, {linked} linked"),
            _ => format!("{found} keys, {linked} linked"),
        };
        let error = self
            .error
            .as_ref()
            .map(|it| format!("; the last look failed: {it}"));
        format!("{counts}, {when} ago{named}") + &error.unwrap_or_default()
    }
}

impl Orchestrator {
    fn line(&self) -> String {
        let mut notes = vec![format!("{:<10}  {:<10}", self.source, self.state)];
        notes.extend(
            self.linked_ms_ago
                .filter(|_| self.state != "in-use")
                .map(|ms| format!("linked {} ago", ago(ms))),
        );
        if self.failures > 0 {
            notes.push(format!("{} dials failed", self.failures));
        }
        notes.extend(self.dial_in_ms.map(|ms| format!("dialled in {}", ago(ms))));
        if !self.addresses.is_empty() {
            notes.push(self.addresses.join(" "));
        }
        let id = self.id.get(..8).unwrap_or(&self.id);
        format!("  {id}  {}", notes.join("  "))
            .trim_end()
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_and_seen_is_told_in_words() {
        let page: Page = serde_json::from_str(
            r#"{"id":"aa11","role":"orchestrator","mesh":"bb22","region":"eu",
                "addresses":["127.0.0.1:1"],"links":3,
                "topics":[
                  {"name":"tether/control/eu","key":"cc33","announced":{"last_ms_ago":1500,
                   "next_in_ms":120000,"failures":2,"error":"no DHT node took it"},
                   "seen":{"ms_ago":900,"found":7,"linked":1,"error":null,
                   "keys":["11111111a","22222222a","33333333a","44444444a","55555555a","6","7"]}},
                  {"name":"tether/presence/eu","key":"dd44","announced":null,
                   "seen":{"ms_ago":0,"found":0,"linked":0,"keys":[],"error":"no answer"}}],
                "orchestrators":[{"id":"eeeeeeeeffff","source":"remembered","state":"not-linked",
                   "failures":4,"missed":0,"linked_ms_ago":9000,"dial_in_ms":2000,
                   "addresses":["192.0.2.1:7"]}]}"#,
        )
        .expect("valid");
        let text = page.to_text();
        for part in [
            "orchestrator aa11\n",
            "1.5 s ago, again in 2 min; failed 2 times: no DHT node took it",
            "7 keys, 1 linked, 0.9 s ago: 11111111, 22222222, 33333333, 44444444, 55555555 and 2 more",
            "nobody else, 0.0 s ago; the last look failed: no answer",
            "1 other orchestrator is known",
            "eeeeeeee  remembered  not-linked  linked 9.0 s ago  4 dials failed  dialled in 2.0 s  192.0.2.1:7",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
    }
}
