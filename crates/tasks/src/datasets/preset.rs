//! Presets of data sets: GLUE, SQuAD, CoNLL-2003 and SWAG, on which BERT was evaluated in the paper.
//!
//! Columns and file names are those of the official files of GLUE (<https://gluebenchmark.com/tasks>), SQuAD,
//! CoNLL-2003 and SWAG. The order and the names of the labels and the columns of exports are those of Hugging Face's
//! data sets, which models of Transformers use. Settings are those of the paper: Devlin et al. 2019, "BERT:
//! Pre-training of Deep Bidirectional Transformers for Language Understanding" (<https://aclanthology.org/N19-1423>).

use std::path::{Path, PathBuf};

use super::classification::TextColumns;
use super::file::plain_name;
use super::table::{Column, RaggedRows};
use super::{quoted_list, suggestion};
use crate::TaskError;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Train,
    /// To select checkpoints and hyperparameters (MNLI: matched).
    Dev,
    /// MNLI's second dev set, with other genres.
    DevMismatched,
    /// For the final evaluation; labelled only if the labels are public (MNLI: matched).
    Test,
    /// MNLI's second test set.
    TestMismatched,
}

/// A file in the official folder of a data set.
#[derive(Clone, Debug)]
pub struct PresetFile {
    /// The split that it contains.
    pub split: Split,
    /// The file name.
    pub name: &'static str,
    /// The columns, if the task is about texts.
    pub columns: Option<TextColumns>,
}

/// The hyperparameters of the paper and of the authors' scripts (`run_classifier.py`, `run_squad.py`) that differ
/// between tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Examples per step.
    pub batch_size: usize,
    /// Epochs: passes over the training data.
    pub epochs: usize,
    /// The peak learning rate: the paper's if it states one, else one of those that it tried.
    pub learning_rate: f64,
    /// Maximum number of tokens of an input.
    pub max_length: usize,
    /// The step between the windows of a long context, in tokens, if contexts are read in windows.
    pub stride: Option<usize>,
    /// Maximum number of tokens of a question, if there are questions.
    pub max_question: Option<usize>,
}

/// Devlin et al. 2019, section 4.1 (batch, epochs, learning rates tried); google-research/bert README (length 128, rate
/// 2e-5).
const GLUE: Settings =
    Settings { batch_size: 32, epochs: 3, learning_rate: 2e-5, max_length: 128, stride: None, max_question: None };

/// Devlin et al. 2019, section 4.2 (batch, epochs, learning rate); google-research/bert run_squad.py and README (length
/// 384, stride 128, question 64).
const SQUAD1: Settings =
    Settings { learning_rate: 5e-5, max_length: 384, stride: Some(128), max_question: Some(64), ..GLUE };

/// Devlin et al. 2019, section 4.3 (batch, epochs, learning rate); google-research/bert run_squad.py and README (length
/// 384, stride 128, question 64).
const SQUAD2: Settings = Settings { batch_size: 48, epochs: 2, ..SQUAD1 };

/// Devlin et al. 2019, section 4.4 (batch, epochs, learning rate); the length is not stated.
const SWAG: Settings = Settings { batch_size: 16, ..GLUE };

/// Devlin et al. 2019, appendix A.3 (ranges: batch 16 or 32, 2 to 4 epochs); the values for CoNLL-2003 and the length
/// are not stated.
const CONLL: Settings = Settings { learning_rate: 5e-5, ..GLUE };

/// The preset of a data set: its files, columns, labels, metrics and hyperparameters.
#[derive(Clone, Debug)]
pub struct DatasetPreset {
    /// The name.
    pub name: &'static str,
    /// The name of its [kind](crate::kinds::KINDS) of task.
    pub kind: &'static str,
    /// The names of the labels, by index; empty for scores, answers and endings. Files may contain their indices
    /// ([`Labels::from_names`](super::labels::Labels::from_names)).
    pub labels: &'static [&'static str],
    /// The names of the metrics to report, in order.
    pub metrics: &'static [&'static str],
    /// The metric that selects the best checkpoint: the one in the paper's tables.
    pub best: &'static str,
    /// The files of the official folder. If there are several for a split, the first that exists is used.
    pub files: Vec<PresetFile>,
    /// The columns of Hugging Face's exports (JSONL, Parquet), if the task is about texts.
    pub exported: Option<TextColumns>,
    /// How lines with too few columns are handled: some official files contain such lines.
    pub ragged: RaggedRows,
    /// The paper's settings.
    pub settings: Settings,
}

/// The names of all presets.
pub const NAMES: [&str; 13] =
    ["sst2", "cola", "mrpc", "rte", "stsb", "qnli", "mnli", "qqp", "wnli", "squad1", "squad2", "conll2003", "swag"];

