//! Queries with relevant and irrelevant documents: the data of evaluations of cross-encoders.

use std::path::Path;

use serde_json::{Map, Value};

use super::format::DataFile;
use super::quoted_list;
use super::table::{TableFile, kind};
use crate::TaskError;

/// A query with its documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// The query.
    pub query: String,
    /// The relevant documents; may be empty.
    pub positive: Vec<String>,
    /// The other documents.
    pub others: Others,
    /// The line where it starts, from 1; in a Parquet file the row.
    pub line: usize,
}

/// The other documents of a [`Ranking`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Others {
    /// Irrelevant documents, in no particular order.
    Negative(Vec<String>),
    /// The documents that a search found, best first. Relevant ones may be among them.
    Found(Vec<String>),
}

impl Ranking {
    /// Reads a file of objects (JSON lines, a JSON list, Parquet) with `query`, `positive`, and either `negative`
    /// or `documents` (lists of texts, or one text), as sentence-transformers' `CrossEncoderRerankingEvaluator` has them. With
    /// `documents`, these are the documents found by a search, best first.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::File`] for other formats and for a file without rows; [`TaskError::Line`] for a
    /// missing key, a value of a different type, a blank text, and an object with both `negative` and `documents` or
    /// neither.
    pub fn read<'a>(file: impl Into<DataFile<'a>>) -> Result<Vec<Ranking>, TaskError> {
        let file = file.into();
        let path = file.path;
        let objects = TableFile::open(file)?.objects(&["query", "positive", "negative", "documents"])?;
        if objects.is_empty() {
            return Err(TaskError::file(path, "expected at least one query, found none"));
        }
        let ranking = |row: Result<(usize, Map<String, Value>), TaskError>| {
            let (line, object) = row?;
            Ranking::of_object(object, line).map_err(|problem| TaskError::line(path, line, problem))
        };
        objects.into_iter().map(ranking).collect()
    }

    fn of_object(mut object: Map<String, Value>, line: usize) -> Result<Ranking, String> {
        let keys = quoted_list(object.keys().map(String::as_str));
        let missing = |key: &str| format!("no key \"{key}\"; the keys are {keys}");
        let mut take = |key: &str| object.remove(key).filter(|value| !value.is_null());
        let query = match take("query") {
            Some(Value::String(query)) if !query.trim().is_empty() => query,
            Some(Value::String(_)) => return Err("\"query\": expected a text, found only white space".to_owned()),
            Some(other) => return Err(format!("\"query\" is {}, expected a string", kind(&other))),
            None => return Err(missing("query")),
        };
        let positive = match take("positive") {
            Some(positive) => texts("positive", positive)?,
            None => return Err(missing("positive")),
        };
        let others = match (take("negative"), take("documents")) {
            (Some(negative), None) => Others::Negative(texts("negative", negative)?),
            (None, Some(documents)) => Others::Found(texts("documents", documents)?),
            (Some(_), Some(_)) => return Err("expected \"negative\" or \"documents\", found both".to_owned()),
            (None, None) => return Err(format!("expected \"negative\" or \"documents\", found the keys {keys}")),
        };
        Ok(Ranking { query, positive, others, line })
    }
}

/// The texts of a list, or one text.
fn texts(key: &str, value: Value) -> Result<Vec<String>, String> {
    let list = match value {
        Value::Array(list) => list,
        one @ Value::String(_) => vec![one],
        other => return Err(format!("\"{key}\" is {}, expected a list of strings", kind(&other))),
    };
    let text = |(number, value): (usize, Value)| match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text),
        Value::String(_) => Err(format!("\"{key}\": expected texts, found only white space in text {number}")),
        other => Err(format!("\"{key}\": expected a list of strings, found {} in it", kind(&other))),
    };
    (1..).zip(list).map(text).collect()
}

/// A ranking of documents for queries, as a search program writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunLine {
    /// The line, from 1.
    pub line: usize,
    /// The id of the query.
    pub query: String,
    /// The id of the document.
    pub document: String,
    /// The score; higher is better.
    pub score: f64,
}

