//! Questions about a text whose answers are parts of that text.

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

/// An answer and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// The byte of the context where it begins (files count Unicode characters); 0 in a context without a character that is seen.
    pub start: usize,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Predictions are written under it; unique within the file, unless answers are [ignored](BadAnswers::Ignore).
    pub id: String,
    /// The article's title; empty if the file gives none.
    pub title: String,
    /// What is asked.
    pub question: String,
    /// The text that holds the answer, shared by the questions of a paragraph.
    pub context: Arc<str>,
    /// The answers that annotators gave, in order, repeated ones included; none in a file without.
    pub answers: Vec<Answer>,
    /// Whether the file says that the context has no answer (SQuAD 2.0).
    pub impossible: bool,
}

/// What to do with an answer whose text the context does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadAnswers {
    /// It is an error.
    #[default]
    Error,
    /// It is left out and counted; a question that is left without any is an error.
    Skip,
    /// No answer is looked at: questions are to be answered.
    Ignore,
}

/// What reading changed, made up or found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SquadNotes {
    /// Answers that stand elsewhere in the context than the file says: the nearest place was taken.
    pub moved_answers: usize,
    /// Answers whose `answer_start` is right when UTF-16 units are counted, as JavaScript and Java do: that place was taken.
    pub in_utf16: usize,
    /// Answers whose `answer_start` is right when bytes of UTF-8 are counted: that place was taken.
    pub in_bytes: usize,
    /// Answers without `answer_start`: their first place in the context was taken.
    pub without_start: usize,
    /// Questions without an id: their line, or their number in the file, is their id.
    pub without_id: usize,
    /// Questions that the file says have no answer (SQuAD 2.0).
    pub impossible: usize,
    /// Answers left out under [`BadAnswers::Skip`].
    pub skipped_answers: usize,
}

/// The questions of one file, at least one.
#[derive(Debug)]
pub struct Questions {
    questions: FileRows<Question>,
    notes: SquadNotes,
}

impl Questions {
    /// Reads SQuAD's JSON (version 1.1 or 2.0: articles of paragraphs of questions) or rows of `id`, `title`, `question`, `context` and
    /// `answers`, as Hugging Face exports them: one JSON object a line, or a list of them, alone or as `data`; the content tells which. A
    /// Parquet file has such rows, too.
    /// Parts of SQuAD's JSON are read alone, too: a list of articles or of paragraphs, or one of them a line.
    ///
    /// `answers` is a list of `{text, answer_start}`, one such object, an object of two lists, or texts alone. An `answer_start` may be
    /// a string; −1, null and a missing one say that the place is not known. An empty text is no answer.
    ///
    /// A question is impossible if `is_impossible` says so or its list of answers is there and has no answer, the rule of
    /// SQuAD's own evaluation script; without a list of answers nothing is known.
    ///
    /// A question that cannot be used is an error in its place: without a text, with an id that came before, with answers though it is
    /// impossible, with an answer that its context does not hold. The message names the question.
    ///
    /// # Errors
    /// [`TaskError::Io`] when the file cannot be read; [`TaskError::Line`] for broken JSON; [`TaskError::File`] for JSON of another
    /// kind or without questions.
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
                let problem = "is empty; expected questions as SQuAD's JSON or one JSON object a line";
                return Err(TaskError::file(path, problem));
            }
            match is_flat(path, &text) {
                true => reader.rows(objects(path, &text))?,
                false => reader.whole(&text)?,
            }
        }
        if reader.questions.is_empty() {
            return Err(TaskError::file(path, "holds no questions; expected at least one"));
        }
        Ok(Questions { questions: reader.questions, notes: reader.notes })
    }

    /// The questions, in order; errors in the places of those that cannot be used.
    pub fn into_questions(self) -> FileRows<Question> {
        self.questions
    }

    /// What reading changed, made up or found out.
    pub fn notes(&self) -> SquadNotes {
        self.notes
    }
}

