//! Help for each kind of task, completions, man pages, the version and colours.

use std::process::{Command, Output, Stdio};

use crate::common::text;

fn cloze_in(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloze"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CLOZE_CPU"] {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output().expect("the binary runs")
}

#[track_caller]
fn success(arguments: &[&str]) -> String {
    let output = cloze_in(arguments, &[]);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The options listed in a help text.
fn options(help: &str) -> Vec<String> {
    // Skip the options in examples.
    let help = help.split("\nExample").next().unwrap_or_default();
    let listed = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.split_once(", --").map_or(line.strip_prefix("--"), |(short, long)| {
            (short.len() == 2 && short.starts_with('-')).then_some(long)
        })?;
        Some(line.split([' ', ',', '[', '=']).next().unwrap_or_default().to_owned())
    });
    listed.collect()
}

/// Regression: all kinds of tasks had the same help, with --stride and --n-best for classify.
#[test]
fn help_shows_only_the_options_of_the_chosen_kind() {
    let all = |command: &[&str]| options(&success(&[command, &["--help"]].concat()));
    for (command, there, absent) in [
        (
            &["finetune", "classify"][..],
            "text label class-weights stride lr features bilstm",
            "n-best tag-format context max-question long",
        ),
        (&["finetune", "tag"], "tag-format tag-column context labels", "text pair stride metric n-best"),
        (
            &["finetune", "answer"],
            "stride max-question null-threshold",
            "text label labels metric context class-weights n-best",
        ),
        (&["finetune", "choose"], "max-len lr", "text label labels stride context null-threshold"),
        (&["finetune", "regress"], "text pair label metric", "labels class-weights n-best"),
        (&["finetune", "rerank"], "text pair label metric loss", "labels stride class-weights n-best"),
        (&["predict", "rerank"], "text pair max-len", "label loss stride long metric"),
        (&["sweep", "regress"], "lrs batches epochs-list warmup metric", "lr batch epochs labels n-best"),
        (&["predict", "classify"], "text pair max-len stride long", "label labels metric n-best context"),
        (&["predict", "answer"], "n-best null-threshold stride", "text label skip-bad tag-format"),
        (&["evaluate", "tag"], "tag-format bootstrap context", "labels text n-best stride"),
        (&["finetune"], "task model train recipe out resume dry-run", "lr stride n-best text warmup"),
        (&["sweep"], "task model lrs resume dry-run", "lr stride n-best text warmup"),
        (&["evaluate"], "model data text label", "n-best stride tag-format labels"),
    ] {
        let listed = all(command);
        let lists = |option: &str| listed.iter().any(|found| found == option);
        assert!(there.split(' ').all(lists), "{command:?} lacks one of {there}: {listed:?}");
        assert!(!absent.split(' ').any(lists), "{command:?} has one of {absent}: {listed:?}");
    }
    // Each kind is listed with a description.
    for command in ["finetune", "sweep", "predict", "evaluate"] {
        let help = success(&[command, "--help"]);
        for kind in ["classify", "multi-label", "regress", "rerank", "tag", "answer", "choose"] {
            assert!(help.lines().any(|line| line.trim_start().starts_with(kind)), "{command}: {help}");
        }
    }
}

/// Regression: `finetune --help` had 220 lines, `sweep` 229.
#[test]
fn help_is_short() {
    let lines = |words: &[&str]| success(words).lines().count();
    for (words, most) in [
        (&["finetune", "-h"][..], 50),
        (&["finetune", "--help"], 110),
        (&["finetune", "classify", "-h"], 60),
        (&["predict", "-h"], 45),
        (&["evaluate", "-h"], 55),
        (&["sweep", "-h"], 52),
        (&["-h"], 55),
    ] {
        let found = lines(words);
        assert!(found <= most, "{words:?}: {found} lines, {most} expected at most");
    }
    assert!(lines(&["finetune", "classify", "-h"]) < lines(&["finetune", "classify", "--help"]));
}

