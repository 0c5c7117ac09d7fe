//! `cloze ablate`: rows are pre-trained and fine-tuned once; interrupted and extended ablations continue.

use std::fs;
use std::path::Path;

use crate::common::{TEXTS, cloze, command, corpus, json, success, text};

/// A grid and a recipe for models that are trained in a second.
const RECIPE: &str = "steps = 4\n[model]\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
    max_position_embeddings = 64\n[objective]\nnsp = false\nshort_seq_prob = 0.0\n[[phase]]\nseq_len = 32\nbatch_sequences = 4\n\
    [optimizer]\nkind = \"adamw\"\nlr = 1e-3\n[schedule]\nwarmup_share = 0.1\n[eval]\nevery = 0\n[checkpoint]\nevery = 1\n";
const TASK: &str = "kind = \"classify\"\nepochs = 1\nbatch = 4\nlr = 1e-3\n";
const PAIRS: &str = "{\"sentence_good\": \"The fox.\", \"sentence_bad\": \"Fox the.\", \"UID\": \"order\", \
    \"linguistics_term\": \"order\", \"field\": \"syntax\"}\n";

/// The folder with shards, a study of two rows that share their pre-training and one more, and a task.
struct Study {
    folder: tempfile::TempDir,
}

impl Study {
    fn new() -> Study {
        let study = Study { folder: tempfile::tempdir().unwrap() };
        let path = |name: &str| study.path(name);
        fs::write(path("corpus.txt"), corpus(60)).unwrap();
        success(&["vocab", "--input", &path("corpus.txt"), "--size", "300", "--out", &path("tokenizer"), "--quiet"]);
        success(&[
            "prepare",
            "--input",
            &path("corpus.txt"),
            "--tokenizer",
            &path("tokenizer"),
            "--out",
            &path("shards"),
            "--valid-fraction",
            "0.1",
            "--quiet",
        ]);
        fs::write(path("recipe.toml"), RECIPE).unwrap();
        fs::write(path("rows.tsv"), TEXTS).unwrap();
        fs::write(path("pairs.jsonl"), PAIRS).unwrap();
        let rows = path("rows.tsv");
        fs::write(path("words.toml"), format!("{TASK}train = '{rows}'\ndev = '{rows}'\n")).unwrap();
        let text = format!(
            "title = \"Rates\"\nrecipe = '{}'\n[[row]]\nname = \"low\"\npublished = {{ words = 81.5 }}\n[[row]]\nname = \"low-twice\"\n\
             finetune = {{ epochs = 2 }}\n[[row]]\nname = \"high\"\nset = {{ \"objective.rate\" = 0.4 }}\n",
            path("recipe.toml")
        );
        fs::write(path("rates.toml"), text).unwrap();
        study
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let own = [
            "ablate",
            &self.path("rates.toml"),
            "--data",
            &self.path("shards"),
            "--tasks",
            &self.path("words.toml"),
            "--blimp",
            &self.path("pairs.jsonl"),
            "--out",
            &self.path("out"),
            "--quiet",
        ];
        own.iter().chain(more).map(ToString::to_string).collect()
    }

