//! Files → a task and its rows, by what a user says of them.

use std::path::{Path, PathBuf};

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde_json::Value;

use crate::TaskError;
use crate::answer::{ExtractOptions, WindowOptions};
use crate::datasets::choice::{Choice, Choices};
use crate::datasets::classification::{LabelledTexts, TextColumns};
use crate::datasets::known::{Known, Metric};
use crate::datasets::labels::Labels;
use crate::datasets::squad::{BadAnswers, Question, Questions};
use crate::datasets::table::{Column, RaggedRows};
use crate::datasets::tagged::{TagFormat, TaggedSentences};
use crate::datasets::{Need, plain_name};
use crate::task::Task;
use crate::tasks::answering::{self, Answering};
use crate::tasks::choose::{self, Choose};
use crate::tasks::classify::{self, Classify};
use crate::tasks::regress::{self, Regress};
use crate::tasks::tag::{self, Tag};
use crate::tasks::{Length, Text};

/// What a user says of the data and of how it is read.
#[derive(Debug, Clone)]
pub struct Options {
    /// A task known by name: columns, labels and metrics are its own unless said otherwise.
    pub known: Option<Known>,
    /// The columns of texts: the text, the second text, the label. Where none is given, those of
    /// [`trained_on`](Self::trained_on), of the known task, or `text` and `label`.
    pub columns: [Option<Column>; 3],
    /// How the files that a fine-tuned model learned from were read.
    pub trained_on: TrainedOn,
    /// The labels' names, in order.
    pub labels: Option<Vec<String>>,
    /// The score that decides which model is best, if another than the task's.
    pub metric: Option<Metric>,
    /// Tokens of a sequence at most.
    pub max_len: usize,
    /// The step from one window of a long text or paragraph to the next; a classifier cuts long texts if none.
    pub stride: Option<usize>,
    /// Tokens of a question at most.
    pub max_question: usize,
    /// How answers are searched.
    pub extract: ExtractOptions,
    /// How tagged words are written; found out if none.
    pub tag_format: Option<TagFormat>,
    /// Whether a tagger sees what surrounds a sentence in its document.
    pub context: bool,
    /// Last layers that a tagger reads.
    pub layers: usize,
    /// Whether rows that cannot be used are left out and counted instead of being an error.
    pub skip_bad: bool,
    /// Threads that read.
    pub threads: usize,
}

/// How the files that a model learned from were read, where they were not read the usual way: the default for other files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrainedOn {
    /// The columns of the text, the second text and the label. A line of JSON may have the plain keys instead.
    pub columns: [Option<Column>; 3],
    /// How tagged words were written. A file whose ending names another format is read as that.
    pub tag_format: Option<TagFormat>,
}

impl TrainedOn {
    /// Adds to the error about a missing column why it was looked for.
    fn explain(&self, error: TaskError, given: &[Option<Column>; 3]) -> TaskError {
        let names = ["--text", "--pair", "--label"];
        let of = |n: usize| self.columns[n].as_ref().filter(|_| given[n].is_none());
        let known: Vec<(&str, &Column)> = (0..3).filter_map(|n| Some((names[n], of(n)?))).collect();
        match error {
            TaskError::File { path, problem }
                if known.iter().any(|(_, column)| problem.starts_with(&format!("no column {column}"))) =>
            {
                let columns: Vec<String> = known.iter().map(|(_, column)| column.to_string()).collect();
                let options: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let (columns, options) = (columns.join(", "), options.join(", "));
                let problem = format!(
                    "{problem}. The model was trained on the columns {columns}: name those of this file with {options}"
                );
                TaskError::File { path, problem }
            }
            other => other,
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            known: None,
            columns: [None, None, None],
            trained_on: TrainedOn::default(),
            labels: None,
            metric: None,
            max_len: 128,
            stride: None,
            max_question: 64,
            extract: ExtractOptions::default(),
            tag_format: None,
            context: false,
            layers: 1,
            skip_bad: false,
            threads: std::thread::available_parallelism().map_or(1, |threads| threads.get()),
        }
    }
}

impl Options {
    fn length(&self) -> Length {
        Length { max_len: self.max_len, stride: self.stride }
    }

