//! A run killed in the middle of a save, stopped by a signal, and out of room for its files: each resumed, each ending
//! with the weights of an uninterrupted run.
//!
//! This binary is its own child: with the first argument `child` it trains, else it is the test.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its own test harness")]

#[cfg(unix)]
mod corpus;

#[cfg(unix)]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("child") => child(&arguments[1..]),
        Some("--list") => println!("kill_and_resume: test"),
        // As libtest does: a filter that does not name this test skips it.
        _ => {
            let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
            if filters.is_empty() || filters.iter().any(|f| "kill_and_resume".contains(f.as_str())) {
                test();
            }
        }
    }
}

#[cfg(not(unix))]
fn main() {
    println!("skipped: signals of this kind exist on Unix alone");
}

/// `child SHARDS OUT STEPS new|resume`
#[cfg(unix)]
fn child(arguments: &[String]) {
    use cloze_train::pretrain::{device_of_run, pretrain};
    use std::path::Path;
    let [shards, out, steps, how] = arguments else { panic!("child SHARDS OUT STEPS new|resume") };
    let steps = format!("steps={steps}");
    let every_step = ["checkpoint.every=1", "eval.every=0", "log.every=1", "model.hidden_size=64"];
    let recipe = corpus::recipe(Path::new(shards), &[&[steps.as_str()], every_step.as_slice()].concat());
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, std::sync::Arc::clone(&stop)).unwrap();
    }
    let (out, resume) = (Path::new(out), how == "resume");
    let device = device_of_run(&recipe, out, resume).unwrap();
    match pretrain(&recipe, &device, out, resume, &stop, &mut |_| ()) {
        Ok(outcome) => println!("{} steps, finished: {}", outcome.step, outcome.finished),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1);
        }
    }
}

#[cfg(unix)]
fn test() {
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};
    use std::time::{Duration, Instant};

    const STEPS: &str = "8";
    let dir = tempfile::tempdir().unwrap();
    // A large vocabulary, so that saving takes some time.
    let shards = corpus::make_shards(dir.path(), 8000);
    let exe = std::env::current_exe().unwrap();
    let command = |out: &Path, steps: &str, how: &str| {
        let mut command = Command::new(&exe);
        command.arg("child").arg(&shards).arg(out).args([steps, how]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let finish = |out: &Path, how: &str| {
        let done: Output = command(out, STEPS, how).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{how} {}: {said}", out.display());
    };
    let checkpoints = |out: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(out.join("checkpoints")).into_iter().flatten();
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    let half_written = |out: &Path| checkpoints(out).into_iter().find(|n| n.ends_with(".partial"));
    let is_whole = |out: &Path, step: u64| out.join(format!("checkpoints/step-{step:08}")).exists();

    let whole = dir.path().join("whole");
    finish(&whole, "new");

    // Killed while a folder is half written, after the first whole checkpoint. Whether the kill came in time is seen by
    // what it left; if not, once more in another folder.
    let mut killed: Option<PathBuf> = None;
    for attempt in 0..20 {
        let out = dir.path().join(format!("killed-{attempt}"));
        let mut run = command(&out, STEPS, "new").spawn().unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) && run.try_wait().unwrap().is_none() {
            if is_whole(&out, 1) && half_written(&out).is_some() {
                run.kill().unwrap();
                break;
            }
        }
        run.wait().unwrap();
        if half_written(&out).is_some() {
            killed = Some(out);
            break;
        }
    }
    let killed = killed.expect("one of twenty kills finds a half-written checkpoint");
    finish(&killed, "resume");
    assert_eq!(half_written(&killed), None, "what was half written is gone");
    corpus::assert_same_files(&whole.join("model"), &killed.join("model"));
    corpus::assert_same_files(&whole.join("checkpoints/step-00000008"), &killed.join("checkpoints/step-00000008"));
    assert_eq!(corpus::losses(&whole), corpus::losses(&killed));

    // SIGTERM: the step is finished and saved, and the run ends in peace.
    let stopped = dir.path().join("stopped");
    let run = command(&stopped, STEPS, "new").spawn().unwrap();
    let began = Instant::now();
    while !is_whole(&stopped, 1) && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap();
    let done = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}");
    if said.contains("finished: false") {
        assert!(stopped.join("model").join("model.safetensors").is_file());
        finish(&stopped, "resume");
    }
    corpus::assert_same_files(&whole.join("model"), &stopped.join("model"));

    // No room: files may not grow past a limit, as on a full disk. What was saved before stays.
    let full = dir.path().join("full");
    let two = command(&full, "2", "new").output().unwrap();
    assert!(two.status.success());
    let before = corpus::files(&full.join("checkpoints/step-00000002"));
    let limited = Command::new("sh")
        .args(["-c", "ulimit -f 200; trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(&exe)
        .arg("child")
        .arg(&shards)
        .arg(&full)
        .args([STEPS, "resume"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert!(!limited.status.success());
    assert!(said.contains("cannot save") && said.contains("step-00000002 is intact"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    assert_eq!(corpus::files(&full.join("checkpoints/step-00000002")), before);
    assert_eq!(half_written(&full), None);
    finish(&full, "resume");
    println!("kill_and_resume ... ok");
}
