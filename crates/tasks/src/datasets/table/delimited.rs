//! TSV as GLUE writes it, and CSV.

use std::path::Path;

use super::columns::{Column, ColumnSelection, RaggedRows, Row};
use cloze_data::corpus::text::{MAX_LINE, too_long};

use crate::TaskError;
use crate::datasets::file::lines;
use crate::task::FileRows;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Cells between tabs, without quoting.
    Tsv,
    /// Cells between tabs, quoted as those of CSV are.
    QuotedTsv,
    /// Cells between commas.
    Csv,
}

impl Kind {
    /// How a text between tabs is quoted.
    pub fn of_tsv(text: &str) -> Kind {
        if is_quoted(text) { Kind::QuotedTsv } else { Kind::Tsv }
    }

    fn delimiter(self) -> u8 {
        if self == Kind::Csv { b',' } else { b'\t' }
    }
}

/// Whether a text between tabs was written with quoting: each cell that begins with a quote is one as CSV has it, and either quotes
/// stand where none are needed throughout (all names of the header, all cells of a column), or each quoted cell needs them for a
/// quote, a tab or a line's end in it. Files without quoting have quotes as parts of their texts (GLUE's).
fn is_quoted(text: &str) -> bool {
    let bytes = text.as_bytes();
    // Of each column the cells and those that are quoted, the header's apart.
    let (mut header, mut columns): ([usize; 2], Vec<[usize; 2]>) = ([0; 2], Vec::new());
    let (mut at, mut column, mut row, mut needless) = (0, 0, 0, 0);
    while at < bytes.len() {
        let begin = at;
        let is_quoted = bytes[at] == b'"';
        if is_quoted {
            let mut needs = false;
            at += 1;
            loop {
                match (bytes.get(at), bytes.get(at + 1)) {
                    (None, _) => return false,
                    (Some(b'"'), Some(b'"')) => {
                        needs = true;
                        at += 2;
                    }
                    (Some(b'"'), _) => break,
                    (Some(byte), _) => {
                        needs |= matches!(byte, b'\t' | b'\n' | b'\r');
                        at += 1;
                    }
                }
            }
            at += 1;
            needless += usize::from(!needs);
            if !matches!(bytes.get(at), None | Some(b'\t' | b'\n' | b'\r')) {
                return false;
            }
        }
        at += bytes[at..].iter().position(|byte| matches!(byte, b'\t' | b'\n')).unwrap_or(bytes.len() - at);
        let is_blank = column == 0 && text[begin..at].trim_end_matches('\r').is_empty();
        if !is_blank {
            let counts = match row {
                0 => &mut header,
                _ => {
                    columns.resize(columns.len().max(column + 1), [0; 2]);
                    &mut columns[column]
                }
            };
            counts[0] += 1;
            counts[1] += usize::from(is_quoted);
        }
        match bytes.get(at) {
            Some(b'\t') => column += 1,
            _ if is_blank => {}
            _ => (row, column) = (row + 1, 0),
        }
        at += 1;
    }
    let is_all = |counts: &[usize; 2]| counts[1] > 0 && counts[0] == counts[1];
    let quoted = header[1] + columns.iter().map(|counts| counts[1]).sum::<usize>();
    let whole = columns.iter().any(|counts| is_all(counts) && counts[0] + 1 >= row && counts[0] > 1);
    quoted > 0 && (is_all(&header) && header[0] > 1 || whole || needless == 0)
}

/// The cells of the first line.
pub(super) fn header(path: &Path, kind: Kind, text: &str) -> Result<Vec<String>, TaskError> {
    match Records::new(path, kind, text).next() {
        Some(record) => Ok(record?.1.iter().map(|cell| cell.to_string()).collect()),
        None => Err(TaskError::file(path, "is empty; expected a header and rows")),
    }
}

