//! How a task's rows are read and scored: what a caller gives, else what the model remembers, else what the known task has, else the
//! usual.

use std::path::{Path, PathBuf};

use cloze_model::{Class, Config};

use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::classification::{LabelledTexts, TextColumns};
use crate::datasets::format::{DataFile, Format, Found, shown};
use crate::datasets::labels::Labels;
use crate::datasets::preset::DatasetPreset;
use crate::datasets::table::{Column, RaggedRows};
use crate::input::{Input, string_of, text_key};
use crate::kinds::description::{Description, Rows};
use crate::kinds::text::{Length, Text};
use crate::task::FileRows;
use crate::task_settings::TaskSettings;

/// What a caller says of a task and of how its files are read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Given {
    /// The settings.
    pub settings: TaskSettings,
    /// The labels' names in order, of a model to be fine-tuned.
    pub labels: Option<Vec<String>>,
    /// How the files are written; none: found out.
    pub format: Option<Format>,
    /// Whether rows that cannot be used are left out and counted instead of being an error.
    pub skip_bad: bool,
    /// Threads that read.
    pub threads: usize,
}

impl Default for Given {
    fn default() -> Given {
        Given {
            settings: TaskSettings::default(),
            labels: None,
            format: None,
            skip_bad: false,
            threads: std::thread::available_parallelism().map_or(1, |threads| threads.get()),
        }
    }
}

/// How a task's rows are read and scored.
#[derive(Debug, Clone)]
pub struct Reading {
    description: &'static Description,
    known: Option<DatasetPreset>,
    given: Given,
    /// What the model remembers.
    stored: TaskSettings,
}

impl Reading {
    /// What is given for a task, and what a fine-tuned model remembers of it.
    ///
    /// # Errors
    /// A known task's name that is not known; settings that a task of this kind cannot have.
    pub fn new(
        description: &'static Description,
        given: Given,
        stored: Option<TaskSettings>,
    ) -> Result<Reading, TaskError> {
        description.check(&given.settings)?;
        let stored = stored.unwrap_or_default();
        let named = given.settings.task.as_deref().or(stored.task.as_deref());
        let known = named.map(DatasetPreset::named).transpose()?.filter(|known| known.kind == description.name);
        Ok(Reading { description, known, given, stored })
    }

    /// The known task.
    pub fn known(&self) -> Option<&DatasetPreset> {
        self.known.as_ref()
    }

    /// What the caller gave.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// What the model remembers.
    pub fn stored(&self) -> &TaskSettings {
        &self.stored
    }

    /// What the model remembers of how files like its training files are read; nothing if the caller names another known task, whose
    /// files have neither the columns nor the documents nor the lengths of those.
    pub fn stored_of_files(&self) -> TaskSettings {
        let name = self.known.as_ref().map(|known| known.name);
        let is_other = self.given.settings.task.is_some() && name != self.stored.task.as_deref();
        if is_other { TaskSettings::default() } else { self.stored.clone() }
    }

    /// Tokens of a sequence at most.
    pub fn max_len(&self) -> usize {
        let known = self.known.as_ref().map(|known| known.settings.max_length);
        self.given.settings.max_len.or(self.stored.max_len).or(known).unwrap_or(self.description.max_len)
    }

    /// The step from one window of a long text to the next; none: long texts are cut. The model's own changes in proportion where a
    /// caller gives another length of windows.
    pub fn stride(&self) -> Option<usize> {
        let known = self.known.as_ref().and_then(|known| known.settings.stride);
        let stored = self.stored_of_files();
        // A step chosen for short windows makes long ones overlap nearly whole.
        let stored = match (stored.stride, stored.max_len, self.given.settings.max_len) {
            (Some(stride), Some(before), Some(now)) if stride > 0 && before > 0 => {
                Some((stride.saturating_mul(now) / before).max(1))
            }
            (stride, ..) => stride,
        };
        self.given.settings.stride.or(stored).or(known).filter(|stride| *stride > 0)
    }

    /// What becomes of long texts.
    pub(crate) fn length(&self) -> Length {
        Length { max_len: self.max_len(), stride: self.stride() }
    }

