//! Sentences of tagged words: named entities, parts of speech.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use cloze_data::corpus::text::parse_json;
use serde_json::{Map, Value};

use super::file::{lines, plain_name, read_text};
use super::labels::Labels;
use super::table::{TableFile, kind, objects};
use super::{LabelsNeeded, quoted_list};
use crate::TaskError;

/// A format of tagged words. In all formats except `Objects`, a blank line ends a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TagFormat {
    /// CoNLL-2003 and similar formats: one word per line, with the same number of columns on each line, separated by
    /// spaces or tabs. A line that starts with `-DOCSTART-` starts a document. Comments (`# …` before a sentence) and a
    /// header (`token tag`) are skipped.
    Columns {
        /// The number of the word's column, from 1.
        word: usize,
        /// The number of the tag's column, from 1; the last if none.
        tag: Option<usize>,
    },
    /// WikiANN: `en:word`, a tab, the tag. The language prefix is removed.
    WikiAnn,
    /// CoNLL-U (<https://universaldependencies.org/format.html>): ten columns separated by tabs, and comments with `#`;
    /// `# newdoc` starts a document. Ranges of words (`1-2`) and empty nodes (`1.1`) are skipped.
    ConllU {
        /// The number of the tag's column, from 1: see [`TagFormat::UPOS`] and [`TagFormat::XPOS`].
        tag: usize,
    },
    /// One JSON object (one per line, or a list of objects) or Parquet row per sentence. It has a list of words in
    /// `tokens` or `words`, and a list of tags (names or numbers) in the given key, else in `tags`, `labels`,
    /// `ner_tags` or `pos_tags`.
    Objects,
}

impl TagFormat {
    /// CoNLL columns: the first is the word, the last its tag.
    pub const COLUMNS: TagFormat = TagFormat::Columns { word: 1, tag: None };
    /// CoNLL-U's universal parts of speech.
    pub const UPOS: TagFormat = TagFormat::ConllU { tag: 4 };
    /// CoNLL-U's language-specific parts of speech.
    pub const XPOS: TagFormat = TagFormat::ConllU { tag: 5 };

    /// Detects the format by the extension `.conllu`, else by the lines: JSON is `Objects`; if all lines have the same
    /// language before a colon and one tab, it is WikiANN; if the first line has ten columns and starts with 1, it is
    /// CoNLL-U; everything else is columns.
    fn guess(path: &Path, text: &str) -> TagFormat {
        let mut token_lines = lines(text).map(|(_, line)| line.trim_end()).filter(|line| !line.trim().is_empty());
        let language = |line: &str| {
            let (language, rest) = line.split_once(':')?;
            let plausible = (2..=12).contains(&language.len())
                && language.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
                && rest.matches('\t').count() == 1;
            plausible.then(|| language.to_owned())
        };
        let name = plain_name(path);
        if name.ends_with(".conllu") {
            return TagFormat::UPOS;
        }
        let is_json = |line: &str| serde_json::from_str::<Map<String, Value>>(line).is_ok();
        let begins_list =
            |text: &str| text.trim_start().strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with('{'));
        let is_json_name = [".json", ".jsonl", ".ndjson"].iter().any(|ending| name.ends_with(ending));
        if is_json_name || begins_list(text) || token_lines.clone().next().is_some_and(is_json) {
            return TagFormat::Objects;
        }
        let first = token_lines.clone().find(|line| !line.starts_with('#')).unwrap_or_default();
        if first.split('\t').count() == CONLLU_COLUMNS && first.starts_with('1') {
            return TagFormat::UPOS;
        }
        match language(first) {
            Some(found) if token_lines.all(|line| language(line).as_ref() == Some(&found)) => TagFormat::WikiAnn,
            _ => TagFormat::COLUMNS,
        }
    }
}

/// Keys of a sentence's words.
const WORDS: [&str; 2] = ["tokens", "words"];
/// Keys of a sentence's tags, in order of preference.
const TAGS: [&str; 4] = ["tags", "labels", "ner_tags", "pos_tags"];

