//! `predict`, `evaluate` and `embed` take the kind of task, the columns and the lengths from the model.

mod common;

use std::fs;

use common::{
    Bench, TEXTS, cloze, fails, fails_with, is_refused, json, json_file, json_lines, success, text, with_epochs,
};
use serde_json::Value;

/// A classifier of reviews whose columns are called otherwise than usual; its run's folder.
fn stars(bench: &Bench) -> String {
    let rows = TEXTS.replace("text\tlabel", "review\tstars");
    let file = bench.file("reviews.tsv", &rows);
    let paths = bench.paths("stars");
    let columns = ["--text", "review", "--label", "stars", "--max-len", "20", "--metric", "f1"];
    success(&bench.finetune("classify", &file, &paths, &columns), "");
    bench.path("stars")
}

fn edit_config(model: &str, edit: &dyn Fn(&mut Value)) {
    let path = format!("{model}/config.json");
    let mut config = json_file(&path);
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

/// `predict --model M --input f` was a usage error, and `--text` and `--label` had to be given again.
#[test]
fn the_model_is_enough() {
    let bench = Bench::new();
    let run = stars(&bench);
    let model = run.as_str();
    let remembered = json_file(&format!("{run}/model/config.json"))["cloze"].clone();
    let expected =
        serde_json::json!({"kind": "classify", "text": "review", "label": "stars", "max_len": 20, "metric": "f1"});
    assert_eq!(remembered, expected);

    let judge = |more: &[&str]| {
        let base = ["evaluate", "--model", model, "--precision", "f32", "--json", "--quiet", "--data"];
        json(&success(&[&base[..], more].concat(), ""))
    };
    let found = judge(&[&bench.path("reviews.tsv")]);
    assert_eq!((&found["accuracy"], &found["rows"]), (&1.0.into(), &8.into()), "{found}");
    // What the command line says comes first.
    let plain = bench.file("plain.tsv", TEXTS);
    let renamed = judge(&[&plain, "--text", "text", "--label", "label"]);
    assert_eq!((&renamed["accuracy"], &renamed["loss"]), (&found["accuracy"], &found["loss"]), "{renamed}");

    let labels = |input: &str, lines: &str, more: &[&str]| -> Vec<String> {
        let base = ["predict", "--model", model, "--input", input, "--precision", "f32", "--quiet"];
        let lines = json_lines(&success(&[&base[..], more].concat(), lines));
        lines.iter().map(|line| line["label"].as_str().unwrap().to_owned()).collect()
    };
    // A table without labels, of which the columns of texts are taken.
    let new = bench.file("new.csv", "id,review\n1,a quiet owl leaves rome\n2,anna paints .\n");
    assert_eq!(labels(&new, "", &[]), ["owl", "person"]);
    let other = bench.file("other.csv", "body\nanna paints .\n");
    assert_eq!(labels(&other, "", &["--text", "body"]), ["person"]);
    // Lines: plain, and JSON with the training files' key or the plain one.
    let lines = "anna paints .\n{\"review\": \"a quiet owl leaves rome\"}\n{\"text\": \"the old fox leaves .\"}\n\
                 {\"review\": \"anna paints .\", \"text\": \"a fox\"}\n";
    assert_eq!(labels("-", lines, &[]), ["person", "owl", "fox", "person"]);

    // A file with other columns: which are looked for, why, and what to do.
    let explained = ["no column \"review\"", "trained on the columns \"review\", \"stars\"", "--text, --label"];
    fails(&["predict", "--model", model, "--input", &other, "--quiet"], &[&["other.csv"][..], &explained].concat());
    let unlabelled = bench.file("unlabelled.tsv", "review\nanna paints .\n");
    fails(&["evaluate", "--model", model, "--data", &unlabelled, "--quiet"], &["no column \"stars\"", "--label"]);
    // Where the column is given, nothing is remembered of it.
    let given = ["evaluate", "--model", model, "--data", &unlabelled, "--label", "mark", "--quiet"];
    let line = text(&cloze(&given, "").stderr);
    assert!(line.contains("no column \"mark\"") && !line.contains("trained on"), "{line}");
    // Another known task has columns of its own.
    let sst2 = bench.file("sst2.tsv", "sentence\tlabel\nanna paints .\tperson\n");
    assert_eq!(judge(&[&sst2, "--task", "sst2"])["rows"], 1);

    // A kind that is not the model's.
    let expected = ["stars/model", "classify (3 labels)", "tag", "leave the kind of task out"];
    fails_with(&["predict", "tag", "--model", model, "--quiet"], "anna\n", &expected);
    fails(&["evaluate", "regress", "--model", model, "--data", &plain, "--quiet"], &["classify (3 labels)", "regress"]);
    is_refused(&["evaluate", "--model", model, "--data", &plain, "--n-best", "3", "--quiet"], &["--n-best", "answer"]);
    let labels = ["evaluate", "--model", model, "--data", &plain, "--labels", "a,b", "--quiet"];
    is_refused(&labels, &["--labels", "a fine-tuned model has its labels"]);

    // The same of a model that says nothing, as those of Transformers and of older versions.
    edit_config(&format!("{run}/model"), &|config| {
        config.as_object_mut().unwrap().remove("cloze");
    });
    let found = json_lines(&success(&["predict", "--model", model, "--quiet"], "anna paints .\n"));
    assert_eq!(found[0]["label"], "person");
    // A head that looks alike, but whose logits are labels of their own.
    edit_config(&format!("{run}/model"), &|config| config["problem_type"] = "multi_label_classification".into());
    fails(&["predict", "--model", model, "--quiet"], &["stars/model", "problem_type is multi_label_classification"]);
    edit_config(&format!("{run}/model"), &|config| config["cloze"] = "classify".into());
    fails(&["predict", "--model", model, "--quiet"], &["config.json", "\"cloze\"", "finetune"]);
}

#[test]
fn a_tagger_remembers_how_its_words_are_written() {
    let bench = Bench::new();
    let rows = "anna B-PER x\nleaves O x\nparis B-LOC y\n\nthe O x\nfox O x\nsees O x\notto B-PER x\n";
    let file = bench.file("tags.txt", rows);
    let paths = bench.paths("ner");
    let format = ["--tag-format", "columns", "--tag-column", "2"];
    success(&bench.finetune("tag", &file, &paths, &format), "");
    let judge = |data: &str, more: &[&str]| {
        let model = bench.path("ner");
        let base = ["evaluate", "--model", &model, "--data", data, "--precision", "f32", "--json", "--quiet"];
        json(&success(&[&base[..], more].concat(), ""))["f1"].as_f64().unwrap()
    };
    assert_eq!(judge(&file, &[]), 1.0);
    // A file that is of another format by its ending is read as that.
    let words = [("anna", "B-PER"), ("leaves", "O"), ("paris", "B-LOC")];
    let line = |(n, (word, tag)): (usize, &(&str, &str))| format!("{}\t{word}\t_\t{tag}{}\n", n + 1, "\t_".repeat(6));
    let conllu = bench.file("tags.conllu", &words.iter().enumerate().map(line).collect::<String>());
    assert_eq!(judge(&conllu, &[]), 1.0);
    // A format that the command line gives has its own usual column.
    let plain = bench.file("plain.txt", "anna B-PER\nleaves O\nparis B-LOC\n");
    assert_eq!(judge(&plain, &["--tag-format", "columns"]), 1.0);
    // Lines of a text are predicted all the same, unless the command line says how words are written.
    let predict = |more: &[&str]| {
        let model = bench.path("ner");
        json_lines(&success(&[&["predict", "--model", &model, "--input", &plain, "--quiet"], more].concat(), ""))
    };
    assert_eq!(predict(&[])[0]["line"], 1);
    assert_eq!(predict(&["--tag-format", "columns"])[0]["row"], 1);
}

#[test]
fn heads_tell_the_kind_of_task_where_the_model_says_nothing() {
    let bench = Bench::new();
    let numbers = bench.file("numbers.tsv", "text\tlabel\na fox\t1.5\nan owl\t2\n");
    let tags = bench.file("tags.conll", common::TAGS);
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
        success(&with_epochs(bench.finetune(kind, file, &paths, options), "1"), "");
        edit_config(&format!("{}/model", paths[1]), &|config| {
            config.as_object_mut().unwrap().remove("cloze");
        });
        let model = bench.path(kind);
        let base = ["evaluate", "--model", &model, "--data", file, "--json", "--quiet"];
        let found = json(&success(&[&base[..], options].concat(), ""));
        assert!(found[score].is_number(), "{kind}: {found}");
    }
}

