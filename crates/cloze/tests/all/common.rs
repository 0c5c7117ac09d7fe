//! Shared helpers of the tests of task commands: files, a tiny model, and running the binary.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cloze::model::{Heads, TaskHead};
use cloze_testing::tokenizer;
use serde_json::Value;
use tempfile::TempDir;

/// Options with which a tiny model overfits a few rows in seconds.
pub const LEARN: [&str; 13] = [
    "--lr",
    "2e-3",
    "--batch",
    "8",
    "--epochs",
    "60",
    "--schedule",
    "constant",
    "--dropout",
    "0",
    "--precision",
    "f32",
    "--quiet",
];

pub const TEXTS: &str = "text\tlabel\n\
    the old fox leaves .\tfox\n\
    the owl sees a red tower in paris .\towl\n\
    anna paints .\tperson\n\
    a quiet owl leaves rome\towl\n\
    otto sees the old tower\tperson\n\
    in the river a red fox\tfox\n\
    anna leaves paris\tperson\n\
    otto paints a quiet river in rome .\tperson\n";
pub const TAGS: &str =
    "anna B-PER\nleaves O\nparis B-LOC\n. O\n\nthe O\nfox O\nsees O\notto B-PER\nin O\nrome B-LOC\n\nrome B-LOC\n";

/// A folder with files and a random pre-trained model.
pub struct Bench(pub TempDir);

impl Bench {
    pub fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        let model = PathBuf::from(bench.path("start"));
        cloze_testing::save_model(cloze_testing::config(), &model);
        tokenizer(&[]).save(&model).unwrap();
        bench
    }

    /// A folder with random models whose tokenizer knows letters, with 40 positions.
    pub fn of_letters(models: &[(&str, Heads)]) -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        for (name, heads) in models {
            cloze_testing::save_letter_model(*heads, &bench.0.path().join(name));
        }
        bench
    }

    /// Such a folder with an encoder, a reranker and a classifier of three classes.
    pub fn of_letter_tasks() -> Bench {
        Bench::of_letters(&[
            ("encoder", Heads::ENCODER),
            ("reranker", Heads::of(TaskHead::Classify { labels: 1 })),
            ("classes", Heads::of(TaskHead::Classify { labels: 3 })),
        ])
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The command `cloze finetune KIND --train FILE --dev FILE --model start --out OUT` with [`LEARN`].
    pub fn finetune<'a>(
        &'a self,
        kind: &'a str,
        file: &'a str,
        paths: &'a [String; 2],
        more: &[&'a str],
    ) -> Vec<&'a str> {
        let base = ["finetune", kind, "--train", file, "--dev", file, "--model", &paths[0], "--out", &paths[1]];
        [&base[..], &LEARN, more].concat()
    }

    /// The initial model and a run folder.
    pub fn paths(&self, out: &str) -> [String; 2] {
        [self.path("start"), self.path(out)]
    }

    pub fn copy_of_start(&self, name: &str) -> String {
        let to = self.path(name);
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(self.path("start")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), Path::new(&to).join(entry.file_name())).unwrap();
        }
        to
    }
}

/// Documents of four sentences each, with a blank line between them. Their 3,000 words are made of syllables, and low numbers are
/// frequent, so that a vocabulary and a model find something to learn.
pub fn corpus(documents: usize) -> String {
    const SYLLABLES: [&str; 20] = [
        "an", "bel", "cor", "dim", "el", "fu", "gar", "hil", "is", "jo", "ka", "lum", "mo", "nor", "pa", "qui", "ros",
        "tev", "wy", "zu",
    ];
    let mut random = Random(7);
    let mut sentence = || {
        let words: Vec<String> = (0..6 + random.below(6))
            .map(|_| {
                let mut number = random.below(60) * random.below(50);
                let mut word = String::new();
                for _ in 0..3 {
                    word += SYLLABLES[number % SYLLABLES.len()];
                    number /= SYLLABLES.len();
                }
                word
            })
            .collect();
        format!("The {}.", words.join(" "))
    };
    let documents: Vec<String> =
        (0..documents).map(|_| (0..4).map(|_| sentence()).collect::<Vec<_>>().join(" ")).collect();
    documents.join("\n\n")
}

/// A linear congruential generator (Knuth's MMIX), of which the upper half is used.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as usize % bound
    }
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloze"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn cloze(arguments: &[&str]) -> Output {
    cloze_with(arguments, "")
}

pub fn cloze_with(arguments: &[&str], input: &str) -> Output {
    let mut child = command(arguments).spawn().expect("the binary runs");
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs a command that must succeed. Returns its standard output.
#[track_caller]
pub fn success(arguments: &[&str]) -> String {
    success_with(arguments, "")
}

#[track_caller]
pub fn success_with(arguments: &[&str], input: &str) -> String {
    let output = cloze_with(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail with exit code 1. Returns its error line.
#[track_caller]
pub fn failure(arguments: &[&str]) -> String {
    one_line(&cloze(arguments), 1, arguments)
}

/// Runs a command that must fail with exit code 1 and one line that contains all of `expected`.
#[track_caller]
pub fn fails(arguments: &[&str], expected: &[&str]) {
    fails_with(arguments, "", expected);
}

#[track_caller]
pub fn fails_with(arguments: &[&str], input: &str, expected: &[&str]) {
    says(&one_line(&cloze_with(arguments, input), 1, arguments), arguments, expected);
}

/// Runs a command line that must be refused with exit code 2 and one line that contains all of `expected`.
#[track_caller]
pub fn is_refused(arguments: &[&str], expected: &[&str]) {
    says(&one_line(&cloze(arguments), 2, arguments), arguments, expected);
}

#[track_caller]
fn one_line(output: &Output, code: i32, arguments: &[&str]) -> String {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {line}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
    assert!(line.starts_with("error: ") && line.trim_end().lines().count() == 1, "{arguments:?}: {line}");
    line
}

#[track_caller]
fn says(line: &str, arguments: &[&str], expected: &[&str]) {
    for part in expected {
        assert!(line.contains(part), "{arguments:?}: {part:?} is not in: {line}");
    }
}

#[track_caller]
pub fn json(line: &str) -> Value {
    serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{error}: {line}"))
}

pub fn json_lines(lines: &str) -> Vec<Value> {
    lines.lines().map(json).collect()
}

pub fn json_file(path: &str) -> Value {
    json(&fs::read_to_string(path).unwrap())
}

/// Replaces the number of epochs in the options of a run.
pub fn with_epochs<'a>(mut words: Vec<&'a str>, epochs: &'a str) -> Vec<&'a str> {
    let at = words.iter().position(|word| *word == "--epochs").unwrap();
    words[at + 1] = epochs;
    words
}

pub fn predict(kind: &str, model: &str, input: &str, lines: &str) -> Vec<Value> {
    let arguments = ["predict", kind, "--model", model, "--input", input, "--precision", "f32", "--quiet"];
    json_lines(&success_with(&arguments, lines))
}
