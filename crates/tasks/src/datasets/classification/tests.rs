use super::*;
use crate::datasets::testing::{fails, file};

fn columns(pair: bool) -> TextColumns {
    TextColumns { text: Column::name("a"), pair: pair.then(|| Column::name("b")), label: Some(Column::name("label")) }
}

fn read(text: &str, columns: &TextColumns, need: Need) -> Result<LabelledTexts, TaskError> {
    LabelledTexts::read(&file("x.tsv", text).path, columns, need, RaggedRows::Error)
}

#[test]
fn texts_and_pairs_with_labels() {
    let text = "a\tlabel\tb\nx \tpos \t y\nz\tneg\t\n";
    let pairs = read(text, &columns(true), Need::Required).unwrap();
    let expected = [
        LabelledText { text: "x ".into(), pair: Some(" y".into()), label: Some("pos".into()), line: 2 },
        LabelledText { text: "z".into(), pair: Some("".into()), label: Some("neg".into()), line: 3 },
    ];
    assert_eq!(pairs.examples(), expected);
    assert!(pairs.is_labelled() && pairs.skipped().is_empty());
    let labels = pairs.labels().unwrap();
    assert_eq!(labels.names(), ["neg", "pos"]);
    assert_eq!(pairs.class_ids(&labels).unwrap(), [1, 0]);
    let single = read(text, &columns(false), Need::Optional).unwrap();
    assert_eq!(single.examples()[0], LabelledText { pair: None, ..expected[0].clone() });
}

#[test]
fn labels_may_be_missing_only_in_prediction() {
    let text = "a\nx\n";
    let texts = read(text, &columns(false), Need::Optional).unwrap();
    assert_eq!(texts.examples()[0].label, None);
    assert!(!texts.is_labelled());
    fails(texts.labels(), &["x.tsv", "no labels"]);
    fails(texts.class_ids(&Labels::given(["p"]).unwrap()), &["x.tsv:2:", "no label"]);
    fails(read(text, &columns(false), Need::Required), &["x.tsv", "no column \"label\""]);
    fails(read("a\tlabel\nx\t \n", &columns(false), Need::Required), &["x.tsv:2:", "\"label\" is empty"]);
    assert_eq!(read("a\tlabel\nx\t \n", &columns(false), Need::Optional).unwrap().examples()[0].label, None);
    let unlabelled = TextColumns { label: None, ..columns(false) };
    fails(read(text, &unlabelled, Need::Required), &["label column"]);
    assert_eq!(read(text, &unlabelled, Need::Optional).unwrap().examples().len(), 1);
}

#[test]
fn unknown_labels_name_their_place_and_the_known_ones() {
    let dev = read("a\tlabel\nx\tpos\ny\tpso\n", &columns(false), Need::Required).unwrap();
    let labels = Labels::found(["neg", "pos"]).unwrap();
    let parts = ["x.tsv:3:", "column \"label\"", "unknown label \"pso\"", "\"neg\", \"pos\"", "did you mean \"pos\""];
    fails(dev.class_ids(&labels), &parts);
}

#[test]
fn scores_are_finite_numbers() {
    let scores = |label: &str| read(&format!("a\tlabel\nx\t5.000\ny\t{label}\n"), &columns(false), Need::Required);
    assert_eq!(scores("-1e-2").unwrap().scores().unwrap(), [5.0, -0.01]);
    for wrong in ["NaN", "inf", "-infinity", "1e39", "3,5", "high"] {
        fails(scores(wrong).unwrap().scores(), &["x.tsv:3:", "column \"label\"", wrong, "finite"]);
    }
}