#[test]
fn main_help_has_exit_codes_environment_and_examples() {
    let help = success(&["--help"]);
    for part in [
        "Exit codes:",
        "130",
        "Environment:",
        "CLOZE_CPU",
        "NO_COLOR",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "cloze finetune classify",
        "cloze predict",
        "cloze embed",
        "--color",
        "--verbose",
        "completions",
        "man",
    ] {
        assert!(help.contains(part), "{part} is not in: {help}");
    }
    assert!(success(&["-h"]).contains("cloze --help"));
}

#[test]
fn completions_have_no_hidden_options() {
    for (shell, mark) in [
        ("bash", "complete -F _cloze"),
        ("zsh", "#compdef cloze"),
        ("fish", "complete -c cloze"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion:arg-completer[cloze]"),
    ] {
        let script = success(&["completions", shell]);
        assert!(script.contains(mark) && script.contains("finetune") && script.contains("retrieval"), "{shell}");
    }
    let fish = success(&["completions", "fish"]);
    let offers = |kind: &str, option: &str| {
        let place = format!("; and __fish_seen_subcommand_from {kind}\"");
        fish.lines()
            .any(|line| line.contains("finetune") && line.contains(&place) && line.contains(&format!("-l {option} ")))
    };
    assert!(offers("classify", "stride") && offers("tag", "tag-format"));
    assert!(!offers("tag", "stride") && !offers("classify", "tag-format"));
}

#[test]
fn every_command_has_a_man_page() {
    let page = success(&["man"]);
    assert!(page.contains(".TH cloze 1") && page.contains("CLOZE_CPU") && page.contains("Exit codes"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man1");
    success(&["man", "--out", out.to_str().unwrap(), "--quiet"]);
    for name in ["cloze", "cloze-finetune", "cloze-finetune-classify", "cloze-evaluate-retrieval", "cloze-bench-train"]
    {
        let page = std::fs::read_to_string(out.join(format!("{name}.1"))).expect(name);
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
    }
    let classify = std::fs::read_to_string(out.join("cloze-finetune-classify.1")).unwrap();
    assert!(classify.contains("class\\-weights") && !classify.contains("tag\\-format"), "{classify}");
    // The page without a kind has all options.
    let finetune = std::fs::read_to_string(out.join("cloze-finetune.1")).unwrap();
    assert!(finetune.contains("class\\-weights") && finetune.contains("tag\\-format"));
    // Regression: options that are only in the long help had no description.
    assert!(classify.contains("Use only the first N training rows"), "{classify}");
}

#[test]
fn version_includes_the_commit_if_known() {
    let version = success(&["--version"]);
    let rest = version.trim_end().strip_prefix(concat!("cloze ", env!("CARGO_PKG_VERSION"))).expect("a version");
    let Some(commit) = rest.strip_prefix(" (") else {
        assert_eq!(rest, "");
        let is_checkout = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.git").exists();
        assert!(!is_checkout, "built in a checkout, but {version:?} names no commit");
        return;
    };
    let commit = commit.strip_suffix(')').expect("a closing bracket");
    let (hash, date) = commit.split_once(' ').unwrap_or((commit, ""));
    assert!(hash.len() >= 7 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
    assert!(date.is_empty() || date.split('-').count() == 3, "{version}");
}

#[test]
fn colours_follow_the_option_and_the_environment() {
    let coloured = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = cloze_in(arguments, variables);
        (text(&output.stdout) + &text(&output.stderr)).contains('\x1b')
    };
    // A failure, a parser error, and help.
    for arguments in [&["fill", "--model", "absent", "a [MASK]"][..], &["fill", "--nonsense"], &["fill", "--help"]] {
        assert!(!coloured(arguments, &[]), "{arguments:?}: a pipe");
        let with = |color: &'static str| [arguments, &["--color", color]].concat();
        assert!(coloured(&[&["--color=always"], arguments].concat(), &[("NO_COLOR", "1")]), "{arguments:?}");
        assert!(!coloured(&with("never"), &[("CLICOLOR_FORCE", "1")]), "{arguments:?}");
        assert!(coloured(&with("auto"), &[("CLICOLOR_FORCE", "1")]), "{arguments:?}");
        assert!(!coloured(&with("auto"), &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "{arguments:?}");
    }
}