/// Whether a file has one object a line: by its ending, or because its first line is an object without `data`.
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

/// The columns of rows.
const COLUMNS: [&str; 6] = ["id", "title", "question", "context", "answers", "is_impossible"];

/// The shapes that are read, for messages.
const EXPECTED: &str = "expected {\"data\": [{\"paragraphs\": [{\"context\", \"qas\": [{\"id\", \"question\", \"answers\"}]}]}]}, \
                        or rows of \"question\", \"context\" and \"answers\"";

/// An answer as its file has it.
struct Given {
    text: String,
    /// Where it begins, if that is known.
    start: Option<usize>,
}

struct Reader<'a> {
    path: &'a Path,
    bad: BadAnswers,
    ids: HashSet<String>,
    /// The context last read: rows of one paragraph follow one another.
    context: Arc<str>,
    questions: FileRows<Question>,
    notes: SquadNotes,
}

impl Reader<'_> {
    /// Adds the questions of rows with their lines.
    fn rows(
        &mut self,
        rows: impl IntoIterator<Item = Result<(usize, Map<String, Value>), TaskError>>,
    ) -> Result<(), TaskError> {
        for row in rows {
            match row {
                // MRQA's first line says what the file is.
                Ok((_, object)) if object.contains_key("header") && object.len() == 1 => {}
                Ok((line, object)) => self.walk(Value::Object(object), "", Some(line))?,
                Err(error) => self.questions.push(Err(error)),
            }
        }
        Ok(())
    }

    fn whole(&mut self, text: &str) -> Result<(), TaskError> {
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

    /// Adds the questions of an article, a paragraph, a row, or a list of these.
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
            Some(Value::Array(asked)) => {
                for asked in asked {
                    match asked {
                        Value::Object(asked) => self.add(asked, title, &context, line),
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

    /// Puts an error in a question's place.
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
            // A file to be answered may be of another year's form.
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
            return Err("its id occurs twice; expected each once".to_owned());
        }
        if impossible && !given.is_empty() {
            return Err(format!("is_impossible, but has {} answers; expected none", given.len()));
        }
        let asked = given.len();
        let mut answers = Vec::with_capacity(asked);
        let mut counts = self.notes;
        let mut first_problem = None;
        // A blank context cannot hold its answers: the question cannot be answered, and its answers are not wrong.
        let is_blank = context.chars().all(|c| c.is_whitespace() || c.is_other());
        for Given { text, start } in given {
            let found = if is_blank { Ok(Place { byte: 0, how: How::AsSaid }) } else { place(&context, &text, start) };
            match found {
                Ok(Place { byte, how }) => {
                    match how {
                        How::AsSaid => {}
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
            return Err(format!("{problem}; correct it, or leave such answers out with --skip-bad"));
        }
        counts.impossible += usize::from(impossible);
        counts.without_id += usize::from(id.is_none());
        self.notes = counts;
        let id = id.unwrap_or_else(|| line.unwrap_or(self.questions.len() + 1).to_string());
        Ok(Question { id, title: title.to_owned(), question, context, answers, impossible })
    }
}

/// Whether an object is an article, a paragraph, a row, or holds them.
fn holds_questions(object: &Map<String, Value>) -> bool {
    ["data", "paragraphs", "qas", "question"].iter().any(|key| object.contains_key(*key))
}

fn keys_of(object: &Map<String, Value>) -> String {
    let keys: Vec<&str> = object.keys().take(10).map(String::as_str).collect();
    format!("an object with the keys {}", keys.join(", "))
}

/// A text of a question.
fn string(key: &str, value: Option<Value>) -> Result<String, String> {
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("\"{key}\" is {}, expected a string", kind(&other))),
        None => Err(format!("no \"{key}\"; expected the keys \"question\" and \"context\" (and \"id\", \"answers\")")),
    }
}

/// Yes, no or unknown, as JSON, pandas and CSV exports write it.
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

/// The answers that a question has, in any of the forms that are in use.
fn given_answers(value: Option<Value>) -> Result<Option<Vec<Given>>, String> {
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
                        "\"answers\" has {} of \"text\" and {} of \"answer_start\", expected as many",
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
        Value::String(text) => Ok(Given { text, start: None }),
        Value::Object(mut object) => match object.remove("text") {
            Some(Value::String(text)) => Ok(Given { text, start: start_of(object.remove("answer_start"))? }),
            Some(other) => Err(format!("the \"text\" of an answer is {}, expected a string", kind(&other))),
            None => Err(format!("an answer has no \"text\", {FORMS}")),
        },
        other => Err(format!("an answer is {}, {FORMS}", kind(&other))),
    };
    answers.into_iter().map(given).collect::<Result<_, _>>().map(Some)
}

/// Where an answer begins, in characters; none if its file does not say.
fn start_of(value: Option<Value>) -> Result<Option<usize>, String> {
    let number = match &value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        Some(_) => None,
    };
    match number {
        Some(number) if number.fract() == 0.0 => Ok((number >= 0.0).then_some(number as usize)),
        _ => Err(format!("\"answer_start\" is {}, expected a whole number of characters", value.unwrap_or_default())),
    }
}

