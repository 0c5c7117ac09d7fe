//! Training on several ranks of a job: the same files for any number of ranks; ranks that are killed, that hang, that differ. See `ranks`
//! for the launcher that these tests need.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common;
use crate::ranks::{Bench, Launcher, errors, files, single};

/// Steps of the runs.
const STEPS: u64 = 12;
/// What a rank's process is known by.
const RANKS: usize = 3;

/// A corpus with shards, and the options of a run of [`STEPS`] steps of three micro-batches.
struct Pretraining {
    bench: Bench,
    shards: String,
}

impl Pretraining {
    fn new() -> Pretraining {
        let bench = Bench::new();
        let (texts, vocab, shards) = (bench.path("texts"), bench.path("vocab"), bench.path("shards"));
        single(&["vocab", "--input", &texts, "--size", "600", "--out", &vocab]);
        single(&["prepare", "--input", &texts, "--tokenizer", &vocab, "--out", &shards]);
        Pretraining { bench, shards }
    }

    /// The command line of a run; `steps` are more than [`STEPS`] for a run that is interrupted.
    fn arguments(&self, out: &str, more: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["pretrain", "tiny", "--out", &self.bench.path(out), "--threads", "1"].map(str::to_owned).to_vec();
        let data = format!("data={}", self.shards);
        let steps = format!("steps={STEPS}");
        let set = [
            &*data,
            &*steps,
            "minutes=",
            "precision=f32",
            "model.hidden_size=32",
            "model.intermediate_size=64",
            "phase.0.seq_len=32",
            "phase.1.seq_len=64",
            "phase.0.batch_sequences=4",
            "phase.1.batch_sequences=2",
            "phase.0.accumulate=3",
            "phase.1.accumulate=3",
            "checkpoint.every=2",
            "eval.every=6",
            "log.every=1",
        ];
        for set in set.iter().chain(more) {
            arguments.extend(["--set".to_owned(), (*set).to_owned()]);
        }
        arguments
    }

