//! Sentences of words with a tag each: named entities, parts of speech.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use cloze_data::corpus::text::parse_json;
use serde_json::{Map, Value};

use super::file::{lines, plain_name, read_text};
use super::labels::Labels;
use super::table::{TableFile, kind, objects};
use super::{LabelsNeeded, listed};
use crate::TaskError;

/// How a file of tagged words is written. In all but objects, a blank line ends a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TagFormat {
    /// CoNLL-2003 and its kin: a word a line, columns between spaces or tabs, as many on each line; a line that begins
    /// with `-DOCSTART-` begins a document. Comments (`# …` before a sentence) and a header (`token tag`) are left out.
    Columns {
        /// The number of the word's column, from 1.
        word: usize,
        /// The number of the tag's column, from 1; the last if none.
        tag: Option<usize>,
    },
    /// WikiANN: `en:word`, a tab, the tag. The language goes.
    WikiAnn,
    /// CoNLL-U (<https://universaldependencies.org/format.html>): ten columns between tabs, `#` comments, of which
    /// `# newdoc` begins a document. Ranges of words (`1-2`) and empty nodes (`1.1`) are left out.
    ConllU {
        /// The number of the tag's column, from 1: see [`TagFormat::UPOS`] and [`TagFormat::XPOS`].
        tag: usize,
    },
    /// A sentence an object of JSON (an object a line, or a list of objects) or a row of Parquet: a list of words under `tokens` or
    /// `words`; a list of tags, names or numbers, under the key that is given, else under `tags`, `labels`, `ner_tags` or `pos_tags`.
    Objects,
}

impl TagFormat {
    /// CoNLL columns: the first is the word, the last its tag.
    pub const COLUMNS: TagFormat = TagFormat::Columns { word: 1, tag: None };
    /// CoNLL-U's universal parts of speech.
    pub const UPOS: TagFormat = TagFormat::ConllU { tag: 4 };
    /// CoNLL-U's parts of speech of the language's own tag set.
    pub const XPOS: TagFormat = TagFormat::ConllU { tag: 5 };

    /// Finds the format by the ending `.conllu`, else by the lines: JSON is objects; all with one language before a colon and one tab
    /// is WikiANN; a first line of ten columns that begins with 1 is CoNLL-U; all else is columns.
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
        let says_json = [".json", ".jsonl", ".ndjson"].iter().any(|ending| name.ends_with(ending));
        if says_json || begins_list(text) || token_lines.clone().next().is_some_and(is_json) {
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
/// Keys of its tags, in order of preference.
const TAGS: [&str; 4] = ["tags", "labels", "ner_tags", "pos_tags"];

/// ID, FORM, LEMMA, UPOS, XPOS, FEATS, HEAD, DEPREL, DEPS, MISC.
const CONLLU_COLUMNS: usize = 10;

/// One sentence; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedSentence {
    /// Its words.
    pub words: Vec<String>,
    /// A tag a word; empty if the file has no tags.
    pub tags: Vec<String>,
    /// Which document of the file it is from, from 0.
    pub document: usize,
    /// The line of its first word, from 1.
    pub line: usize,
}

/// The sentences of one file, at least one.
#[derive(Clone, Debug)]
pub struct TaggedSentences {
    path: PathBuf,
    format: TagFormat,
    sentences: Vec<TaggedSentence>,
    has_numbers: bool,
    remarks: Vec<String>,
}

impl TaggedSentences {
    /// Reads a file's sentences. Without a format, its ending and its lines tell it.
    ///
    /// # Errors
    /// [`TaskError::Io`] when it cannot be read; [`TaskError::File`] when it has no words, or is a table of texts; [`TaskError::Line`]
    /// for a line of the wrong number of columns, a word without a tag among tagged ones, an empty word, and a missing tag
    /// where tags are required; [`TaskError::Setting`] for a column that the format cannot have.
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