    /// The score that decides, if it is not the usual one: the caller's, else the one that chose the model.
    fn metric(&self) -> Option<&'static str> {
        let name = self.given.settings.metric.as_deref().or(self.stored.metric.as_deref())?;
        self.description.metrics.iter().copied().find(|metric| *metric == name)
    }

    /// The scores to report, the deciding one first.
    pub(crate) fn metrics(&self) -> Vec<&'static str> {
        let known = self.known.as_ref();
        let first = self.metric().or(known.map(|known| known.best));
        let all = known.map_or(self.description.metrics, |known| known.metrics);
        first.into_iter().chain(all.iter().copied().filter(|metric| Some(*metric) != first)).collect()
    }

    /// What a model fine-tuned so is to remember, but for the settings that its kind has for itself. `skip_bad` is not among it: a
    /// row is left out of other files only where somebody asks for it.
    pub(crate) fn settings(&self) -> TaskSettings {
        let TaskSettings { text, pair, label, .. } = self.given.settings.clone();
        TaskSettings {
            kind: Some(self.description.name.to_owned()),
            task: self.known.as_ref().map(|known| known.name.to_owned()),
            text,
            pair,
            label,
            metric: self.metric().map(str::to_owned),
            max_len: Some(self.max_len()),
            stride: self.stride(),
            own: Default::default(),
        }
    }

    /// The labels of a task to learn: as given, as known, as the checkpoint has them, or as found. Those of the checkpoint are taken if
    /// it has a head of this class with a label for each that was found, by name, or if the data number as many labels as it has.
    pub(crate) fn labels(&self, found: Labels, start: &Config, class: Class) -> Result<Labels, TaskError> {
        if let Some(labels) = &self.given.labels {
            return Labels::given(labels.iter().cloned());
        }
        if let Some(known) = self.known.as_ref().filter(|known| !known.labels.is_empty()) {
            return Labels::given(known.labels.iter().copied());
        }
        let before = start.labels().filter(|_| start.is_of_class(class));
        // Labels of a checkpoint that are no list of labels are not its names.
        let before = before.and_then(|names| Labels::of_model(&names, &[]).ok());
        let of_checkpoint = before.filter(|before| {
            let names = || found.names().iter();
            names().all(|name| before.has_name(name))
                || found.len() == before.len() && names().all(|name| before.is_assumed(name))
        });
        Ok(of_checkpoint.unwrap_or(found))
    }

    /// The labels of a task with these names, for reading more rows.
    ///
    /// # Errors
    /// Names that are no list of labels.
    pub(crate) fn labels_of(&self, names: &[String]) -> Result<Labels, TaskError> {
        match &self.given.labels {
            Some(_) => Labels::given(names.iter().cloned()),
            None => Labels::of_model(names, self.known.as_ref().map_or(&[], |known| known.labels)),
        }
    }

    /// A file, and how it is written if that is given.
    pub fn file<'a>(&self, path: &'a Path) -> DataFile<'a> {
        DataFile { path, format: self.given.format }
    }

    /// How a file of rows to predict is written; `labels`: those of the model.
    ///
    /// # Errors
    /// A file that cannot be read; [`TaskError::File`] for a format that this kind of task cannot read.
    pub fn format_of(&self, path: &Path, labels: &[String]) -> Result<Found, TaskError> {
        use Format::{Csv, Json, Jsonl, Lines, Parquet, Squad, Tsv};
        let (file, (column, is_given)) = (self.file(path), self.text_column(path));
        let rows = self.description.rows;
        let found = match rows {
            Rows::Texts => file.texts_format(&column, is_given)?,
            Rows::Words => file.words_format(&column, is_given, labels)?,
            Rows::Questions => file.rows_format()?,
            // A table may be called .txt; lines of JSON, too.
            Rows::Choices => match file.rows_format()? {
                found @ Found { format: Jsonl, by_content: true } if path != Path::new("-") => {
                    Found { format: file.table_format().unwrap_or(Jsonl), ..found }
                }
                found => found,
            },
        };
        let is_readable = match (rows, found.format) {
            (Rows::Texts, format) => matches!(format, Lines | Tsv | Csv | Jsonl | Json | Parquet),
            (Rows::Words, format) => format != Squad,
            (Rows::Questions, format) => matches!(format, Jsonl | Json | Squad | Parquet),
            (Rows::Choices, format) => matches!(format, Tsv | Csv | Jsonl | Json | Parquet),
        };
        if is_readable {
            return Ok(found);
        }
        let (format, kind) = (found.format.name(), self.description.name);
        let problem = format!("is read as {format}, of which rows to {kind} cannot be made; see --format");
        Err(TaskError::file(Path::new(&shown(path)), problem))
    }

    /// The column of a file's texts, and whether the caller named columns.
    pub(crate) fn text_column(&self, path: &Path) -> (Column, bool) {
        let given = &self.given.settings;
        (self.columns_of(path).text, given.text.is_some() || given.pair.is_some())
    }

    /// What a tab in a line of plain text is.
    pub fn tabs(&self) -> Tabs {
        let is_known =
            self.known.as_ref().is_some_and(|known| known.exported.as_ref().is_some_and(|c| c.pair.is_some()));
        if self.given.settings.pair.is_some() || self.stored.pair.is_some() || is_known {
            return Tabs::Pair;
        }
        if self.stored == TaskSettings::default() { Tabs::Unsure } else { Tabs::Space }
    }

    /// The columns of one file.
    pub(crate) fn columns_of(&self, path: &Path) -> TextColumns {
        let known = self.known.as_ref().and_then(|known| known.columns_of(path)).cloned();
        let (given, stored) = (&self.given.settings, self.stored_of_files());
        let text = given.text.clone().or(stored.text);
        let pair = given.pair.clone().or(stored.pair);
        let label = given.label.clone().or(stored.label);
        match known {
            Some(known) => TextColumns {
                text: text.unwrap_or(known.text),
                pair: pair.or(known.pair),
                label: label.or(known.label),
            },
            None => TextColumns {
                text: text.unwrap_or(Column::name("text")),
                pair,
                label: Some(label.unwrap_or(Column::name("label"))),
            },
        }
    }

    /// What becomes of rows of too few or too many columns.
    pub(crate) fn ragged_rows(&self) -> RaggedRows {
        self.known.as_ref().map_or(RaggedRows::Error, |known| known.ragged)
    }

    /// The rows of files to learn from or to judge by, without those that cannot be used where they are to be left out.
    ///
    /// # Errors
    /// That of the first row that cannot be used, unless it is left out; also if no row is left.
    pub(crate) fn usable<R>(&self, rows: FileRows<R>, notes: &mut Notes) -> Result<Vec<R>, TaskError> {
        if !self.given.skip_bad {
            return rows.into_iter().collect();
        }
        let (mut usable, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            match row {
                Ok(row) => usable.push(row),
                Err(error) => bad.push(error),
            }
        }
        let count = bad.len();
        match bad.into_iter().next() {
            Some(error) if usable.is_empty() => return Err(error),
            Some(first) => notes.0.push(format!("{count} rows left out; the first: {first}")),
            None => {}
        }
        Ok(usable)
    }

    /// The texts of some files with a label each.
    pub(crate) fn texts(
        &self,
        paths: &[PathBuf],
        need: LabelsNeeded,
        notes: &mut Notes,
    ) -> Result<Vec<LabelledTexts>, TaskError> {
        let read = |path: &PathBuf| {
            let texts = LabelledTexts::read(self.file(path), &self.columns_of(path), need, self.ragged_rows());
            let texts = texts.map_err(|error| self.explain(error))?;
            notes.skipped(path, texts.skipped().len());
            notes.remarks(path, texts.remarks());
            Ok(texts)
        };
        paths.iter().map(read).collect()
    }

    /// Adds to the error about a missing column why it was looked for: the model was trained on it.
    pub(crate) fn explain(&self, error: TaskError) -> TaskError {
        let (given, stored) = (&self.given.settings, self.stored_of_files());
        let of =
            |name, stored: Option<Column>, given: &Option<Column>| Some((name, stored.filter(|_| given.is_none())?));
        let columns: Vec<(&str, Column)> = [
            of("--text", stored.text, &given.text),
            of("--pair", stored.pair, &given.pair),
            of("--label", stored.label, &given.label),
        ]
        .into_iter()
        .flatten()
        .collect();
        match error {
            TaskError::File { path, problem }
                if columns.iter().any(|(_, column)| problem.starts_with(&format!("no column {column}"))) =>
            {
                let names: Vec<String> = columns.iter().map(|(_, column)| column.to_string()).collect();
                let options: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
                let (names, options) = (names.join(", "), options.join(", "));
                let problem = format!(
                    "{problem}. The model was trained on the columns {names}: name those of this file with {options}"
                );
                TaskError::File { path, problem }
            }
            other => other,
        }
    }

    /// A text, or a pair, of a row: an object under the columns' names, or plain text with a tab before the second text.
    pub(crate) fn text_of(&self, input: Input<'_>) -> Result<Text, TaskError> {
        let object = match input {
            Input::Object(object) => object,
            Input::Text(text) => {
                let halves = text.split_once('\t').filter(|_| self.tabs() != Tabs::Space);
                let (text, pair) = halves.map_or((text, None), |(text, pair)| (text, Some(pair.to_owned())));
                return whole(Text { text: text.to_owned(), pair });
            }
        };
        let (given, stored) = (&self.given.settings, self.stored_of_files());
        let known = self.known.as_ref().and_then(|known| known.exported.as_ref());
        let own_text = stored.text.as_ref().or(known.map(|columns| &columns.text));
        let own_pair = stored.pair.as_ref().or(known.and_then(|columns| columns.pair.as_ref()));
        let is_pair = given.pair.is_some()
            || own_pair.is_some()
            || object.get("pair").is_some_and(|pair| pair.is_string() || pair.is_number());
        let pair = is_pair.then(|| string_of(object, &text_key(object, given.pair.as_ref(), own_pair, "pair")));
        let pair = pair.transpose()?;
        let text = string_of(object, &text_key(object, given.text.as_ref(), own_text, "text"))?;
        whole(Text { text, pair })
    }
}

