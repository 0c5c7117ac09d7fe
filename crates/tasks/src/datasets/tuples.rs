//! Pairs and triplets of texts, and texts with their duplicates: the data of evaluations of embedding models.
//!
//! Columns are selected by the caller, by the data set preset, by known names (`sentence1`, `sentence2`, `score`; `anchor`,
//! `positive`, `negative`), or else by their order, if the file has exactly as many columns as are needed. The keys of
//! JSON objects have no order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::format::DataFile;
use super::preset::DatasetPreset;
use super::quoted_list;
use super::table::{Column, RaggedRows, Row, TableFile};
use crate::TaskError;
use crate::reading::Notes;

/// Known names of the columns of a pair.
const PAIRS: [[&str; 2]; 9] = [
    ["sentence1", "sentence2"],
    ["text1", "text2"],
    ["question1", "question2"],
    ["#1 String", "#2 String"],
    ["text", "pair"],
    ["anchor", "positive"],
    ["query", "document"],
    ["query", "passage"],
    ["premise", "hypothesis"],
];
/// Known names of the column of a score, in order of preference.
const SCORES: [&str; 5] = ["score", "scores", "similarity", "similarity_score", "label"];
/// Known names of the column of a label, in order of preference.
const LABELS: [&str; 5] = ["label", "labels", "is_duplicate", "Quality", "score"];
/// Known names of the columns of a triplet.
const TRIPLETS: [[&str; 3]; 3] =
    [["anchor", "positive", "negative"], ["query", "positive", "negative"], ["sentence1", "sentence2", "sentence3"]];
/// Known names of the columns of an id and its text.
const TEXTS: [[&str; 2]; 4] = [["id", "text"], ["id", "sentence"], ["qid", "question"], ["_id", "text"]];
/// Known names of the columns of two ids.
const DUPLICATES: [[&str; 2]; 3] = [["id1", "id2"], ["qid1", "qid2"], ["sentence1_id", "sentence2_id"]];

/// The columns of pairs that a caller selects.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PairColumns {
    /// The first text.
    pub text: Option<Column>,
    /// The second text.
    pub pair: Option<Column>,
    /// The score or label.
    pub label: Option<Column>,
    /// The data set of the files, which defines the columns that are not selected.
    pub preset: Option<DatasetPreset>,
}

/// The columns of triplets that a caller selects.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TripletColumns {
    /// The anchor.
    pub anchor: Option<Column>,
    /// The text that is more similar to it.
    pub positive: Option<Column>,
    /// The text that is less similar to it.
    pub negative: Option<Column>,
}

/// The columns of texts and of duplicates that a caller selects.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DuplicateColumns {
    /// The id of a text.
    pub id: Option<Column>,
    /// The text.
    pub text: Option<Column>,
    /// The two ids of a pair of duplicates.
    pub duplicates: [Option<Column>; 2],
}

/// Pairs of texts, each with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs<V> {
    /// The first texts.
    pub first: Vec<String>,
    /// The second texts.
    pub second: Vec<String>,
    /// The values.
    pub values: Vec<V>,
}

/// Triplets of texts: the positive is more similar to the anchor than the negative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Triplets {
    /// The anchors.
    pub anchors: Vec<String>,
    /// The positives.
    pub positives: Vec<String>,
    /// The negatives.
    pub negatives: Vec<String>,
}

/// Texts, and which of them are duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateTexts {
    /// The texts.
    pub texts: Vec<String>,
    /// The duplicates, as rows of `texts`.
    pub pairs: Vec<(usize, usize)>,
    /// The number of pairs with an id that no text has; they are ignored.
    pub unknown: usize,
}

