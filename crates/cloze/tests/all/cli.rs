//! The command line: help, exit codes, and errors of one line.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{cloze, failure, success, text};

fn write_corpus(path: &Path, documents: usize) {
    std::fs::write(path, crate::common::corpus(documents)).unwrap();
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands: &[&[&str]] = &[
        &["quickstart"],
        &["vocab"],
        &["vocab", "extend"],
        &["vocab", "resize"],
        &["prepare"],
        &["pretrain"],
        &["recipe"],
        &["evaluate"],
        &["evaluate", "pretrain"],
        &["evaluate", "retrieval"],
        &["evaluate", "classify"],
        &["evaluate", "multi-label"],
        &["evaluate", "regress"],
        &["evaluate", "tag"],
        &["evaluate", "answer"],
        &["evaluate", "choose"],
        &["finetune"],
        &["finetune", "classify"],
        &["finetune", "answer"],
        &["sweep"],
        &["sweep", "tag"],
        &["predict"],
        &["predict", "choose"],
        &["fill"],
        &["convert"],
        &["embed"],
        &["similar"],
        &["rerank"],
        &["finetune", "embed"],
        &["evaluate", "sts"],
        &["evaluate", "pairs"],
        &["evaluate", "triplets"],
        &["evaluate", "mining"],
        &["evaluate", "rerank"],
        &["finetune", "rerank"],
        &["predict", "rerank"],
        &["mine"],
        &["inspect"],
        &["bench", "train"],
        &["bench", "infer"],
        &["bench", "sweep"],
        &["bench", "defaults"],
        &["report"],
        &["completions"],
        &["man"],
    ];
    let overview = success(&["--help"]);
    for command in commands {
        assert!(overview.contains(command[0]), "{command:?} is not in the overview");
        for flag in ["--help", "-h"] {
            let mut arguments = command.to_vec();
            arguments.push(flag);
            let help = success(&arguments);
            assert!(help.contains("Usage: cloze"), "{help}");
            assert!(help.contains("Example"), "{command:?} {flag} shows no example: {help}");
        }
    }
    assert!(success(&["--version"]).starts_with("cloze "));
}

