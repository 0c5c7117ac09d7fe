//! How a task's rows are read and scored. Each setting is taken from the first of these that has it: the caller's
//! options, the settings stored in the model, the data set preset, the default of the kind of task.

use std::path::{Path, PathBuf};

use cloze_model::{Class, Config};

use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::classification::{LabelledTexts, TextColumns};
use crate::datasets::format::{DataFile, DetectedFormat, Format, display_name};
use crate::datasets::labels::Labels;
use crate::datasets::preset::DatasetPreset;
use crate::datasets::table::{Column, RaggedRows};
use crate::input::{Input, string_of, text_key};
use crate::kinds::description::{Description, Rows};
use crate::kinds::text::{Length, Text};
use crate::long::Long;
use crate::task::FileRows;
use crate::task_settings::TaskSettings;

/// Options of a caller: about the task and about how its files are read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskOptions {
    /// The settings.
    pub settings: TaskSettings,
    /// For fine-tuning: the names of the labels, in order.
    pub labels: Option<Vec<String>>,
    /// The format of the files; none: it is detected.
    pub format: Option<Format>,
    /// Whether rows that cannot be used are skipped and counted instead of being an error.
    pub skip_bad: bool,
    /// For prediction and evaluation: how texts that are longer than the maximum length are read. None: as in training.
    pub long: Option<Long>,
    /// The number of threads that read files.
    pub threads: usize,
}

impl Default for TaskOptions {
    fn default() -> TaskOptions {
        TaskOptions {
            settings: TaskSettings::default(),
            labels: None,
            format: None,
            skip_bad: false,
            long: None,
            threads: std::thread::available_parallelism().map_or(1, |threads| threads.get()),
        }
    }
}

/// The resolved settings of how a task's rows are read and scored.
#[derive(Debug, Clone)]
pub struct Reading {
    description: &'static Description,
    preset: Option<DatasetPreset>,
    options: TaskOptions,
    /// The settings stored in the model.
    stored: TaskSettings,
}

impl Reading {
    /// Combines the caller's options with the settings stored in a fine-tuned model.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for an unknown preset, for settings that a task of this kind cannot have, and for a stride if long texts are
    /// not read in windows.
    pub fn new(
        description: &'static Description,
        options: TaskOptions,
        stored: Option<TaskSettings>,
    ) -> Result<Reading, TaskError> {
        description.check(&options.settings)?;
        if let Some(long) = options.long {
            if !description.has_option("long") {
                let problem = format!("has no effect for a task to {}", description.name);
                return Err(TaskError::setting("long", problem));
            }
            // 0 is truncation, with which only windows disagree.
            match options.settings.stride {
                Some(0) if !long.reads_windows() => {}
                stride => long.check_stride(stride)?,
            }
        }
        let stored = stored.unwrap_or_default();
        let named = options.settings.task.as_deref().or(stored.task.as_deref());
        let preset = named.map(DatasetPreset::named).transpose()?.filter(|preset| preset.kind == description.name);
        Ok(Reading { description, preset, options, stored })
    }

    /// The data set preset, if the task has one.
    pub fn preset(&self) -> Option<&DatasetPreset> {
        self.preset.as_ref()
    }

    /// The caller's options.
    pub fn options(&self) -> &TaskOptions {
        &self.options
    }

    /// The settings stored in the model.
    pub fn stored(&self) -> &TaskSettings {
        &self.stored
    }

    /// The model's stored settings that apply to files like its training files. They are empty if the caller names a
    /// different data set preset: its files have different columns, documents and lengths.
    pub fn stored_of_files(&self) -> TaskSettings {
        let name = self.preset.as_ref().map(|preset| preset.name);
        let is_other = self.options.settings.task.is_some() && name != self.stored.task.as_deref();
        if is_other { TaskSettings::default() } else { self.stored.clone() }
    }

    /// Maximum number of tokens of a sequence, special tokens included.
    pub fn max_len(&self) -> usize {
        let preset = self.preset.as_ref().map(|preset| preset.settings.max_length);
        self.options.settings.max_len.or(self.stored.max_len).or(preset).unwrap_or(self.description.max_len)
    }

