//! `tether completions`: scripts that complete commands in a shell.

use crate::cli::Cli;
use crate::stdout;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether completions bash > ~/.local/share/bash-completion/completions/tether
  tether completions zsh > ~/.zfunc/_tether
  tether completions fish > ~/.config/fish/completions/tether.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tether", &mut script);
        Ok(stdout::write(script)?)
    }
}
