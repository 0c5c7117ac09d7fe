//! The task commands with labelled files and a tiny model: scores, predictions and errors.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cloze_engine::Device;
use cloze_model::Model;
use serde_json::{Value, json as value};

use crate::common::{
    Bench, TAGS, TEXTS, cloze, command, fails, fails_with, is_refused, json, json_file, json_lines, predict, success,
    success_with, text, with_epochs,
};
use cloze_testing::tokenizer;

/// Fine-tunes on a file until it is known by heart, evaluates on it; returns the fine-tuned model's folder.
#[track_caller]
fn learns(bench: &Bench, kind: &str, file: &str, score: &str, more: &[&str]) -> String {
    let paths = bench.paths(&format!("{kind}-run"));
    let outcome = json(&success(&bench.finetune(kind, file, &paths, &[&["--json"][..], more].concat())));
    assert_eq!(outcome["finished"], true, "{outcome}");
    let best = outcome["runs"][0]["best"]["scores"][score].as_f64().unwrap();
    assert!(best > 0.99, "{outcome}");
    let model = outcome["model"].as_str().unwrap().to_owned();

    let judge = |more: &[&str]| {
        let base = ["evaluate", kind, "--model", &model, "--data", file, "--precision", "f32", "--quiet"];
        success(&[&base[..], more].concat())
    };
    let found = json(&judge(&["--json", "--bootstrap", "20"]));
    assert!((found[score].as_f64().unwrap() - best).abs() < 1e-6, "{found}");
    let [low, high] = [0, 1].map(|end| found["interval_95"][score][end].as_f64().unwrap());
    assert!(low <= best + 1e-9 && best <= high + 1e-9, "{found}");
    let predictions = bench.path(&format!("{kind}-predictions.jsonl"));
    let shown = judge(&["--predictions", &predictions]);
    assert!(shown.contains("rows, loss") && shown.contains(score), "{shown}");
    let written = json_lines(&fs::read_to_string(&predictions).unwrap());
    assert_eq!(written.len() as u64, found["rows"].as_u64().unwrap());
    // Each prediction has its row and the gold label.
    for (number, line) in (1..).zip(&written) {
        assert_eq!((&line["row"], &line["file"]), (&value!(number), &value!(file)), "{line}");
        let names_row = ["text", "words", "id", "context"].iter().any(|key| line.get(*key).is_some());
        assert!(names_row && !line["gold"].is_null(), "{line}");
    }
    model
}

#[test]
fn classify_learns_and_predicts() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let model = learns(&bench, "classify", &file, "accuracy", &[]);
    let config = json_file(&format!("{model}/config.json"));
    assert_eq!(config["id2label"]["1"], "owl", "{config}");
    assert_eq!(config["architectures"][0], "BertForSequenceClassification");

    let found =
        predict("classify", &model, "-", "{\"text\": \"anna paints .\"}\n{\"text\": \"the old fox leaves .\"}\n");
    let told: Vec<(&Value, &Value)> = found.iter().map(|line| (&line["line"], &line["label"])).collect();
    assert_eq!(told, [(&1.into(), &"person".into()), (&2.into(), &"fox".into())]);
    let shares: f64 =
        found[0]["probabilities"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-6);
    // Rows of a table, which need no labels.
    let table = bench.file("new.csv", "id,text\n1,\"a quiet owl leaves rome\"\n");
    assert_eq!(predict("classify", &model, &table, "")[0]["label"], "owl");
    assert_eq!(predict("classify", &model, &file, "").len(), 8);
    let unknown = bench.file("test.tsv", "text\tlabel\na quiet owl leaves rome\t-1\n");
    assert_eq!(predict("classify", &model, &unknown, "")[0]["label"], "owl");
}

/// Labels in lists, separated by bars, and in separate columns; thresholds; models of Transformers.
#[test]
fn multi_label_learns_and_predicts() {
    let bench = Bench::new();
    let rows = [
        ("the fox sees anna", "[\"fox\", \"person\"]"),
        ("an owl leaves rome", "[\"owl\", \"place\"]"),
        ("anna paints in paris", "[\"person\", \"place\"]"),
        ("the quiet river", "[]"),
        ("a fox in rome sees the owl", "[\"fox\", \"owl\", \"place\"]"),
        ("otto", "[\"person\"]"),
    ];
    let jsonl: String =
        rows.iter().map(|(text, labels)| format!("{{\"text\": \"{text}\", \"labels\": {labels}}}\n")).collect();
    let file = bench.file("texts.jsonl", &jsonl);
    let model = learns(&bench, "multi-label", &file, "micro_f1", &["--threshold", "fox=0.6"]);
    let config = json_file(&format!("{model}/config.json"));
    assert_eq!(
        (&config["problem_type"], &config["id2label"]["0"]),
        (&"multi_label_classification".into(), &"fox".into())
    );
    assert_eq!(config["architectures"][0], "BertForSequenceClassification");
    assert_eq!(config["cloze"]["threshold"]["fox"], 0.6);
    let lines = "the fox sees anna\nthe quiet river\n";
    let found = predict("multi-label", &model, "-", lines);
    assert_eq!(found[0]["labels"], serde_json::json!(["fox", "person"]), "{found:?}");
    assert_eq!(found[1]["labels"], serde_json::json!([]));
    assert!(found[0]["probabilities"]["fox"].as_f64().unwrap() > 0.6);
    let predict_with = |more: &[&str], lines: &str| {
        json_lines(&success_with(
            &[&["predict", "--model", &model, "--precision", "f32", "--quiet"][..], more].concat(),
            lines,
        ))
    };
    // The kind comes from the model; every label reaches a threshold of 0.
    assert_eq!(predict_with(&["--threshold", "0"], "otto\n")[0]["labels"].as_array().unwrap().len(), 4);
    // The same labels in separate columns, or separated by bars.
    let evaluate = |file: &str, more: &[&str]| {
        let base = ["evaluate", "--model", &model, "--data", file, "--precision", "f32", "--quiet", "--json"];
        json(&success(&[&base[..], more].concat()))
    };
    let apart = bench.file("apart.csv", "text,fox,owl,person,place\nthe fox sees anna,1,0,1,0\notto,0,0,1,-1\n");
    let found = evaluate(&apart, &[]);
    assert_eq!(
        (&found["micro_f1"], &found["exact_match"], &found["rows"]),
        (&1.0.into(), &1.0.into(), &2.into()),
        "{found}"
    );
    let bars = bench.file("bars.tsv", "body\tmarks\nthe fox sees anna\tperson|fox\nan owl leaves rome\towl|place\n");
    let found = evaluate(&bars, &["--text", "body", "--label", "marks", "--metric", "exact_match"]);
    assert_eq!((&found["exact_match"], &found["by_label"]["place"]["support"]), (&1.0.into(), &1.into()), "{found}");
    // Transformers writes only the problem type.
    let mut plain = config.clone();
    plain.as_object_mut().unwrap().remove("cloze");
    fs::write(format!("{model}/config.json"), plain.to_string()).unwrap();
    assert_eq!(predict_with(&[], "otto\n")[0]["labels"], serde_json::json!(["person"]));
    let base = ["predict", "classify", "--model", &model, "--quiet"];
    fails_with(&base, "otto\n", &["problem_type multi_label_classification", "one label"]);
    let unknown = ["predict", "multi-label", "--model", &model, "--quiet", "--threshold", "hope=0.1"];
    fails_with(&unknown, "otto\n", &["expected labels among fox, owl, person, place", "found hope"]);
}

