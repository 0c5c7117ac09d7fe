//! Shows a folder of shards or one shard: counts, corpus report, examples.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use cloze_data::TokenTable;
use cloze_data::batch::BatchOptions;
use cloze_data::shards::{Documents, Shards, Split};
use cloze_text::Tokenizer;
use serde_json::json;

use super::arguments::Arguments;
use super::examples;
use super::tokenizer::{casing, details};
use crate::commands::prepare::write_report;
use crate::format;
use crate::terminal::Terminal;

pub(super) fn show_folder(dir: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let shards = Shards::open(dir)?;
    let tokenizer = Tokenizer::open(&shards.tokenizer_dir())?;
    let manifest = &shards.manifest;
    let mut out = crate::output::stdout();
    if arguments.json {
        writeln!(out, "{}", json!({"kind": "shards", "path": format::path(dir), "manifest": manifest}))?;
    } else {
        writeln!(out, "{} {} (sizes and checksums match)", terminal.bold("shards"), dir.display())?;
        writeln!(
            out,
            "  tokenizer      {} tokens, {}, fingerprint {}",
            format::count(manifest.tokenizer.vocab_size as u64),
            casing(&tokenizer),
            manifest.tokenizer.fingerprint
        )?;
        for (name, line) in details(&tokenizer) {
            writeln!(out, "    {name:<13}{line}")?;
        }
        for split in [Split::Train, Split::Valid] {
            let entry = manifest.split(split);
            let bytes: u64 = entry.shards.iter().map(|shard| shard.bytes).sum();
            writeln!(
                out,
                "  {:<14} {} documents, {} sentences, {} tokens in {} files of {}",
                split.name(),
                format::count(entry.documents()),
                format::count(entry.sentences()),
                format::count(entry.tokens()),
                entry.shards.len(),
                format::bytes(bytes)
            )?;
        }
        writeln!(out)?;
        write_report(&mut out, &manifest.report, terminal)?;
    }
    let documents = shards.split(Split::Train);
    let options = BatchOptions::default().without_unavailable_pairs(documents, &TokenTable::from(&tokenizer));
    examples::show(&mut out, documents, &tokenizer, &options, arguments.examples, arguments.json, terminal)
}

pub(super) fn show_file(path: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let tokenizer = Tokenizer::open(&path.parent().unwrap_or(Path::new(".")).join("tokenizer"));
    let documents = Documents::open_file(path, tokenizer.as_ref().ok().map(Tokenizer::vocab_size))?;
    let mut out = crate::output::stdout();
    let sentences = documents.total_sentences();
    if arguments.json {
        let line = json!({
            "kind": "shard", "path": format::path(path), "documents": documents.len(), "sentences": sentences, "tokens": documents.tokens(),
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{} {}", terminal.bold("shard"), path.display())?;
        writeln!(
            out,
            "  {} documents, {} sentences, {} tokens",
            format::count(documents.len() as u64),
            format::count(sentences as u64),
            format::count(documents.tokens())
        )?;
    }
    if arguments.examples == 0 {
        return Ok(());
    }
    let tokenizer = match tokenizer {
        Ok(tokenizer) => tokenizer,
        Err(_) if arguments.json => return Ok(()),
        Err(error) => bail!("examples need the tokenizer folder next to the shard: {error}"),
    };
    let options = BatchOptions::default().without_unavailable_pairs(&documents, &TokenTable::from(&tokenizer));
    examples::show(&mut out, &documents, &tokenizer, &options, arguments.examples, arguments.json, terminal)
}
