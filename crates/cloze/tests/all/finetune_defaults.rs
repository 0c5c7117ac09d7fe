//! Defaults and messages of `cloze finetune` and `cloze sweep`: the run folder, the next command, interrupts.

use std::path::Path;

use crate::common::{Bench, TEXTS, command, json, success, text};

/// The options of a run without --out.
fn words<'a>(start: &'a str, file: &'a str) -> Vec<&'a str> {
    vec!["classify", "--train", file, "--dev", file, "--model", start, "--precision", "f32"]
}

fn run_in(bench: &Bench, words: &[&str]) -> (Option<i32>, String) {
    let output = command(words).current_dir(bench.0.path()).output().unwrap();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn default_run_folder_is_named_after_the_data() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("stars")).unwrap();
    bench.file("stars/train.tsv", TEXTS);
    let words = words("start", "stars/train.tsv");
    let finetune = [&["finetune"][..], &words, &["--epochs", "1"]].concat();
    let (code, said) = run_in(&bench, &finetune);
    assert_eq!(code, Some(0), "{said}");
    assert!(Path::new(&bench.path("runs/stars/model/config.json")).is_file());
    assert!(said.contains("run folder: runs/stars"), "{said}");
    // The printed next command works.
    let next = said.lines().find_map(|line| line.strip_prefix("try it: ")).unwrap();
    assert!(next.ends_with(" predict --model runs/stars --input stars/train.tsv"), "{next}");
    let (_, options) = next.split_once(" predict ").unwrap();
    let next: Vec<&str> = std::iter::once("predict").chain(options.split(' ')).collect();
    let (code, said) = run_in(&bench, &next);
    assert_eq!((code, said.matches("\"label\"").count()), (Some(0), 8), "{said}");

    let (code, said) = run_in(&bench, &finetune);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("runs/stars is already in use") && said.contains("--resume") && said.contains("--out"),
        "{said}"
    );

    let grid = ["--lrs", "1e-3", "--batches", "4", "--epochs-list", "1"];
    let (code, said) = run_in(&bench, &[&["sweep"][..], &words, &grid].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(Path::new(&bench.path("runs/stars-grid/model/config.json")).is_file());
}

/// Regression: Ctrl-C printed the same advice three times.
#[cfg(unix)]
#[test]
fn an_interrupt_is_reported_once() {
    let bench = Bench::new();
    let file = bench.file("texts.tsv", TEXTS);
    let paths = bench.paths("run");
    let more = ["--checkpoint-every", "1"];
    let words: Vec<&str> =
        bench.finetune("classify", &file, &paths, &more).into_iter().filter(|word| *word != "--quiet").collect();
    let words: Vec<&str> = words.into_iter().map(|word| if word == "60" { "100000" } else { word }).collect();
    let child = command(&words).spawn().unwrap();
    let checkpoints = Path::new(&paths[1]).join("checkpoints");
    for _ in 0..1200 {
        if std::fs::read_dir(&checkpoints).is_ok_and(|mut entries| entries.next().is_some()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert_eq!((said.matches("interrupted").count(), said.matches("--resume").count()), (1, 1), "{said}");
    assert_eq!(json(&success(&["inspect", &paths[1], "--json"]))["finished"], false);
}
