//! Detection of file formats, for files, pipes and standard input, plain or compressed.
//! 1. The option `format` decides if it is given.
//! 2. Else the extension decides: `.tsv`, `.csv`, `.jsonl` (`.ndjson`), `.parquet` (`.pq`), `.conllu`, and `.conll`, `.bio`, `.iob`, `.iob2`,
//!    `.conllx` for columns. An extension for compression (`.gz`, `.zst`) is ignored. For `.json` the content decides.
//! 3. Else (for `.txt`, other names, pipes and standard input) the start of the file decides: JSON if the first line
//!    that is not blank is an object (`jsonl`), or starts a list of objects (`json`) or SQuAD's object; Parquet by its first bytes; where
//!    tagged words are expected, columns of words; a table if a column is given, or if the first line has tabs and contains the name of the column
//!    of texts. Everything else is lines. Of a pipe only the first line is examined, so that the result does not depend on how
//!    fast it is written.
//!
//! Readers of labelled tables interpret `.txt` as TSV, and reject lines, which have no labels.

use std::path::{Path, PathBuf};

use cloze_data::corpus::text::parse_json;
use cloze_data::corpus::{FileStart, peek};
use serde_json::Value;

use super::file::plain_name;
use super::table::Column;
use crate::TaskError;
use crate::input::Object;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One text per line.
    Lines,
    /// A table whose cells are separated by tabs.
    Tsv,
    /// A table whose cells are separated by commas; cells with commas or line breaks are quoted.
    Csv,
    /// One JSON object per line.
    Jsonl,
    /// A list of JSON objects.
    Json,
    /// Parquet.
    Parquet,
    /// Tagged words in columns, one word per line.
    Columns,
    /// CoNLL-U.
    ConllU,
    /// WikiANN.
    WikiAnn,
    /// SQuAD's JSON.
    Squad,
}

/// All formats, with their names and descriptions.
pub const FORMATS: [(Format, &str, &str); 10] = [
    (Format::Lines, "lines", "One text per line"),
    (Format::Tsv, "tsv", "A table with tabs between cells"),
    (Format::Csv, "csv", "A table with commas between cells"),
    (Format::Jsonl, "jsonl", "One JSON object per line"),
    (Format::Json, "json", "A list of JSON objects"),
    (Format::Parquet, "parquet", "Parquet"),
    (Format::Columns, "columns", "Tagged words in columns separated by white space, one word per line (CoNLL-2003)"),
    (Format::ConllU, "conllu", "Tagged words in CoNLL-U"),
    (Format::WikiAnn, "wikiann", "Tagged words in WikiANN: `en:word`, a tab, the tag"),
    (Format::Squad, "squad", "SQuAD's JSON"),
];

impl Format {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Format> {
        FORMATS.iter().find(|(_, known, _)| *known == name).map(|(format, _, _)| *format)
    }

    /// The name of the format.
    pub fn name(self) -> &'static str {
        FORMATS.iter().find(|(format, _, _)| *format == self).map_or("", |(_, name, _)| name)
    }

    /// Whether it is a line-based format of tagged words.
    pub fn is_tagged(self) -> bool {
        matches!(self, Format::Columns | Format::ConllU | Format::WikiAnn)
    }

    /// The format of a file name's extension.
    fn of_name(path: &Path) -> Option<Format> {
        let name = plain_name(path);
        match name.rsplit_once('.')?.1 {
            "tsv" => Some(Format::Tsv),
            "csv" => Some(Format::Csv),
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "parquet" | "pq" => Some(Format::Parquet),
            "conll" | "bio" | "iob" | "iob2" | "conllx" => Some(Format::Columns),
            "conllu" => Some(Format::ConllU),
            _ => None,
        }
    }

    /// JSON or Parquet, if the first bytes of a file show it.
    fn of_content(start: &[u8]) -> Option<Format> {
        if start.starts_with(b"PAR1") {
            return Some(Format::Parquet);
        }
        let text = String::from_utf8_lossy(start);
        let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
        let first = text.lines().next().unwrap_or_default();
        if let Some(rest) = text.strip_prefix('[') {
            let rest = rest.trim_start();
            return (rest.starts_with('{') || rest.is_empty()).then_some(Format::Json);
        }
        let inner = text.strip_prefix('{')?.trim_start();
        match parse_json::<Object>(first, &mut 0) {
            Ok(object) if object.get("data").is_some_and(Value::is_array) => Some(Format::Squad),
            Ok(_) => Some(Format::Jsonl),
            Err(_) => ["\"data\"", "\"version\""].iter().any(|key| inner.starts_with(key)).then_some(Format::Squad),
        }
    }
}