    /// The columns of one file.
    fn columns_of(&self, path: &Path) -> TextColumns {
        let known = self.known.as_ref().and_then(|known| known.columns_of(path)).cloned();
        let given_or_trained = |n: usize| self.columns[n].clone().or_else(|| self.trained_on.columns[n].clone());
        let [text, pair, label] = [0, 1, 2].map(given_or_trained);
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

    fn texts(&self, paths: &[PathBuf], need: Need, notes: &mut Notes) -> Result<Vec<LabelledTexts>, TaskError> {
        let known = self.known.as_ref().map_or(RaggedRows::Error, |known| known.ragged);
        let ragged = if self.skip_bad { RaggedRows::Skip } else { known };
        let read = |path: &PathBuf| {
            let texts = LabelledTexts::read(path, &self.columns_of(path), need, ragged)
                .map_err(|error| self.trained_on.explain(error, &self.columns))?;
            notes.count(path, texts.skipped().len(), "rows of too few or too many columns left out");
            Ok(texts)
        };
        paths.iter().map(read).collect()
    }

    fn sentences(&self, paths: &[PathBuf], need: Need) -> Result<Vec<TaggedSentences>, TaskError> {
        paths.iter().map(|path| TaggedSentences::read(path, self.tag_format_of(path), need)).collect()
    }

    /// How a file's tagged words are written, unless that is to be found out.
    fn tag_format_of(&self, path: &Path) -> Option<TagFormat> {
        let name = plain_name(path);
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let fits = |format: &TagFormat| match ending {
            "conllu" => matches!(format, TagFormat::ConllU { .. }),
            "conll" | "bio" | "iob" => !matches!(format, TagFormat::ConllU { .. }),
            _ => true,
        };
        self.tag_format.or_else(|| self.trained_on.tag_format.filter(fits))
    }

    /// The metrics, the deciding one first.
    fn metrics(&self, default: &[Metric]) -> Vec<Metric> {
        let known = self.known.as_ref();
        let first = self.metric.or(known.map(|known| known.best));
        let all = known.map_or(default, |known| known.metrics);
        first.into_iter().chain(all.iter().copied().filter(|metric| Some(*metric) != first)).collect()
    }

    /// The labels of a task to learn: as asked, as known, as the checkpoint has them if it has such a head for them all, or
    /// as found.
    fn labels(&self, found: Labels, start: &Config, class: &str) -> Result<Vec<String>, TaskError> {
        if let Some(labels) = &self.labels {
            return Ok(Labels::given(labels.iter().cloned())?.names().to_vec());
        }
        if let Some(known) = self.known.as_ref().filter(|known| !known.labels.is_empty()) {
            return Ok(known.labels.iter().map(|label| (*label).to_owned()).collect());
        }
        let same_head = start.architectures.iter().flatten().any(|name| name == class);
        match start.labels().filter(|labels| same_head && found.names().iter().all(|name| labels.contains(name))) {
            Some(labels) => Ok(labels),
            None => Ok(found.names().to_vec()),
        }
    }
}

/// What reading files mended or left out, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes(pub Vec<String>);

impl Notes {
    fn count(&mut self, path: &Path, count: usize, what: &str) {
        if count > 0 {
            self.0.push(format!("{}: {count} {what}", path.display()));
        }
    }
}

/// A task whose rows are read from files.
pub trait FromFiles: Task + Sized {
    /// The task that these files are to teach, starting from a model of this configuration, and their rows.
    ///
    /// # Errors
    /// Files that cannot be read, settings that do not fit.
    fn learned_from(
        options: &Options,
        train: &[PathBuf],
        start: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Self, Vec<Self::Row>), TaskError>;

    /// The task of a fine-tuned model.
    ///
    /// # Errors
    /// A model fine-tuned for another task.
    fn of_model(options: &Options, config: &Config, head: TaskHead, dir: &Path) -> Result<Self, TaskError>;