impl DatasetPreset {
    /// The preset with a name of [`NAMES`]. Case, `-` and `_` are ignored (`SST-2`).
    ///
    /// # Errors
    /// [`TaskError::Setting`] for any other name.
    pub fn named(name: &str) -> Result<DatasetPreset, TaskError> {
        let plain = name.to_lowercase().replace(['-', '_'], "");
        let task = match plain.as_str() {
            "sst2" => sst2(),
            "cola" => cola(),
            "mrpc" => mrpc(),
            "rte" => rte(),
            "stsb" => stsb(),
            "qnli" => qnli(),
            "mnli" => mnli(),
            "qqp" => qqp(),
            "wnli" => wnli(),
            "squad1" => squad1(),
            "squad2" => squad2(),
            "conll2003" => conll2003(),
            "swag" => swag(),
            _ => {
                let problem = format!(
                    "unknown data set \"{name}\"{}; known data sets: {}",
                    suggestion(&plain, NAMES),
                    quoted_list(NAMES)
                );
                return Err(TaskError::Setting { name: "task", problem });
            }
        };
        Ok(task)
    }

    /// Finds the file of a split in the official folder, plain or compressed.
    ///
    /// # Errors
    /// [`TaskError::Io`] if the folder cannot be read; [`TaskError::File`] if there is no such file in it.
    pub fn find(&self, folder: &Path, split: Split) -> Result<PathBuf, TaskError> {
        let io = |e| TaskError::io("read", folder, e);
        let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).map_err(io)?.collect();
        let mut present: Vec<String> =
            entries.map_err(io)?.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        present.sort();
        let names: Vec<&str> = self.files.iter().filter(|file| file.split == split).map(|file| file.name).collect();
        if names.is_empty() {
            return Err(TaskError::file(folder, format!("{} has no {split:?} files", self.name)));
        }
        let endings = ["", ".gz", ".zst"];
        let mut candidates = names.iter().flat_map(|name| endings.map(|ending| format!("{name}{ending}")));
        if let Some(name) = candidates.find(|name| present.contains(name)) {
            return Ok(folder.join(name));
        }
        let problem = format!(
            "no {split:?} file of {}: expected {}; the folder contains {}",
            self.name,
            names.join(" or "),
            quoted_list(present.iter().map(String::as_str))
        );
        Err(TaskError::file(folder, problem))
    }

    /// The columns of a file. An official file is recognized by its name. Other tables have, by their extension, the
    /// columns of Hugging Face's exports (JSONL, Parquet) or those of the training file. None if the task is not about
    /// texts.
    pub fn columns_of(&self, path: &Path) -> Option<&TextColumns> {
        let name = plain_name(path);
        let official = self.files.iter().find(|file| file.name == name);
        if let Some(file) = official {
            return file.columns.as_ref();
        }
        let ending = name.rsplit_once('.').map(|(_, ending)| ending);
        match ending {
            Some("jsonl" | "ndjson" | "json" | "parquet" | "pq") => self.exported.as_ref(),
            _ => self.files.first()?.columns.as_ref(),
        }
    }
}

