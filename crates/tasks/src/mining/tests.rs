use std::collections::HashMap;
use std::path::Path;

use cloze_engine::{DType, Device};
use serde_json::Value;

use super::output::{Layout, write};
use super::texts::Pair;
use super::*;
use crate::rerank::CrossEncoder;

fn device(threads: usize) -> Device {
    Device::cpu(Some(threads)).unwrap()
}

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/mining/cases.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The vectors of texts in a fixture.
fn vectors(of: &Value, texts: &[String]) -> Vectors {
    let numbers = texts.iter().flat_map(|text| of[text].as_array().unwrap());
    Vectors::new(of[&texts[0]].as_array().unwrap().len(), numbers.map(|x| x.as_f64().unwrap() as f32).collect())
}

fn options(of: &Value) -> Options {
    let number = |key: &str| of[key].as_f64().map(|x| x as f32);
    let count = |key: &str| of[key].as_u64().map(|x| x as usize);
    Options {
        range_min: count("range_min").unwrap_or(0),
        range_max: count("range_max"),
        max_score: number("max_score"),
        min_score: number("min_score"),
        absolute_margin: number("absolute_margin"),
        relative_margin: number("relative_margin"),
        num_negatives: count("num_negatives").unwrap_or(3),
        ..Options::default()
    }
}

/// Compares cells: scores with a tolerance.
#[track_caller]
fn assert_same(found: &Value, expected: &Value, what: &str) {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{what}");
            found.iter().zip(expected).for_each(|(found, expected)| assert_same(found, expected, what));
        }
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((found - expected).abs() < 3e-6, "{what}: {found} {expected}");
        }
        _ => assert_eq!(found, expected, "{what}"),
    }
}