/// Lines can have the column names of the known task or the default keys of `predict --help`.
#[test]
fn lines_of_known_tasks_can_have_the_default_keys() {
    let bench = Bench::new();
    let file = bench.file("train.tsv", "sentence\tlabel\nthe old fox leaves .\t1\nanna paints .\t0\n");
    let paths = bench.paths("run");
    success(&with_epochs(bench.finetune("classify", &file, &paths, &["--task", "sst2"]), "1"));
    let lines = "{\"text\": \"anna paints .\"}\n{\"sentence\": \"anna paints .\"}\n\
                 {\"sentence\": \"anna paints .\", \"text\": \"the fox\", \"pair\": null}\n";
    let found = predict("classify", &bench.path("run/model"), "-", lines);
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|line| line["probabilities"] == found[0]["probabilities"]), "{found:?}");
}

#[test]
fn regress_learns_and_predicts() {
    let bench = Bench::new();
    let file = bench.file(
        "pairs.jsonl",
        "{\"a\": \"the old fox leaves\", \"b\": \"a fox leaves\", \"score\": 3.5}\n\
         {\"a\": \"anna paints\", \"b\": \"otto sees rome\", \"score\": 0}\n\
         {\"a\": \"the owl sees a tower\", \"b\": \"the owl sees the tower\", \"score\": 5}\n\
         {\"a\": \"a red river\", \"b\": \"the quiet river\", \"score\": 2}\n",
    );
    let columns = ["--text", "a", "--pair", "b", "--label", "score"];
    let paths = bench.paths("run");
    let words = with_epochs(bench.finetune("regress", &file, &paths, &["--json"]), "150");
    let outcome = json(&success(&[&words[..], &columns].concat()));
    let best = outcome["runs"][0]["best"]["score"].as_f64().unwrap();
    assert!(best > 0.99, "{outcome}");
    let model = outcome["model"].as_str().unwrap();
    let judge = ["evaluate", "regress", "--model", model, "--data", &file, "--json", "--precision", "f32"];
    let found = json(&success(&[&judge[..], &columns].concat()));
    assert!((found["pearson"].as_f64().unwrap() - best).abs() < 1e-6, "{found}");
    let found =
        predict("regress", model, "-", "anna paints\totto sees rome\nthe owl sees a tower\tthe owl sees the tower\n");
    assert!(found[0]["value"].as_f64().unwrap() + 1.0 < found[1]["value"].as_f64().unwrap(), "{found:?}");
}

#[test]
fn tag_learns_and_predicts() {
    let bench = Bench::new();
    let file = bench.file("tags.conll", TAGS);
    let model = learns(&bench, "tag", &file, "f1", &[]);
    let found = predict(
        "tag",
        &model,
        "-",
        "{\"text\": \"anna leaves paris .\"}\n{\"words\": [\"the\", \"fox\", \"sees\", \"otto\"]}\n",
    );
    let entity = &found[0]["entities"][1];
    assert_eq!((&entity["type"], &entity["text"]), (&"LOC".into(), &"paris".into()), "{found:?}");
    assert_eq!(entity["characters"], serde_json::json!([12, 17]));
    assert_eq!(found[1]["tags"], serde_json::json!(["O", "O", "O", "B-PER"]));
    assert_eq!(predict("tag", &model, &file, "").len(), 3);
    let other_labels = bench.file("pos.conll", "anna NOUN\nleaves VERB\n");
    assert_eq!(predict("tag", &model, &other_labels, "")[0]["tags"][0], "B-PER");

    // The feature-based approach.
    let paths = bench.paths("features");
    let mut words = bench.finetune("tag", &file, &paths, &["--features", "concat-last-2", "--bilstm", "0", "--json"]);
    words[11] = "2e-2";
    let outcome = json(&success(&words));
    assert_eq!(outcome["runs"][0]["best"]["score"], 1.0, "{outcome}");
    let found = predict("tag", outcome["model"].as_str().unwrap(), "-", "anna leaves paris .\n");
    assert_eq!(found[0]["tags"], serde_json::json!(["B-PER", "O", "B-LOC", "O"]));
}

