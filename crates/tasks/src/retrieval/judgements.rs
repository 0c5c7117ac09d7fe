//! Relevance judgements (qrels): grades of documents for queries.

use std::path::Path;

use cloze_data::corpus::text::parse_json;
use serde_json::{Map, Value};

use crate::TaskError;
use crate::lines::Lines;

/// A judgement, and its line in the file.
pub(super) struct Judgement {
    pub(super) line: usize,
    pub(super) query: String,
    pub(super) document: String,
    pub(super) grade: u32,
}

/// The meaning of the number in lines with three cells.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Relevance grades: higher is more relevant.
    Grades,
    /// Cleverdon's codes, in which 1 is the most relevant.
    Codes,
}

const GRADES: &str = "the given grades, with grades below 0 as 0";
const CODES: &str = "Cleverdon's codes 1 (complete answer), 2, 3, 4 (minimum interest) as grades 4, 3, 2, 1; 5 (no interest) and -1 \
                     (not explained) as 0";
const LISTED: &str =
    "query, document and two zeros, as in SMART's collections: every listed document is relevant, with grade 1";

/// The cells of a line.
enum Cells {
    Three([String; 3]),
    /// TREC's: query, an unused cell, document, grade; or SMART's.
    Four([String; 4]),
}

impl Cells {
    /// Whether these are SMART's. In TREC's format they would mean that document 0 is not relevant.
    fn are_smart(&self) -> bool {
        matches!(self, Cells::Four([.., document, number]) if [document, number].iter().all(|cell| parse_integer(cell) == Ok(0)))
    }
}

/// Reads a file of judgements. Also returns a description of how its numbers are interpreted.
pub(super) fn read(path: &Path, scale: Scale) -> Result<(Vec<Judgement>, &'static str), TaskError> {
    let (mut lines, mut found, mut is_first) = (Lines::open(path)?, Vec::new(), true);
    while lines.advance()? {
        let line = lines.text();
        if line.trim().is_empty() {
            continue;
        }
        let cells = cells_of(line, scale).map_err(|problem| lines.problem(problem))?;
        let (Cells::Three([.., number]) | Cells::Four([.., number])) = &cells;
        let is_header = std::mem::take(&mut is_first) && number.parse::<f64>().is_err();
        if !is_header {
            found.push((lines.number(), cells));
        }
    }
    if found.is_empty() {
        return Err(TaskError::file(path, "expected lines with query, document and grade, found no judgements"));
    }
    let is_smart = found.iter().all(|(_, cells)| cells.are_smart());
    let as_codes = scale == Scale::Codes && found.iter().all(|(_, cells)| matches!(cells, Cells::Three(_)));
    let judgement = |(line, cells)| {
        let (query, document, number) = match cells {
            Cells::Four([query, document, ..]) if is_smart => (query, document, "1".to_owned()),
            Cells::Three([query, document, number]) | Cells::Four([query, _, document, number]) => {
                (query, document, number)
            }
        };
        let grade = parse_integer(&number).and_then(|number| grade_of(number, as_codes));
        let grade = grade.map_err(|problem| TaskError::line(path, line, problem))?;
        Ok(Judgement { line, query, document, grade })
    };
    let list = found.into_iter().map(judgement).collect::<Result<_, TaskError>>()?;
    Ok((
        list,
        if is_smart {
            LISTED
        } else if as_codes {
            CODES
        } else {
            GRADES
        },
    ))
}

fn cells_of(line: &str, scale: Scale) -> Result<Cells, String> {
    if line.trim_start().starts_with('{') {
        return object_of(line);
    }
    let cells: Vec<String> = match scale {
        // Ids of BEIR may contain spaces.
        Scale::Grades if line.contains('\t') => line.split('\t').map(|cell| cell.trim().to_owned()).collect(),
        _ => line.split_whitespace().map(str::to_owned).collect(),
    };
    let wrong = |cells: Vec<String>| {
        let found = cells.len();
        format!("expected query, document and grade, or TREC's query, 0, document and grade; found {found} cells")
    };
    match cells.len() {
        3 => <[String; 3]>::try_from(cells).map(Cells::Three).map_err(wrong),
        _ => <[String; 4]>::try_from(cells).map(Cells::Four).map_err(wrong),
    }
}

/// Parses a judgement as a JSON object, as in Hugging Face's collections.
fn object_of(line: &str) -> Result<Cells, String> {
    let object: Map<String, Value> = parse_json(line, &mut 0)
        .map_err(|e| format!("expected a JSON object with query-id, corpus-id and score: {e}"))?;
    let cell = |names: [&str; 2]| match names.iter().find_map(|name| object.get(*name)) {
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(other) => Err(format!("expected a string or a number in \"{}\", found {other}", names[0])),
        None => {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            Err(format!("no key \"{}\", only {}; expected query-id, corpus-id and score", names[0], keys.join(", ")))
        }
    };
    Ok(Cells::Three([
        cell(["query-id", "query_id"])?,
        cell(["corpus-id", "corpus_id"])?,
        cell(["score", "relevance"])?,
    ]))
}

/// Parses an integer, which some collections write with decimals.
fn parse_integer(cell: &str) -> Result<i64, String> {
    match cell.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && number.abs() < 1e9 => Ok(number as i64),
        Ok(_) => Err(format!("expected an integer as the last cell, found {cell:?}; round such grades first")),
        Err(_) => Err(format!("expected an integer as the last cell, found {cell:?}")),
    }
}

fn grade_of(number: i64, as_codes: bool) -> Result<u32, String> {
    match number {
        1..=4 if as_codes => Ok(5 - number as u32),
        5 | -1 if as_codes => Ok(0),
        code if as_codes => Err(format!("expected a code from 1 (best) to 5, or -1, as in Cranfield; found {code}")),
        grade => Ok(u32::try_from(grade).unwrap_or(0)),
    }
}
