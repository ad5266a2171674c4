//! `tether store`: an orchestrator's metadata store, looked at from outside. (RSV-2)

use super::run_file::default_data_dir;
use crate::authority::now_ms;
use crate::config;
use crate::exit::Usage;
use crate::stderr;
use crate::stdout;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use tether_orchestrator::config::StoreConfig;
use tether_orchestrator::orchestrator::STORE_FILE;
use tether_orchestrator::store::postgres::{self, Place};
use tether_orchestrator::store::{Opening, Report, sqlite};
use tether_wire::TenantId;

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Look at every record: whether it can be read, what is sealed opens, and all agree
    ///
    /// Changes nothing, and works while the orchestrator runs: a file is looked at in a copy, which
    /// needs as much room on the disk. Fails where anything is wrong.
    #[command(after_long_help = "\
Examples:
  tether store check                              of the `tether up` on this machine
  tether store check --config orchestrator.toml --json")]
    Check {
        #[command(flatten)]
        at: StoreArgs,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write a backup of a store, which may be in use, to a new file
    ///
    /// The store's key (`store.key`) is not in it: keep that elsewhere, for without it nobody reads
    /// the answers and requests of a backup. Of PostgreSQL the command of its own tool is shown.
    #[command(after_long_help = "\
Examples:
  tether store backup /backups/tether.sqlite
  tether store backup --config orchestrator.toml /backups/tether.sqlite")]
    Backup {
        #[command(flatten)]
        at: StoreArgs,
        /// The file to write
        to: PathBuf,
    },
    /// Bring a backup back; the orchestrator must not run
    ///
    /// The store that is there is kept beside, as `….replaced-1`, `-2` and so on, and so is the log that
    /// it left where only that is there; what it is called is printed. One that changed after the backup
    /// was made is only replaced with --force: what came later is forgotten, so that a request which was
    /// answered may run and be counted again.
    #[command(after_long_help = "\
Examples:
  tether store restore /backups/tether.sqlite
  tether store restore --config orchestrator.toml --force /backups/tether.sqlite")]
    Restore {
        #[command(flatten)]
        at: StoreArgs,
        /// The backup
        from: PathBuf,
        /// Also where the store changed after the backup was made
        #[arg(long)]
        force: bool,
    },
    /// Bring a store to the schema of this version
    ///
    /// An orchestrator does so by itself when it starts. With --dry-run it is only tried.
    #[command(after_long_help = "\
Examples:
  tether store migrate --dry-run
  tether store migrate --config orchestrator.toml")]
    Migrate {
        #[command(flatten)]
        at: StoreArgs,
        /// Say what is missing and whether it works, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Drop a tenant's key, so that nobody can read what the store keeps of that tenant
    ///
    /// Its answers and the requests of its dead letters are unreadable for good, but with a backup that
    /// was made before. Jobs and their counts stay, and requests that come later get a new key. Where the
    /// store is a file, the orchestrator must not run; those that share PostgreSQL may.
    #[command(after_long_help = "\
Examples:
  tether store forget acme                        of the `tether up` on this machine
  tether store forget acme --config orchestrator.toml --yes --json")]
    Forget {
        #[command(flatten)]
        at: StoreArgs,
        /// The tenant
        tenant: TenantId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Where the store is.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Configuration file of the orchestrator
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder of a `tether up`
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
}

/// A store, as it is configured.
struct Found {
    store: StoreConfig,
    folder: PathBuf,
}

impl StoreArgs {
    fn find(&self) -> anyhow::Result<Found> {
        if let Some(file) = &self.config {
            let checked = config::orchestrator(file)?;
            return Ok(Found {
                store: checked.file.orchestrator.store,
                folder: checked.file.node.data_dir,
            });
        }
        let dir = self.data_dir.clone().map_or_else(default_data_dir, Ok)?;
        Ok(Found {
            store: StoreConfig::default(),
            folder: dir.join("orchestrator"),
        })
    }
}

impl Found {
    fn file(&self) -> PathBuf {
        self.folder.join(STORE_FILE)
    }

    fn place(&self) -> anyhow::Result<Option<Place>> {
        Ok(self.store.place(&self.folder)?)
    }

    async fn check(&self) -> anyhow::Result<Report> {
        let key_file = self.store.key_file(&self.folder);
        Ok(match self.place()? {
            None => sqlite::check(&self.file(), &key_file, now_ms()).await?,
            Some(place) => {
                let opening = Opening {
                    key_file,
                    ..Opening::in_folder(&self.folder, now_ms())
                };
                postgres::check(place, opening).await?
            }
        })
    }

    async fn forget_key(&self, tenant: &TenantId) -> anyhow::Result<bool> {
        Ok(match self.place()? {
            None => sqlite::forget_key(&self.file(), tenant)?,
            Some(place) => postgres::forget_key(&place, tenant).await?,
        })
    }

    /// Refuses what PostgreSQL's own tools do, and says how.
    fn refuse_postgres(&self, tool: &str) -> anyhow::Result<()> {
        if let Some(url) = &self.store.url {
            bail!("the store is in PostgreSQL, whose own tool does this: {tool} '{url}'");
        }
        Ok(())
    }
}

impl StoreCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Check { at, json } => {
                let found = at.find()?;
                let report = super::runtime()?.block_on(found.check())?;
                if json {
                    stdout::line(as_json(&report))?;
                } else {
                    stdout::write(as_text(&report))?;
                }
                match report.problems.len() + report.more_problems {
                    0 => Ok(()),
                    count => bail!("the store has {count} problems"),
                }
            }
            Self::Backup { at, to } => {
                let found = at.find()?;
                found.refuse_postgres(&dump(&to))?;
                sqlite::backup(&found.file(), &to)?;
                let key = found.store.key_file(&found.folder);
                Ok(stdout::line(format_args!(
                    "{} holds the store; its key {} does not belong beside it",
                    to.display(),
                    key.display()
                ))?)
            }
            Self::Restore { at, from, force } => {
                let found = at.find()?;
                found.refuse_postgres(&format!(
                    "pg_restore --clean --if-exists --single-transaction {} --dbname",
                    from.display()
                ))?;
                let aside =
                    sqlite::restore(&from, &found.file(), force).context("nothing was replaced")?;
                stdout::line(format_args!("{} is restored", found.file().display()))?;
                for kept in aside {
                    stdout::line(format_args!("what was there is kept as {}", kept.display()))?;
                }
                Ok(())
            }
            Self::Migrate { at, dry_run } => {
                let found = at.find()?;
                let (version, missing) = match found.place()? {
                    None => sqlite::migrate(&found.file(), dry_run, now_ms())?,
                    Some(place) => {
                        let run = postgres::migrate(&place, dry_run, now_ms());
                        super::runtime()?.block_on(run)?
                    }
                };
                Ok(stdout::write(migrated(version, &missing, dry_run))?)
            }
            Self::Forget {
                at,
                tenant,
                yes,
                json,
            } => {
                let found = at.find()?;
                confirm_forgetting(&tenant, yes)?;
                if !super::runtime()?.block_on(found.forget_key(&tenant))? {
                    bail!("the store has no key of a tenant {tenant}: nothing was dropped");
                }
                if json {
                    let dropped = json!({ "tenant": tenant.as_str(), "forgotten": true });
                    return Ok(stdout::line(dropped)?);
                }
                Ok(stdout::line(format_args!(
                    "the key of {tenant} is dropped: what was kept under it can be read no more"
                ))?)
            }
        }
    }
}