/// A file, and its format if it is given.
#[derive(Clone, Copy, Debug)]
pub struct DataFile<'a> {
    /// The file; `-`: standard input.
    pub path: &'a Path,
    /// The format; none: it is detected.
    pub format: Option<Format>,
}

impl<'a> From<&'a Path> for DataFile<'a> {
    fn from(path: &'a Path) -> DataFile<'a> {
        DataFile { path, format: None }
    }
}

impl<'a> From<&'a PathBuf> for DataFile<'a> {
    fn from(path: &'a PathBuf) -> DataFile<'a> {
        DataFile { path, format: None }
    }
}

/// The format of a file, and how it was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DetectedFormat {
    /// The format.
    pub format: Format,
    /// Whether the format was detected from the content, and not from an option or the name.
    pub by_content: bool,
}

impl DetectedFormat {
    /// A note for the user if a file that could be plain text is read in a different format.
    pub fn note(self, path: &Path) -> Option<String> {
        let is_plain = matches!(self.format, Format::Lines | Format::Parquet);
        // JSON on a pipe is what programs write.
        let is_expected = path == Path::new("-") && self.format == Format::Jsonl || plain_name(path).ends_with(".json");
        (self.by_content && !is_plain && !is_expected).then(|| {
            let shown = display_name(path);
            format!(
                "{shown} is read as {}, which was detected from its first lines; set `format` to lines to read each line as a text",
                self.format.name()
            )
        })
    }
}

/// The display name of a file: its path, or "standard input" for `-`.
pub fn display_name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

fn start_of(path: &Path) -> Result<FileStart, TaskError> {
    peek(path).map_err(|e| TaskError::data(path, e))
}

