//! The last stage of the quickstart: fine-tunes the pre-trained model for three tasks with few labelled rows, and for
//! comparison the same architecture with random weights.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use cloze_comm::Communicator;
use cloze_engine::Device;
use cloze_model::{Heads, Model};
use cloze_tasks::datasets::LabelsNeeded;
use cloze_tasks::finetune::{Figures, FineTuneConfig, finetune};
use cloze_tasks::kinds::{Kind, answer, classify, tag};
use cloze_tasks::{Notes, Reading, Settings, TaskOptions};
use cloze_text::Tokenizer;
use cloze_train::train_loop::Event;
use serde::Serialize;

use super::sample_corpus::labelled::{self, Files};
use crate::commands::tasks::config_of;
use crate::failure::Interrupted;
use crate::interrupt::GracefulStop;
use crate::program;
use crate::terminal::Terminal;

/// A quickstart cannot be resumed.
pub const INTERRUPTED: Interrupted = Interrupted("run the quickstart again to start over");

/// The folders that this stage writes in the quickstart's folder.
pub const PARTS: [&str; 3] = ["labelled", "untrained", "finetuned"];

/// Maximum sequence length: the number of positions of the models.
const MAX_LEN: usize = 128;

/// The sizes of the stage.
pub struct Plan {
    /// Training rows of each task.
    pub train: usize,
    /// Dev rows of each task.
    pub dev: usize,
    pub epochs: u32,
    pub batch: usize,
    pub rate: f64,
}

/// The scores of one task with and without pre-training.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub task: &'static str,
    pub metric: &'static str,
    /// Description of the task.
    #[serde(skip)]
    pub what: &'static str,
    pub pretrained: f64,
    pub untrained: f64,
    pub train_rows: usize,
    pub dev_rows: usize,
    /// The folder of the model fine-tuned from the pre-trained one.
    pub model: PathBuf,
}

/// The stage: its folders, and what all fine-tunings share.
pub struct Stage<'a> {
    pub dir: &'a Path,
    pub pretrained: &'a Path,
    pub plan: &'a Plan,
    pub seed: u64,
    pub stop: &'a AtomicBool,
    pub terminal: &'a Terminal,
}

impl Stage<'_> {
    /// Writes the labelled rows and fine-tunes for all three tasks.
    pub fn run(&self) -> Result<Vec<Comparison>> {
        let device = self.terminal.open_device()?;
        let tokenizer = Tokenizer::open(self.pretrained)?;
        let untrained = self.dir.join("untrained");
        Model::new(config_of(self.pretrained)?, Heads::ENCODER, &device, self.seed)?.save(&untrained)?;
        tokenizer.save(&untrained)?;
        let Plan { train, dev, .. } = *self.plan;
        // The corpus uses `seed`, so that the labelled rows are different stories.
        let files = |make: fn(u64, usize, usize) -> Files| make(self.seed + 1, train, dev);
        let comparison = TaskComparison { stage: self, device: &device, tokenizer: &tokenizer, untrained: &untrained };
        Ok(vec![
            comparison.compare(
                &classify::KIND,
                "tsv",
                ["the kind of story of a sentence", "accuracy"],
                &files(labelled::topics),
            )?,
            comparison.compare(&tag::KIND, "conll", ["people, places and things", "F1"], &files(labelled::entities))?,
            comparison.compare(
                &answer::KIND,
                "json",
                ["questions about a passage", "F1"],
                &files(labelled::questions),
            )?,
        ])
    }
}

struct TaskComparison<'a> {
    stage: &'a Stage<'a>,
    device: &'a Device,
    tokenizer: &'a Tokenizer,
    untrained: &'a Path,
}