    /// As [`read`](Self::read); in a file of objects or of Parquet the tags are under the key `key`, if one is given.
    ///
    /// # Errors
    /// Those of `read`; [`TaskError::Setting`] for a key where the file has none.
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
            begin: 0,
            document: 0,
            document_begun: false,
            has_numbers: false,
            remarks: Vec::new(),
        };
        let is_parquet = [".parquet", ".pq"].iter().any(|ending| name.ends_with(ending));
        let format = if is_parquet {
            reader.parquet(key)?;
            TagFormat::Objects
        } else {
            let text = read_text(path)?;
            let format = format.unwrap_or_else(|| TagFormat::guess(path, &text));
            if let (Some(key), false) = (key, format == TagFormat::Objects) {
                let problem = format!("{key}: {} has no names of columns; expected --tag-column N", path.display());
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
        let Reader { sentences, has_numbers, remarks, .. } = reader;
        if sentences.is_empty() {
            return Err(TaskError::file(path, "holds no words; expected at least one sentence"));
        }
        Ok(TaggedSentences { path: path.to_owned(), format, sentences, has_numbers, remarks })
    }

    /// Whether tags are numbers, which say nothing without the names of the tags.
    pub fn has_numbers(&self) -> bool {
        self.has_numbers
    }

    /// What was left out or chosen, in words.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format that it was read as.
    pub fn format(&self) -> TagFormat {
        self.format
    }

    /// The sentences, in order.
    pub fn sentences(&self) -> &[TaggedSentence] {
        &self.sentences
    }

    /// Whether its words have tags: all have or none has.
    pub fn is_tagged(&self) -> bool {
        self.sentences.iter().all(|sentence| !sentence.tags.is_empty())
    }

    /// The tags that occur, sorted as [`Labels::found`] says.
    ///
    /// # Errors
    /// [`TaskError::File`] when there are none.
    pub fn labels(&self) -> Result<Labels, TaskError> {
        let tags = self.sentences.iter().flat_map(|sentence| sentence.tags.iter().map(String::as_str));
        Labels::found(tags).map_err(|_| TaskError::file(&self.path, "has no tags; expected one beside each word"))
    }

    /// The number of each word's tag of one of its sentences; empty for a sentence without tags. `unknown` may have a number for a tag
    /// that is not known.
    ///
    /// # Errors
    /// [`TaskError::Line`] for a tag that is not known and has no number.
    pub fn tag_ids(
        &self,
        sentence: &TaggedSentence,
        labels: &Labels,
        mut unknown: impl FnMut(&str) -> Option<usize>,
    ) -> Result<Vec<usize>, TaskError> {
        let read = |tag: &str| match labels.id_or_problem(tag) {
            // A 0 among names is one for O, not the position of a label.
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
    /// Whether somebody said how the file is written.
    is_given: bool,
    /// Whether words have tags: all as the first.
    tagged: Option<bool>,
    sentences: Vec<TaggedSentence>,
    /// Of the sentence being read.
    words: Vec<String>,
    tags: Vec<String>,
    begin: usize,
    document: usize,
    /// Whether the document has a sentence.
    document_begun: bool,
    has_numbers: bool,
    remarks: Vec<String>,
}

/// The cells of a line of columns. White space at the line's end is none of them.
fn cells(line: &str) -> Vec<&str> {
    let text = line.trim_end();
    if line.contains('\t') {
        text.split('\t').map(|cell| cell.trim_matches(' ')).collect()
    } else {
        // Only the space itself: a word may hold other white space.
        text.split(' ').filter(|cell| !cell.is_empty()).collect()
    }
}

/// The tag of a line of columns, given the places of word and tag.
fn tag_of<'a>(cells: &[&'a str], (word, tag): (usize, usize)) -> Option<&'a str> {
    cells.get(tag).filter(|_| tag != word).map(|tag| tag.trim())
}

