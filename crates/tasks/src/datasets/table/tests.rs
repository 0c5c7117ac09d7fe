use std::io::Write;

use cloze_testing::fuzz_seeds;

use super::*;
use crate::datasets::LabelsNeeded;
use crate::datasets::choice::Choices;
use crate::datasets::squad::{BadAnswers, Questions};
use crate::datasets::tagged::TaggedSentences;
use crate::datasets::testing::{TempFile, fails, file};

fn open(name: &str, bytes: impl AsRef<[u8]>, columns: &[&str]) -> Result<Table, TaskError> {
    let columns: Vec<Column> = columns.iter().map(|column| Column::parse(column).unwrap()).collect();
    valid(Table::open(&file(name, bytes).path, &columns)?)
}

/// The table, or the error of its first invalid row.
fn valid(table: Table) -> Result<Table, TaskError> {
    let rows: Vec<Row> = table.rows.into_iter().collect::<Result<_, _>>()?;
    Ok(Table { rows: rows.into_iter().map(Ok).collect(), ..table })
}

/// The lines and cells of the valid rows.
fn rows(table: &Table) -> Vec<(usize, Vec<&str>)> {
    let rows = table.rows.iter().flatten();
    rows.map(|row| (row.line, row.cells.iter().map(String::as_str).collect())).collect()
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/labelled.parquet")
}

#[test]
fn columns_are_names_or_numbers() {
    assert_eq!(Column::parse("#4").unwrap(), Column::number(4));
    assert_eq!(Column::parse("#1 String").unwrap(), Column::name("#1 String"));
    assert_eq!(Column::parse("#").unwrap(), Column::name("#"));
    assert_eq!(Column::parse("4").unwrap().to_string(), "\"4\"");
    assert_eq!(Column::number(4).to_string(), "#4");
    for wrong in ["#0", "#99999999999999999999", ""] {
        fails(Column::parse(wrong), &["column"]);
    }
}

#[test]
fn tsv_has_no_quoting_and_may_start_with_a_byte_order_mark() {
    let text = "\u{feff}sentence\tlabel\n\"Yes\", he said \t1\r\n\n\"no\t0\n";
    let table = open("a.tsv", text, &["label", "sentence"]).unwrap();
    assert_eq!(rows(&table), [(2, vec!["1", "\"Yes\", he said "]), (4, vec!["0", "\"no"])]);
    let table = open("a.txt", text, &["sentence"]).unwrap();
    assert_eq!(table.rows.len(), 2);
}

#[test]
fn numbers_mean_no_header() {
    let text = "gj04\t1\t\tThey sleep.\ngj04\t0\t*\tSleep they.\tmore\n";
    let table = open("a.tsv", text, &["#4", "#2"]).unwrap();
    assert_eq!(rows(&table), [(1, vec!["They sleep.", "1"]), (2, vec!["Sleep they.", "0"])]);
    fails(open("a.tsv", text, &["#4", "label"]), &["a.tsv", "name (\"label\")", "number (#4)"]);
    fails(open("a.tsv", text, &["#5"]), &["a.tsv:1:", "4 columns", "at least 5"]);
}

#[test]
fn ragged_rows_are_errors_or_counted() {
    let text = "a\tb\tc\n1\t2\t3\n1\t2\n1\t2\t3\t4\n5\t6\t7\n";
    fails(open("a.tsv", text, &["a"]), &["a.tsv:3:", "has 2 columns", "expected 3"]);
    let at = file("a.tsv", text);
    let table = Table::open_with(&at.path, &[Column::name("a")], &[], RaggedRows::Skip).unwrap();
    assert_eq!(rows(&table), [(2, vec!["1"]), (5, vec!["5"])]);
    assert_eq!(table.skipped(), [3, 4]);
    fails(open("a.csv", "a,b\n1,2\n1,2,3\n", &["a"]), &["a.csv:3:", "has 3 columns"]);
    let at = file("a.tsv", "a\tb\n1\n2\n");
    fails(
        Table::open_with(&at.path, &[Column::name("a")], &[], RaggedRows::Skip),
        &["at least one row", "found 2 rows"],
    );
}