    /// The rows of some files.
    ///
    /// # Errors
    /// Files that cannot be read, labels that the task does not know.
    fn read(
        &self,
        options: &Options,
        paths: &[PathBuf],
        need: Need,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<Vec<Self::Row>, TaskError>;

    /// A row without what is right, from a line of standard input: a JSON object, or plain text where that is enough.
    ///
    /// # Errors
    /// A line that lacks something; the message says what, not where.
    fn parse_line(&self, options: &Options, line: &str, tokenizer: &Tokenizer) -> Result<Self::Row, TaskError>;
}

/// A task that its rows do not shape, and its rows.
fn with_rows<T: FromFiles>(
    task: T,
    options: &Options,
    train: &[PathBuf],
    tokenizer: &Tokenizer,
    notes: &mut Notes,
) -> Result<(T, Vec<T::Row>), TaskError> {
    let rows = task.read(options, train, Need::Required, tokenizer, notes)?;
    Ok((task, rows))
}

fn other_task(dir: &Path, head: TaskHead, wanted: &str) -> TaskError {
    let found = cloze_model::Heads::of(head);
    let problem = format!(
        "its head is {found}: expected a model fine-tuned to {wanted}; leave the kind of task out, or name its own"
    );
    TaskError::Folder { path: dir.to_owned(), problem }
}

/// A line as a JSON object, if it is meant to be one.
fn json_line(line: &str) -> Result<Option<serde_json::Map<String, Value>>, TaskError> {
    if !line.trim_start().starts_with('{') {
        return Ok(None);
    }
    serde_json::from_str(line).map(Some).map_err(|e| TaskError::input("JSON", e.to_string()))
}

fn key_of(column: &Option<Column>, default: &'static str) -> String {
    match column {
        Some(Column::Name(name)) => name.to_string(),
        _ => default.to_owned(),
    }
}

fn string_of(object: &serde_json::Map<String, Value>, key: &str) -> Result<String, TaskError> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(TaskError::input(format!("\"{key}\""), format!("expected a string, found {other}"))),
        None => {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            Err(TaskError::input(format!("\"{key}\""), format!("missing; the line has {}", keys.join(", "))))
        }
    }
}

/// The key of the training files or of a known task where the line has it, else the plain one where the line has that.
fn own_or_plain(object: &serde_json::Map<String, Value>, own: Option<&Column>, plain: &'static str) -> String {
    let own = own.map(|column| key_of(&Some(column.clone()), plain));
    own.filter(|key| object.contains_key(key) || !object.contains_key(plain)).unwrap_or(plain.to_owned())
}

/// A text, or a pair: JSON under the columns' names, or plain text with a tab before the second text.
fn text_of_line(options: &Options, line: &str) -> Result<Text, TaskError> {
    let [text, pair, _] = &options.columns;
    if let Some(object) = json_line(line)? {
        let known = options.known.as_ref().and_then(|known| known.exported.as_ref());
        let [trained_text, trained_pair, _] = &options.trained_on.columns;
        let text_key = match text {
            Some(_) => key_of(text, "text"),
            None => own_or_plain(&object, trained_text.as_ref().or(known.map(|columns| &columns.text)), "text"),
        };
        let known_pair = trained_pair.as_ref().or(known.and_then(|columns| columns.pair.as_ref()));
        let pair_key = match pair {
            Some(_) => Some(key_of(pair, "pair")),
            None if known_pair.is_some() || object.get("pair").is_some_and(Value::is_string) => {
                Some(own_or_plain(&object, known_pair, "pair"))
            }
            None => None,
        };
        let pair = pair_key.map(|key| string_of(&object, &key)).transpose()?;
        return Ok(Text { text: string_of(&object, &text_key)?, pair });
    }
    Ok(match line.split_once('\t') {
        Some((text, pair)) => Text { text: text.to_owned(), pair: Some(pair.to_owned()) },
        None => Text { text: line.to_owned(), pair: None },
    })
}

/// The texts of some files, each with what `labels` makes of its label if labels are needed: of others a prediction's rows may have any.
fn texts_of<L: Clone>(
    files: &[LabelledTexts],
    need: Need,
    labels: impl Fn(&LabelledTexts) -> Result<Vec<L>, TaskError>,
) -> Result<Vec<(Text, Option<L>)>, TaskError> {
    let mut rows = Vec::new();
    for file in files {
        let known = (need == Need::Required).then(|| labels(file)).transpose()?;
        rows.extend(file.examples().iter().enumerate().map(|(number, row)| {
            let text = Text { text: row.text.clone(), pair: row.pair.clone() };
            (text, known.as_ref().map(|known| known[number].clone()))
        }));
    }
    Ok(rows)
}

