//! `cloze man`: the manual as man pages.

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
        "Without --out the page of the program itself goes to standard output. Pages lie where `man` finds them in \
         ~/.local/share/man/man1; then `man cloze` and `man cloze-finetune-classify` show them.",
        &["cloze man | man -l -", "cloze man --out ~/.local/share/man/man1"],
    )
)]
pub struct Arguments {
    /// Write one page for each command into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments, program: Command, terminal: &Terminal) -> Result<()> {
    let command = complete(program).disable_help_subcommand(true);
    let Some(out) = &arguments.out else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return Ok(crate::output::results().write_all(&page)?);
    };
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    clap_mangen::generate_to(command, out).with_context(|| format!("cannot write to {}", out.display()))?;
    terminal.note(&format!("the pages are in {}; look at one with: man {}/cloze.1", out.display(), out.display()));
    Ok(())
}

/// A command with the options that its help leaves to the long one, or to the help of the kinds of tasks.
fn complete(command: Command) -> Command {
    let command = command.mut_args(|arg| arg.hide_short_help(false).hide_long_help(false));
    command.mut_subcommands(complete)
}
