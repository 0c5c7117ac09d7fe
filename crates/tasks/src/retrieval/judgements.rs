//! Judgements: which document answers which query how well.

use std::path::Path;

use crate::TaskError;
use crate::lines::Lines;

/// A line of the file.
pub(super) struct Judgement {
    pub(super) line: usize,
    pub(super) query: String,
    pub(super) document: String,
    pub(super) grade: u32,
}

/// What three cells' number means.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// The more, the better.
    Grades,
    /// Cleverdon's codes.
    Codes,
}

const GRADES: &str = "grades as they stand, those below 0 as 0";
const CODES: &str = "Cleverdon's codes 1 (complete answer), 2, 3, 4 (minimum interest) as grades 4, 3, 2, 1; 5 (no interest) and -1 \
                     (not explained) as 0";

/// Reads a file of judgements, and says what its numbers were taken for.
pub(super) fn read(path: &Path, scale: Scale) -> Result<(Vec<Judgement>, &'static str), TaskError> {
    let (mut lines, mut list, mut as_codes) = (Lines::open(path)?, Vec::new(), scale == Scale::Codes);
    while lines.advance()? {
        let line = lines.text();
        let cells: Vec<&str> = match scale {
            // Ids of BEIR may hold spaces.
            Scale::Grades if line.contains('\t') => line.split('\t').map(str::trim).collect(),
            _ => line.split_whitespace().collect(),
        };
        let (query, document, number) = match cells[..] {
            [] | [""] => continue,
            [query, document, number] => (query, document, number),
            [query, _, document, number] => {
                as_codes = false;
                (query, document, number)
            }
            _ => {
                let problem = format!("expected query, document and grade, found {} cells", cells.len());
                return Err(lines.problem(problem));
            }
        };
        let grade = match number.parse::<i32>() {
            Err(_) if lines.number() == 1 => continue, // the header
            Err(_) => return Err(lines.problem(format!("expected a whole number as the last cell, found {number:?}"))),
            Ok(code) if as_codes => match code {
                1..=4 => 5 - code as u32,
                5 | -1 => 0,
                _ => {
                    let problem = format!("expected a code from 1 (best) to 5, or -1, as in Cranfield; found {code}");
                    return Err(lines.problem(problem));
                }
            },
            Ok(grade) => u32::try_from(grade).unwrap_or(0),
        };
        let (query, document) = (query.to_owned(), document.to_owned());
        list.push(Judgement { line: lines.number(), query, document, grade });
    }
    if list.is_empty() {
        return Err(TaskError::file(path, "holds no judgements; expected lines of query, document and grade"));
    }
    Ok((list, if as_codes { CODES } else { GRADES }))
}
