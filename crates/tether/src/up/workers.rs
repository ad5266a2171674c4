//! Workers as child processes: started, watched, started again, stopped.

use super::backoff::Backoff;
use super::silence::{LOOK_INTERVAL, Silence};
use super::worker_log;
use crate::config::variables::is_setting;
use anyhow::Context;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_wire::NodeId;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Time that workers get to finish what they have: their own time for it, and some to say goodbye.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(35);

/// What a worker is started with; the same at each restart, so that it is the same worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerPlan {
    pub(crate) id: NodeId,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
}

/// The orchestrator, as far as the processes of workers concern it.
#[derive(Clone)]
pub(crate) struct View {
    /// Told at once of a worker whose process ended by itself.
    pub(crate) died: Arc<dyn Fn(NodeId) + Send + Sync>,
    /// The epoch of the heartbeats under which a worker is in the fleet now, if it is.
    pub(crate) epoch: Arc<dyn Fn(NodeId) -> Option<u64> + Send + Sync>,
}

/// The children and those who watch them.
#[derive(Debug)]
pub(crate) struct Workers {
    pids: watch::Receiver<Vec<u32>>,
    stop: CancellationToken,
    kill: CancellationToken,
    watchers: TaskTracker,
}

impl Workers {
    /// Starts them all.
    pub(crate) async fn start(plans: &[WorkerPlan], view: View) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let spawner = Spawner::start()?;
        let mut children = Vec::with_capacity(plans.len());
        for plan in plans {
            worker_log::begin(&plan.log);
            children.push(spawner.spawn(command(&program, plan)?).await?);
        }
        let first = children.iter().map(|one| one.child.id().unwrap_or(0));
        let (pids_sender, pids) = watch::channel(first.collect::<Vec<u32>>());
        let this = Self {
            pids,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            watchers: TaskTracker::new(),
        };
        for (index, (plan, child)) in plans.iter().zip(children).enumerate() {
            let pids = pids_sender.clone();
            let watcher = Watcher {
                plan: plan.clone(),
                program: program.clone(),
                spawner: spawner.clone(),
                stop: this.stop.clone(),
                kill: this.kill.clone(),
                view: view.clone(),
                started: Box::new(move |pid| pids.send_modify(|pids| pids[index] = pid)),
            };
            this.watchers.spawn(watcher.run(child));
        }
        let logs = plans.iter().map(|plan| plan.log.clone()).collect();
        let (stop, kill) = (this.stop.clone(), this.kill.clone());
        this.watchers.spawn(async move {
            tokio::select! {
                () = worker_log::keep_bounded(logs) => {}
                () = stop.cancelled() => {}
                () = kill.cancelled() => {}
            }
        });
        this.watchers.close();
        Ok(this)
    }

    /// Process ids in the order of the plans. A worker that died keeps its old one until its next
    /// start.
    pub(crate) fn pids(&self) -> watch::Receiver<Vec<u32>> {
        self.pids.clone()
    }

    /// Asks all to drain, and waits for their end; those that are not done by then are killed.
    pub(crate) async fn drain(&self) {
        self.stop.cancel();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.watchers.wait())
            .await
            .is_err()
        {
            warn!("workers did not drain in {} s", DRAIN_TIMEOUT.as_secs());
            self.kill().await;
        }
    }

    /// Ends all at once.
    pub(crate) async fn kill(&self) {
        self.kill.cancel();
        self.watchers.wait().await;
    }
}

/// A child, and the pipe whose end tells it that we are gone. Kept apart from it, since waiting for
/// a child closes the pipe that it holds.
struct Lifeline {
    child: Child,
    _stdin: Option<ChildStdin>,
}

/// Watches one worker, over all its lives.
struct Watcher {
    plan: WorkerPlan,
    program: PathBuf,
    spawner: Spawner,
    stop: CancellationToken,
    kill: CancellationToken,
    view: View,
    started: Box<dyn Fn(u32) + Send + Sync>,
}

