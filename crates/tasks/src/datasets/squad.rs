//! Questions about a text whose answers are parts of that text.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::file::{plain_name, read_text};
use super::table::{kind, objects};
use crate::TaskError;

/// An answer and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// The byte of the context where it begins (files count Unicode characters).
    pub start: usize,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Unique within the file: predictions are written under it.
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
    /// It is left out and counted, and so is a question that is left without any.
    Skip,
    /// No answer is looked at: questions are to be answered.
    Ignore,
}

/// What reading mended or left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SquadNotes {
    /// Answers that stand elsewhere in the context than the file says: the nearest place was taken.
    pub moved_answers: usize,
    /// Answers left out under [`BadAnswers::Skip`].
    pub skipped_answers: usize,
    /// Questions left out because all their answers were.
    pub skipped_questions: usize,
}

/// The questions of one file, at least one.
#[derive(Clone, Debug)]
pub struct Questions {
    path: PathBuf,
    questions: Vec<Question>,
    notes: SquadNotes,
}

impl Questions {
    /// Reads SQuAD's JSON (version 1.1 or 2.0: articles of paragraphs of questions), or one JSON object a line as
    /// Hugging Face exports it: `id` (the line's number if missing), `title`, `question`, `context`,
    /// `answers: {text: […], answer_start: […]}`. The content tells which.
    ///
    /// A question is impossible if `is_impossible` says so or its list of answers is there and empty, the rule of
    /// SQuAD's own evaluation script; without a list of answers nothing is known.
    ///
    /// # Errors
    /// [`TaskError::Io`] when it cannot be read; [`TaskError::Line`] for broken JSON or missing fields;
    /// [`TaskError::File`], naming the question, for an answer that its context does not hold, answers to an
    /// impossible question and an id that occurs twice; or when there are no questions.
    pub fn read(path: &Path, bad: BadAnswers) -> Result<Questions, TaskError> {
        let text = read_text(path)?;
        let mut reader = Reader { path, bad, ids: HashSet::new(), questions: Vec::new(), notes: SquadNotes::default() };
        if text.trim().is_empty() {
            return Err(TaskError::file(
                path,
                "is empty; expected questions as SQuAD's JSON or one JSON object a line",
            ));
        }
        if is_flat(path, &text) {
            reader.rows(&text)?
        } else {
            reader.articles(&text)?
        }
        if reader.questions.is_empty() {
            return Err(TaskError::file(path, "holds no questions; expected at least one"));
        }
        Ok(Questions { path: path.to_owned(), questions: reader.questions, notes: reader.notes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The questions, in order.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// What reading mended or left out.
    pub fn notes(&self) -> SquadNotes {
        self.notes
    }
}

/// Whether a file has one question a line: by its ending, or because its first line is an object without `data`.
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
    matches!(serde_json::from_str(first), Ok(Probe { data: None }))
}

#[derive(Deserialize)]
struct SquadFile {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    #[serde(default)]
    title: String,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    id: String,
    question: String,
    answers: Option<Vec<FileAnswer>>,
    is_impossible: Option<bool>,
}

#[derive(Deserialize)]
struct FileAnswer {
    text: String,
    /// In Unicode characters.
    answer_start: usize,
}

#[derive(Deserialize)]
struct FlatAnswers {
    text: Vec<String>,
    answer_start: Vec<usize>,
}

struct Reader<'a> {
    path: &'a Path,
    bad: BadAnswers,
    ids: HashSet<String>,
    questions: Vec<Question>,
    notes: SquadNotes,
}

impl Reader<'_> {
    fn articles(&mut self, text: &str) -> Result<(), TaskError> {
        let file: SquadFile = serde_json::from_str(text).map_err(|e| {
            let reason = e.to_string().replace(&format!(" at line {} column {}", e.line(), e.column()), "");
            let problem = format!(
                "not SQuAD's JSON: {reason} (column {}); expected {{\"data\": [{{\"paragraphs\": [{{\"context\", \"qas\": [{{\"id\", \"question\", \"answers\"}}]}}]}}]}}",
                e.column()
            );
            TaskError::line(self.path, e.line(), problem)
        })?;
        for article in file.data {
            for paragraph in article.paragraphs {
                let context: Arc<str> = paragraph.context.into();
                for asked in paragraph.qas {
                    self.add(asked, &article.title, &context, None)?;
                }
            }
        }
        Ok(())
    }