/// How many there are of something: "1 question", "2 questions".
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A text that is not blank.
///
/// # Errors
/// A blank one: a prediction would say nothing.
pub(crate) fn whole(text: Text) -> Result<Text, TaskError> {
    let is_blank = |text: &str| text.trim().is_empty();
    if is_blank(&text.text) && text.pair.as_deref().is_none_or(is_blank) {
        return Err(TaskError::input("text", "is blank, expected a text"));
    }
    Ok(text)
}

/// What a tab in a line of plain text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tabs {
    /// The border between two texts: the model learned pairs.
    Pair,
    /// White space: the model learned single texts.
    Space,
    /// The border between two texts, though the model does not say what it learned.
    Unsure,
}

/// What reading files mended or left out, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes(pub Vec<String>);

impl Notes {
    /// Notes that something happened in a file, if it did.
    pub(crate) fn count(&mut self, path: &Path, count: usize, what: &str) {
        if count > 0 {
            self.0.push(format!("{}: {count} {what}", path.display()));
        }
    }

    /// Notes, once, that numbers are assumed to be labels' positions, if one of the labels as written is.
    pub(crate) fn assumed<'a>(&mut self, labels: &Labels, written: impl IntoIterator<Item = &'a str>) {
        let note = || {
            format!(
                "labels that are numbers are assumed to be positions in the model's order: {}; --task NAME applies a data set's own order",
                labels.positions()
            )
        };
        if written.into_iter().any(|label| labels.is_assumed(label)) {
            self.once(note());
        }
    }

    /// Adds a note, unless it is there.
    pub(crate) fn once(&mut self, note: String) {
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    /// Notes what a person should know of how a file was read.
    pub(crate) fn remarks(&mut self, path: &Path, remarks: &[String]) {
        self.0.extend(remarks.iter().map(|remark| format!("{}: {remark}", path.display())));
    }

    /// Notes rows that were left out of a file.
    pub(crate) fn skipped(&mut self, path: &Path, count: usize) {
        let what = if count == 1 { "row" } else { "rows" };
        self.count(path, count, &format!("{what} of too few or too many columns left out"));
    }
}
