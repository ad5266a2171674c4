//! Becomes another program that the kernel kills when the one that started it is gone, however that
//! happens: no process of a drill survives it.

use anyhow::{Context, anyhow};
use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// Process id of the program that starts this one
    #[arg(long)]
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl GuardArgs {
    /// Returns only with the reason why it could not.
    pub(crate) fn run(self) -> anyhow::Error {
        match self.become_it() {
            Ok(never) => never,
            Err(error) => error,
        }
    }

    fn become_it(self) -> anyhow::Result<anyhow::Error> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .context("cannot be tied to a parent")?;
        // The parent may have been gone before it could be asked for.
        let parent = getppid().map(Pid::as_raw_nonzero);
        if parent.map(std::num::NonZero::get) != Some(self.parent) {
            return Err(anyhow!("the parent is gone"));
        }
        let (program, arguments) = (self.command.split_first()).context("no program is named")?;
        let error = Command::new(program).args(arguments).exec();
        Ok(anyhow!(error).context(format!("cannot become {}", program.display())))
    }
}