#[test]
fn answer_learns_and_predicts() {
    let bench = Bench::new();
    let context = "the old fox leaves rome . anna paints a red tower in paris . the owl sees otto in the quiet river .";
    let row = |id: &str, question: &str, answer: &str| {
        let start = context.find(answer).unwrap();
        let answers = serde_json::json!({"text": [answer], "answer_start": [start]});
        serde_json::json!({"id": id, "question": question, "context": context, "answers": answers}).to_string()
    };
    let rows =
        [row("p", "who paints", "anna"), row("r", "who leaves rome", "the old fox"), row("o", "where", "in paris")];
    let file = bench.file("questions.jsonl", &(rows.join("\n") + "\n"));
    let length = ["--max-len", "16", "--stride", "4", "--max-question", "4"];
    let model = learns(&bench, "answer", &file, "f1", &length);
    // The lengths are stored in the model: with 40 positions, the default of 384 would be refused.
    let line = serde_json::json!({"id": "x", "question": "who paints", "context": context}).to_string();
    let found = predict("answer", &model, "-", &line);
    assert_eq!((&found[0]["id"], &found[0]["best"]["text"]), (&"x".into(), &"anna".into()), "{found:?}");
}

#[test]
fn choose_learns_and_predicts() {
    let bench = Bench::new();
    let file = bench.file(
        "choices.jsonl",
        "{\"context\": \"anna paints\", \"choices\": [\"a tower\", \"paris leaves\"], \"label\": 0}\n\
         {\"context\": \"the fox\", \"choices\": [\". . red\", \"leaves rome\"], \"label\": 1}\n\
         {\"context\": \"otto sees\", \"choices\": [\"where who\", \"the quiet river\"], \"label\": 1}\n",
    );
    let model = learns(&bench, "choose", &file, "accuracy", &[]);
    let line = "{\"context\": \"the fox\", \"choices\": [\". . red\", \"leaves rome\"]}";
    let found = predict("choose", &model, "-", line);
    assert_eq!((&found[0]["choice"], &found[0]["ending"]), (&1.into(), &"leaves rome".into()), "{found:?}");
    // A line is read like a row of a file: with any of the supported keys, and a common prefix of the endings.
    for line in [
        "{\"ctx\": \"the fox\", \"ending_prefix\": \"leaves\", \"endings\": [\"red\", \"rome\"], \"label\": \"-1\"}",
        "{\"sent1\": \"the fox\", \"sent2\": \"leaves\", \"ending0\": \"red\", \"ending1\": \"rome\", \"label\": 7}",
    ] {
        let found = predict("choose", &model, "-", line);
        let ending = found[0]["ending"].as_str().unwrap();
        assert!(["leaves red", "leaves rome"].contains(&ending), "{found:?}");
    }
}

#[test]
fn seeds_are_summarised_and_the_best_model_is_kept() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let paths = bench.paths("seeds");
    let outcome =
        json(&success(&with_epochs(bench.finetune("classify", &file, &paths, &["--seeds", "2", "--json"]), "3")));
    let runs = outcome["runs"].as_array().unwrap();
    let scores: Vec<f64> = runs.iter().map(|run| run["best"]["score"].as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 2, "{outcome}");
    assert_eq!((&runs[0]["seed"], &runs[1]["name"]), (&1.into(), &"seed-2".into()));
    let mean = (scores[0] + scores[1]) / 2.0;
    assert!((outcome["score"]["mean"].as_f64().unwrap() - mean).abs() < 1e-9, "{outcome}");
    assert_eq!(json_file(&bench.path("seeds/results.json")).as_array().unwrap().len(), 2);
    let model = bench.path("seeds/model");
    assert_eq!(outcome["model"], model);
    assert!(
        !Path::new(&bench.path("seeds/seed-1/model")).exists()
            && !Path::new(&bench.path("seeds/seed-2/model")).exists()
    );
    let judge = ["evaluate", "classify", "--model", &model, "--data", &file, "--json", "--precision", "f32", "--quiet"];
    let kept = json(&success(&judge))["accuracy"].as_f64().unwrap();
    assert!((kept - scores[0].max(scores[1])).abs() < 1e-9, "{kept} of {scores:?}");

    let paths = bench.paths("table");
    let table = success(&with_epochs(bench.finetune("classify", &file, &paths, &["--seeds", "2"]), "1"));
    let expected = ["run", "accuracy", "seed-1", "seed-2", "mean ± sd", "minutes", "model in"];
    assert!(expected.iter().all(|word| table.contains(word)), "{table}");

    // Finished runs are not repeated, and not resumed with other settings.
    let again = |more: &[&str]| with_epochs(bench.finetune("classify", &file, &paths, more), "1").join("\n");
    fails(&again(&["--seeds", "2"]).lines().collect::<Vec<_>>(), &["table", "already in use", "--resume"]);
    fails(
        &again(&["--seeds", "2", "--resume", "--weight-decay", "0.1"]).lines().collect::<Vec<_>>(),
        &["seed-1/finetune.toml", "weight-decay = 0.01, now 0.1"],
    );
    // Further seeds must use the same rows and the same metric.
    for (more, expected) in [
        (&["--seed", "3", "--resume", "--limit", "4"][..], &["seed-1", "different rows"][..]),
        (&["--resume", "--metric", "f1"], &["seed-1", "metric = not given, now \"f1\""]),
    ] {
        let words = again(&[&["--seeds", "2"][..], more].concat());
        fails(&words.lines().collect::<Vec<_>>(), expected);
    }
    let none = bench.paths("none");
    let none = bench.finetune("classify", &file, &none, &["--seeds", "2", "--resume"]).join("\n");
    fails(&none.lines().collect::<Vec<_>>(), &["none", "no runs to resume", "without --resume"]);
    assert!(!Path::new(&bench.path("none")).exists());
}

