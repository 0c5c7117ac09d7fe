//! Sentences of words with a tag each: named entities, parts of speech.

use std::path::{Path, PathBuf};

use super::Need;
use super::file::{lines, plain_name, read_text};
use super::labels::Labels;
use crate::TaskError;

/// How a file of tagged words is written. In each, a blank line ends a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagFormat {
    /// CoNLL-2003 and its kin: a word a line, columns between spaces or tabs, as many on each line; a line that begins
    /// with `-DOCSTART-` begins a document.
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
}

impl TagFormat {
    /// CoNLL columns: the first is the word, the last its tag.
    pub const COLUMNS: TagFormat = TagFormat::Columns { word: 1, tag: None };
    /// CoNLL-U's universal parts of speech.
    pub const UPOS: TagFormat = TagFormat::ConllU { tag: 4 };
    /// CoNLL-U's parts of speech of the language's own tag set.
    pub const XPOS: TagFormat = TagFormat::ConllU { tag: 5 };

    /// Finds the format by the ending `.conllu`, else by the lines: all with one language before a colon and one tab is
    /// WikiANN; a first line of ten columns that begins with 1 is CoNLL-U; all else is columns.
    fn guess(path: &Path, text: &str) -> TagFormat {
        let mut token_lines = lines(text).map(|(_, line)| line).filter(|line| !line.trim().is_empty());
        let language = |line: &str| {
            let (language, rest) = line.split_once(':')?;
            let plausible = (2..=12).contains(&language.len())
                && language.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
                && rest.matches('\t').count() == 1;
            plausible.then(|| language.to_owned())
        };
        if plain_name(path).ends_with(".conllu") {
            return TagFormat::UPOS;
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
}

impl TaggedSentences {
    /// Reads a file's sentences. Without a format, its ending and its lines tell it.
    ///
    /// # Errors
    /// [`TaskError::Io`] when it cannot be read; [`TaskError::File`] when it has no words; [`TaskError::Line`] for a
    /// line of the wrong number of columns, a word without a tag among tagged ones, an empty word, and a missing tag
    /// where tags are required; [`TaskError::Setting`] for a column that the format cannot have.
    ///
    /// ```
    /// use cloze_tasks::datasets::{Need, tagged::TaggedSentences};
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("train.txt");
    /// std::fs::write(&path, "-DOCSTART- -X- O O\n\nU.N. NNP I-NP B-ORG\nofficial NN I-NP O\n")?;
    /// let file = TaggedSentences::read(&path, None, Need::Required)?;
    /// assert_eq!(file.sentences()[0].words, ["U.N.", "official"]);
    /// assert_eq!(file.sentences()[0].tags, ["B-ORG", "O"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(path: &Path, format: Option<TagFormat>, need: Need) -> Result<TaggedSentences, TaskError> {
        let text = read_text(path)?;
        let format = format.unwrap_or_else(|| TagFormat::guess(path, &text));
        let mut reader = Reader {
            path,
            need,
            tagged: None,
            sentences: Vec::new(),
            words: Vec::new(),
            tags: Vec::new(),
            begin: 0,
            document: 0,
            document_begun: false,
        };
        match format {
            TagFormat::Columns { word, tag } => reader.columns(&text, word, tag)?,
            TagFormat::WikiAnn => reader.wikiann(&text)?,
            TagFormat::ConllU { tag } => reader.conllu(&text, tag)?,
        }
        reader.end_sentence();
        if reader.sentences.is_empty() {
            return Err(TaskError::file(path, "holds no words; expected at least one sentence"));
        }
        Ok(TaggedSentences { path: path.to_owned(), format, sentences: reader.sentences })
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

    /// The number of each word's tag of one of its sentences; empty for a sentence without tags.
    ///
    /// # Errors
    /// [`TaskError::Line`] for a tag that is not known.
    pub fn tag_ids(&self, sentence: &TaggedSentence, labels: &Labels) -> Result<Vec<usize>, TaskError> {
        let id = |(index, (word, tag)): (usize, (&String, &String))| {
            labels.id_or_problem(tag).map_err(|problem| {
                let problem = format!("word {} of the sentence (\"{word}\"): {problem}", index + 1);
                TaskError::line(&self.path, sentence.line, problem)
            })
        };
        sentence.words.iter().zip(&sentence.tags).enumerate().map(id).collect()
    }
}

struct Reader<'a> {
    path: &'a Path,
    need: Need,
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
}

impl Reader<'_> {
    fn columns(&mut self, text: &str, word: usize, tag: Option<usize>) -> Result<(), TaskError> {
        let (word_index, tag_index) = (from_one(word)?, tag.map(from_one).transpose()?);
        let mut width = None;
        for (line, text) in lines(text) {
            if text.trim().is_empty() {
                self.end_sentence();
                continue;
            }
            if text.starts_with("-DOCSTART-") {
                self.begin_document();
                continue;
            }
            // Only the space itself: a word may hold other white space.
            let cells: Vec<&str> = if text.contains('\t') {
                text.split('\t').collect()
            } else {
                text.split(' ').filter(|cell| !cell.is_empty()).collect()
            };
            let expected = *width.get_or_insert(cells.len());
            if cells.len() != expected {
                let found = cells.len();
                let problem = format!("has {found} columns, expected {expected} as on the first line of words");
                return Err(TaskError::line(self.path, line, problem));
            }
            let Some(word) = cells.get(word_index) else {
                let problem = format!("has {expected} columns, expected the word in column {word}");
                return Err(TaskError::line(self.path, line, problem));
            };
            let tag_index = tag_index.unwrap_or(expected - 1);
            let tag = cells.get(tag_index).filter(|_| tag_index != word_index);
            self.add(line, word, tag.copied())?;
        }
        Ok(())
    }

    fn wikiann(&mut self, text: &str) -> Result<(), TaskError> {
        for (line, text) in lines(text) {
            if text.trim().is_empty() {
                self.end_sentence();
                continue;
            }
            let (word, tag) = match text.rsplit_once('\t') {
                Some((word, tag)) => (word, Some(tag)),
                None => (text, None),
            };
            let Some((_, word)) = word.split_once(':').filter(|(_, word)| !word.contains('\t')) else {
                let problem = format!("expected language:word, a tab and a tag (WikiANN), found \"{text}\"");
                return Err(TaskError::line(self.path, line, problem));
            };
            self.add(line, word, tag)?;
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
            self.add(line, word, Some(tag).filter(|&tag| tag != "_"))?;
        }
        Ok(())
    }

    fn add(&mut self, line: usize, word: &str, tag: Option<&str>) -> Result<(), TaskError> {
        let wrong = |problem: String| Err(TaskError::line(self.path, line, problem));
        if word.is_empty() || tag == Some("") {
            return wrong(format!("the {} is empty", if word.is_empty() { "word" } else { "tag" }));
        }
        if tag.is_none() && self.need == Need::Required {
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