/// Reads a run: TREC's six columns (query, an unused one, document, rank, score, name of the run), or three columns
/// (query, document, score), with or without a header.
///
/// # Errors
/// [`TaskError::Io`]; [`TaskError::Line`] for a line with a different number of columns, or whose score is not a finite
/// number; [`TaskError::File`] for a file without lines.
pub fn read_run(path: &Path) -> Result<Vec<RunLine>, TaskError> {
    let text = super::file::read_text(path)?;
    let mut run = Vec::new();
    let mut is_first = true;
    for (line, text) in super::file::lines(&text).filter(|(_, text)| !text.trim().is_empty()) {
        let is_first = std::mem::take(&mut is_first);
        let cells: Vec<&str> = match text.contains('\t') {
            true => text.split('\t').map(str::trim).collect(),
            false => text.split_whitespace().collect(),
        };
        let (query, document, score) = match cells[..] {
            [query, _, document, _, score, _] | [query, document, score] => (query, document, score),
            _ => {
                let problem = format!(
                    "expected query, document and score, or the six columns of TREC's runs, found {} columns",
                    cells.len()
                );
                return Err(TaskError::line(path, line, problem));
            }
        };
        match score.parse::<f64>() {
            Ok(score) if score.is_finite() => {
                run.push(RunLine { line, query: query.to_owned(), document: document.to_owned(), score });
            }
            _ if is_first => {}
            _ => {
                return Err(TaskError::line(
                    path,
                    line,
                    format!("expected a finite number as score, found \"{score}\""),
                ));
            }
        }
    }
    if run.is_empty() {
        return Err(TaskError::file(path, "expected lines with query, document and score, found none"));
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fails, file};
    use super::*;

    fn read(text: &str) -> Result<Vec<Ranking>, TaskError> {
        let file = file("x.jsonl", text);
        Ranking::read(&file.path)
    }

    #[test]
    fn both_forms_are_read() {
        let found = read(
            "{\"query\": \"q\", \"positive\": [\"a\", \"b\"], \"negative\": []}\n\n\
             {\"query\": \"r\", \"positive\": \"a\", \"documents\": [\"c\", \"a\"], \"negative\": null}\n",
        )
        .unwrap();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let first =
            Ranking { query: "q".into(), positive: texts(&["a", "b"]), others: Others::Negative(vec![]), line: 1 };
        let others = Others::Found(texts(&["c", "a"]));
        let second = Ranking { query: "r".into(), positive: texts(&["a"]), others, line: 3 };
        assert_eq!(found, [first, second]);
    }

    #[test]
    fn objects_that_are_not_valid_are_reported_with_their_line() {
        for (object, parts) in [
            (r#"{"positive": ["a"], "negative": []}"#, &["x.jsonl:1", "no key \"query\""][..]),
            (r#"{"query": " ", "positive": ["a"], "negative": []}"#, &["\"query\": expected a text"]),
            (r#"{"query": 3, "positive": ["a"], "negative": []}"#, &["\"query\" is a number"]),
            (r#"{"query": "q", "negative": []}"#, &["no key \"positive\""]),
            (r#"{"query": "q", "positive": {}, "negative": []}"#, &["\"positive\" is an object"]),
            (r#"{"query": "q", "positive": ["a", 1], "negative": []}"#, &["\"positive\"", "a number in it"]),
            (r#"{"query": "q", "positive": ["a"], "negative": ["b", ""]}"#, &["white space in text 2"]),
            (r#"{"query": "q", "positive": ["a"], "negative": [], "documents": []}"#, &["found both"]),
            (r#"{"query": "q", "positive": ["a"]}"#, &["expected \"negative\" or \"documents\""]),
        ] {
            fails(read(&format!("{object}\n")), parts);
        }
        fails(read("\n"), &["expected at least one query"]);
        let table = file("x.tsv", "query\tpositive\na\tb\n");
        fails(Ranking::read(&table.path), &["expected JSON or Parquet"]);
    }

    #[test]
    fn runs_are_read_in_both_formats() {
        let read = |text: &str| {
            let file = file("x.run", text);
            read_run(&file.path)
        };
        let line = |line, query: &str, document: &str, score| RunLine {
            line,
            query: query.to_owned(),
            document: document.to_owned(),
            score,
        };
        let expected = [line(1, "q1", "d 3", 2.5), line(2, "q1", "d1", -1.0)];
        assert_eq!(read("q1\tQ0\td 3\t1\t2.5\tbm25\nq1\tQ0\td1\t2\t-1\tbm25\n").unwrap(), expected);
        let found = read("query-id\tcorpus-id\tscore\nq1\td 3\t2.5\n").unwrap();
        assert_eq!(found, [line(2, "q1", "d 3", 2.5)]);
        assert_eq!(read("q1 Q0 d1 2 -1 x\n").unwrap(), [line(1, "q1", "d1", -1.0)]);
        fails(read("q1 d1 1\nq1 d2 nan\n"), &["x.run:2: expected a finite number as score, found \"nan\""]);
        fails(read("q1 d1\n"), &["x.run:1", "found 2 columns"]);
        fails(read("query document score\n"), &["found none"]);
    }
}
