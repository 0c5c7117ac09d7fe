//! Type-erased tasks, for code that learns the kind of task at run time: JSON or files in, JSON and scores out. Code
//! that is shared by all kinds (the fine-tuning loop, the commands, a server) uses these traits; each kind implements
//! [`Task`].

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_engine::ops::LossSum;
use cloze_engine::{DType, Pass};
use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde_json::Value;

use crate::datasets::LabelsNeeded;
use crate::example::{Example, Target};
use crate::inference::executor::{Executor, Output, run_all};
use crate::inference::pretrained::Pretrained;
use crate::input::Input;
use crate::long::{LongRows, TextWindows};
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, HeadInit, Scores, Task};
use crate::task_settings::TaskSettings;
use crate::{TaskError, parallel};

/// A task of any kind.
pub trait AnyTask: Send + Sync {
    /// The network's head.
    fn head(&self) -> TaskHead;

    /// Stores the names of the labels in the model's configuration.
    fn describe(&self, config: &mut Config);

    /// How the head is initialized if the model to fine-tune has a head of the same class: see [`Task::head_init`].
    fn head_init(&self, start: &Config, has_preset: bool) -> HeadInit;

    /// The settings to store in a model that is fine-tuned for this task.
    fn settings(&self, reading: &Reading) -> TaskSettings;

    /// The rows of files. With [`LabelsNeeded::Required`], rows that cannot be used are skipped and counted if
    /// `reading` says so. With [`LabelsNeeded::Optional`], they keep their positions and their prediction is an error.
    ///
    /// # Errors
    /// Files that cannot be read; with [`LabelsNeeded::Required`], the first row that cannot be used, unless such rows
    /// are skipped.
    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<Box<dyn AnyRows>, TaskError>;

    /// The prediction for each input (a string or an object), in order. An input that cannot be predicted does not
    /// affect the others. `executor` runs the forward passes of `model`.
    fn predict(
        &self,
        reading: &Reading,
        inputs: &[Value],
        model: &Pretrained,
        executor: &dyn Executor,
    ) -> Vec<Result<Value, TaskError>>;
}

/// Rows of a task, together with the task.
pub trait AnyRows: Send + Sync {
    /// The number of rows.
    fn len(&self) -> usize;

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps only the first `most` rows.
    fn truncate(&mut self, most: usize);

    /// A summary of the gold labels for users: see [`Task::summary`].
    fn summary(&self) -> Vec<String>;

    /// The prediction for each row of a range, in order. A row that cannot be predicted does not affect the others.
    fn predict(&self, range: Range<usize>, model: &Pretrained) -> Vec<Result<Value, TaskError>>;

    /// Encodes all rows on `threads` threads. The result does not depend on the number of threads.
    ///
    /// # Errors
    /// The error of the first row that cannot be encoded.
    fn encode(&self, tokenizer: &Tokenizer, threads: usize) -> Result<Box<dyn AnyEncoded<'_> + '_>, TaskError>;
}

/// Encoded rows of a task.
pub trait AnyEncoded<'a>: Send + Sync {
    /// The examples of all rows.
    fn examples(&self) -> Vec<&Example>;

    /// The examples of all rows, by value.
    fn into_examples(self: Box<Self>) -> Vec<Example>;

    /// The number of rows that were truncated.
    fn cut_rows(&self) -> usize {
        self.long_rows().cut
    }

    /// The number of long rows that were truncated or read in windows.
    fn long_rows(&self) -> LongRows;

    /// The loss of the rows that are read in windows, from the logits of all examples. The windows themselves have no target.
    fn loss_of_windows(&self, model: &Pretrained, logits: &[Vec<f32>]) -> LossSum;

    /// The predictions, computed from the logits of all examples, which are in the order of
    /// [`examples`](Self::examples).
    ///
    /// # Errors
    /// [`TaskError::Logits`] for logits that are not finite.
    fn predict(&self, logits: &[Vec<f32>]) -> Result<Box<dyn AnyPredictions + 'a>, TaskError>;
}