impl Pairs<f64> {
    /// Reads pairs with a gold score, such as STS-B's.
    ///
    /// # Errors
    /// Those of [`Table::open`](super::table::Table::open). [`TaskError::File`] for columns that cannot be found.
    /// [`TaskError::Line`] for a blank text, and for a score that is not a finite number.
    pub fn with_scores<'a>(
        file: impl Into<DataFile<'a>>,
        columns: &PairColumns,
        notes: &mut Notes,
    ) -> Result<Pairs<f64>, TaskError> {
        Pairs::read(file.into(), columns, &SCORES, notes, |cell| match cell.trim().parse::<f64>() {
            Ok(score) if score.is_finite() => Ok(score),
            _ => Err(format!("expected a finite number such as 3.5, found \"{cell}\"")),
        })
    }
}

impl Pairs<bool> {
    /// Reads pairs with a label: 1 for similar texts, 0 for others.
    ///
    /// # Errors
    /// Those of [`with_scores`](Pairs::with_scores); [`TaskError::Line`] for a label other than 0 and 1.
    pub fn with_labels<'a>(
        file: impl Into<DataFile<'a>>,
        columns: &PairColumns,
        notes: &mut Notes,
    ) -> Result<Pairs<bool>, TaskError> {
        Pairs::read(file.into(), columns, &LABELS, notes, |cell| match cell.trim() {
            "1" | "1.0" | "true" => Ok(true),
            "0" | "0.0" | "false" => Ok(false),
            _ => Err(format!("expected 1 for similar texts or 0 for others, found \"{cell}\"")),
        })
    }
}