    /// The files of a run's model and last checkpoint. The training state has the seconds of the run.
    fn result(&self, out: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let out = PathBuf::from(self.bench.path(out));
        let mut all = files(&out.join("model"));
        let last = files(&out.join(format!("checkpoints/step-{STEPS:08}")));
        all.extend(last.into_iter().map(|(name, bytes)| (Path::new("last").join(name), bytes)));
        all.remove(Path::new("last/training_state.json"));
        assert!(all.len() > 5, "{:?}", all.keys());
        all
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn pretraining_has_the_same_files_on_any_number_of_ranks() {
    let Some(launcher) = Launcher::find() else { return };
    let runs = Pretraining::new();
    single(&words(&runs.arguments("alone", &[])));
    let alone = runs.result("alone");
    for ranks in [2, 3] {
        let out = format!("on-{ranks}");
        let printed = launcher.succeed(ranks, &words(&runs.arguments(&out, &[])));
        assert_eq!(printed.matches("12 steps, model in").count(), 1, "only rank 0 prints: {printed}");
        assert!(runs.result(&out) == alone, "{ranks} ranks");
    }
    // Fewer micro-batches than ranks; a command that runs in one process.
    let output = launcher.run(2, &words(&runs.arguments("few", &["phase.1.accumulate=1"])));
    let lines = errors(&output);
    assert!(
        lines.len() == 1 && lines[0].contains("phase 1 has 1 micro-batches in a step, and there are 2 ranks"),
        "{lines:?}"
    );
    let output = launcher.run(2, &["inspect", &runs.bench.path("alone")]);
    assert!(output.status.code() == Some(2) && errors(&output).len() == 1, "{output:?}");
}

/// Processes of this test's binary whose command line has `out`.
fn processes_of(out: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_rank = |process: &u32| {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        line.starts_with(env!("CARGO_BIN_EXE_cloze").as_bytes()) && String::from_utf8_lossy(&line).contains(out)
    };
    let mut found: Vec<u32> = entries.filter(is_rank).collect();
    found.sort_unstable();
    found
}

fn signal(process: u32, name: &str) {
    // It may have ended meanwhile.
    let _ = Command::new("kill").args([name, &process.to_string()]).stderr(std::process::Stdio::null()).status();
}

/// Waits until a condition holds; `false` after a minute.
fn wait_until(condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > Duration::from_secs(60) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Ranks are killed at random moments; the same command with `--resume`, on another number of ranks, goes on to the same weights.
/// `CLOZE_TEST_KILLS` sets how often.
#[test]
fn a_job_whose_ranks_are_killed_continues_from_whole_checkpoints() {
    let Some(launcher) = Launcher::find() else { return };
    let kills: u32 = std::env::var("CLOZE_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3);
    let runs = Pretraining::new();
    single(&words(&runs.arguments("alone", &[])));
    let alone = runs.result("alone");
    let out = runs.bench.path("killed");
    let mut random = 0x9e37_79b9_u64;
    for kill in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let ranks = 2 + (random >> 40) as usize % 2;
        let mut arguments = runs.arguments("killed", &[]);
        arguments.extend(Path::new(&out).join("recipe.toml").is_file().then(|| "--resume".to_owned()));
        let job = launcher.command(ranks, &words(&arguments)).spawn().unwrap();
        assert!(wait_until(|| processes_of(&out).len() == ranks), "the ranks did not start");
        // A process starts, reads and trains in less than a second.
        std::thread::sleep(Duration::from_millis((random >> 20) % 700));
        let killed = processes_of(&out);
        if let Some(process) = killed.get((random >> 50) as usize % ranks) {
            signal(*process, "-KILL");
        }
        let started = Instant::now();
        let output = job.wait_with_output().unwrap();
        assert!(started.elapsed() < Duration::from_secs(30), "kill {kill}: the job did not end: {output:?}");
        assert!(wait_until(|| processes_of(&out).is_empty()), "kill {kill}: a rank goes on");
    }
    let mut arguments = runs.arguments("killed", &[]);
    arguments.extend(Path::new(&out).join("recipe.toml").is_file().then(|| "--resume".to_owned()));
    launcher.succeed(2, &words(&arguments));
    assert!(runs.result("killed") == alone);
}

#[test]
fn a_rank_that_hangs_is_named() {
    let Some(launcher) = Launcher::find() else { return };
    let runs = Pretraining::new();
    let arguments = runs.arguments("hangs", &["steps=100000", "eval.every=0"]);
    let mut command = launcher.command(RANKS, &words(&arguments));
    command.env("CLOZE_PATIENCE", "3");
    let job = command.spawn().unwrap();
    let out = runs.bench.path("hangs");
    let has_checkpoint = || fs::read_dir(Path::new(&out).join("checkpoints")).is_ok_and(|all| all.count() > 1);
    assert!(wait_until(has_checkpoint), "the run did not begin");
    // The ranks are started in their order.
    let ranks = processes_of(&out);
    assert_eq!(ranks.len(), RANKS);
    signal(ranks[1], "-STOP");
    let started = Instant::now();
    let output = job.wait_with_output().unwrap();
    signal(ranks[1], "-KILL");
    assert!(started.elapsed() < Duration::from_secs(30), "{output:?}");
    let lines = errors(&output);
    assert!(!output.status.success() && lines.len() == 1, "{output:?}");
    assert!(lines[0].contains("rank 1 (") && lines[0].contains("does not answer for"), "{lines:?}");
}

#[test]
fn a_signal_to_the_job_saves_and_the_run_continues() {
    let Some(launcher) = Launcher::find() else { return };
    let runs = Pretraining::new();
    single(&words(&runs.arguments("alone", &[])));
    let out = runs.bench.path("stopped");
    let job = launcher.command(2, &words(&runs.arguments("stopped", &["steps=1000000"]))).spawn().unwrap();
    assert!(wait_until(|| Path::new(&out).join("checkpoints/step-00000002").is_dir()), "the run did not begin");
    // To one rank only: all stop after the same step.
    signal(processes_of(&out)[1], "-TERM");
    let output = job.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("interrupted after step"), "{output:?}");
    assert!(Path::new(&out).join("model/config.json").is_file());
    let resumed =
        launcher.run(3, &words(&[runs.arguments("stopped", &["steps=1"]), vec!["--resume".to_owned()]].concat()));
    assert!(resumed.status.success(), "more steps than the recipe has are done: {resumed:?}");
}

#[test]
fn fine_tuning_and_ablations_on_ranks() {
    let Some(launcher) = Launcher::find() else { return };
    let bench = common::Bench::new();
    let rows: String =
        (0..24).map(|i| format!("{}\t{}\n", ["the fox sees rome", "anna leaves"][i % 2], ["a", "b"][i % 2])).collect();
    let file = bench.file("rows.tsv", &format!("text\tlabel\n{rows}"));
    let mut results = Vec::new();
    for ranks in 1..=3 {
        let paths = bench.paths(&format!("classify-{ranks}"));
        let arguments = bench.finetune("classify", &file, &paths, &["--accumulate", "3", "--threads", "1"]);
        if ranks == 1 {
            single(&arguments)
        } else {
            launcher.succeed(ranks, &arguments)
        };
        results.push(files(&Path::new(&paths[1]).join("model")));
    }
    assert!(results[1] == results[0] && results[2] == results[0]);
    assert!(results[0].contains_key(Path::new("model.safetensors")));
    let paths = bench.paths("too-few");
    let output = launcher.run(2, &bench.finetune("classify", &file, &paths, &[]));
    let lines = errors(&output);
    assert!(lines.len() == 1 && lines[0].contains("--accumulate") && lines[0].contains("at least 2"), "{output:?}");

    // Rows of a table.
    let runs = Pretraining::new();
    let study = runs.bench.path("study.toml");
    fs::write(
        &study,
        "recipe = \"tiny\"\n[[row]]\nname = \"one\"\n[[row]]\nname = \"two\"\nset = { \"optimizer.lr\" = 2e-3 }\n",
    )
    .unwrap();
    let run = |ranks: usize| {
        let out = runs.bench.path(&format!("ablation-{ranks}"));
        let mut arguments: Vec<String> =
            ["ablate", &study, "--data", &runs.shards, "--out", &out, "--threads", "1"].map(str::to_owned).to_vec();
        let pretraining = runs.arguments("", &[]);
        let at = pretraining.iter().position(|word| word == "--set").unwrap();
        arguments.extend(pretraining[at..].iter().filter(|word| !word.starts_with("data=")).cloned());
        // `--set data=…` was removed; its flag must go, too.
        let first = arguments.iter().position(|word| word == "--set").unwrap();
        arguments.remove(first);
        if ranks == 1 {
            single(&words(&arguments))
        } else {
            launcher.succeed(ranks, &words(&arguments))
        };
        assert!(!Path::new(&out).join("records-rank-1.csv").exists());
        let text = fs::read_to_string(Path::new(&out).join("records.csv")).unwrap();
        let mut lines: Vec<String> = text.lines().filter(|line| line.contains(",loss,")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let alone = run(1);
    assert_eq!(alone.len(), 2, "{alone:?}");
    assert_eq!(run(2), alone);
}
