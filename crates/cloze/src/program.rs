//! Commands that the user can copy: the name of this program, and words quoted for a shell.

use std::path::{Path, PathBuf};

/// How to call_of this program: `cloze` if PATH leads to this file, else its path.
pub fn name() -> String {
    let Ok(this) = std::env::current_exe() else { return "cloze".to_owned() };
    let here = std::env::current_dir().ok();
    call_of(&this, std::env::var_os("PATH").as_deref(), here.as_deref())
}

fn call_of(this: &Path, path: Option<&std::ffi::OsStr>, here: Option<&Path>) -> String {
    let this = canonical(this);
    let file = format!("cloze{}", std::env::consts::EXE_SUFFIX);
    let found =
        path.and_then(|path| std::env::split_paths(path).map(|dir| dir.join(&file)).find(|file| file.is_file()));
    if found.is_some_and(|found| canonical(&found) == this) {
        return "cloze".to_owned();
    }
    match here.map(canonical).and_then(|here| this.strip_prefix(here).ok().map(Path::to_path_buf)) {
        // A shell looks up a name without a slash in PATH only.
        Some(below) if below.components().count() == 1 => quoted(Path::new(".").join(below).display()),
        Some(below) => quoted(below.display()),
        None => quoted(this.display()),
    }
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A word quoted for a shell if necessary.
pub fn quoted(word: impl ToString) -> String {
    let word = word.to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_special_characters_are_quoted() {
        assert_eq!(quoted("runs/mini"), "runs/mini");
        assert_eq!(quoted("my runs"), "'my runs'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("model={init=\"x\"}"), "'model={init=\"x\"}'");
    }

    /// Regression: under `cargo run` the quickstart printed `cloze fill …`, which the shell does not find.
    #[test]
    fn printed_commands_find_this_program() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("target/release");
        std::fs::create_dir_all(&bin).unwrap();
        let this = bin.join(format!("cloze{}", std::env::consts::EXE_SUFFIX));
        std::fs::write(&this, "").unwrap();
        let below = Path::new("target/release").join(this.file_name().unwrap());
        assert_eq!(call_of(&this, None, Some(dir.path())), below.display().to_string());
        assert!(call_of(&this, None, Some(&bin)).starts_with("./cloze"));
        assert_eq!(call_of(&this, Some(bin.as_os_str()), Some(dir.path())), "cloze");
        // Another program of that name comes first in PATH.
        let other = dir.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join(this.file_name().unwrap()), "x").unwrap();
        let path = std::env::join_paths([&other, &bin]).unwrap();
        assert_eq!(call_of(&this, Some(&path), None), this.canonicalize().unwrap().display().to_string());
    }
}
