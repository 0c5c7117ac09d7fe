//! Gives a model folder another vocabulary, for `cloze vocab extend` and `cloze vocab resize`.

use std::path::Path;

use anyhow::Result;
use cloze_convert::copy_modules;
use cloze_engine::Device;
use cloze_files::write_folder;
use cloze_model::{Layout, Model, NewRow};
use cloze_text::{TokenOrigin, Tokenizer};
use serde_json::{Map, Value, json};

use crate::format;
use crate::terminal::Terminal;

/// How the rows of the new vocabulary were initialized.
#[derive(Debug)]
pub struct RowCounts {
    old_size: usize,
    old_rows: usize,
    new_size: usize,
    /// Number of rows copied from the old vocabulary.
    copied: usize,
    /// Number of rows initialized with the mean of their pieces.
    composed: usize,
    /// Tokens with random rows.
    random: Vec<String>,
    /// Number of old tokens that are not in the new vocabulary.
    dropped: usize,
}

/// The model to change, with its tokenizer.
pub struct SourceModel {
    pub layout: Layout,
    pub tokenizer: Tokenizer,
}

impl SourceModel {
    /// Opens the tokenizer of a model folder. The weights are loaded later, so that other errors are found quickly.
    pub fn open(dir: &Path) -> Result<SourceModel> {
        let layout = Layout::of(dir)?;
        Ok(SourceModel { tokenizer: Tokenizer::open(&layout.model)?, layout })
    }

    /// Writes the model with the vocabulary of `tokenizer` to `out`.
    pub fn rewrite(&self, tokenizer: &Tokenizer, seed: u64, out: &Path, terminal: &Terminal) -> Result<RowCounts> {
        let device = Device::cpu(terminal.threads)?;
        let model = Model::load(&self.layout.model, &device)?;
        let segments = self.tokenizer.template().segments(false);
        model.check_tokenizer(&self.layout.model, self.tokenizer.vocab_size(), segments)?;
        let old_size = self.tokenizer.vocab_size();
        let origins = tokenizer.origins(&self.tokenizer);
        let mut counts = RowCounts {
            old_size,
            old_rows: model.architecture().vocab_size,
            new_size: origins.len(),
            copied: 0,
            composed: 0,
            random: Vec::new(),
            dropped: 0,
        };
        let index = |id: &u32| *id as usize;
        let mut rows = Vec::with_capacity(origins.len());
        for (id, origin) in (0u32..).zip(&origins) {
            rows.push(match origin {
                TokenOrigin::Kept(old) => {
                    counts.copied += 1;
                    NewRow::Copied(index(old))
                }
                TokenOrigin::Pieces(pieces) => {
                    counts.composed += 1;
                    NewRow::Mean(pieces.iter().map(index).collect())
                }
                TokenOrigin::Unknown => {
                    counts.random.extend(tokenizer.token(id).map(str::to_owned));
                    NewRow::Random
                }
            });
        }
        // Tokens are unique in both vocabularies, so no token is copied twice.
        counts.dropped = old_size - counts.copied;
        let mut model = model.with_vocabulary(&rows, seed, &device)?;
        let mut config = model.config().clone();
        config.pad_token_id = config.pad_token_id.map(|_| tokenizer.special().pad);
        model.set_config(config)?;
        write_folder(out, |dir| {
            model.save(dir)?;
            tokenizer.save_for(dir, model.architecture().max_sequence_length())?;
            copy_modules(&self.layout, dir)?;
            Ok::<(), anyhow::Error>(())
        })?;
        Ok(counts)
    }
}

impl RowCounts {
    /// The counts as one JSON object.
    pub fn json(&self) -> Map<String, Value> {
        let value = json!({
            "old_vocab_size": self.old_size,
            "vocab_size": self.new_size,
            "copied": self.copied,
            "composed": self.composed,
            "drawn": self.random.len(),
            "dropped": self.dropped,
            "spare_rows_dropped": self.old_rows - self.old_size,
        });
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// Writes the counts in readable form.
    pub fn write(&self, out: &mut dyn std::io::Write) -> Result<()> {
        let count = |value: usize| format::count(value as u64);
        let (copied, composed) = (count(self.copied), count(self.composed));
        writeln!(out, "{} tokens → {}", count(self.old_size), count(self.new_size))?;
        writeln!(out, "  {copied} rows copied, {composed} means of pieces, {} random", count(self.random.len()))?;
        if !self.random.is_empty() {
            let shown = self.random.iter().take(8).cloned().collect::<Vec<_>>().join(" ");
            let more = if self.random.len() > 8 { " …" } else { "" };
            writeln!(out, "  random, because they are [UNK] in the old vocabulary: {shown}{more}")?;
        }
        if self.dropped > 0 {
            writeln!(out, "  {} old tokens dropped", count(self.dropped))?;
        }
        if self.old_rows > self.old_size {
            writeln!(out, "  {} spare rows without a token dropped", count(self.old_rows - self.old_size))?;
        }
        Ok(())
    }
}