/// Asserts that the rows of all cases equal those of sentence-transformers. Returns the number of rows.
#[track_caller]
fn assert_rows_equal(file: &Value, encoder: Option<&CrossEncoder>) -> usize {
    let pairs: Vec<Pair> = file["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| strings(pair).try_into().map(|[anchor, positive]: [String; 2]| Pair { anchor, positive }).unwrap())
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let mut seen = 0;
    for case in file["cases"].as_array().unwrap() {
        let corpus = if case["corpus"] == true { strings(&file["corpus"]) } else { Vec::new() };
        let texts = PairTexts::new(pairs.clone(), corpus).unwrap();
        assert!(texts.relations.same_text.iter().all(Option::is_none), "the fixture has no document like an anchor");
        let of = &case["options"];
        let options = Options { rescored: encoder.is_some(), ..options(of) };
        let named = |name: &str| Layout::ALL.iter().find(|(_, known, _)| *known == name).unwrap().0;
        let layout = of["output_format"].as_str().map_or(Layout::Triplet, named);
        let similarity = Similarity::named(case["similarity"].as_str().unwrap()).unwrap();
        let documents = index(vectors(&file["vectors"], &texts.documents), similarity);
        let run = |threads: usize| {
            let anchors = vectors(&file["vectors"], &texts.anchors);
            let relations = &texts.relations;
            let mut found =
                candidates(&device(threads), anchors, &documents, relations, &options, &mut |_| ()).unwrap();
            if let Some(encoder) = encoder {
                let pairs = found.hits.iter().map(Vec::len).sum::<usize>()
                    + relations.positives.iter().map(Vec::len).sum::<usize>();
                let rescored = rescore(encoder, &texts, &mut found, &mut |_| ()).unwrap();
                assert_eq!(rescored, Rescored { pairs, cut: 0 });
                assert!(found.hits.iter().all(|hits| hits.is_sorted_by(|a, b| a.score >= b.score)));
            }
            select(found, &options)
        };
        let mined = run(1);
        assert_eq!(run(3), mined, "the number of threads changes nothing");
        let with_scores = of["output_scores"] == true;
        let rows = write(&path, &texts, &mined, layout, options.num_negatives, with_scores).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        let expected = case["rows"].as_array().unwrap();
        let what = format!("{} {of}", case["similarity"]);
        assert_eq!((rows, written.lines().count()), (expected.len(), expected.len()), "{what}");
        for (line, expected) in written.lines().zip(expected) {
            // The columns by their order, as trainers read them.
            let found: Value = serde_json::from_str(line).unwrap();
            let mut keys: Vec<&String> = found.as_object().unwrap().keys().collect();
            keys.sort_by_key(|key| line.find(&format!("\"{key}\":")).unwrap());
            let found: Vec<Value> = keys.iter().map(|key| found[key.as_str()].clone()).collect();
            assert_same(&Value::Array(found), expected, &format!("{what}: {line}"));
            seen += 1;
        }
        assert_eq!(mined.summary.negatives, mined.negatives.iter().map(Vec::len).sum::<usize>());
    }
    seen
}

#[test]
fn rows_equal_those_of_sentence_transformers() {
    let seen = assert_rows_equal(&cases(), None);
    assert!(seen > 2000, "only {seen} rows");
}

/// The cross-encoder of the fixture.
fn encoder() -> CrossEncoder {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rerank/distilbert");
    CrossEncoder::open(&dir, device(2), DType::F32, &crate::rerank::Options::default()).unwrap()
}

#[test]
fn rescored_rows_equal_those_of_sentence_transformers() {
    let file = &cases()["rescored"];
    let encoder = encoder();
    let seen = assert_rows_equal(file, Some(&encoder));
    assert!(seen > 600, "only {seen} rows");
}

#[test]
fn equal_scores_keep_the_order_of_the_similarities() {
    // All letters that the model does not know are the same token.
    let texts = texts(&[("1", "2")], &["5", "3", "a", "4"]);
    let index = index(angles(&[30.0, 20.0, 40.0, 50.0, 10.0]), Similarity::Cosine);
    let options = Options { num_negatives: 4, rescored: true, ..Options::default() };
    let mut found = candidates(&device(1), angles(&[0.0]), &index, &texts.relations, &options, &mut |_| ()).unwrap();
    let before: Vec<usize> = found.hits[0].iter().map(|hit| hit.row).collect();
    assert_eq!(before, [1, 0, 2, 3]);
    let mut shares = Vec::new();
    rescore(&encoder(), &texts, &mut found, &mut |share| shares.push(share)).unwrap();
    assert_eq!(shares.last(), Some(&1.0));
    let mined = select(found, &options);
    let rows: Vec<usize> = mined.negatives[0].iter().map(|hit| hit.row).filter(|row| *row != 2).collect();
    assert_eq!(rows, [1, 0, 3], "\"3\", \"5\", \"4\" have the same score");
    let scores: Vec<f32> = mined.negatives[0].iter().filter(|hit| hit.row != 2).map(|hit| hit.score).collect();
    assert_eq!(scores, [mined.positive_scores[0][0]; 3]);
    // Candidates of other texts are refused.
    let others = self::texts(&[("q", "a"), ("r", "b")], &[]);
    let mut found = candidates(&device(1), angles(&[0.0]), &index, &texts.relations, &options, &mut |_| ()).unwrap();
    let line = rescore(&encoder(), &others, &mut found, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(line, "texts: expected those of 1 anchors and 5 documents");
}

/// Anchors and documents with the vectors of angles in degrees.
fn angles(of: &[f32]) -> Vectors {
    Vectors::new(2, of.iter().flat_map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()]).collect())
}

fn texts(pairs: &[(&str, &str)], corpus: &[&str]) -> PairTexts {
    let pair = |(anchor, positive): &(&str, &str)| Pair { anchor: (*anchor).into(), positive: (*positive).into() };
    PairTexts::new(pairs.iter().map(pair), corpus.iter().map(|text| (*text).to_owned())).unwrap()
}

