//! The choice of instruction set and precision, and how to force them.

use std::fs;
use std::process::{Command, Output};

use cloze_model::Heads;
use serde_json::Value;

use crate::common::{Bench, TEXTS, cloze, is_refused, json, json_lines, success, success_with, text};

const SHAPE: [&str; 16] = [
    "--layers",
    "1",
    "--hidden",
    "32",
    "--heads",
    "2",
    "--batch",
    "2",
    "--seq",
    "16",
    "--vocab",
    "100",
    "--steps",
    "1",
    "--threads",
    "1",
];

/// Runs `cloze bench` with a tiny shape and the given `CLOZE_CPU`.
fn bench(arguments: &[&str], cpu: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloze"));
    command.arg("bench").args(arguments).args(SHAPE).env_remove("CLOZE_CPU");
    if let Some(cpu) = cpu {
        command.env("CLOZE_CPU", cpu);
    }
    command.output().expect("the binary runs")
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn default_precision_has_a_reason() {
    let line = &lines(&bench(&["train", "--json"], None))[0];
    assert!(["f32", "bf16"].iter().any(|name| line["precision"] == *name), "{line}");
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("instruction set")), "{line}");
    let forced = &lines(&bench(&["infer", "--json", "--precision", "bf16"], Some("portable")))[0];
    assert_eq!(forced["precision"], "bf16");
    assert!(forced["machine"].as_str().is_some_and(|machine| machine.contains("portable")), "{forced}");
    assert!(forced["reason"].as_str().is_some_and(|reason| reason.contains("CLOZE_CPU")), "{forced}");
}

#[test]
fn inference_has_int8() {
    for cpu in [None, Some("portable")] {
        let line = &lines(&bench(&["infer", "--json", "--precision", "int8"], cpu))[0];
        assert_eq!(line["precision"], "int8");
        assert!(["f32", "bf16"].iter().any(|name| line["activations"] == *name), "{line}");
        assert!(line["peak_gflops"].as_f64().is_some_and(|peak| peak > 0.0), "{line}");
    }
    let folder = Bench::of_letters(&[("start", Heads::PRETRAINING)]);
    let (model, texts) = (folder.path("start"), folder.file("texts.txt", "a b c\nd e\nf\n"));
    let embed = |precision| {
        let out = folder.path(&format!("{precision}.npy"));
        let words =
            ["embed", "--model", &model, "--input", &texts, "--out", &out, "--precision", precision, "--verbose"];
        let output = cloze(&words);
        assert!(output.status.success(), "{}", text(&output.stderr));
        if precision == "int8" {
            assert!(text(&output.stderr).contains("int8, and "), "{}", text(&output.stderr));
        }
        fs::read(out).unwrap()
    };
    let [f32, int8, again] = ["f32", "int8", "int8"].map(embed);
    assert_eq!((f32.len(), &int8), (int8.len(), &again));
    assert_ne!(f32, int8);
    let similar =
        ["similar", "--model", &model, "--corpus", &texts, "--query", "a b c", "--precision", "int8", "--json"];
    let found = json(&success(&similar));
    assert_eq!(found["results"][0]["text"], "a b c", "{found}");
    let filled = success(&["fill", "--model", &model, "--precision", "int8", "--json", "a [MASK] c"]);
    assert!(json(filled.lines().next().unwrap()).is_object(), "{filled}");
}

#[test]
fn predictions_have_int8() {
    let folder = Bench::new();
    let rows = folder.file("rows.tsv", TEXTS);
    success(&folder.finetune("classify", &rows, &folder.paths("run"), &["--max-len", "20"]));
    let model = folder.path("run");
    let int8 = ["--precision", "int8", "--quiet"];
    let judged = json(&success(&[&["evaluate", "--model", &model, "--data", &rows, "--json"][..], &int8].concat()));
    assert_eq!((&judged["accuracy"], &judged["precision"]), (&1.0.into(), &Value::Null), "{judged}");
    let predicted = json_lines(&success_with(
        &[&["predict", "--model", &model, "--input", "-"][..], &int8].concat(),
        "anna paints .\n",
    ));
    assert_eq!(predicted[0]["label"], "person", "{predicted:?}");
}

/// Training and the losses of pre-training have no int8.
#[test]
fn training_refuses_int8() {
    let folder = Bench::new();
    let rows = folder.file("rows.tsv", TEXTS);
    let (start, out) = (folder.path("start"), folder.path("out"));
    let int8 = ["--precision", "int8"];
    let finetune = ["finetune", "classify", "--model", &start, "--train", &rows, "--dev", &rows, "--out", &out];
    let unknown = |arguments: &[&str]| {
        let output = cloze(&[arguments, &int8].concat());
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}");
        for part in
            ["invalid value 'int8'", "training and the losses of pre-training need f32 or bf16", "predict, embed"]
        {
            assert!(line.contains(part), "{arguments:?}: {line}");
        }
    };
    unknown(&finetune);
    let evaluate = ["evaluate", "pretrain", "--model", &start, "--data", &rows];
    unknown(&evaluate);
    is_refused(&[&["bench", "train"][..], &int8].concat(), &["--precision int8: training needs f32 or bf16"]);
    is_refused(&[&["bench", "scale"][..], &int8].concat(), &["--precision int8: training needs f32 or bf16"]);
    let help = success(&["finetune", "classify", "--help"]);
    assert!(!help.contains("int8"), "{help}");
}

/// Regression: an empty variable was an error.
#[test]
fn an_empty_cloze_cpu_is_ignored() {
    let machine = |cpu| lines(&bench(&["infer", "--json"], cpu))[0]["machine"].clone();
    assert_eq!(machine(Some("")), machine(None));
    let unknown = bench(&["infer"], Some("avx1024"));
    assert_eq!(unknown.status.code(), Some(1));
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(error.contains("CLOZE_CPU=avx1024: expected one of"), "{error}");
}

#[test]
fn bench_defaults_compares_all_settings() {
    let found = lines(&bench(&["defaults", "--rounds", "1", "--json"], None));
    for label in ["training", "inference"] {
        let of: Vec<&Value> = found.iter().filter(|line| line["bench"] == label).collect();
        assert!(of.len() >= 3, "the default again, and at least one instruction set with two precisions: {of:?}");
        assert_eq!(of[0]["setting"], "the default again");
        for line in of {
            assert!(line["default_is_faster_by"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{line}");
        }
    }
    let no_default = bench(&["defaults"], Some("portable"));
    assert!(String::from_utf8_lossy(&no_default.stderr).contains("CLOZE_CPU"));
    let chosen = bench(&["defaults", "--precision", "f32"], None);
    assert!(String::from_utf8_lossy(&chosen.stderr).contains("--precision"));
}