    /// The step between the windows of a long text, in tokens; none: long texts are truncated. If the caller gives a
    /// different maximum length, the stored stride is scaled in proportion.
    pub fn stride(&self) -> Option<usize> {
        let preset = self.preset.as_ref().and_then(|preset| preset.settings.stride);
        let stored = self.stored_of_files();
        // With a stride chosen for short windows, long windows would overlap almost completely.
        let stored = match (stored.stride, stored.max_len, self.options.settings.max_len) {
            (Some(stride), Some(before), Some(now)) if stride > 0 && before > 0 => {
                Some((stride.saturating_mul(now) / before).max(1))
            }
            (stride, ..) => stride,
        };
        self.options.settings.stride.or(stored).or(preset).filter(|stride| *stride > 0)
    }

    /// How long texts are handled.
    pub(crate) fn length(&self) -> Length {
        Length { max_len: self.max_len(), stride: self.stride(), long: self.options.long }
    }

    /// The main metric if it is not the default: the caller's, else the one that selected the model.
    fn metric(&self) -> Option<&'static str> {
        let name = self.options.settings.metric.as_deref().or(self.stored.metric.as_deref())?;
        self.description.metrics.iter().copied().find(|metric| *metric == name)
    }

    /// The metrics to report, the main one first.
    pub(crate) fn metrics(&self) -> Vec<&'static str> {
        let preset = self.preset.as_ref();
        let first = self.metric().or(preset.map(|preset| preset.best));
        let all = preset.map_or(self.description.metrics, |preset| preset.metrics);
        first.into_iter().chain(all.iter().copied().filter(|metric| Some(*metric) != first)).collect()
    }

    /// The settings to store in a model that is fine-tuned with these options, without those that are specific to its
    /// kind. `skip_bad` is not stored: rows of other files are skipped only if the caller says so.
    pub(crate) fn settings(&self) -> TaskSettings {
        let TaskSettings { text, pair, label, .. } = self.options.settings.clone();
        TaskSettings {
            kind: Some(self.description.name.to_owned()),
            task: self.preset.as_ref().map(|preset| preset.name.to_owned()),
            text,
            pair,
            label,
            metric: self.metric().map(str::to_owned),
            max_len: Some(self.max_len()),
            stride: self.stride(),
            own: Default::default(),
        }
    }

    /// The labels of a task to be learned: the caller's, the preset's, the checkpoint's, or those found in the data, in
    /// this order of preference. The checkpoint's are used if it has a head of this class and if either it has a label
    /// for each name found, or the data contain as many labels as it has and write all of them as numbers.
    pub(crate) fn labels(&self, found: Labels, start: &Config, class: Class) -> Result<Labels, TaskError> {
        if let Some(labels) = &self.options.labels {
            return Labels::from_names(labels.iter().cloned());
        }
        if let Some(preset) = self.preset.as_ref().filter(|preset| !preset.labels.is_empty()) {
            return Labels::from_names(preset.labels.iter().copied());
        }
        let before = start.labels().filter(|_| start.is_of_class(class));
        // A checkpoint's labels that are not a valid list are ignored.
        let before = before.and_then(|names| Labels::from_model(&names, &[]).ok());
        let of_checkpoint = before.filter(|before| {
            let names = || found.names().iter();
            names().all(|name| before.has_name(name))
                || found.len() == before.len() && names().all(|name| before.is_assumed(name))
        });
        Ok(of_checkpoint.unwrap_or(found))
    }

    /// The labels with these names, for reading further rows.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for names that are not a valid list of labels.
    pub(crate) fn labels_of(&self, names: &[String]) -> Result<Labels, TaskError> {
        match &self.options.labels {
            Some(_) => Labels::from_names(names.iter().cloned()),
            None => Labels::from_model(names, self.preset.as_ref().map_or(&[], |preset| preset.labels)),
        }
    }

    /// A file with the caller's format, if there is one.
    pub fn file<'a>(&self, path: &'a Path) -> DataFile<'a> {
        DataFile { path, format: self.options.format }
    }

    /// The format of a file of rows to predict. `labels` are those of the model.
    ///
    /// # Errors
    /// A file that cannot be read; [`TaskError::File`] for a format that this kind of task cannot read.
    pub fn format_of(&self, path: &Path, labels: &[String]) -> Result<DetectedFormat, TaskError> {
        use Format::{Csv, Json, Jsonl, Lines, Parquet, Squad, Tsv};
        let (file, (column, is_given)) = (self.file(path), self.text_column(path));
        let rows = self.description.rows;
        let found = match rows {
            Rows::Texts => file.texts_format(&column, is_given)?,
            Rows::Words => file.words_format(&column, is_given, labels)?,
            Rows::Questions => file.rows_format()?,
            // Tables and lines of JSON may both have names in .txt.
            Rows::Choices => match file.rows_format()? {
                found @ DetectedFormat { format: Jsonl, by_content: true } if path != Path::new("-") => {
                    DetectedFormat { format: file.table_format().unwrap_or(Jsonl), ..found }
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
        let problem = format!("its format is {format}, which a task to {kind} cannot read; set `format`");
        Err(TaskError::file(Path::new(&display_name(path)), problem))
    }

    /// The column of a file's texts, and whether the caller gave it.
    pub(crate) fn text_column(&self, path: &Path) -> (Column, bool) {
        let given = &self.options.settings;
        (self.columns_of(path).text, given.text.is_some() || given.pair.is_some())
    }

    /// The meaning of a tab in a line of plain text.
    pub fn tabs(&self) -> Tabs {
        let has_pairs =
            self.preset.as_ref().is_some_and(|preset| preset.exported.as_ref().is_some_and(|c| c.pair.is_some()));
        if self.options.settings.pair.is_some() || self.stored.pair.is_some() || has_pairs {
            return Tabs::Pair;
        }
        if self.stored == TaskSettings::default() { Tabs::Unsure } else { Tabs::Space }
    }

    /// The columns of one file.
    pub(crate) fn columns_of(&self, path: &Path) -> TextColumns {
        let preset = self.preset.as_ref().and_then(|preset| preset.columns_of(path)).cloned();
        let (given, stored) = (&self.options.settings, self.stored_of_files());
        let text = given.text.clone().or(stored.text);
        let pair = given.pair.clone().or(stored.pair);
        let label = given.label.clone().or(stored.label);
        match preset {
            Some(preset) => TextColumns {
                text: text.unwrap_or(preset.text),
                pair: pair.or(preset.pair),
                label: label.or(preset.label),
            },
            None => TextColumns {
                text: text.unwrap_or(Column::name("text")),
                pair,
                label: Some(label.unwrap_or(Column::name("label"))),
            },
        }
    }

    /// How rows with too few or too many columns are handled.
    pub(crate) fn ragged_rows(&self) -> RaggedRows {
        self.preset.as_ref().map_or(RaggedRows::Error, |preset| preset.ragged)
    }

    /// The rows of files for training or evaluation. With `skip_bad`, rows that cannot be used are removed.
    ///
    /// # Errors
    /// The error of the first row that cannot be used, unless such rows are skipped; also with `skip_bad` if no row is
    /// left.
    pub(crate) fn usable<R>(&self, rows: FileRows<R>, notes: &mut Notes) -> Result<Vec<R>, TaskError> {
        if !self.options.skip_bad {
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
            Some(first) => notes.0.push(format!("skipped {count} rows that cannot be used; the first: {first}")),
            None => {}
        }
        Ok(usable)
    }

    /// The texts of files, each with its label.
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
            notes.notes(path, texts.notes());
            Ok(texts)
        };
        paths.iter().map(read).collect()
    }

    /// Adds to an error about a missing column why the column was expected: the model was trained on it.
    pub(crate) fn explain(&self, error: TaskError) -> TaskError {
        let (given, stored) = (&self.options.settings, self.stored_of_files());
        let of =
            |name, stored: Option<Column>, given: &Option<Column>| Some((name, stored.filter(|_| given.is_none())?));
        let columns: Vec<(&str, Column)> = [
            of("`text`", stored.text, &given.text),
            of("`pair`", stored.pair, &given.pair),
            of("`label`", stored.label, &given.label),
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
                    "{problem}. The model was trained on the columns {names}; set the columns of this file with {options}"
                );
                TaskError::File { path, problem }
            }
            other => other,
        }
    }

    /// The text or pair of an input: an object whose keys are the columns' names, or plain text with a tab before the
    /// second text.
    pub(crate) fn text_of(&self, input: Input<'_>) -> Result<Text, TaskError> {
        let object = match input {
            Input::Object(object) => object,
            Input::Text(text) => {
                let halves = text.split_once('\t').filter(|_| self.tabs() != Tabs::Space);
                let (text, pair) = halves.map_or((text, None), |(text, pair)| (text, Some(pair.to_owned())));
                return non_blank(Text { text: text.to_owned(), pair });
            }
        };
        let (given, stored) = (&self.options.settings, self.stored_of_files());
        let preset = self.preset.as_ref().and_then(|preset| preset.exported.as_ref());
        let own_text = stored.text.as_ref().or(preset.map(|columns| &columns.text));
        let own_pair = stored.pair.as_ref().or(preset.and_then(|columns| columns.pair.as_ref()));
        let is_pair = given.pair.is_some()
            || own_pair.is_some()
            || object.get("pair").is_some_and(|pair| pair.is_string() || pair.is_number());
        let pair = is_pair.then(|| string_of(object, &text_key(object, given.pair.as_ref(), own_pair, "pair")));
        let pair = pair.transpose()?;
        let text = string_of(object, &text_key(object, given.text.as_ref(), own_text, "text"))?;
        non_blank(Text { text, pair })
    }
}

