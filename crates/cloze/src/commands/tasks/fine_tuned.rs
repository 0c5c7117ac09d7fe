//! Opens fine-tuned models with the settings of the command line.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::ArgMatches;
use cloze_model::{Config, ModelError};
use cloze_tasks::inference::Precision;
use cloze_tasks::inference::predictor::kind_of;
use cloze_tasks::kinds::Kind;
use cloze_tasks::long::LongRows;
use cloze_tasks::{Long, Predictor, Pretrained};

use super::per_kind::{TaskArguments, refuse_ineffective};
use super::read::DataArguments;
use crate::commands::model::ModelArguments;
use crate::commands::precision::resolve;
use crate::commands::tokenizer::show_notes;
use crate::terminal::Terminal;
use crate::{format, program};

/// Why --labels is refused for a fine-tuned model.
pub const HAS_LABELS: (&str, &str) =
    ("labels", "the labels of a fine-tuned model are fixed; they are in its config.json");

/// Why --long is refused in training.
pub const NOT_IN_TRAINING: (&str, &str) =
    ("long", "training truncates long texts, or reads them in windows with --stride; predict and evaluate have --long");

/// Refuses options that have no effect for this kind of task.
pub fn check<A: TaskArguments>(kind: &Kind, given: &ArgMatches, read: &DataArguments) -> Result<()> {
    refuse_ineffective::<A>(given, kind)?;
    read.check(kind, A::NAME == "predict")
}

/// Opens a fine-tuned model for the command `A`, and checks the command line for its kind of task.
pub fn open<A: TaskArguments>(
    model: &ModelArguments,
    precision: Precision,
    kind: Option<&'static Kind>,
    given: &ArgMatches,
    read: &DataArguments,
    terminal: &Terminal,
) -> Result<Predictor> {
    let dir = model.find(terminal)?;
    let device = terminal.open_device()?;
    let precision = resolve(precision, &device, terminal);
    let mut pretrained = Pretrained::open(&dir, device, precision)?;
    if let Some(reading) = read.common.special_tokens.given() {
        pretrained.tokenizer = pretrained.tokenizer.with_special_tokens(reading);
    }
    show_notes(&pretrained.tokenizer, terminal);
    let pretrained = Arc::new(pretrained);
    terminal.detail(&format!("heads: {}", pretrained.model.class_name()));
    if pretrained.model.heads.task.is_none() {
        bail!("{}", not_fine_tuned(&pretrained, &model.named, A::NAME));
    }
    let (kind, stored) = kind_of(&pretrained, kind)?;
    check::<A>(kind, given, read)?;
    let threads = pretrained.device.threads();
    let predictor = Predictor::new(pretrained, Some(kind), read.given(threads)?)?;
    if terminal.is_verbose() {
        let stored = stored.unwrap_or_default().to_json();
        terminal.detail(&format!("task: {}; stored in the model: {stored}", kind.name()));
        let reading = predictor.reading();
        let windows = reading.stride().map(|stride| format!(", windows every {stride} tokens")).unwrap_or_default();
        terminal.detail(&format!("at most {} tokens{windows}", reading.max_len()));
    }
    Ok(predictor)
}

/// Reports long rows: warns about those that were truncated, counts those that were read in windows.
pub fn report_long_rows(long: LongRows, predictor: &Predictor, terminal: &Terminal) {
    let reading = predictor.reading();
    if !predictor.kind().description.has_option("long") {
        return;
    }
    let [rows, cut, windowed, windows] =
        [long.rows, long.cut, long.windowed, long.windows].map(|number| format::count(number as u64));
    let max_len = reading.max_len();
    match reading.options().long {
        _ if long.cut == 0 => {}
        Some(Long::First) => terminal.note(&format!(
            "{cut} of {rows} rows were longer than {max_len} tokens; only their first window was read (--long first)"
        )),
        Some(given) if given.reads_windows() => terminal.warn(&format!(
            "{cut} of {rows} rows are pairs whose shorter text has more than half of {max_len} tokens; it was truncated to that"
        )),
        _ => terminal.warn(&format!(
            "{cut} of {rows} rows were longer than {max_len} tokens and were truncated (see --max-len and --long)"
        )),
    }
    if long.windowed > 0 {
        let given = reading.options().long.map_or("", Long::name);
        terminal.note(&format!(
            "{windowed} of {rows} rows were longer than {max_len} tokens and were read in {windows} windows (--long {given})"
        ));
    }
}

/// The error message for a model without a task head, with commands to try instead.
fn not_fine_tuned(model: &Pretrained, named: &Path, command: &str) -> String {
    let (cloze, class, has_mlm) = (program::name(), model.model.class_name(), model.model.heads.mlm);
    let model = program::quoted(named.display());
    let instead = match (command, has_mlm) {
        ("evaluate", true) => {
            format!("evaluate its pre-training: {cloze} evaluate pretrain --model {model} --data SHARDS")
        }
        (_, true) => format!("fill masks with it: {cloze} fill --model {model} '[MASK] .'"),
        (_, false) => {
            format!("compute vectors with it: {cloze} embed --model {model} --input - --out vectors.npy")
        }
    };
    format!(
        "{}: a {class} is not fine-tuned for a task; fine-tune it first ({cloze} finetune --help), or {instead}",
        named.display()
    )
}

/// The configuration of a model folder.
pub fn config_of(model: &Path) -> Result<Config> {
    if !model.is_dir() {
        let problem = "expected a folder with config.json and model.safetensors".to_owned();
        return Err(ModelError::Folder { path: model.to_owned(), problem }.into());
    }
    Ok(Config::read(&model.join("config.json"))?)
}