/// The columns of one or two texts, with or without a label.
fn columns(texts: &[&'static str], label: Option<&'static str>) -> Option<TextColumns> {
    let (first, second) = (texts.first()?, texts.get(1));
    Some(TextColumns {
        text: Column::name(first),
        pair: second.map(|name| Column::name(name)),
        label: label.map(Column::name),
    })
}

fn file(split: Split, name: &'static str, columns: Option<TextColumns>) -> PresetFile {
    PresetFile { split, name, columns }
}

/// The three files of most GLUE tasks: labelled train and dev, unlabelled test.
fn three(texts: &[&'static str], label: &'static str) -> Vec<PresetFile> {
    vec![
        file(Split::Train, "train.tsv", columns(texts, Some(label))),
        file(Split::Dev, "dev.tsv", columns(texts, Some(label))),
        file(Split::Test, "test.tsv", columns(texts, None)),
    ]
}

/// The common part of GLUE's classification tasks.
fn glue(name: &'static str, labels: &'static [&'static str]) -> DatasetPreset {
    DatasetPreset {
        name,
        kind: "classify",
        labels,
        metrics: &["accuracy"],
        best: "accuracy",
        files: Vec::new(),
        exported: None,
        ragged: RaggedRows::Error,
        settings: GLUE,
    }
}

fn sst2() -> DatasetPreset {
    DatasetPreset {
        files: three(&["sentence"], "label"),
        exported: columns(&["sentence"], Some("label")),
        ..glue("sst2", &["negative", "positive"])
    }
}

fn cola() -> DatasetPreset {
    // There is no header; the columns are source, label, the author's mark, sentence. The test file has a header.
    let numbered = || Some(TextColumns { text: Column::number(4), pair: None, label: Some(Column::number(2)) });
    DatasetPreset {
        metrics: &["matthews"],
        best: "matthews",
        files: vec![
            file(Split::Train, "train.tsv", numbered()),
            file(Split::Dev, "dev.tsv", numbered()),
            file(Split::Test, "test.tsv", columns(&["sentence"], None)),
        ],
        exported: columns(&["sentence"], Some("label")),
        ..glue("cola", &["unacceptable", "acceptable"])
    }
}

fn mrpc() -> DatasetPreset {
    let texts = ["#1 String", "#2 String"];
    let mut files = three(&texts, "Quality");
    // Microsoft's original test file, which has labels, is preferred to GLUE's.
    files.insert(2, file(Split::Test, "msr_paraphrase_test.txt", columns(&texts, Some("Quality"))));
    DatasetPreset {
        metrics: &["accuracy", "f1"],
        best: "f1",
        files,
        exported: columns(&["sentence1", "sentence2"], Some("label")),
        ..glue("mrpc", &["not_equivalent", "equivalent"])
    }
}

fn rte() -> DatasetPreset {
    let texts = ["sentence1", "sentence2"];
    DatasetPreset {
        files: three(&texts, "label"),
        exported: columns(&texts, Some("label")),
        ..glue("rte", &["entailment", "not_entailment"])
    }
}

fn stsb() -> DatasetPreset {
    let texts = ["sentence1", "sentence2"];
    let mut files = three(&texts, "score");
    // The published gold file has no header: genre, file, year, index, score, sentences, and sources on some lines.
    let gold = TextColumns { text: Column::number(6), pair: Some(Column::number(7)), label: Some(Column::number(5)) };
    files.insert(2, file(Split::Test, "test-gold.tsv", Some(gold)));
    DatasetPreset {
        kind: "regress",
        metrics: &["pearson", "spearman"],
        best: "spearman",
        files,
        exported: columns(&texts, Some("label")),
        ..glue("stsb", &[])
    }
}

fn qnli() -> DatasetPreset {
    let texts = ["question", "sentence"];
    DatasetPreset {
        files: three(&texts, "label"),
        exported: columns(&texts, Some("label")),
        ..glue("qnli", &["entailment", "not_entailment"])
    }
}

fn mnli() -> DatasetPreset {
    let texts = ["sentence1", "sentence2"];
    let labelled = || columns(&texts, Some("gold_label"));
    DatasetPreset {
        files: vec![
            file(Split::Train, "train.tsv", labelled()),
            file(Split::Dev, "dev_matched.tsv", labelled()),
            file(Split::DevMismatched, "dev_mismatched.tsv", labelled()),
            file(Split::Test, "test_matched.tsv", columns(&texts, None)),
            file(Split::TestMismatched, "test_mismatched.tsv", columns(&texts, None)),
        ],
        exported: columns(&["premise", "hypothesis"], Some("label")),
        ..glue("mnli", &["entailment", "neutral", "contradiction"])
    }
}

fn qqp() -> DatasetPreset {
    let texts = ["question1", "question2"];
    DatasetPreset {
        metrics: &["accuracy", "f1"],
        best: "f1",
        files: three(&texts, "is_duplicate"),
        exported: columns(&texts, Some("label")),
        ragged: RaggedRows::Skip,
        ..glue("qqp", &["not_duplicate", "duplicate"])
    }
}

fn wnli() -> DatasetPreset {
    let texts = ["sentence1", "sentence2"];
    DatasetPreset {
        files: three(&texts, "label"),
        exported: columns(&texts, Some("label")),
        ..glue("wnli", &["not_entailment", "entailment"])
    }
}

fn squad1() -> DatasetPreset {
    DatasetPreset {
        kind: "answer",
        metrics: &["exact_match", "f1"],
        best: "f1",
        files: vec![file(Split::Train, "train-v1.1.json", None), file(Split::Dev, "dev-v1.1.json", None)],
        settings: SQUAD1,
        ..glue("squad1", &[])
    }
}

fn squad2() -> DatasetPreset {
    DatasetPreset {
        name: "squad2",
        files: vec![file(Split::Train, "train-v2.0.json", None), file(Split::Dev, "dev-v2.0.json", None)],
        settings: SQUAD2,
        ..squad1()
    }
}

fn conll2003() -> DatasetPreset {
    DatasetPreset {
        kind: "tag",
        metrics: &["precision", "recall", "f1"],
        best: "f1",
        // The original file names, then those of common copies.
        files: vec![
            file(Split::Train, "eng.train", None),
            file(Split::Train, "train.txt", None),
            file(Split::Dev, "eng.testa", None),
            file(Split::Dev, "valid.txt", None),
            file(Split::Dev, "dev.txt", None),
            file(Split::Test, "eng.testb", None),
            file(Split::Test, "test.txt", None),
        ],
        settings: CONLL,
        ..glue("conll2003", &["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"])
    }
}

fn swag() -> DatasetPreset {
    DatasetPreset {
        kind: "choose",
        files: vec![
            file(Split::Train, "train.csv", None),
            file(Split::Dev, "val.csv", None),
            file(Split::Test, "test.csv", None),
        ],
        settings: SWAG,
        ..glue("swag", &[])
    }
}

#[cfg(test)]
mod tests;
