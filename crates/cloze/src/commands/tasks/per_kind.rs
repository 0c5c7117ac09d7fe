//! Commands with a subcommand for each kind of task. The help of a subcommand shows only the options of that kind.
//! Without a subcommand the kind comes from a known task, a model or a recipe.

use anyhow::Result;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use cloze_tasks::kinds::{self, KINDS, Kind};

use crate::failure::usage;
use crate::help;

/// The arguments of a command about tasks.
pub trait TaskArguments: Args {
    /// The command's name.
    const NAME: &'static str;
    /// Ids of the options shown in the help of the command without a kind. The others are in the help of the kinds.
    const OVERVIEW: &'static [&'static str];

    /// The heading of the subcommands in the help.
    const SUBCOMMANDS: &'static str = "Kinds of tasks, each with its own options and --help";

    /// One line about the command for a kind of task.
    fn about(kind: &Kind) -> String;

    /// The long description for a kind of task.
    fn details(kind: &Kind) -> String;

    /// Example commands for a kind of task.
    fn examples(kind: &Kind) -> &'static [&'static str];

    /// Whether it has a subcommand for a kind of task.
    fn has_subcommand(_: &Kind) -> bool {
        true
    }

    /// Options without effect for a kind of task, each with the reason why it is refused.
    fn ineffective_options(kind: &Kind) -> Vec<(&'static str, &'static str)>;
}

/// Refuses options on the command line that have no effect for this kind of task.
pub fn refuse_ineffective<A: TaskArguments>(given: &ArgMatches, kind: &Kind) -> Result<()> {
    let mut ineffective = A::ineffective_options(kind).into_iter();
    match ineffective.find(|(option, _)| given.value_source(option) == Some(ValueSource::CommandLine)) {
        Some((option, reason)) => Err(usage(format!("--{}: {reason}", option.replace('_', "-")))),
        None => Ok(()),
    }
}

/// The first option given before a subcommand, which would ignore it.
fn option_before<A: TaskArguments>(matches: &ArgMatches) -> Option<String> {
    let own = A::augment_args(Command::new(A::NAME));
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let option = own.get_arguments().find(|arg| is_given(arg.get_id().as_str()))?;
    option.get_long().map(str::to_owned)
}

/// The parsed arguments of a command.
#[derive(Debug)]
pub struct PerKind<A> {
    /// The kind of task, if it was given as a subcommand.
    pub kind: Option<&'static Kind>,
    pub arguments: A,
    /// The matches of the parser, which distinguish given values from defaults.
    pub given: ArgMatches,
}

impl<A: TaskArguments> Args for PerKind<A> {
    fn augment_args(command: Command) -> Command {
        let command = A::augment_args(command).mut_args(|arg| {
            let shown = A::OVERVIEW.contains(&arg.get_id().as_str());
            if shown { arg } else { arg.hide_short_help(true).hide_long_help(true) }
        });
        let command = command
            .subcommand_negates_reqs(true)
            .disable_help_subcommand(true)
            .subcommand_help_heading(A::SUBCOMMANDS)
            .subcommand_value_name("KIND");
        let kinds = KINDS.iter().filter(|kind| A::has_subcommand(kind));
        kinds.fold(command, |command, kind| command.subcommand(subcommand::<A>(kind)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The subcommand for one kind of task.
fn subcommand<A: TaskArguments>(kind: &Kind) -> Command {
    let ineffective_options = A::ineffective_options(kind);
    let is_relevant = |option: &str| {
        let is_for_kind = kind.description.has_option(option) || kinds::with_option(option).is_empty();
        is_for_kind && !ineffective_options.iter().any(|(without, _)| *without == option)
    };
    // Hide options without effect instead of removing them, so that they are refused with a reason.
    let command = A::augment_args(Command::new(kind.name()))
        .mut_args(|arg| if is_relevant(arg.get_id().as_str()) { arg } else { arg.hide(true) });
    // `from_arg_matches` checks required options, because it knows whether they were given before the kind.
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

impl<A: TaskArguments> FromArgMatches for PerKind<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Some((name, kind_matches)) = matches.subcommand() else {
            return Ok(PerKind { kind: None, arguments: A::from_arg_matches(matches)?, given: matches.clone() });
        };
        if let Some(option) = option_before::<A>(matches) {
            let command = A::NAME;
            let message = format!(
                "--{option} is before the kind of task; give the kind first: `cloze {command} {name} --{option} …`\n"
            );
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, message));
        }
        let own = A::augment_args(Command::new(A::NAME));
        let missing =
            own.get_arguments().filter(|arg| arg.is_required_set() && !kind_matches.contains_id(arg.get_id().as_str()));
        let missing: Vec<String> = missing.filter_map(|arg| Some(format!("  --{}\n", arg.get_long()?))).collect();
        if !missing.is_empty() {
            let (command, missing) = (A::NAME, missing.concat());
            let message = format!(
                "the following required arguments were not provided:\n{missing}\nFor more information, try `cloze {command} {name} --help`\n"
            );
            return Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, message));
        }
        Ok(PerKind {
            kind: kinds::named(name),
            arguments: A::from_arg_matches(kind_matches)?,
            given: kind_matches.clone(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A command for all kinds of tasks, with further subcommands `O`.
#[derive(Debug)]
pub enum OrOther<A, O> {
    /// A kind of task, or none.
    Task(Box<PerKind<A>>),
    Other(O),
}

impl<A: TaskArguments, O: Subcommand> Args for OrOther<A, O> {
    fn augment_args(command: Command) -> Command {
        let command = O::augment_subcommands(PerKind::<A>::augment_args(command));
        command.subcommand_help_heading(A::SUBCOMMANDS)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<A: TaskArguments, O: Subcommand> FromArgMatches for OrOther<A, O> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand_name() {
            Some(name) if O::has_subcommand(name) => match option_before::<A>(matches) {
                None => O::from_arg_matches(matches).map(OrOther::Other),
                Some(option) => {
                    let command = A::NAME;
                    let message = format!(
                        "--{option} is before `{name}`: give {name} first, then its options; see `cloze {command} {name} --help`\n"
                    );
                    Err(clap::Error::raw(ErrorKind::ArgumentConflict, message))
                }
            },
            _ => Box::from_arg_matches(matches).map(OrOther::Task),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
