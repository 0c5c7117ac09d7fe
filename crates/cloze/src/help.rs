//! Shared parts of help texts. Example commands in them can be copied into a shell.

use clap::Command;
use clap::builder::StyledStr;

/// Width in columns of the narrowest supported terminal. Example commands must fit, or the terminal would wrap them.
pub const COLUMNS: usize = 80;

/// A section of a help text that lists example commands.
pub fn examples(commands: &[&str]) -> String {
    let heading = if commands.len() == 1 { "Example:" } else { "Examples:" };
    let lines = commands.iter().map(|command| format!("{INDENT}{command}"));
    std::iter::once(heading.to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
}

/// The long description of a command, followed by examples.
pub fn details(text: &str, commands: &[&str]) -> String {
    format!("{text}\n\n{}", examples(commands))
}

/// Wraps the example commands in all help texts with a backslash at the end of the line, so that each can be copied
/// into a shell. The terminal would break a long line without one.
pub fn wrap_examples(command: Command) -> Command {
    let wrap_text = |text: &StyledStr| text.to_string().lines().map(wrap_line).collect::<Vec<_>>().join("\n");
    let (short, long) = (command.get_after_help().map(wrap_text), command.get_after_long_help().map(wrap_text));
    let command = match short {
        Some(text) => command.after_help(text),
        None => command,
    };
    let command = match long {
        Some(text) => command.after_long_help(text),
        None => command,
    };
    command.mut_subcommands(wrap_examples)
}

const INDENT: &str = "  ";

/// The command, if the line is an example.
fn example(line: &str) -> Option<&str> {
    let command = line.strip_prefix(INDENT).filter(|rest| !rest.starts_with(' '))?;
    (command.starts_with("cloze ") || command.contains("| cloze ")).then_some(command)
}

/// Splits an example that is longer than [`COLUMNS`] into several lines; returns other lines unchanged.
fn wrap_line(line: &str) -> String {
    match example(line) {
        Some(command) if line.chars().count() > COLUMNS => wrap_command(command),
        _ => line.to_owned(),
    }
}

/// Splits a long command over several lines.
fn wrap_command(command: &str) -> String {
    const CONTINUED_INDENT: &str = "      ";
    const CONTINUATION: &str = " \\";
    let (mut lines, mut line) = (Vec::new(), INDENT.to_owned());
    for part in breakable_parts(command) {
        let is_empty = line.trim().is_empty();
        if !is_empty && line.chars().count() + 1 + part.chars().count() + CONTINUATION.len() > COLUMNS {
            lines.push(line + CONTINUATION);
            line = CONTINUED_INDENT.to_owned() + &part;
        } else {
            if !is_empty {
                line.push(' ');
            }
            line += &part;
        }
    }
    lines.push(line);
    lines.join("\n")
}

/// The parts of a command between which a line may break: the command with its positional arguments, then each option
/// with its values.
fn breakable_parts(command: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for word in quoted_words(command) {
        match parts.last_mut() {
            Some(last) if !word.starts_with('-') || word == "-" => {
                last.push(' ');
                last.push_str(&word);
            }
            _ => parts.push(word),
        }
    }
    parts
}

/// Splits a command into words as a shell does, but keeps the quotes.
fn quoted_words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in command.chars() {
        match (letter, quote) {
            (' ', None) => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            _ => {
                match quote {
                    None if matches!(letter, '"' | '\'') => quote = Some(letter),
                    Some(open) if open == letter => quote = None,
                    _ => {}
                }
                word.push(letter);
            }
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_continue_after_a_backslash() {
        let command = format!("cloze fill --model {} --top 10 \"one 'text' in quotes\"", "x".repeat(40));
        let lines =
            [format!("  cloze fill --model {} \\", "x".repeat(40)), "      --top 10 \"one 'text' in quotes\"".into()];
        assert_eq!(wrap_line(&format!("  {command}")), lines.join("\n"));
        // The terminal wraps text that is not an example.
        let text = format!("about {command}");
        assert_eq!(wrap_line(&text), text);
        assert_eq!(wrap_line("  cloze quickstart"), "  cloze quickstart");
        assert_eq!(breakable_parts("cloze x - --a b -c"), ["cloze x -", "--a b", "-c"]);
        assert_eq!(details("a b", &["cloze man"]), "a b\n\nExample:\n  cloze man");
    }

    /// The `cloze` commands in a help text, each as one line.
    fn commands_of(help: &str) -> Vec<String> {
        let joined = help.replace("\\\n", " ");
        let commands = joined.lines().filter_map(example);
        // Skip pipes and redirections around the command.
        let cloze = commands.filter_map(|line| line.split(" | ").find(|part| part.starts_with("cloze ")));
        cloze.filter_map(|command| command.split(['<', '>']).next().map(str::to_owned)).collect()
    }

    fn for_each_help(command: &Command, check: &mut dyn FnMut(&str, &str)) {
        let text = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string).unwrap_or_default();
        check(command.get_name(), &text(command.get_after_help()));
        check(command.get_name(), &text(command.get_after_long_help()));
        command.get_subcommands().for_each(|command| for_each_help(command, check));
    }

    /// Regression: some examples were wrapped in the middle of a command, others had options that do not exist.
    #[test]
    fn examples_are_valid_commands_of_at_most_80_columns() {
        let mut seen = 0;
        for_each_help(&crate::command(), &mut |name, help| {
            // Code lines are indented. clap wraps the other lines to the terminal's width.
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() <= COLUMNS, "{name}: {} columns: {line}", line.chars().count());
            }
            for command in commands_of(help) {
                let words = quoted_words(&command).into_iter().map(|word| word.replace(['"', '\''], ""));
                let parsed = crate::command()
                    .try_get_matches_from(words)
                    .and_then(|matches| <crate::Arguments as clap::FromArgMatches>::from_arg_matches(&matches));
                assert!(
                    parsed.is_ok(),
                    "{name}: {command}: {}",
                    parsed.err().map(|e| e.to_string()).unwrap_or_default()
                );
                seen += 1;
            }
        });
        assert!(seen > 60, "only {seen} examples were found");
    }

    #[test]
    fn shell_pipes_and_redirections_are_removed() {
        let help = "Examples:\n  zcat a.gz | cloze vocab --input - \\\n      --out v\n  cloze inspect m --json | jq .name\n  cloze fill --model m < lines\nText about cloze fill\n";
        let found = commands_of(help);
        assert_eq!(found, ["cloze vocab --input -        --out v", "cloze inspect m --json", "cloze fill --model m "]);
    }
}
