//! A process that is killed while it saves a checkpoint, or whose disk is full.
#![cfg(unix)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use cloze_train::Recipe;

use crate::corpus::{assert_same_files, files, losses, make_shards, recipe};
use crate::pretraining::{run, run_until};

/// The test below. The same test is also the child process that is killed.
const TEST: &str = "killed::a_run_that_ends_while_saving_resumes_to_the_same_weights";
/// Environment variable with the child's run folder.
const CHILD: &str = "CLOZE_TEST_CHILD";

fn recipe_of(shards: &Path) -> Recipe {
    recipe(shards, &["steps=6", "checkpoint.every=1", "eval.every=0", "log.every=1"])
}

/// Resumes a run in another process whose files are limited to `bytes`. With `trap`, exceeding the limit is an error, as
/// on a full disk; without it, the system kills the process, always at the same byte.
fn resume_with_short_files(shards: &Path, out: &Path, bytes: u64, trap: &str) -> Output {
    let script = format!("ulimit -c 0; ulimit -f {}; {trap} exec \"$@\"", bytes / 512);
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture"]).env(CHILD, out).env("CLOZE_TEST_SHARDS", shards).output().unwrap()
}

#[allow(clippy::print_stderr, reason = "the parent reads it")]
fn child(out: &Path) {
    let shards = std::env::var_os("CLOZE_TEST_SHARDS").unwrap();
    match run(&recipe_of(Path::new(&shards)), out, true) {
        Ok(outcome) => panic!("{outcome:?}"),
        Err(error) => eprintln!("{error}"),
    }
}

#[test]
fn a_run_that_ends_while_saving_resumes_to_the_same_weights() {
    if let Some(out) = std::env::var_os(CHILD) {
        return child(Path::new(&out));
    }
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recipe = recipe_of(&shards);
    let uninterrupted = dir.path().join("uninterrupted");
    run(&recipe, &uninterrupted, false).unwrap();

    for (name, trap) in [("killed", ""), ("full", "trap '' XFSZ;")] {
        let out = dir.path().join(name);
        run_until(&recipe, &out, false, 2);
        let [last, next] = ["step-00000002", ".step-00000003.partial"].map(|name| out.join("checkpoints").join(name));
        let before = files(&last);
        let size = |dir: &Path, file: &str| fs::metadata(dir.join(file)).unwrap().len();
        // A limit that the weights do not exceed, but the moments do.
        let [weights, moments] = ["model.safetensors", "optimizer.safetensors"].map(|file| size(&last, file));
        let limit = (weights + moments) / 2 / 512 * 512;
        let output = resume_with_short_files(&shards, &out, limit, trap);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if trap.is_empty() {
            assert!(output.status.signal().is_some(), "{}: {stderr}", output.status);
            assert_eq!(size(&next, "model.safetensors"), weights);
            assert!(size(&next, "optimizer.safetensors") < moments && !next.join("training_state.json").exists());
        } else {
            assert!(stderr.contains("cannot save") && stderr.contains("step-00000002 is intact"), "{stderr}");
            assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
            assert!(!next.exists(), "the incomplete checkpoint is removed");
        }
        assert_eq!(files(&last), before);

        run(&recipe, &out, true).unwrap();
        assert!(!next.exists(), "the incomplete checkpoint is removed");
        assert_same_files(&uninterrupted.join("model"), &out.join("model"));
        assert_same_files(&uninterrupted.join("checkpoints/step-00000006"), &out.join("checkpoints/step-00000006"));
        assert_eq!(losses(&uninterrupted), losses(&out));
    }
}