impl DataFile<'_> {
    /// Whether an option or the name determines the format.
    pub fn is_named(&self) -> bool {
        self.declared().is_some()
    }

    /// The format, if an option or the name determines it.
    fn declared(&self) -> Option<DetectedFormat> {
        let format = self.format.or_else(|| Format::of_name(self.path))?;
        Some(DetectedFormat { format, by_content: false })
    }

    /// The format of a labelled table.
    ///
    /// # Errors
    /// A file that cannot be read; [`TaskError::File`] for a format that is not a table.
    pub fn table_format(&self) -> Result<Format, TaskError> {
        let format = match self.declared() {
            Some(found) => Some(found.format),
            None if plain_name(self.path).ends_with(".txt") => Some(Format::Tsv),
            None => {
                let start = start_of(self.path)?.bytes;
                let is_json = plain_name(self.path).ends_with(".json");
                let first =
                    start.trim_ascii_start().split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
                let separated = [(b'\t', Format::Tsv), (b',', Format::Csv)];
                let separated = || separated.iter().find(|(byte, _)| first.contains(byte)).map(|(_, format)| *format);
                Format::of_content(&start).or(is_json.then_some(Format::Jsonl)).or_else(separated)
            }
        };
        let found = match format {
            Some(found @ (Format::Tsv | Format::Csv | Format::Jsonl | Format::Json | Format::Parquet)) => {
                return Ok(found);
            }
            Some(Format::Squad) => "found SQuAD's JSON",
            Some(Format::Lines) => "found plain lines, which have no columns",
            Some(_) => "found tagged words",
            None => "found an unknown format",
        };
        let problem = format!(
            "expected a table of texts, {found}; use the extension .tsv, .txt, .csv, .jsonl or .parquet (.gz or .zst may follow), or set `format`"
        );
        Err(TaskError::file(self.path, problem))
    }

    /// The format of a file of texts. `column` is the column of the texts; `is_given`: whether the caller gave it.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn texts_format(&self, column: &Column, is_given: bool) -> Result<DetectedFormat, TaskError> {
        match self.declared() {
            Some(found) => Ok(found),
            None => Ok(self.texts_format_of(&start_of(self.path)?, column, is_given)),
        }
    }

    fn texts_format_of(&self, start: &FileStart, column: &Column, is_given: bool) -> DetectedFormat {
        let is_json = plain_name(self.path).ends_with(".json");
        let content = Format::of_content(&start.bytes).or(is_json.then_some(Format::Jsonl));
        let format = content.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&start.bytes);
            let first =
                text.trim_start_matches('\u{feff}').lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let has_column = |separator: char| {
                let mut cells = first.split(separator).map(|cell| cell.trim().trim_matches('"'));
                match column {
                    Column::Name(name) => cells.clone().count() > 1 && cells.any(|cell| cell == name.as_ref()),
                    Column::Number(number) => cells.count() >= number.get().max(2),
                }
            };
            match is_given {
                _ if has_column('\t') => Format::Tsv,
                true if has_column(',') => Format::Csv,
                true => Format::Tsv,
                false => Format::Lines,
            }
        });
        DetectedFormat { format, by_content: true }
    }

    /// The format of a file of words, or of texts to be tagged. `known` are the tags.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn words_format(&self, column: &Column, is_given: bool, known: &[String]) -> Result<DetectedFormat, TaskError> {
        let is_table = |format| matches!(format, Format::Tsv | Format::Csv);
        match self.declared() {
            // Files with columns of words often have the extension .tsv.
            Some(found) if self.format.is_some() || !is_table(found.format) || is_given => return Ok(found),
            _ => {}
        }
        let start = start_of(self.path)?;
        match tagged_format(&start, known) {
            Some(format) => Ok(DetectedFormat { format, by_content: true }),
            None => match self.declared() {
                Some(found) => Ok(found),
                None => Ok(self.texts_format_of(&start, column, is_given)),
            },
        }
    }

    /// The format of a file with JSON rows: questions or choices. An unknown format is read as one object per line.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn rows_format(&self) -> Result<DetectedFormat, TaskError> {
        if let Some(found) = self.declared() {
            return Ok(found);
        }
        let format = Format::of_content(&start_of(self.path)?.bytes).unwrap_or(Format::Jsonl);
        Ok(DetectedFormat { format, by_content: true })
    }
}

