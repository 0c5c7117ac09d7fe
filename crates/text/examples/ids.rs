//! Writes the ids of each line of standard input: the number of ids and the ids, as little-endian `u32`.
//!
//! `ids FOLDER [COPY [WORDS]]` opens the tokenizer in FOLDER and reads special tokens in texts as Transformers does. With COPY,
//! the tokenizer is saved there, and the copy is used; with WORDS, those of the file's lines that can be tokens are added first.
//! `fixtures/tokenizers/compare.py` compares the ids with Transformers.

#![expect(clippy::disallowed_methods, reason = "a tool of developers: an error of standard output may panic")]

use std::env::args_os;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufWriter, Write, stdin, stdout};
use std::path::PathBuf;

use cloze_text::{SpecialTokens, Tokenizer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut folders = args_os().skip(1).map(PathBuf::from);
    let folder = folders.next().ok_or("usage: ids FOLDER [COPY [WORDS]] < LINES > IDS")?;
    let mut tokenizer = Tokenizer::open(&folder)?;
    if let Some(copy) = folders.next() {
        if let Some(words) = folders.next() {
            let words = fs::read_to_string(words)?;
            let words = words.lines().filter(|word| tokenizer.check_new_word(word).is_ok()).map(str::to_owned);
            tokenizer = tokenizer.with_words(&words.collect::<Vec<_>>())?;
        }
        tokenizer.save(&copy)?;
        tokenizer = Tokenizer::open(&copy)?;
    }
    let tokenizer = tokenizer.with_special_tokens(SpecialTokens::Parse);
    let mut out = BufWriter::with_capacity(1 << 20, stdout().lock());
    let mut ids = Vec::new();
    for line in stdin().lock().split(b'\n') {
        ids.clear();
        tokenizer.encode_into(std::str::from_utf8(&line?)?, &mut ids);
        out.write_all(&(ids.len() as u32).to_le_bytes())?;
        for id in &ids {
            out.write_all(&id.to_le_bytes())?;
        }
    }
    Ok(out.flush()?)
}
