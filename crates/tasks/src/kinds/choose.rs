//! The right one of several endings: each with its context through \[CLS\] to one logit, a softmax over the endings.

use std::path::PathBuf;

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::{Deserialize, Serialize};

use super::description::{Description, Examples, Refused, Rows};
use super::kind::{Kind, Misfit};
use super::probabilities::{collapsed, largest, softmax};
use super::text::{Length, Text};
use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::choice::{Choice, Choices};
use crate::example::{Example, Target};
use crate::input::{Input, Object};
use crate::metrics::classes::accuracy;
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, Scores, Task};

/// The ending of each context.
pub static KIND: Kind = Kind::of::<Choose>(
    Description {
        name: "choose",
        about: "the right one of several endings",
        scores: "Accuracy of choices",
        input: "a table (CSV, Parquet) by its ending; else lines of JSON: {\"context\": …, \"choices\": […]}. Rows may differ in how many \
                choices they have. The right one is its number, its letter or its text, under label, answerKey or answer.",
        output: "the choice, its ending and all probabilities.",
        max_len: 128,
        metrics: &[],
        options: &["skip_bad"],
        own_options: &[],
        check: |_| Ok(()),
        rows: Rows::Choices,
        refused: Refused::NOTHING,
        examples: Examples {
            finetune: &["cloze finetune choose --task swag --data swag --model runs/mini --out runs/swag"],
            sweep: &["cloze sweep choose --task swag --data swag --model runs/mini --batches 16"],
            predict: &["cloze predict choose --model runs/swag --input endings.jsonl"],
            evaluate: &["cloze evaluate choose --model runs/swag --data val.csv"],
        },
    },
    |config, head| match head {
        TaskHead::Choose => Ok(()),
        // A folder that does not say what its one logit is for may be either.
        TaskHead::Classify { labels: 1 }
            if config.architectures.iter().flatten().all(|name| name != "BertForSequenceClassification") =>
        {
            Ok(())
        }
        _ => Err(Misfit::Head),
    },
);

/// Multiple choice.
#[derive(Debug, Clone)]
pub struct Choose {
    /// Tokens of a context with one ending at most; what does not fit is cut off the longer of the two.
    pub max_len: usize,
    /// The number of the first choice in labels that are numbers, as the training files have it: 0 or 1.
    pub first_number: usize,
}

/// The settings that the kind has for itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    first_number: usize,
}

impl Choose {
    /// The number of the first choice in the labels of some files: as they tell, else as the training files had it.
    fn first_number_of(&self, files: &[Choices], notes: &mut Notes) -> usize {
        let told: Vec<usize> = files.iter().filter_map(Choices::first_number).collect();
        let first = told.iter().copied().min();
        if first == Some(1) && self.first_number == 0 {
            notes.once("labels are numbers from 1: none is 0, and one is that of a last choice".to_owned());
        }
        if first.is_none() && self.first_number == 0 && files.iter().any(Choices::has_numbers) {
            notes.once("no row has the label 0: labels are taken for numbers from 0".to_owned());
        }
        first.unwrap_or(self.first_number)
    }
}

/// A context with its endings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The first text.
    pub context: String,
    /// The second texts, one of which is right.
    pub endings: Vec<String>,
    /// Which, if known.
    pub label: Option<usize>,
}

/// The ending of a context.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The likeliest ending's number, from 0.
    pub choice: usize,
    /// Its text.
    pub ending: String,
    /// The probability of each.
    pub probabilities: Vec<f64>,
}

impl From<&Choice> for Row {
    fn from(choice: &Choice) -> Row {
        let whole = |ending: &String| match choice.ending_prefix.as_str() {
            "" => ending.clone(),
            prefix => format!("{prefix} {ending}"),
        };
        Row {
            context: choice.context.clone(),
            endings: choice.endings.iter().map(whole).collect(),
            label: choice.label,
        }
    }
}

