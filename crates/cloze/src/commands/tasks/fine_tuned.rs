//! A fine-tuned model, opened with its task as the command line says.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::ArgMatches;
use cloze_engine::Device;
use cloze_model::{Config, ModelError};
use cloze_tasks::inference::predictor::kind_of;
use cloze_tasks::kinds::Kind;
use cloze_tasks::{Predictor, Pretrained};
use cloze_train::recipe::Precision;

use super::per_kind::{OfTask, check_effect};
use super::read::DataArguments;
use crate::commands::model::ModelArguments;
use crate::commands::precision::settle;
use crate::commands::tokenizer::tell_notes;
use crate::program;
use crate::terminal::Terminal;

/// Why a fine-tuned model takes no --labels.
pub const HAS_LABELS: (&str, &str) = ("labels", "a fine-tuned model has its labels; they are in its config.json");

/// Refuses options without effect on a task of this kind.
pub fn check<A: OfTask>(kind: &Kind, given: &ArgMatches, read: &DataArguments) -> Result<()> {
    check_effect::<A>(given, kind)?;
    read.check(kind, A::NAME == "predict")
}

/// Opens a fine-tuned model for the command `A`. What is wrong with the command line for its kind of task is found too.
pub fn open<A: OfTask>(
    model: &ModelArguments,
    precision: Precision,
    kind: Option<&'static Kind>,
    given: &ArgMatches,
    read: &DataArguments,
    terminal: &Terminal,
) -> Result<Predictor> {
    let dir = model.find(terminal)?;
    let device = Device::cpu(terminal.threads)?;
    let precision = settle(precision, &device, terminal).dtype(&device);
    let mut pretrained = Pretrained::open(&dir, device, precision)?;
    if let Some(how) = read.common.special_tokens.given() {
        pretrained.tokenizer = pretrained.tokenizer.with_special_tokens(how);
    }
    tell_notes(&pretrained.tokenizer, terminal);
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
        let remembered = stored.unwrap_or_default().to_json();
        terminal.detail(&format!("task: {}; the model remembers {remembered}", kind.name()));
        let reading = predictor.reading();
        let windows = reading.stride().map(|stride| format!(", windows {stride} tokens apart")).unwrap_or_default();
        terminal.detail(&format!("at most {} tokens{windows}", reading.max_len()));
    }
    Ok(predictor)
}

/// That a model has no task, and what can be done about it.
fn not_fine_tuned(model: &Pretrained, named: &Path, command: &str) -> String {
    let (cloze, class, has_mlm) = (program::name(), model.model.class_name(), model.model.heads.mlm);
    let model = program::quoted(named.display());
    let instead = match (command, has_mlm) {
        ("evaluate", true) => {
            format!("judge its pre-training: {cloze} evaluate pretrain --model {model} --data SHARDS")
        }
        (_, true) => format!("fill masks with it: {cloze} fill --model {model} '[MASK] .'"),
        (_, false) => {
            format!("make vectors of lines with it: {cloze} embed --model {model} --input - --out vectors.npy")
        }
    };
    format!(
        "{}: a {class} is not fine-tuned for a task; fine-tune it first ({cloze} finetune --help), or {instead}",
        named.display()
    )
}

/// A model folder's configuration.
pub fn config_of(model: &Path) -> Result<Config> {
    if !model.is_dir() {
        let problem = "expected a folder with config.json and model.safetensors".to_owned();
        return Err(ModelError::Folder { path: model.to_owned(), problem }.into());
    }
    Ok(Config::read(&model.join("config.json"))?)
}