/// All labels that some files hold.
fn found_in(of_files: impl IntoIterator<Item = Result<Labels, TaskError>>) -> Result<Labels, TaskError> {
    let all: Vec<Labels> = of_files.into_iter().collect::<Result<_, _>>()?;
    Labels::found(all.iter().flat_map(|labels| labels.names().iter().map(String::as_str)))
}

impl Classify {
    fn rows(&self, files: &[LabelledTexts], need: Need) -> Result<Vec<classify::Row>, TaskError> {
        let labels = Labels::given(self.labels.iter().cloned())?;
        let texts = texts_of(files, need, |file| file.class_ids(&labels))?;
        Ok(texts.into_iter().map(|(text, label)| classify::Row { text, label }).collect())
    }
}

impl FromFiles for Classify {
    fn learned_from(
        options: &Options,
        train: &[PathBuf],
        start: &Config,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Classify, Vec<classify::Row>), TaskError> {
        let files = options.texts(train, Need::Required, notes)?;
        let found = found_in(files.iter().map(LabelledTexts::labels))?;
        let labels = options.labels(found, start, "BertForSequenceClassification")?;
        if labels.len() < 2 {
            let problem = format!("all rows have the label {:?}: expected two labels at least", labels.join(", "));
            return Err(TaskError::setting("labels", problem));
        }
        let metrics = options.metrics(&[Metric::Accuracy, Metric::F1, Metric::Matthews]);
        let task = Classify { labels, length: options.length(), metrics };
        let rows = task.rows(&files, Need::Required)?;
        Ok((task, rows))
    }

    fn of_model(options: &Options, config: &Config, head: TaskHead, dir: &Path) -> Result<Classify, TaskError> {
        let TaskHead::Classify { labels: count @ 2.. } = head else {
            return Err(other_task(dir, head, "classify"));
        };
        // Its logits mean something else: independent labels, or several numbers.
        if let Some(other) = config.problem_type().filter(|found| *found != "single_label_classification") {
            let problem = format!("its problem_type is {other}: expected a model that gives each text one label");
            return Err(TaskError::Folder { path: dir.to_owned(), problem });
        }
        let labels = labels_of(config, count);
        let metrics = options.metrics(&[Metric::Accuracy, Metric::F1, Metric::Matthews]);
        Ok(Classify { labels, length: options.length(), metrics })
    }

    fn read(
        &self,
        options: &Options,
        paths: &[PathBuf],
        need: Need,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<Vec<classify::Row>, TaskError> {
        self.rows(&options.texts(paths, need, notes)?, need)
    }

    fn parse_line(&self, options: &Options, line: &str, _: &Tokenizer) -> Result<classify::Row, TaskError> {
        Ok(classify::Row { text: text_of_line(options, line)?, label: None })
    }
}

impl Regress {
    fn new(options: &Options) -> Regress {
        let metrics = options.metrics(&[Metric::Pearson, Metric::Spearman]);
        Regress { length: options.length(), metrics }
    }
}

impl FromFiles for Regress {
    fn learned_from(
        options: &Options,
        train: &[PathBuf],
        _: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Regress, Vec<regress::Row>), TaskError> {
        with_rows(Regress::new(options), options, train, tokenizer, notes)
    }

    fn of_model(options: &Options, _: &Config, head: TaskHead, dir: &Path) -> Result<Regress, TaskError> {
        match head {
            TaskHead::Classify { labels: 1 } => Ok(Regress::new(options)),
            _ => Err(other_task(dir, head, "regress")),
        }
    }