#[test]
fn quoted_csv_cells_contain_commas_quotes_and_line_breaks() {
    let text = "id,text,label\r\n1,\"one, \"\"two\"\"\nthree\",x\r\n\r\n2,four \"five\",\"\"\r\n3,\"\",y";
    let table = open("a.csv", text, &["text", "label"]).unwrap();
    let expected = [(2, vec!["one, \"two\"\nthree", "x"]), (5, vec!["four \"five\"", ""]), (6, vec!["", "y"])];
    assert_eq!(rows(&table), expected);
    let table = open("a.csv", "x,1\ny,2\n", &["#2"]).unwrap();
    assert_eq!(rows(&table), [(1, vec!["1"]), (2, vec!["2"])]);
}

#[test]
fn csv_that_ends_inside_quotes_is_an_error() {
    fails(open("a.csv", "a,b\n1,2\n\n3,\"4\n5,6\n", &["a", "b"]), &["a.csv:4:", "never closed"]);
    fails(open("a.csv", "a\n\"x\"\"\n", &["a"]), &["a.csv:2:", "never closed"]);
    for closed in ["a,b\n1,\"x\"", "a,b\n1,\"x\"\"\"\n", "a,b\n1,x\"\n", "a,b\n\"1\"x,\"\"\n\n"] {
        assert_eq!(open("a.csv", closed, &["a", "b"]).unwrap().rows.len(), 1, "{closed:?}");
    }
}

#[test]
fn jsonl_cells_are_scalars() {
    let text = "{\"text\": \"a\\tb\", \"label\": 1}\n\n{\"label\": true, \"text\": 2.5, \"other\": [1]}\n";
    let table = open("a.jsonl", text, &["text", "label"]).unwrap();
    assert_eq!(rows(&table), [(1, vec!["a\tb", "1"]), (3, vec!["2.5", "true"])]);
    let same = open("a.jsonl", text, &["text", "text"]).unwrap();
    assert_eq!(rows(&same)[0].1, ["a\tb", "a\tb"]);
    fails(open("a.jsonl", text, &["other"]), &["a.jsonl:1:", "no key \"other\"", "\"label\", \"text\""]);
    fails(open("a.jsonl", "{\"a\": [1]}", &["a"]), &["a.jsonl:1:", "\"a\" is a list"]);
    fails(open("a.jsonl", "{\"a\": null}", &["a"]), &["a.jsonl:1:", "\"a\" is null"]);
    fails(open("a.jsonl", "{\"a\": 1}\n{\"a\": 1, }\n", &["a"]), &["a.jsonl:2:", "column 10"]);
    fails(open("a.jsonl", "{\"a\": 1}{\"a\": 1}", &["a"]), &["a.jsonl:1:"]);
    fails(open("a.jsonl", "[1]", &["a"]), &["a.jsonl:1:", "one JSON object per line", "a list"]);
    // A list of objects is also a table; its rows are numbered.
    let list = open("a.json", "[{\"a\": 1},\n\n {\"a\": \"x\\ud83d\"}]", &["a"]).unwrap();
    assert_eq!(rows(&list), [(1, vec!["1"]), (2, vec!["x\u{fffd}"])]);
    fails(open("a.jsonl", "{\"a\": 1}", &["#1"]), &["#1", "no numbers"]);
    fails(open("a.jsonl", "{\"sentence\": 1}", &["sentense"]), &["did you mean \"sentence\"?"]);
}