/// Correlations with a constant are NaN: worse than any number, and null in results.json.
#[test]
fn nan_scores_are_never_the_best() {
    let bench = Bench::new();
    let rows = "text,label\nanna paints,2\nthe old fox,1\n";
    let (train, same) = (bench.file("train.csv", rows), bench.file("same.csv", "text,label\nanna,1\notto,1\n"));
    let paths = bench.paths("run");
    let mut words = with_epochs(bench.finetune("regress", &train, &paths, &["--seeds", "2"]), "1");
    let at = words.iter().position(|word| *word == "--dev").unwrap();
    words[at + 1] = &same;
    let table = success(&words);
    assert!(table.contains("mean_squared_error") && table.contains("seed-2"), "{table}");
    let outcome = json(&success(&[&words[..], &["--resume", "--json"]].concat()));
    assert_eq!(outcome["runs"].as_array().unwrap().len(), 2, "{outcome}");
    assert_eq!((&outcome["runs"][0]["best"]["score"], &outcome["score"]), (&Value::Null, &Value::Null));
}

#[test]
fn sweep_runs_a_grid_and_resumes() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let (model, out) = (bench.path("start"), bench.path("grid"));
    let base = ["sweep", "classify", "--train", &file, "--dev", &file, "--model", &model, "--out", &out];
    let rest = ["--lrs", "2e-3", "--batches", "4,8", "--epochs-list", "2", "--precision", "f32", "--quiet", "--json"];
    let words = [&base[..], &rest].concat();
    let outcome = json(&success(&words));
    let names = |outcome: &Value| -> Vec<String> {
        let runs = outcome["runs"].as_array().unwrap();
        runs.iter().map(|run| run["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&outcome), ["batch4-lr2e-3-epochs2-seed1", "batch8-lr2e-3-epochs2-seed1"]);
    let log = |name: &str| fs::read(format!("{out}/{name}/metrics.jsonl")).unwrap();
    let first = log("batch4-lr2e-3-epochs2-seed1");

    // As if killed after the end of the second run, before its result was saved; and as if killed before it started.
    let results: Vec<Value> = serde_json::from_value(json_file(&format!("{out}/results.json"))).unwrap();
    for begun in [true, false] {
        fs::write(format!("{out}/results.json"), serde_json::to_vec(&results[..1]).unwrap()).unwrap();
        if !begun {
            fs::remove_file(format!("{out}/batch8-lr2e-3-epochs2-seed1/finetune.toml")).unwrap();
        }
        let resumed = json(&success(&[&words[..], &["--resume"]].concat()));
        assert_eq!(names(&resumed), names(&outcome));
        for run in 0..2 {
            assert_eq!(resumed["runs"][run]["best"], outcome["runs"][run]["best"]);
        }
        assert_eq!(log("batch4-lr2e-3-epochs2-seed1"), first, "the first run was made again");
        assert!(Path::new(&format!("{out}/model/config.json")).is_file());
    }
    is_refused(&[&words[..], &["--resume", "--lr", "1e-3"]].concat(), &["--lr", "--lrs"]);
}

/// Changes a value in a run's settings.
fn edit_settings(run: &str, key: &str, value: &str) {
    let path = format!("{run}/finetune.toml");
    let old = fs::read_to_string(&path).unwrap();
    let line = old.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
    fs::write(&path, old.replace(line, &format!("{key} = {value:?}"))).unwrap();
}

/// Regression: on resuming, `auto` was chosen again for the remaining runs, so that seeds with different precisions
/// could be compared.
#[test]
fn resumed_seeds_keep_the_precision_of_the_first_run() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let paths = bench.paths("seeds");
    let mut words = with_epochs(bench.finetune("classify", &file, &paths, &["--seeds", "2"]), "1");
    let at = words.iter().position(|word| *word == "--precision").unwrap();
    words[at + 1] = "auto";
    let run = |words: &[&str], dry: &[&str]| {
        let output = command(&[words, dry].concat()).env_remove("CLOZE_CPU").output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    run(&words, &[]);
    let results = bench.path("seeds/results.json");
    let done: Vec<Value> = serde_json::from_value(json_file(&results)).unwrap();
    words.push("--resume");
    for precision in ["f32", "bf16"] {
        // As if started on a machine with another choice, and stopped after the first run.
        edit_settings(&bench.path("seeds/seed-1"), "precision", precision);
        edit_settings(&bench.path("seeds/seed-1"), "instruction-set", "portable");
        fs::write(&results, serde_json::to_vec(&done[..1]).unwrap()).unwrap();
        // A dry run counts only the remaining runs.
        let said = run(&words, &["--dry-run"]);
        assert!(said.starts_with("1 steps, 1 evaluations"), "{said}");
        run(&words, &[]);
        let settings: toml::Table =
            fs::read_to_string(bench.path("seeds/seed-2/finetune.toml")).unwrap().parse().unwrap();
        let found = (settings["precision"].as_str(), settings["instruction-set"].as_str());
        assert_eq!(found, (Some(precision), Some("portable")));
    }
    let said = run(&words, &["--dry-run"]);
    assert!(said.starts_with("0 runs, 0 steps"), "{said}");
}

/// Regression: `--dry-run --resume` counted finished runs, and accepted a folder without runs.
#[test]
fn a_dry_run_fails_like_the_run() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let paths = bench.paths("none");
    let words = bench.finetune("classify", &file, &paths, &["--seeds", "2", "--resume", "--dry-run"]);
    fails(&words, &["none", "no runs to resume", "without --resume"]);
    assert!(!Path::new(&paths[1]).exists());
}

/// Regression: the printed command did not work: wrong program name, `--input FILE`.
#[cfg(unix)]
#[test]
fn the_printed_example_command_works() {
    let bench = Bench::new();
    let texts = bench.file("my texts.tsv", TEXTS);
    let tags = bench.file("tags.txt", TAGS);
    for (kind, file, expected, answer) in [
        ("classify", &texts, "predict --model", "\"row\":8"),
        // The file's name does not tell that it has tagged words.
        ("tag", &tags, "evaluate --model", "3 rows"),
    ] {
        let paths = bench.paths(&format!("a {kind} run"));
        let said = success(&with_epochs(bench.finetune(kind, file, &paths, &[]), "1"));
        let trial = said.lines().find_map(|line| line.strip_prefix("try it: ")).expect(&said);
        assert!(trial.contains(expected), "{trial}");
        let shell = Command::new("sh").args(["-c", trial]).output().unwrap();
        assert!(shell.status.success(), "{trial}: {}", text(&shell.stderr));
        assert!(text(&shell.stdout).contains(answer), "{}", text(&shell.stdout));
    }
}

#[test]
fn seeds_that_all_fail_are_an_error() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let model = bench.path("start");
    let device = Device::cpu(Some(1)).unwrap();
    let mut broken = Model::load(Path::new(&model), &device).unwrap();
    broken.params.edit_all(|values| values.fill(1e30));
    broken.save(Path::new(&model)).unwrap();
    let paths = bench.paths("run");
    let output = cloze(&with_epochs(bench.finetune("classify", &file, &paths, &["--seeds", "2"]), "2"));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout).matches("FAILED").count(), 2, "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("every run failed"), "{}", text(&output.stderr));
}

