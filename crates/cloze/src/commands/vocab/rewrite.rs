//! What `cloze vocab extend` and `cloze vocab resize` share: a model folder → one with another vocabulary.

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

/// Where the rows of the new vocabulary came from.
#[derive(Debug)]
pub struct Tally {
    old_size: usize,
    old_rows: usize,
    new_size: usize,
    /// Taken over as they were.
    copied: usize,
    /// Means of their pieces.
    composed: usize,
    /// Tokens whose rows were drawn at random.
    drawn: Vec<String>,
    /// Old tokens that the new vocabulary lacks.
    dropped: usize,
}

/// A model with its tokenizer.
pub struct Subject {
    pub layout: Layout,
    pub tokenizer: Tokenizer,
}

impl Subject {
    /// Opens the tokenizer of a model folder. The weights wait: what can go wrong before costs nothing.
    pub fn open(dir: &Path) -> Result<Subject> {
        let layout = Layout::of(dir)?;
        Ok(Subject { tokenizer: Tokenizer::open(&layout.model)?, layout })
    }

    /// Writes the model with the vocabulary of `tokenizer` to `out`.
    pub fn rewrite(&self, tokenizer: &Tokenizer, seed: u64, out: &Path, terminal: &Terminal) -> Result<Tally> {
        let device = Device::cpu(terminal.threads)?;
        let model = Model::load(&self.layout.model, &device)?;
        let segments = self.tokenizer.template().segments(false);
        model.check_tokenizer(&self.layout.model, self.tokenizer.vocab_size(), segments)?;
        let old_size = self.tokenizer.vocab_size();
        let origins = tokenizer.origins(&self.tokenizer);
        let mut tally = Tally {
            old_size,
            old_rows: model.architecture().vocab_size,
            new_size: origins.len(),
            copied: 0,
            composed: 0,
            drawn: Vec::new(),
            dropped: 0,
        };
        let index = |id: &u32| *id as usize;
        let mut rows = Vec::with_capacity(origins.len());
        for (id, origin) in (0u32..).zip(&origins) {
            rows.push(match origin {
                TokenOrigin::Kept(old) => {
                    tally.copied += 1;
                    NewRow::Copied(index(old))
                }
                TokenOrigin::Pieces(pieces) => {
                    tally.composed += 1;
                    NewRow::Mean(pieces.iter().map(index).collect())
                }
                TokenOrigin::Unknown => {
                    tally.drawn.extend(tokenizer.token(id).map(str::to_owned));
                    NewRow::Random
                }
            });
        }
        // Tokens are unique in both vocabularies, so that none is kept twice.
        tally.dropped = old_size - tally.copied;
        let mut model = model.with_vocabulary(&rows, seed, &device)?;
        let mut config = model.config().clone();
        config.pad_token_id = config.pad_token_id.map(|_| tokenizer.special().pad);
        model.set_config(config)?;
        write_folder(out, |aside| {
            model.save(aside)?;
            tokenizer.save_for(aside, model.architecture().max_sequence_length())?;
            copy_modules(&self.layout, aside)?;
            Ok::<(), anyhow::Error>(())
        })?;
        Ok(tally)
    }
}

impl Tally {
    /// The figures as one JSON object.
    pub fn json(&self) -> Map<String, Value> {
        let value = json!({
            "old_vocab_size": self.old_size,
            "vocab_size": self.new_size,
            "copied": self.copied,
            "composed": self.composed,
            "drawn": self.drawn.len(),
            "dropped": self.dropped,
            "spare_rows_dropped": self.old_rows - self.old_size,
        });
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// The figures as lines for people.
    pub fn write(&self, out: &mut dyn std::io::Write) -> Result<()> {
        let count = |value: usize| format::count(value as u64);
        let (copied, composed) = (count(self.copied), count(self.composed));
        writeln!(out, "{} tokens → {}", count(self.old_size), count(self.new_size))?;
        writeln!(out, "  {copied} rows copied, {composed} means of pieces, {} drawn", count(self.drawn.len()))?;
        if !self.drawn.is_empty() {
            let shown = self.drawn.iter().take(8).cloned().collect::<Vec<_>>().join(" ");
            let more = if self.drawn.len() > 8 { " …" } else { "" };
            writeln!(out, "  drawn, since the old vocabulary cannot spell them: {shown}{more}")?;
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