#[test]
fn jsonl_cells_are_lists_in_selected_columns() {
    let at = file("a.jsonl", "{\"text\": \"a\", \"labels\": [1, \"b\"]}\n{\"text\": \"b\", \"labels\": \"c\"}\n");
    let [text, labels] = ["text", "labels"].map(Column::name);
    let both = [text.clone(), labels.clone()];
    let table = Table::open_with_lists(&at.path, &both, &[], &[labels], RaggedRows::Error).unwrap();
    assert_eq!(rows(&table), [(1, vec!["a", "[1,\"b\"]"]), (2, vec!["b", "c"])]);
    fails(
        valid(Table::open_with_lists(&at.path, &both, &[], &[text], RaggedRows::Error).unwrap()),
        &["\"labels\" is a list"],
    );
    assert_eq!(Table::names(&at.path).unwrap(), ["text", "labels"]);
    assert_eq!(Table::names(&file("a.csv", "id,text\n1,a\n").path).unwrap(), ["id", "text"]);
}

#[test]
fn parquet_cells_are_scalars() {
    let columns = |names: &[&str]| names.iter().map(|name| Column::parse(name).unwrap()).collect::<Vec<_>>();
    let table = Table::open(&fixture(), &columns(&["sentence", "label", "kept"])).unwrap();
    let expected =
        [(1, vec!["It works.", "1", "true"]), (2, vec!["é\tü", "1", "false"]), (3, vec!["It\ndoes not.", "0", "true"])];
    assert_eq!(rows(&table), expected);
    let optional = columns(&["score", "none", "#2"]);
    let table = Table::open_with(&fixture(), &columns(&["#1"]), &optional, RaggedRows::Error).unwrap();
    let scores: Vec<_> = table.rows.iter().flatten().map(|row| row.optional.clone()).collect();
    let some = |text: &str| Some(text.to_owned());
    let expected = [[some("0.5"), None, some("1")], [None, None, some("1")], [some("-2.25"), None, some("0")]];
    assert_eq!(scores, expected);
    let lists = columns(&["tokens", "label"]);
    let table = Table::open_with_lists(&fixture(), &lists, &[], &lists, RaggedRows::Error).unwrap();
    assert_eq!(rows(&table), [(1, vec!["[\"It\"]", "1"]), (2, vec!["[]", "1"]), (3, vec!["[\"It\"]", "0"])]);
    assert!(Table::names(&fixture()).unwrap().contains(&"tokens".to_owned()));
    fails(valid(Table::open(&fixture(), &columns(&["score"])).unwrap()), &["labelled.parquet:2:", "null"]);
    fails(Table::open(&fixture(), &columns(&["tokens.list.element"])), &["lists", "expected strings"]);
    fails(Table::open(&fixture(), &columns(&["lable"])), &["did you mean \"label\"?", "\"kept\""]);
    fails(open("a.parquet", "PAR1", &["a"]), &["a.parquet", "not readable as parquet"]);
}

#[test]
fn optional_columns_may_be_missing() {
    let optional = |name: &str, text: &str, column: &str, other: &str| {
        let at: TempFile = file(name, text);
        let (column, other) = (Column::parse(column).unwrap(), Column::parse(other).unwrap());
        let table = valid(Table::open_with(&at.path, &[column], &[other], RaggedRows::Error)?)?;
        Ok(table.rows.iter().flatten().map(|row| row.optional[0].clone()).collect::<Vec<_>>())
    };
    let some = |text: &str| Some(text.to_owned());
    for (name, with, without) in
        [("a.tsv", "a\tb\nx\ty\nz\t\n", "a\tc\nx\ty\nz\tw\n"), ("a.csv", "a,b\nx,y\nz,\n", "a,c\nx,y\nz,w\n")]
    {
        assert_eq!(optional(name, with, "a", "b").unwrap(), [some("y"), some("")], "{name}");
        assert_eq!(optional(name, without, "a", "b").unwrap(), [None, None], "{name}");
    }
    assert_eq!(optional("a.tsv", "x\ty\nz\tw\n", "#1", "#2").unwrap(), [some("y"), some("w")]);
    assert_eq!(optional("a.tsv", "x\nz\n", "#1", "#2").unwrap(), [None, None]);
    fails(optional("a.tsv", "x\ty\nz\n", "#1", "#2"), &["a.tsv:2:", "at least 2"]);
    let found = optional("a.jsonl", "{\"a\": 1, \"b\": 2}\n{\"a\": 1}\n{\"a\": 1, \"b\": null}", "a", "b");
    assert_eq!(found.unwrap(), [some("2"), None, None]);
}