impl<V> Pairs<V> {
    fn read(
        file: DataFile<'_>,
        columns: &PairColumns,
        values: &[&'static str],
        notes: &mut Notes,
        read: impl Fn(&str) -> Result<V, String>,
    ) -> Result<Pairs<V>, TaskError> {
        let preset = columns.preset.as_ref().and_then(|preset| preset.columns_of(file.path));
        if let Some((preset, None)) = preset.map(|columns| (columns, columns.pair.as_ref())) {
            let problem = format!("expected a data set of pairs, found one of single texts in column {}", preset.text);
            return Err(TaskError::setting("task", problem));
        }
        let known: Vec<[&str; 3]> =
            PAIRS.iter().flat_map(|[a, b]| values.iter().map(move |value| [*a, *b, *value])).collect();
        let selection = Selection {
            given: [
                ("text", columns.text.clone().or(preset.map(|columns| columns.text.clone()))),
                ("pair", columns.pair.clone().or(preset.and_then(|columns| columns.pair.clone()))),
                ("label", columns.label.clone().or(preset.and_then(|columns| columns.label.clone()))),
            ],
            known: &known,
            what: "two texts and a number",
            // A first line with a number is a row.
            is_row: &|cells| cells[2].trim().parse::<f64>().is_ok(),
        };
        let ragged = columns.preset.as_ref().map_or(RaggedRows::Error, |preset| preset.ragged);
        let (path, columns, rows) = selection.read(file, ragged, notes)?;
        let mut pairs = Pairs { first: Vec::new(), second: Vec::new(), values: Vec::new() };
        for (line, [first, second, value]) in rows {
            pairs.first.push(text(&path, line, &columns[0], first)?);
            pairs.second.push(text(&path, line, &columns[1], second)?);
            let value = read(&value);
            let name = &columns[2];
            pairs.values.push(value.map_err(|e| TaskError::line(&path, line, format!("column {name}: {e}")))?);
        }
        Ok(pairs)
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl Triplets {
    /// Reads triplets.
    ///
    /// # Errors
    /// Those of [`Table::open`](super::table::Table::open). [`TaskError::File`] for columns that cannot be found.
    /// [`TaskError::Line`] for a blank text.
    pub fn read<'a>(
        file: impl Into<DataFile<'a>>,
        columns: &TripletColumns,
        notes: &mut Notes,
    ) -> Result<Triplets, TaskError> {
        let TripletColumns { anchor, positive, negative } = columns.clone();
        let selection = Selection {
            given: [("anchor", anchor), ("positive", positive), ("negative", negative)],
            known: &TRIPLETS,
            what: "an anchor, a positive and a negative",
            is_row: &|_| false,
        };
        let (path, columns, rows) = selection.read(file.into(), RaggedRows::Error, notes)?;
        let mut triplets = Triplets { anchors: Vec::new(), positives: Vec::new(), negatives: Vec::new() };
        for (line, [anchor, positive, negative]) in rows {
            triplets.anchors.push(text(&path, line, &columns[0], anchor)?);
            triplets.positives.push(text(&path, line, &columns[1], positive)?);
            triplets.negatives.push(text(&path, line, &columns[2], negative)?);
        }
        Ok(triplets)
    }

    /// The number of triplets.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether there are no triplets.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }
}

impl DuplicateTexts {
    /// Reads a file of texts with ids, and a file with the two ids of each pair of duplicates.
    ///
    /// # Errors
    /// Those of [`Table::open`](super::table::Table::open). [`TaskError::File`] for columns that cannot be found, and if
    /// no pair has two known ids. [`TaskError::Line`] for a blank text, an id that occurs twice, and a text that is
    /// its own duplicate.
    pub fn read<'a>(
        texts: impl Into<DataFile<'a>>,
        duplicates: impl Into<DataFile<'a>>,
        columns: &DuplicateColumns,
        notes: &mut Notes,
    ) -> Result<DuplicateTexts, TaskError> {
        let DuplicateColumns { id, text: of_text, duplicates: [first, second] } = columns.clone();
        let selection = Selection {
            given: [("id", id), ("text", of_text)],
            known: &TEXTS,
            what: "an id and a text",
            is_row: &|_| false,
        };
        let (path, columns, rows) = selection.read(texts.into(), RaggedRows::Error, notes)?;
        let mut found = DuplicateTexts { texts: Vec::new(), pairs: Vec::new(), unknown: 0 };
        let mut ids: HashMap<String, (usize, usize)> = HashMap::new();
        for (line, [id, written]) in rows {
            if let Some((_, before)) = ids.insert(id.clone(), (found.texts.len(), line)) {
                let problem = format!("expected unique ids, found {id:?} again, which is also in line {before}");
                return Err(TaskError::line(&path, line, problem));
            }
            found.texts.push(text(&path, line, &columns[1], written)?);
        }
        let selection = Selection {
            given: [("duplicate_ids", first), ("duplicate_ids", second)],
            known: &DUPLICATES,
            what: "two ids",
            // A first line with two ids of texts is a row.
            is_row: &|cells| cells.iter().all(|cell| ids.contains_key(cell)),
        };
        let (path, _, rows) = selection.read(duplicates.into(), RaggedRows::Error, notes)?;
        for (line, [first, second]) in rows {
            match (ids.get(&first), ids.get(&second)) {
                (Some((a, _)), Some((b, _))) if a == b => {
                    let problem = format!("expected two different ids, found {first:?} twice");
                    return Err(TaskError::line(&path, line, problem));
                }
                (Some((a, _)), Some((b, _))) => found.pairs.push((*a, *b)),
                _ => found.unknown += 1,
            }
        }
        if found.pairs.is_empty() {
            let problem = "no pair has two ids of the texts; pass the duplicates of these texts";
            return Err(TaskError::file(&path, problem));
        }
        Ok(found)
    }
}

/// The selection of N columns.
struct Selection<'a, const N: usize> {
    /// The columns that the caller selects, with the names of their options.
    given: [(&'static str, Option<Column>); N],
    /// Known names of the columns.
    known: &'a [[&'static str; N]],
    /// What the columns contain, for messages.
    what: &'static str,
    /// Whether the first line of a table with N columns is a row and not a header.
    is_row: &'a dyn Fn(&[String; N]) -> bool,
}

/// The file, the columns found, and the rows with their lines.
type Found<const N: usize> = (PathBuf, [Column; N], Vec<(usize, [String; N])>);

