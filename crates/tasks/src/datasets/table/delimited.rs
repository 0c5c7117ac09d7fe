//! TSV without quoting, as in GLUE's files, and CSV.

use std::path::Path;

use super::columns::{Column, ColumnSelection, RaggedRows, Row};
use cloze_data::corpus::text::{MAX_LINE, too_long};

use crate::TaskError;
use crate::datasets::file::lines;
use crate::task::FileRows;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Tabs between cells, without quoting.
    Tsv,
    /// Tabs between cells, with the quoting of CSV.
    QuotedTsv,
    /// Commas between cells.
    Csv,
}

impl Kind {
    /// Detects whether a tab-separated text is quoted.
    pub fn of_tsv(text: &str) -> Kind {
        if is_quoted(text) { Kind::QuotedTsv } else { Kind::Tsv }
    }

    fn delimiter(self) -> u8 {
        if self == Kind::Csv { b',' } else { b'\t' }
    }
}

/// Whether a tab-separated text uses quoting. It does if each cell that starts with a quote is a valid quoted cell of
/// CSV, and if either all names of the header or all cells of a column are quoted, or each quoted cell contains a
/// quote, a tab or a line break, so that it must be quoted. In files without quoting (GLUE's), quotes are parts of the
/// texts.
fn is_quoted(text: &str) -> bool {
    let bytes = text.as_bytes();
    // For each column, the number of cells and of quoted cells, without the header, which is counted separately.
    let (mut header, mut columns): ([usize; 2], Vec<[usize; 2]>) = ([0; 2], Vec::new());
    let (mut at, mut column, mut row, mut needless) = (0, 0, 0, 0);
    while at < bytes.len() {
        let start = at;
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
        let is_blank = column == 0 && text[start..at].trim_end_matches('\r').is_empty();
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
    let has_quoted_column = columns.iter().any(|counts| is_all(counts) && counts[0] + 1 >= row && counts[0] > 1);
    quoted > 0 && (is_all(&header) && header[0] > 1 || has_quoted_column || needless == 0)
}

/// The cells of the first line.
pub(super) fn header(path: &Path, kind: Kind, text: &str) -> Result<Vec<String>, TaskError> {
    match Records::new(path, kind, text).next() {
        Some(record) => Ok(record?.1.iter().map(|cell| cell.to_string()).collect()),
        None => Err(TaskError::file(path, "expected a header and rows, found an empty file")),
    }
}

pub(super) fn rows(
    selection: &ColumnSelection<'_>,
    kind: Kind,
    text: &str,
    ragged: RaggedRows,
    skipped: &mut Vec<usize>,
    notes: &mut Vec<String>,
) -> Result<FileRows<Row>, TaskError> {
    let columns = || selection.required.iter().chain(selection.optional);
    let name = columns().find(|column| matches!(column, Column::Name(_)));
    let number = columns().find(|column| matches!(column, Column::Number(_)));
    if let (Some(name), Some(number)) = (name, number) {
        let problem = format!(
            "expected columns by name or by number, found the name ({name}) and the number ({number}); with names the first line is a header, with numbers it is a row"
        );
        return Err(TaskError::file(selection.path, problem));
    }
    let mut records = Records::new(selection.path, kind, text);
    let (required, optional, width) = if name.is_some() {
        let names = header(selection.path, kind, text)?;
        records.next();
        let (required, optional) = selection.find(&names).map_err(|error| with_hint(error, &names))?;
        (required, optional, Some(names.len()))
    } else {
        // The first line shows whether the file has a column with this number.
        let first = match Records::new(selection.path, kind, text).next() {
            Some(Ok((_, cells))) => cells.len(),
            // An error is reported below; an empty file has no rows.
            Some(Err(_)) | None => usize::MAX,
        };
        let index = |column: &Column| match column {
            Column::Number(number) => number.get() - 1,
            Column::Name(_) => usize::MAX,
        };
        let optional = selection.optional.iter().map(|column| Some(index(column)).filter(|&index| index < first));
        (selection.required.iter().map(index).collect(), optional.collect(), None)
    };
    let least = required.iter().chain(optional.iter().flatten()).map(|&index| index + 1).max().unwrap_or(0);
    let (mut rows, mut lines_with_rest) = (FileRows::new(), Vec::new());
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
                    Kind::Tsv | Kind::QuotedTsv => ("tabs", "does a text contain a tab or a line break?"),
                    Kind::Csv => {
                        ("commas", "does a text contain a comma, a quote or a line break without being quoted?")
                    }
                };
                let found = cells.len();
                let columns = if found == 1 { "column" } else { "columns" };
                let problem = format!("has {found} {columns} between {separator}, expected {expected} ({hint})");
                rows.push(Err(TaskError::line(selection.path, line, problem)));
            }
        }
    }
    if let Records::Csv(records) = records {
        lines_with_rest = records.lines_with_rest;
    }
    if let Some(first) = lines_with_rest.first() {
        let count = lines_with_rest.len();
        let what = if count == 1 { "1 row has" } else { &format!("{count} rows have") };
        notes.push(format!(
            "{what} characters after a closing quote, the first in line {first}: is there a quote by mistake?"
        ));
    }
    if kind == Kind::QuotedTsv {
        notes.push("its cells are quoted; the quotes are removed".to_owned());
    }
    Ok(rows)
}