#[test]
fn compressed_tables_are_read() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"a\tb\n1\t2\n").unwrap();
    let bytes = encoder.finish().unwrap();
    assert_eq!(rows(&open("a.tsv.gz", &bytes, &["b"]).unwrap()), [(2, vec!["2"])]);
    fails(open("a.tsv.gz", &bytes[..bytes.len() - 9], &["b"]), &["a.tsv.gz", "gzip"]);
}

#[test]
fn errors_of_missing_columns_list_the_columns() {
    for (name, header) in [("a.tsv", "sentence\tlabel"), ("a.csv", "sentence,label")] {
        let text = format!("{header}\n");
        let parts = [name, "no column \"Label\"", "did you mean \"label\"?", "\"sentence\", \"label\""];
        fails(open(name, &text, &["Label"]), &parts);
    }
    let error = open("a.tsv", "sentence\tlabel\n", &["xyz"]).unwrap_err().to_string();
    assert!(!error.contains("did you mean"), "{error}");
    fails(open("a.tsv", "a\ta\n1\t2\n", &["a"]), &["expected one column \"a\", found several"]);
}

#[test]
fn files_without_rows_and_files_of_unknown_formats_are_errors() {
    for name in ["a.tsv", "a.csv", "a.jsonl"] {
        fails(open(name, "", &["a"]), &[name]);
    }
    fails(open("a.tsv", "", &["#1"]), &["at least one row"]);
    fails(open("a.csv", "", &["#1"]), &["at least one row"]);
    fails(open("a.tsv", "a\tb\n", &["a"]), &["a.tsv", "at least one row"]);
    fails(open("a.xlsx", "a", &["a"]), &["a.xlsx", "unknown format", ".tsv"]);
    fails(open("a", "a", &["a"]), &["unknown format"]);
    fails(Table::open(Path::new("none.tsv"), &[Column::name("a")]), &["cannot open none.tsv"]);
}

#[test]
fn bytes_that_are_not_utf8_are_errors() {
    let parts = ["a.tsv:3:", "byte 3", "0xe9", "not UTF-8", "iconv"];
    fails(open("a.tsv", b"a\n1\nab\xe9\n", &["a"]), &parts);
    fails(open("a.csv", b"a\n1\n\xff", &["a"]), &["a.csv:3:", "not UTF-8"]);
    fails(open("a.jsonl", b"\n{\"a\": \"\xe9\"}", &["a"]), &["a.jsonl:2:", "not UTF-8"]);
}