/// ID, FORM, LEMMA, UPOS, XPOS, FEATS, HEAD, DEPREL, DEPS, MISC.
const CONLLU_COLUMNS: usize = 10;

/// A sentence; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedSentence {
    /// The words.
    pub words: Vec<String>,
    /// One tag per word; empty if the file has no tags.
    pub tags: Vec<String>,
    /// The number of its document in the file, from 0.
    pub document: usize,
    /// The line of its first word, from 1.
    pub line: usize,
}

/// The sentences of one file; at least one.
#[derive(Clone, Debug)]
pub struct TaggedSentences {
    path: PathBuf,
    format: TagFormat,
    sentences: Vec<TaggedSentence>,
    has_numbers: bool,
    notes: Vec<String>,
}

impl TaggedSentences {
    /// Reads the sentences of a file. Without a format, it is detected from the extension and the lines.
    ///
    /// # Errors
    /// [`TaskError::Io`] if the file cannot be read; [`TaskError::File`] if it has no words or is a table of texts;
    /// [`TaskError::Line`] for a line with a different number of columns, a word without a tag among tagged words, an
    /// empty word, and a missing tag if tags are required; [`TaskError::Setting`] for a column that the format does not
    /// have.
    ///
    /// ```
    /// use cloze_tasks::datasets::{LabelsNeeded, tagged::TaggedSentences};
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("train.txt");
    /// std::fs::write(&path, "-DOCSTART- -X- O O\n\nU.N. NNP I-NP B-ORG\nofficial NN I-NP O\n")?;
    /// let file = TaggedSentences::read(&path, None, LabelsNeeded::Required)?;
    /// assert_eq!(file.sentences()[0].words, ["U.N.", "official"]);
    /// assert_eq!(file.sentences()[0].tags, ["B-ORG", "O"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(path: &Path, format: Option<TagFormat>, need: LabelsNeeded) -> Result<TaggedSentences, TaskError> {
        TaggedSentences::read_key(path, format, None, need)
    }

    /// As [`read`](Self::read). In JSON and Parquet files the tags are in the key `key`, if it is given.
    ///
    /// # Errors
    /// Those of `read`; [`TaskError::Setting`] for a key if the file has no keys.
    pub fn read_key(
        path: &Path,
        format: Option<TagFormat>,
        key: Option<&str>,
        need: LabelsNeeded,
    ) -> Result<TaggedSentences, TaskError> {
        let name = plain_name(path);
        let mut reader = Reader {
            path,
            need,
            is_given: format.is_some(),
            tagged: None,
            sentences: Vec::new(),
            words: Vec::new(),
            tags: Vec::new(),
            first_line: 0,
            document: 0,
            document_has_sentences: false,
            has_numbers: false,
            notes: Vec::new(),
        };
        let is_parquet = [".parquet", ".pq"].iter().any(|ending| name.ends_with(ending));
        let format = if is_parquet {
            reader.parquet(key)?;
            TagFormat::Objects
        } else {
            let text = read_text(path)?;
            let format = format.unwrap_or_else(|| TagFormat::guess(path, &text));
            if let (Some(key), false) = (key, format == TagFormat::Objects) {
                let problem = format!(
                    "the columns of {} have no names, found {key}; set `tag_column` to the number of the column",
                    path.display()
                );
                return Err(TaskError::setting("label", problem));
            }
            match format {
                TagFormat::Columns { word, tag } => reader.columns(&text, word, tag)?,
                TagFormat::WikiAnn => reader.wikiann(&text)?,
                TagFormat::ConllU { tag } => reader.conllu(&text, tag)?,
                TagFormat::Objects => reader.objects(&text, key)?,
            }
            format
        };
        reader.end_sentence();
        let Reader { sentences, has_numbers, notes, .. } = reader;
        if sentences.is_empty() {
            return Err(TaskError::file(path, "expected at least one sentence, found no words"));
        }
        Ok(TaggedSentences { path: path.to_owned(), format, sentences, has_numbers, notes })
    }

    /// Whether tags are numbers without names.
    pub fn has_numbers(&self) -> bool {
        self.has_numbers
    }

    /// Notes for the user about what was skipped or chosen.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format in which the file was read.
    pub fn format(&self) -> TagFormat {
        self.format
    }

    /// The sentences, in order.
    pub fn sentences(&self) -> &[TaggedSentence] {
        &self.sentences
    }

    /// Whether the words have tags: either all have one or none.
    pub fn is_tagged(&self) -> bool {
        self.sentences.iter().all(|sentence| !sentence.tags.is_empty())
    }

    /// The distinct tags, sorted as by [`Labels::from_data`].
    ///
    /// # Errors
    /// [`TaskError::File`] if there are no tags.
    pub fn labels(&self) -> Result<Labels, TaskError> {
        let tags = self.sentences.iter().flat_map(|sentence| sentence.tags.iter().map(String::as_str));
        Labels::from_data(tags).map_err(|_| TaskError::file(&self.path, "expected a tag for each word, found none"))
    }

    /// The index of the tag of each word of a sentence; empty for a sentence without tags. `unknown` may return an
    /// index for a tag that is not in `labels`.
    ///
    /// # Errors
    /// [`TaskError::Line`] for an unknown tag without an index.
    pub fn tag_ids(
        &self,
        sentence: &TaggedSentence,
        labels: &Labels,
        mut unknown: impl FnMut(&str) -> Option<usize>,
    ) -> Result<Vec<usize>, TaskError> {
        let read = |tag: &str| match labels.id_or_problem(tag) {
            // A 0 among names means O, it is not the index of a label.
            Ok(_) if !self.has_numbers && labels.is_assumed(tag) => Err(labels.unknown(tag)),
            found => found,
        };
        let mut id = |(index, (word, tag)): (usize, (&String, &String))| match read(tag) {
            Ok(id) => Ok(id),
            Err(problem) => unknown(tag).ok_or_else(|| {
                let problem = format!("word {} of the sentence (\"{word}\"): {problem}", index + 1);
                TaskError::line(&self.path, sentence.line, problem)
            }),
        };
        sentence.words.iter().zip(&sentence.tags).enumerate().map(&mut id).collect()
    }
}

