//! `cloze recipe`: lists and prints the built-in recipes.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_train::Recipe;
use cloze_train::recipe::shipped;
use serde_json::json;

use crate::program;
use crate::terminal::Terminal;

/// `cloze recipe [NAME]`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cloze recipe\n  cloze recipe mini > my.toml\n  cloze pretrain my.toml --set data=shards --out runs/my",
    after_long_help = "Without a name, lists the recipes. With a name, prints that recipe as a commented TOML file to save and edit. \
        `cloze pretrain` also accepts the names; --set changes a key without a file.\n\nExamples:\n  cloze recipe\n  \
        cloze recipe mini > my.toml\n  cloze pretrain my.toml --set data=shards --out runs/my\n  \
        cloze pretrain mini --set data=shards --set minutes=60 --out runs/mini"
)]
pub struct Arguments {
    /// Recipe to print [default: list all]
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print the list as JSON, one object per line
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let all = shipped();
    let mut out = crate::output::stdout();
    if let Some(name) = &arguments.name {
        let Some(recipe) = all.iter().find(|recipe| recipe.name == *name) else {
            // The error suggests the most similar name.
            match Recipe::open_unchecked(&PathBuf::from(name)) {
                Err(error) => return Err(error.into()),
                Ok(_) => bail!("{name} is a file; give the name of a built-in recipe"),
            }
        };
        write!(out, "{}", recipe.text)?;
        return Ok(());
    }
    for recipe in &all {
        if arguments.json {
            let line = json!({
                "kind": "recipe", "name": recipe.name, "parameters": recipe.parameters, "purpose": recipe.purpose,
            });
            writeln!(out, "{line}")?;
        } else {
            let name = terminal.bold(&format!("{:<14}", recipe.name));
            writeln!(out, "{name}{:>7}   {}", recipe.parameters, recipe.purpose)?;
        }
    }
    if !arguments.json {
        let cloze = program::name();
        writeln!(
            out,
            "\nSizes are parameters with a vocabulary of 30,522 tokens. Recipes without -paper train for half an hour. To print one:"
        )?;
        writeln!(out, "  {cloze} recipe mini > my.toml")?;
        writeln!(out, "To train with it:")?;
        writeln!(out, "  {cloze} pretrain mini --set data=shards --out runs/mini")?;
    }
    Ok(())
}
