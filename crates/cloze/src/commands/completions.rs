//! `cloze completions`: scripts for command completion in shells.

use std::io::Write;

use anyhow::Result;
use clap::Command;
use clap_complete::{Shell, generate};

use crate::help;

/// `cloze completions SHELL`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&["cloze completions bash > ~/.local/share/bash-completion/completions/cloze"]),
    after_long_help = "Where to put the script:\n\n  \
        bash        ~/.local/share/bash-completion/completions/cloze\n  \
        zsh         a file _cloze in a folder of $fpath, before compinit runs\n  \
        fish        ~/.config/fish/completions/cloze.fish\n  \
        powershell  a file that $PROFILE names: . path/to/cloze.ps1\n  \
        elvish      ~/.config/elvish/lib/cloze.elv, and `use cloze` in rc.elv\n\n\
        Examples:\n  \
        cloze completions bash > ~/.local/share/bash-completion/completions/cloze\n  \
        cloze completions zsh > ~/.zfunc/_cloze\n  \
        cloze completions fish > ~/.config/fish/completions/cloze.fish"
)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

pub fn run(arguments: &Arguments, program: &Command) -> Result<()> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut visible(program), "cloze", &mut script);
    Ok(crate::output::stdout().write_all(&script)?)
}

/// A copy of a command without hidden arguments and subcommands, which the generators would otherwise offer.
fn visible(command: &Command) -> Command {
    let mut visible = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|command| !command.is_hide_set()).map(self::visible))
        .disable_help_subcommand(true);
    if let Some(about) = command.get_about() {
        visible = visible.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        visible = visible.version(version.to_owned());
    }
    visible
}
