//! Labelled data.

use std::path::Path;
use std::sync::LazyLock;

use cloze_tasks::Notes;
use cloze_tasks::datasets::LabelsNeeded;
use cloze_tasks::datasets::choice::Choices;
use cloze_tasks::datasets::classification::{LabelledTexts, TextColumns, score};
use cloze_tasks::datasets::format::DataFile;
use cloze_tasks::datasets::rankings::{Ranking, read_run};
use cloze_tasks::datasets::squad::{BadAnswers, Questions};
use cloze_tasks::datasets::table::{Column, RaggedRows, Table};
use cloze_tasks::datasets::tagged::{TagFormat, TaggedSentences};
use cloze_tasks::datasets::tuples::{DuplicateColumns, DuplicateTexts, PairColumns, Pairs, TripletColumns, Triplets};
use cloze_tasks::metrics::scheme::Scheme;
use cloze_tasks::retrieval::Collection;

use crate::files;
use crate::folder::Folder;

/// A table in TSV, CSV or JSON.
pub fn table(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("table"));
    const NAMES: [&str; 5] = ["a.tsv", "a.csv", "a.jsonl", "a.json", "a"];
    let Some((&first, bytes)) = input.split_first() else { return };
    let path = FOLDER.write(NAMES[usize::from(first.wrapping_sub(b'0')) % NAMES.len()], bytes);
    rows(&path, &FOLDER);
}

/// A Parquet file of labelled rows.
pub fn parquet_table(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("parquet_table"));
    let path = FOLDER.write("a.parquet", input);
    rows(&path, &FOLDER);
    questions(&path);
    sentences(&path, None);
}

/// Reads a table in every way. Rows that are written as JSON read back.
fn rows(path: &Path, folder: &Folder) {
    if let Ok(names) = Table::names(path) {
        let columns: Vec<Column> = names.iter().take(8).map(|name| Column::Name(name.clone().into())).collect();
        let _ = Table::open_with_lists(path, &[], &columns, &columns, RaggedRows::Skip);
        if let Ok(table) = Table::open(path, &columns) {
            let cells: Vec<Vec<String>> = table.into_rows().into_iter().flatten().map(|row| row.cells).collect();
            read_back(&cells, folder);
        }
    }
    let numbers = [Column::number(1), Column::number(2)];
    let _ = Table::open_with(path, &numbers[..1], &numbers[1..], RaggedRows::Skip);
    let (text, pair) = (Column::name("text"), Some(Column::name("pair")));
    for columns in [
        TextColumns { text: text.clone(), pair: None, label: Some(Column::name("label")) },
        TextColumns { text, pair, label: None },
        TextColumns { text: Column::number(1), pair: None, label: Some(Column::number(2)) },
    ] {
        for need in [LabelsNeeded::Required, LabelsNeeded::Optional] {
            if let Ok(texts) = LabelledTexts::read(DataFile::from(path), &columns, need, RaggedRows::Error) {
                texts.raw_labels().for_each(|label| drop(score(label)));
                if let Ok(labels) = texts.labels() {
                    let _ = texts.with_labels(|label| labels.id(label).ok_or_else(|| label.to_owned()));
                }
            }
        }
    }
    let mut notes = Notes::default();
    let _ = Pairs::with_scores(path, &PairColumns::default(), &mut notes);
    let _ = Pairs::with_labels(path, &PairColumns::default(), &mut notes);
    let _ = Triplets::read(path, &TripletColumns::default(), &mut notes);
    let _ = DuplicateTexts::read(path, path, &DuplicateColumns::default(), &mut notes);
    let _ = Ranking::read(path);
    let _ = read_run(path);
    for need in [LabelsNeeded::Required, LabelsNeeded::Optional] {
        if let Ok(choices) = Choices::read(DataFile::from(path), need) {
            let first = choices.first_number().unwrap_or_default();
            choices.has_numbers();
            choices.into_rows(first);
        }
    }
}

fn read_back(cells: &[Vec<String>], folder: &Folder) {
    let Some(width) = cells.first().map(Vec::len).filter(|&width| width > 0) else { return };
    let keys: Vec<String> = (0..width).map(|column| format!("c{column}")).collect();
    let mut written = String::new();
    for row in cells {
        let object: serde_json::Map<_, _> =
            keys.iter().cloned().zip(row.iter().map(|cell| cell.as_str().into())).collect();
        written += &serde_json::Value::Object(object).to_string();
        written.push('\n');
    }
    let columns: Vec<Column> = keys.into_iter().map(|key| Column::Name(key.into())).collect();
    let path = folder.write("written.jsonl", written.as_bytes());
    let table = Table::open(path.as_path(), &columns).expect("rows that were written");
    let found: Vec<Vec<String>> = table.into_rows().into_iter().map(|row| row.expect("a row").cells).collect();
    assert_eq!(found, cells, "rows change");
}

/// Tagged words.
pub fn tagged(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("tagged"));
    let Some((&first, bytes)) = input.split_first() else { return };
    let (name, format) = match first.wrapping_sub(b'0') % 7 {
        0 => ("a.conll", None),
        1 => ("a.txt", None),
        2 => ("a.conllu", None),
        3 => ("a.jsonl", None),
        4 => ("a.txt", Some(TagFormat::WikiAnn)),
        5 => ("a.txt", Some(TagFormat::Columns { word: 1, tag: Some(2) })),
        _ => ("a.json", Some(TagFormat::Objects)),
    };
    sentences(&FOLDER.write(name, bytes), format);
}

fn sentences(path: &Path, format: Option<TagFormat>) {
    for need in [LabelsNeeded::Required, LabelsNeeded::Optional] {
        let Ok(file) = TaggedSentences::read(path, format, need) else { continue };
        for sentence in file.sentences() {
            assert!(sentence.tags.is_empty() || sentence.tags.len() == sentence.words.len(), "{sentence:?}");
            assert!(sentence.words.iter().all(|word| !word.is_empty()), "{sentence:?}");
        }
        if !file.is_tagged() {
            continue;
        }
        if let Ok(labels) = file.labels() {
            for sentence in file.sentences() {
                let _ = file.tag_ids(sentence, &labels, |_| None);
            }
        }
        let tags: Vec<Vec<String>> = file.sentences().iter().map(|sentence| sentence.tags.clone()).collect();
        let all: Vec<&str> = tags.iter().flatten().map(String::as_str).collect();
        if let Some(scheme) = Scheme::of(&all) {
            for sentence in &tags {
                for entity in scheme.entities(sentence) {
                    assert!(entity.start < entity.end && entity.end <= sentence.len(), "{entity:?}");
                }
            }
            scheme.scores(&tags, &tags);
            scheme.describe(tags.iter().map(Vec::as_slice));
        }
    }
}

/// Questions with answers.
pub fn squad(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("squad"));
    questions(&FOLDER.write("a.json", input));
}

fn questions(path: &Path) {
    for bad in [BadAnswers::Error, BadAnswers::Skip, BadAnswers::Ignore] {
        let Ok(file) = Questions::read(path, bad) else { continue };
        for question in file.into_questions().into_iter().flatten() {
            for answer in &question.answers {
                assert!(question.context.get(answer.start..).is_some(), "{answer:?}");
            }
        }
    }
}

/// Documents, queries and judgements.
pub fn retrieval(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("retrieval"));
    let [documents, queries, judgements] = files(input).map(Option::unwrap_or_default);
    let corpus = FOLDER.write("corpus", documents);
    let queries = FOLDER.write("queries", queries);
    let judgements = FOLDER.write("judgements", judgements);
    let _ = Collection::open(&corpus, &queries, &judgements);
}
