//! Tells the program the commit that it is built from, for `cloze --version`.
//!
//! CLOZE_COMMIT says it where it is set, as for an image, which is built without the repository; in a checkout git does; in a package
//! of `cargo package` the file that cargo wrote does; elsewhere (a tarball, or a machine without git) only the version is shown.
#![allow(clippy::print_stdout, reason = "talks to cargo by its standard output")]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The library has no use for the commit.
    if std::env::var_os("CARGO_FEATURE_CLI").is_none() {
        return;
    }
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match from_environment().or_else(from_git).or_else(from_package) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=CLOZE_VERSION={version}");
}

/// The commit from the environment of the build; a whole hash is shortened.
fn from_environment() -> Option<String> {
    const NAME: &str = "CLOZE_COMMIT";
    println!("cargo::rerun-if-env-changed={NAME}");
    let given = std::env::var(NAME).ok()?;
    let commit = given.split_whitespace().next()?;
    let is_hash = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(if is_hash { commit[..9].to_owned() } else { commit.to_owned() })
}

/// The commit and its date, if this folder is part of a repository: a package unpacked within another's is not.
fn from_git() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let commit = git(&["log", "-1", "--format=%h %cs"])?;
    // What changes when the commit does. Cargo takes a missing file for a changed one.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    Some(commit)
}

/// The commit as `cargo package` wrote it down: `"sha1": "…"`.
fn from_package() -> Option<String> {
    const FILE: &str = ".cargo_vcs_info.json";
    let text = std::fs::read_to_string(FILE).ok()?;
    println!("cargo::rerun-if-changed={FILE}");
    let (_, rest) = text.split_once("\"sha1\"")?;
    let hash = rest.split('"').nth(1)?;
    Some(hash.get(..9)?.to_owned())
}

/// What git prints, run in the package's folder; nothing if it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