#[test]
fn a_model_without_a_task_says_what_to_do_with_it() {
    let bench = Bench::new();
    let model = bench.path("start");
    let file = bench.file("texts.tsv", TEXTS);
    let base = [model.as_str(), "BertForPreTraining is not fine-tuned", "cloze finetune"];
    let judging = format!("cloze evaluate pretrain --model {model} --data SHARDS");
    fails(&["evaluate", "--model", &model, "--data", &file, "--quiet"], &[&base[..], &[&judging]].concat());
    fails(&["predict", "--model", &model, "--quiet"], &[&base[..], &["cloze fill --model"]].concat());
}

#[test]
fn options_before_the_kind_are_refused_with_the_reason() {
    let line = text(&cloze(&["predict", "--model", "m", "tag", "--input", "x"], "").stderr);
    assert!(
        line.contains("--model stands before the kind of task") && line.contains("cloze predict tag --model"),
        "{line}"
    );
    // But for those of all commands.
    fails(&["predict", "--quiet", "tag", "--model", "absent"], &["absent"]);
}

#[test]
fn verbose_says_what_was_chosen() {
    let bench = Bench::new();
    let model = stars(&bench);
    let said = |words: &[&str]| {
        let output = cloze(words, "anna paints .\n");
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
    assert!(!usual.contains("cloze 0") && !usual.contains("remembers"), "{usual}");
    let lines = bench.file("lines.txt", "anna paints .\n");
    let out = bench.path("out.npy");
    // Vectors of a fine-tuned model are of as many tokens as it was trained on.
    let verbose = said(&["embed", "-v", "--model", &model, "--input", &lines, "--out", &out]);
    assert!(verbose.contains("mean of layer 2") && verbose.contains("at most 20 tokens"), "{verbose}");
}