#[test]
fn recipes_set_options_and_the_command_line_overrides_them() {
    let bench = Bench::new();
    let file = bench.file("tags.conll", TAGS);
    let recipe = |name: &str, more: &str| {
        let (model, out) = (bench.path("start"), bench.path(name));
        let text = format!(
            "dev = [{file:?}]\nkind = \"tag\"\nmodel = {model:?}\nout = {out:?}\nprecision = \"f32\"\ntrain = [{file:?}, {file:?}]\n{more}"
        );
        bench.file(&format!("{name}.toml"), &text)
    };
    let path = recipe("run", "lr = 3e-4\nepochs = 2\nbatch = 2\nclass_weights = [1, 2.5, 1]\n");
    // Global options are allowed anywhere.
    let outcome =
        json(&success(&["--quiet", "--threads", "1", "finetune", "--recipe", &path, "--epochs", "1", "--json"]));
    assert_eq!((&outcome["train_rows"], &outcome["dev_rows"]), (&6.into(), &3.into()), "{outcome}");
    let settings: toml::Table = fs::read_to_string(bench.path("run/finetune.toml")).unwrap().parse().unwrap();
    assert_eq!((settings["lr"].as_float(), settings["batch"].as_integer()), (Some(3e-4), Some(2)));
    assert_eq!(settings["epochs"].as_integer(), Some(1), "the command line overrides the recipe");
    assert_eq!(settings["class-weights"]["given"].as_array().unwrap().len(), 3);

    let grid = recipe("grid", "batches = [2, 3]\nlrs = [1e-3]\nepochs_list = [1]\n");
    let outcome = json(&success(&["sweep", "--recipe", &grid, "--quiet", "--json"]));
    assert_eq!(outcome["runs"].as_array().unwrap().len(), 2, "{outcome}");

    for (more, expected) in [
        ("lrr = 1\n", &["bad.toml", "--lrr"][..]),
        ("lr = \"fast\"\n", &["bad.toml", "fast", "--lr"]),
        ("lr = 1e-3\nlr = 2e-3\n", &["bad.toml", "line 8"]),
        ("schedule = \"steep\"\n", &["bad.toml", "steep", "linear"]),
        ("threads = 1\n", &["bad.toml", "--threads on the command line"]),
    ] {
        let path = recipe("bad", more);
        fails(&["finetune", "--recipe", &path], expected);
    }
    fails(&["finetune", "--recipe", &bench.path("absent.toml")], &["absent.toml", "cannot read"]);
}

#[test]
fn lines_are_predicted_immediately() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let paths = bench.paths("run");
    success(&with_epochs(bench.finetune("classify", &file, &paths, &[]), "1"));
    let model = bench.path("run/model");
    let mut child = command(&["predict", "classify", "--model", &model, "--quiet"]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let (to, answers) = std::sync::mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().for_each(|line| to.send(line.unwrap()).unwrap()));
    for number in 1..=3 {
        writeln!(input, "{{\"text\": \"anna paints .\"}}").unwrap();
        // The next line is written only after the answer.
        let answer = json(&answers.recv_timeout(Duration::from_secs(60)).expect("an answer"));
        assert_eq!(answer["line"], number, "{answer}");
    }
    // An unreadable line gets an error in its place, and the following lines are predicted.
    write!(input, "{{\"text\": \"a\"}}\n{{\"text\": null}}\n\n{{\"text\": \"anna paints .\"}}\n").unwrap();
    drop(input);
    let rest: Vec<Value> = answers.iter().map(|line| json(&line)).collect();
    let output = child.wait_with_output().unwrap();
    let line = text(&output.stderr);
    assert_eq!((rest.len(), output.status.code()), (4, Some(1)), "{line}");
    assert_eq!((&rest[1]["line"], &rest[2]["line"], &rest[3]["label"]), (&5.into(), &6.into(), &rest[0]["label"]));
    assert!(rest[1]["error"].as_str().unwrap().contains("expected a string"), "{rest:?}");
    assert!(rest[2]["error"].as_str().unwrap().contains("only white space"), "{rest:?}");
    assert!(line.contains("2 of 7 lines") && line.contains("standard input, line 5"), "{line}");
    let strict = ["predict", "classify", "--model", &model, "--quiet", "--strict"];
    fails_with(&strict, "{\"text\": null}\nanna\n", &["standard input, line 1", "expected a string"]);
    // Rows of a table keep their positions too, and --skip-bad counts all bad rows.
    let rows = "text\tlabel\nanna\tperson\nanna\nan owl\towl\nan ape\tape\n";
    let table = bench.file("ragged.tsv", rows);
    let output = cloze(&["predict", "classify", "--model", &model, "--quiet", "--input", &table]);
    let found = json_lines(&text(&output.stdout));
    assert_eq!((found.len(), output.status.code()), (4, Some(1)));
    assert!(found[1]["error"].as_str().unwrap().contains("ragged.tsv:3: has 1 col"), "{found:?}");
    let judge = ["evaluate", "classify", "--model", &model, "--data", &table];
    fails(&[&judge[..], &["--quiet"]].concat(), &["ragged.tsv:3:"]);
    let output = cloze(&[&judge[..], &["--skip-bad", "--json"]].concat());
    assert_eq!(json(&text(&output.stdout))["rows"], 2);
    let said = text(&output.stderr);
    assert!(
        said.contains("skipped 2 rows that cannot be used; the first: ") && said.contains("ragged.tsv:3:"),
        "{said}"
    );
    fails(&["predict", "classify", "--model", &model, "--quiet"], &["standard input", "no rows"]);
}

