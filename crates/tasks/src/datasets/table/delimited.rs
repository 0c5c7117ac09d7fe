//! TSV as GLUE writes it, and CSV.

use std::path::Path;

use super::columns::{Column, RaggedRows, Row, Wanted};
use crate::TaskError;
use crate::datasets::file::lines;
use crate::task::FileRows;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tsv,
    Csv,
}

/// The cells of the first line.
pub(super) fn header(path: &Path, kind: Kind, text: &str) -> Result<Vec<String>, TaskError> {
    match Records::new(path, kind, text).next() {
        Some(record) => Ok(record?.1.iter().map(|cell| cell.to_string()).collect()),
        None => Err(TaskError::file(path, "is empty; expected a header and rows")),
    }
}

pub(super) fn rows(
    wanted: &Wanted<'_>,
    kind: Kind,
    text: &str,
    ragged: RaggedRows,
    skipped: &mut Vec<usize>,
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
    let mut records = Records::new(wanted.path, kind, text).peekable();
    let (required, optional, width) = if name.is_some() {
        let names = header(wanted.path, kind, text)?;
        records.next();
        let (required, optional) = wanted.find(&names)?;
        (required, optional, Some(names.len()))
    } else {
        // Of a column by number, the first line tells whether the file has it at all.
        let first = match records.peek() {
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
    let mut rows = Vec::new();
    for record in records {
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
                    Kind::Tsv => ("tabs", "a tab or a line's end within a text?"),
                    Kind::Csv => ("commas", "a comma, quote or line's end within a text, not quoted?"),
                };
                let found = cells.len();
                let problem = format!("has {found} columns between {separator}, expected {expected} ({hint})");
                rows.push(Err(TaskError::line(wanted.path, line, problem)));
            }
        }
    }
    Ok(rows)
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
    Csv(CsvRecords<'a>),
}

impl<'a> Records<'a> {
    fn new(path: &'a Path, kind: Kind, text: &'a str) -> Records<'a> {
        match kind {
            Kind::Tsv => Records::Tsv(Box::new(lines(text).filter(|(_, line)| !line.is_empty()))),
            Kind::Csv => Records::Csv(CsvRecords::new(path, text)),
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
}

impl<'a> CsvRecords<'a> {
    fn new(path: &'a Path, text: &'a str) -> CsvRecords<'a> {
        let mut builder = csv::ReaderBuilder::new();
        let reader = builder.has_headers(false).flexible(true).from_reader(text.as_bytes());
        CsvRecords { path, text, reader, counted: (0, 1) }
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
        // The reader gives what it has when the file ends within quotes, and that may be the rest of the file.
        if end == self.text.len() && ends_within_quotes(raw) {
            let problem = "a quote (\") opens here or in this record and is never closed; close it, and write a quote within quotes twice (RFC 4180)";
            return Some(Err(TaskError::line(self.path, line, problem)));
        }
        Some(Ok((line, record)))
    }
}

/// Whether a record ends inside a quoted cell.
fn ends_within_quotes(record: &[u8]) -> bool {
    let mut quoted = false;
    let mut begins = true;
    for &byte in record {
        // A doubled quote closes and opens again.
        match byte {
            b'"' if quoted => (quoted, begins) = (false, true),
            b'"' if begins => quoted = true,
            b',' if !quoted => begins = true,
            _ => begins = false,
        }
    }
    quoted
}
