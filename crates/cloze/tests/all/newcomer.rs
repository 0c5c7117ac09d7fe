//! The way of a new user: thirty small texts, the commands of the help, and the printed next commands.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::json;

struct Newcomer {
    dir: tempfile::TempDir,
}

impl Newcomer {
    /// Creates thirty files with one paragraph each.
    fn with_thirty_texts() -> Newcomer {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("texts")).unwrap();
        let corpus = crate::common::corpus(30);
        let texts: Vec<&str> = corpus.split("\n\n").collect();
        assert_eq!(texts.len(), 30);
        for (number, text) in texts.iter().enumerate() {
            fs::write(dir.path().join(format!("texts/{number}.txt")), text).unwrap();
        }
        Newcomer { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command in the folder of the texts.
    fn types(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("cloze"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloze"));
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap()
    }

    fn succeeds(&self, line: &str) -> String {
        let output = self.types(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn is_empty(&self, name: &str) -> bool {
        !self.path(name).exists()
    }
}

/// Regression: nothing was held out of thirty texts, and training refused to start.
#[test]
fn thirty_texts_give_a_model_with_the_commands_of_the_help() {
    let newcomer = Newcomer::with_thirty_texts();
    let said = newcomer.succeeds("cloze vocab --input texts/ --size 900 --out vocab --dry-run");
    assert!(said.contains("of input: about") && newcomer.is_empty("vocab"), "{said}");
    newcomer.succeeds("cloze vocab --input texts/ --size 900 --out vocab");
    let said = newcomer.succeeds("cloze prepare --input texts/ --tokenizer vocab --out shards --dry-run");
    assert!(said.contains("of input: about") && newcomer.is_empty("shards"), "{said}");
    let said = newcomer.succeeds("cloze prepare --input texts/ --tokenizer vocab --out shards");
    assert!(said.contains("30 (1 held out)") && !said.contains("warning"), "{said}");

    let said = newcomer.succeeds("cloze pretrain tiny --set data=shards --set minutes=3 --dry-run");
    assert!(said.contains("at length 128") && said.contains("at length 512") && said.contains("3:00"), "{said}");
    assert!(newcomer.is_empty("runs"));
    let said = json(&newcomer.succeeds("cloze pretrain tiny-paper --set data=shards --dry-run --json"));
    assert_eq!(said["steps"], 1_000_000.0, "{said}");
    assert!(said["seconds"].as_f64().unwrap() > 86_400.0, "{said}");

    // A step limit instead of a time limit, for a short test. The last tenth has length 512.
    let said = newcomer.succeeds("cloze pretrain tiny --set data=shards --set minutes= --set steps=10");
    assert!(said.starts_with("10 steps, model in runs/tiny/model"), "{said}");
    let logged = fs::read_to_string(newcomer.path("runs/tiny/metrics.jsonl")).unwrap();
    let logged: Vec<Value> = logged.lines().map(json).collect();
    let of_kind = |kind: &str| logged.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of_kind("train").len(), 10, "one at each 0.5 %");
    assert_eq!(of_kind("eval").len(), 10, "one at each 10 %");
    assert_eq!(of_kind("train")[9]["phase"], 1);

    // Fine-tuning has dry runs too.
    let rows: String = (0..24).map(|i| format!("the baker opens door {i}\t{}\n", i % 2)).collect();
    fs::write(newcomer.path("rows.tsv"), format!("text\tlabel\n{rows}")).unwrap();
    let rows = "--train rows.tsv --dev rows.tsv --text text --label label --model runs/tiny --out runs/rows --dry-run";
    let said_of = newcomer.succeeds(&format!("cloze finetune classify {rows} --epochs 2 --batch 8"));
    assert!(said_of.starts_with("6 steps, 2 evaluations: about ") && newcomer.is_empty("runs/rows"), "{said_of}");
    let sweep =
        newcomer.succeeds(&format!("cloze sweep classify {rows} --batches 8 --lrs 1e-4,2e-4 --epochs-list 1,2"));
    assert!(sweep.starts_with("4 runs, 18 steps, ") && newcomer.is_empty("runs/rows"), "{sweep}");

    // The printed commands work.
    let next: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(next.len(), 3, "{said}");
    for command in next {
        let shell = Command::new("sh").args(["-c", command]).current_dir(newcomer.dir.path()).output().unwrap();
        assert!(shell.status.success(), "{command}: {}", String::from_utf8_lossy(&shell.stderr));
    }
}

#[test]
fn thirty_texts_give_sentence_pairs() {
    let newcomer = Newcomer::with_thirty_texts();
    newcomer.succeeds("cloze vocab --input texts/ --size 900 --out vocab");
    newcomer.succeeds("cloze prepare --input texts/ --tokenizer vocab --out shards");
    let run = "cloze pretrain tiny --set data=shards --set minutes= --set steps=5 --set objective.nsp=true \
               --set phase.0.share=0.5 --set phase.1.share=0.5 --out runs/pairs";
    let output = newcomer.types(run);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("score only masked tokens"), "{said}");
}

/// With one text nothing is held out, and the commands print how to continue.
#[test]
fn a_single_text_is_trained_on_without_evaluation() {
    let newcomer = Newcomer::with_thirty_texts();
    newcomer.succeeds("cloze vocab --input texts/0.txt texts/1.txt --size 200 --out vocab");
    let said = newcomer.succeeds("cloze prepare --input texts/0.txt --tokenizer vocab --out shards");
    assert!(said.contains("a single document: it is used for training, and nothing is held out"), "{said}");
    let refused = newcomer.types("cloze pretrain tiny --set data=shards --set steps=2");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("--set eval.every=0"), "{said}");
    newcomer.succeeds("cloze pretrain tiny --set data=shards --set steps=2 --set eval.every=0");
    let unasked = newcomer.types("cloze prepare --input texts/ --tokenizer vocab --out none --valid-fraction 0");
    let said = String::from_utf8(unasked.stdout).unwrap();
    assert!(said.contains("30 (0 held out)") && said.contains("`eval.every`"), "{said}");
}

/// Regression: a run whose model.init was removed was refused, as if its recipe had changed.
#[test]
fn a_run_is_resumed_without_its_initial_model() {
    let newcomer = Newcomer::with_thirty_texts();
    newcomer.succeeds("cloze vocab --input texts/ --size 900 --out vocab");
    newcomer.succeeds("cloze prepare --input texts/ --tokenizer vocab --out shards");
    let tiny = "cloze pretrain tiny --offline --set data=shards --set minutes= --set eval.every=0";
    newcomer.succeeds(&format!("{tiny} --set steps=1 --out runs/first"));
    let next = format!("{tiny} --set model={{init=\"runs/first\"}} --out runs/next");
    newcomer.succeeds(&format!("{next} --set steps=1"));
    fs::remove_dir_all(newcomer.path("runs/first")).unwrap();
    let said = newcomer.succeeds(&format!("{next} --set steps=3 --resume --dry-run"));
    assert!(said.contains("remaining   about") && !said.contains("total"), "{said}");
    newcomer.succeeds(&format!("{next} --set steps=2 --resume"));
    let refused = newcomer.types(&format!("{next}-too --set steps=2"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("runs/first: no such folder"), "{said}");
}

#[test]
fn recipes_are_listed_and_can_be_saved() {
    let newcomer = Newcomer::with_thirty_texts();
    let listed = newcomer.succeeds("cloze recipe");
    for name in ["tiny", "mini", "small", "medium", "base", "large", "mini-paper"] {
        assert!(listed.lines().any(|line| line.split(' ').next() == Some(name)), "{name}: {listed}");
    }
    let lines = newcomer.succeeds("cloze recipe --json");
    assert!(lines.lines().map(json).any(|line| line["name"] == "mini" && line["parameters"] == "11.2 M"), "{lines}");
    let text = newcomer.succeeds("cloze recipe mini");
    assert!(text.starts_with("# BERT-mini") && text.contains("minutes = 30"), "{text}");
    fs::write(newcomer.path("my.toml"), text.replace("minutes = 30", "minutes = 7")).unwrap();
    assert!(newcomer.succeeds("cloze inspect my.toml").contains("7 minutes"));
    // A file is preferred to a name.
    fs::write(newcomer.path("mini"), "steps = 3\n").unwrap();
    let shown = newcomer.succeeds("cloze inspect mini-paper");
    assert!(shown.contains("bert-adamw") && shown.contains("linear") && !shown.contains("BertAdamw"), "{shown}");
    for (asked, says) in [
        ("cloze recipe minni", "did you mean `mini`?"),
        ("cloze pretrain minni", "did you mean `mini`?"),
        ("cloze pretrain recipes/mini.toml", "did you mean `mini`?"),
        ("cloze pretrain mini", "is missing"),
    ] {
        let output = newcomer.types(asked);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(says), "{asked}: {said}");
    }
}

/// Sends SIGINT after the first logged step.
#[cfg(unix)]
fn interrupted_when_it_trains(child: std::process::Child, run: &Path) -> Output {
    use std::time::{Duration, Instant};
    let metrics = run.join("metrics.jsonl");
    let began = Instant::now();
    let trains = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains("\"kind\":\"train\""));
    while !trains(&metrics) && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    child.wait_with_output().unwrap()
}

