//! A fine-tuned model: what it was made for, and its task with the options that rows are read by.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cloze_engine::Device;
use cloze_model::{Config, ModelError};
use cloze_tasks::Network;
use cloze_tasks::files::{FromFiles, Options};

use super::remembered::Remembered;
use super::{DataArguments, Kind};
use crate::commands::precision::Type;
use crate::program;
use crate::terminal::Terminal;

/// Why a fine-tuned model takes no --labels.
pub const HAS_LABELS: (&str, &str) = ("labels", "a fine-tuned model has its labels; they are in its config.json");

/// A model folder that was opened, and what it remembers.
pub struct FineTuned {
    pub network: Network,
    dir: PathBuf,
    remembered: Remembered,
}

impl FineTuned {
    pub fn open(dir: &Path, precision: Type, terminal: &Terminal) -> Result<FineTuned> {
        let device = Device::cpu(terminal.threads)?;
        let precision = precision.settle(&device, terminal).dtype(&device);
        let network = Network::open(dir, device, precision)?;
        let remembered = Remembered::in_config(network.model.config(), dir)?;
        terminal.detail(&format!("heads: {}", network.model.class_name()));
        Ok(FineTuned { network, dir: dir.to_owned(), remembered })
    }

    /// The kind of task: as asked, else as the model says. Whether the model can do what is asked, [`FromFiles::of_model`] tells.
    pub fn kind(&self, asked: Option<Kind>, named: &Path, command: &str) -> Result<Kind> {
        let Some(head) = self.network.model.heads.task else {
            bail!("{}", self.not_fine_tuned(named, command));
        };
        Ok(asked.or(self.remembered.kind()).unwrap_or(Kind::of_head(head)))
    }

    /// That a model has no task, and what can be done about it.
    fn not_fine_tuned(&self, named: &Path, command: &str) -> String {
        let found = &self.network.model;
        let (cloze, model, class) = (program::name(), program::quoted(named.display()), found.class_name());
        let instead = match (command, found.heads.mlm) {
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

    /// The task and how rows are read.
    pub fn task<T: FromFiles>(&self, kind: Kind, read: &DataArguments, terminal: &Terminal) -> Result<(T, Options)> {
        let (config, dir) = (self.network.model.config(), self.dir.as_path());
        let threads = self.network.device.threads();
        let options = Options { threads, ..read.options(kind, &self.remembered)? };
        let task = T::of_model(&options, config, self.network.head(dir)?, dir)?;
        if terminal.is_verbose() {
            let remembered = self.remembered.to_json()?;
            terminal.detail(&format!("task: {}; the model remembers {remembered}", kind.name()));
            terminal.detail(&format!(
                "at most {} tokens{}",
                options.max_len,
                match options.stride {
                    Some(stride) => format!(", windows {stride} tokens apart"),
                    None => String::new(),
                }
            ));
        }
        Ok((task, options))
    }
}

/// A model folder's configuration.
pub fn config_of(model: &Path) -> Result<Config> {
    if !model.is_dir() {
        let problem = "expected a folder with config.json and model.safetensors".to_owned();
        return Err(ModelError::Folder { path: model.to_owned(), problem }.into());
    }
    Ok(Config::read(&model.join("config.json"))?)
}
