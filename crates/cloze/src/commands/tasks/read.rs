//! How the files of a task are read, as the command line says.

use anyhow::Result;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use cloze_tasks::datasets::format::{FORMATS, Format};
use cloze_tasks::datasets::preset::DatasetPreset;
use cloze_tasks::datasets::table::Column;
use cloze_tasks::input::Object;
use cloze_tasks::kinds::description::{KindOption, Rows, Values, alternatives};
use cloze_tasks::kinds::{self, KINDS, Kind};
use cloze_tasks::{TaskError, TaskOptions, TaskSettings};
use serde_json::Value;

use crate::commands::tokenizer::SpecialTokensArgument;
use crate::failure::usage;

/// How the files of a task are read: options that concern several kinds of tasks, and those that one kind has for itself.
#[derive(Debug, Clone, Default)]
pub struct DataArguments {
    pub common: CommonArguments,
    own: Vec<OwnArgument>,
}

/// An option of one kind of task, as it was given.
#[derive(Debug, Clone)]
struct OwnArgument {
    /// The option's name.
    option: &'static str,
    /// The setting.
    key: &'static str,
    value: Value,
}

/// How the files of a task are read: what concerns several kinds of tasks.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct CommonArguments {
    /// A task known by name, with its columns, labels, metrics and the paper's settings: sst2, cola, mrpc, rte, stsb, qnli, mnli,
    /// qqp, wnli, squad1, squad2, conll2003, swag
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,

    /// Column of the text, by name or number (#4) [default: the model's, or text]
    #[arg(long, value_name = "COLUMN")]
    pub text: Option<String>,

    /// Column of the second text, for pairs [default: the model's]
    #[arg(long, value_name = "COLUMN")]
    pub pair: Option<String>,

    /// Column of the label, number or tags [default: the model's, or label]
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,

    /// The labels in order [default: those of the checkpoint if it has all of them, or those found in the training rows, sorted]
    ///
    /// A head of the checkpoint with the same labels is kept, whatever their order; else the head is new. A line says which.
    #[arg(long, hide_short_help = true, value_name = "A,B,…", value_delimiter = ',')]
    pub labels: Option<Vec<String>>,

    /// The score that decides which model is best
    #[arg(long, hide_short_help = true, value_name = "SCORE", help = metric_help(), value_parser = metrics())]
    metric: Option<String>,

    /// Tokens of a sequence at most [default: the model's or the task's; 128, to answer 384]
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    max_len: Option<usize>,

    /// Read long texts in windows that begin N tokens apart instead of cutting them off; their logits are averaged. 0: cut
    /// them off though the model was trained otherwise [default: the model's, in proportion to --max-len; to answer 128]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,

    /// How the files are written [default: as their endings say, else as their beginnings show]
    #[arg(long, hide_short_help = true, hide_possible_values = true, value_name = "FORMAT", help = format_help(), value_parser = crate::values::named(&FORMATS))]
    pub format: Option<Format>,

    /// Leave out and count rows that cannot be used and answers that are not in their paragraph, instead of stopping
    #[arg(long, hide_short_help = true)]
    skip_bad: bool,

    #[command(flatten)]
    pub special_tokens: SpecialTokensArgument,
}

fn format_help() -> String {
    let names: Vec<&str> = FORMATS.iter().map(|(_, name, _)| *name).collect();
    format!("How the files are written: {} [default: as their endings say, else as they begin]", names.join(", "))
}

/// The scores that may decide, of any kind of task.
fn metrics() -> PossibleValuesParser {
    let mut names: Vec<&str> = Vec::new();
    for name in KINDS.iter().flat_map(|kind| kind.description.metrics) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    PossibleValuesParser::new(names)
}

fn metric_help() -> String {
    let of = |kind: &&Kind| {
        let metrics = kind.description.metrics;
        (!metrics.is_empty()).then(|| format!("{} to {}", alternatives(metrics), kind.name()))
    };
    let names: Vec<String> = KINDS.iter().filter_map(of).collect();
    format!("The score that decides which model is best: {}", names.join(", "))
}

fn own_options() -> impl Iterator<Item = &'static KindOption> {
    KINDS.iter().flat_map(|kind| kind.description.own_options)
}

/// An option of one kind of task for the parser.
fn own_arg(option: &'static KindOption) -> Arg {
    let arg = Arg::new(option.name)
        .long(option.name.replace('_', "-"))
        .help(option.help)
        .help_heading("Data")
        .hide_short_help(option.rare);
    match option.values {
        Values::Switch { against, .. } => arg.action(ArgAction::SetTrue).overrides_with(against),
        Values::OneOf { placeholder, names } => {
            let values = names.iter().map(|(name, help)| PossibleValue::new(*name).help(*help));
            arg.value_name(placeholder).value_parser(PossibleValuesParser::new(values))
        }
        Values::Parsed { placeholder, parse, missing } => {
            let arg = arg.value_name(placeholder).value_parser(parse).allow_negative_numbers(true);
            match missing {
                Some(missing) => arg.num_args(0..=1).default_missing_value(missing),
                None => arg,
            }
        }
    }
}

/// The options of single kinds of tasks that the command line has.
fn own_of(matches: &ArgMatches) -> Vec<OwnArgument> {
    let given = |option: &&KindOption| matches.value_source(option.name) == Some(ValueSource::CommandLine);
    let argument = |option: &'static KindOption| {
        let (key, value) = match option.values {
            Values::Switch { key, to, .. } => (key, matches.get_flag(option.name).then_some(to.into())),
            Values::OneOf { .. } => {
                (option.name, matches.get_one::<String>(option.name).map(|name| name.as_str().into()))
            }
            Values::Parsed { .. } => (option.name, matches.get_one::<Value>(option.name).cloned()),
        };
        Some(OwnArgument { option: option.name, key, value: value? })
    };
    own_options().filter(given).filter_map(argument).collect()
}