pub(super) fn rows(
    wanted: &ColumnSelection<'_>,
    kind: Kind,
    text: &str,
    ragged: RaggedRows,
    skipped: &mut Vec<usize>,
    remarks: &mut Vec<String>,
) -> Result<FileRows<Row>, TaskError> {
    let asked = || wanted.required.iter().chain(wanted.optional);
    let name = asked().find(|column| matches!(column, Column::Name(_)));
    let number = asked().find(|column| matches!(column, Column::Number(_)));
    if let (Some(name), Some(number)) = (name, number) {
        let problem = format!(
            "columns asked for by name ({name}) and by number ({number}); names mean that the first line is a header, numbers that it is a row: use one of them"
        );
        return Err(TaskError::file(wanted.path, problem));
    }
    let mut records = Records::new(wanted.path, kind, text);
    let (required, optional, width) = if name.is_some() {
        let names = header(wanted.path, kind, text)?;
        records.next();
        let (required, optional) = wanted.find(&names).map_err(|error| with_hint(error, &names))?;
        (required, optional, Some(names.len()))
    } else {
        // Of a column by number, the first line tells whether the file has it at all.
        let first = match Records::new(wanted.path, kind, text).next() {
            Some(Ok((_, cells))) => cells.len(),
            // An error comes out below; an empty file has no rows.
            Some(Err(_)) | None => usize::MAX,
        };
        let index = |column: &Column| match column {
            Column::Number(number) => number.get() - 1,
            Column::Name(_) => usize::MAX,
        };
        let optional = wanted.optional.iter().map(|column| Some(index(column)).filter(|&index| index < first));
        (wanted.required.iter().map(index).collect(), optional.collect(), None)
    };
    let least = required.iter().chain(optional.iter().flatten()).map(|&index| index + 1).max().unwrap_or(0);
    let (mut rows, mut unclear) = (FileRows::new(), Vec::new());
    for record in &mut records {
        let (line, cells) = match record {
            Ok(record) => record,
            Err(error) => {
                rows.push(Err(error));
                continue;
            }
        };
        let cell = |index: usize| cells.get(index).map(|cell| cell.to_string());
        let found: Option<Vec<String>> = required.iter().map(|&index| cell(index)).collect();
        match found {
            Some(found) if cells.len() >= least && width.is_none_or(|width| width == cells.len()) => {
                let optional = optional.iter().map(|index| index.and_then(cell)).collect();
                rows.push(Ok(Row { line, cells: found, optional }));
            }
            _ if ragged == RaggedRows::Skip => skipped.push(line),
            _ => {
                let expected = match width {
                    Some(width) => format!("{width} as in the header"),
                    None => format!("at least {least}"),
                };
                let (separator, hint) = match kind {
                    Kind::Tsv | Kind::QuotedTsv => ("tabs", "a tab or a line's end within a text?"),
                    Kind::Csv => ("commas", "a comma, quote or line's end within a text, not quoted?"),
                };
                let found = cells.len();
                let columns = if found == 1 { "column" } else { "columns" };
                let problem = format!("has {found} {columns} between {separator}, expected {expected} ({hint})");
                rows.push(Err(TaskError::line(wanted.path, line, problem)));
            }
        }
    }
    if let Records::Csv(records) = records {
        unclear = records.unclear;
    }
    if let Some(first) = unclear.first() {
        let count = unclear.len();
        let what = if count == 1 { "1 row has" } else { &format!("{count} rows have") };
        remarks.push(format!(
            "{what} characters after a closing quote, the first in line {first}: does a quote open there by mistake?"
        ));
    }
    if kind == Kind::QuotedTsv {
        remarks.push("its cells are quoted, and are read without their quotes".to_owned());
    }
    Ok(rows)
}

/// Adds to the error about a missing column what the header tells.
fn with_hint(error: TaskError, names: &[String]) -> TaskError {
    let hint = match names {
        [only] if only.contains(';') => "its cells seem to be between semicolons; expected commas or tabs",
        [only] if only.contains('\t') => "its cells seem to be between tabs; give --format tsv",
        [only] if only.contains(',') => "its cells seem to be between commas; give --format csv",
        _ => "if the first line is a row and not a header, give the columns by number, such as #1",
    };
    match error {
        TaskError::File { path, problem } if problem.starts_with("no column") => {
            TaskError::File { path, problem: format!("{problem} ({hint})") }
        }
        other => other,
    }
}

/// The cells of one record, borrowed where the file holds them as they are.
enum Cells<'a> {
    Tsv(Vec<&'a str>),
    Csv(csv::StringRecord),
}

