//! Commands on several ranks of a job. They need an MPI launcher: `CLOZE_TEST_MPIRUN`, or `mpirun` or `mpiexec` on the `PATH`. Without
//! one they are skipped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{command, corpus};

/// A launcher of MPI jobs.
pub struct Launcher {
    program: PathBuf,
    is_open_mpi: bool,
}

impl Launcher {
    /// The launcher of this machine. Without one, prints that the test is skipped.
    ///
    /// # Panics
    /// `CLOZE_TEST_MPIRUN` is set, but is not a launcher.
    #[allow(clippy::print_stdout, reason = "says that the test was skipped")]
    pub fn find() -> Option<Launcher> {
        let named = std::env::var_os("CLOZE_TEST_MPIRUN").map(PathBuf::from);
        let candidates = named.clone().map_or_else(|| vec!["mpirun".into(), "mpiexec".into()], |program| vec![program]);
        let found = candidates.into_iter().find_map(|program| {
            let version = Command::new(&program).arg("--version").output().ok()?;
            let text = String::from_utf8_lossy(&version.stdout) + String::from_utf8_lossy(&version.stderr);
            version
                .status
                .success()
                .then(|| Launcher { program, is_open_mpi: text.contains("Open MPI") || text.contains("OpenRTE") })
        });
        assert!(found.is_some() || named.is_none(), "CLOZE_TEST_MPIRUN: {named:?} is not a launcher");
        if found.is_none() {
            println!("skipped: no MPI");
        }
        found
    }

    /// The command that starts `cloze` with these arguments on `ranks` ranks.
    pub fn command(&self, ranks: usize, arguments: &[&str]) -> Command {
        self.start(ranks, env!("CARGO_BIN_EXE_cloze"), arguments)
    }