    fn read(
        &self,
        options: &Options,
        paths: &[PathBuf],
        need: Need,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<Vec<regress::Row>, TaskError> {
        let texts = texts_of(&options.texts(paths, need, notes)?, need, LabelledTexts::scores)?;
        Ok(texts.into_iter().map(|(text, value)| regress::Row { text, value }).collect())
    }

    fn parse_line(&self, options: &Options, line: &str, _: &Tokenizer) -> Result<regress::Row, TaskError> {
        Ok(regress::Row { text: text_of_line(options, line)?, value: None })
    }
}

impl Tag {
    fn rows(&self, files: &[TaggedSentences], need: Need) -> Result<Vec<tag::Row>, TaskError> {
        let labels = Labels::given(self.labels.iter().cloned())?;
        let mut rows = Vec::new();
        for file in files {
            let known = (need == Need::Required).then(|| file.tag_ids(&labels)).transpose()?;
            let sentences = file.sentences();
            for (number, sentence) in sentences.iter().enumerate() {
                let around = if self.context { around(sentences, number, self.max_len) } else { Default::default() };
                let labels = known.as_ref().map(|known| known[number].clone());
                rows.push(tag::Row { words: sentence.words.clone(), labels, around, text: None });
            }
        }
        Ok(rows)
    }
}

impl FromFiles for Tag {
    fn learned_from(
        options: &Options,
        train: &[PathBuf],
        start: &Config,
        _: &Tokenizer,
        _: &mut Notes,
    ) -> Result<(Tag, Vec<tag::Row>), TaskError> {
        let files = options.sentences(train, Need::Required)?;
        let found = found_in(files.iter().map(TaggedSentences::labels))?;
        let labels = options.labels(found, start, "BertForTokenClassification")?;
        let task = Tag { labels, max_len: options.max_len, layers: options.layers, context: options.context };
        let rows = task.rows(&files, Need::Required)?;
        Ok((task, rows))
    }

    fn of_model(options: &Options, config: &Config, head: TaskHead, dir: &Path) -> Result<Tag, TaskError> {
        let TaskHead::Tag { labels: count, layers } = head else {
            return Err(other_task(dir, head, "tag"));
        };
        Ok(Tag { labels: labels_of(config, count), max_len: options.max_len, layers, context: options.context })
    }

    fn read(
        &self,
        options: &Options,
        paths: &[PathBuf],
        need: Need,
        _: &Tokenizer,
        _: &mut Notes,
    ) -> Result<Vec<tag::Row>, TaskError> {
        self.rows(&options.sentences(paths, need)?, need)
    }

    /// Plain text, or JSON with a `text` or a list of `words`.
    fn parse_line(&self, options: &Options, line: &str, _: &Tokenizer) -> Result<tag::Row, TaskError> {
        let Some(object) = json_line(line)? else {
            return Ok(tag::Row::of_text(line));
        };
        match object.get("words") {
            None => {
                let key = match &options.columns[0] {
                    Some(_) => key_of(&options.columns[0], "text"),
                    None => own_or_plain(&object, options.trained_on.columns[0].as_ref(), "text"),
                };
                Ok(tag::Row::of_text(&string_of(&object, &key)?))
            }
            Some(words) => {
                let words: Vec<String> = serde_json::from_value(words.clone())
                    .map_err(|_| TaskError::input("\"words\"", "expected a list of strings"))?;
                Ok(tag::Row { words, ..tag::Row::default() })
            }
        }
    }
}

/// The words around a sentence in its document, more than a sequence can hold on neither side.
fn around(sentences: &[crate::datasets::tagged::TaggedSentence], number: usize, most: usize) -> [Vec<String>; 2] {
    let document = sentences[number].document;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for sentence in sentences[..number].iter().rev().take_while(|sentence| sentence.document == document) {
        before.extend(sentence.words.iter().rev().cloned());
        if before.len() >= most {
            break;
        }
    }
    before.reverse();
    for sentence in sentences[number + 1..].iter().take_while(|sentence| sentence.document == document) {
        after.extend(sentence.words.iter().cloned());
        if after.len() >= most {
            break;
        }
    }
    [before, after]
}

impl FromFiles for Choose {
    fn learned_from(
        options: &Options,
        train: &[PathBuf],
        _: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Choose, Vec<choose::Row>), TaskError> {
        with_rows(Choose { max_len: options.max_len }, options, train, tokenizer, notes)
    }

    fn of_model(options: &Options, config: &Config, head: TaskHead, dir: &Path) -> Result<Choose, TaskError> {
        let says = |class: &str| config.architectures.iter().flatten().any(|name| name == class);
        match head {
            TaskHead::Choose => Ok(Choose { max_len: options.max_len }),
            // A folder that does not say what its one logit is for may be either.
            TaskHead::Classify { labels: 1 } if !says("BertForSequenceClassification") => {
                Ok(Choose { max_len: options.max_len })
            }
            _ => Err(other_task(dir, head, "choose")),
        }
    }

    fn read(
        &self,
        _: &Options,
        paths: &[PathBuf],
        need: Need,
        _: &Tokenizer,
        _: &mut Notes,
    ) -> Result<Vec<choose::Row>, TaskError> {
        let mut rows = Vec::new();
        for path in paths {
            let file = Choices::read(path, need)?;
            rows.extend(file.choices().iter().map(choose::Row::from));
        }
        Ok(rows)
    }

