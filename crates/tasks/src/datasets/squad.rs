//! Files of questions with answers that are spans of a context: SQuAD's format and its variants.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use cloze_data::corpus::text::parse_json;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;

use super::file::{plain_name, read_text};
use super::table::{TableFile, kind, objects};
use crate::TaskError;
use crate::task::FileRows;

/// An answer and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// The byte of the context where it starts (files count Unicode characters); 0 in a context without visible
    /// characters.
    pub start: usize,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The id, by which predictions are stored. It is unique within the file, unless answers are
    /// [ignored](BadAnswers::Ignore).
    pub id: String,
    /// The title of the article; empty if the file has none.
    pub title: String,
    /// The question.
    pub question: String,
    /// The text that contains the answer, shared by the questions of a paragraph.
    pub context: Arc<str>,
    /// The answers of the annotators, in order, including duplicates; empty in a file without answers.
    pub answers: Vec<Answer>,
    /// Whether the file says that the context does not contain an answer (SQuAD 2.0).
    pub impossible: bool,
}

/// How an answer is handled that the context does not contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadAnswers {
    /// It is an error.
    #[default]
    Error,
    /// It is skipped and counted; a question that has no other answer is an error.
    Skip,
    /// All answers are ignored: for prediction.
    Ignore,
}

/// Counts of what was changed or assumed while a file was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SquadNotes {
    /// Answers that are not at the stated position: the nearest occurrence is used.
    pub moved_answers: usize,
    /// Answers whose `answer_start` counts UTF-16 code units, as JavaScript and Java do: it is converted.
    pub in_utf16: usize,
    /// Answers whose `answer_start` counts bytes of UTF-8: it is converted.
    pub in_bytes: usize,
    /// Answers without `answer_start`: their first occurrence in the context is used.
    pub without_start: usize,
    /// Questions without an id: their line or their number in the file is used as id.
    pub without_id: usize,
    /// Questions that the file says have no answer (SQuAD 2.0).
    pub impossible: usize,
    /// Answers that were skipped because of [`BadAnswers::Skip`].
    pub skipped_answers: usize,
}

/// The questions of one file; at least one.
#[derive(Debug)]
pub struct Questions {
    questions: FileRows<Question>,
    notes: SquadNotes,
}

impl Questions {
    /// Reads SQuAD's JSON (version 1.1 or 2.0: articles of paragraphs of questions), or rows with `id`, `title`,
    /// `question`, `context` and `answers` as in Hugging Face's exports: one JSON object per line, or a list of
    /// objects, possibly as the value of `data`. The content determines which. Parquet files have such rows too. Parts
    /// of SQuAD's JSON are also read: a list of articles or of paragraphs, or one of them per line.
    ///
    /// `answers` is a list of `{text, answer_start}`, one such object, an object with two lists, or a list of texts. An
    /// `answer_start` may be a string; if it is −1, null or missing, the position is not known. An empty text is not an
    /// answer.
    ///
    /// A question is impossible if `is_impossible` is true, or if its list of answers exists and contains no answer, as
    /// in SQuAD's evaluation script. Without a list of answers it is not known.
    ///
    /// A question that cannot be used is an error in its position: a question without a text, with a duplicate id, with
    /// answers although it is impossible, or with an answer that its context does not contain. The message names the
    /// question.
    ///
    /// # Errors
    /// [`TaskError::Io`] if the file cannot be read; [`TaskError::Line`] for invalid JSON; [`TaskError::File`] for JSON
    /// with a different structure or without questions.
    pub fn read(path: &Path, bad: BadAnswers) -> Result<Questions, TaskError> {
        let mut reader = Reader {
            path,
            bad,
            ids: HashSet::new(),
            context: "".into(),
            questions: Vec::new(),
            notes: SquadNotes::default(),
        };
        let name = plain_name(path);
        if name.ends_with(".parquet") || name.ends_with(".pq") {
            reader.rows(TableFile::open(path)?.objects(&COLUMNS)?)?;
        } else {
            let text = read_text(path)?;
            if text.trim().is_empty() {
                let problem = "expected questions as SQuAD's JSON or as one JSON object per line, found an empty file";
                return Err(TaskError::file(path, problem));
            }
            match is_flat(path, &text) {
                true => reader.rows(objects(path, &text))?,
                false => reader.document(&text)?,
            }
        }
        if reader.questions.is_empty() {
            return Err(TaskError::file(path, "expected at least one question, found none"));
        }
        Ok(Questions { questions: reader.questions, notes: reader.notes })
    }