/// Predictions of rows of a task.
pub trait AnyPredictions: Send + Sync {
    /// Each prediction as a JSON object, with what identifies its row (the text or id; for rows of files also the file
    /// and the row's number) and the gold label.
    ///
    /// # Errors
    /// A prediction that JSON cannot represent.
    fn to_json(&self) -> Result<Vec<Value>, TaskError>;

    /// The scores of all rows that have a gold label.
    fn scores(&self) -> Scores;

    /// The scores of the rows with these indices. An index may occur several times, as in a bootstrap resample.
    fn scores_of(&self, indices: &[usize]) -> Scores;
}

impl<T: Task> AnyTask for T {
    fn head(&self) -> TaskHead {
        Task::head(self)
    }

    fn describe(&self, config: &mut Config) {
        Task::describe(self, config);
    }

    fn head_init(&self, start: &Config, has_preset: bool) -> HeadInit {
        Task::head_init(self, start, has_preset)
    }

    fn settings(&self, reading: &Reading) -> TaskSettings {
        TaskSettings { own: self.own_settings(reading), ..reading.settings() }
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<Box<dyn AnyRows>, TaskError> {
        let mut placed: FileRows<(T::Row, Place)> = Vec::new();
        for path in paths {
            let file: Arc<Path> = path.as_path().into();
            let found = Task::read(self, reading, std::slice::from_ref(path), need, tokenizer, notes)?;
            let place = |(number, row): (usize, Result<T::Row, TaskError>)| {
                row.map(|row| (row, Place { file: Arc::clone(&file), number }))
            };
            placed.extend((1..).zip(found).map(place));
        }
        Ok(Box::new(match need {
            LabelsNeeded::Required => {
                let (rows, places): (Vec<T::Row>, Vec<Place>) = reading.usable(placed, notes)?.into_iter().unzip();
                Rows { places, ..Rows::new(self.clone(), rows) }
            }
            LabelsNeeded::Optional => {
                Rows::from_files(self.clone(), placed.into_iter().map(|row| row.map(|(row, _)| row)).collect())
            }
        }))
    }

    fn predict(
        &self,
        reading: &Reading,
        inputs: &[Value],
        model: &Pretrained,
        executor: &dyn Executor,
    ) -> Vec<Result<Value, TaskError>> {
        let row = |value: &Value| self.row(reading, Input::from_json(value)?, &model.tokenizer);
        predict_each(self, inputs.iter().map(row).collect(), model, executor)
    }
}

/// The file and the number of a row.
#[derive(Debug, Clone)]
struct Place {
    file: Arc<Path>,
    /// The row's number in the file, from 1.
    number: usize,
}

/// Rows of a task, together with the task.
#[derive(Debug, Clone)]
pub struct Rows<T: Task> {
    task: T,
    /// Errors are shared, because they cannot be cloned and each prediction of the row returns one.
    rows: Vec<Result<T::Row, Arc<TaskError>>>,
    /// The locations of the rows, if they come from files.
    places: Vec<Place>,
}

impl<T: Task> Rows<T> {
    /// Rows in memory, with their task.
    pub fn new(task: T, rows: Vec<T::Row>) -> Rows<T> {
        Rows { task, rows: rows.into_iter().map(Ok).collect(), places: Vec::new() }
    }

    /// Rows of files. A row that cannot be used is an error in its position.
    pub fn from_files(task: T, rows: FileRows<T::Row>) -> Rows<T> {
        let rows = rows.into_iter().map(|row| row.map_err(Arc::new)).collect();
        Rows { task, rows, places: Vec::new() }
    }
}

/// The row, or a copy of its error.
fn usable<R>(row: &Result<R, Arc<TaskError>>) -> Result<&R, TaskError> {
    row.as_ref().map_err(|error| TaskError::Row(Arc::clone(error)))
}

impl<T: Task> AnyRows for Rows<T> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn truncate(&mut self, most: usize) {
        self.rows.truncate(most);
    }

