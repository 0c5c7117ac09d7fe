//! A run's folder and its log.
//!
//! ```text
//! RUN/recipe.toml                    the recipe as it was resolved
//! RUN/metrics.jsonl                  one JSON object a line: [`Line`]
//! RUN/events.out.tfevents.*          the same figures for TensorBoard
//! RUN/checkpoints/step-00001000/     a Hugging Face folder with its training state
//! RUN/best                           a link to the checkpoint with the lowest held-out MLM loss
//! RUN/model/                         the final model; of an interrupted run, the model so far
//! RUN/.lock                          locked while a process trains here
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::tensorboard::EventFile;
use crate::{Recipe, TrainError};

/// One line of metrics.jsonl.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// A run starts or goes on.
    Start(StartLine),
    /// Figures of training steps.
    Train(TrainLine),
    /// Figures of the held-out shards.
    Eval(EvalLine),
    /// A message.
    Event(EventLine),
}

/// Where and how a run starts or goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartLine {
    /// Steps done before.
    pub step: u64,
    /// The device in words: kind, instruction set, threads.
    pub machine: String,
    /// `bf16` or `f32`.
    pub precision: String,
    /// Why this instruction set and this type, in words.
    #[serde(default)]
    pub reason: String,
    /// Threads that compute.
    pub threads: usize,
    /// The device's measured matrix peak at this precision, in GFLOP/s.
    pub peak_gflops: f64,
    /// Weights of the model.
    pub parameters: usize,
    /// Tokens of the training shards.
    pub corpus_tokens: u64,
    /// Version of this program.
    pub version: String,
}

/// Means over the steps since the line before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainLine {
    /// Steps done.
    pub step: u64,
    /// Real tokens seen by the run.
    pub tokens: u64,
    /// Seconds of the run, pauses between sessions left out.
    pub seconds: f64,
    /// Mean loss of a predicted token, in nats.
    pub mlm_loss: f64,
    /// Share of the predicted tokens that were right.
    pub mlm_accuracy: f64,
    /// Mean next-sentence loss of a sequence.
    pub nsp_loss: Option<f64>,
    /// Share of the sequences whose next-sentence label was right.
    pub nsp_accuracy: Option<f64>,
    /// What is minimised: the sum of the two losses.
    pub loss: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Real tokens per second of training, evaluation and saving left out.
    pub tokens_per_s: f64,
    /// Useful FLOP/s as a share of the matrix peak.
    pub share_of_peak: f64,
    /// Phase, from 0.
    pub phase: usize,
}

/// Figures of the held-out shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalLine {
    /// Steps done.
    pub step: u64,
    /// Seconds of the run.
    pub seconds: f64,
    /// Mean loss of a predicted token, in nats.
    pub mlm_loss: f64,
    /// e to the power of the loss.
    pub mlm_perplexity: f64,
    /// Share of the predicted tokens that were right.
    pub mlm_accuracy: f64,
    /// Mean next-sentence loss of a sequence.
    pub nsp_loss: Option<f64>,
    /// Share of the sequences whose next-sentence label was right.
    pub nsp_accuracy: Option<f64>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// Steps done.
    pub step: u64,
    /// What happened.
    pub message: String,
}

impl Line {
    /// Steps done when the line was written.
    pub fn step(&self) -> u64 {
        match self {
            Line::Start(l) => l.step,
            Line::Train(l) => l.step,
            Line::Eval(l) => l.step,
            Line::Event(l) => l.step,
        }
    }
}