    fn records(&self) -> String {
        fs::read_to_string(self.path("out/records.csv")).unwrap()
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn rows_are_trained_once_and_can_be_extended() {
    let study = Study::new();
    let cost = json(&success(&words(&study.arguments(&["--dry-run", "--json", "--seeds", "2"]))));
    let runs: Vec<u64> = cost["rows"].as_array().unwrap().iter().map(|row| row["runs"].as_u64().unwrap()).collect();
    assert_eq!(runs, [2, 2, 2]);
    // The second row has the pre-trained model of the first.
    assert!(cost["rows"][0]["tokens"].as_f64() > Some(0.0) && cost["rows"][1]["tokens"] == 0.0, "{cost}");
    assert!(!Path::new(&study.path("out")).exists());

    let table = success(&words(&study.arguments(&["--rows", "low,low-twice"])));
    assert!(table.starts_with("# Rates\n") && table.contains("| low | 1 |") && table.contains("(81.5) |"), "{table}");
    let first = study.records();
    assert_eq!(first.matches(",words,").count(), 2, "{first}");
    assert_eq!(first.matches(",blimp,").count(), 2);
    let value = |row: &str, measure: &str| {
        let start = format!("rates,{row},0,{measure},");
        let line = first.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}: {first}"));
        line.strip_prefix(&start).unwrap().split(',').next().unwrap().to_owned()
    };
    assert_eq!(value("low", "loss"), value("low-twice", "loss"));
    assert_eq!((value("low", "steps"), value("low", "objective")), ("4".to_owned(), "mlm".to_owned()));
    let pretrained: Vec<_> = fs::read_dir(study.path("out/pretrain")).unwrap().collect();
    assert_eq!(pretrained.len(), 1, "{pretrained:?}");

    // The folder is not used by accident.
    let again = cloze(&words(&study.arguments(&[])));
    assert!(again.status.code() == Some(1) && text(&again.stderr).contains("--resume"));
    // Nothing that has a record is measured again, even if only the records are left.
    fs::remove_dir_all(study.path("out/pretrain")).unwrap();
    let outcome = json(&success(&words(&study.arguments(&["--resume", "--json"]))));
    assert_eq!(outcome["finished"], true);
    let all = study.records();
    assert!(all.starts_with(&first) && all.matches(",high,0,").count() == 12, "{all}");
    assert!(!Path::new(&study.path("out/pretrain/low-seed0")).exists());
    let svg = fs::read_to_string(study.path("out/results.svg")).unwrap();
    assert!(svg.contains("words") && svg.contains("published"), "{svg}");

    // Other settings would be compared as if they were the same.
    let other = cloze(&words(&study.arguments(&["--resume", "--set", "optimizer.lr=2e-3"])));
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("was measured with other settings"), "{}", text(&other.stderr));
}

#[test]
fn a_row_that_was_interrupted_continues() {
    let study = Study::new();
    let arguments = study.arguments(&["--rows", "low", "--set", "steps=100000", "--set", "checkpoint.every=5"]);
    let mut child = command(&words(&arguments)).spawn().unwrap();
    let checkpoints = study.path("out/pretrain/low-seed0/checkpoints");
    while fs::read_dir(&checkpoints).map_or(0, |entries| entries.count()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let step = |folder: &str| -> u64 {
        let last = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).max();
        last.unwrap().trim_start_matches("step-").parse().unwrap()
    };
    let done = step(&checkpoints);
    assert!(!Path::new(&study.path("out/records.csv")).exists());
    // With fewer steps it would be another row.
    let other = cloze(&words(&study.arguments(&["--rows", "low", "--resume"])));
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("other values of steps"), "{}", text(&other.stderr));
    // The same command continues after the last checkpoint.
    let rest = [&arguments[..], &["--resume".to_owned()]].concat();
    let mut child = command(&words(&rest)).spawn().unwrap();
    while step(&checkpoints) == done {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let log = fs::read_to_string(study.path("out/pretrain/low-seed0/metrics.jsonl")).unwrap();
    assert!(log.contains("\"kind\":\"start\"") && log.contains(&format!("\"step\":{done}")), "{log}");
}

#[test]
fn bad_studies_and_options_are_one_line() {
    let study = Study::new();
    for (more, expected) in [
        (&["--rows", "lowest"][..], "`rates` has no row"),
        (&["--tasks", "sst2"], "expected NAME=DIR"),
        (&["--minutes", "0"], "must be a number above 0"),
        (&["--minutes", "1", "--tokens", "5"], "cannot be used with"),
        (&["--set", "optimizer.lrr=1"], "row low: --set optimizer.lrr=1"),
        (&["--finetune", "epochs"], "expected OPTION=VALUE"),
        (&["--finetune", "lrr=1"], "--lrr"),
        (&["--scale", "huge"], "huge"),
    ] {
        let output = cloze(&words(&study.arguments(more)));
        let line = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)) && line.contains(expected), "{more:?}: {line}");
        assert!(!Path::new(&study.path("out")).exists(), "{more:?}");
    }
    let unknown = cloze(&["ablate", "paper-table-9", "--data", "shards"]);
    assert!(text(&unknown.stderr).contains("built in are paper-table-5"), "{}", text(&unknown.stderr));
    assert!(success(&["ablate", "rate", "--print"]).contains("[[row]]"));
}