#[test]
fn an_invalid_row_keeps_its_position() {
    let at = |name: &str, text: &str, column: &str| {
        let table = Table::open(&file(name, text).path, &[Column::parse(column).unwrap()]).unwrap();
        let shown =
            |row: Result<Row, TaskError>| row.map_or_else(|error| error.to_string(), |row| row.cells[0].clone());
        table
            .into_rows()
            .into_iter()
            .map(shown)
            .map(|text| text.rsplit('/').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let found = at("a.tsv", "a\tb\n1\t2\n3\n4\t5\n", "a");
    assert_eq!((found.len(), &*found[0], &*found[2]), (3, "1", "4"));
    assert!(found[1].starts_with("a.tsv:3: has 1 column"), "{found:?}");
    let found = at("a.jsonl", "{\"a\": \"x\"}\n{\"a\": null}\n{\n{\"a\": 2}\n", "a");
    assert_eq!((found.len(), &*found[0], &*found[3]), (4, "x", "2"));
    assert!(found[1].starts_with("a.jsonl:2: \"a\" is null") && found[2].starts_with("a.jsonl:3:"), "{found:?}");
    let rows = Table::open(&fixture(), &[Column::name("score")]).unwrap().into_rows();
    assert_eq!(rows.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

/// Regression test: the quotes of tables written by R and pandas were kept in texts and labels. The values are those of
/// Python's csv module with tabs.
#[test]
fn r30_quoted_tsv_is_unquoted() {
    let all = |text: &str| {
        let table = open("a.tsv", text, &["#1", "#2"]).unwrap();
        let cells = rows(&table).into_iter().map(|(_, cells)| cells.join("|")).collect::<Vec<_>>();
        (cells, table.notes().len())
    };
    // All cells quoted; only where necessary; only the header is quoted.
    assert_eq!(all("text\tlabel\n\"ab cd\"\t\"0\"\n\"ef \"\"gh\"\"\"\t\"1\"\n").0[1..], ["ab cd|0", "ef \"gh\"|1"]);
    assert_eq!(
        all("ab\t0\n\"c \"\"d\"\"\"\t1\n\"e\nf\"\t0\n"),
        (vec!["ab|0".into(), "c \"d\"|1".into(), "e\nf|0".into()], 1)
    );
    assert_eq!(all("\"text\"\t\"label\"\n\"ab\"\t0\n").0, ["text|label", "ab|0"]);
    // In GLUE's files quotes are parts of the texts.
    for text in ["a\tb\n\"Yes\", he said\t1\n\"no\t0\n", "a\tb\n\"It works.\"\t1\nno\t0\n", "a\tb\nsay \"x\"\t1\n"] {
        assert_eq!(all(text).1, 0, "{text}");
        assert!(all(text).0[1].contains('"'), "{text}");
    }
}

#[test]
fn r30_possible_mistakes_give_a_note_or_a_hint() {
    // Python's csv gives the same three texts.
    let table = open("a.csv", "text,label\nx,0\n\"un,1\ny,0\n\"z,1\nw,0\n", &["text"]).unwrap();
    assert_eq!(table.rows.len(), 3);
    assert!(
        table.notes()[0].contains("1 row has characters after a closing quote, the first in line 3"),
        "{:?}",
        table.notes()
    );
    fails(open("a.csv", "text;label\nab;0\n", &["text"]), &["a.csv", "semicolons"]);
    fails(open("a.tsv", "ab\t0\ncd\t1\n", &["text"]), &["the columns are \"ab\", \"0\"", "by number, such as #1"]);
    assert_eq!(
        rows(&open("a.tsv", "text\tlabel\rab\t0\rcd\t1", &["text"]).unwrap()),
        [(2, vec!["ab"]), (3, vec!["cd"])]
    );
}

/// Every seed must give rows or an error, without a panic.
#[test]
fn seeds_of_the_fuzz_targets_are_read() {
    const TABLES: [&str; 5] = ["a.tsv", "a.csv", "a.jsonl", "a.json", "a"];
    const TAGGED: [&str; 7] = ["a.conll", "a.txt", "a.conllu", "a.jsonl", "a.txt", "a.txt", "a.json"];
    let named = |target: &str, names: &'static [&str]| {
        let named = |seed: Vec<u8>| (names[usize::from(seed[0] - b'0')], seed[1..].to_vec());
        fuzz_seeds(target).into_iter().map(named).collect::<Vec<_>>()
    };
    let unnamed =
        |target: &str, name: &'static str| fuzz_seeds(target).into_iter().map(|seed| (name, seed)).collect::<Vec<_>>();
    for (name, bytes) in [
        named("table", &TABLES),
        named("tagged", &TAGGED),
        unnamed("squad", "a.json"),
        unnamed("parquet_table", "a.parquet"),
    ]
    .concat()
    {
        let file = file(name, bytes);
        if let Ok(names) = Table::names(&file.path) {
            let columns: Vec<Column> = names.into_iter().map(|name| Column::Name(name.into())).collect();
            let _ = Table::open(&file.path, &columns);
        }
        let _ = Choices::read(&file.path, LabelsNeeded::Optional);
        let _ = TaggedSentences::read(&file.path, None, LabelsNeeded::Optional);
        let _ = Questions::read(&file.path, BadAnswers::Skip);
    }
}
