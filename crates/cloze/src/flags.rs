//! Translates option names in the libraries' messages: the libraries write `` `max_len` ``, and the user of the program
//! reads `--max-len`.

use std::borrow::Cow;
use std::sync::OnceLock;

use clap::ArgMatches;

/// The long flags of the running command, without the leading dashes.
static FLAGS: OnceLock<Vec<String>> = OnceLock::new();

/// Stores the flags of the selected command. Only the first call has an effect.
pub fn set(program: &clap::Command, matches: &ArgMatches) {
    let _ = FLAGS.set(selected_flags(program, matches));
}

/// The flags of the selected subcommand, and those of the commands above it.
fn selected_flags(command: &clap::Command, matches: &ArgMatches) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned));
    let mut flags: Vec<String> = own.collect();
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        flags.extend(selected_flags(command, matches));
    }
    flags
}

/// Replaces option names in a message by the running command's flags.
pub fn in_message(message: &str) -> Cow<'_, str> {
    FLAGS.get().map_or(Cow::Borrowed(message), |flags| with_flags(message, flags))
}

/// Replaces `` `name` `` by `--name`, and `` `name = value` `` by `--name value`, where `name` is one of the flags with
/// `_` for `-`. Everything else between backticks, such as recipe keys, is left unchanged.
fn with_flags<'a>(message: &'a str, flags: &[String]) -> Cow<'a, str> {
    let mut parts = message.split('`');
    let mut replaced = String::with_capacity(message.len());
    replaced.push_str(parts.next().unwrap_or_default());
    let mut parts = parts.peekable();
    let mut has_replaced = false;
    while let Some(part) = parts.next() {
        // The last part has no backtick after it.
        let is_quoted = parts.peek().is_some();
        match flag(part, flags).filter(|_| is_quoted) {
            Some(flag) => {
                replaced.push_str(&flag);
                replaced.push_str(parts.next().unwrap_or_default());
                has_replaced = true;
            }
            None => {
                replaced.push('`');
                replaced.push_str(part);
            }
        }
    }
    if has_replaced { Cow::Owned(replaced) } else { Cow::Borrowed(message) }
}

/// The flag for a library's option, if the command has it.
fn flag(option: &str, flags: &[String]) -> Option<String> {
    let end = option.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_').unwrap_or(option.len());
    let (name, value) = option.split_at(end);
    let flag = flags.iter().find(|flag| flag.len() == name.len() && flag.replace('-', "_") == name)?;
    let value = value.strip_prefix(" = ").map_or_else(|| value.to_owned(), |value| format!(" {value}"));
    Some(format!("--{flag}{value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_of_the_command_become_flags() {
        let flags = ["max-len".to_owned(), "set".to_owned(), "out".to_owned()];
        let cases = [
            ("lower `max_len` to 512", "lower --max-len to 512"),
            ("`set steps=x`: unknown", "--set steps=x: unknown"),
            ("use `max_len = 128`, or another `out`", "use --max-len 128, or another --out"),
            ("`optimizer.lr` is 0; `max-len`", "`optimizer.lr` is 0; `max-len`"),
            ("`steps` and `max_len`", "`steps` and --max-len"),
            ("one ` and then `max_len", "one ` and then `max_len"),
            ("`max_len``out`", "--max-len--out"),
            ("", ""),
        ];
        for (message, expected) in cases {
            assert_eq!(with_flags(message, &flags), expected);
        }
    }

    #[test]
    fn flags_of_the_selected_command_are_collected() {
        let with_flag = |name: &'static str, flag: &'static str| {
            clap::Command::new(name).arg(clap::Arg::new(flag).long(flag).num_args(0..=1))
        };
        let program = with_flag("p", "quiet").subcommand(with_flag("a", "max-len")).subcommand(with_flag("b", "out"));
        let matches = program.clone().get_matches_from(["p", "a"]);
        assert_eq!(selected_flags(&program, &matches), ["quiet", "max-len"]);
    }
}