impl Task for Choose {
    type Row = Row;
    type Notes = ();
    type Prediction = Prediction;

    fn learned_from(
        reading: &Reading,
        train: &[PathBuf],
        _: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Choose, FileRows<Row>), TaskError> {
        let files: Vec<Choices> =
            train.iter().map(|path| Choices::read(path, LabelsNeeded::Required)).collect::<Result<_, _>>()?;
        let mut task = Choose { max_len: reading.max_len(), first_number: 0 };
        task.first_number = task.first_number_of(&files, notes);
        let rows = task.read(reading, train, LabelsNeeded::Required, tokenizer, notes)?;
        Ok((task, rows))
    }

    fn of_model(reading: &Reading, _: &Config, _: TaskHead) -> Result<Choose, TaskError> {
        let stored: Settings = reading.stored_of_files().own()?;
        Ok(Choose { max_len: reading.max_len(), first_number: stored.first_number })
    }

    fn own_settings(&self, _: &Reading) -> Object {
        let own = (self.first_number != 0).then(|| ("first_number".to_owned(), self.first_number.into()));
        own.into_iter().collect()
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let read = |path: &PathBuf| Choices::read(reading.file(path), need);
        let files: Vec<Choices> = paths.iter().map(read).collect::<Result<_, _>>()?;
        let first = self.first_number_of(&files, notes);
        let rows = files.into_iter().flat_map(|file| file.into_rows(first));
        Ok(rows.map(|row| row.map(|choice| Row::from(&choice))).collect())
    }

    /// An object under the keys of a file's rows.
    fn row(&self, _: &Reading, input: Input<'_>, _: &Tokenizer) -> Result<Row, TaskError> {
        let object = input.object("{\"context\": \"…\", \"choices\": [\"…\", \"…\"]}")?;
        let choice = Choice::of_object(object.clone()).map_err(|problem| TaskError::input("line", problem))?;
        Ok(Row { label: None, ..Row::from(&choice) })
    }

    fn head(&self) -> TaskHead {
        TaskHead::Choose
    }

    fn describe(&self, config: &mut Config) {
        for key in ["id2label", "label2id", "problem_type"] {
            config.extra.remove(key);
        }
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let length = Length { max_len: self.max_len, stride: None };
        let (mut sequences, mut cut) = (Vec::new(), 0);
        for ending in &row.endings {
            let text = Text { text: row.context.clone(), pair: Some(ending.clone()) };
            let (sequence, lost) = length.sequences(tokenizer, &text)?;
            sequences.extend(sequence);
            cut += lost;
        }
        if sequences.len() < 2 {
            return Err(TaskError::input("choices", format!("{} of them: expected two at least", sequences.len())));
        }
        Ok(Encoded {
            examples: vec![Example::new(sequences, Target::positions(row.label.map(|label| [label])))],
            cut,
            notes: (),
        })
    }

    fn shown(&self, row: &Row) -> Object {
        Object::from_iter([
            ("context".to_owned(), row.context.as_str().into()),
            ("endings".to_owned(), row.endings.as_slice().into()),
            ("gold".to_owned(), row.label.into()),
        ])
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        let shares =
            logits.first().and_then(|logits| softmax(logits)).filter(|shares| shares.len() == row.endings.len());
        let probabilities = shares.ok_or_else(|| TaskError::Logits(format!("context {:?}", row.context)))?;
        let choice = largest(&probabilities);
        Ok(Prediction { choice, ending: row.endings[choice].clone(), probabilities })
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let known = rows.iter().zip(predictions).filter_map(|(row, found)| Some((row.label?, found.choice)));
        let (gold, predicted): (Vec<usize>, Vec<usize>) = known.unzip();
        Scores {
            rows: gold.len(),
            values: vec![("accuracy".to_owned(), accuracy(&gold, &predicted))],
            details: serde_json::Map::new(),
            collapsed: collapsed(&gold, &predicted).map(|choice| format!("choice {choice}")),
        }
    }
}