    /// JSON under the keys of a file's rows.
    fn parse_line(&self, _: &Options, line: &str, _: &Tokenizer) -> Result<choose::Row, TaskError> {
        let object = json_line(line)?;
        let object = object.ok_or_else(|| {
            TaskError::input("line", "expected a JSON object such as {\"context\": \"…\", \"choices\": [\"…\", \"…\"]}")
        })?;
        let choice = Choice::of_object(object).map_err(|problem| TaskError::input("line", problem))?;
        Ok(choose::Row { label: None, ..choose::Row::from(&choice) })
    }
}

impl From<&Choice> for choose::Row {
    fn from(choice: &Choice) -> choose::Row {
        let whole = |ending: &String| match choice.ending_prefix.as_str() {
            "" => ending.clone(),
            prefix => format!("{prefix} {ending}"),
        };
        choose::Row {
            context: choice.context.clone(),
            endings: choice.endings.iter().map(whole).collect(),
            label: choice.label,
        }
    }
}

impl Answering {
    fn new(options: &Options) -> Answering {
        let default = WindowOptions::default();
        let stride = options.stride.unwrap_or(default.stride);
        let windows = WindowOptions { max_len: options.max_len, stride, max_question: options.max_question };
        Answering { windows, extract: options.extract }
    }
}

impl FromFiles for Answering {
    fn learned_from(
        options: &Options,
        train: &[PathBuf],
        _: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Answering, Vec<answering::Row>), TaskError> {
        with_rows(Answering::new(options), options, train, tokenizer, notes)
    }

    fn of_model(options: &Options, _: &Config, head: TaskHead, dir: &Path) -> Result<Answering, TaskError> {
        match head {
            TaskHead::Answer => Ok(Answering::new(options)),
            _ => Err(other_task(dir, head, "answer")),
        }
    }

    fn read(
        &self,
        options: &Options,
        paths: &[PathBuf],
        need: Need,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<Vec<answering::Row>, TaskError> {
        self.windows.check(tokenizer.template())?;
        let bad = match need {
            Need::Optional => BadAnswers::Ignore,
            Need::Required if options.skip_bad => BadAnswers::Skip,
            Need::Required => BadAnswers::Error,
        };
        let mut rows = Vec::new();
        for path in paths {
            let file = Questions::read(path, bad)?;
            let counts = file.notes();
            notes.count(
                path,
                counts.moved_answers,
                "answers stand elsewhere than answer_start says: the nearest place was taken",
            );
            notes.count(path, counts.skipped_answers, "answers that are not in their paragraph left out");
            notes.count(path, counts.skipped_questions, "questions left without an answer left out");
            let found = answering::rows(file.questions(), tokenizer, options.threads);
            if need == Need::Required
                && let Some(row) = found.iter().find(|row| !row.answered)
            {
                let problem =
                    format!("question {} has no answers: expected \"answers\", empty if there is none", row.id);
                return Err(TaskError::File { path: path.clone(), problem });
            }
            rows.extend(found);
        }
        Ok(rows)
    }

    /// JSON with a `question`, a `context` and perhaps an `id`.
    fn parse_line(&self, _: &Options, line: &str, tokenizer: &Tokenizer) -> Result<answering::Row, TaskError> {
        let object = json_line(line)?;
        let object = object.ok_or_else(|| {
            TaskError::input("line", "expected a JSON object such as {\"question\": \"…\", \"context\": \"…\"}")
        })?;
        let id = object.get("id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        let question = Question {
            id: id.unwrap_or_default(),
            title: String::new(),
            question: string_of(&object, "question")?,
            context: string_of(&object, "context")?.into(),
            answers: Vec::new(),
            impossible: false,
        };
        answering::rows(&[question], tokenizer, 1).pop().ok_or_else(|| TaskError::input("line", "no question"))
    }
}

/// The names of a model's labels: `LABEL_0`, … where its configuration has none, as Transformers calls them.
fn labels_of(config: &Config, count: usize) -> Vec<String> {
    let named = config.labels().filter(|labels| labels.len() == count);
    named.unwrap_or_else(|| (0..count).map(|id| format!("LABEL_{id}")).collect())
}
