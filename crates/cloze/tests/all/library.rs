//! The library gives the same predictions as `cloze predict`, from the model folder alone.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Bench, TAGS, TEXTS, fails, json_file, predict, success, with_epochs};
use cloze_engine::{DType, Device};
use cloze_tasks::datasets::LabelsNeeded;
use cloze_tasks::input::object_of_line;
use cloze_tasks::{Notes, Predictor};
use serde_json::Value;

fn open(model: &str) -> Predictor {
    Predictor::open(Path::new(model), Device::cpu(None).unwrap(), DType::F32).unwrap()
}

/// Predictions of the command, without row numbers.
fn commanded(kind: &str, model: &str, input: &str, lines: &str) -> Vec<Value> {
    let mut found = predict(kind, model, input, lines);
    for row in &mut found {
        let row = row.as_object_mut().unwrap();
        row.remove("row");
        row.remove("line");
    }
    found
}

/// Fine-tunes with settings that differ from the defaults. Returns the model's folder.
fn fine_tuned(bench: &Bench, kind: &str, file: &str, more: &[&str]) -> String {
    let paths = bench.paths(&format!("{kind}-run"));
    success(&with_epochs(bench.finetune(kind, file, &paths, more), "2"));
    bench.path(&format!("{kind}-run/model"))
}

#[track_caller]
fn check(bench: &Bench, kind: &str, file: &str, line: &str, more: &[&str]) -> String {
    let model = fine_tuned(bench, kind, file, more);
    let predictor = open(&model);
    assert_eq!(predictor.kind().name(), kind);
    let row = if line.starts_with('{') { object_of_line(line).unwrap() } else { Value::String(line.to_owned()) };
    let by_library: Vec<Value> = predictor.predict(&[row]).into_iter().map(Result::unwrap).collect();
    assert_eq!(by_library, commanded(kind, &model, "-", &format!("{line}\n")), "{kind}: a line");
    let rows = predictor.read(&[PathBuf::from(file)], LabelsNeeded::Optional, &mut Notes::default()).unwrap();
    let by_library: Vec<Value> =
        predictor.predict_rows(&*rows, 0..rows.len()).into_iter().map(Result::unwrap).collect();
    assert!(by_library.len() > 1 && by_library == commanded(kind, &model, file, ""), "{kind}: a file");
    model
}

#[test]
fn library_and_command_give_the_same_predictions() {
    let bench = Bench::new();
    let long = "the fox sees a red tower in the quiet river . an owl leaves rome";
    let renamed = bench.file("reviews.tsv", &TEXTS.replace("text\tlabel", "review\tstars"));
    let columns = ["--text", "review", "--label", "stars", "--max-len", "8", "--stride", "3"];
    let model = check(&bench, "classify", &renamed, &format!("{{\"review\": \"{long}\"}}"), &columns);

    let pairs = bench.file("pairs.csv", "a,b,score\nanna paints,otto sees,1\nthe fox,an owl,3\nred,old,2\n");
    let columns = ["--text", "a", "--pair", "b", "--label", "score", "--max-len", "9"];
    check(&bench, "regress", &pairs, &format!("{long}\tanna"), &columns);

    let tags = bench.file("tags.conll", TAGS);
    check(&bench, "tag", &tags, long, &["--context", "--max-len", "12"]);

    let paragraph = "the old fox leaves rome . anna paints a red tower in paris .";
    let answers = |question: &str, text: &str| {
        let start = paragraph.find(text).unwrap();
        format!(
            "{{\"id\": \"{question}\", \"question\": \"{question}\", \"answers\": [{{\"text\": \"{text}\", \"answer_start\": {start}}}]}}"
        )
    };
    let qas = [answers("who paints", "anna"), answers("where", "in paris")].join(", ");
    let squad = bench.file(
        "squad.json",
        &format!(
            "{{\"data\": [{{\"title\": \"\", \"paragraphs\": [{{\"context\": \"{paragraph}\", \"qas\": [{qas}]}}]}}]}}"
        ),
    );
    let line = format!("{{\"question\": \"who leaves rome\", \"context\": \"{paragraph}\"}}");
    let windows =
        ["--max-len", "16", "--stride", "4", "--max-question", "4", "--max-answer", "3", "--null-threshold", "0.5"];
    check(&bench, "answer", &squad, &line, &windows);

    let swag = bench.file(
        "swag.csv",
        "sent1,sent2,ending0,ending1,label\nanna paints,she,sees a tower,in the,0\nthe fox,it,red,leaves rome,1\n",
    );
    let line = "{\"context\": \"otto sees the old tower in paris\", \"choices\": [\"the quiet river\", \"in\"]}";
    check(&bench, "choose", &swag, line, &["--max-len", "10"]);

    // Settings without a version are read as version 1; a later version is refused.
    let config = format!("{model}/config.json");
    let row = [Value::String(long.to_owned())];
    let before = open(&model).predict(&row).remove(0).unwrap();
    let mut old = json_file(&config);
    assert_eq!(old["cloze"].as_object_mut().unwrap().remove("version"), Some(1.into()));
    fs::write(&config, old.to_string()).unwrap();
    assert_eq!(open(&model).predict(&row).remove(0).unwrap(), before);
    old["cloze"]["version"] = 2.into();
    fs::write(&config, old.to_string()).unwrap();
    fails(&["predict", "--model", &model, "--quiet"], &["config.json", "\"cloze\" has version 2", "later version"]);
}