impl<const N: usize> Selection<'_, N> {
    /// Finds the columns of a file and reads its rows.
    fn read(&self, file: DataFile<'_>, ragged: RaggedRows, notes: &mut Notes) -> Result<Found<N>, TaskError> {
        let path = file.path;
        let file = TableFile::open(file)?;
        let columns = self.columns(path, &file, notes)?;
        let table = file.table(&columns, &[], &[], ragged)?;
        notes.skipped(path, table.skipped().len());
        notes.notes(path, table.notes());
        let row = |row: Result<Row, TaskError>| {
            let Row { line, cells, .. } = row?;
            let cells: [String; N] = cells.try_into().unwrap_or_else(|_| std::array::from_fn(|_| String::new()));
            Ok((line, cells))
        };
        let rows: Vec<_> = table.into_rows().into_iter().map(row).collect::<Result<_, TaskError>>()?;
        Ok((path.to_owned(), columns, rows))
    }

    fn columns(&self, path: &Path, file: &TableFile, notes: &mut Notes) -> Result<[Column; N], TaskError> {
        let given: Vec<&Column> = self.given.iter().filter_map(|(_, column)| column.as_ref()).collect();
        if let Ok(all) = <[&Column; N]>::try_from(given.clone()) {
            return Ok(all.map(Clone::clone));
        }
        let options: Vec<String> =
            self.given.iter().filter(|(_, column)| column.is_none()).map(|(name, _)| format!("`{name}`")).collect();
        if given.iter().any(|column| matches!(column, Column::Number(_))) {
            let problem = format!("columns are selected by number; set {} too", options.join(", "));
            return Err(TaskError::file(path, problem));
        }
        let names = file.names()?;
        let has = |name: &str| names.iter().any(|other| other == name);
        // Known names of the columns that are not given.
        let open = |known: &[&'static str; N]| {
            let mut pairs = self.given.iter().zip(known);
            pairs.all(|((_, column), name)| column.is_some() || has(name))
        };
        if let Some(known) = self.known.iter().find(|known| open(known)) {
            let columns = self.given.iter().zip(known);
            let columns = columns.map(|((_, column), name)| column.clone().unwrap_or(Column::name(name)));
            return Ok(array(columns));
        }
        let in_order: Option<[String; N]> = names.clone().try_into().ok();
        match in_order.filter(|_| given.is_empty() && !file.is_json()) {
            Some(names) if (self.is_row)(&names) && file.has_header_line() => Ok(array((1..=N).map(Column::number))),
            Some(names) => {
                if file.has_header_line() {
                    let shown = quoted_list(names.iter().map(String::as_str));
                    notes.0.push(format!(
                        "{}: the first line is read as the names of the columns: {shown}; for a file without names, select the columns by number, such as #1",
                        path.display()
                    ));
                }
                Ok(names.map(|name| Column::Name(name.into())))
            }
            None => {
                let (names, options) = (quoted_list(names.iter().map(String::as_str)), options.join(", "));
                let problem = format!("expected columns with {}; the columns are {names}; set {options}", self.what);
                Err(TaskError::file(path, problem))
            }
        }
    }
}

/// The first N columns of an iterator that has at least N.
fn array<const N: usize>(columns: impl Iterator<Item = Column>) -> [Column; N] {
    let mut columns = columns;
    std::array::from_fn(|number| columns.next().unwrap_or(Column::number(number + 1)))
}

