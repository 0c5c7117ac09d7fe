//! `--model` with names on the Hub and with run folders, with a local test server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cloze_engine::Device;
use cloze_model::{Config, Heads, Model};
use cloze_testing::hub::{COMMIT, Server, etag};
use cloze_text::{SPECIAL_TOKENS, Tokenizer};

use crate::common::text;

const NAME: &str = "org/tiny-bert";
const TEXT: &str = "a b [MASK] d";

/// A test server with a tiny model, an empty cache and a working directory.
struct Bench {
    server: Server,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { server: Server::start(), dir: tempfile::tempdir().unwrap() };
        save_model(&bench.path("saved"));
        let files: Vec<(String, Vec<u8>)> = fs::read_dir(bench.path("saved"))
            .unwrap()
            .flatten()
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap()))
            .collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        bench.server.add(NAME, &files);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cache(&self) -> PathBuf {
        self.path("hf-home/hub/models--org--tiny-bert")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloze"));
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        for variable in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"]
        {
            command.env_remove(variable);
        }
        command.env_remove("HF_HUB_OFFLINE").env_remove("TRANSFORMERS_OFFLINE");
        command.env("HF_ENDPOINT", &self.server.endpoint).env("HF_HOME", self.path("hf-home"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// Standard output and error of a command that must succeed.
    fn success(&self, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        (text(&output.stdout), said)
    }

    /// The error line of a command that must fail with exit code 1.
    fn failure(&self, arguments: &[&str]) -> String {
        one_line(&self.run(arguments))
    }
}

fn one_line(output: &Output) -> String {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.starts_with("error: ") && line.trim_end().lines().count() == 1, "{line}");
    line
}

fn save_model(dir: &Path) {
    let mut tokens: Vec<String> = SPECIAL_TOKENS.iter().map(|token| token.to_string()).collect();
    tokens.extend(('a'..='z').flat_map(|c| [c.to_string(), format!("##{c}")]));
    let tokenizer = Tokenizer::from_tokens(tokens, false).unwrap();
    let mut config = Config::default();
    config.vocab_size = tokenizer.vocab_size();
    config.hidden_size = 16;
    config.num_hidden_layers = 1;
    config.num_attention_heads = 2;
    config.intermediate_size = 32;
    config.max_position_embeddings = 32;
    let model = Model::new(config, Heads::PRETRAINING, &Device::cpu(Some(1)).unwrap(), 7).unwrap();
    fs::create_dir_all(dir).unwrap();
    model.save(dir).unwrap();
    tokenizer.save(dir).unwrap();
}

#[test]
fn a_model_is_downloaded_once_and_then_needs_no_network() {
    let bench = Bench::new();
    let (expected, _) = bench.success(&["fill", "--model", "saved", TEXT]);
    assert_eq!(bench.server.requests(), [], "a folder needs no request");
    let (filled, said) = bench.success(&["fill", "--model", NAME, TEXT]);
    assert_eq!(filled, expected);
    assert!(said.contains("downloaded org/tiny-bert (") && said.trim_end().lines().count() == 1, "{said}");
    let snapshot = bench.cache().join("snapshots").join(COMMIT);
    assert!(said.contains(&snapshot.display().to_string()), "{said}");

    bench.server.requests();
    for arguments in [
        &["fill", "--model", NAME, TEXT][..],
        &["fill", "--model", NAME, "--offline", TEXT],
        &["fill", "--model", NAME, "--revision", COMMIT, TEXT],
    ] {
        assert_eq!(bench.success(arguments), (expected.clone(), String::new()), "{arguments:?}");
    }
    assert_eq!(bench.server.requests(), []);
}

#[test]
fn every_command_accepts_a_name() {
    let bench = Bench::new();
    fs::write(bench.path("lines.txt"), "a b c\nd e f\n").unwrap();
    bench.success(&["embed", "--model", NAME, "--input", "lines.txt", "--out", "lines.npy"]);
    assert!(bench.path("lines.npy").is_file());
    let (found, _) =
        bench.success(&["similar", "--model", NAME, "--corpus", "lines.txt", "--query", "a b c", "--top", "1"]);
    assert!(found.contains("a b c"), "{found}");
    let (seen, _) = bench.success(&["inspect", NAME]);
    assert!(seen.contains("BertForPreTraining") && seen.contains("hidden 16"), "{seen}");
    bench.success(&["vocab", "extend", "--model", NAME, "--words", "word", "--out", "extended"]);
    bench.success(&["convert", NAME, "--out", "converted"]);
    bench.success(&["convert", NAME, "--to", "onnx", "--out", "onnx"]);
    for made in ["extended/model.safetensors", "converted/model.safetensors", "onnx/model.onnx"] {
        assert!(bench.path(made).is_file(), "{made}");
    }
    fs::write(bench.path("rows.tsv"), "text\tlabel\na b\tx\nc d\ty\n").unwrap();
    let arguments = ["finetune", "classify", "--model", NAME, "--train", "rows.tsv", "--out", "run", "--epochs", "1"];
    bench.success(&arguments);
    let (predicted, said) = bench.success(&["predict", "classify", "--model", "run", "--input", "lines.txt"]);
    assert_eq!(predicted.lines().count(), 2, "{predicted}");
    assert!(said.contains("the run's model"), "{said}");
}

#[test]
fn offline_without_a_cached_model_fails_in_one_line() {
    let bench = Bench::new();
    let mut command = bench.command(&["fill", "--model", NAME, TEXT]);
    let line = one_line(&command.env("HF_HUB_OFFLINE", "1").output().unwrap());
    for part in ["org/tiny-bert: no such folder", "hf-home", "--offline", "HF_HUB_OFFLINE"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(bench.failure(&["fill", "--model", NAME, "--offline", TEXT]), line);
    assert_eq!(bench.server.requests(), []);
}

#[test]
fn unknown_names_report_the_folder_and_the_hub() {
    let bench = Bench::new();
    let line = bench.failure(&["fill", "--model", "runs/mini", TEXT]);
    for part in ["runs/mini: no such folder", "no model \"runs/mini\" on http://127.0.0.1", "HF_TOKEN"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let line = bench.failure(&["fill", "--model", NAME, "--revision", "v9", TEXT]);
    assert!(line.contains("no revision \"v9\""), "{line}");
    bench.server.requests();
    for path in ["./mini", "runs/mini/model", "mini/", "/absent", "runs/.mini", "a b"] {
        let line = bench.failure(&["fill", "--model", path, TEXT]);
        assert!(line.contains(&format!("{path}: no such folder; expected")), "{line}");
    }
    assert_eq!(bench.server.requests(), [], "paths are never requested");
}

#[test]
fn an_existing_path_is_preferred_to_a_name() {
    let bench = Bench::new();
    save_model(&bench.path(NAME));
    bench.success(&["fill", "--model", NAME, TEXT]);
    assert_eq!(bench.server.requests(), []);
    let line = bench.failure(&["fill", "--model", NAME, "--revision", "main", TEXT]);
    assert!(line.contains("--revision main") && line.contains("is a local path"), "{line}");
    fs::create_dir(bench.path("bert-base-uncased")).unwrap();
    let line = bench.failure(&["fill", "--model", "bert-base-uncased", TEXT]);
    assert!(line.contains("not a model folder") && line.contains("found nothing"), "{line}");
}

#[test]
fn run_folders_give_their_model_with_a_note() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("run/checkpoints")).unwrap();
    fs::write(bench.path("run/recipe.toml"), "").unwrap();
    let line = bench.failure(&["fill", "--model", "run", TEXT]);
    assert!(line.contains("run: this run has no model yet") && line.contains("recipe.toml"), "{line}");
    let line = bench.failure(&["convert", "run", "--out", "out"]);
    assert!(line.contains("no model yet"), "{line}");

    save_model(&bench.path("run/checkpoints/step-00000003"));
    let (expected, said) = bench.success(&["fill", "--model", "run", TEXT]);
    assert!(said.contains("step-00000003") && said.contains("newest checkpoint"), "{said}");
    save_model(&bench.path("run/model"));
    let (filled, said) = bench.success(&["fill", "--model", "run", TEXT]);
    let model = Path::new("run").join("model");
    assert_eq!((filled, said), (expected, format!("model: {} (the run's model)\n", model.display())));
    assert_eq!(bench.success(&["fill", "--model", "run", "--quiet", TEXT]).1, "");
    bench.success(&["convert", "run", "--out", "converted"]);
    assert!(bench.path("converted/model.safetensors").is_file());
}

#[test]
fn embed_warns_offline_if_the_pooling_is_unknown() {
    let bench = Bench::new();
    fs::write(bench.path("lines.txt"), "a b c\n").unwrap();
    bench.success(&["fill", "--model", NAME, TEXT]);
    let embed = ["embed", "--offline", "--model", NAME, "--input", "lines.txt", "--out"];
    let warned = |out| bench.success(&[&embed[..], &[out]].concat()).1.contains("does not show whether");
    assert!(!warned("known.npy"));
    // A cache written by Transformers, which never requests modules.json.
    fs::remove_file(bench.cache().join(".no_exist").join(COMMIT).join("modules.json")).unwrap();
    let (_, said) = bench.success(&[&embed[..], &["unknown.npy", "--quiet"]].concat());
    for part in ["warning: ", NAME, "modules.json", "mean of the tokens", "without --offline"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_killed_download_is_resumed() {
    let bench = Bench::new();
    let size = bench.server.change(|state| state.models[NAME].files["model.safetensors"].len());
    let sent = size / 2;
    bench.server.change(|state| state.stall = Some(("model.safetensors".into(), sent)));
    let mut child = bench.command(&["fill", "--model", NAME, TEXT]).stderr(Stdio::null()).spawn().unwrap();
    let weights = bench.server.change(|state| etag(&state.models[NAME].files["model.safetensors"]));
    let blob = bench.cache().join("blobs").join(&weights);
    let incoming = bench.cache().join(".incoming").join(bench.cache().file_name().unwrap());
    let part = incoming.join(format!("blobs/{weights}.part"));
    let began = Instant::now();
    while fs::metadata(&part).map_or(0, |part| part.len()) < sent as u64 {
        assert!(began.elapsed() < Duration::from_secs(60), "the transfer does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!blob.exists() && !bench.cache().join("snapshots").join(COMMIT).join("model.safetensors").exists());

    bench.server.change(|state| state.stall = None);
    bench.server.requests();
    bench.success(&["fill", "--model", NAME, TEXT]);
    let asked = bench.server.requests();
    assert!(asked.iter().any(|request| request.range == Some(format!("bytes={sent}-"))), "{asked:?}");
    assert_eq!(fs::metadata(&blob).unwrap().len(), size as u64);
}

#[test]
fn other_architectures_are_refused_before_the_weights_are_downloaded() {
    let bench = Bench::new();
    bench.server.add("t5", &[("config.json", b"{\"model_type\": \"t5\"}"), ("model.safetensors", &[0; 5000])]);
    let line = bench.failure(&["fill", "--model", "t5", TEXT]);
    assert!(line.contains("not downloaded") && line.contains("t5"), "{line}");
    bench.server.add("pickle", &[("config.json", b"{\"model_type\": \"bert\"}"), ("pytorch_model.bin", &[0; 5000])]);
    let line = bench.failure(&["fill", "--model", "pickle", TEXT]);
    assert!(line.contains("cloze convert pickle --out DIR"), "{line}");
}

#[test]
fn recipes_start_from_a_hub_model_and_from_a_run() {
    let bench = Bench::new();
    let sentence = |i: usize| {
        let word =
            |k: usize| format!("{}{}", char::from(b'a' + ((i * k) % 26) as u8), char::from(b'a' + (k % 26) as u8));
        (1..9).map(word).collect::<Vec<_>>().join(" ") + "."
    };
    let text: Vec<String> = (0..60).map(|i| [sentence(i), sentence(i + 1), sentence(i + 2)].join(" ")).collect();
    fs::write(bench.path("text.txt"), text.join("\n\n")).unwrap();
    let recipe = "data = \"shards\"\nsteps = 1\nprecision = \"f32\"\n[model]\ninit = \"org/tiny-bert\"\n[objective]\nnsp = false\n[eval]\nevery = 0\n\
        [[phase]]\nseq_len = 32\nbatch_sequences = 4\n";
    fs::write(bench.path("recipe.toml"), recipe).unwrap();
    bench.success(&["prepare", "--input", "text.txt", "--tokenizer", NAME, "--out", "shards"]);
    assert!(
        !bench.cache().join("snapshots").join(COMMIT).join("model.safetensors").exists(),
        "only the tokenizer is downloaded"
    );
    bench.success(&["pretrain", "recipe.toml", "--out", "first"]);
    let began = fs::read_to_string(bench.path("first/recipe.toml")).unwrap();
    assert!(began.contains(COMMIT), "the recipe records the commit: {began}");
    let (_, said) = bench.success(&["pretrain", "recipe.toml", "--set", "model.init=first", "--out", "second"]);
    assert!(said.contains("the run's model"), "{said}");
    assert!(bench.path("second/model/model.safetensors").is_file());

    // A resumed run does not need its initial model.
    fs::rename(bench.path("first"), bench.path("moved")).unwrap();
    let goes_on = [
        "pretrain",
        "recipe.toml",
        "--set",
        "model.init=first/model",
        "--set",
        "steps=2",
        "--out",
        "second",
        "--resume",
    ];
    bench.success(&goes_on);
    let line = bench.failure(&["pretrain", "recipe.toml", "--set", "model.init=runs/absent", "--out", "third"]);
    assert!(line.contains("runs/absent: no such folder"), "{line}");
}