    fn rows(&mut self, text: &str) -> Result<(), TaskError> {
        let mut last: Arc<str> = "".into();
        for object in objects(self.path, text) {
            let (line, mut object) = object?;
            let wrong = |problem: String| TaskError::line(self.path, line, problem);
            let mut field = |key: &str| match object.remove(key) {
                Some(Value::String(text)) => Ok(Some(text)),
                None | Some(Value::Null) => Ok(None),
                Some(other) => Err(wrong(format!("\"{key}\" is {}, expected a string", kind(&other)))),
            };
            let (id, title) = (field("id")?, field("title")?.unwrap_or_default());
            let (question, context) = (field("question")?, field("context")?);
            let (Some(question), Some(context)) = (question, context) else {
                let problem = "expected the keys \"question\" and \"context\" (and \"id\", \"answers\")";
                return Err(wrong(problem.into()));
            };
            let answers = match object.remove("answers") {
                None | Some(Value::Null) => None,
                Some(value) => Some(flat_answers(value).map_err(wrong)?),
            };
            let is_impossible = match object.remove("is_impossible") {
                None | Some(Value::Null) => None,
                Some(Value::Bool(flag)) => Some(flag),
                Some(other) => return Err(wrong(format!("\"is_impossible\" is {}, expected a boolean", kind(&other)))),
            };
            let id = id.unwrap_or_else(|| line.to_string());
            // Rows of one paragraph follow one another.
            if *last != *context {
                last = context.into();
            }
            self.add(Asked { id, question, answers, is_impossible }, &title, &last.clone(), Some(line))?;
        }
        Ok(())
    }

    fn add(&mut self, asked: Asked, title: &str, context: &Arc<str>, line: Option<usize>) -> Result<(), TaskError> {
        let Asked { id, question, mut answers, mut is_impossible } = asked;
        if self.bad == BadAnswers::Ignore {
            (answers, is_impossible) = (None, None);
        }
        let wrong = |problem: String| {
            let problem = format!("question \"{id}\": {problem}");
            Err(match line {
                Some(line) => TaskError::line(self.path, line, problem),
                None => TaskError::file(self.path, problem),
            })
        };
        if !self.ids.insert(id.clone()) {
            return wrong("its id occurs twice; expected each once".into());
        }
        let known = answers.is_some();
        let given = answers.unwrap_or_default();
        let impossible = is_impossible == Some(true) || known && given.is_empty();
        if impossible && !given.is_empty() {
            return wrong(format!("is_impossible, but has {} answers; expected none", given.len()));
        }
        let asked = given.len();
        let mut answers = Vec::with_capacity(asked);
        for FileAnswer { text, answer_start } in given {
            match place(context, &text, answer_start) {
                Some(start) => {
                    self.notes.moved_answers += usize::from(start.moved);
                    answers.push(Answer { text, start: start.byte });
                }
                None if self.bad == BadAnswers::Skip => self.notes.skipped_answers += 1,
                None => {
                    let problem = "is not in its context; mend it, or leave such answers out with --skip-bad";
                    return wrong(format!("its answer \"{text}\" {problem}"));
                }
            }
        }
        if answers.is_empty() && asked > 0 {
            self.notes.skipped_questions += 1;
            return Ok(());
        }
        let context = context.clone();
        self.questions.push(Question { id, title: title.to_owned(), question, context, answers, impossible });
        Ok(())
    }
}

/// Columns of texts and starts, as Hugging Face exports answers; or a list of pairs, as SQuAD writes them.
fn flat_answers(value: Value) -> Result<Vec<FileAnswer>, String> {
    if value.is_array() {
        return serde_json::from_value(value).map_err(|e| format!("\"answers\": {e}"));
    }
    let answers: FlatAnswers = serde_json::from_value(value).map_err(|e| format!("\"answers\": {e}"))?;
    let (texts, starts) = (answers.text.len(), answers.answer_start.len());
    if texts != starts {
        return Err(format!("\"answers\" has {texts} of \"text\" and {starts} of \"answer_start\", expected as many"));
    }
    let pairs = answers.text.into_iter().zip(answers.answer_start);
    Ok(pairs.map(|(text, answer_start)| FileAnswer { text, answer_start }).collect())
}

struct Place {
    byte: usize,
    moved: bool,
}

/// Where in a context an answer stands: where the file says, in characters, or else the occurrence nearest to that.
fn place(context: &str, text: &str, characters: usize) -> Option<Place> {
    if text.is_empty() {
        return None;
    }
    let said = if context.is_ascii() {
        characters.min(context.len())
    } else {
        context.char_indices().nth(characters).map_or(context.len(), |(byte, _)| byte)
    };
    if context.get(said..).is_some_and(|rest| rest.starts_with(text)) {
        return Some(Place { byte: said, moved: false });
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
    nearest.map(|byte| Place { byte, moved: true })
}

#[cfg(test)]
mod tests;