fn confirm_forgetting(tenant: &TenantId, yes: bool) -> anyhow::Result<()> {
    stderr::line(format_args!(
        "warning: nobody will be able to read the answers and dead letters that are kept of {tenant}. This is final: only a backup that was made before has the key."
    ));
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Usage("nobody can be asked whether this is meant: give --yes").into());
    }
    stderr::write("Type `yes` to go on: ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        bail!("nothing was dropped");
    }
    Ok(())
}

fn dump(to: &Path) -> String {
    format!("pg_dump --format=custom --file={} --dbname", to.display())
}

fn as_json(report: &Report) -> serde_json::Value {
    json!({
        "jobs": report.jobs,
        "open_jobs": report.open_jobs,
        "done_jobs": report.done_jobs,
        "billed": {
            "prompt_tokens": report.billed.prompt_tokens,
            "completion_tokens": report.billed.completion_tokens,
        },
        "answers": report.answers,
        "dead_letters": report.dead_letters,
        "tenants": report.tenants,
        "models": report.models,
        "unreadable": report.unreadable,
        "problems": report.problems,
        "more_problems": report.more_problems,
    })
}

fn as_text(report: &Report) -> String {
    let mut text = format!(
        "jobs          {} ({} open, {} done)\nbilled        {} tokens of prompts, {} of answers\nanswers       {}\ndead letters  {}\ntenants       {}\nmodels        {}\n",
        report.jobs,
        report.open_jobs,
        report.done_jobs,
        report.billed.prompt_tokens,
        report.billed.completion_tokens,
        report.answers,
        report.dead_letters,
        report.tenants,
        report.models
    );
    if report.unreadable > 0 {
        text.push_str(&format!(
            "{} of the answers and dead letters are of tenants whose key was dropped\n",
            report.unreadable
        ));
    }
    for problem in &report.problems {
        text.push_str(&format!("problem: {problem}\n"));
    }
    match (report.problems.len(), report.more_problems) {
        (0, _) => text.push_str("every record is whole\n"),
        (_, 0) => {}
        (_, more) => text.push_str(&format!("and {more} more\n")),
    }
    text
}

fn migrated(version: u32, missing: &[&str], dry_run: bool) -> String {
    if missing.is_empty() {
        return format!("the store has schema {version}, which is the latest\n");
    }
    let done = if dry_run { "would bring" } else { "brought" };
    let mut text = format!("the store had schema {version}; this {done}:\n");
    for (number, name) in (version + 1..).zip(missing) {
        text.push_str(&format!("  {number}  {name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_and_a_whole_store_too() {
        let whole = Report {
            jobs: 7,
            open_jobs: 2,
            ..Report::default()
        };
        let text = as_text(&whole);
        assert!(text.contains("jobs          7 (2 open, 0 done)"), "{text}");
        assert!(text.ends_with("every record is whole\n"), "{text}");
        let broken = Report {
            unreadable: 1,
            problems: vec!["job 1: x".into()],
            more_problems: 4,
            ..whole
        };
        let text = as_text(&broken);
        for part in ["key was dropped", "problem: job 1: x\n", "and 4 more\n"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(as_json(&broken)["problems"][0], "job 1: x");
    }

    #[test]
    fn migrations_are_named_by_what_they_bring() {
        assert!(migrated(3, &[], false).contains("the latest"));
        let text = migrated(2, &["refused jobs"], true);
        assert!(text.contains("would bring") && text.contains("3  refused jobs"));
    }
}
