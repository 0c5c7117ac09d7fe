//! Multiple choice: each ending with its context goes through \[CLS\] to one logit; softmax over the endings.

use std::path::PathBuf;

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::{Deserialize, Serialize};

use super::description::{Description, Examples, RejectedOptions, Rows};
use super::kind::{Kind, Mismatch};
use super::probabilities::{argmax, collapsed, softmax};
use super::text::{Length, Text};
use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::choice::{Choice, Choices};
use crate::example::{Example, Target};
use crate::input::{Input, Object};
use crate::metrics::classes::accuracy;
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, Scores, Task};

/// The correct ending of each context.
pub static KIND: Kind = Kind::of::<Choose>(
    Description {
        name: "choose",
        about: "the correct one of several endings",
        scores: "Accuracy of choices",
        input: "a table (CSV, Parquet), by its extension; else lines of JSON: {\"context\": …, \"choices\": […]}. Rows may have different \
                numbers of choices. The correct one is in label, answerKey or answer, as its number, letter or text.",
        output: "the choice, its ending and all probabilities.",
        max_len: 128,
        metrics: &[],
        options: &["skip_bad"],
        own_options: &[],
        check: |_| Ok(()),
        rows: Rows::Choices,
        rejected_options: RejectedOptions::NONE,
        examples: Examples {
            finetune: &["cloze finetune choose --task swag --data swag --model runs/mini --out runs/swag"],
            sweep: &["cloze sweep choose --task swag --data swag --model runs/mini --batches 16"],
            predict: &["cloze predict choose --model runs/swag --input endings.jsonl"],
            evaluate: &["cloze evaluate choose --model runs/swag --data val.csv"],
        },
    },
    |config, head| match head {
        TaskHead::Choose => Ok(()),
        // A folder that does not say whether its one logit is a choice or a regression is accepted by both kinds.
        TaskHead::Classify { labels: 1 }
            if config.architectures.iter().flatten().all(|name| name != "BertForSequenceClassification") =>
        {
            Ok(())
        }
        _ => Err(Mismatch::Head),
    },
);

/// Multiple choice.
#[derive(Debug, Clone)]
pub struct Choose {
    /// Maximum number of tokens of a context with one ending, special tokens included; the longer of the two is
    /// truncated.
    pub max_len: usize,
    /// The number of the first choice in numeric labels of the training files: 0 or 1.
    pub first_number: usize,
}

/// The settings specific to this kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    first_number: usize,
}

impl Choose {
    /// The number of the first choice in the numeric labels of files: as the files show, else as in the training files.
    fn first_number_of(&self, files: &[Choices], notes: &mut Notes) -> usize {
        let shown: Vec<usize> = files.iter().filter_map(Choices::first_number).collect();
        let first = shown.iter().copied().min();
        if first == Some(1) && self.first_number == 0 {
            notes.once(
                "labels are interpreted as numbers from 1: no label is 0, and one is the number of choices".to_owned(),
            );
        }
        if first.is_none() && self.first_number == 0 && files.iter().any(Choices::has_numbers) {
            notes.once("no row has the label 0: labels are interpreted as numbers from 0".to_owned());
        }
        first.unwrap_or(self.first_number)
    }
}

/// A context with its endings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The first text.
    pub context: String,
    /// The second texts, one of which is correct.
    pub endings: Vec<String>,
    /// The index of the correct ending, if known.
    pub label: Option<usize>,
}

/// The predicted ending of a context.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The index of the most probable ending, from 0.
    pub choice: usize,
    /// The text of that ending.
    pub ending: String,
    /// The probability of each ending.
    pub probabilities: Vec<f64>,
}

impl From<&Choice> for Row {
    fn from(choice: &Choice) -> Row {
        let with_prefix = |ending: &String| match choice.ending_prefix.as_str() {
            "" => ending.clone(),
            prefix => format!("{prefix} {ending}"),
        };
        Row {
            context: choice.context.clone(),
            endings: choice.endings.iter().map(with_prefix).collect(),
            label: choice.label,
        }
    }
}

impl Task for Choose {
    type Row = Row;
    type Aux = ();
    type Prediction = Prediction;

    fn from_training_files(
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

    fn from_model(reading: &Reading, _: &Config, _: TaskHead) -> Result<Choose, TaskError> {
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

    /// An object with the same keys as a row of a file.
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
        let length = Length { max_len: self.max_len, ..Length::default() };
        let (mut sequences, mut cut) = (Vec::new(), 0);
        for ending in &row.endings {
            let text = Text { text: row.context.clone(), pair: Some(ending.clone()) };
            let (sequence, lost) = length.sequences(tokenizer, &text)?;
            sequences.extend(sequence);
            cut += lost;
        }
        if sequences.len() < 2 {
            return Err(TaskError::input("choices", format!("expected at least 2, found {}", sequences.len())));
        }
        Ok(Encoded {
            examples: vec![Example::new(sequences, Target::positions(row.label.map(|label| [label])))],
            cut,
            windows: None,
            aux: (),
        })
    }

    fn row_json(&self, row: &Row) -> Object {
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
        let choice = argmax(&probabilities);
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