/// The paths of a run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// Names a folder; touches nothing.
    pub fn new(root: &Path) -> RunFolder {
        RunFolder { root: root.to_owned() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// recipe.toml
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    /// metrics.jsonl
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// checkpoints/
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The link to the best checkpoint.
    pub fn best(&self) -> PathBuf {
        self.root.join("best")
    }

    /// The final model, or the model so far of a run that was interrupted.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// Makes the folder for a new run, or takes up an old one; returns whether a run was there.
    ///
    /// A resumed run keeps what must not change: the same weights and losses as an uninterrupted run are promised. How
    /// long it runs, where the shards lie, threads, logs, evaluation and checkpoints may change; what did is returned.
    ///
    /// # Errors
    /// [`TrainError::RunExists`], [`TrainError::NoRun`], [`TrainError::RecipeChanged`], or the system's.
    pub fn begin(&self, recipe: &Recipe, resume: bool) -> Result<Vec<String>, TrainError> {
        let changed = match resume {
            true => self.check_resumed(recipe)?,
            false => {
                self.create()?;
                Vec::new()
            }
        };
        self.write_recipe(recipe)?;
        Ok(changed)
    }

    /// Compares a recipe with that of the run that is to go on; returns the keys that changed.
    ///
    /// # Errors
    /// [`TrainError::NoRun`], [`TrainError::RecipeChanged`], or the system's.
    pub fn check_resumed(&self, recipe: &Recipe) -> Result<Vec<String>, TrainError> {
        let path = self.recipe();
        if !path.is_file() {
            return Err(TrainError::NoRun(self.root.clone()));
        }
        let began = Recipe::open_unchecked(&path)?;
        let may_change = |key: &String| {
            let section = key.split('.').next().unwrap_or_default();
            ["data", "threads", "instruction_set", "recompute", "steps", "minutes", "eval", "checkpoint", "log"]
                .contains(&section)
        };
        let (changed, forbidden): (Vec<String>, Vec<String>) =
            recipe.differences(&began).into_iter().partition(may_change);
        if forbidden.is_empty() { Ok(changed) } else { Err(TrainError::RecipeChanged { path, keys: forbidden }) }
    }

    /// Fails unless the folder can be made for a new run.
    ///
    /// # Errors
    /// [`TrainError::RunExists`], or the system's.
    pub fn check_new(&self) -> Result<(), TrainError> {
        if cloze_files::is_unused(&self.root)? { Ok(()) } else { Err(TrainError::RunExists(self.root.clone())) }
    }

    /// Makes the folder for a new run.
    ///
    /// # Errors
    /// [`TrainError::RunExists`] for a folder that holds anything, or the system's.
    pub fn create(&self) -> Result<(), TrainError> {
        self.check_new()?;
        fs::create_dir_all(self.checkpoints()).map_err(|e| TrainError::io("create", &self.root, e))
    }

    /// Keeps other processes out of an existing run's folder for as long as the file that is returned lives.
    ///
    /// # Errors
    /// [`TrainError::RunBusy`], or the system's.
    pub fn lock(&self) -> Result<File, TrainError> {
        let path = self.root.join(".lock");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| TrainError::io("write", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(TrainError::RunBusy(self.root.clone())),
            // Some network file systems have no locks: the user has been careful so far without.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
            Err(TryLockError::Error(e)) => Err(TrainError::io("lock", &path, e)),
        }
    }

    fn write_recipe(&self, recipe: &Recipe) -> Result<(), TrainError> {
        let text = format!(
            "# As resolved from the recipe and --set by cloze {}.\n{}",
            env!("CARGO_PKG_VERSION"),
            recipe.to_toml()
        );
        Ok(cloze_files::write(&self.recipe(), text.as_bytes())?)
    }
}

/// The log of a run: metrics.jsonl and an event file side by side.
#[derive(Debug)]
pub struct RunLog {
    file: File,
    path: PathBuf,
    events: EventFile,
}

impl RunLog {
    /// Opens the log to go on after `step`: lines of later steps, and a line cut short, are dropped; so is, if the interval
    /// between lines is not complete, the line of the steps since the last one that was written when the run stopped.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn open(folder: &RunFolder, step: u64, incomplete: bool) -> Result<RunLog, TrainError> {
        let path = folder.metrics();
        if path.exists() {
            let kept = lines_up_to(&path, step, incomplete)?;
            cloze_files::write(&path, &kept)?;
        }
        let file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(|e| TrainError::io("open", &path, e))?;
        Ok(RunLog { file, path, events: EventFile::create(folder.root(), step + 1)? })
    }

    /// Adds a line: a JSON object with the key `step`.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn append(&mut self, line: &impl Serialize) -> Result<(), TrainError> {
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|e| TrainError::io("write", &self.path, e))
    }

    /// Adds figures of a step for TensorBoard.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn scalars(&mut self, step: u64, figures: &[(&str, f64)]) -> Result<(), TrainError> {
        self.events.scalars(step, figures)
    }

    /// Adds a line of pre-training, and its figures for TensorBoard.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn write(&mut self, line: &Line) -> Result<(), TrainError> {
        self.append(line)?;
        match line {
            Line::Train(l) => self.events.scalars(
                l.step,
                &[
                    ("train/loss", l.loss),
                    ("train/mlm_loss", l.mlm_loss),
                    ("train/mlm_accuracy", l.mlm_accuracy),
                    ("train/nsp_loss", l.nsp_loss.unwrap_or(f64::NAN)),
                    ("train/nsp_accuracy", l.nsp_accuracy.unwrap_or(f64::NAN)),
                    ("train/learning_rate", l.lr),
                    ("train/gradient_norm", l.grad_norm),
                    ("speed/tokens_per_s", l.tokens_per_s),
                    ("speed/share_of_peak", l.share_of_peak),
                ],
            ),
            Line::Eval(l) => self.events.scalars(
                l.step,
                &[
                    ("eval/mlm_loss", l.mlm_loss),
                    ("eval/mlm_perplexity", l.mlm_perplexity),
                    ("eval/mlm_accuracy", l.mlm_accuracy),
                    ("eval/nsp_loss", l.nsp_loss.unwrap_or(f64::NAN)),
                    ("eval/nsp_accuracy", l.nsp_accuracy.unwrap_or(f64::NAN)),
                ],
            ),
            Line::Start(_) | Line::Event(_) => Ok(()),
        }
    }

    /// Makes sure that what was written survives a power cut; before a checkpoint is named.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(|e| TrainError::io("write", &self.path, e))
    }
}

