use super::*;
use crate::datasets::testing::{fails, file};

fn columns(pair: bool) -> TextColumns {
    TextColumns { text: Column::name("a"), pair: pair.then(|| Column::name("b")), label: Some(Column::name("label")) }
}

fn read(text: &str, columns: &TextColumns, need: LabelsNeeded) -> Result<LabelledTexts, TaskError> {
    let texts = LabelledTexts::read(&file("x.tsv", text).path, columns, need, RaggedRows::Error)?;
    let rows: Vec<LabelledText> = texts.rows.into_iter().collect::<Result<_, _>>()?;
    Ok(LabelledTexts { rows: rows.into_iter().map(Ok).collect(), ..texts })
}

/// The rows, all of which must be usable.
fn rows(texts: &LabelledTexts) -> Vec<&LabelledText> {
    texts.rows().iter().map(|row| row.as_ref().unwrap()).collect()
}

/// The parsed labels, or the error of the first one that is not valid.
fn labels<L>(texts: LabelledTexts, read: impl Fn(&str) -> Result<L, String>) -> Result<Vec<L>, TaskError> {
    texts.with_labels(read).into_iter().map(|row| row.map(|(_, label)| label)).collect()
}

#[test]
fn texts_and_pairs_with_labels() {
    let text = "a\tlabel\tb\nx \tpos \t y\nz\tneg\t\n";
    let pairs = read(text, &columns(true), LabelsNeeded::Required).unwrap();
    let expected = [
        LabelledText { text: "x ".into(), pair: Some(" y".into()), label: Some("pos".into()), line: 2 },
        LabelledText { text: "z".into(), pair: Some("".into()), label: Some("neg".into()), line: 3 },
    ];
    assert_eq!(rows(&pairs), expected.iter().collect::<Vec<_>>());
    assert!(pairs.is_labelled() && pairs.skipped().is_empty());
    let found = pairs.labels().unwrap();
    assert_eq!(found.names(), ["neg", "pos"]);
    assert_eq!(labels(pairs, |label| found.id_or_problem(label)).unwrap(), [1, 0]);
    let single = read(text, &columns(false), LabelsNeeded::Optional).unwrap();
    assert_eq!(*rows(&single)[0], LabelledText { pair: None, ..expected[0].clone() });
}

#[test]
fn labels_may_be_missing_only_for_prediction() {
    let text = "a\nx\n";
    let texts = read(text, &columns(false), LabelsNeeded::Optional).unwrap();
    assert_eq!(rows(&texts)[0].label, None);
    assert!(!texts.is_labelled());
    fails(texts.labels(), &["x.tsv", "expected a label in each row"]);
    let known = Labels::from_names(["p"]).unwrap();
    fails(labels(texts, |label| known.id_or_problem(label)), &["x.tsv:2:", "no label"]);
    fails(read(text, &columns(false), LabelsNeeded::Required), &["x.tsv", "no column \"label\""]);
    fails(
        read("a\tlabel\nx\t \n", &columns(false), LabelsNeeded::Required),
        &["x.tsv:2:", "\"label\": expected a label"],
    );
    assert_eq!(rows(&read("a\tlabel\nx\t \n", &columns(false), LabelsNeeded::Optional).unwrap())[0].label, None);
    let unlabelled = TextColumns { label: None, ..columns(false) };
    fails(
        read(text, &unlabelled, LabelsNeeded::Required),
        &["x.tsv: expected a column of labels", "`label`", "columns \"a\""],
    );
    assert_eq!(read(text, &unlabelled, LabelsNeeded::Optional).unwrap().rows().len(), 1);
}

#[test]
fn errors_of_unknown_labels_say_where_and_list_the_known_labels() {
    let dev = read("a\tlabel\nx\tpos\ny\tpso\n", &columns(false), LabelsNeeded::Required).unwrap();
    let known = Labels::from_data(["neg", "pos"]).unwrap();
    let parts = ["x.tsv:3:", "column \"label\"", "unknown label \"pso\"", "\"neg\", \"pos\"", "did you mean \"pos\""];
    fails(labels(dev, |label| known.id_or_problem(label)), &parts);
}