impl TaskComparison<'_> {
    /// Fine-tunes both models for a task. `extension` is that of the data files; `what` describes the task; `metric` is
    /// the name of its score.
    fn compare(
        &self,
        kind: &'static Kind,
        extension: &str,
        [what, metric]: [&'static str; 2],
        files: &Files,
    ) -> Result<Comparison> {
        let Stage { dir, pretrained, plan, seed, stop, terminal } = self.stage;
        let name = kind.name();
        let [train_file, dev_file] = write(&dir.join("labelled"), [name, extension], files)?;
        let mut given = TaskOptions::default();
        given.settings.max_len = Some(MAX_LEN);
        let reading = Reading::new(&kind.description, given, None)?;
        let (config, notes) = (config_of(pretrained)?, &mut Notes::default());
        let (task, train_rows) =
            kind.learn(&reading, std::slice::from_ref(&train_file), &config, self.tokenizer, notes)?;
        let dev_rows =
            task.read(&reading, std::slice::from_ref(&dev_file), LabelsNeeded::Required, self.tokenizer, notes)?;
        let mut settings = Settings::default();
        settings.epochs = plan.epochs;
        settings.batch = plan.batch;
        settings.lr = plan.rate;
        settings.seed = *seed;
        let task_settings = task.settings(&reading);
        let train = |model: &Path, out: PathBuf| -> Result<f64> {
            let config = FineTuneConfig {
                ranks: &Communicator::single(),
                task: &*task,
                train: &*train_rows,
                dev: &*dev_rows,
                files: [std::slice::from_ref(&train_file), std::slice::from_ref(&dev_file)],
                model,
                settings: &settings,
                out: &out,
                resume: false,
                device: self.device,
                task_settings: &task_settings,
            };
            let bar = terminal.progress_timed(name);
            let mut graceful_stop = None;
            let outcome = finetune(&config, stop, &mut |event| match event {
                Event::Step(step) => {
                    let Figures { step: done, loss, .. } = step.figures;
                    bar.set_fraction(step.progress, &format!("step {done}/{} · loss {loss:.4}", step.end.steps()));
                }
                Event::Message(message) => bar.note(message),
                Event::Start(_) => graceful_stop = Some(GracefulStop::begin()),
                _ => {}
            });
            bar.finish();
            let outcome = outcome?;
            match outcome.best {
                Some(best) if outcome.finished => Ok(best.score),
                _ => Err(INTERRUPTED.into()),
            }
        };
        let out = dir.join("finetuned").join(name);
        Ok(Comparison {
            task: name,
            metric,
            what,
            pretrained: train(pretrained, out.clone())?,
            untrained: train(self.untrained, dir.join("finetuned").join(format!("{name}-untrained")))?,
            train_rows: train_rows.len(),
            dev_rows: dev_rows.len(),
            model: out.join("model"),
        })
    }
}

/// Writes a table of the scores with and without pre-training.
pub fn write_table(out: &mut dyn Write, comparisons: &[Comparison]) -> Result<()> {
    let Some(Comparison { train_rows, dev_rows, .. }) = comparisons.first() else { return Ok(()) };
    writeln!(out, "\nfine-tuned on {train_rows} labelled rows per task, evaluated on {dev_rows} others:")?;
    writeln!(out, "  {:<52}{:>19}{:>11}", "", "with pre-training", "without")?;
    for Comparison { task, what, metric, pretrained, untrained, .. } in comparisons {
        let (with, without) = (100.0 * pretrained, 100.0 * untrained);
        writeln!(out, "  {task:<10}{what:<32}{metric:<10}{with:>17.1} %{without:>9.1} %")?;
    }
    Ok(())
}

/// Commands to try the fine-tuned models, and one to fine-tune again.
pub fn next_commands(dir: &Path, pretrained: &Path, plan: &Plan) -> [String; 4] {
    let Plan { epochs, batch, rate, .. } = plan;
    let cloze = program::name();
    let [dir, pretrained] = [dir, pretrained].map(|path| program::quoted(path.display()));
    let predict = |input: &str, task: &str| {
        format!("echo '{input}' | {cloze} predict {task} --model {dir}/finetuned/{task}/model")
    };
    [
        predict("She played the harp in the orchestra.", "classify"),
        predict("Ruth plays the harp in Oakham.", "tag"),
        predict(
            r#"{"question": "Where does Ruth live?", "context": "Ruth lives in Oakham. Peter lives in Whitby."}"#,
            "answer",
        ),
        format!(
            "{cloze} finetune classify --train {dir}/labelled/classify.train.tsv --dev {dir}/labelled/classify.dev.tsv \
             --model {pretrained} --epochs {epochs} --batch {batch} --lr {rate} --out {dir}/finetuned/by-hand"
        ),
    ]
}

/// Writes the rows of a task. Returns the paths of the training and dev files.
fn write(folder: &Path, [name, extension]: [&str; 2], files: &Files) -> Result<[PathBuf; 2]> {
    let paths = ["train", "dev"].map(|part| folder.join(format!("{name}.{part}.{extension}")));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (path, text) in paths.iter().zip([&files.train, &files.dev]) {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(paths)
}
