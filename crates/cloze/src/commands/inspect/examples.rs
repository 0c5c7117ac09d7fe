//! Decoded example sequences, with coloured segments and marked predicted tokens.

use std::io::Write;

use anyhow::Result;
use cloze_data::TokenTable;
use cloze_data::batch::{BatchOptions, BatchSize, BatchSource, Example, PairTask, describe};
use cloze_data::shards::Documents;
use cloze_text::Tokenizer;
use serde_json::json;

use crate::terminal::Terminal;

/// Bold yellow, for predicted tokens.
const LABEL: &str = "1;33";
/// Cyan and green, for the segments. Plain blue is too dark on a black background.
const SEGMENTS: [&str; 2] = ["36", "32"];
const DIM: &str = "2";

/// Prints the first `count` sequences for these options.
pub(super) fn show(
    out: &mut dyn Write,
    documents: &Documents,
    tokenizer: &Tokenizer,
    options: &BatchOptions,
    count: usize,
    json: bool,
    terminal: &Terminal,
) -> Result<()> {
    if count == 0 || documents.is_empty() {
        return Ok(());
    }
    let mut options = options.clone();
    options.size = BatchSize::Sequences(count);
    let pairs = options.pairs;
    let source = BatchSource::new(documents.clone(), TokenTable::from(tokenizer), options)?;
    for (number, example) in describe(&source.batch(0), tokenizer).iter().enumerate() {
        if json {
            let pieces = |pick: fn(&cloze_data::batch::ExamplePiece) -> serde_json::Value| {
                example.pieces.iter().map(pick).collect::<Vec<_>>()
            };
            let mut line = json!({
                "kind": "example",
                "tokens": pieces(|piece| json!(piece.token)),
                "segments": pieces(|piece| json!(piece.segment)),
                "labels": pieces(|piece| json!(piece.label)),
            });
            let key = if pairs == PairTask::Sop { "swapped" } else { "random_next" };
            line[key] = json!(example.pair_label.map(|label| label == 1));
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "\n{}", heading(number + 1, example, pairs, terminal))?;
            writeln!(out, "{}", text(example, terminal))?;
        }
    }
    Ok(())
}

fn heading(number: usize, example: &Example, pairs: PairTask, terminal: &Terminal) -> String {
    let predicted = example.pieces.iter().filter(|piece| piece.label.is_some()).count();
    let relation = match (pairs, example.pair_label) {
        (PairTask::Nsp, Some(1)) => ", B is from another document (label 1)",
        (PairTask::Sop, Some(1)) => ", A continues B: swapped (label 1)",
        (_, Some(_)) => ", B continues A (label 0)",
        (_, None) => "",
    };
    let line = format!("example {number}: {} tokens, {predicted} predicted{relation}", example.pieces.len());
    terminal.bold(&line)
}

fn text(example: &Example, terminal: &Terminal) -> String {
    let words: Vec<String> = example
        .pieces
        .iter()
        .map(|piece| {
            let segment = SEGMENTS[usize::from(piece.segment.min(1))];
            match &piece.label {
                Some(label) if *label == piece.token => {
                    format!("{}{}", terminal.paint(segment, label), terminal.paint(LABEL, "="))
                }
                Some(label) => {
                    format!("{}{}", terminal.paint(DIM, &piece.token), terminal.paint(LABEL, &format!("→{label}")))
                }
                None if piece.added => terminal.paint(DIM, &piece.token),
                None => terminal.paint(segment, &piece.token),
            }
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use cloze_data::batch::ExamplePiece;

    use super::*;
    use crate::terminal::{ColorChoice, Verbosity};

    #[test]
    fn examples_are_readable_without_colours() {
        let piece = |token: &str, label: Option<&str>, segment| ExamplePiece {
            token: token.into(),
            label: label.map(str::to_string),
            segment,
            added: ["[CLS]", "[SEP]"].contains(&token),
        };
        let example = Example {
            pieces: vec![
                piece("[CLS]", None, 0),
                piece("the", Some("the"), 0),
                piece("[MASK]", Some("cat"), 0),
                piece("[SEP]", None, 0),
                piece("oak", Some("sat"), 1),
            ],
            pair_label: Some(1),
        };
        let mut plain = Terminal::detect(ColorChoice::Never, Verbosity::Quiet, None);
        assert_eq!(text(&example, &plain), "[CLS] the= [MASK]→cat [SEP] oak→sat");
        assert!(heading(1, &example, PairTask::Nsp, &plain).contains("3 predicted, B is from another document"));
        assert!(heading(1, &example, PairTask::Sop, &plain).contains("3 predicted, A continues B: swapped"));
        plain.colour = true;
        assert!(text(&example, &plain).contains("\x1b[1;33m→cat\x1b[0m"));
    }
}
