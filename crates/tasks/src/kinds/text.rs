//! One text, or two, as sequences of ids.

use cloze_text::{Sequence, Tokenizer};

use serde_json::Value;

use crate::TaskError;
use crate::input::Object;
use crate::sequence::text_windows;

/// What rows of texts to predict look like.
pub(super) const INPUT: &str = "a table (TSV, CSV, Parquet) by its ending; else lines, each plain text, with a tab before the second text of a \
                                pair, or a JSON object: {\"text\": …, \"pair\": …}, or with the keys of the training files.";

/// A text, or a pair of texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// The text, or the first one.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
}

impl Text {
    /// The text and what is right of it, for readers of predictions.
    pub(super) fn shown(&self, gold: impl Into<Value>) -> Object {
        let mut shown = Object::new();
        shown.insert("text".to_owned(), self.text.as_str().into());
        if let Some(pair) = &self.pair {
            shown.insert("pair".to_owned(), pair.as_str().into());
        }
        shown.insert("gold".to_owned(), gold.into());
        shown
    }
}

/// What becomes of texts that are longer than a sequence may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Tokens of a sequence at most, the special ones counted.
    pub max_len: usize,
    /// The step from one window of a long text to the next; none: what does not fit is cut off.
    pub stride: Option<usize>,
}

impl Default for Length {
    /// The paper's 128, the rest cut off.
    fn default() -> Length {
        Length { max_len: 128, stride: None }
    }
}

impl Length {
    /// The sequences of a text, more than one only if it is read in windows, and how many tokens were cut off.
    ///
    /// # Errors
    /// A length that leaves no room for a token.
    pub fn sequences(&self, tokenizer: &Tokenizer, text: &Text) -> Result<(Vec<Sequence>, usize), TaskError> {
        let template = tokenizer.template();
        let mut first = tokenizer.encode(&text.text);
        let mut second = text.pair.as_ref().map(|pair| tokenizer.encode(pair));
        let room = template.room(self.max_len, second.is_some());
        if room == 0 {
            let least = template.added(second.is_some()) + 1;
            let problem = format!("is {}: expected {least} at least, so that a token fits", self.max_len);
            return Err(TaskError::setting("max-len", problem));
        }
        let all = first.len() + second.as_ref().map_or(0, Vec::len);
        if let Some(stride) = self.stride
            && all > room
        {
            // The pair, a question about the text for instance, stands in every window: it may take half of the room.
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
