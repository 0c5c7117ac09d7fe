//! Recipes of task commands: TOML files whose keys are the command's options. The command line overrides them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};
use cloze_tasks::kinds::{self, Kind};

use super::per_kind::{PerKind, TaskArguments};
use crate::global::GlobalOptions;

/// The arguments of a command, merged with its recipe if one is given, and the kind of task if it is given.
pub fn with_recipe<A: TaskArguments>(
    parsed: PerKind<A>,
    recipe: impl Fn(&A) -> Option<&Path>,
) -> Result<(Option<&'static Kind>, A)> {
    let Some(path) = recipe(&parsed.arguments) else { return Ok((parsed.kind, parsed.arguments)) };
    let path_name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table = toml::from_str(&text).with_context(path_name)?;
    let (kind, mut arguments) = of_table::<A>(table).with_context(path_name)?;
    arguments.update_from_arg_matches(&without_defaults(&parsed.given))?;
    Ok((parsed.kind.or(kind), arguments))
}

/// The arguments in a table whose keys are options, and the kind of task if it is in the table.
pub fn of_table<A: TaskArguments>(mut table: toml::Table) -> Result<(Option<&'static Kind>, A)> {
    let kind = kind_of(&mut table)?;
    Ok((kind, parse_table::<A>(A::NAME, &table)?))
}

/// The matches without default values.
fn without_defaults(matches: &ArgMatches) -> ArgMatches {
    let mut given = matches.clone();
    let ids: Vec<String> = matches.ids().map(|id| id.to_string()).collect();
    for id in ids {
        if matches.value_source(&id) != Some(ValueSource::CommandLine) {
            // The only error is an unknown id, which is impossible here.
            let _ = given.try_clear_id(&id);
        }
    }
    given
}

/// Removes the kind of task from the table, because it is not an option of the command.
fn kind_of(table: &mut toml::Table) -> Result<Option<&'static Kind>> {
    let Some(value) = table.remove("kind") else { return Ok(None) };
    let kind = value.as_str().and_then(kinds::named);
    kind.map(Some).with_context(|| format!("`kind` is {value}: expected {}", kinds::names()))
}

/// The arguments in a table.
fn parse_table<A: Args>(command: &'static str, table: &toml::Table) -> Result<A> {
    let global = GlobalOptions::augment_args(Command::new(command));
    let mut global = global.get_arguments().filter_map(|arg| arg.get_long());
    if let Some(key) = global.find(|name| table.keys().any(|key| key.replace('_', "-") == *name)) {
        bail!("`{key}` is not allowed in a recipe; give --{key} on the command line");
    }
    let mut words = vec![command.to_owned()];
    for (key, value) in table {
        words.extend(option_words(key, value)?);
    }
    let matches = A::augment_args(Command::new(command)).disable_help_flag(true).try_get_matches_from(words);
    let arguments = matches.and_then(|matches| A::from_arg_matches(&matches));
    arguments.map_err(|error| {
        // The first paragraph is the error, the others are usage hints.
        let text = error.to_string();
        anyhow::anyhow!("{}", text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// A key and its value as command-line words.
fn option_words(key: &str, value: &toml::Value) -> Result<Vec<String>> {
    let flag = format!("--{}", key.replace('_', "-"));
    if flag == "--recipe" {
        bail!("`recipe` is not allowed in a recipe");
    }
    let plain = |value: &toml::Value| match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        _ => bail!("`{key}` is {value}: expected a string, a number, true, false or a list of strings"),
    };
    Ok(match value {
        toml::Value::Boolean(true) => vec![flag],
        toml::Value::Boolean(false) => Vec::new(),
        // Repeat the flag for each file, because file names can contain commas.
        toml::Value::Array(values) if key == "train" || key == "dev" => {
            values.iter().map(|value| Ok(format!("{flag}={}", plain(value)?))).collect::<Result<_>>()?
        }
        toml::Value::Array(values) => {
            let values: Vec<String> = values.iter().map(plain).collect::<Result<_>>()?;
            vec![format!("{flag}={}", values.join(","))]
        }
        other => vec![format!("{flag}={}", plain(other)?)],
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::tasks::{finetune, sweep};

    #[derive(Parser)]
    struct Program<A: TaskArguments> {
        #[command(flatten)]
        parsed: PerKind<A>,
    }

    /// Parses a command line with a recipe.
    fn read<A: TaskArguments>(
        recipe: &str,
        line: &str,
        path: impl Fn(&A) -> Option<&Path>,
    ) -> Result<(Option<&'static Kind>, A)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), recipe).unwrap();
        let words = format!("cloze {line} --recipe {}", file.path().display());
        let program = Program::<A>::try_parse_from(words.split_whitespace()).unwrap();
        with_recipe(program.parsed, path)
    }

    fn finetune(recipe: &str, line: &str) -> Result<(Option<&'static Kind>, finetune::Arguments)> {
        read(recipe, line, |arguments: &finetune::Arguments| arguments.recipe.as_deref())
    }

    #[test]
    fn the_command_line_overrides_the_recipe_which_overrides_defaults() {
        let recipe = "kind = \"tag\"\nmodel = \"m\"\nlr = 3e-5\nseeds = 3\nwarmup = 0.2\njson = true\nresume = false\ndev = [\"x\", \"y,z\"]";
        let (kind, found) = finetune(recipe, "--lr 1e-4 --warmup 0.1 --train a b").unwrap();
        assert_eq!(
            (kind, found.training.lr, found.seeds, found.json, found.resume),
            (kinds::named("tag"), Some(1e-4), 3, true, false)
        );
        // A given value overrides the recipe, even if it equals the default.
        assert_eq!(found.training.warmup, 0.1);
        assert_eq!(found.model.as_deref(), Some(Path::new("m")));
        assert_eq!((found.train.len(), found.dev), (2, vec!["x".into(), "y,z".into()]));
        let (kind, found) = finetune(recipe, "classify").unwrap();
        assert_eq!((kind, found.training.lr, found.training.warmup), (kinds::named("classify"), Some(3e-5), 0.2));

        let recipe = "lrs = [1e-3, 1e-4]\nbatches = [2]\nlabels = [\"a\", \"b\"]";
        let (_, found) =
            read(recipe, "--batches 4,8", |parsed: &sweep::Arguments| parsed.base.recipe.as_deref()).unwrap();
        assert_eq!((found.lrs, found.batches, found.epochs_list), (vec![1e-3, 1e-4], vec![4, 8], vec![2, 3, 4]));
    }

    #[test]
    fn invalid_recipes_are_refused() {
        for (recipe, expected) in [
            ("a = { b = 1 }", "`a` is { b = 1 }"),
            ("kind = \"sort\"", "expected classify, multi-label, regress, rerank, tag, answer or choose"),
            ("recipe = \"x\"", "`recipe` is not allowed"),
            ("threads = 1", "--threads on the command line"),
            ("lrr = 1", "--lrr"),
            ("help = true", "--help"),
            ("lr = [", "TOML"),
        ] {
            let error = format!("{:#}", finetune(recipe, "").unwrap_err());
            assert!(error.contains(expected), "{recipe}: {error}");
        }
    }
}