#[test]
fn a_document_like_the_anchor_is_no_candidate() {
    let texts = texts(&[("q", "a"), ("r", "b")], &["q", "a", "c", "b"]);
    assert_eq!(texts.documents, ["q", "a", "c", "b"]);
    let index = index(angles(&[0.0, 10.0, 20.0, 30.0]), Similarity::Cosine);
    let options = Options { num_negatives: 1, ..Options::default() };
    let mined = mine(&device(1), angles(&[0.0, 0.0]), &index, &texts.relations, &options, &mut |_| ()).unwrap();
    let rows: Vec<usize> = mined.negatives.iter().map(|hits| hits[0].row).collect();
    assert_eq!(rows, [2, 0], "\"q\" is a negative only of \"r\"");
}

#[test]
fn random_negatives_depend_on_the_seed_and_are_sorted() {
    let names: Vec<String> = (0..60).map(|n| format!("d{n}")).collect();
    let corpus: Vec<&str> = names.iter().map(String::as_str).collect();
    let texts = texts(&[("q", "d0"), ("r", "d1")], &corpus);
    let documents: Vec<f32> = (0..60).map(|n| n as f32).collect();
    let index = index(angles(&documents), Similarity::Cosine);
    let run = |seed: u64| {
        let options = Options {
            range_min: 5,
            range_max: Some(45),
            num_negatives: 4,
            sampling: Sampling::Random,
            seed,
            ..Options::default()
        };
        mine(&device(2), angles(&[0.0, 0.0]), &index, &texts.relations, &options, &mut |_| ()).unwrap()
    };
    assert_eq!(run(1), run(1));
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for seed in 0..200 {
        let mined = run(seed);
        assert_eq!(mined.summary.incomplete, 0);
        for hits in &mined.negatives {
            assert!(hits.len() == 4 && hits.is_sorted_by(|a, b| a.score > b.score), "{hits:?}");
            hits.iter().for_each(|hit| *counts.entry(hit.row).or_default() += 1);
        }
        assert_ne!(mined.negatives[0], mined.negatives[1], "anchors have samples of their own");
    }
    // The anchors' candidates are documents 1 … or 0, 2 …; the first 5 are skipped, 40 are left: 1,600 draws, 40 each.
    assert_eq!((counts.keys().min(), counts.keys().max()), (Some(&6), Some(&45)));
    assert!(counts.len() == 40 && counts.values().all(|count| (15..75).contains(count)), "{counts:?}");
}

#[test]
fn few_documents_give_few_negatives() {
    let texts = texts(&[("q", "a"), ("r", "b")], &["c"]);
    let index = index(angles(&[0.0, 5.0, 50.0]), Similarity::Cosine);
    let options = Options { num_negatives: 5, absolute_margin: Some(0.1), ..Options::default() };
    let mined = mine(&device(1), angles(&[0.0, 40.0]), &index, &texts.relations, &options, &mut |_| ()).unwrap();
    let summary = mined.summary;
    // Documents: c at 0°, a at 5°, b at 50°. q (0°): c is too similar. r (40°): c and a are less similar than b.
    assert_eq!((summary.anchors, summary.documents, summary.range_max, summary.candidates), (2, 3, 51, 4));
    assert_eq!((summary.negatives, summary.incomplete, summary.without, summary.by_absolute_margin), (3, 2, 0, 1));
    let cosine = |degrees: f64| degrees.to_radians().cos();
    assert!((summary.mean_positive - (cosine(5.0) + cosine(10.0)) / 2.0).abs() < 1e-6);
    assert!((summary.mean_negative.unwrap() - (cosine(50.0) + cosine(40.0) + cosine(35.0)) / 3.0).abs() < 1e-6);
}