    /// The questions, in order; a question that cannot be used is an error in its position.
    pub fn into_questions(self) -> FileRows<Question> {
        self.questions
    }

    /// Counts of what was changed or assumed while the file was read.
    pub fn notes(&self) -> SquadNotes {
        self.notes
    }
}

/// Whether a file has one object per line: by its extension, or because its first line is an object without `data`.
fn is_flat(path: &Path, text: &str) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        data: Option<IgnoredAny>,
    }
    let name = plain_name(path);
    if name.ends_with(".jsonl") || name.ends_with(".ndjson") {
        return true;
    }
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    matches!(parse_json(first, &mut 0), Ok(Probe { data: None }))
}

/// The keys of rows.
const COLUMNS: [&str; 6] = ["id", "title", "question", "context", "answers", "is_impossible"];

/// The supported structures, for messages.
const EXPECTED: &str = "expected {\"data\": [{\"paragraphs\": [{\"context\", \"qas\": [{\"id\", \"question\", \"answers\"}]}]}]}, \
                        or rows of \"question\", \"context\" and \"answers\"";

/// An answer as it is in the file.
struct RawAnswer {
    text: String,
    /// Where it starts, in characters, if that is known.
    start: Option<usize>,
}

struct Reader<'a> {
    path: &'a Path,
    bad: BadAnswers,
    ids: HashSet<String>,
    /// The last context, which is shared: rows of one paragraph are usually consecutive.
    context: Arc<str>,
    questions: FileRows<Question>,
    notes: SquadNotes,
}

