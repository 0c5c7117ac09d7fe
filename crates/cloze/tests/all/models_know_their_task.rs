//! `predict`, `evaluate` and `embed` read the kind of task, the columns and the lengths from the model.

use std::fs;

use crate::common::{
    Bench, TAGS, TEXTS, cloze, cloze_with, fails, fails_with, is_refused, json, json_file, json_lines, success,
    success_with, text, with_epochs,
};
use serde_json::Value;

/// Trains a classifier with other column names than the defaults. Returns its run folder.
fn stars(bench: &Bench) -> String {
    let rows = TEXTS.replace("text\tlabel", "review\tstars");
    let file = bench.file("reviews.tsv", &rows);
    let paths = bench.paths("stars");
    let columns = ["--text", "review", "--label", "stars", "--max-len", "20", "--metric", "f1"];
    success(&bench.finetune("classify", &file, &paths, &columns));
    bench.path("stars")
}

fn edit_config(model: &str, edit: &dyn Fn(&mut Value)) {
    let path = format!("{model}/config.json");
    let mut config = json_file(&path);
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

/// Regression: `predict --model M --input f` was a usage error, and `--text` and `--label` were required again.
#[test]
fn task_settings_are_read_from_the_model() {
    let bench = Bench::new();
    let run = stars(&bench);
    let model = run.as_str();
    let remembered = json_file(&format!("{run}/model/config.json"))["cloze"].clone();
    let expected = serde_json::json!({"version": 1, "kind": "classify", "text": "review", "label": "stars", "max_len": 20, "metric": "f1"});
    assert_eq!(remembered, expected);

    let judge = |more: &[&str]| {
        let base = ["evaluate", "--model", model, "--precision", "f32", "--json", "--quiet", "--data"];
        json(&success(&[&base[..], more].concat()))
    };
    let found = judge(&[&bench.path("reviews.tsv")]);
    assert_eq!((&found["accuracy"], &found["rows"]), (&1.0.into(), &8.into()), "{found}");
    // The command line overrides the model.
    let plain = bench.file("plain.tsv", TEXTS);
    let renamed = judge(&[&plain, "--text", "text", "--label", "label"]);
    assert_eq!((&renamed["accuracy"], &renamed["loss"]), (&found["accuracy"], &found["loss"]), "{renamed}");

    let labels = |input: &str, lines: &str, more: &[&str]| -> Vec<String> {
        let base = ["predict", "--model", model, "--input", input, "--precision", "f32", "--quiet"];
        let lines = json_lines(&success_with(&[&base[..], more].concat(), lines));
        lines.iter().map(|line| line["label"].as_str().unwrap().to_owned()).collect()
    };
    // A table without labels, with other columns.
    let new = bench.file("new.csv", "id,review\n1,a quiet owl leaves rome\n2,anna paints .\n");
    assert_eq!(labels(&new, "", &[]), ["owl", "person"]);
    let other = bench.file("other.csv", "body\nanna paints .\n");
    assert_eq!(labels(&other, "", &["--text", "body"]), ["person"]);
    // JSON lines with the key of the training files or the default key.
    let lines = "{\"text\": \"anna paints .\"}\n{\"review\": \"a quiet owl leaves rome\"}\n{\"text\": \"the old fox leaves .\"}\n\
                 {\"review\": \"anna paints .\", \"text\": \"a fox\"}\n";
    assert_eq!(labels("-", lines, &[]), ["person", "owl", "fox", "person"]);

    // A file with other columns: the error has the expected columns, the reason and the options.
    let explained = ["no column \"review\"", "trained on the columns \"review\", \"stars\"", "--text, --label"];
    fails(&["predict", "--model", model, "--input", &other, "--quiet"], &[&["other.csv"][..], &explained].concat());
    let unlabelled = bench.file("unlabelled.tsv", "review\nanna paints .\n");
    fails(&["evaluate", "--model", model, "--data", &unlabelled, "--quiet"], &["no column \"stars\"", "--label"]);
    // If the column is given, the error does not mention the model.
    let given = ["evaluate", "--model", model, "--data", &unlabelled, "--label", "mark", "--quiet"];
    let line = text(&cloze(&given).stderr);
    assert!(line.contains("no column \"mark\"") && !line.contains("trained on"), "{line}");
    // Another known task has its own columns.
    let sst2 = bench.file("sst2.tsv", "sentence\tlabel\nanna paints .\tperson\n");
    assert_eq!(judge(&[&sst2, "--task", "sst2"])["rows"], 1);

    // Another kind than the model's.
    let expected = ["stars/model", "classify (3 labels)", "tag", "omit the kind of task"];
    fails_with(&["predict", "tag", "--model", model, "--quiet"], "anna\n", &expected);
    fails(&["evaluate", "regress", "--model", model, "--data", &plain, "--quiet"], &["classify (3 labels)", "regress"]);
    is_refused(&["evaluate", "--model", model, "--data", &plain, "--n-best", "3", "--quiet"], &["--n-best", "answer"]);
    let labels = ["evaluate", "--model", model, "--data", &plain, "--labels", "a,b", "--quiet"];
    is_refused(&labels, &["--labels", "the labels of a fine-tuned model are fixed"]);

    // Models without settings, such as those of Transformers and of older versions.
    edit_config(&format!("{run}/model"), &|config| {
        config.as_object_mut().unwrap().remove("cloze");
    });
    let found = json_lines(&success_with(&["predict", "--model", model, "--quiet"], "anna paints .\n"));
    assert_eq!(found[0]["label"], "person");
    // A head of the same shape for several labels: each label has its own probability.
    edit_config(&format!("{run}/model"), &|config| config["problem_type"] = "multi_label_classification".into());
    let found = json_lines(&success_with(&["predict", "--model", model, "--quiet"], "anna paints .\n"));
    assert!(found[0]["labels"].is_array(), "{}", found[0]);
    let other = ["predict", "classify", "--model", model, "--quiet"];
    fails_with(&other, "anna\n", &["stars/model", "found problem_type multi_label_classification"]);
    edit_config(&format!("{run}/model"), &|config| config["problem_type"] = "regression".into());
    fails(&["predict", "--model", model, "--quiet"], &["stars/model", "found problem_type regression"]);
    edit_config(&format!("{run}/model"), &|config| config["cloze"] = "classify".into());
    fails(&["predict", "--model", model, "--quiet"], &["config.json", "\"cloze\"", "fine-tuning"]);
}

#[test]
fn a_tagger_stores_the_format_of_its_files() {
    let bench = Bench::new();
    let rows = "anna B-PER x\nleaves O x\nparis B-LOC y\n\nthe O x\nfox O x\nsees O x\notto B-PER x\n";
    let file = bench.file("tags.txt", rows);
    let paths = bench.paths("ner");
    let format = ["--tag-format", "columns", "--tag-column", "2"];
    success(&bench.finetune("tag", &file, &paths, &format));
    let judge = |data: &str, more: &[&str]| {
        let model = bench.path("ner");
        let base = ["evaluate", "--model", &model, "--data", data, "--precision", "f32", "--json", "--quiet"];
        json(&success(&[&base[..], more].concat()))["f1"].as_f64().unwrap()
    };
    assert_eq!(judge(&file, &[]), 1.0);
    // The extension of a file overrides the stored format.
    let words = [("anna", "B-PER"), ("leaves", "O"), ("paris", "B-LOC")];
    let line = |(n, (word, tag)): (usize, &(&str, &str))| format!("{}\t{word}\t_\t{tag}{}\n", n + 1, "\t_".repeat(6));
    let conllu = bench.file("tags.conllu", &words.iter().enumerate().map(line).collect::<String>());
    assert_eq!(judge(&conllu, &[]), 1.0);
    // A given format has its own default column.
    let plain = bench.file("plain.txt", "anna B-PER\nleaves O\nparis B-LOC\n");
    assert_eq!(judge(&plain, &["--tag-format", "columns"]), 1.0);
    // `predict` reads tagged words like `evaluate`, with any file name.
    let predict = |more: &[&str]| {
        let model = bench.path("ner");
        json_lines(&success(&[&["predict", "--model", &model, "--input", &plain, "--quiet"], more].concat()))
    };
    for more in [&[][..], &["--tag-format", "columns"], &["--format", "columns"]] {
        let found = predict(more);
        assert_eq!((found.len(), &found[0]["row"], &found[0]["words"][2]), (1, &1.into(), &"paris".into()), "{more:?}");
    }
    assert_eq!(predict(&["--format", "lines"])[0]["line"], 1);
}

#[test]
fn kind_of_task_follows_from_the_head_without_settings() {
    let bench = Bench::new();
    let numbers = bench.file("numbers.tsv", "text\tlabel\na fox\t1.5\nan owl\t2\n");
    let tags = bench.file("tags.conll", TAGS);
    let choices = bench.file("choices.jsonl", "{\"context\": \"anna\", \"choices\": [\"a\", \"the\"], \"label\": 1}\n");
    let questions = bench.file(
        "questions.jsonl",
        "{\"id\": \"p\", \"question\": \"who\", \"context\": \"anna paints\", \"answers\": {\"text\": [\"anna\"], \"answer_start\": [0]}}\n",
    );
    let answering = ["--max-len", "16", "--stride", "4", "--max-question", "4"];
    for (kind, file, options, score) in [
        ("regress", &numbers, &[][..], "mean_squared_error"),
        ("tag", &tags, &[], "f1"),
        ("choose", &choices, &[], "accuracy"),
        ("answer", &questions, &answering, "exact_match"),
    ] {
        let paths = bench.paths(kind);
        success(&with_epochs(bench.finetune(kind, file, &paths, options), "1"));
        edit_config(&format!("{}/model", paths[1]), &|config| {
            config.as_object_mut().unwrap().remove("cloze");
        });
        let model = bench.path(kind);
        let base = ["evaluate", "--model", &model, "--data", file, "--json", "--quiet"];
        let found = json(&success(&[&base[..], options].concat()));
        assert!(found[score].is_number(), "{kind}: {found}");
    }
}

#[test]
fn models_without_a_task_are_refused_with_suggestions() {
    let bench = Bench::new();
    let model = bench.path("start");
    let file = bench.file("texts.tsv", TEXTS);
    let base = [model.as_str(), "BertForPreTraining is not fine-tuned", "cloze finetune"];
    let judging = format!("cloze evaluate pretrain --model {model} --data SHARDS");
    fails(&["evaluate", "--model", &model, "--data", &file, "--quiet"], &[&base[..], &[&judging]].concat());
    fails(&["predict", "--model", &model, "--quiet"], &[&base[..], &["cloze fill --model", "'[MASK] .'"]].concat());
}

#[test]
fn options_before_the_kind_are_refused_with_the_reason() {
    let line = text(&cloze(&["predict", "--model", "m", "tag", "--input", "x"]).stderr);
    assert!(
        line.contains("--model is before the kind of task") && line.contains("cloze predict tag --model"),
        "{line}"
    );
    // Regression: `evaluate pretrain` and `evaluate retrieval` ignored such options.
    for (words, expected) in [
        ("evaluate --precision f32 --json pretrain --model m --data d", "--precision is before `pretrain`"),
        ("evaluate --json pretrain --model m --data d", "--json is before `pretrain`"),
        ("evaluate --task x retrieval --model m --corpus c --queries q --qrels r", "--task is before `retrieval`"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let output = cloze(&words);
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(line.contains(expected) && line.contains("--help"), "{line}");
    }
    // Global options are allowed before the kind.
    fails(&["evaluate", "--quiet", "pretrain", "--model", "absent", "--data", "d"], &["absent"]);
    fails(&["predict", "--quiet", "tag", "--model", "absent"], &["absent"]);
}

/// Regression: such options were hidden in the help but accepted without effect.
#[test]
fn options_without_effect_are_refused_with_the_reason() {
    let bench = Bench::new();
    let run = stars(&bench);
    let tags = bench.file("tags.conll", TAGS);
    let predict = ["predict", "--model", &run, "--quiet"];
    for (words, expected) in [
        (
            &["finetune", "answer", "--model", &run, "--train", &tags, "--n-best", "3"][..],
            ["--n-best:", "only in prediction and evaluation"],
        ),
        (&["finetune", "tag", "--model", &run, "--train", &tags, "--text", "x"], ["--text:", "no column of texts"]),
        (
            &["finetune", "--task", "conll2003", "--model", &run, "--train", &tags, "--text", "x"],
            ["--text:", "no column"],
        ),
        (&["sweep", "tag", "--model", &run, "--train", &tags, "--text", "x"], ["--text:", "no column of texts"]),
        (&["sweep", "tag", "--model", &run, "--train", &tags, "--lr", "1e-3"], ["--lr:", "--lrs"]),
        (&[&predict[..], &["--label", "x"]].concat(), ["--label:", "does not use labels"]),
        (&[&predict[..], &["--metric", "f1"]].concat(), ["--metric:", "no scores"]),
        (&[&predict[..], &["--labels", "a,b"]].concat(), ["--labels:", "config.json"]),
        (&["predict", "answer", "--model", "absent", "--skip-bad"], ["--skip-bad:", "--strict"]),
        (&["evaluate", "tag", "--model", "absent", "--data", &tags, "--text", "x"], ["--text:", "no column of texts"]),
    ] {
        is_refused(words, &expected);
    }
    // In a recipe, options for other kinds are allowed.
    let recipe = bench.file("tag.toml", "kind = \"tag\"\ntext = \"x\"\nepochs = 1\n");
    let out = bench.path("ner");
    let words =
        ["finetune", "--recipe", &recipe, "--train", &tags, "--model", &bench.path("start"), "--out", &out, "--quiet"];
    success(&words);
}

/// Regression: wrong command lines and missing files were reported only after a model was downloaded.
#[test]
fn errors_are_reported_before_the_model_is_downloaded() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let absent = bench.path("absent.tsv");
    let model = "organisation/none";
    let finetune = ["finetune", "classify", "--model", model, "--offline"];
    is_refused(&finetune, &["--train"]);
    fails(
        &[&finetune[..], &["--train", &absent, "--out", &bench.path("out")]].concat(),
        &["absent.tsv", "No such file"],
    );
    let dev = ["--train", &file, "--dev", &absent, "--out", &bench.path("out")];
    fails(&[&finetune[..], &dev].concat(), &["absent.tsv", "No such file"]);
    let warmup = ["--train", &file, "--out", &bench.path("out"), "--warmup", "7"];
    fails(&[&finetune[..], &warmup].concat(), &["--warmup: expected from 0 to 1, found 7"]);
    let used = ["--train", &file, "--out", &bench.path("start")];
    fails(&[&finetune[..], &used].concat(), &["start", "already in use"]);
    fails(&["predict", "--model", model, "--offline", "--input", &absent], &["absent.tsv", "No such file"]);
    fails(&["evaluate", "--model", model, "--offline", "--data", &file, &absent], &["absent.tsv", "No such file"]);
    let context = ["evaluate", "classify", "--model", model, "--offline", "--data", &file, "--context"];
    is_refused(&context, &["--context has no effect"]);
}

/// Regression: stored settings could not be unset: context, windows, threshold.
#[test]
fn stored_settings_can_be_unset() {
    let bench = Bench::new();
    let tags = bench.file("tags.conll", TAGS);
    let paths = bench.paths("ner");
    success(&with_epochs(bench.finetune("tag", &tags, &paths, &["--context", "--max-len", "20"]), "1"));
    let long = format!("text\tlabel\n{}\tfox\nan owl\towl\n", "fox owl red ".repeat(20));
    let file = bench.file("long.tsv", &long);
    let paths = bench.paths("long");
    success(&with_epochs(bench.finetune("classify", &file, &paths, &["--stride", "5", "--max-len", "20"]), "1"));
    let loss = |run: &str, data: &str, more: &[&str]| {
        let run = bench.path(run);
        let base = ["evaluate", "--model", &run, "--data", data, "--precision", "f32", "--json", "--quiet"];
        json(&success(&[&base[..], more].concat()))["loss"].as_f64().unwrap()
    };
    let (with, without) = (loss("ner", &tags, &[]), loss("ner", &tags, &["--no-context"]));
    assert!(with != without && loss("ner", &tags, &["--no-context", "--context"]) == with, "{with} and {without}");
    let (windows, cut) = (loss("long", &file, &[]), loss("long", &file, &["--stride", "0"]));
    assert!(windows != cut, "{windows}");
    // The stored settings do not apply to the files of another known task.
    assert_eq!(loss("ner", &tags, &["--task", "conll2003"]), without);
    let sst2 = bench.file("sst2.tsv", &long.replace("text\t", "sentence\t"));
    assert_eq!(loss("long", &sst2, &["--task", "sst2"]), cut);
    is_refused(
        &["evaluate", "answer", "--model", "m", "--data", &file, "--stride", "0"],
        &["--stride: expected a number above 0", "windows"],
    );
    let context = ["evaluate", "classify", "--model", "m", "--data", &file, "--no-context"];
    is_refused(&context, &["--no-context has no effect", "is for tag"]);
}

#[test]
fn verbose_prints_the_choices() {
    let bench = Bench::new();
    let model = stars(&bench);
    let said = |words: &[&str]| {
        let output = cloze_with(words, "anna paints .\n");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let verbose = said(&["predict", "-v", "--model", &model]);
    for part in [
        "cloze 0",
        "stars/model",
        "BertForSequenceClassification",
        "threads",
        "task: classify",
        "\"text\":\"review\"",
        "at most 20 tokens",
    ] {
        assert!(verbose.contains(part), "{part:?} is not in {verbose}");
    }
    let usual = said(&["predict", "--model", &model]);
    assert!(!usual.contains("cloze 0") && !usual.contains("stored in the model"), "{usual}");
    let lines = bench.file("lines.txt", "anna paints .\n");
    let out = bench.path("out.npy");
    // As in sentence-transformers, the maximum length of fine-tuning does not apply to vectors.
    let verbose = said(&["embed", "-v", "--model", &model, "--input", &lines, "--out", &out]);
    assert!(verbose.contains("mean of layer 2") && verbose.contains("at most 40 tokens"), "{verbose}");
}