/// First cells of headers: of words, of whole texts.
const WORD_HEADERS: [&str; 5] = ["token", "tokens", "word", "words", "form"];
const TEXT_HEADERS: [&str; 6] = ["text", "sentence", "sentence1", "premise", "question", "review"];
const TAG_HEADERS: [&str; 12] =
    ["tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "ner-tag", "pos", "pos_tag", "pos_tags", "upos"];

impl Reader<'_> {
    fn columns(&mut self, text: &str, word: usize, tag: Option<usize>) -> Result<(), TaskError> {
        if !self.is_given && plain_name(self.path).ends_with(".csv") {
            let problem = "a CSV table, not a file of tagged words; expected a word and its tag a line (CoNLL), or JSON with lists";
            return Err(TaskError::file(self.path, problem));
        }
        let (word_index, tag_index) = (from_one(word)?, tag.map(from_one).transpose()?);
        let of_words = |line: &str| !line.trim().is_empty() && !line.starts_with("-DOCSTART-");
        let all = || lines(text).filter(|(_, line)| of_words(line));
        // A word that begins with # is a rare one: what the other lines hold tells a comment from it.
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
                let problem = "a table of texts, not of words: expected a word and its tag a line. To classify texts, name the kind \
                               classify; if these are words, give --tag-format columns";
                return Err(TaskError::file(self.path, problem));
            }
        }
        if is_header {
            self.remarks.push(format!("line {first_line} (\"{}\") is a header and is left out", first.trim_end()));
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
                let problem = format!("has {found} columns, expected {expected} as on the first line of words");
                return Err(TaskError::line(self.path, line, problem));
            }
            let Some(word) = cells.get(word_index) else {
                let problem = format!("has {expected} columns, expected the word in column {word}");
                return Err(TaskError::line(self.path, line, problem));
            };
            self.add(line, word, tag_of(&cells, places))?;
        }
        Ok(())
    }

    /// A JSON object a line, or a list of objects.
    fn objects(&mut self, text: &str, key: Option<&str>) -> Result<(), TaskError> {
        if text.trim_start().starts_with('[') {
            let list: Vec<Map<String, Value>> = parse_json(text, &mut 0).map_err(|e| {
                let problem = format!("expected a list of objects of JSON: {e}");
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

    /// A sentence as an object; the table that it is from may name the numbers of a column.
    fn object(
        &mut self,
        line: usize,
        mut object: Map<String, Value>,
        key: Option<&str>,
        file: Option<&TableFile>,
    ) -> Result<(), TaskError> {
        let path = self.path;
        let wrong = |problem: String| TaskError::line(path, line, problem);
        let keys = listed(object.keys().map(String::as_str));
        let list = |object: &mut Map<String, Value>, key: &str| match object.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => {
                Err(wrong(format!("\"{key}\" is {}, expected a list with an entry for each word", kind(&other))))
            }
        };
        let words = WORDS.iter().find_map(|key| list(&mut object, key).transpose()).transpose()?;
        let Some(words) = words else {
            return Err(wrong(format!("no list of words ({}); it has {keys}", listed(WORDS))));
        };
        let present: Vec<&str> =
            TAGS.into_iter().filter(|tags| object.get(*tags).is_some_and(|tags| !tags.is_null())).collect();
        let tags_key = key.or(present.first().copied());
        let tags = tags_key.map(|key| list(&mut object, key)).transpose()?.flatten();
        if let (Some(key), None) = (key, &tags)
            && self.need == LabelsNeeded::Required
        {
            return Err(wrong(format!("no list \"{key}\"; it has {keys}")));
        }
        if self.sentences.is_empty() && key.is_none() && present.len() > 1 {
            self.remarks.push(format!(
                "tags are those of \"{}\"; --label chooses another of {}",
                present[0],
                listed(present.iter().copied())
            ));
        }
        if let Some(tags) = &tags
            && tags.len() != words.len()
        {
            let key = tags_key.unwrap_or_default();
            return Err(wrong(format!(
                "{} words and {} entries of \"{key}\"; expected as many",
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
                            "word {}: tag {id} has no name among the file's {}",
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
            let problem = format!("{tag}: CoNLL-U has {CONLLU_COLUMNS}");
            return Err(TaskError::Setting { name: "tag column", problem });
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
                    "word number \"{id}\", expected {expected} (is a blank line missing before this sentence?)"
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
            return wrong(format!("\"{word}\" has no tag; expected one beside each word"));
        }
        match (*self.tagged.get_or_insert(tag.is_some()), tag) {
            (true, None) => return wrong(format!("\"{word}\" has no tag, but words before have")),
            (false, Some(tag)) => {
                return wrong(format!("\"{word}\" has the tag \"{tag}\", but words before have none"));
            }
            (true, Some(tag)) => self.tags.push(tag.to_owned()),
            (false, None) => {}
        }
        if self.words.is_empty() {
            self.begin = line;
        }
        self.words.push(word.to_owned());
        Ok(())
    }

    fn end_sentence(&mut self) {
        if self.words.is_empty() {
            return;
        }
        let (words, tags) = (std::mem::take(&mut self.words), std::mem::take(&mut self.tags));
        self.sentences.push(TaggedSentence { words, tags, document: self.document, line: self.begin });
        self.document_begun = true;
    }

    fn begin_document(&mut self) {
        self.end_sentence();
        if std::mem::take(&mut self.document_begun) {
            self.document += 1;
        }
    }
}

fn conllu_width(found: usize) -> String {
    format!("has {found} columns between tabs, expected {CONLLU_COLUMNS} (CoNLL-U)")
}

/// The index of a column numbered from 1.
fn from_one(number: usize) -> Result<usize, TaskError> {
    number
        .checked_sub(1)
        .ok_or_else(|| TaskError::Setting { name: "column", problem: "0, expected a number from 1".into() })
}

#[cfg(test)]
mod tests;
