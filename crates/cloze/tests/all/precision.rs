//! The choice of instruction set and precision, and how to force them.

use std::process::{Command, Output};

use serde_json::Value;

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