/// The bytes of a log's lines up to a step; without the step's own figures, if its interval is not complete.
fn lines_up_to(path: &Path, step: u64, incomplete: bool) -> Result<Vec<u8>, TrainError> {
    let failed = |e| TrainError::io("read", path, e);
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut kept, mut line) = (Vec::new(), Vec::new());
    let is_kept = |line: &serde_json::Value| {
        let of = line.get("step").and_then(serde_json::Value::as_u64);
        let is_rest = incomplete && of == Some(step) && line.get("kind").is_some_and(|kind| kind == "train");
        of.is_some_and(|of| of <= step) && !is_rest
    };
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if n == 0 {
            return Ok(kept);
        }
        let parsed: Option<serde_json::Value> =
            line.ends_with(b"\n").then(|| serde_json::from_slice(&line).ok()).flatten();
        if parsed.as_ref().is_some_and(is_kept) {
            kept.extend_from_slice(&line);
        }
    }
}

/// Reads a run's metrics.jsonl, for reports. A last line cut short is left out.
///
/// # Errors
/// The system's, with the path; [`TrainError::Log`] for a line that is none of [`Line`].
pub fn read_metrics(path: &Path) -> Result<Vec<Line>, TrainError> {
    let text = fs::read_to_string(path).map_err(|e| TrainError::io("read", path, e))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| TrainError::Log {
            path: path.to_owned(),
            line: i + 1,
            reason: e.to_string(),
        })
    };
    whole.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(step: u64) -> Line {
        Line::Train(TrainLine {
            step,
            mlm_loss: 1.0 / 3.0,
            nsp_loss: (step > 1).then_some(0.5),
            ..TrainLine::default()
        })
    }

    #[test]
    fn lines_have_the_documented_form() {
        let text = serde_json::to_string(&train(1)).unwrap();
        assert!(text.starts_with(r#"{"kind":"train","step":1,"tokens":0,"seconds":0.0,"mlm_loss":0.333"#), "{text}");
        assert!(text.contains(r#""nsp_loss":null"#));
        let event = Line::Event(EventLine { step: 3, message: "m".into() });
        assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"kind":"event","step":3,"message":"m"}"#);
    }

    #[test]
    fn a_resumed_log_drops_later_and_cut_lines() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let mut log = RunLog::open(&folder, 0, false).unwrap();
        for step in 1..=4 {
            log.write(&train(step)).unwrap();
        }
        log.file.write_all(b"{\"kind\":\"tra").unwrap();
        drop(log);
        assert_eq!(read_metrics(&folder.metrics()).unwrap().len(), 4);
        let mut log = RunLog::open(&folder, 2, false).unwrap();
        log.write(&train(3)).unwrap();
        let lines = read_metrics(&folder.metrics()).unwrap();
        assert_eq!(lines, [train(1), train(2), train(3)]);
        // The line of an incomplete interval is dropped when the run is resumed; other lines of that step stay.
        let event = Line::Event(EventLine { step: 3, message: "interrupted".into() });
        log.write(&event).unwrap();
        drop(log);
        RunLog::open(&folder, 3, true).unwrap();
        assert_eq!(read_metrics(&folder.metrics()).unwrap(), [train(1), train(2), event]);
    }

    #[test]
    fn two_processes_cannot_train_in_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let held = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(TrainError::RunBusy(path)) if path == dir.path()));
        drop(held);
        folder.lock().unwrap();
    }

    #[test]
    fn a_folder_in_use_is_refused_and_a_changed_recipe_too() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(&dir.path().join("run"));
        let mut recipe = Recipe::default();
        let e = folder.begin(&recipe, true).unwrap_err();
        assert!(matches!(e, TrainError::NoRun(_)), "{e}");
        folder.begin(&recipe, false).unwrap();
        let e = folder.begin(&recipe, false).unwrap_err();
        assert!(e.to_string().contains("--resume"), "{e}");
        recipe.steps = Some(9);
        assert_eq!(folder.begin(&recipe, true).unwrap(), ["steps"]);
        recipe.optimizer.lr = 3.0;
        let e = folder.begin(&recipe, true).unwrap_err();
        assert!(e.to_string().contains("optimizer.lr"), "{e}");
    }
}