impl Args for DataArguments {
    fn augment_args(command: Command) -> Command {
        own_options().fold(CommonArguments::augment_args(command), |command, option| command.arg(own_arg(option)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        let common = CommonArguments::augment_args_for_update(command);
        own_options().fold(common, |command, option| command.arg(own_arg(option)))
    }
}

impl FromArgMatches for DataArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<DataArguments, clap::Error> {
        Ok(DataArguments { common: CommonArguments::from_arg_matches(matches)?, own: own_of(matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.common.update_from_arg_matches(matches)?;
        let given = own_of(matches);
        self.own.retain(|before| given.iter().all(|now| now.key != before.key));
        self.own.extend(given);
        Ok(())
    }
}

impl DataArguments {
    /// The task known by the name given.
    pub fn known(&self) -> Result<Option<DatasetPreset>> {
        Ok(self.common.task.as_deref().map(DatasetPreset::named).transpose()?)
    }

    /// The kind of task: as named, or as the known task is; none if neither is given.
    pub fn kind(&self, named: Option<&'static Kind>) -> Result<Option<&'static Kind>> {
        let known = self.known()?.and_then(|known| kinds::named(known.kind));
        match (named, known) {
            (Some(named), Some(known)) if named != known => {
                let name = self.common.task.as_deref().unwrap_or_default();
                Err(usage(format!("{name} is a task to {}, not to {}", known.name(), named.name())))
            }
            _ => Ok(named.or(known)),
        }
    }

    /// Refuses what cannot have an effect on a task of this kind; rows that are only predicted may be plain lines.
    pub fn check(&self, kind: &Kind, predicts: bool) -> Result<()> {
        if let Some(format) = self.common.format {
            self.check_format(format, kind, predicts)?;
        }
        let CommonArguments { text, pair, label, labels, stride, skip_bad, .. } = &self.common;
        let common = [
            ("text", text.is_some()),
            ("pair", pair.is_some()),
            ("label", label.is_some()),
            ("labels", labels.is_some()),
            ("stride", stride.is_some()),
            ("skip_bad", *skip_bad),
        ];
        let common = common.into_iter().filter(|(_, is_given)| *is_given).map(|(option, _)| option);
        let mut given = common.chain(self.own.iter().map(|own| own.option));
        if let Some(option) = given.find(|option| !kind.description.has_option(option)) {
            let names: Vec<&str> = kinds::with_option(option).iter().map(|kind| kind.name()).collect();
            return Err(usage(format!(
                "--{} has no effect where the task is to {}; it is for {}",
                option.replace('_', "-"),
                kind.name(),
                names.join(", ")
            )));
        }
        kind.description.check(&self.settings()?).map_err(|error| match error {
            TaskError::Setting { .. } => usage(error.to_string()),
            other => other.into(),
        })
    }

    fn check_format(&self, format: Format, kind: &Kind, predicts: bool) -> Result<()> {
        let is_table = matches!(format, Format::Tsv | Format::Csv | Format::Parquet | Format::Jsonl | Format::Json);
        let is_readable = match kind.description.rows {
            Rows::Texts | Rows::Words if format == Format::Lines => predicts,
            Rows::Texts | Rows::Choices => is_table,
            Rows::Words => format.is_tagged() || is_table && (predicts || !matches!(format, Format::Tsv | Format::Csv)),
            Rows::Questions => matches!(format, Format::Squad | Format::Jsonl | Format::Json | Format::Parquet),
        };
        let name = format.name();
        if !is_readable {
            return Err(usage(format!("--format {name}: files of rows to {} are not written so", kind.name())));
        }
        let own = self.own.iter().find(|own| own.key == "tag_format" || own.key == "tag_column");
        match own.filter(|_| !format.is_tagged()) {
            Some(own) => {
                let option = own.option.replace('_', "-");
                Err(usage(format!("--{option} has no effect with --format {name}; give one of them")))
            }
            None => Ok(()),
        }
    }

    fn settings(&self) -> Result<TaskSettings> {
        let CommonArguments { task, text, pair, label, metric, max_len, stride, .. } = self.common.clone();
        let column = |name: Option<String>| name.as_deref().map(Column::parse).transpose();
        let mut own: Object = self.own.iter().map(|own| (own.key.to_owned(), own.value.clone())).collect();
        // One option for all formats; taggers remember theirs.
        if let Some(format) = self.common.format.filter(|format| format.is_tagged()) {
            own.insert("tag_format".to_owned(), format.name().into());
        }
        let mut settings = TaskSettings::default();
        settings.task = task;
        settings.text = column(text)?;
        settings.pair = column(pair)?;
        settings.label = column(label)?;
        settings.metric = metric;
        settings.max_len = max_len;
        settings.stride = stride;
        settings.own = own;
        Ok(settings)
    }

    /// What is given of how rows are read.
    pub fn given(&self, threads: usize) -> Result<TaskOptions> {
        let CommonArguments { labels, skip_bad, format, .. } = &self.common;
        let mut given = TaskOptions::default();
        given.settings = self.settings()?;
        given.labels = labels.clone();
        given.format = *format;
        given.skip_bad = *skip_bad;
        given.threads = threads;
        Ok(given)
    }
}