    fn summary(&self) -> Vec<String> {
        self.task.summary(&self.rows.iter().flatten().collect::<Vec<_>>())
    }

    fn predict(&self, range: Range<usize>, model: &Pretrained) -> Vec<Result<Value, TaskError>> {
        predict_each(&self.task, self.rows[range].iter().map(usable).collect(), model, model)
    }

    fn encode(&self, tokenizer: &Tokenizer, threads: usize) -> Result<Box<dyn AnyEncoded<'_> + '_>, TaskError> {
        let Rows { task, rows, places } = self;
        let rows: Vec<&T::Row> = rows.iter().map(usable).collect::<Result<_, _>>()?;
        let encoded = parallel::map(&rows, threads, |row| task.encode(row, tokenizer));
        let encoded = encoded.into_iter().collect::<Result<_, _>>()?;
        Ok(Box::new(EncodedRows { task, rows, places, encoded }))
    }
}

/// The prediction for each row, or the row's error.
fn predict_each<T: Task, R: std::borrow::Borrow<T::Row> + Sync>(
    task: &T,
    rows: Vec<Result<R, TaskError>>,
    model: &Pretrained,
    executor: &dyn Executor,
) -> Vec<Result<Value, TaskError>> {
    let mut found: Vec<Result<Value, TaskError>> = Vec::with_capacity(rows.len());
    let mut good: Vec<(usize, R)> = Vec::with_capacity(rows.len());
    for (place, row) in rows.into_iter().enumerate() {
        found.push(row.map(|row| {
            good.push((place, row));
            Value::Null
        }));
    }
    let encode = |(_, row): &(usize, R)| {
        let encoded = task.encode(row.borrow(), &model.tokenizer)?;
        model.check(&encoded.examples)?;
        Ok(encoded)
    };
    let encoded: Vec<Result<Encoded<T::Aux>, TaskError>> = parallel::map(&good, model.device.threads(), encode);
    let examples: Vec<&Example> = encoded.iter().flatten().flat_map(|row| &row.examples).collect();
    let logits = match run_all(executor, &Output::Task, &examples) {
        Ok(logits) => logits,
        Err(error) => {
            let error = Arc::new(error);
            for ((place, _), encoded) in good.iter().zip(encoded) {
                found[*place] = encoded.and(Err(TaskError::Row(Arc::clone(&error))));
            }
            return found;
        }
    };
    encoded.iter().flatten().for_each(|row| model.count_row(row.cut > 0, row.windows.as_ref()));
    let mut rest = &logits[..];
    for ((place, row), encoded) in good.iter().zip(encoded) {
        found[*place] = encoded.and_then(|encoded| {
            let (own, others) = rest.split_at(encoded.examples.len());
            rest = others;
            let mut found = to_json(&predict_one(task, row.borrow(), &encoded, own)?)?;
            insert_windows(&mut found, encoded.windows.as_ref().map(TextWindows::count));
            Ok(found)
        });
    }
    found
}

/// The prediction for a row, from the logits of its examples.
fn predict_one<T: Task>(
    task: &T,
    row: &T::Row,
    encoded: &Encoded<T::Aux>,
    logits: &[Vec<f32>],
) -> Result<T::Prediction, TaskError> {
    match &encoded.windows {
        Some(windows) => task.predict(row, encoded, &[windows.pooled(logits)]),
        None => task.predict(row, encoded, logits),
    }
}

/// Adds the number of windows to the prediction of a row that was read in windows.
fn insert_windows(found: &mut Value, windows: Option<usize>) {
    if let (Value::Object(found), Some(windows)) = (found, windows) {
        found.insert("windows".to_owned(), windows.into());
    }
}

fn to_json(prediction: &impl serde::Serialize) -> Result<Value, TaskError> {
    serde_json::to_value(prediction).map_err(|e| TaskError::input("prediction", e.to_string()))
}