/// Regression: the exit code was 1, as for failures.
#[cfg(unix)]
#[test]
fn an_interrupted_quickstart_exits_with_130() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_cloze"))
        .args(["quickstart", "--short", "--out", "first"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = interrupted_when_it_trains(child, &dir.path().join("first/run"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("run the quickstart again"), "{said}");
}

/// Regression: `run/model` existed only after the end of a run, and Ctrl-C was reported three times.
#[cfg(unix)]
#[test]
fn an_interrupt_is_reported_once_and_leaves_a_model() {
    let newcomer = Newcomer::with_thirty_texts();
    newcomer.succeeds("cloze vocab --input texts/ --size 900 --out vocab");
    newcomer.succeeds("cloze prepare --input texts/ --tokenizer vocab --out shards");
    let child = Command::new(env!("CARGO_BIN_EXE_cloze"))
        .args(["pretrain", "tiny", "--set", "data=shards", "--set", "log.every=1", "--set", "eval.every=0"])
        .current_dir(newcomer.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = interrupted_when_it_trains(child, &newcomer.path("runs/tiny"));
    let [said, noted] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(130), "{said}{noted}");
    assert_eq!(format!("{said}{noted}").matches("interrupted").count(), 1, "{said}{noted}");
    assert!(newcomer.path("runs/tiny/model/model.safetensors").is_file());
    assert!(
        newcomer.succeeds("cloze inspect runs/tiny").contains("from the last interruption; continue with --resume")
    );
    newcomer.succeeds("cloze fill --model runs/tiny/model --top 1 [MASK]");
    // The printed command resumes the run, which is shortened here.
    let resume = said.lines().find_map(|line| line.strip_prefix("  ")).unwrap();
    assert!(resume.ends_with("--out runs/tiny --resume"), "{resume}");
    let resume = resume.replace("--out", "--set minutes= --set steps=1 --out");
    let shell = Command::new("sh").args(["-c", &resume]).current_dir(newcomer.dir.path()).output().unwrap();
    assert!(shell.status.success(), "{resume}: {}", String::from_utf8_lossy(&shell.stderr));
    assert_eq!(json(&newcomer.succeeds("cloze inspect runs/tiny --json"))["finished"], true);
}

/// `--text` does vocabulary, shards and training in one command. A resumed run keeps what was chosen for it, and `--from`
/// continues a model with its own vocabulary.
#[test]
fn one_command_goes_from_text_to_a_model() {
    let newcomer = Newcomer::with_thirty_texts();
    let few = "--set eval.every=0 --set checkpoint.every=0 --out";
    let output = newcomer.types(&format!("cloze pretrain --text texts/ --minutes 1 --set steps=3 {few} run"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for expected in
        ["budget ", "vocabulary ", "shards ", "recipe      modern: 3 layers, hidden size 128, steps of 16 × 64"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let recipe = || fs::read_to_string(newcomer.path("run/recipe.toml")).unwrap();
    assert!(recipe().contains("hidden_size = 128"), "{}", recipe());
    newcomer.succeeds("cloze fill --model run/model the[MASK].");
    newcomer.succeeds("cloze evaluate pretrain --model run/model --data run/shards");

    // A longer run would have a larger model, if it were new.
    let line = format!("cloze pretrain --text texts/ --minutes 600000 --set steps=5 {few} run");
    assert!(String::from_utf8_lossy(&newcomer.types(&line).stderr).contains("resume"));
    newcomer.succeeds(&format!("{line} --resume"));
    assert!(recipe().contains("hidden_size = 128") && recipe().contains("steps = 5"), "{}", recipe());

    newcomer.succeeds(&format!("cloze pretrain --from run --text texts/ --set steps=2 {few} more"));
    let vocabulary = |run: &str| fs::read(newcomer.path(run).join("model/tokenizer.json")).unwrap();
    assert!(vocabulary("run") == vocabulary("more"));

    for (line, expected) in [
        ("cloze pretrain --text missing/ --out x", "missing/"),
        ("cloze pretrain --text - --out x", "standard input"),
        ("cloze pretrain --text texts/ --set minutes= --set steps=3 --out x", "--minutes"),
        ("cloze pretrain --text texts/ --out x --resume", "x"),
        ("cloze pretrain --minutes 3 --out x", "<RECIPE>"),
        ("cloze pretrain --text texts/ --set data=shards --out x", "--set data"),
    ] {
        let output = newcomer.types(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{line}: {said}");
        assert!(newcomer.is_empty("x"), "{line}");
    }
}
