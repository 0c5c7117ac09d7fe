//! Commands to be pasted: how this program is called, and how a shell is given a word.

use std::path::{Path, PathBuf};

/// What calls this program: `cloze` where the shell finds this very program by it, else its path.
pub fn name() -> String {
    let Ok(this) = std::env::current_exe() else { return "cloze".to_owned() };
    let here = std::env::current_dir().ok();
    call(&this, std::env::var_os("PATH").as_deref(), here.as_deref())
}

fn call(this: &Path, path: Option<&std::ffi::OsStr>, here: Option<&Path>) -> String {
    let this = real(this);
    let file = format!("cloze{}", std::env::consts::EXE_SUFFIX);
    let found =
        path.and_then(|path| std::env::split_paths(path).map(|dir| dir.join(&file)).find(|file| file.is_file()));
    if found.is_some_and(|found| real(&found) == this) {
        return "cloze".to_owned();
    }
    match here.map(real).and_then(|here| this.strip_prefix(here).ok().map(Path::to_path_buf)) {
        // A shell looks for a plain name in PATH alone.
        Some(below) if below.components().count() == 1 => quoted(Path::new(".").join(below).display()),
        Some(below) => quoted(below.display()),
        None => quoted(this.display()),
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A word as a shell reads it.
pub fn quoted(word: impl ToString) -> String {
    let word = word.to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_cut_them() {
        assert_eq!(quoted("runs/mini"), "runs/mini");
        assert_eq!(quoted("my runs"), "'my runs'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("model={init=\"x\"}"), "'model={init=\"x\"}'");
    }

    /// The quickstart, called by `cargo run`, said `cloze fill …`: command not found.
    #[test]
    fn the_program_is_called_by_what_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("target/release");
        std::fs::create_dir_all(&bin).unwrap();
        let this = bin.join(format!("cloze{}", std::env::consts::EXE_SUFFIX));
        std::fs::write(&this, "").unwrap();
        let below = Path::new("target/release").join(this.file_name().unwrap());
        assert_eq!(call(&this, None, Some(dir.path())), below.display().to_string());
        assert!(call(&this, None, Some(&bin)).starts_with("./cloze"));
        assert_eq!(call(&this, Some(bin.as_os_str()), Some(dir.path())), "cloze");
        // Another program of that name comes first in PATH.
        let other = dir.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join(this.file_name().unwrap()), "x").unwrap();
        let path = std::env::join_paths([&other, &bin]).unwrap();
        assert_eq!(call(&this, Some(&path), None), this.canonicalize().unwrap().display().to_string());
    }
}