#[derive(Debug, PartialEq)]
struct Place {
    byte: usize,
    how: How,
}

/// How an answer's place was found.
#[derive(Debug, PartialEq)]
enum How {
    AsSaid,
    /// As the file says if UTF-16 units are counted.
    Utf16,
    /// As the file says if bytes are counted.
    Bytes,
    Nearest,
    /// The file does not say.
    First,
}

/// Where in a context an answer stands: where the file says, in characters, or in the units of other programs, or else the occurrence
/// nearest to that.
fn place(context: &str, text: &str, said: Option<usize>) -> Result<Place, String> {
    if text.trim().is_empty() {
        return Err("is white space alone".to_owned());
    }
    let Some(characters) = said else {
        let byte = context.find(text).ok_or_else(|| absence(context, text))?;
        return Ok(Place { byte, how: How::First });
    };
    let is_at = |byte: usize| context.get(byte..).is_some_and(|rest| rest.starts_with(text));
    let said = if context.is_ascii() {
        characters.min(context.len())
    } else {
        context.char_indices().nth(characters).map_or(context.len(), |(byte, _)| byte)
    };
    if is_at(said) {
        return Ok(Place { byte: said, how: How::AsSaid });
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
    // Overlapping ones too: each search goes on one character after the last find.
    let step = text.chars().next().map_or(1, char::len_utf8);
    let mut nearest: Option<usize> = None;
    let mut from = 0;
    while let Some(found) = context.get(from..).and_then(|rest| rest.find(text)) {
        let byte = from + found;
        if nearest.is_none_or(|nearest| byte.abs_diff(said) < nearest.abs_diff(said)) {
            nearest = Some(byte);
        }
        from = byte + step;
    }
    nearest.map(|byte| Place { byte, how: How::Nearest }).ok_or_else(|| absence(context, text))
}

/// Why a context does not hold an answer, if only the way of writing differs.
fn absence(context: &str, text: &str) -> String {
    let composed = |text: &str| text.nfc().map(|(c, _)| c).collect::<String>();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (context_form, text_form) = (composed(context), composed(text));
    let hint = if context_form.contains(&text_form) {
        ": there its accents are composed otherwise (Unicode's NFC and NFD look alike); bring both to one form"
    } else if context_form.to_lowercase().contains(&text_form.to_lowercase()) {
        ": there it has other capital letters"
    } else if words(&context_form).contains(&words(&text_form)) {
        ": there it has other white space"
    } else {
        ""
    };
    format!("is not in its context{hint}")
}

#[cfg(test)]
mod tests;
