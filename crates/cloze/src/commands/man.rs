//! `cloze man`: writes the man pages.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;

use crate::help;
use crate::terminal::Terminal;

/// `cloze man [--out DIR]`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&["cloze man | man -l -"]),
    after_long_help = help::details(
        "Without --out, the page of the program itself is written to standard output. `man` finds pages in \
         ~/.local/share/man/man1; then use `man cloze` or `man cloze-finetune-classify`.",
        &["cloze man | man -l -", "cloze man --out ~/.local/share/man/man1"],
    )
)]
pub struct Arguments {
    /// Folder for the pages, one for each command
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments, program: Command, terminal: &Terminal) -> Result<()> {
    let command = complete(program).disable_help_subcommand(true);
    let Some(out) = &arguments.out else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return Ok(crate::output::stdout().write_all(&page)?);
    };
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    clap_mangen::generate_to(command, out).with_context(|| format!("cannot write to {}", out.display()))?;
    terminal.note(&format!("man pages written to {}; to read one: man {}/cloze.1", out.display(), out.display()));
    Ok(())
}

/// A command with all its options visible, including those that the short help, or the help without a kind of task,
/// hides.
fn complete(command: Command) -> Command {
    let command = command.mut_args(|arg| arg.hide_short_help(false).hide_long_help(false));
    command.mut_subcommands(complete)
}
