//! Tasks whose kind is known at run time only: JSON or files in, JSON and scores out. Everything that is written once for all kinds
//! (the fine-tuning loop, the commands, a server) uses these interfaces; [`Task`] is what one kind implements.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde_json::Value;

use crate::datasets::LabelsNeeded;
use crate::example::Example;
use crate::inference::pretrained::Pretrained;
use crate::input::Input;
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, HeadStart, Scores, Task};
use crate::task_settings::TaskSettings;
use crate::{TaskError, parallel};

/// A task of any kind.
pub trait AnyTask: Send + Sync {
    /// The network's head.
    fn head(&self) -> TaskHead;

    /// Writes what readers of the model need to know into its configuration: the labels' names.
    fn describe(&self, config: &mut Config);

    /// How the head starts when the model to start from has a head of the same class: see [`Task::head_start`].
    fn head_start(&self, start: &Config, is_known: bool) -> HeadStart;

    /// What a model fine-tuned for this task is to remember.
    fn settings(&self, reading: &Reading) -> TaskSettings;

    /// The rows of some files. Where what is right is needed, rows that cannot be used are left out and counted if `reading` says so.
    /// Where it is not, they keep their places and have an error for a prediction.
    ///
    /// # Errors
    /// Files that cannot be read; where what is right is needed, that of the first row that cannot be used, unless it is left out.
    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<Box<dyn AnyRows>, TaskError>;

    /// The prediction of each input, strings or objects, in their order. An input that cannot be predicted does not keep the others
    /// from it.
    fn predict(&self, reading: &Reading, inputs: &[Value], model: &Pretrained) -> Vec<Result<Value, TaskError>>;
}

/// Rows of a task, which they hold.
pub trait AnyRows: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all rows but the first.
    fn truncate(&mut self, most: usize);

    /// What the rows say is right, for people: see [`Task::summary`].
    fn summary(&self) -> Vec<String>;

    /// The prediction of each row of a range, in their order. A row that cannot be predicted does not keep the others from it.
    fn predict(&self, range: Range<usize>, model: &Pretrained) -> Vec<Result<Value, TaskError>>;

    /// Encodes all rows; the outcome does not depend on the number of threads.
    ///
    /// # Errors
    /// That of the first row that has one.
    fn encode(&self, tokenizer: &Tokenizer, threads: usize) -> Result<Box<dyn AnyEncoded<'_> + '_>, TaskError>;
}

/// Rows of a task as the network sees them.
pub trait AnyEncoded<'a>: Send + Sync {
    /// The examples of all rows.
    fn examples(&self) -> Vec<&Example>;

    /// The examples of all rows, to keep.
    fn into_examples(self: Box<Self>) -> Vec<Example>;

    /// Rows some of whose tokens did not fit.
    fn cut_rows(&self) -> usize;

    /// What the logits of all examples say, in their order.
    ///
    /// # Errors
    /// Logits that are not numbers.
    fn predict(&self, logits: &[Vec<f32>]) -> Result<Box<dyn AnyPredictions + 'a>, TaskError>;
}

/// Predictions of rows of a task.
pub trait AnyPredictions: Send + Sync {
    /// Each as a JSON object, with what tells its row from others (its text or id; of files also the file and the row's number) and
    /// what is right.
    ///
    /// # Errors
    /// A prediction that JSON cannot hold.
    fn to_json(&self) -> Result<Vec<Value>, TaskError>;

    /// The scores of all rows that say what is right.
    fn scores(&self) -> Scores;

    /// The scores of some rows, which may come more than once.
    fn scores_of(&self, indices: &[usize]) -> Scores;
}

impl<T: Task> AnyTask for T {
    fn head(&self) -> TaskHead {
        Task::head(self)
    }

    fn describe(&self, config: &mut Config) {
        Task::describe(self, config);
    }

    fn head_start(&self, start: &Config, is_known: bool) -> HeadStart {
        Task::head_start(self, start, is_known)
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
                Rows::of_files(self.clone(), placed.into_iter().map(|row| row.map(|(row, _)| row)).collect())
            }
        }))
    }

    fn predict(&self, reading: &Reading, inputs: &[Value], model: &Pretrained) -> Vec<Result<Value, TaskError>> {
        let row = |value: &Value| self.row(reading, Input::of(value)?, &model.tokenizer);
        predict_each(self, inputs.iter().map(row).collect(), model)
    }
}

/// Where a row of a file comes from.
#[derive(Debug, Clone)]
struct Place {
    file: Arc<Path>,
    /// The row's number in the file, from 1.
    number: usize,
}

