//! A fine-tuned model at work: rows in, predictions and scores out, whatever its kind of task.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_engine::{DType, Device};
use cloze_model::TaskHead;
use serde_json::Value;

use crate::TaskError;
use crate::any_task::{AnyPredictions, AnyRows, AnyTask};
use crate::datasets::LabelsNeeded;
use crate::datasets::format::{DataFile, Format, Found};
use crate::datasets::table::{Row, Table};
use crate::inference::pretrained::Pretrained;
use crate::kinds::{self, Kind};
use crate::reading::{Given, Notes, Reading};
use crate::task::Scores;
use crate::task_settings::TaskSettings;

/// A fine-tuned model with its task, as it was trained: what `cloze predict` predicts.
pub struct Predictor {
    model: Arc<Pretrained>,
    kind: &'static Kind,
    task: Box<dyn AnyTask>,
    reading: Reading,
}

/// Predictions of rows that say what is right, and their scores.
#[non_exhaustive]
pub struct Evaluation<'a> {
    /// One of each row.
    pub predictions: Box<dyn AnyPredictions + 'a>,
    /// Their scores.
    pub scores: Scores,
    /// The mean loss, of rows whose target is known.
    pub loss: f64,
}

impl Predictor {
    /// Opens a fine-tuned model's folder.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`] and of [`new`](Self::new).
    pub fn open(dir: &Path, device: Device, precision: DType) -> Result<Predictor, TaskError> {
        Predictor::new(Arc::new(Pretrained::open(dir, device, precision)?), None, Given::default())
    }

    /// The task of a fine-tuned model: of this kind, else of the model's own. What is given comes before what the model remembers.
    ///
    /// # Errors
    /// A model that was not fine-tuned or is of another kind; settings that do not fit; settings in its folder that cannot be read.
    pub fn new(model: Arc<Pretrained>, kind: Option<&'static Kind>, given: Given) -> Result<Predictor, TaskError> {
        let (config, dir, head) = (model.model.config(), model.dir(), head_of(&model)?);
        let (kind, stored) = kind_of(&model, kind)?;
        let reading = Reading::new(&kind.description, given, stored)?;
        let task = kind.open(&reading, config, head, dir)?;
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

    /// How rows are read.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The prediction of each row, in their order. A row is a string (a text, or two texts with a tab between them) or an
    /// object, as a line of a file that `cloze predict` reads. A row that cannot be predicted does not keep the others from it.
    pub fn predict(&self, rows: &[Value]) -> Vec<Result<Value, TaskError>> {
        self.task.predict(&self.reading, rows, &self.model)
    }

    /// The rows of some files.
    ///
    /// # Errors
    /// Files that cannot be read; where what is right is needed, labels that the task does not know.
    pub fn read(
        &self,
        paths: &[PathBuf],
        need: LabelsNeeded,
        notes: &mut Notes,
    ) -> Result<Box<dyn AnyRows>, TaskError> {
        self.task.read(&self.reading, paths, need, &self.model.tokenizer, notes)
    }

    /// How a file of rows to predict is written.
    ///
    /// # Errors
    /// A file that cannot be read; a format that this kind of task cannot read.
    pub fn format_of(&self, path: &Path) -> Result<Found, TaskError> {
        self.reading.format_of(path, &self.model.model.config().labels().unwrap_or_default())
    }

    /// The texts of a table as rows to [`predict`](Self::predict): for kinds of tasks whose files are no tables.
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

    /// The prediction of each row of a range of a file's, in their order.
    pub fn predict_rows(&self, rows: &dyn AnyRows, range: Range<usize>) -> Vec<Result<Value, TaskError>> {
        rows.predict(range, &self.model)
    }

    /// The predictions of rows that say what is right, and their scores. `progress` receives the share that is done.
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

/// The predictions of a model for rows that say what is right, and their scores. `progress` receives the share that is done.
///
/// # Errors
/// That of the first row that cannot be predicted.
pub fn evaluate<'a>(
    model: &Pretrained,
    rows: &'a dyn AnyRows,
    progress: &mut dyn FnMut(f64),
) -> Result<Evaluation<'a>, TaskError> {
    let encoded = rows.encode(&model.tokenizer, model.device.threads())?;
    let examples = encoded.examples();
    model.check(examples.iter().copied())?;
    let (logits, loss) = model.logits(&examples, progress);
    let predictions = encoded.predict(&logits)?;
    Ok(Evaluation { scores: predictions.scores(), predictions, loss: loss.mean() })
}

/// The head of a fine-tuned model.
fn head_of(model: &Pretrained) -> Result<TaskHead, TaskError> {
    model.model.heads.task.ok_or_else(|| TaskError::Folder {
        path: model.dir().to_owned(),
        problem: format!(
            "a {} has no task's head: expected a fine-tuned model; make one with `cloze finetune`",
            model.model.class_name()
        ),
    })
}

/// The kind of task of a fine-tuned model: the named one, else the one that the model names, else the one that accepts its head and
/// configuration; and what the model remembers. A named kind that does not accept the model is refused when the task is opened.
///
/// # Errors
/// A model that was not fine-tuned, or is of no kind; settings in its folder that cannot be read.
pub fn kind_of(
    model: &Pretrained,
    named: Option<&'static Kind>,
) -> Result<(&'static Kind, Option<TaskSettings>), TaskError> {
    let (config, dir, head) = (model.model.config(), model.dir(), head_of(model)?);
    let stored = TaskSettings::of_model(config, dir)?;
    let own = stored.as_ref().and_then(|stored| kinds::named(stored.kind.as_deref()?));
    let kind = match named.or(own) {
        Some(kind) => kind,
        None => kinds::of_model(config, head, dir)?,
    };
    Ok((kind, stored))
}