/// The format of tagged words, if the first lines of a file show it: a document separator, comments of CoNLL-U, or
/// several lines with the same number of columns, the last of which is a tag.
fn tagged_format(start: &FileStart, known: &[String]) -> Option<Format> {
    let text = String::from_utf8_lossy(&start.bytes);
    let text = text.trim_start_matches('\u{feff}');
    // The last line may be incomplete.
    let complete = text.rsplit_once('\n').map_or(text, |(complete, _)| complete);
    let mut lines = complete.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let first = lines.clone().next()?;
    if first.starts_with("-DOCSTART-") {
        return Some(Format::Columns);
    }
    if ["# sent_id", "# newdoc", "# newpar", "# text =", "# global.columns"].iter().any(|key| first.starts_with(key)) {
        return Some(Format::ConllU);
    }
    let is_tag = |tag: &str| {
        let prefixed = |tag: &str| {
            let mut parts = tag.splitn(2, ['-', '_', ':']);
            let (first, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            !rest.is_empty() && matches!(first, "B" | "I" | "O" | "E" | "S" | "L" | "U" | "M" | "W")
        };
        tag == "O" || prefixed(tag) || known.iter().any(|label| label == tag)
    };
    let mut count = 0;
    let mut width = None;
    let fits = lines.all(|line| {
        if line.starts_with("-DOCSTART-") || line.starts_with("# ") {
            return true;
        }
        let cells: Vec<&str> = if line.contains('\t') { line.split('\t').collect() } else { line.split(' ').collect() };
        count += 1;
        let conllu = cells.len() == 10 && line.contains('\t');
        *width.get_or_insert(cells.len()) == cells.len()
            && cells.len() > 1
            && (conllu || cells.last().is_some_and(|tag| is_tag(tag)))
    });
    match (fits && count > 1, width) {
        (true, Some(10)) if text.contains("\n2\t") || text.starts_with("1\t") => Some(Format::ConllU),
        (true, _) => Some(Format::Columns),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::file;

    fn words(name: &str, text: &str) -> Format {
        let labels = ["O", "B-PER", "I-PER"].map(str::to_owned);
        let file = file(name, text);
        DataFile::from(file.path.as_path()).words_format(&Column::name("text"), false, &labels).unwrap().format
    }

    fn texts(name: &str, text: &str, given: bool) -> Format {
        let file = file(name, text);
        DataFile::from(file.path.as_path()).texts_format(&Column::name("text"), given).unwrap().format
    }

    /// Regression test: a file of tagged words was read as sentences unless it had one of four extensions.
    #[test]
    fn r36_tagged_words_are_detected_with_any_name() {
        let conll = "-DOCSTART- -X- -X- O\n\nAb NNP B-NP B-PER\ncd VBZ B-VP O\n\nEf NNP B-NP B-PER\n";
        let bare = "Ab NNP B-NP B-LOC\ncd VBZ B-VP O\n\nEf NNP B-NP B-PER\n";
        for name in ["eng.testb", "test.txt", "test.tsv", "valid.iob2", "x.conllx", "noext", "a.conll", "a.CONLL"] {
            assert_eq!(words(name, conll), Format::Columns, "{name}");
            assert_eq!(words(name, bare), Format::Columns, "{name}");
        }
        assert_eq!(words("t.txt", "Ab\tB-PER\ncd\tO\n"), Format::Columns);
        let conllu = "# sent_id = 1\n1\tAb\tab\tNOUN\t_\t_\t0\troot\t_\t_\n2\tcd\tcd\tVERB\t_\t_\t1\tx\t_\t_\n";
        assert_eq!(words("u2.txt", conllu), Format::ConllU);
        assert_eq!(words("u2.txt", &conllu[conllu.find("1\t").unwrap()..]), Format::ConllU);
        assert_eq!(words("a.txt", "Ab cd\nef gh\n"), Format::Lines);
        assert_eq!(words("a.txt", "Ab likes O\nEf is here\n"), Format::Lines);
        assert_eq!(words("a.csv", "id,text\n1,ab\n"), Format::Csv);
        assert_eq!(words("a.jsonl", "{\"words\": [\"a\"]}\n"), Format::Jsonl);
    }

    /// Regression test: tables were read as lines in prediction, and single lines starting with a brace as JSON.
    #[test]
    fn x2_r20_the_first_lines_decide_for_the_whole_file() {
        let table = "id\ttext\tlabel\n1\tab\tneg\n";
        for name in ["tb.txt", "tb.data", "noext"] {
            assert_eq!([texts(name, table, false), texts(name, table, true)], [Format::Tsv; 2], "{name}");
            assert_eq!(texts(name, &table.replace('\t', ","), true), Format::Csv, "{name}");
        }
        assert_eq!(texts("a.txt", "ab\tcd\n", false), Format::Lines);
        assert_eq!(texts("a.txt", "{spoiler} a great film\nplain\n", false), Format::Lines);
        assert_eq!(texts("a.txt", "\n{\"text\": \"a\"}\n", false), Format::Jsonl);
        assert_eq!(texts("a.txt", "{\"text\": \"a\\ud83d\"}\n", false), Format::Jsonl);
        assert_eq!(texts("a.txt", "[1,2]\n", false), Format::Lines);
        assert_eq!(texts("a.json", "[{\"text\": \"a\"}]\n", false), Format::Json);
        assert_eq!(texts("a.json", "{\"version\": \"1.1\",\n \"data\": []}\n", false), Format::Squad);
        assert_eq!(texts("s.squad", "{\"data\": []}\n", false), Format::Squad);
    }
}