/// Some rows of a task.
#[derive(Debug, Clone)]
pub struct Rows<T: Task> {
    task: T,
    /// Shared, because an error cannot be copied for each who asks for the row's prediction.
    rows: Vec<Result<T::Row, Arc<TaskError>>>,
    /// Where the rows come from, if they are of files.
    places: Vec<Place>,
}

impl<T: Task> Rows<T> {
    /// Rows with their task.
    pub fn new(task: T, rows: Vec<T::Row>) -> Rows<T> {
        Rows { task, rows: rows.into_iter().map(Ok).collect(), places: Vec::new() }
    }

    /// Rows of files, those that cannot be used in their places.
    pub fn of_files(task: T, rows: FileRows<T::Row>) -> Rows<T> {
        let rows = rows.into_iter().map(|row| row.map_err(Arc::new)).collect();
        Rows { task, rows, places: Vec::new() }
    }
}

/// A row, or why it is none.
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
        predict_each(&self.task, self.rows[range].iter().map(usable).collect(), model)
    }

    fn encode(&self, tokenizer: &Tokenizer, threads: usize) -> Result<Box<dyn AnyEncoded<'_> + '_>, TaskError> {
        let Rows { task, rows, places } = self;
        let rows: Vec<&T::Row> = rows.iter().map(usable).collect::<Result<_, _>>()?;
        let encoded = parallel::map(&rows, threads, |row| task.encode(row, tokenizer));
        let encoded = encoded.into_iter().collect::<Result<_, _>>()?;
        Ok(Box::new(EncodedRows { task, rows, places, encoded }))
    }
}

/// The prediction of each row that is one.
fn predict_each<T: Task, R: std::borrow::Borrow<T::Row> + Sync>(
    task: &T,
    rows: Vec<Result<R, TaskError>>,
    model: &Pretrained,
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
    let encoded: Vec<Result<Encoded<T::Notes>, TaskError>> = parallel::map(&good, model.device.threads(), encode);
    let examples: Vec<&Example> = encoded.iter().flatten().flat_map(|row| &row.examples).collect();
    let (logits, _) = model.logits(&examples, &mut |_| ());
    let mut rest = &logits[..];
    for ((place, row), encoded) in good.iter().zip(encoded) {
        found[*place] = encoded.and_then(|encoded| {
            let (own, others) = rest.split_at(encoded.examples.len());
            rest = others;
            to_json(&task.predict(row.borrow(), &encoded, own)?)
        });
    }
    found
}

fn to_json(prediction: &impl serde::Serialize) -> Result<Value, TaskError> {
    serde_json::to_value(prediction).map_err(|e| TaskError::input("prediction", e.to_string()))
}

struct EncodedRows<'a, T: Task> {
    task: &'a T,
    rows: Vec<&'a T::Row>,
    places: &'a [Place],
    encoded: Vec<Encoded<T::Notes>>,
}

impl<'a, T: Task> AnyEncoded<'a> for EncodedRows<'a, T> {
    fn examples(&self) -> Vec<&Example> {
        self.encoded.iter().flat_map(|row| &row.examples).collect()
    }

    fn into_examples(self: Box<Self>) -> Vec<Example> {
        self.encoded.into_iter().flat_map(|row| row.examples).collect()
    }

    fn cut_rows(&self) -> usize {
        self.encoded.iter().filter(|row| row.cut > 0).count()
    }

    fn predict(&self, logits: &[Vec<f32>]) -> Result<Box<dyn AnyPredictions + 'a>, TaskError> {
        let EncodedRows { task, rows, places, encoded } = self;
        let mut rest = logits;
        let mut found = Vec::with_capacity(rows.len());
        for (row, encoded) in rows.iter().copied().zip(encoded) {
            let (own, others) = rest.split_at(encoded.examples.len());
            rest = others;
            found.push(task.predict(row, encoded, own)?);
        }
        Ok(Box::new(Predictions { task: *task, rows: rows.clone(), places, found }))
    }
}

struct Predictions<'a, T: Task> {
    task: &'a T,
    rows: Vec<&'a T::Row>,
    places: &'a [Place],
    found: Vec<T::Prediction>,
}

impl<T: Task> AnyPredictions for Predictions<'_, T> {
    fn to_json(&self) -> Result<Vec<Value>, TaskError> {
        let line = |(at, (row, found)): (usize, (&&T::Row, &T::Prediction))| {
            let mut line = self.task.shown(row);
            if let Some(Place { file, number }) = self.places.get(at) {
                line.insert("file".to_owned(), file.display().to_string().into());
                line.insert("row".to_owned(), (*number).into());
            }
            if let Value::Object(found) = to_json(found)? {
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