/// A count with its noun: "1 question", "2 questions".
pub(crate) fn count_noun(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Checks that a text is not blank.
///
/// # Errors
/// [`TaskError::Input`] for a blank text: its prediction would be meaningless.
pub(crate) fn non_blank(text: Text) -> Result<Text, TaskError> {
    let is_blank = |text: &str| text.trim().is_empty();
    if is_blank(&text.text) && text.pair.as_deref().is_none_or(is_blank) {
        return Err(TaskError::input("text", "expected a text, found only white space"));
    }
    Ok(text)
}

/// The meaning of a tab in a line of plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tabs {
    /// The separator of two texts: the model was trained on pairs.
    Pair,
    /// White space: the model was trained on single texts.
    Space,
    /// Treated as the separator of two texts; the model's folder does not say what it was trained on.
    Unsure,
}

/// Notes for the user about what was changed or skipped while files were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes(pub Vec<String>);

impl Notes {
    /// Adds a note that `what` occurred `count` times in a file, unless `count` is 0.
    pub(crate) fn count(&mut self, path: &Path, count: usize, what: &str) {
        if count > 0 {
            self.0.push(format!("{}: {count} {what}", path.display()));
        }
    }

    /// Adds a note, at most once, that numbers are assumed to be indices of labels, if any of the given raw labels is
    /// such a number.
    pub(crate) fn assumed<'a>(&mut self, labels: &Labels, written: impl IntoIterator<Item = &'a str>) {
        let note = || {
            format!(
                "labels that are numbers are assumed to be indices in the model's order: {}; set `task` to use the order of a data set",
                labels.positions()
            )
        };
        if written.into_iter().any(|label| labels.is_assumed(label)) {
            self.once(note());
        }
    }

    /// Adds a note unless it is already present.
    pub(crate) fn once(&mut self, note: String) {
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    /// Adds the notes of a file, with its path.
    pub(crate) fn notes(&mut self, path: &Path, notes: &[String]) {
        self.0.extend(notes.iter().map(|note| format!("{}: {note}", path.display())));
    }

    /// Adds a note about rows that were skipped because of their number of columns.
    pub(crate) fn skipped(&mut self, path: &Path, count: usize) {
        let what = if count == 1 { "row" } else { "rows" };
        self.count(path, count, &format!("{what} with too few or too many columns skipped"));
    }
}
