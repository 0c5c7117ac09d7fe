//! Encodes a text or a pair of texts as sequences of token ids.

use cloze_text::{Sequence, Tokenizer};

use serde_json::Value;

use crate::TaskError;
use crate::input::Object;
use crate::sequence::text_windows;

/// The formats of rows of texts to predict.
pub(super) const INPUT: &str = "a table (TSV, CSV, Parquet), by its extension; else lines, each plain text (with a tab before the second text of a \
                                pair) or a JSON object: {\"text\": …, \"pair\": …}, or with the keys of the training files.";

/// A text, or a pair of texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// The text, or the first one.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
}

impl Text {
    /// The text and its gold label, for a file of predictions.
    pub(super) fn row_json(&self, gold: impl Into<Value>) -> Object {
        let mut shown = Object::new();
        shown.insert("text".to_owned(), self.text.as_str().into());
        if let Some(pair) = &self.pair {
            shown.insert("pair".to_owned(), pair.as_str().into());
        }
        shown.insert("gold".to_owned(), gold.into());
        shown
    }
}

/// How texts that are longer than the maximum length are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Maximum number of tokens of a sequence, special tokens included.
    pub max_len: usize,
    /// The step between the windows of a long text, in tokens; none: long texts are truncated.
    pub stride: Option<usize>,
}

impl Default for Length {
    /// The paper's 128 tokens, with truncation.
    fn default() -> Length {
        Length { max_len: 128, stride: None }
    }
}

impl Length {
    /// The sequences of a text (more than one only if it is split into windows), and the number of tokens that were cut
    /// off.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for a maximum length that leaves no room for a token.
    pub fn sequences(&self, tokenizer: &Tokenizer, text: &Text) -> Result<(Vec<Sequence>, usize), TaskError> {
        let template = tokenizer.template();
        let mut first = tokenizer.encode(&text.text);
        let mut second = text.pair.as_ref().map(|pair| tokenizer.encode(pair));
        let room = template.room(self.max_len, second.is_some());
        if room == 0 {
            let least = template.added(second.is_some()) + 1;
            let problem = format!("expected at least {least}, so that a token fits; found {}", self.max_len);
            return Err(TaskError::setting("max_len", problem));
        }
        let all = first.len() + second.as_ref().map_or(0, Vec::len);
        if let Some(stride) = self.stride
            && all > room
        {
            // Each window contains the second text (a question about the text, for example), which gets at most half of
            // the room.
            let most = second.as_ref().map_or(0, |pair| pair.len().min(room / 2));
            let cut = second.as_mut().map_or(0, |pair| {
                let cut = pair.len() - most;
                pair.truncate(most);
                cut
            });
            return Ok((text_windows(template, &first, second.as_deref(), self.max_len, stride)?, cut));
        }
        let mut none = Vec::new();
        let cut = tokenizer.truncate_pair(&mut first, second.as_mut().unwrap_or(&mut none), room);
        Ok((vec![template.sequence(&first, second.as_deref())], cut))
    }
}