#[test]
fn wrong_options_and_vectors_are_errors_of_one_line() {
    let texts = texts(&[("q", "a")], &["b"]);
    let documents = || index(angles(&[0.0, 5.0]), Similarity::Cosine);
    let fails = |anchors: Vectors, index: &Index, options: Options| {
        let line = mine(&device(1), anchors, index, &texts.relations, &options, &mut |_| ()).unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    };
    let with = |options: Options| fails(angles(&[0.0]), &documents(), options);
    let default = Options::default;
    assert_eq!(with(Options { num_negatives: 0, ..default() }), "`num_negatives`: expected at least 1, found 0");
    let line = with(Options { range_min: 4, range_max: Some(6), ..default() });
    assert_eq!(line, "`range_max`: expected at least 7, `range_min` 4 and 3 negatives, found 6");
    assert!(with(Options { range_min: usize::MAX, range_max: Some(6), ..default() }).contains("`range_max`"));
    assert!(with(Options { max_score: Some(f32::NAN), ..default() }).contains("`max_score`: expected a finite number"));
    assert!(with(Options { max_score: Some(0.1), min_score: Some(0.2), ..default() }).contains("`min_score`"));
    assert!(fails(angles(&[0.0, 1.0]), &documents(), default()).contains("expected 1 anchors of 2 dimensions"));
    assert!(fails(Vectors::new(3, vec![0.0; 3]), &documents(), default()).contains("found 1 of 3"));
    assert!(
        fails(angles(&[0.0]), &index(angles(&[0.0; 3]), Similarity::Dot), default()).contains("expected 2 documents")
    );
    assert!(fails(angles(&[f32::NAN]), &documents(), default()).contains("NaN or infinity in anchor 1"));
    for (similarity, ..) in Similarity::ALL {
        let damaged = index(angles(&[5.0, f32::NAN]), similarity);
        assert!(fails(angles(&[0.0]), &damaged, default()).contains("in a positive of anchor 1"), "{similarity}");
    }
}

#[test]
fn only_triplets_without_scores_are_written_as_a_table() {
    let texts = texts(&[("q \"x\"", "a\tb"), ("r", "b")], &[]);
    let index = index(angles(&[0.0, 5.0]), Similarity::Cosine);
    let mined =
        mine(&device(1), angles(&[0.0, 1.0]), &index, &texts.relations, &Options::default(), &mut |_| ()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.tsv");
    assert_eq!(write(&path, &texts, &mined, Layout::Triplet, 3, false).unwrap(), 2);
    let columns = ["anchor", "positive", "negative"].map(crate::datasets::table::Column::name);
    let rows = crate::datasets::table::Table::open(&path, &columns).unwrap().into_rows();
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.unwrap().cells).collect();
    assert_eq!(rows, [["q \"x\"", "a\tb", "b"], ["r", "b", "a\tb"]]);
    for (name, layout, with_scores) in
        [("x.tsv", Layout::NTuple, false), ("x.tsv", Layout::Triplet, true), ("x.csv", Layout::Triplet, false)]
    {
        let line = write(&dir.path().join(name), &texts, &mined, layout, 3, with_scores).unwrap_err().to_string();
        assert!(line.starts_with("`out`: ") && line.contains(".jsonl"), "{line}");
    }
}

#[test]
fn texts_are_embedded_and_mined() {
    let dir = tempfile::tempdir().unwrap();
    cloze_testing::save_letter_model(cloze_model::Heads::ENCODER, dir.path());
    let options = crate::embed::Options::default();
    let embedder = Embedder::open(dir.path(), device(2), cloze_engine::DType::F32, &options).unwrap();
    let texts = texts(&[("a b", "a b c"), ("d e", "d e f"), ("a b", "a b d")], &["x y", "a c", "e f", "g h i j"]);
    let mut stages = Vec::new();
    let mined = embed_and_mine(&embedder, &texts, &Options::default(), &mut |stage, share| {
        assert!(share > 0.0 && share <= 1.0);
        stages.push(stage);
    })
    .unwrap();
    stages.dedup();
    assert_eq!(stages, [Stage::Documents, Stage::Anchors, Stage::Search]);
    let embed = |texts: &[String], purpose| embedder.embed(texts, purpose, &mut |_| ()).unwrap().vectors;
    let documents = index(embed(&texts.documents, Purpose::Document), embedder.similarity);
    let anchors = embed(&texts.anchors, Purpose::Query);
    let again = mine(&device(1), anchors, &documents, &texts.relations, &Options::default(), &mut |_| ()).unwrap();
    assert_eq!(mined, again);
    assert_eq!(mined.negatives.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
}