struct Reader<'a> {
    path: &'a Path,
    need: LabelsNeeded,
    /// Whether the caller gave the format.
    is_given: bool,
    /// Whether the words have tags; the first word decides.
    tagged: Option<bool>,
    sentences: Vec<TaggedSentence>,
    /// The words of the current sentence.
    words: Vec<String>,
    tags: Vec<String>,
    first_line: usize,
    document: usize,
    /// Whether the current document has a sentence.
    document_has_sentences: bool,
    has_numbers: bool,
    notes: Vec<String>,
}

/// The cells of a line of columns, without trailing white space.
fn cells(line: &str) -> Vec<&str> {
    let text = line.trim_end();
    if line.contains('\t') {
        text.split('\t').map(|cell| cell.trim_matches(' ')).collect()
    } else {
        // Only at spaces: a word may contain other white space.
        text.split(' ').filter(|cell| !cell.is_empty()).collect()
    }
}

/// The tag of a line of columns, given the indices of word and tag.
fn tag_of<'a>(cells: &[&'a str], (word, tag): (usize, usize)) -> Option<&'a str> {
    cells.get(tag).filter(|_| tag != word).map(|tag| tag.trim())
}

/// First cells of the headers of files of words, and of files of texts.
const WORD_HEADERS: [&str; 5] = ["token", "tokens", "word", "words", "form"];
const TEXT_HEADERS: [&str; 6] = ["text", "sentence", "sentence1", "premise", "question", "review"];
const TAG_HEADERS: [&str; 12] =
    ["tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "ner-tag", "pos", "pos_tag", "pos_tags", "upos"];

impl Reader<'_> {
    fn columns(&mut self, text: &str, word: usize, tag: Option<usize>) -> Result<(), TaskError> {
        if !self.is_given && plain_name(self.path).ends_with(".csv") {
            let problem = "expected a file of tagged words, with a word and its tag per line (CoNLL) or JSON with lists; found a CSV table";
            return Err(TaskError::file(self.path, problem));
        }
        let (word_index, tag_index) = (from_one(word)?, tag.map(from_one).transpose()?);
        let of_words = |line: &str| !line.trim().is_empty() && !line.starts_with("-DOCSTART-");
        let all = || lines(text).filter(|(_, line)| of_words(line));
        // Words that start with # are rare: the other lines determine whether it is a comment.
        let plain = || all().filter(|(_, line)| !line.starts_with('#'));
        let Some((first_line, first)) = plain().next().or_else(|| all().next()) else { return Ok(()) };
        let expected = cells(first).len();
        let tag_index = tag_index.unwrap_or(expected - 1);
        let places = (word_index, tag_index);
        let first_cells = cells(first);
        let is_header = tag_of(&first_cells, places).is_some_and(|tag| {
            let named = |cell: Option<&&str>, names: &[&str]| {
                cell.is_some_and(|cell| names.contains(&cell.to_lowercase().as_str()))
            };
            let heads = [&WORD_HEADERS[..], &TEXT_HEADERS].concat();
            named(first_cells.get(word_index), &heads)
                && named(Some(&tag), &TAG_HEADERS)
                && plain().skip(1).all(|(_, line)| tag_of(&cells(line), places) != Some(tag))
        });
        let tags: HashSet<&str> = plain().filter_map(|(_, line)| tag_of(&cells(line), places)).collect();
        if !self.is_given {
            let is_text = |cell: Option<&&str>| cell.is_some_and(|cell| cell.contains(' '));
            let (mut words, mut texts) = (0, 0);
            for (_, line) in all() {
                words += 1;
                texts += usize::from(is_text(cells(line).get(word_index)));
            }
            let heads_texts = is_header
                && first_cells.first().is_some_and(|cell| TEXT_HEADERS.contains(&cell.to_lowercase().as_str()));
            if texts * 2 > words || heads_texts {
                let problem = "expected a word and its tag per line, found a table of texts. To classify texts use the kind classify; if \
                               these are words, set `tag_format` to columns";
                return Err(TaskError::file(self.path, problem));
            }
        }
        if is_header {
            self.notes.push(format!("line {first_line} (\"{}\") is a header and is skipped", first.trim_end()));
        }
        for (line, text) in lines(text) {
            if text.trim().is_empty() {
                self.end_sentence();
                continue;
            }
            if text.starts_with("-DOCSTART-") {
                self.begin_document();
                continue;
            }
            let cells = cells(text);
            let may_be_comment = self.words.is_empty() && text.starts_with("# ");
            let is_word = cells.len() == expected && tag_of(&cells, places).is_none_or(|tag| tags.contains(tag));
            if is_header && line == first_line || may_be_comment && !is_word {
                continue;
            }
            if cells.len() != expected {
                let found = cells.len();
                let problem = format!("expected {expected} columns, as in the first line of words, found {found}");
                return Err(TaskError::line(self.path, line, problem));
            }
            let Some(word) = cells.get(word_index) else {
                let problem = format!("expected the word in column {word}, found {expected} columns");
                return Err(TaskError::line(self.path, line, problem));
            };
            self.add(line, word, tag_of(&cells, places))?;
        }
        Ok(())
    }

    /// One JSON object per line, or a list of objects.
    fn objects(&mut self, text: &str, key: Option<&str>) -> Result<(), TaskError> {
        if text.trim_start().starts_with('[') {
            let list: Vec<Map<String, Value>> = parse_json(text, &mut 0).map_err(|e| {
                let problem = format!("expected a list of JSON objects: {e}");
                TaskError::file(self.path, problem)
            })?;
            return list.into_iter().zip(1..).try_for_each(|(object, number)| self.object(number, object, key, None));
        }
        let path = self.path;
        objects(path, text).try_for_each(|object| {
            let (line, object) = object?;
            self.object(line, object, key, None)
        })
    }

    fn parquet(&mut self, key: Option<&str>) -> Result<(), TaskError> {
        let file = TableFile::open(self.path)?;
        let keys: Vec<&str> = WORDS.into_iter().chain(TAGS).chain(key).collect();
        file.objects(&keys)?.into_iter().try_for_each(|row| {
            let (line, object) = row?;
            self.object(line, object, key, Some(&file))
        })
    }

    /// Adds the sentence of an object. `file` is the table that it comes from, which may have names for numeric tags.
    fn object(
        &mut self,
        line: usize,
        mut object: Map<String, Value>,
        key: Option<&str>,
        file: Option<&TableFile>,
    ) -> Result<(), TaskError> {
        let path = self.path;
        let wrong = |problem: String| TaskError::line(path, line, problem);
        let keys = quoted_list(object.keys().map(String::as_str));
        let list = |object: &mut Map<String, Value>, key: &str| match object.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => {
                Err(wrong(format!("\"{key}\" is {}, expected a list with an entry for each word", kind(&other))))
            }
        };
        let words = WORDS.iter().find_map(|key| list(&mut object, key).transpose()).transpose()?;
        let Some(words) = words else {
            return Err(wrong(format!("expected a list of words in {}; the keys are {keys}", quoted_list(WORDS))));
        };
        let present: Vec<&str> =
            TAGS.into_iter().filter(|tags| object.get(*tags).is_some_and(|tags| !tags.is_null())).collect();
        let tags_key = key.or(present.first().copied());
        let tags = tags_key.map(|key| list(&mut object, key)).transpose()?.flatten();
        if let (Some(key), None) = (key, &tags)
            && self.need == LabelsNeeded::Required
        {
            return Err(wrong(format!("no list \"{key}\"; the keys are {keys}")));
        }
        if self.sentences.is_empty() && key.is_none() && present.len() > 1 {
            self.notes.push(format!(
                "the tags are read from \"{}\"; set `label` to use a different one of {}",
                present[0],
                quoted_list(present.iter().copied())
            ));
        }
        if let Some(tags) = &tags
            && tags.len() != words.len()
        {
            let key = tags_key.unwrap_or_default();
            return Err(wrong(format!(
                "{} words and {} entries of \"{key}\"; expected the same number",
                words.len(),
                tags.len()
            )));
        }
        let names = tags_key.zip(file).and_then(|(key, file)| file.class_names(key));
        for (number, word) in words.iter().enumerate() {
            let Value::String(word) = word else {
                return Err(wrong(format!("word {} is {}, expected a string", number + 1, kind(word))));
            };
            let tag = match tags.as_ref().map(|tags| &tags[number]) {
                None => None,
                Some(Value::String(tag)) => Some(tag.trim().to_owned()),
                Some(Value::Number(id)) => Some(match (&names, id.as_u64()) {
                    (None, _) => {
                        self.has_numbers = true;
                        id.to_string()
                    }
                    (Some(names), Some(id)) if (id as usize) < names.len() => names[id as usize].clone(),
                    (Some(names), _) => {
                        return Err(wrong(format!(
                            "word {}: expected a tag below {}, the file's number of names, found {id}",
                            number + 1,
                            names.len()
                        )));
                    }
                }),
                Some(other) => {
                    return Err(wrong(format!(
                        "the tag of word {} is {}, expected a name or a number",
                        number + 1,
                        kind(other)
                    )));
                }
            };
            self.add(line, word, tag.as_deref())?;
        }
        self.end_sentence();
        Ok(())
    }

    fn wikiann(&mut self, text: &str) -> Result<(), TaskError> {
        for (line, text) in lines(text) {
            if text.trim().is_empty() {
                self.end_sentence();
                continue;
            }
            let text = text.trim_end();
            let (word, tag) = match text.rsplit_once('\t') {
                Some((word, tag)) => (word, Some(tag.trim())),
                None => (text, None),
            };
            let Some((_, word)) = word.split_once(':').filter(|(_, word)| !word.contains('\t')) else {
                let problem = format!("expected language:word, a tab and a tag (WikiANN), found \"{text}\"");
                return Err(TaskError::line(self.path, line, problem));
            };
            self.add(line, word.trim_matches(' '), tag)?;
        }
        Ok(())
    }

    fn conllu(&mut self, text: &str, tag: usize) -> Result<(), TaskError> {
        let tag_index = from_one(tag)?;
        if tag > CONLLU_COLUMNS {
            let problem = format!("expected a column from 1 to {CONLLU_COLUMNS} (CoNLL-U), found {tag}");
            return Err(TaskError::Setting { name: "tag_column", problem });
        }
        for (line, text) in lines(text) {
            if text.trim().is_empty() {
                self.end_sentence();
                continue;
            }
            if let Some(comment) = text.strip_prefix('#') {
                let key = comment.split(['=', ' ']).find(|part| !part.is_empty());
                if key == Some("newdoc") {
                    self.begin_document();
                }
                continue;
            }
            let cells: Vec<&str> = text.split('\t').collect();
            let wrong = |problem: String| TaskError::line(self.path, line, problem);
            let (&[id, word, ..], Some(&tag)) = (cells.as_slice(), cells.get(tag_index)) else {
                return Err(wrong(conllu_width(cells.len())));
            };
            if cells.len() != CONLLU_COLUMNS {
                return Err(wrong(conllu_width(cells.len())));
            }
            if id.contains(['-', '.']) {
                continue;
            }
            let expected = self.words.len() + 1;
            if id.parse() != Ok(expected) {
                let problem = format!(
                    "expected word number {expected}, found \"{id}\" (is a blank line missing before this sentence?)"
                );
                return Err(wrong(problem));
            }
            self.add(line, word.trim_matches(' '), Some(tag.trim()).filter(|&tag| tag != "_"))?;
        }
        Ok(())
    }

    fn add(&mut self, line: usize, word: &str, tag: Option<&str>) -> Result<(), TaskError> {
        let wrong = |problem: String| Err(TaskError::line(self.path, line, problem));
        if word.is_empty() || tag == Some("") {
            return wrong(format!("the {} is empty", if word.is_empty() { "word" } else { "tag" }));
        }
        if tag.is_none() && self.need == LabelsNeeded::Required {
            return wrong(format!("expected a tag for each word, found none for \"{word}\""));
        }
        match (*self.tagged.get_or_insert(tag.is_some()), tag) {
            (true, None) => return wrong(format!("\"{word}\" has no tag, but previous words have tags")),
            (false, Some(tag)) => {
                return wrong(format!("\"{word}\" has the tag \"{tag}\", but previous words have none"));
            }
            (true, Some(tag)) => self.tags.push(tag.to_owned()),
            (false, None) => {}
        }
        if self.words.is_empty() {
            self.first_line = line;
        }
        self.words.push(word.to_owned());
        Ok(())
    }

    fn end_sentence(&mut self) {
        if self.words.is_empty() {
            return;
        }
        let (words, tags) = (std::mem::take(&mut self.words), std::mem::take(&mut self.tags));
        self.sentences.push(TaggedSentence { words, tags, document: self.document, line: self.first_line });
        self.document_has_sentences = true;
    }

    fn begin_document(&mut self) {
        self.end_sentence();
        if std::mem::take(&mut self.document_has_sentences) {
            self.document += 1;
        }
    }
}

fn conllu_width(found: usize) -> String {
    format!("expected {CONLLU_COLUMNS} columns separated by tabs (CoNLL-U), found {found}")
}

/// The index of a column whose number counts from 1.
fn from_one(number: usize) -> Result<usize, TaskError> {
    number
        .checked_sub(1)
        .ok_or_else(|| TaskError::Setting { name: "tag_column", problem: "expected a number from 1, found 0".into() })
}

#[cfg(test)]
mod tests;
