//! Texts that help pages have in common, and commands in them that can be pasted.

use clap::Command;
use clap::builder::StyledStr;

/// Columns of the narrowest terminal that help is written for: what is to be pasted must not be wrapped there.
pub const COLUMNS: usize = 80;

/// Commands as a section of a help page.
pub fn examples(commands: &[&str]) -> String {
    let heading = if commands.len() == 1 { "Example:" } else { "Examples:" };
    let lines = commands.iter().map(|command| format!("{INDENT}{command}"));
    std::iter::once(heading.to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
}

/// What a command does in detail, and examples.
pub fn details(text: &str, commands: &[&str]) -> String {
    format!("{text}\n\n{}", examples(commands))
}

/// A program in whose help every example can be pasted as it stands: one that is too long for a line goes on in the next after a
/// backslash, where a terminal would break it without one.
pub fn pasteable(command: Command) -> Command {
    let folded = |text: &StyledStr| text.to_string().lines().map(folded).collect::<Vec<_>>().join("\n");
    let (short, long) = (command.get_after_help().map(folded), command.get_after_long_help().map(folded));
    let command = match short {
        Some(text) => command.after_help(text),
        None => command,
    };
    let command = match long {
        Some(text) => command.after_long_help(text),
        None => command,
    };
    command.mut_subcommands(pasteable)
}

const INDENT: &str = "  ";

/// The command of a line that is an example.
fn example(line: &str) -> Option<&str> {
    let command = line.strip_prefix(INDENT).filter(|rest| !rest.starts_with(' '))?;
    (command.starts_with("cloze ") || command.contains("| cloze ")).then_some(command)
}

/// A line, which becomes several if it is an example that is too long for one.
fn folded(line: &str) -> String {
    match example(line) {
        Some(command) if line.chars().count() > COLUMNS => folded_command(command),
        _ => line.to_owned(),
    }
}

/// A command in lines of its own.
fn folded_command(command: &str) -> String {
    const DEEPER: &str = "      ";
    const GOES_ON: &str = " \\";
    let (mut lines, mut line) = (Vec::new(), INDENT.to_owned());
    for unit in units(command) {
        let is_empty = line.trim().is_empty();
        if !is_empty && line.chars().count() + 1 + unit.chars().count() + GOES_ON.len() > COLUMNS {
            lines.push(line + GOES_ON);
            line = DEEPER.to_owned() + &unit;
        } else {
            if !is_empty {
                line.push(' ');
            }
            line += &unit;
        }
    }
    lines.push(line);
    lines.join("\n")
}

/// The parts between which a command may be broken: its name and the first words, then each option with its values.
fn units(command: &str) -> Vec<String> {
    let mut units: Vec<String> = Vec::new();
    for word in quoted_words(command) {
        match units.last_mut() {
            Some(last) if !word.starts_with('-') || word == "-" => {
                last.push(' ');
                last.push_str(&word);
            }
            _ => units.push(word),
        }
    }
    units
}

/// The words of a command as a shell separates them, their quotes kept.
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
    fn a_long_command_goes_on_after_a_backslash() {
        let command = format!("cloze fill --model {} --top 10 \"one 'text' in quotes\"", "x".repeat(40));
        let lines =
            [format!("  cloze fill --model {} \\", "x".repeat(40)), "      --top 10 \"one 'text' in quotes\"".into()];
        assert_eq!(folded(&format!("  {command}")), lines.join("\n"));
        // Text that is not an example is wrapped by the terminal.
        let text = format!("about {command}");
        assert_eq!(folded(&text), text);
        assert_eq!(folded("  cloze quickstart"), "  cloze quickstart");
        assert_eq!(units("cloze x - --a b -c"), ["cloze x -", "--a b", "-c"]);
        assert_eq!(details("a b", &["cloze man"]), "a b\n\nExample:\n  cloze man");
    }

    /// The commands of a help text, each in one line.
    fn commands_of(help: &str) -> Vec<String> {
        let joined = help.replace("\\\n", " ");
        let commands = joined.lines().filter_map(example);
        // What feeds a command or takes its output is the shell's.
        let own = commands.filter_map(|line| line.split(" | ").find(|part| part.starts_with("cloze ")));
        own.filter_map(|command| command.split(['<', '>']).next().map(str::to_owned)).collect()
    }

    fn for_each_help(command: &Command, check: &mut dyn FnMut(&str, &str)) {
        let text = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string).unwrap_or_default();
        check(command.get_name(), &text(command.get_after_help()));
        check(command.get_name(), &text(command.get_after_long_help()));
        command.get_subcommands().for_each(|command| for_each_help(command, check));
    }

    /// Examples were wrapped in the middle of a command, so that pasting them failed; others had options that are not there.
    #[test]
    fn examples_can_be_pasted() {
        let mut seen = 0;
        for_each_help(&crate::command(), &mut |name, help| {
            // Lines of code are indented; running text is wrapped by the terminal's width.
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
    fn what_is_around_a_command_is_the_shells() {
        let help = "Examples:\n  zcat a.gz | cloze vocab --input - \\\n      --out v\n  cloze inspect m --json | jq .name\n  cloze fill --model m < lines\nText about cloze fill\n";
        let found = commands_of(help);
        assert_eq!(found, ["cloze vocab --input -        --out v", "cloze inspect m --json", "cloze fill --model m "]);
    }
}
