//! A recipe for a command: a TOML file whose keys are the command's options. What the command line says comes first.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};
use cloze_tasks::kinds::{self, Kind};

use super::per_kind::{OfTask, PerKind};
use crate::global::GlobalOptions;

/// The arguments of a command, from its recipe where there is one, and the kind of task if one is named.
pub fn with_recipe<A: OfTask>(
    asked: PerKind<A>,
    recipe: impl Fn(&A) -> Option<&Path>,
) -> Result<(Option<&'static Kind>, A)> {
    let Some(path) = recipe(&asked.arguments) else { return Ok((asked.kind, asked.arguments)) };
    let place = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut table: toml::Table = toml::from_str(&text).with_context(place)?;
    let kind = kind_of(&mut table).with_context(place)?;
    let mut arguments = of_table::<A>(A::NAME, &table).with_context(place)?;
    arguments.update_from_arg_matches(&without_defaults(&asked.given))?;
    Ok((asked.kind.or(kind), arguments))
}

/// What the command line says itself.
fn without_defaults(matches: &ArgMatches) -> ArgMatches {
    let mut given = matches.clone();
    let ids: Vec<String> = matches.ids().map(|id| id.to_string()).collect();
    for id in ids {
        if matches.value_source(&id) != Some(ValueSource::CommandLine) {
            // Only an id that is not there is refused.
            let _ = given.try_clear_id(&id);
        }
    }
    given
}

/// The kind of task, taken out of the table: it is not an option of the command.
fn kind_of(table: &mut toml::Table) -> Result<Option<&'static Kind>> {
    let Some(value) = table.remove("kind") else { return Ok(None) };
    let kind = value.as_str().and_then(kinds::named);
    kind.map(Some).with_context(|| format!("`kind` is {value}: expected {}", kinds::names()))
}

/// The arguments that a table gives.
fn of_table<A: Args>(command: &'static str, table: &toml::Table) -> Result<A> {
    let global = GlobalOptions::augment_args(Command::new(command));
    let mut global = global.get_arguments().filter_map(|arg| arg.get_long());
    if let Some(key) = global.find(|name| table.keys().any(|key| key.replace('_', "-") == *name)) {
        bail!("`{key}` is no key of a recipe: give --{key} on the command line");
    }
    let mut words = vec![command.to_owned()];
    for (key, value) in table {
        words.extend(option(key, value)?);
    }
    let matches = A::augment_args(Command::new(command)).disable_help_flag(true).try_get_matches_from(words);
    let arguments = matches.and_then(|matches| A::from_arg_matches(&matches));
    arguments.map_err(|error| {
        // The first paragraph says what is wrong, the others how commands are used.
        let text = error.to_string();
        anyhow::anyhow!("{}", text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// A key and its value as an option.
fn option(key: &str, value: &toml::Value) -> Result<Vec<String>> {
    let flag = format!("--{}", key.replace('_', "-"));
    if flag == "--recipe" {
        bail!("`recipe`: a recipe cannot name another");
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
        // Each file with the option's name: a comma may be in a file's name.
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
    struct Program<A: OfTask> {
        #[command(flatten)]
        asked: PerKind<A>,
    }

    /// A recipe and a command line, read together.
    fn read<A: OfTask>(
        recipe: &str,
        line: &str,
        path: impl Fn(&A) -> Option<&Path>,
    ) -> Result<(Option<&'static Kind>, A)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), recipe).unwrap();
        let words = format!("cloze {line} --recipe {}", file.path().display());
        let program = Program::<A>::try_parse_from(words.split_whitespace()).unwrap();
        with_recipe(program.asked, path)
    }

    fn finetune(recipe: &str, line: &str) -> Result<(Option<&'static Kind>, finetune::Arguments)> {
        read(recipe, line, |arguments: &finetune::Arguments| arguments.recipe.as_deref())
    }

    #[test]
    fn the_command_line_comes_before_the_recipe_and_the_recipe_before_defaults() {
        let recipe = "kind = \"tag\"\nmodel = \"m\"\nlr = 3e-5\nseeds = 3\nwarmup = 0.2\njson = true\nresume = false\ndev = [\"x\", \"y,z\"]";
        let (kind, found) = finetune(recipe, "--lr 1e-4 --warmup 0.1 --train a b").unwrap();
        assert_eq!(
            (kind, found.learn.lr, found.seeds, found.json, found.resume),
            (kinds::named("tag"), Some(1e-4), 3, true, false)
        );
        // As given, though it is the default too.
        assert_eq!(found.learn.warmup, 0.1);
        assert_eq!(found.model.as_deref(), Some(Path::new("m")));
        assert_eq!((found.train.len(), found.dev), (2, vec!["x".into(), "y,z".into()]));
        let (kind, found) = finetune(recipe, "classify").unwrap();
        assert_eq!((kind, found.learn.lr, found.learn.warmup), (kinds::named("classify"), Some(3e-5), 0.2));

        let recipe = "lrs = [1e-3, 1e-4]\nbatches = [2]\nlabels = [\"a\", \"b\"]";
        let (_, found) =
            read(recipe, "--batches 4,8", |asked: &sweep::Arguments| asked.base.recipe.as_deref()).unwrap();
        assert_eq!((found.lrs, found.batches, found.epochs_list), (vec![1e-3, 1e-4], vec![4, 8], vec![2, 3, 4]));
    }

    #[test]
    fn what_is_no_recipe_is_refused() {
        for (recipe, expected) in [
            ("a = { b = 1 }", "`a` is { b = 1 }"),
            ("kind = \"sort\"", "expected classify, multi-label, regress, tag, answer or choose"),
            ("recipe = \"x\"", "cannot name another"),
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