impl Reader<'_> {
    /// Adds the questions of rows, which have line numbers.
    fn rows(
        &mut self,
        rows: impl IntoIterator<Item = Result<(usize, Map<String, Value>), TaskError>>,
    ) -> Result<(), TaskError> {
        for row in rows {
            match row {
                // The first line of MRQA's files is a header.
                Ok((_, object)) if object.contains_key("header") && object.len() == 1 => {}
                Ok((line, object)) => self.walk(Value::Object(object), "", Some(line))?,
                Err(error) => self.questions.push(Err(error)),
            }
        }
        Ok(())
    }

    fn document(&mut self, text: &str) -> Result<(), TaskError> {
        let value: Value = parse_json(text, &mut 0).map_err(|e| {
            let reason = e.to_string().replace(&format!(" at line {} column {}", e.line(), e.column()), "");
            let problem = format!("not SQuAD's JSON: {reason} (column {}); {EXPECTED}", e.column());
            TaskError::line(self.path, e.line(), problem)
        })?;
        let problem = match &value {
            Value::Array(_) => None,
            Value::Object(object) if holds_questions(object) => None,
            Value::Object(object) => Some(keys_of(object)),
            other => Some(kind(other).to_owned()),
        };
        match problem {
            Some(found) => Err(TaskError::file(self.path, format!("not SQuAD's JSON: found {found}; {EXPECTED}"))),
            None => self.walk(value, "", None),
        }
    }

    /// Adds the questions of an article, a paragraph, a row, or a list of these, recursively.
    fn walk(&mut self, value: Value, title: &str, line: Option<usize>) -> Result<(), TaskError> {
        let mut object = match value {
            Value::Array(items) => return items.into_iter().try_for_each(|item| self.walk(item, title, line)),
            Value::Object(object) => object,
            other => {
                self.refuse(line, None, format!("found {}; {EXPECTED}", kind(&other)));
                return Ok(());
            }
        };
        let own = object.get("title").and_then(Value::as_str).map(str::to_owned);
        let title = own.as_deref().unwrap_or(title);
        for part in ["data", "paragraphs"] {
            match object.remove(part) {
                None => {}
                Some(list @ Value::Array(_)) => return self.walk(list, title, line),
                Some(other) => {
                    let problem = format!("\"{part}\" is {}, expected a list; {EXPECTED}", kind(&other));
                    return Err(TaskError::file(self.path, problem));
                }
            }
        }
        let context = self.context_of(object.remove("context"));
        match object.remove("qas") {
            Some(Value::Array(questions)) => {
                for question in questions {
                    match question {
                        Value::Object(question) => self.add(question, title, &context, line),
                        other => self.refuse(line, None, format!("found {}; {EXPECTED}", kind(&other))),
                    }
                }
            }
            Some(other) => {
                let problem = format!("\"qas\" is {}, expected a list; {EXPECTED}", kind(&other));
                return Err(TaskError::file(self.path, problem));
            }
            None => self.add(object, title, &context, line),
        }
        Ok(())
    }

    fn context_of(&mut self, value: Option<Value>) -> Result<Arc<str>, String> {
        let text = string("context", value)?;
        if *self.context != *text {
            self.context = text.into();
        }
        Ok(Arc::clone(&self.context))
    }

    /// Adds an error in the position of a question.
    fn refuse(&mut self, line: Option<usize>, id: Option<&str>, problem: String) {
        let problem = match (id, line) {
            (Some(id), _) => format!("question \"{id}\": {problem}"),
            (None, Some(_)) => problem,
            (None, None) => format!("question {}: {problem}", self.questions.len() + 1),
        };
        self.questions.push(Err(match line {
            Some(line) => TaskError::line(self.path, line, problem),
            None => TaskError::file(self.path, problem),
        }));
    }

    fn add(
        &mut self,
        mut object: Map<String, Value>,
        title: &str,
        context: &Result<Arc<str>, String>,
        line: Option<usize>,
    ) {
        let id = match object.remove("id").or_else(|| object.remove("qid")) {
            Some(Value::String(id)) if !id.is_empty() => Some(id),
            Some(Value::Number(id)) => Some(id.to_string()),
            None | Some(Value::Null | Value::String(_)) => None,
            Some(other) => {
                let problem = format!("\"id\" is {}, expected a string or a number", kind(&other));
                return self.refuse(line, None, problem);
            }
        };
        match self.question(object, id.clone(), title, context, line) {
            Ok(question) => self.questions.push(Ok(question)),
            Err(problem) => self.refuse(line, id.as_deref(), problem),
        }
    }

    fn question(
        &mut self,
        mut object: Map<String, Value>,
        id: Option<String>,
        title: &str,
        context: &Result<Arc<str>, String>,
        line: Option<usize>,
    ) -> Result<Question, String> {
        let question = string("question", object.remove("question"))?;
        let context = context.clone()?;
        let is_impossible = flag("is_impossible", object.remove("is_impossible"))?;
        let given = match self.bad {
            // For prediction, answers in an unknown format are ignored.
            BadAnswers::Ignore => given_answers(object.remove("answers")).unwrap_or(None),
            _ => given_answers(object.remove("answers"))?,
        };
        let known = given.is_some();
        let mut given = given.unwrap_or_default();
        given.retain(|answer| !answer.text.is_empty());
        let impossible = is_impossible == Some(true) || known && given.is_empty();
        if self.bad == BadAnswers::Ignore {
            given.clear();
        } else if id.as_ref().is_some_and(|id| !self.ids.insert(id.clone())) {
            return Err("its id occurs twice; expected unique ids".to_owned());
        }
        if impossible && !given.is_empty() {
            return Err(format!("expected no answers because is_impossible is true, found {}", given.len()));
        }
        let mut answers = Vec::with_capacity(given.len());
        let mut counts = self.notes;
        let mut first_problem = None;
        // A blank context cannot contain answers: the question cannot be answered, but its answers are not errors.
        let is_blank = context.chars().all(|c| c.is_whitespace() || c.is_other());
        for RawAnswer { text, start } in given {
            let found =
                if is_blank { Ok(Place { byte: 0, how: How::AsStated }) } else { place(&context, &text, start) };
            match found {
                Ok(Place { byte, how }) => {
                    match how {
                        How::AsStated => {}
                        How::Utf16 => counts.in_utf16 += 1,
                        How::Bytes => counts.in_bytes += 1,
                        How::Nearest => counts.moved_answers += 1,
                        How::First => counts.without_start += 1,
                    }
                    answers.push(Answer { text, start: byte });
                }
                Err(problem) => {
                    counts.skipped_answers += 1;
                    first_problem = first_problem.or(Some(format!("its answer \"{text}\" {problem}")));
                }
            }
        }
        if let Some(problem) = first_problem
            && (self.bad == BadAnswers::Error || answers.is_empty())
        {
            return Err(format!("{problem}; correct it, or set `skip_bad` to skip such answers"));
        }
        counts.impossible += usize::from(impossible);
        counts.without_id += usize::from(id.is_none());
        self.notes = counts;
        let id = id.unwrap_or_else(|| line.unwrap_or(self.questions.len() + 1).to_string());
        Ok(Question { id, title: title.to_owned(), question, context, answers, impossible })
    }
}