#[test]
fn scores_are_finite_numbers() {
    let scores =
        |label: &str| read(&format!("a\tlabel\nx\t5.000\ny\t{label}\n"), &columns(false), LabelsNeeded::Required);
    assert_eq!(labels(scores("-1e-2").unwrap(), score).unwrap(), [5.0, -0.01]);
    for wrong in ["NaN", "inf", "-infinity", "1e39", "3,5", "high"] {
        fails(labels(scores(wrong).unwrap(), score), &["x.tsv:3:", "column \"label\"", wrong, "finite"]);
    }
}

#[test]
fn r25_numbers_of_all_formats_are_the_same_labels() {
    let found = |name: &str, text: &str| {
        let columns = TextColumns { text: Column::name("a"), pair: None, label: Some(Column::name("label")) };
        let texts =
            LabelledTexts::read(&file(name, text).path, &columns, LabelsNeeded::Required, RaggedRows::Error).unwrap();
        texts.labels().unwrap().names().to_vec()
    };
    let written = ["1", "1.0", "01", "1e0", "-0.0", "0"];
    let rows = |row: fn(&str) -> String| written.map(row).concat();
    for (name, text) in [
        ("x.tsv", "a\tlabel\n".to_owned() + &rows(|label| format!("x\t{label}\n"))),
        ("x.csv", "a,label\n".to_owned() + &rows(|label| format!("x,{label}\n"))),
        ("x.jsonl", rows(|label| format!("{{\"a\": \"x\", \"label\": \"{label}\"}}\n"))),
        (
            "x.jsonl",
            ["1", "1.0", "1e0", "-0.0", "0"].map(|label| format!("{{\"a\": \"x\", \"label\": {label}}}\n")).concat(),
        ),
    ] {
        assert_eq!(found(name, &text), ["0", "1"], "{name}");
    }
    assert_eq!(found("x.jsonl", "{\"a\": \"x\", \"label\": true}\n{\"a\": \"x\", \"label\": \"True\"}\n"), ["true"]);
}

#[test]
fn r27_a_missing_value_is_an_error_in_its_position() {
    for missing in ["NaN", "null", "None", "<NA>"] {
        let text = format!("a\tlabel\nx\tpos\ny\t{missing}\nz\tneg\n");
        let texts = read(&text, &columns(false), LabelsNeeded::Required).unwrap();
        let known = texts.labels().unwrap();
        assert_eq!(known.names(), ["neg", "pos"]);
        let rows = texts.with_labels(|label| known.id_or_problem(label));
        assert_eq!(rows.iter().filter(|row| row.is_ok()).count(), 2);
        fails(rows.into_iter().nth(1).unwrap(), &["x.tsv:3:", "column \"label\"", missing, "missing value"]);
    }
}

#[test]
fn class_names_of_a_parquet_file_are_the_labels() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/huggingface.parquet");
    let read = |label: Column| {
        let columns = TextColumns { text: Column::name("text"), pair: None, label: Some(label) };
        LabelledTexts::read(&path, &columns, LabelsNeeded::Required, RaggedRows::Error).unwrap()
    };
    let texts = read(Column::name("label"));
    assert_eq!(texts.labels().unwrap().names(), ["contradiction", "entailment"]);
    // The file's numbers are not interpreted as indices in the model's order.
    let known = Labels::from_names(["contradiction", "entailment", "neutral"]).unwrap();
    let ids: Vec<_> = texts
        .with_labels(|label| known.id_or_problem(label))
        .into_iter()
        .map(|row| row.ok().map(|(_, id)| id))
        .collect();
    assert_eq!(ids, [Some(1), Some(0), None], "-1 means no label in Hugging Face's data sets");
    // A model that was trained on the numbers knows them.
    let numbers = Labels::from_names(["0", "1", "2"]).unwrap();
    let ids: Vec<_> =
        read(Column::number(2)).restore_numbers(&numbers).with_labels(|label| numbers.id_or_problem(label));
    assert_eq!(ids[1].as_ref().unwrap().1, 2);
}

/// Regression test: a table without a header was rejected because of a label that prediction does not need.
#[test]
fn r33_prediction_needs_no_header_and_no_label() {
    let headless = TextColumns { text: Column::number(1), ..columns(false) };
    let texts = read("ab\ncd\n", &headless, LabelsNeeded::Optional).unwrap();
    assert_eq!(rows(&texts).iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["ab", "cd"]);
}