impl Cells<'_> {
    fn len(&self) -> usize {
        match self {
            Cells::Tsv(cells) => cells.len(),
            Cells::Csv(cells) => cells.len(),
        }
    }

    fn get(&self, index: usize) -> Option<&str> {
        match self {
            Cells::Tsv(cells) => cells.get(index).copied(),
            Cells::Csv(cells) => cells.get(index),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// The records of a text with the lines where they begin; empty lines are none.
enum Records<'a> {
    Tsv(Box<dyn Iterator<Item = (usize, &'a str)> + 'a>),
    Csv(Box<CsvRecords<'a>>),
}

impl<'a> Records<'a> {
    fn new(path: &'a Path, kind: Kind, text: &'a str) -> Records<'a> {
        match kind {
            Kind::Tsv => Records::Tsv(Box::new(lines(text).filter(|(_, line)| !line.is_empty()))),
            Kind::Csv | Kind::QuotedTsv => Records::Csv(Box::new(CsvRecords::new(path, text, kind.delimiter()))),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, Cells<'a>), TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Records::Tsv(lines) => lines.next().map(|(line, text)| Ok((line, Cells::Tsv(text.split('\t').collect())))),
            Records::Csv(records) => records.next().map(|record| record.map(|(line, cells)| (line, Cells::Csv(cells)))),
        }
    }
}

struct CsvRecords<'a> {
    path: &'a Path,
    text: &'a str,
    reader: csv::Reader<&'a [u8]>,
    /// How far lines have been counted: the byte, and its line.
    counted: (usize, usize),
    delimiter: u8,
    /// Lines of records with characters after a closing quote.
    unclear: Vec<usize>,
}

impl<'a> CsvRecords<'a> {
    fn new(path: &'a Path, text: &'a str, delimiter: u8) -> CsvRecords<'a> {
        let mut builder = csv::ReaderBuilder::new();
        let reader = builder.has_headers(false).flexible(true).delimiter(delimiter).from_reader(text.as_bytes());
        CsvRecords { path, text, reader, counted: (0, 1), delimiter, unclear: Vec::new() }
    }

    fn next(&mut self) -> Option<Result<(usize, csv::StringRecord), TaskError>> {
        let mut record = csv::StringRecord::new();
        let begin = self.counted.0;
        match self.reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(e) => {
                return Some(Err(TaskError::line(self.path, self.counted.1, format!("not readable as CSV: {e}"))));
            }
        }
        // The reader takes the line ends before a record for a part of it (and so does its own count of lines).
        let end = usize::try_from(self.reader.position().byte()).unwrap_or(usize::MAX).min(self.text.len());
        let raw = self.text.as_bytes().get(begin..end).unwrap_or_default();
        let blank = raw.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        let newlines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
        let (before, raw) = raw.split_at(blank);
        let line = self.counted.1 + newlines(before);
        self.counted = (end, line + newlines(raw));
        let quotes = Quotes::of(raw, self.delimiter);
        if quotes.has_rest {
            self.unclear.push(line);
        }
        // The reader gives what it has when the file ends within quotes, and that may be the rest of the file.
        if end == self.text.len() && quotes.is_open {
            let problem = "a quote (\") opens here or in this record and is never closed; close it, and write a quote within quotes twice (RFC 4180)";
            return Some(Err(TaskError::line(self.path, line, problem)));
        }
        if raw.len() > MAX_LINE {
            return Some(Err(TaskError::line(self.path, line, too_long("row"))));
        }
        Some(Ok((line, record)))
    }
}

/// What a record's quotes do.
#[derive(Default)]
struct Quotes {
    /// Whether it ends inside a quoted cell.
    is_open: bool,
    /// Whether characters follow a closing quote in its cell.
    has_rest: bool,
}

impl Quotes {
    fn of(record: &[u8], delimiter: u8) -> Quotes {
        let mut found = Quotes::default();
        let (mut begins, mut closed) = (true, false);
        for &byte in record {
            // A doubled quote closes and opens again.
            match byte {
                b'"' if found.is_open => (found.is_open, closed) = (false, true),
                b'"' if begins || closed => (found.is_open, begins, closed) = (true, false, false),
                _ if found.is_open => {}
                b'\n' | b'\r' => closed = false,
                _ if byte == delimiter => (begins, closed) = (true, false),
                _ => {
                    found.has_rest |= closed;
                    begins = false;
                }
            }
        }
        found
    }
}
