//! A command about tasks: a subcommand for each kind of task, whose help shows what concerns that kind, and the command itself,
//! which learns the kind from elsewhere (a known task, a model, a recipe).

use anyhow::Result;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use cloze_tasks::kinds::{self, KINDS, Kind};

use crate::failure::usage;
use crate::help;

/// The arguments of a command about tasks.
pub trait OfTask: Args {
    /// The command's name.
    const NAME: &'static str;
    /// The options that the help of the command without a kind shows; the others are in the kinds' help.
    const OVERVIEW: &'static [&'static str];

    /// What the command does where the task is of this kind.
    fn about(kind: &Kind) -> String;

    /// What its help says in detail.
    fn details(kind: &Kind) -> String;

    /// Examples for its help.
    fn examples(kind: &Kind) -> &'static [&'static str];

    /// Options that this command has for the sake of others, or for other kinds: each with the reason why it is refused.
    fn without_effect(kind: &Kind) -> Vec<(&'static str, &'static str)>;
}

/// Refuses options on the command line that have no effect on a task of this kind.
pub fn check_effect<A: OfTask>(given: &ArgMatches, kind: &Kind) -> Result<()> {
    let mut without = A::without_effect(kind).into_iter();
    match without.find(|(option, _)| given.value_source(option) == Some(ValueSource::CommandLine)) {
        Some((option, reason)) => Err(usage(format!("--{}: {reason}", option.replace('_', "-")))),
        None => Ok(()),
    }
}

/// The first option of the command that stands before a subcommand, which does not see it.
pub fn option_before<A: OfTask>(matches: &ArgMatches) -> Option<String> {
    let own = A::augment_args(Command::new(A::NAME));
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let option = own.get_arguments().find(|arg| is_given(arg.get_id().as_str()))?;
    option.get_long().map(str::to_owned)
}

/// The arguments of a command, and the kind of task if it was named.
#[derive(Debug)]
pub struct PerKind<A> {
    pub kind: Option<&'static Kind>,
    pub arguments: A,
    /// What the command line says, to tell it from defaults.
    pub given: ArgMatches,
}

impl<A: OfTask> Args for PerKind<A> {
    fn augment_args(command: Command) -> Command {
        let command = A::augment_args(command).mut_args(|arg| {
            let shown = A::OVERVIEW.contains(&arg.get_id().as_str());
            if shown { arg } else { arg.hide_short_help(true).hide_long_help(true) }
        });
        let command = command
            .subcommand_negates_reqs(true)
            .disable_help_subcommand(true)
            .subcommand_help_heading("Kinds of tasks, each with options and a --help of its own")
            .subcommand_value_name("KIND");
        KINDS.iter().fold(command, |command, kind| command.subcommand(of_kind::<A>(kind)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The command for one kind of task.
fn of_kind<A: OfTask>(kind: &Kind) -> Command {
    let without_effect = A::without_effect(kind);
    let concerns = |option: &str| {
        let concerns = kind.description.has_option(option) || kinds::with_option(option).is_empty();
        concerns && !without_effect.iter().any(|(without, _)| *without == option)
    };
    // Hidden, not absent: an option that has no effect is refused with the reason.
    let command = A::augment_args(Command::new(kind.name())).mut_args(|arg| {
        let concerned = concerns(arg.get_id().as_str());
        if concerned { arg } else { arg.hide(true) }
    });
    // What is missing is found by `from_arg_matches`, which knows whether it stands before the kind.
    let usage = command.clone().bin_name(format!("cloze {} {}", A::NAME, kind.name())).render_usage().to_string();
    let command =
        command.override_usage(usage.trim_start_matches("Usage: ").to_owned()).mut_args(|arg| arg.required(false));
    let about = A::about(kind);
    command
        .about(about.clone())
        .long_about(about)
        .after_help(help::examples(A::examples(kind)))
        .after_long_help(help::details(&A::details(kind), A::examples(kind)))
}

impl<A: OfTask> FromArgMatches for PerKind<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Some((name, of_kind)) = matches.subcommand() else {
            return Ok(PerKind { kind: None, arguments: A::from_arg_matches(matches)?, given: matches.clone() });
        };
        if let Some(option) = option_before::<A>(matches) {
            let command = A::NAME;
            let message = format!(
                "--{option} stands before the kind of task: give the kind first, as in `cloze {command} {name} --{option} …`\n"
            );
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, message));
        }
        let own = A::augment_args(Command::new(A::NAME));
        let missing =
            own.get_arguments().filter(|arg| arg.is_required_set() && !of_kind.contains_id(arg.get_id().as_str()));
        let missing: Vec<String> = missing.filter_map(|arg| Some(format!("  --{}\n", arg.get_long()?))).collect();
        if !missing.is_empty() {
            let (command, missing) = (A::NAME, missing.concat());
            let message = format!(
                "the following required arguments were not provided:\n{missing}\nFor more information, try `cloze {command} {name} --help`\n"
            );
            return Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, message));
        }
        Ok(PerKind { kind: kinds::named(name), arguments: A::from_arg_matches(of_kind)?, given: of_kind.clone() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
