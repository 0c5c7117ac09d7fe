//! Reading files of (anchor, positive) pairs.

use std::path::Path;

use super::texts::Pair;
use crate::TaskError;
use crate::datasets::format::{DataFile, Format, display_name};
use crate::datasets::quoted_list;
use crate::datasets::table::{Column, Table};

/// The pairs of a file, and how its columns were found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pairs {
    /// The pairs, in order.
    pub pairs: Vec<Pair>,
    /// The column of the anchors.
    pub anchor: Column,
    /// The column of the positives.
    pub positive: Column,
    /// A note for the user, if the columns were not given.
    pub note: Option<String>,
}

/// Reads the pairs of a `.tsv`, `.csv`, `.jsonl`, `.json` or `.parquet` file. Columns that are not given are those named `anchor` and
/// `positive`; in other files the first two, as in sentence-transformers. The first line of a table is a header unless columns are
/// given by number.
///
/// # Errors
/// Those of [`Table::open`]; [`TaskError::Line`] for the first row that cannot be read or has a text of only white space.
pub fn read_pairs(path: &Path, given: Option<(Column, Column)>, format: Option<Format>) -> Result<Pairs, TaskError> {
    let file = DataFile { path, format };
    let (anchor, positive, note) = match given {
        Some((anchor, positive)) => (anchor, positive, None),
        None => {
            let (anchor, positive, how) = columns(file)?;
            let note =
                format!("{}: anchors are in column {anchor}, positives in column {positive}{how}", display_name(path));
            (anchor, positive, Some(note))
        }
    };
    if anchor == positive {
        return Err(TaskError::setting(
            "positive",
            format!("expected another column than the anchor's, found {positive}"),
        ));
    }
    let columns = [anchor.clone(), positive.clone()];
    let mut pairs = Vec::new();
    for row in Table::open(file, &columns)?.into_rows() {
        let row = row?;
        for (column, text) in columns.iter().zip(&row.cells) {
            if text.trim().is_empty() {
                let problem = format!("column {column}: expected a text, found only white space; remove the row");
                return Err(TaskError::line(path, row.line, problem));
            }
        }
        let mut cells = row.cells.into_iter();
        if let (Some(anchor), Some(positive)) = (cells.next(), cells.next()) {
            pairs.push(Pair { anchor, positive });
        }
    }
    Ok(Pairs { pairs, anchor, positive, note })
}

/// The columns of a file whose columns are not given, and an explanation. The first line of a table has the names of the
/// columns, as in `embed_training::rows`.
fn columns(file: DataFile<'_>) -> Result<(Column, Column, &'static str), TaskError> {
    let named = |name: &str| Column::Name(name.to_owned().into());
    let names = Table::names(file)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    if has("anchor") && has("positive") {
        return Ok((named("anchor"), named("positive"), ""));
    }
    match &names[..] {
        [first, second, ..] => Ok((named(first), named(second), " (the first two)")),
        _ => {
            let found = quoted_list(names.iter().map(String::as_str));
            let problem = format!("expected at least two columns, anchors and positives, found {found}");
            Err(TaskError::file(file.path, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str, given: Option<[&str; 2]>) -> Result<(Vec<[String; 2]>, Option<String>), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let given = given.map(|names| names.map(|name| Column::parse(name).unwrap()));
        let found =
            read_pairs(&path, given.map(|[anchor, positive]| (anchor, positive)), None).map_err(|e| e.to_string())?;
        Ok((found.pairs.into_iter().map(|pair| [pair.anchor, pair.positive]).collect(), found.note))
    }

    #[test]
    fn columns_are_found_by_name_and_by_order() {
        let expected = vec![["q a".to_owned(), "b".to_owned()], ["c".to_owned(), "d".to_owned()]];
        let pairs = |name: &str, text: &str, given| read(name, text, given).unwrap().0;
        assert_eq!(pairs("x.tsv", "q a\tb\nc\td\n", Some(["#1", "#2"])), expected);
        assert_eq!(
            pairs("x.json", "[{\"query\": \"q a\", \"answer\": \"b\"}, {\"query\": \"c\", \"answer\": \"d\"}]", None),
            expected
        );
        assert_eq!(pairs("x.tsv", "question\tanswer\nq a\tb\nc\td\n", None), expected);
        assert_eq!(pairs("x.tsv", "id\tpositive\tanchor\n1\tb\tq a\n2\td\tc\n", None), expected);
        assert_eq!(pairs("x.csv", "Query,Passage,id\nq a,b,1\nc,d,2\n", None), expected);
        assert_eq!(pairs("x.csv", "one,two\nq a,b\nc,d\n", Some(["one", "two"])), expected);
        assert_eq!(pairs("x.csv", "1,q a,b\n2,c,d\n", Some(["#2", "#3"])), expected);
        // The order of the keys counts, not that of the alphabet.
        let json = "{\"query\": \"q a\", \"answer\": \"b\"}\n{\"answer\": \"d\", \"query\": \"c\"}\n";
        assert_eq!(pairs("x.jsonl", json, None), expected);
        let json = "{\"positive\": \"b\", \"anchor\": \"q a\"}\n{\"anchor\": \"c\", \"positive\": \"d\"}\n";
        assert_eq!(pairs("x.jsonl", json, None), expected);
        let note = read("x.tsv", "one\ttwo\na\tb\n", None).unwrap().1.unwrap();
        assert!(note.contains("column \"one\", positives in column \"two\" (the first two)"), "{note}");
        assert_eq!(read("x.csv", "one,two\na,b\n", Some(["one", "two"])).unwrap().1, None);
    }

    #[test]
    fn files_without_pairs_are_errors_of_one_line() {
        let fails = |name: &str, text: &str, given| read(name, text, given).unwrap_err();
        assert!(
            fails("x.tsv", "a\tb\nc\t \n", Some(["#1", "#2"]))
                .contains("x.tsv:2: column #2: expected a text, found only white space")
        );
        assert!(fails("x.tsv", "anchor\nb\n", None).contains("at least two columns"));
        assert!(fails("x.csv", "a,b\n", Some(["a", "a"])).contains("expected another column"));
        assert!(fails("x.csv", "a,b\nc,d\n", Some(["a", "x"])).contains("no column \"x\""));
        assert!(fails("x.jsonl", "{\"a\": \"b\"}\n", None).contains("at least two columns"));
        assert!(fails("x.jsonl", "[1]\n{}", None).contains("x.jsonl"));
        assert!(
            fails("x.jsonl", "{\"anchor\": \"a\", \"positive\": \"b\"}\n{\"anchor\": \"a\"}\n", None)
                .contains("x.jsonl:2: no key \"positive\"")
        );
    }
}
