//! Shows a vocabulary: size, special tokens, kinds of pieces.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use cloze_text::Tokenizer;
use serde_json::json;

use super::arguments::Arguments;
use super::tokenizer::{as_json, casing, details};
use crate::commands::tokenizer::show_notes;
use crate::format;
use crate::terminal::Terminal;

pub(super) fn show(path: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let tokenizer = Tokenizer::open(path)?;
    let special = tokenizer.special();
    let specials = special.all();
    let size = tokenizer.vocab_size();
    let ordinary = || (0..size as u32).filter(|id| !specials.contains(id));
    let continuations = ordinary().filter(|&id| tokenizer.is_continuation(id)).count();
    let characters = ordinary().filter(|&id| tokenizer.piece_text(id).chars().count() == 1).count();
    let unused = ordinary().filter(|&id| tokenizer.token(id).is_some_and(|token| token.starts_with("[unused"))).count();
    let mut longest: Vec<&str> = ordinary().filter_map(|id| tokenizer.token(id)).collect();
    longest.sort_by_key(|token| std::cmp::Reverse(token.chars().count()));
    longest.truncate(10);
    // The last tokens were the least frequent in training. They show whether the size suits the corpus.
    let last: Vec<&str> = (size.saturating_sub(10)..size).filter_map(|id| tokenizer.token(id as u32)).collect();

    let mut out = crate::output::stdout();
    if arguments.json {
        let line = json!({
            "kind": "vocabulary", "path": format::path(path), "tokenizer": as_json(&tokenizer), "vocab_size": size, "cased": tokenizer.is_cased(),
            "fingerprint": tokenizer.fingerprint(),
            "special": {"pad": special.pad, "unk": special.unk, "cls": special.cls, "sep": special.sep, "mask": special.mask},
            "words": size - specials.len() - continuations, "continuations": continuations, "characters": characters,
            "unused": unused, "longest": longest, "last": last,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let count = |value: usize| format::count(value as u64);
    writeln!(out, "{} {}", terminal.bold("vocabulary"), path.display())?;
    writeln!(out, "  tokens         {}, {}", count(size), casing(&tokenizer))?;
    for (name, line) in details(&tokenizer) {
        writeln!(out, "  {name:<13}  {line}")?;
    }
    writeln!(
        out,
        "  pieces         {} start a word, {} continue one{}, {} are single characters",
        count(size - specials.len() - continuations),
        count(continuations),
        if tokenizer.model() == "WordPiece" { " (##)" } else { "" },
        count(characters)
    )?;
    if unused > 0 {
        writeln!(out, "  unused         {} placeholders", count(unused))?;
    }
    let named = specials.map(|id| format!("{} {id}", tokenizer.token(id).unwrap_or_default()));
    writeln!(out, "  special        {}", named.join(", "))?;
    writeln!(out, "  fingerprint    {}", tokenizer.fingerprint())?;
    writeln!(out, "  longest        {}", longest.join(" "))?;
    writeln!(out, "  last           {}", last.join(" "))?;
    show_notes(&tokenizer, terminal);
    Ok(())
}