/// Whether an object is an article, a paragraph, a row, or contains such objects.
fn holds_questions(object: &Map<String, Value>) -> bool {
    ["data", "paragraphs", "qas", "question"].iter().any(|key| object.contains_key(*key))
}

fn keys_of(object: &Map<String, Value>) -> String {
    let keys: Vec<&str> = object.keys().take(10).map(String::as_str).collect();
    format!("an object with the keys {}", keys.join(", "))
}

/// A text value of a question.
fn string(key: &str, value: Option<Value>) -> Result<String, String> {
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("\"{key}\" is {}, expected a string", kind(&other))),
        None => Err(format!("no \"{key}\"; expected the keys \"question\" and \"context\" (and \"id\", \"answers\")")),
    }
}

/// A boolean in the forms of JSON, pandas and CSV exports; none if it is not known.
fn flag(key: &str, value: Option<Value>) -> Result<Option<bool>, String> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Bool(flag)) => return Ok(Some(flag)),
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => return Err(format!("\"{key}\" is {}, expected a boolean", kind(&other))),
    };
    match text.trim().to_lowercase().as_str() {
        "" => Ok(None),
        "true" | "1" | "1.0" => Ok(Some(true)),
        "false" | "0" | "0.0" => Ok(Some(false)),
        _ => Err(format!("\"{key}\" is \"{text}\", expected a boolean")),
    }
}

/// The answers of a question, in any of the supported structures.
fn given_answers(value: Option<Value>) -> Result<Option<Vec<RawAnswer>>, String> {
    const FORMS: &str = "expected a list of {\"text\", \"answer_start\"}, or {\"text\": […], \"answer_start\": […]}";
    let answers = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(answers)) => answers,
        Some(Value::Object(mut object)) => match object.remove("text") {
            Some(Value::Array(texts)) => {
                let starts = match object.remove("answer_start") {
                    None | Some(Value::Null) => vec![Value::Null; texts.len()],
                    Some(Value::Array(starts)) => starts,
                    Some(other) => return Err(format!("\"answer_start\" is {}, {FORMS}", kind(&other))),
                };
                if texts.len() != starts.len() {
                    return Err(format!(
                        "\"answers\" has {} of \"text\" and {} of \"answer_start\", expected the same number",
                        texts.len(),
                        starts.len()
                    ));
                }
                let answer = |(text, start)| {
                    Value::Object(Map::from_iter([("text".to_owned(), text), ("answer_start".to_owned(), start)]))
                };
                texts.into_iter().zip(starts).map(answer).collect()
            }
            Some(text) => {
                object.insert("text".to_owned(), text);
                vec![Value::Object(object)]
            }
            None => return Err(format!("\"answers\" has no \"text\", {FORMS}")),
        },
        Some(text @ Value::String(_)) => vec![text],
        Some(other) => return Err(format!("\"answers\" is {}, {FORMS}", kind(&other))),
    };
    let given = |answer| match answer {
        Value::String(text) => Ok(RawAnswer { text, start: None }),
        Value::Object(mut object) => match object.remove("text") {
            Some(Value::String(text)) => Ok(RawAnswer { text, start: start_of(object.remove("answer_start"))? }),
            Some(other) => Err(format!("the \"text\" of an answer is {}, expected a string", kind(&other))),
            None => Err(format!("an answer has no \"text\", {FORMS}")),
        },
        other => Err(format!("an answer is {}, {FORMS}", kind(&other))),
    };
    answers.into_iter().map(given).collect::<Result<_, _>>().map(Some)
}