    /// The command that starts a program on `ranks` ranks.
    pub fn start(&self, ranks: usize, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Tests run as root in containers, and with fewer cores than ranks.
        command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
        if self.is_open_mpi {
            command.arg("--oversubscribe");
        }
        command.args(["-np", &ranks.to_string()]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `cloze` on `ranks` ranks.
    pub fn run(&self, ranks: usize, arguments: &[&str]) -> Output {
        self.command(ranks, arguments).output().unwrap()
    }

    /// Runs `cloze` on `ranks` ranks and returns what it printed.
    pub fn succeed(&self, ranks: usize, arguments: &[&str]) -> String {
        let output = self.run(ranks, arguments);
        assert!(output.status.success(), "{arguments:?} on {ranks} ranks: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The lines that `cloze` wrote to standard error: those of the launcher, which surround them, are left out.
pub fn errors(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let is_ours = |line: &&str| ["error: ", "warning: ", "interrupted"].iter().any(|start| line.starts_with(start));
    // Open MPI 5 separates what the ranks wrote by NUL bytes.
    text.lines().map(|line| line.trim_start_matches('\0')).filter(is_ours).map(str::to_owned).collect()
}

/// Every file of a folder and its subfolders, by name.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(
                files(&path).into_iter().map(|(name, bytes)| (Path::new(path.file_name().unwrap()).join(name), bytes)),
            );
        } else {
            found.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Runs `cloze` in one process.
pub fn single(arguments: &[&str]) -> String {
    let output = command(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON that a command prints, without what differs between runs.
fn result(printed: &str) -> Value {
    let mut json: Value = serde_json::from_str(printed).unwrap_or_else(|e| panic!("{e}: {printed:?}"));
    for key in ["out", "seconds", "mb_per_s", "peak_rss_bytes"] {
        assert!(json.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    json
}

/// A corpus of two files, with documents that occur twice and accents, and a tokenizer for it.
pub struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        let text = corpus(12_000);
        fs::create_dir(bench.dir.path().join("texts")).unwrap();
        fs::write(bench.path("texts/a.txt"), &text).unwrap();
        fs::write(bench.path("texts/b.txt"), format!("{}\n\nNaïve café.\n", &text[..text.len() / 3])).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// Whether something in the folder was not finished.
    fn has_leftovers(&self) -> bool {
        fs::read_dir(&self.dir).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with('.'))
    }
}

#[test]
fn vocabularies_of_all_kinds_have_the_bytes_of_one_process() {
    let Some(launcher) = Launcher::find() else { return };
    let bench = Bench::new();
    for kind in ["wordpiece", "bpe", "unigram"] {
        let run = |ranks: usize| {
            let out = bench.path(&format!("{kind}-{ranks}"));
            let arguments =
                ["vocab", "--kind", kind, "--input", &bench.path("texts"), "--size", "600", "--out", &out, "--json"];
            let printed = if ranks == 1 { single(&arguments) } else { launcher.succeed(ranks, &arguments) };
            (result(&printed), files(Path::new(&out)))
        };
        let one = run(1);
        assert!(one.1.contains_key(Path::new("tokenizer.json")) && one.0["vocab_size"] == 600, "{}", one.0);
        for ranks in [2, 3] {
            assert!(run(ranks) == one, "{kind} on {ranks} ranks: {}", one.0);
        }
    }
}

#[test]
fn shards_have_the_bytes_of_one_process() {
    let Some(launcher) = Launcher::find() else { return };
    let bench = Bench::new();
    let vocab = bench.path("vocab");
    single(&["vocab", "--input", &bench.path("texts"), "--size", "600", "--out", &vocab]);
    let filters: [&[&str]; 3] =
        [&[], &["--drop-duplicates", "--min-words", "20"], &["--drop-duplicate-lines", "--valid-fraction", "0"]];
    for (number, filters) in filters.into_iter().enumerate() {
        let run = |ranks: usize| {
            let out = bench.path(&format!("shards-{number}-{ranks}"));
            let input = bench.path("texts");
            let arguments = ["prepare", "--input", &input, "--tokenizer", &vocab, "--out", &out, "--json"];
            let arguments = [&arguments[..], filters].concat();
            let printed = if ranks == 1 { single(&arguments) } else { launcher.succeed(ranks, &arguments) };
            (result(&printed), files(Path::new(&out)))
        };
        let one = run(1);
        assert!(one.1.len() > 3, "{:?}", one.1.keys());
        for ranks in [2, 3] {
            assert!(run(ranks) == one, "{filters:?} on {ranks} ranks: {}", one.0);
        }
    }
    assert!(!bench.has_leftovers());
    // The estimates print once.
    for command in ["prepare", "vocab"] {
        let (input, out) = (bench.path("texts"), bench.path("none"));
        let mut arguments = vec![command, "--input", &input, "--out", &out, "--dry-run"];
        arguments.extend(if command == "prepare" { ["--tokenizer", &vocab] } else { ["--size", "600"] });
        let printed = launcher.succeed(2, &arguments);
        assert_eq!(printed.matches("nothing was written").count(), 1, "{printed}");
        assert!(!Path::new(&out).exists());
    }
}

#[test]
fn errors_are_one_line_and_leave_nothing() {
    let Some(launcher) = Launcher::find() else { return };
    let bench = Bench::new();
    let (texts, vocab) = (bench.path("texts"), bench.path("vocab"));
    single(&["vocab", "--input", &texts, "--size", "600", "--out", &vocab]);
    let before = fs::read_dir(&bench.dir).unwrap().count();
    let out = bench.path("out");
    let fails = |arguments: &[&str], code: i32, expected: &str| {
        let output = launcher.run(2, arguments);
        let lines = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(lines.len() == 1 && lines[0].contains(expected), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() || launcher.is_open_mpi, "{output:?}");
        assert_eq!(fs::read_dir(&bench.dir).unwrap().count(), before);
    };
    let pipes = "standard input and pipes can be read by one process only, and this job has 2";
    fails(&["prepare", "--input", "-", "--tokenizer", &vocab, "--out", &out], 2, pipes);
    fails(&["vocab", "--input", "-", "--size", "600", "--out", &out], 2, pipes);
    let missing = bench.path("missing.txt");
    fails(&["prepare", "--input", &missing, "--tokenizer", &vocab, "--out", &out], 1, "no such file or folder");
    fails(&["prepare", "--input", &texts, "--tokenizer", &vocab, "--out", &vocab], 1, "exists and is not empty");
    fails(&["vocab", "--input", &texts, "--size", "9", "--out", &out], 1, "--size is 9, which is too small");
    // No communication has begun: each process may say so.
    let output = launcher.run(2, &["vocab", "extend", "--model", &vocab, "--words", "a", "--out", &out]);
    let lines = errors(&output);
    let expected = "this command runs in one: start it without the launcher";
    assert!(output.status.code() == Some(2) && !lines.is_empty(), "{output:?}");
    assert!(lines.iter().all(|line| line.ends_with(expected)), "{output:?}");
    // A line that is not UTF-8, in the middle of the text.
    let mut bytes = fs::read(bench.path("texts/b.txt")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = 0xff;
    fs::write(bench.path("texts/b.txt"), bytes).unwrap();
    fails(&["prepare", "--input", &texts, "--tokenizer", &vocab, "--out", &out], 1, "b.txt:");
    fails(&["vocab", "--input", &texts, "--size", "600", "--out", &out], 1, "b.txt:");
}

/// Each rank of a job may be on another machine. Here, the second one sees another folder under the same path.
#[cfg(unix)]
#[test]
fn a_rank_that_reads_other_files_is_named() {
    let Some(launcher) = Launcher::find() else { return };
    let bench = Bench::new();
    let vocab = bench.path("vocab");
    single(&["vocab", "--input", &bench.path("texts"), "--size", "600", "--out", &vocab]);
    for rank in ["0", "1"] {
        fs::create_dir(bench.path(rank)).unwrap();
        fs::copy(bench.path("texts/a.txt"), bench.path(&format!("{rank}/a.txt"))).unwrap();
    }
    let run = |command: &str| {
        let script = format!(
            "cd {}/${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}} && exec {} {command} --input a.txt --out {}",
            bench.dir.path().display(),
            env!("CARGO_BIN_EXE_cloze"),
            bench.path("out"),
        );
        let output = launcher.start(2, "sh", &["-c", &script]).output().unwrap();
        assert!(!Path::new(&bench.path("out")).exists() && !bench.has_leftovers(), "{output:?}");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        errors(&output)
    };
    let commands = [format!("prepare --tokenizer {vocab}"), "vocab --size 600".to_owned()];
    let text = fs::read_to_string(bench.path("1/a.txt")).unwrap();
    fs::write(bench.path("1/a.txt"), text.replacen("the", "a", 1).replacen("The", "A", 1)).unwrap();
    for command in &commands {
        let lines = run(command);
        assert!(
            lines.len() == 1 && lines[0].contains("rank 1 (") && lines[0].contains(" other text than rank 0"),
            "{lines:?}"
        );
    }
    fs::remove_file(bench.path("1/a.txt")).unwrap();
    for command in &commands {
        let lines = run(command);
        assert!(lines.len() == 1 && lines[0].starts_with("error: rank 1 of 2 ("), "{lines:?}");
        assert!(lines[0].ends_with("a.txt: no such file or folder"), "{lines:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_job_leaves_nothing() {
    let Some(launcher) = Launcher::find() else { return };
    let bench = Bench::new();
    let vocab = bench.path("vocab");
    single(&["vocab", "--input", &bench.path("texts"), "--size", "600", "--out", &vocab]);
    // Long enough to be interrupted.
    let text = fs::read(bench.path("texts/a.txt")).unwrap();
    let names: Vec<String> = (0..40).map(|number| bench.path(&format!("texts/long-{number}.txt"))).collect();
    names.iter().for_each(|name| fs::write(name, &text).unwrap());
    let (input, out, partial) = (bench.path("texts"), bench.path("out"), bench.path(".out.partial"));
    let arguments = ["prepare", "--input", &input, "--tokenizer", &vocab, "--out", &out, "--quiet"];
    let child = launcher.command(2, &arguments).spawn().unwrap();
    let start = Instant::now();
    while !Path::new(&partial).exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "prepare did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    // Launchers that end ranks by SIGTERM, as Open MPI's does, leave it to the user to know why.
    let lines = errors(&output);
    assert!(lines.len() <= 1 && lines.iter().all(|line| line == "interrupted; nothing was written"), "{output:?}");
    assert!(!Path::new(&out).exists());
    if !launcher.is_open_mpi {
        // MPICH's launcher ends the ranks before they can remove anything; the next run does it.
        single(&arguments);
    }
    assert!(!Path::new(&partial).exists() && !bench.has_leftovers());
}