/// Checks that a text is not blank.
fn text(path: &Path, line: usize, column: &Column, text: String) -> Result<String, TaskError> {
    if text.trim().is_empty() {
        let problem = format!("column {column}: expected a text, found only white space");
        return Err(TaskError::line(path, line, problem));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fails, file};
    use super::*;

    fn scored(name: &str, text: &str, columns: &PairColumns) -> Result<Pairs<f64>, TaskError> {
        let file = file(name, text);
        Pairs::with_scores(&file.path, columns, &mut Notes::default())
    }

    fn labelled(name: &str, text: &str) -> Result<Pairs<bool>, TaskError> {
        let file = file(name, text);
        Pairs::with_labels(&file.path, &PairColumns::default(), &mut Notes::default())
    }

    fn pair(score: f64) -> Pairs<f64> {
        Pairs { first: vec!["a b".to_owned()], second: vec!["c".to_owned()], values: vec![score] }
    }

    #[test]
    fn columns_are_found_by_name_by_order_and_by_number() {
        let automatic = PairColumns::default();
        let official = "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta b\tc\t3.5\n";
        assert_eq!(scored("dev.tsv", official, &automatic).unwrap(), pair(3.5));
        assert_eq!(scored("x.csv", "left,right,gold\na b,c,3.5\n", &automatic).unwrap(), pair(3.5));
        // Without a header.
        assert_eq!(scored("x.tsv", "a b\tc\t3.5\n", &automatic).unwrap(), pair(3.5));
        let object = "{\"score\": 0.5, \"text2\": \"c\", \"text1\": \"a b\", \"id\": 7}\n";
        assert_eq!(scored("x.jsonl", object, &automatic).unwrap(), pair(0.5));
        // A score is preferred to a label here, and the other way round for labels.
        let both = "text1\ttext2\tlabel\tscore\na b\tc\t1\t0.25\n";
        assert_eq!(scored("x.tsv", both, &automatic).unwrap(), pair(0.25));
        assert_eq!(labelled("x.tsv", both).unwrap().values, [true]);
        let columns = PairColumns {
            text: Some(Column::number(2)),
            pair: Some(Column::number(1)),
            label: Some(Column::number(4)),
            ..PairColumns::default()
        };
        assert_eq!(scored("x.tsv", "c\ta b\tx\t2\n", &columns).unwrap(), pair(2.0));
        let columns = PairColumns { label: Some(Column::name("gold")), ..PairColumns::default() };
        assert_eq!(scored("x.tsv", "id\ttext1\ttext2\tgold\n1\ta b\tc\t2\n", &columns).unwrap(), pair(2.0));
    }

    #[test]
    fn presets_have_the_columns_of_official_files() {
        let columns = PairColumns { preset: Some(DatasetPreset::named("stsb").unwrap()), ..PairColumns::default() };
        let gold = "captions\tMSRvid\t2012test\t24\t2.500\ta b\tc\tsource\n";
        assert_eq!(scored("test-gold.tsv", gold, &columns).unwrap(), pair(2.5));
        fails(scored("test-gold.tsv", gold, &PairColumns::default()), &["two texts and a number", "`text`, `pair`"]);
        let columns = PairColumns { preset: Some(DatasetPreset::named("cola").unwrap()), ..PairColumns::default() };
        fails(scored("dev.tsv", "a\t1\t*\tb\n", &columns), &["`task`", "single texts"]);
        let mrpc = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta\tb\n0\t9\t10\tc\td\n";
        assert_eq!(labelled("dev.tsv", mrpc).unwrap().values, [true, false]);
    }

    #[test]
    fn values_that_are_not_valid_are_reported_with_their_line() {
        let automatic = PairColumns::default();
        let scores = |score: &str| format!("text1\ttext2\tscore\na\tb\t1\na\tb\t{score}\n");
        for bad in ["NaN", "inf", "high", ""] {
            fails(scored("x.tsv", &scores(bad), &automatic), &["x.tsv:3: column \"score\": expected a finite number"]);
        }
        for bad in ["2", "0.5", "-1", "yes"] {
            fails(labelled("x.tsv", &scores(bad)), &["x.tsv:3: column \"score\": expected 1", bad]);
        }
        let blank = "text1\ttext2\tscore\na\t \t1\n";
        fails(scored("x.tsv", blank, &automatic), &["x.tsv:2: column \"text2\": expected a text"]);
        let numbered = PairColumns { text: Some(Column::number(1)), ..PairColumns::default() };
        fails(scored("x.tsv", blank, &numbered), &["by number; set `pair`, `label` too"]);
        fails(scored("x.tsv", "a\tb\nc\td\n", &automatic), &["the columns are \"a\", \"b\"; set `text`"]);
        fails(
            scored("x.jsonl", "{\"a\": \"x\", \"b\": \"y\", \"c\": 1}\n", &automatic),
            &["set `text`, `pair`, `label`"],
        );
    }

    #[test]
    fn triplets_are_read() {
        let read = |name: &str, text: &str, columns: &TripletColumns| {
            let (file, mut notes) = (file(name, text), Notes::default());
            Triplets::read(&file.path, columns, &mut notes).map(|triplets| (triplets, notes.0.len()))
        };
        let expected = Triplets { anchors: vec!["a".into()], positives: vec!["b".into()], negatives: vec!["c".into()] };
        let automatic = TripletColumns::default();
        let named = "{\"anchor\": \"a\", \"positive\": \"b\", \"negative\": \"c\"}\n";
        assert_eq!(read("x.jsonl", named, &automatic).unwrap(), (expected.clone(), 0));
        // The note says that the first line is not a row.
        assert_eq!(read("x.tsv", "x\ty\tz\na\tb\tc\n", &automatic).unwrap(), (expected.clone(), 1));
        let columns = [1, 2, 3].map(|number| Some(Column::number(number)));
        let [anchor, positive, negative] = columns;
        let numbered = TripletColumns { anchor, positive, negative };
        assert_eq!(read("x.tsv", "a\tb\tc\n", &numbered).unwrap(), (expected, 0));
        fails(read("x.tsv", "anchor\tpositive\tnegative\na\t\tc\n", &automatic), &["x.tsv:2: column \"positive\""]);
    }

    #[test]
    fn duplicates_refer_to_ids_of_texts() {
        let read = |texts: &str, duplicates: &str| {
            let (texts, duplicates) = (file("texts.tsv", texts), file("duplicates.tsv", duplicates));
            DuplicateTexts::read(&texts.path, &duplicates.path, &DuplicateColumns::default(), &mut Notes::default())
        };
        let texts = "qid\tquestion\n7\ta\n8\tb\nx\tc\n";
        let expected =
            DuplicateTexts { texts: ["a", "b", "c"].map(str::to_owned).to_vec(), pairs: vec![(0, 2)], unknown: 1 };
        assert_eq!(read(texts, "qid1\tqid2\n7\tx\n7\t9\n").unwrap(), expected);
        assert_eq!(read(texts, "7\tx\n7\t9\n").unwrap(), expected, "without a header");
        fails(read(texts, "qid1\tqid2\n7\t7\n"), &["duplicates.tsv:2: expected two different ids"]);
        fails(read(texts, "qid1\tqid2\n1\t2\n"), &["no pair has two ids"]);
        fails(read("id\ttext\n7\ta\n7\tb\n", "7\t7\n"), &["texts.tsv:3: expected unique ids", "line 2"]);
        fails(read("id\ttext\n7\t \n", "7\t7\n"), &["texts.tsv:2: column \"text\""]);
    }

    /// Every seed must give rows or an error, without a panic.
    #[test]
    fn seeds_of_the_fuzz_target_are_read() {
        for seed in cloze_testing::fuzz_seeds("table") {
            for name in ["x.tsv", "x.csv", "x.jsonl", "x.json"] {
                let (file, mut notes) = (file(name, seed.get(1..).unwrap_or_default()), Notes::default());
                let path = &file.path;
                let _ = Pairs::with_scores(path, &PairColumns::default(), &mut notes);
                let _ = Pairs::with_labels(path, &PairColumns::default(), &mut notes);
                let _ = Triplets::read(path, &TripletColumns::default(), &mut notes);
                let _ = DuplicateTexts::read(path, path, &DuplicateColumns::default(), &mut notes);
                let _ = crate::datasets::rankings::Ranking::read(path);
                let _ = crate::datasets::rankings::read_run(path);
            }
        }
    }
}
