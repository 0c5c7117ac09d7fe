//! Prediction and evaluation with a fine-tuned model of any kind of task.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_engine::Device;
use cloze_model::TaskHead;
use serde_json::Value;

use crate::TaskError;
use crate::any_task::{AnyPredictions, AnyRows, AnyTask};
use crate::datasets::LabelsNeeded;
use crate::datasets::format::{DataFile, DetectedFormat, Format};
use crate::datasets::table::{Row, Table};
use crate::inference::executor::Executor;
use crate::inference::precision::Precision;
use crate::inference::pretrained::Pretrained;
use crate::kinds::{self, Kind};
use crate::long::LongRows;
use crate::reading::{Notes, Reading, TaskOptions};
use crate::rerank;
use crate::task::Scores;
use crate::task_settings::TaskSettings;

/// A fine-tuned model with its task.
pub struct Predictor {
    model: Arc<Pretrained>,
    kind: &'static Kind,
    task: Box<dyn AnyTask>,
    reading: Reading,
}

/// The predictions for rows with gold labels, and their scores.
#[non_exhaustive]
pub struct Evaluation<'a> {
    /// The predictions, one for each row.
    pub predictions: Box<dyn AnyPredictions + 'a>,
    /// The scores.
    pub scores: Scores,
    /// The mean loss over the rows whose target is known.
    pub loss: f64,
    /// The number of long rows that were truncated or read in windows.
    pub long: LongRows,
}

impl Predictor {
    /// Opens a fine-tuned model's folder.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`] and of [`new`](Self::new).
    pub fn open(dir: &Path, device: Device, precision: impl Into<Precision>) -> Result<Predictor, TaskError> {
        Predictor::new(Arc::new(Pretrained::open(dir, device, precision)?), None, TaskOptions::default())
    }

    /// The task of a fine-tuned model: of this kind, or of the model's own kind. The caller's options take precedence
    /// over the settings stored in the model.
    ///
    /// # Errors
    /// A model that is not fine-tuned or has a different kind; settings that do not fit the model; stored settings that
    /// are not valid.
    pub fn new(
        model: Arc<Pretrained>,
        kind: Option<&'static Kind>,
        given: TaskOptions,
    ) -> Result<Predictor, TaskError> {
        let (config, dir, head) = (model.model.config(), model.dir(), task_head(&model)?);
        let (kind, stored) = kind_of(&model, kind)?;
        let reading = Reading::new(&kind.description, given, stored)?;
        let config = if *kind == kinds::rerank::KIND { rerank::complete(config, dir)? } else { Cow::Borrowed(config) };
        let task = kind.open(&reading, &config, head, dir)?;
        Ok(Predictor { kind, task, reading, model: Arc::clone(&model) })
    }

    /// The kind of task.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The model.
    pub fn model(&self) -> &Arc<Pretrained> {
        &self.model
    }

    /// The settings of how rows are read.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The prediction for each row, in order. A row is a string (a text, or two texts with a tab between them) or an
    /// object with the keys that a JSON row of a file has. A row that cannot be predicted does not affect the others.
    pub fn predict(&self, rows: &[Value]) -> Vec<Result<Value, TaskError>> {
        self.predict_on(&*self.model, rows)
    }

    /// As [`predict`](Self::predict); `executor` runs the model's forward passes.
    pub fn predict_on(&self, executor: &dyn Executor, rows: &[Value]) -> Vec<Result<Value, TaskError>> {
        self.task.predict(&self.reading, rows, &self.model, executor)
    }

    /// The rows of files.
    ///
    /// # Errors
    /// Files that cannot be read; with [`LabelsNeeded::Required`], rows with unknown labels.
    pub fn read(
        &self,
        paths: &[PathBuf],
        need: LabelsNeeded,
        notes: &mut Notes,
    ) -> Result<Box<dyn AnyRows>, TaskError> {
        self.task.read(&self.reading, paths, need, &self.model.tokenizer, notes)
    }

    /// The format of a file of rows to predict.
    ///
    /// # Errors
    /// A file that cannot be read; a format that this kind of task cannot read.
    pub fn format_of(&self, path: &Path) -> Result<DetectedFormat, TaskError> {
        self.reading.format_of(path, &self.model.model.config().labels().unwrap_or_default())
    }

    /// The texts of a table as rows for [`predict`](Self::predict), for kinds of tasks whose files are not tables.
    ///
    /// # Errors
    /// Those of [`Table::open`].
    pub fn texts_of_table(&self, path: &Path, format: Format) -> Result<Vec<Result<Value, TaskError>>, TaskError> {
        let (column, _) = self.reading.text_column(path);
        let table = Table::open(DataFile { path, format: Some(format) }, std::slice::from_ref(&column));
        let table = table.map_err(|error| self.reading.explain(error))?;
        let text = |row: Result<Row, TaskError>| Ok(Value::String(row?.cells.into_iter().next().unwrap_or_default()));
        Ok(table.into_rows().into_iter().map(text).collect())
    }

    /// The prediction for each of a range of rows, in order.
    pub fn predict_rows(&self, rows: &dyn AnyRows, range: Range<usize>) -> Vec<Result<Value, TaskError>> {
        rows.predict(range, &self.model)
    }

    /// The predictions for rows with gold labels, and their scores. `progress` receives the completed fraction.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn evaluate<'a>(
        &self,
        rows: &'a dyn AnyRows,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Evaluation<'a>, TaskError> {
        evaluate(&self.model, rows, progress)
    }
}

/// The predictions of a model for rows with gold labels, and their scores. `progress` receives the completed fraction.
///
/// # Errors
/// The error of the first row that cannot be predicted.
pub fn evaluate<'a>(
    model: &Pretrained,
    rows: &'a dyn AnyRows,
    progress: &mut dyn FnMut(f64),
) -> Result<Evaluation<'a>, TaskError> {
    let encoded = rows.encode(&model.tokenizer, model.device.threads())?;
    let examples = encoded.examples();
    model.check(examples.iter().copied())?;
    let (logits, mut loss) = model.logits(&examples, progress);
    loss += encoded.loss_of_windows(model, &logits);
    let predictions = encoded.predict(&logits)?;
    Ok(Evaluation { scores: predictions.scores(), predictions, loss: loss.mean(), long: encoded.long_rows() })
}

/// The head of a fine-tuned model.
fn task_head(model: &Pretrained) -> Result<TaskHead, TaskError> {
    model.model.heads.task.ok_or_else(|| TaskError::Folder {
        path: model.dir().to_owned(),
        problem: format!(
            "expected a fine-tuned model, found a {} without a task head; fine-tune it first",
            model.model.class_name()
        ),
    })
}

/// The kind of task of a fine-tuned model: `named`, else the kind stored in the model, else the kind that accepts its
/// head and configuration. Also returns the settings stored in the model. Whether `named` accepts the model is checked
/// when the task is opened.
///
/// # Errors
/// A model that is not fine-tuned or that no kind accepts; stored settings that are not valid.
pub fn kind_of(
    model: &Pretrained,
    named: Option<&'static Kind>,
) -> Result<(&'static Kind, Option<TaskSettings>), TaskError> {
    let (config, dir, head) = (model.model.config(), model.dir(), task_head(model)?);
    let stored = TaskSettings::from_config(config, dir)?;
    let own = stored.as_ref().and_then(|stored| kinds::named(stored.kind.as_deref()?));
    let kind = match named.or(own) {
        Some(kind) => kind,
        None => kinds::of_model(config, head, dir)?,
    };
    Ok((kind, stored))
}