#[test]
fn errors_in_rows_have_file_line_and_column() {
    let bench = Bench::new();
    let good = bench.file("good.tsv", TEXTS);
    let paths = bench.paths("out");
    let train = |kind: &str, train: &str, dev: &str, more: &[&str], expected: &[&str]| {
        let words = bench.finetune(kind, train, &paths, more);
        let mut words: Vec<&str> = words;
        let at = words.iter().position(|word| *word == "--dev").unwrap();
        words[at + 1] = dev;
        fails(&words, expected);
        assert!(!Path::new(&paths[1]).exists(), "a run that could not start left its folder");
    };
    let both = |kind: &str, file: &str, expected: &[&str]| train(kind, file, file, &[], expected);

    let absent = bench.path("absent.tsv");
    both("classify", &absent, &["absent.tsv", "No such file"]);
    let empty = bench.file("empty.tsv", "");
    both("classify", &empty, &["empty.tsv", "empty"]);
    let header = bench.file("header.tsv", "text\tlabel\n");
    both("classify", &header, &["header.tsv", "at least one row"]);
    let unlabelled = bench.file("unlabelled.tsv", "text\tlabels\na fox\tfox\n");
    both("classify", &unlabelled, &["unlabelled.tsv", "no column \"label\"", "did you mean \"labels\"", "\"text\""]);
    let ragged = bench.file("ragged.tsv", "text\tlabel\na fox\tfox\nan owl\n");
    both("classify", &ragged, &["ragged.tsv:3:", "1", "2"]);
    let blank = bench.file("blank.tsv", "text\tlabel\na fox\tfox\nan owl\t\n");
    both("classify", &blank, &["blank.tsv:3:", "column \"label\": expected a label"]);
    let unknown = bench.file("unknown.tsv", "text\tlabel\na fox\tfox\nan owl\tfoxes\n");
    train(
        "classify",
        &good,
        &unknown,
        &[],
        &["unknown.tsv:3:", "\"label\"", "unknown label \"foxes\"", "\"fox\"", "\"owl\""],
    );
    let labels = ["--labels", "fox,owl"];
    train("classify", &good, &good, &labels, &["good.tsv:4:", "unknown label \"person\"", "\"fox\", \"owl\""]);
    train("classify", &good, &good, &["--labels", "fox,owl,fox"], &["--labels", "found \"fox\" twice"]);
    let one = bench.file("one.tsv", "text\tlabel\na fox\tfox\nan owl\tfox\n");
    both("classify", &one, &["\"fox\"", "at least two labels"]);
    let kind = bench.file("rows.xml", "<a/>");
    both("classify", &kind, &["rows.xml", ".tsv", ".jsonl"]);
    let latin = bench.path("latin.tsv");
    fs::write(&latin, b"text\tlabel\nr\xe9d\tfox\n").unwrap();
    both("classify", &latin, &["latin.tsv:2:", "byte 2", "UTF-8"]);

    for number in ["NaN", "inf", "many"] {
        let file = bench.file("numbers.tsv", &format!("text\tlabel\na fox\t1.5\nan owl\t{number}\n"));
        both("regress", &file, &["numbers.tsv:3:", "\"label\"", number, "finite number"]);
    }

    let untagged = bench.file("untagged.conll", "anna B-PER\nleaves O\n\nrome\n");
    both("tag", &untagged, &["untagged.conll:4:", "expected 2 columns"]);
    let other = bench.file("other.conll", "anna B-PER\n\nin O\nrome B-ORG\n");
    let tags = bench.file("tags.conll", TAGS);
    train("tag", &tags, &other, &[], &["other.conll:3:", "word 2", "\"rome\"", "unknown label \"B-ORG\""]);
    let no_words = bench.file("no-words.conll", "\n\n");
    both("tag", &no_words, &["no-words.conll", "no words"]);
    let conllu = bench.file("short.conllu", "1\tanna\tanna\tPROPN\n");
    both("tag", &conllu, &["short.conllu:1:", "expected 10 columns", "found 4"]);

    let row = "{\"id\": \"7\", \"question\": \"who\", \"context\": \"anna paints\", \"answers\": ";
    let good_row = format!("{row}{{\"text\": [\"anna\"], \"answer_start\": [0]}}}}\n");
    let elsewhere =
        format!("{}{row}{{\"text\": [\"otto\"], \"answer_start\": [0]}}}}\n", good_row.replace("\"7\"", "\"6\""));
    let elsewhere = bench.file("elsewhere.jsonl", &elsewhere);
    both(
        "answer",
        &elsewhere,
        &["elsewhere.jsonl:2:", "question \"7\"", "\"otto\" is not in its context", "--skip-bad"],
    );
    let nested = bench.file(
        "nested.json",
        "{\"data\": [{\"paragraphs\": [{\"context\": \"anna paints\", \"qas\": [{\"id\": \"9\", \"question\": \"who\", \
         \"answers\": [{\"text\": \"otto\", \"answer_start\": 0}]}]}]}]}",
    );
    both("answer", &nested, &["nested.json", "question \"9\"", "\"otto\" is not in its context"]);
    let unanswered = bench.file("unanswered.jsonl", &format!("{row}null}}\n"));
    both("answer", &unanswered, &["unanswered.jsonl", "question \"7\"", "answers"]);
    let broken = bench.file("broken.jsonl", "{\"question\": \"who\",\n");
    both("answer", &broken, &["broken.jsonl:1:"]);

    let choices = bench.file("choices.jsonl", "{\"context\": \"anna\", \"choices\": [\"a\", \"b\"], \"label\": 3}\n");
    both("choose", &choices, &["choices.jsonl:1:", "label \"3\"", "0 to 1"]);
    let single = bench.file("single.jsonl", "{\"context\": \"anna\", \"choices\": [\"a\"], \"label\": 0}\n");
    both("choose", &single, &["single.jsonl:1:", "at least two choices", "found 1"]);
    let no_choices = bench.file("none.jsonl", "{\"context\": \"anna\", \"label\": 0}\n");
    both("choose", &no_choices, &["none.jsonl", "\"choices\""]);

    // A training or dev row that is longer than the model's positions.
    let long =
        bench.file("long.tsv", &format!("text\tlabel\n{}\tfox\nan owl\towl\nanna\tperson\n", "fox ".repeat(100)));
    let length = ["--max-len", "600"];
    train("classify", &long, &good, &length, &["102 tokens", "40 positions", "lower --max-len to 40"]);
    train("classify", &good, &long, &length, &["102 tokens", "40 positions", "lower --max-len to 40"]);
    train("classify", &good, &good, &["--max-len", "2"], &["--max-len: expected at least 3", "found 2"]);
}