struct EncodedRows<'a, T: Task> {
    task: &'a T,
    rows: Vec<&'a T::Row>,
    places: &'a [Place],
    encoded: Vec<Encoded<T::Aux>>,
}

impl<'a, T: Task> AnyEncoded<'a> for EncodedRows<'a, T> {
    fn examples(&self) -> Vec<&Example> {
        self.encoded.iter().flat_map(|row| &row.examples).collect()
    }

    fn into_examples(self: Box<Self>) -> Vec<Example> {
        self.encoded.into_iter().flat_map(|row| row.examples).collect()
    }

    fn long_rows(&self) -> LongRows {
        let mut rows = LongRows::default();
        self.encoded.iter().for_each(|row| rows.add(row.cut > 0, row.windows.as_ref()));
        rows
    }

    fn loss_of_windows(&self, model: &Pretrained, logits: &[Vec<f32>]) -> LossSum {
        let (mut pooled, mut target, mut texts): (Vec<f32>, Option<Target>, usize) = Default::default();
        let mut rest = logits;
        for row in &self.encoded {
            let (own, others) = rest.split_at(row.examples.len());
            rest = others;
            if let Some(windows) = &row.windows {
                pooled.append(&mut windows.pooled(own));
                match &mut target {
                    Some(target) => target.append(windows.target()),
                    None => target = Some(windows.target().clone()),
                }
                texts += 1;
            }
        }
        let Some(target) = target.filter(|target| target.known_count() > 0) else { return LossSum::default() };
        let mut pass = Pass::inference(&model.device, &model.model.params, DType::F32);
        let pooled = model.device.tensor_f32(&pooled, &[texts, pooled.len() / texts]);
        let pooled = pass.input(pooled);
        target.loss(&mut pass, &pooled, &[], None, 1.0)
    }

    fn predict(&self, logits: &[Vec<f32>]) -> Result<Box<dyn AnyPredictions + 'a>, TaskError> {
        let EncodedRows { task, rows, places, encoded } = self;
        let mut rest = logits;
        let mut found = Vec::with_capacity(rows.len());
        for (row, encoded) in rows.iter().copied().zip(encoded) {
            let (own, others) = rest.split_at(encoded.examples.len());
            rest = others;
            found.push(predict_one(*task, row, encoded, own)?);
        }
        let windows = encoded.iter().map(|row| row.windows.as_ref().map(TextWindows::count)).collect();
        Ok(Box::new(Predictions { task: *task, rows: rows.clone(), places, windows, found }))
    }
}

struct Predictions<'a, T: Task> {
    task: &'a T,
    rows: Vec<&'a T::Row>,
    places: &'a [Place],
    /// The number of windows of each row that was read in windows.
    windows: Vec<Option<usize>>,
    found: Vec<T::Prediction>,
}

impl<T: Task> AnyPredictions for Predictions<'_, T> {
    fn to_json(&self) -> Result<Vec<Value>, TaskError> {
        let line = |(at, (row, found)): (usize, (&&T::Row, &T::Prediction))| {
            let mut line = self.task.row_json(row);
            if let Some(Place { file, number }) = self.places.get(at) {
                line.insert("file".to_owned(), file.display().to_string().into());
                line.insert("row".to_owned(), (*number).into());
            }
            let mut found = to_json(found)?;
            insert_windows(&mut found, self.windows[at]);
            if let Value::Object(found) = found {
                line.extend(found);
            }
            Ok(Value::Object(line))
        };
        self.rows.iter().zip(&self.found).enumerate().map(line).collect()
    }

    fn scores(&self) -> Scores {
        self.task.scores(&self.rows, &self.found.iter().collect::<Vec<_>>())
    }

    fn scores_of(&self, indices: &[usize]) -> Scores {
        let rows: Vec<&T::Row> = indices.iter().map(|&i| self.rows[i]).collect();
        let found: Vec<&T::Prediction> = indices.iter().map(|&i| &self.found[i]).collect();
        self.task.scores(&rows, &found)
    }
}