/// Adds a hint to the error about a missing column, based on the header.
fn with_hint(error: TaskError, names: &[String]) -> TaskError {
    let hint = match names {
        [only] if only.contains(';') => "the cells seem to be separated by semicolons; expected commas or tabs",
        [only] if only.contains('\t') => "the cells seem to be separated by tabs; set `format` to tsv",
        [only] if only.contains(',') => "the cells seem to be separated by commas; set `format` to csv",
        _ => "if the first line is a row and not a header, select columns by number, such as #1",
    };
    match error {
        TaskError::File { path, problem } if problem.starts_with("no column") => {
            TaskError::File { path, problem: format!("{problem} ({hint})") }
        }
        other => other,
    }
}

/// The cells of one record, borrowed if they occur unchanged in the file.
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

/// The records of a text, each with the line where it starts. Empty lines are skipped.
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
    /// The byte up to which lines have been counted, and its line.
    position: (usize, usize),
    delimiter: u8,
    /// Lines of records with characters after a closing quote.
    lines_with_rest: Vec<usize>,
}

impl<'a> CsvRecords<'a> {
    fn new(path: &'a Path, text: &'a str, delimiter: u8) -> CsvRecords<'a> {
        let mut builder = csv::ReaderBuilder::new();
        let reader = builder.has_headers(false).flexible(true).delimiter(delimiter).from_reader(text.as_bytes());
        CsvRecords { path, text, reader, position: (0, 1), delimiter, lines_with_rest: Vec::new() }
    }

    fn next(&mut self) -> Option<Result<(usize, csv::StringRecord), TaskError>> {
        let mut record = csv::StringRecord::new();
        let start = self.position.0;
        match self.reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(e) => {
                return Some(Err(TaskError::line(self.path, self.position.1, format!("not readable as CSV: {e}"))));
            }
        }
        // The reader counts the line endings before a record as part of it (also in its own count of lines).
        let end = usize::try_from(self.reader.position().byte()).unwrap_or(usize::MAX).min(self.text.len());
        let raw = self.text.as_bytes().get(start..end).unwrap_or_default();
        let blank = raw.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        let newlines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
        let (before, raw) = raw.split_at(blank);
        let line = self.position.1 + newlines(before);
        self.position = (end, line + newlines(raw));
        let quotes = Quotes::of(raw, self.delimiter);
        if quotes.has_rest {
            self.lines_with_rest.push(line);
        }
        // If the file ends inside quotes, the reader returns what it has, which may be the rest of the file.
        if end == self.text.len() && quotes.is_open {
            let problem = "a quote (\") in this record is never closed; close it, and double quotes inside quoted cells (RFC 4180)";
            return Some(Err(TaskError::line(self.path, line, problem)));
        }
        if raw.len() > MAX_LINE {
            return Some(Err(TaskError::line(self.path, line, too_long("row"))));
        }
        Some(Ok((line, record)))
    }
}

/// The state of the quotes of a record.
#[derive(Default)]
struct Quotes {
    /// Whether the record ends inside a quoted cell.
    is_open: bool,
    /// Whether characters follow a closing quote within a cell.
    has_rest: bool,
}

impl Quotes {
    fn of(record: &[u8], delimiter: u8) -> Quotes {
        let mut found = Quotes::default();
        let (mut at_start, mut closed) = (true, false);
        for &byte in record {
            // A doubled quote closes and opens again.
            match byte {
                b'"' if found.is_open => (found.is_open, closed) = (false, true),
                b'"' if at_start || closed => (found.is_open, at_start, closed) = (true, false, false),
                _ if found.is_open => {}
                b'\n' | b'\r' => closed = false,
                _ if byte == delimiter => (at_start, closed) = (true, false),
                _ => {
                    found.has_rest |= closed;
                    at_start = false;
                }
            }
        }
        found
    }
}