/// Regression: `--metric` was not stored, so that a resumed run could use another metric, and `evaluate` printed
/// another one first.
#[test]
fn the_metric_is_stored_in_the_model() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let paths = bench.paths("run");
    let outcome = json(&success(&bench.finetune("classify", &file, &paths, &["--metric", "matthews", "--json"])));
    assert_eq!(outcome["runs"][0]["best"]["metric"], "matthews", "{outcome}");
    let model = outcome["model"].as_str().unwrap();
    let first_score = |more: &[&str]| {
        let base = ["evaluate", "classify", "--model", model, "--data", &file, "--quiet"];
        let shown = success(&[&base[..], more].concat());
        shown.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned()
    };
    assert_eq!(first_score(&[]), "matthews");
    assert_eq!(first_score(&["--metric", "accuracy"]), "accuracy");
}

#[test]
fn invalid_settings_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let tags = bench.file("tags.conll", TAGS);
    let numbers = bench.file("numbers.tsv", "text\tlabel\na fox\t1.5\nan owl\t2\n");
    let paths = bench.paths("out");
    let refused = |kind: &str, file: &str, more: &[&str], expected: &[&str]| {
        fails(&bench.finetune(kind, file, &paths, more), expected);
        assert!(!Path::new(&paths[1]).exists());
    };
    let wrong = |kind: &str, file: &str, more: &[&str], expected: &[&str]| {
        is_refused(&bench.finetune(kind, file, &paths, more), expected);
        assert!(!Path::new(&paths[1]).exists());
    };
    refused("classify", &file, &["--class-weights", "1,2"], &["--class-weights", "each of the 3 classes, found 2"]);
    refused("classify", &file, &["--class-weights", "1,2,nan"], &["class-weights", "numbers of at least 0"]);
    refused("classify", &file, &["--class-weights", "0,0,0"], &["class-weights", "not all of them 0"]);
    refused("regress", &numbers, &["--class-weights", "balanced"], &["class-weights", "no classes"]);
    refused("classify", &file, &["--freeze", "3"], &["--freeze", "at most 2", "found 3"]);
    refused("tag", &tags, &["--features", "sum-last-9"], &["9 layers", "1 to 3"]);
    refused("tag", &tags, &["--bilstm", "17"], &["--bilstm", "at most 16 layers, found 17"]);
    refused("tag", &tags, &["--bilstm-size", "8"], &["--bilstm-size", "a number of layers, --bilstm, as well"]);
    refused("classify", &file, &["--accumulate", "9"], &["accumulate", "9", "from 1 to --batch"]);
    refused("classify", &file, &["--layer-decay", "0"], &["layer-decay", "above 0"]);
    refused("classify", &file, &["--warmup", "NaN"], &["warmup", "NaN", "0 to 1"]);
    refused("classify", &file, &["--seed", "18446744073709551615"], &["seed", "18446744073709551615"]);
    refused("classify", &file, &["--seed", "9223372036854775807", "--seeds", "2"], &["seed", "9223372036854775808"]);
    refused("classify", &file, &["--seed", "18446744073709551615", "--seeds", "2"], &["seed", "18446744073709551615"]);
    wrong("classify", &file, &["--task", "stsb"], &["stsb", "regress"]);
    refused("classify", &file, &["--task", "sst3"], &["sst3", "sst2"]);
    refused("classify", &file, &["--text", "#0"], &["#0"]);
    wrong(
        "regress",
        &numbers,
        &["--metric", "accuracy"],
        &["--metric: expected pearson or spearman", "regress", "accuracy"],
    );
    wrong("tag", &tags, &["--metric", "accuracy"], &["--metric", "tag"]);
    wrong(
        "tag",
        &tags,
        &["--stride", "4"],
        &["--stride has no effect", "kind tag", "classify, multi-label, regress, answer"],
    );
    wrong("classify", &file, &["--context"], &["--context has no effect", "kind classify", "is for tag"]);
    refused("classify", &file, &["--resume"], &["out", "no fine-tuning run to resume", "without --resume"]);

    let none = ["finetune", "classify", "--model", &paths[0], "--out", &paths[1]];
    is_refused(&none, &["--train", "--task"]);
    let no_task = ["finetune", "--train", &file, "--model", &paths[0], "--out", &paths[1]];
    is_refused(&no_task, &["classify", "--task"]);

    // A folder in use.
    fs::create_dir(&paths[1]).unwrap();
    fs::write(bench.path("out/notes.txt"), "mine").unwrap();
    fails(&bench.finetune("classify", &file, &paths, &[]), &["out", "already in use", "--out"]);
    assert_eq!(fs::read_dir(&paths[1]).unwrap().count(), 1);
}