#[test]
fn documented_flags_exist() {
    for (command, flags) in [
        (&["vocab"][..], "--kind --input --size --cased --min-frequency --out --dry-run --json --threads --quiet"),
        (&["vocab", "extend"], "--model --words --input --size --min-count --text-column --seed --out --json"),
        (&["vocab", "resize"], "--model --tokenizer --seed --out --json"),
        (&["prepare"], "--input --tokenizer --out --valid-fraction --workers --text-column --dry-run --json"),
        (
            &["pretrain"],
            "--set --out --resume --dry-run --find-lr --lr-from --lr-to --lr-steps --lr-minutes --lr-csv --json",
        ),
        (&["recipe"], "--json"),
        (&["evaluate", "pretrain"], "--model --data --json"),
        (
            &["evaluate", "classify"],
            "--model --data --bootstrap --predictions --precision --json --task --text --pair --label --max-len",
        ),
        (
            &["evaluate"],
            "--model --data --bootstrap --predictions --precision --json --task --text --pair --label --max-len",
        ),
        (&["finetune"], "--model --train --dev --data --out --recipe --seeds --resume --json --task"),
        (
            &["finetune", "classify"],
            "--model --train --dev --data --out --recipe --seeds --limit --resume --json --task --text --pair --label --labels \
             --metric --max-len --stride --skip-bad --epochs --batch --lr --accumulate --warmup --schedule --optimizer \
             --weight-decay --clip-norm --layer-decay --freeze --features --bilstm --bilstm-size --dropout --class-weights --evals-per-epoch --patience --seed \
             --precision --recompute --checkpoint-every",
        ),
        (&["finetune", "tag"], "--labels --max-len --tag-format --tag-column --context --class-weights"),
        (&["finetune", "answer"], "--max-len --stride --max-question --max-answer --null-threshold --skip-bad"),
        (&["sweep"], "--batches --lrs --epochs-list --seeds --model --train --dev --data --out --resume --json"),
        (&["sweep", "classify"], "--batches --lrs --epochs-list --warmup --text --label"),
        (&["predict"], "--model --input --precision --text --pair --max-len"),
        (&["predict", "answer"], "--model --input --precision --max-len --n-best --null-threshold"),
        (&["fill"], "--model --revision --offline --top --json"),
        (&["rerank"], "--model --query --queries --documents --column --input --top --max-len --logits --json"),
        (&["evaluate", "sts"], "--model --data --task --text --pair --label --similarity --dimensions --json"),
        (&["evaluate", "pairs"], "--model --data --task --text --pair --label --similarity --json"),
        (&["evaluate", "triplets"], "--model --data --anchor --positive --negative --similarity --json"),
        (&["evaluate", "mining"], "--model --data --duplicates --id --text --transitive --top --max-pairs --json"),
        (&["evaluate", "retrieval"], "--model --corpus --queries --qrels --depth --dimensions --json"),
        (
            &["evaluate", "rerank"],
            "--model --data --at --found-only --corpus --queries --qrels --retriever --run --top --json",
        ),
        (
            &["finetune", "embed"],
            "--model --train --dev --out --resume --dry-run --anchor --positive --negative --score --loss --temperature --symmetric --dimensions \
             --pool --max-len --query-prompt --document-prompt --epochs --batch --lr --json",
        ),
        (&["convert"], "--to --quantize --positions --position-fill --out --json"),
        (&["finetune", "rerank"], "--train --dev --text --pair --label --loss --metric"),
        (
            &["embed"],
            "--model --input --column --out --pool --layers --normalize --dimensions --max-len --precision --quantize --calibrate --json",
        ),
        (
            &["similar"],
            "--model --corpus --column --query --embeddings --rescore-embeddings --rescore-multiplier --top --json",
        ),
        (
            &["mine"],
            "--model --input --anchor --positive --format --corpus --corpus-column --num-negatives --range-min --range-max --max-score \
             --min-score --absolute-margin --relative-margin --sampling-strategy --seed --output-format --output-scores --out --json",
        ),
        (&["inspect"], "--json --write-batches --steps"),
        (
            &["bench", "train"],
            "--layers --hidden --heads --batch --seq --lengths --precision --optimizer --threads --steps --json --profile",
        ),
        (
            &["bench", "infer"],
            "--layers --hidden --heads --batch --seq --lengths --precision --threads --steps --json --profile",
        ),
        (
            &["bench", "sweep"],
            "--layers --hidden --heads --batch --seq --lengths --precision --threads --steps --infer --out --json",
        ),
        (&["quickstart"], "--out --json"),
        (&["report"], "--json"),
    ] {
        let help = success(&[command, &["--help"]].concat());
        for flag in flags.split(' ') {
            assert!(help.contains(flag), "{command:?} has no {flag}");
        }
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["nonsense"][..],
        &["vocab"],
        &["vocab", "--input", "x", "--out", "y", "--size", "many"],
        &["vocab", "--input", "x"],
        &["vocab", "--out", "y", "extend", "--model", "m", "--words", "w", "--out", "o"],
        &["vocab", "extend", "--model", "m", "--out", "o"],
        &["vocab", "extend", "--model", "m", "--out", "o", "--input", "x"],
        &["vocab", "extend", "--model", "m", "--out", "o", "--words", "w", "--size", "3"],
        &["vocab", "extend", "--model", "m", "--out", "o", "--words", "w", "--input", "x", "--size", "3"],
        &["vocab", "resize", "--model", "m", "--out", "o"],
        &["prepare", "--input", "x", "--tokenizer", "t", "--out", "o", "--valid-fraction", "1.5"],
        &["prepare", "--input", "x", "--tokenizer", "t", "--out", "o", "--workers", "0"],
        &["bench", "train", "--lengths", "odd"],
        &["bench", "train", "--threads", "0"],
        &["fill", "text without a model"],
        &["inspect", "x", "--write-batches", "file"],
        &["inspect", "x", "--write-batches", "file", "--steps", "5..5"],
        &["evaluate", "pretrain", "--model", "x"],
        &["embed", "--model", "x", "--input", "y", "--out", "z.csv"],
        &["evaluate", "classify", "--model", "x"],
        &["finetune", "classify", "--train", "x"],
        &["finetune", "sort", "--model", "x", "--out", "y"],
        &["finetune", "tag", "--model", "x", "--out", "y", "--features", "last", "--freeze", "1"],
        &["finetune", "tag", "--model", "x", "--out", "y", "--features", "4"],
        &["finetune", "classify", "--model", "x", "--out", "y", "--class-weights", "heavy"],
        &["finetune", "classify", "--model", "x", "--out", "y", "--seeds", "0"],
        &["finetune", "classify", "--model", "x", "--out", "y", "--schedule", "steep"],
        &["sweep", "classify", "--model", "x", "--out", "y", "--lrs", "fast"],
        &["predict"],
        &["predict", "classify"],
        &["predict", "sort", "--model", "x"],
        &["evaluate"],
        &["similar", "--model", "x", "--corpus", "-", "--query", "y"],
        &["rerank", "--model", "x", "--query", "y"],
        &["rerank", "--model", "x", "--query", "y", "--queries", "z", "--documents", "d"],
        &["evaluate", "sts", "--model", "x"],
        &["finetune", "embed", "--model", "x", "--out", "y"],
        &["finetune", "embed", "--model", "x", "--train", "Cargo.toml", "--out", "y", "--pool", "last4"],
        &["convert", "x", "--out", "y", "--to", "onnx", "--positions", "9"],
        &["convert", "x", "--out", "y", "--quantize", "int8"],
        &["convert", "x", "--out", "y", "--to", "onnx", "--quantize", "binary"],
        &["evaluate", "rerank", "--model", "x"],
        &["evaluate", "rerank", "--model", "x", "--corpus", "c", "--queries", "q", "--qrels", "r"],
        &["mine", "--model", "x", "--input", "y", "--out", "z.csv"],
        &["mine", "--model", "x", "--input", "y", "--out", "z.jsonl", "--range-max", "2"],
        &["fill", "--model", "x", "text", "--color", "pink"],
        &["fill", "--model", "x", "text", "--quiet", "--verbose"],
        &["completions", "tcsh"],
        &["pretrain"],
        &["report"],
    ] {
        let output = cloze(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn failures_exit_with_1_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (absent, empty, binary, out) = (path("absent"), path("empty.txt"), path("binary.txt"), path("out"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&binary, b"good text\n\0m\0\0o\0r\0\0e\0").unwrap();

    assert!(failure(&["inspect", &absent]).contains("absent"));
    assert!(failure(&["vocab", "--input", &absent, "--out", &out]).contains("absent"));
    assert!(failure(&["vocab", "--input", &empty, "--out", &out]).contains("empty.txt"));
    assert!(failure(&["vocab", "--input", &binary, "--out", &out]).contains("contains many NUL bytes"));
    assert!(failure(&["prepare", "--input", &empty, "--tokenizer", &absent, "--out", &out]).contains("absent"));
    assert!(failure(&["pretrain", &absent]).contains("absent"));
    assert!(failure(&["report", &path(".")]).contains("metrics.jsonl"));
    assert!(failure(&["fill", "--model", &absent, "a [MASK]"]).contains("absent"));
    let vectors = path("x.npy");
    assert!(failure(&["embed", "--model", &absent, "--input", &binary, "--out", &vectors]).contains("absent"));
    assert!(failure(&["similar", "--model", &absent, "--corpus", &empty, "--query", "a"]).contains("absent"));
    let files = ["--corpus", &absent, "--queries", &absent, "--qrels", &absent];
    assert!(failure(&[&["evaluate", "retrieval", "--model", &absent][..], &files].concat()).contains("absent"));
    assert!(failure(&["evaluate", "pretrain", "--model", &absent, "--data", &absent]).contains("absent"));
    assert!(failure(&["quickstart", "--out", &path(".")]).contains("--out"));
    assert!(failure(&["bench", "sweep", "--out", &path(".")]).contains("is not empty"));
    assert!(failure(&["bench", "infer", "--recompute"]).contains("--recompute"));
    assert!(failure(&["inspect", &empty, "--set", "steps=1"]).contains("--set needs a recipe"));
    assert!(!Path::new(&out).exists(), "a failed command left its output");
}

#[test]
fn too_small_vocabulary_reports_the_minimum() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("stories.txt");
    write_corpus(&corpus, 50);
    let out = dir.path().join("tokenizer");
    let line = failure(&["vocab", "--input", corpus.to_str().unwrap(), "--size", "20", "--out", out.to_str().unwrap()]);
    assert!(line.contains("20") && line.contains("at least"), "{line}");
}

#[test]
fn corpus_gives_vocabulary_and_shards_that_can_be_inspected() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (corpus, tokenizer, shards) = (path("stories.txt"), path("tokenizer"), path("shards"));
    write_corpus(Path::new(&corpus), 300);

    let line = success(&["vocab", "--input", &corpus, "--size", "900", "--out", &tokenizer, "--json", "--quiet"]);
    let learned: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&learned["vocab_size"], &learned["documents"]), (&900.into(), &300.into()), "{line}");
    for file in ["vocab.txt", "tokenizer.json", "tokenizer_config.json"] {
        assert!(Path::new(&tokenizer).join(file).is_file(), "{file}");
    }
    let again = failure(&["vocab", "--input", &corpus, "--out", &tokenizer]);
    assert!(again.contains("already"), "{again}");

    let prepare = |out: &str, more: &[&str]| {
        let base = ["prepare", "--input", &corpus, "--tokenizer", &tokenizer, "--out", out, "--valid-fraction", "0.1"];
        success(&[&base[..], more].concat())
    };
    let line = prepare(&shards, &["--json"]);
    let prepared: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(prepared["report"]["documents"], 300, "{line}");
    assert!(prepared["report"]["valid_documents"].as_u64().unwrap() > 5, "{line}");
    assert!(prepared["mb_per_s"].as_f64().unwrap() > 0.0);
    let shown = prepare(&path("shards-2"), &["--workers", "1"]);
    assert!(shown.contains("tokens per word") && shown.contains("MB/s"), "{shown}");
    let manifest = |folder: &str| std::fs::read(Path::new(folder).join("manifest.json")).unwrap();
    assert_eq!(manifest(&shards), manifest(&path("shards-2")), "the number of workers changed the shards");

    let seen = success(&["inspect", &tokenizer]);
    assert!(seen.contains("900") && seen.contains("uncased"), "{seen}");
    let seen = success(&["inspect", &shards, "--examples", "2"]);
    assert!(seen.contains("example 2") && seen.contains("[MASK]→") && !seen.contains('\x1b'), "{seen}");
    let lines = success(&["inspect", &shards, "--json", "--examples", "2"]);
    let kinds: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(kinds, ["shards", "example", "example"]);
    let shard = Path::new(&shards).join("train-00000.arrow");
    assert!(success(&["inspect", shard.to_str().unwrap()]).contains("example 3"));

    // Documents with one sentence give no pairs, but have examples.
    let (lone, singles) = (path("lone.txt"), path("singles"));
    std::fs::write(&lone, "The old fox leaves the river.\n\n".repeat(40)).unwrap();
    success(&["prepare", "--input", &lone, "--tokenizer", &tokenizer, "--out", &singles]);
    let seen = success(&["inspect", &singles, "--examples", "1"]);
    assert!(seen.contains("example 1") && seen.contains("[MASK]→"), "{seen}");

    // A flipped byte is detected, with the file's name.
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    assert!(failure(&["inspect", &shards]).contains("train-00000.arrow"));
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_not_an_error() {
    use std::io::Read;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (corpus, tokenizer, shards) = (path("stories.txt"), path("tokenizer"), path("shards"));
    write_corpus(Path::new(&corpus), 200);
    success(&["vocab", "--input", &corpus, "--size", "900", "--out", &tokenizer]);
    success(&["prepare", "--input", &corpus, "--tokenizer", &tokenizer, "--out", &shards]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloze"))
        .args(["inspect", &shards, "--examples", "2000", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0u8; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(text(&output.stderr), "");
}

/// Regression: if standard error could not be written, every command panicked with exit code 101, and the error for a
/// full standard output did not name it.
#[cfg(target_os = "linux")]
#[test]
fn unwritable_standard_streams_are_handled() {
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let run = |arguments: &[&str], out: Stdio, err: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloze"));
        command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(err).output().unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (corpus, vocab) = (path("stories.txt"), path("vocab"));
    write_corpus(Path::new(&corpus), 50);
    for (arguments, code) in [
        (&["inspect", "/nonexistent"][..], 1),
        (&["nonsense"], 2),
        (&["recipe", "--verbose"], 0),
        (&["vocab", "--input", &corpus, "--size", "500", "--out", &vocab], 0),
    ] {
        assert_eq!(run(arguments, Stdio::piped(), full()).status.code(), Some(code), "{arguments:?}");
    }
    for arguments in
        [&["recipe"][..], &["--help"], &["inspect", "--help"], &["inspect", &vocab], &["completions", "bash"]]
    {
        let output = run(arguments, full(), Stdio::piped());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.starts_with("error: cannot write to standard output: ") && said.lines().count() == 1, "{said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(arguments, writer.into(), Stdio::piped());
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// Regression: files with names that are not UTF-8 were skipped silently in folders and patterns, and refused as
/// outputs.
#[cfg(target_os = "linux")]
#[test]
fn file_names_can_have_any_encoding() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let odd = |text: &[u8]| dir.path().join(std::ffi::OsStr::from_bytes(text));
    let (folder, vocab) = (odd(b"d\xfe"), odd(b"v\xff"));
    std::fs::create_dir(&folder).unwrap();
    write_corpus(&folder.join("a.txt"), 30);
    write_corpus(&folder.join(std::ffi::OsStr::from_bytes(b"b\xff.txt")), 40);
    let run = |mut command: Command| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let new = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloze"));
        command.args(words);
        command
    };
    let mut learn = new(&["vocab", "--size", "500", "--json", "--input"]);
    learn.arg(&folder).arg("--out").arg(&vocab);
    let said = run(learn);
    assert!(said.contains("\"documents\":70") && said.contains("v\u{fffd}"), "{said}");
    for (number, input) in [folder.clone(), folder.join("*.txt"), odd(b"d?/*.txt")].into_iter().enumerate() {
        let mut prepare = new(&["prepare", "--json", "--tokenizer"]);
        prepare.arg(&vocab).arg("--input").arg(input).arg("--out").arg(odd(format!("shards{number}").as_bytes()));
        let said = run(prepare);
        assert!(said.contains("\"files\":2"), "{said}");
    }
}

/// Regression: a named pipe in a folder blocked the command forever.
#[cfg(unix)]
#[test]
fn named_pipes_in_folders_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::create_dir(path("texts")).unwrap();
    write_corpus(Path::new(&path("texts/a.txt")), 50);
    assert!(Command::new("mkfifo").arg(path("texts/b.txt")).status().unwrap().success());
    success(&["vocab", "--input", &path("texts"), "--size", "500", "--out", &path("vocab")]);
    let said =
        success(&["prepare", "--input", &path("texts"), "--tokenizer", &path("vocab"), "--out", &path("shards")]);
    assert!(said.contains("Files without text: ") && said.contains("b.txt"), "{said}");
}

/// Regression: after a signal `prepare` exited with 1, and `embed` and other commands left unfinished files. A command
/// that waited for input ignored signals.
#[cfg(unix)]
#[test]
fn a_signal_exits_at_once_and_removes_unfinished_output() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    write_corpus(Path::new(&path("a.txt")), 50);
    success(&["vocab", "--input", &path("a.txt"), "--size", "500", "--out", &path("vocab")]);
    // Under `nohup` SIGHUP is ignored, also in the command.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let takes_hangups = ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 0);
    for signal in ["INT", "TERM"].into_iter().chain(takes_hangups.then_some("HUP")) {
        let out = path(signal);
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloze"))
            .args(["prepare", "--input", "-", "--tokenizer", &path("vocab"), "--out", &out])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"one two\n\nthree").unwrap();
        // Once its folder exists, the command waits for more input.
        let partial = dir.path().join(format!(".{signal}.partial"));
        while !partial.is_dir() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = child.wait_with_output().unwrap();
        drop(input);
        assert_eq!(output.status.code(), Some(130), "{signal}: {:?}", output.status);
        assert_eq!(text(&output.stderr).lines().last(), Some("interrupted; nothing was written"));
        assert!(!partial.exists() && !Path::new(&out).exists(), "{signal}");
    }
}