/// Where an answer starts, in characters; none if the file does not say.
fn start_of(value: Option<Value>) -> Result<Option<usize>, String> {
    let number = match &value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        Some(_) => None,
    };
    match number {
        Some(number) if number.fract() == 0.0 => Ok((number >= 0.0).then_some(number as usize)),
        _ => Err(format!("\"answer_start\" is {}, expected an integer", value.unwrap_or_default())),
    }
}

#[derive(Debug, PartialEq)]
struct Place {
    byte: usize,
    how: How,
}

/// How the position of an answer was found.
#[derive(Debug, PartialEq)]
enum How {
    AsStated,
    /// At the stated position, counted in UTF-16 code units.
    Utf16,
    /// At the stated position, counted in bytes.
    Bytes,
    Nearest,
    /// At the first occurrence, because the file states no position.
    First,
}

/// The position of an answer in a context: the stated position in characters, or in the units of other programs, or
/// else the occurrence nearest to the stated position.
fn place(context: &str, text: &str, stated: Option<usize>) -> Result<Place, String> {
    if text.trim().is_empty() {
        return Err("is only white space".to_owned());
    }
    let Some(characters) = stated else {
        let byte = context.find(text).ok_or_else(|| not_found_problem(context, text))?;
        return Ok(Place { byte, how: How::First });
    };
    let is_at = |byte: usize| context.get(byte..).is_some_and(|rest| rest.starts_with(text));
    let stated = if context.is_ascii() {
        characters.min(context.len())
    } else {
        context.char_indices().nth(characters).map_or(context.len(), |(byte, _)| byte)
    };
    if is_at(stated) {
        return Ok(Place { byte: stated, how: How::AsStated });
    }
    if !context.is_ascii() {
        let mut units = 0;
        let in_utf16 = context.char_indices().find_map(|(byte, c)| {
            let here = (units == characters).then_some(byte);
            units += c.len_utf16();
            here
        });
        if let Some(byte) = in_utf16.filter(|byte| is_at(*byte)) {
            return Ok(Place { byte, how: How::Utf16 });
        }
        if is_at(characters) {
            return Ok(Place { byte: characters, how: How::Bytes });
        }
    }
    // Occurrences may overlap: each search starts one character after the previous occurrence.
    let step = text.chars().next().map_or(1, char::len_utf8);
    let mut nearest: Option<usize> = None;
    let mut from = 0;
    while let Some(found) = context.get(from..).and_then(|rest| rest.find(text)) {
        let byte = from + found;
        if nearest.is_none_or(|nearest| byte.abs_diff(stated) < nearest.abs_diff(stated)) {
            nearest = Some(byte);
        }
        from = byte + step;
    }
    nearest.map(|byte| Place { byte, how: How::Nearest }).ok_or_else(|| not_found_problem(context, text))
}

/// The problem of an answer that the context does not contain, with a hint if only its form differs.
fn not_found_problem(context: &str, text: &str) -> String {
    let composed = |text: &str| text.nfc().map(|(c, _)| c).collect::<String>();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (context_form, text_form) = (composed(context), composed(text));
    let hint = if context_form.contains(&text_form) {
        ": there its accents have a different Unicode normalization form (NFC and NFD look the same); normalize both"
    } else if context_form.to_lowercase().contains(&text_form.to_lowercase()) {
        ": there it has different capitalization"
    } else if words(&context_form).contains(&words(&text_form)) {
        ": there it has different white space"
    } else {
        ""
    };
    format!("is not in its context{hint}")
}

#[cfg(test)]
mod tests;