#[test]
fn unsuitable_models_are_refused() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let edit = |folder: &str, edit: &dyn Fn(&mut Value)| {
        let path = format!("{folder}/config.json");
        let mut config = json_file(&path);
        edit(&mut config);
        fs::write(path, config.to_string()).unwrap();
    };
    let start = |model: &str, expected: &[&str]| {
        let paths = [model.to_owned(), bench.path("out")];
        fails(&bench.finetune("classify", &file, &paths, &[]), expected);
        assert!(!Path::new(&paths[1]).exists());
    };
    start(&bench.path("absent"), &["absent", "config.json"]);
    start(&bench.path("texts.tsv"), &["texts.tsv", "expected a folder with config.json", "found a file"]);
    let empty = bench.path("empty");
    fs::create_dir(&empty).unwrap();
    start(&empty, &["empty", "config.json"]);

    let roberta = bench.copy_of_start("roberta");
    edit(&roberta, &|config| config["model_type"] = "roberta".into());
    start(&roberta, &["roberta", "its tensors have the names of BERT, not of RoBERTa", "model_type"]);
    let other = bench.copy_of_start("other");
    edit(&other, &|config| config["model_type"] = "t5".into());
    start(&other, &["other/config.json", "t5", "bert, roberta"]);
    let missing = bench.copy_of_start("missing");
    edit(&missing, &|config| config["num_hidden_layers"] = 3.into());
    start(&missing, &["missing", "missing: bert.encoder.layer.2.attention.self.query.weight", "[32, 32]"]);
    let surplus = bench.copy_of_start("surplus");
    edit(&surplus, &|config| config["num_hidden_layers"] = 1.into());
    start(&surplus, &["surplus", "unexpected: bert.encoder.layer.1."]);
    let shape = bench.copy_of_start("shape");
    edit(&shape, &|config| config["intermediate_size"] = 64.into());
    start(&shape, &["shape", "wrong shape", "expected [64, 32], found [48, 32]"]);
    let cut = bench.copy_of_start("cut");
    let weights = format!("{cut}/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 100]).unwrap();
    start(&cut, &["model.safetensors", "damaged"]);
    let large = bench.copy_of_start("large");
    for entry in fs::read_dir(&large).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("token") || name.contains("vocab") {
            fs::remove_file(entry).unwrap();
        }
    }
    start(&large, &["large", "vocab.txt"]);
    tokenizer(&["one", "more"]).save(Path::new(&large)).unwrap();
    start(&large, &["large", "27 tokens", "25 embeddings"]);

    // Models that are not fine-tuned, or for another kind of task.
    let run = bench.paths("run");
    success(&with_epochs(bench.finetune("classify", &file, &run, &[]), "1"));
    let numbers = bench.file("numbers.tsv", "text\tlabel\na fox\t1.5\nan owl\t2\n");
    let regress = bench.paths("regress");
    success(&with_epochs(bench.finetune("regress", &numbers, &regress, &[]), "1"));
    let (plain, classify, regress) = (bench.path("start"), bench.path("run/model"), bench.path("regress/model"));
    let tags = bench.file("tags.conll", TAGS);
    let choices = bench.file("choices.jsonl", "{\"context\": \"anna\", \"choices\": [\"a\", \"b\"], \"label\": 1}\n");
    for (kind, model, data, expected) in [
        ("classify", &plain, &file, &["start", "cloze finetune"][..]),
        ("tag", &classify, &tags, &["run/model", "classify (3 labels)", "tag"]),
        ("regress", &classify, &numbers, &["run/model", "classify (3 labels)", "regress"]),
        ("choose", &regress, &choices, &["regress/model", "regress", "choose"]),
        ("classify", &regress, &file, &["regress/model", "regress", "classify"]),
    ] {
        fails(&["evaluate", kind, "--model", model, "--data", data, "--quiet"], expected);
        fails_with(&["predict", kind, "--model", model, "--quiet"], "{\"text\": \"anna\"}\n", expected);
    }
    fails(&["evaluate", "classify", "--model", &bench.path("absent"), "--data", &file], &["absent", "config.json"]);
    fails(&["predict", "classify", "--model", &bench.path("absent")], &["absent", "config.json"]);
    let folder = ["evaluate", "classify", "--model", &classify, "--data", &bench.path("empty"), "--quiet"];
    fails(&folder, &["empty", "--task"]);

    // Rows that the fine-tuned model cannot process.
    let other = bench.file("other.tsv", "text\tlabel\nanna\tperson\nan ape\tape\n");
    let judge = ["evaluate", "classify", "--model", &classify, "--quiet", "--data"];
    fails(&[&judge[..], &[other.as_str()]].concat(), &["other.tsv:3:", "unknown label \"ape\""]);
    let long = bench.file("long.tsv", &format!("text\tlabel\n{}\tfox\n", "fox ".repeat(100)));
    let fit = ["102 tokens", "40 positions", "lower --max-len to 40"];
    fails(&[&judge[..], &[long.as_str(), "--max-len", "600"]].concat(), &fit);
    let words = ["predict", "classify", "--model", &classify, "--quiet", "--max-len", "600"];
    let words = [&words[..], &["--strict"]].concat();
    fails_with(&words, &"fox ".repeat(100), &["standard input, line 1", fit[0], fit[1], fit[2]]);
    fails(&[&words[..], &["--input", &long]].concat(), &fit);
    let words = [&words[..5], &["--strict"]].concat();
    let json = [&words[..], &["--format", "jsonl"]].concat();
    fails_with(&json, "{\"text\": }\n", &["standard input, line 1", "column 10"]);
    fails_with(&words, "{\"title\": \"anna\"}\n", &["standard input, line 1", "\"text\"", "the row has \"title\""]);
    fails(&[&words[..], &["--input", &bench.path("absent.txt")]].concat(), &["absent.txt"]);
}