impl Watcher {
    async fn run(self, child: Lifeline) {
        let Lifeline {
            mut child,
            mut _stdin,
        } = child;
        let mut backoff = Backoff::default();
        let mut silence = Silence::default();
        let mut begin = Instant::now();
        let name = self.plan.id.short();
        loop {
            let end = tokio::select! {
                end = child.wait() => end,
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    if let Some(why) = silence.look(Instant::now(), (self.view.epoch)(self.plan.id)) {
                        warn!(worker = name, "worker lives and {why}: its process is ended");
                        // It may just have ended by itself, which is what comes next anyway.
                        let _ = child.start_kill();
                    }
                    continue;
                }
                () = self.stop.cancelled() => return self.end(&mut child, true).await,
                () = self.kill.cancelled() => return self.end(&mut child, false).await,
            };
            (self.view.died)(self.plan.id);
            let how = end.map_or_else(|error| error.to_string(), |status| status.to_string());
            loop {
                let pause = backoff.died(begin.elapsed());
                warn!(
                    worker = name,
                    log = %self.plan.log.display(),
                    "worker ended ({how}); starts again in {} ms",
                    pause.as_millis()
                );
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.stop.cancelled() => return,
                    () = self.kill.cancelled() => return,
                }
                begin = Instant::now();
                match self.spawn().await {
                    Ok(next) => {
                        (child, _stdin) = (next.child, next._stdin);
                        break;
                    }
                    Err(error) => warn!(worker = name, "cannot start the worker: {error:#}"),
                }
            }
            silence.new_life((self.view.epoch)(self.plan.id));
            (self.started)(child.id().unwrap_or(0));
            info!(worker = name, pid = child.id(), "worker started again");
        }
    }

    async fn spawn(&self) -> anyhow::Result<Lifeline> {
        self.spawner
            .spawn(command(&self.program, &self.plan)?)
            .await
    }

    async fn end(&self, child: &mut Child, gently: bool) {
        if gently && terminate(child) {
            tokio::select! {
                _ = child.wait() => return,
                () = self.kill.cancelled() => {}
            }
        }
        // It may just have ended by itself.
        let _ = child.kill().await;
    }
}

fn terminate(child: &Child) -> bool {
    child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?))
        .is_some_and(|pid| {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
        })
}

fn command(program: &Path, plan: &WorkerPlan) -> anyhow::Result<Command> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(&plan.log)
        .with_context(|| format!("cannot open {}", plan.log.display()))?;
    let mut command = Command::new(program);
    command
        .args(["worker", "--supervised", "--config"])
        .arg(&plan.config)
        // Never written to: its end tells the worker that we are gone.
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A terminal's Ctrl-C is for us, who then drain in order.
        .process_group(0)
        .kill_on_drop(true);
    // Overrides are ours, and part of the file that was written for the worker; a token is for
    // another worker than these.
    command.env_remove("TETHER_JOIN");
    for name in overrides(std::env::vars_os().map(|(name, _)| name)) {
        command.env_remove(name);
    }
    Ok(command)
}

/// Those of some variables that would override a file.
fn overrides(names: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    names.filter(|name| is_setting(&name.to_string_lossy()))
}

/// Starts processes from a thread that lives as long as this process.
///
/// A child asks for a signal when its parent dies, and to the kernel the parent is the thread that
/// forked: from a pool's thread, which ends when idle, workers would be killed for no reason.
#[derive(Debug, Clone)]
struct Spawner {
    orders: mpsc::Sender<(Command, oneshot::Sender<std::io::Result<Child>>)>,
}

impl Spawner {
    fn start() -> anyhow::Result<Self> {
        type Order = (Command, oneshot::Sender<std::io::Result<Child>>);
        let (orders, mut incoming) = mpsc::channel::<Order>(16);
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                let _inside = runtime.enter();
                while let Some((mut command, answer)) = incoming.blocking_recv() {
                    // Who asked may be gone; then the child is dropped, and killed with that.
                    let _ = answer.send(command.spawn());
                }
                // Every sender is gone: this process is ending.
            })?;
        Ok(Self { orders })
    }

    async fn spawn(&self, command: Command) -> anyhow::Result<Lifeline> {
        let (answer, result) = oneshot::channel();
        self.orders
            .send((command, answer))
            .await
            .context("the spawner has ended")?;
        let mut child = result
            .await
            .context("the spawner has ended")?
            .context("cannot start a worker process")?;
        Ok(Lifeline {
            _stdin: child.stdin.take(),
            child,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_override_reaches_a_worker_in_whatever_case_it_is_spelled() {
        let names = [
            "TETHER_TELEMETRY__LOG_FILTER",
            "tether_telemetry__log_filter",
            "Tether_Worker__Slots",
            "TETHER_API_KEY",
            "PATH",
        ];
        let removed: Vec<OsString> = overrides(names.iter().map(OsString::from)).collect();
        assert_eq!(removed, names[..3]);
    }
}
