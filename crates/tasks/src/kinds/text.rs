//! Encodes a text or a pair of texts as sequences of token ids.

use std::ops::Range;

use cloze_text::{Sequence, Tokenizer, truncate_pair};

use serde_json::Value;

use crate::TaskError;
use crate::example::{Example, Target};
use crate::input::Object;
use crate::long::{Long, TextWindows};
use crate::sequence::{spans, text_windows};

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
    /// The step between the windows of a long text, in tokens; none: long texts are truncated, or with [`long`](Self::long) windows
    /// do not overlap.
    pub stride: Option<usize>,
    /// How long texts are read in prediction and evaluation. None: as in training, truncated or, with a stride, in windows whose
    /// logits have the same weight.
    pub long: Option<Long>,
}

impl Default for Length {
    /// The paper's 128 tokens, with truncation.
    fn default() -> Length {
        Length { max_len: 128, stride: None, long: None }
    }
}

/// An encoded text.
pub(super) struct EncodedText {
    /// One example, or those of its windows.
    pub(super) examples: Vec<Example>,
    /// The number of tokens that were cut off.
    pub(super) cut: usize,
    /// Its windows, if their logits must be pooled.
    pub(super) windows: Option<TextWindows>,
}

/// The tokens of a text or a pair.
struct Tokens {
    first: Vec<u32>,
    second: Option<Vec<u32>>,
    /// The maximum number of tokens of both together.
    room: usize,
}

impl Tokens {
    fn count(&self) -> usize {
        self.first.len() + self.second.as_ref().map_or(0, Vec::len)
    }
}

impl Length {
    /// The example of a text with its target, or the examples of its windows.
    ///
    /// Of a pair, the longer text is read in windows. Each window has the complete shorter text, which gets at most half of the room.
    ///
    /// # Errors
    /// Those of [`sequences`](Self::sequences).
    pub(super) fn encode(&self, tokenizer: &Tokenizer, text: &Text, target: Target) -> Result<EncodedText, TaskError> {
        let Some(pooling) = self.long.filter(|long| long.reads_windows()) else {
            return self.encode_in_one(tokenizer, text, target);
        };
        let tokens = self.tokens(tokenizer, text)?;
        if tokens.count() <= tokens.room {
            return self.encode_in_one(tokenizer, text, target);
        }
        let Tokens { mut first, mut second, room } = tokens;
        let template = tokenizer.template();
        let is_second = second.as_ref().is_some_and(|second| second.len() > first.len());
        let other = if is_second { Some(&mut first) } else { second.as_mut() };
        let cut = other.map_or(0, |other| {
            let cut = other.len().saturating_sub(room / 2);
            other.truncate(other.len() - cut);
            cut
        });
        let (long, other) = match &second {
            Some(second) if is_second => (second, first.len()),
            second => (&first, second.as_ref().map_or(0, Vec::len)),
        };
        let spans = spans(long.len(), room - other, self.stride.unwrap_or(usize::MAX));
        let sequence = |span: Range<usize>| match &second {
            Some(second) if is_second => template.sequence(&first, Some(&second[span])),
            second => template.sequence(&first[span], second.as_deref()),
        };
        if let [only] = &spans[..] {
            let examples = vec![Example::new(vec![sequence(only.clone())], target)];
            return Ok(EncodedText { examples, cut, windows: None });
        }
        let tokens = spans.iter().map(Range::len).collect();
        // The target belongs to the text and not to a window.
        let examples = spans.into_iter().map(|span| Example::new(vec![sequence(span)], target.unknown())).collect();
        let windows = TextWindows::new(pooling, tokens, target);
        Ok(EncodedText { examples, cut, windows: Some(windows) })
    }

    fn encode_in_one(&self, tokenizer: &Tokenizer, text: &Text, target: Target) -> Result<EncodedText, TaskError> {
        let (sequences, cut) = self.sequences(tokenizer, text)?;
        Ok(EncodedText { examples: vec![Example::new(sequences, target)], cut, windows: None })
    }

    fn tokens(&self, tokenizer: &Tokenizer, text: &Text) -> Result<Tokens, TaskError> {
        let template = tokenizer.template();
        let first = tokenizer.encode(&text.text);
        let second = text.pair.as_ref().map(|pair| tokenizer.encode(pair));
        let room = template.room(self.max_len, second.is_some());
        if room == 0 {
            let least = template.added(second.is_some()) + 1;
            let problem = format!("expected at least {least}, so that a token fits; found {}", self.max_len);
            return Err(TaskError::setting("max_len", problem));
        }
        Ok(Tokens { first, second, room })
    }

    /// The sequences of a text (more than one only if it is split into windows, as in training), and the number of tokens that were cut
    /// off.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for a maximum length that leaves no room for a token.
    pub fn sequences(&self, tokenizer: &Tokenizer, text: &Text) -> Result<(Vec<Sequence>, usize), TaskError> {
        let template = tokenizer.template();
        let tokens = self.tokens(tokenizer, text)?;
        let all = tokens.count();
        let Tokens { mut first, mut second, room } = tokens;
        if let (Some(stride), None) = (self.stride, self.long)
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
        let pair = second.as_mut().unwrap_or(&mut none);
        let cut = match self.long {
            // The first window, whatever side the tokenizer truncates.
            Some(Long::First) => truncate_pair(&mut first, pair, room),
            _ => tokenizer.truncate_pair(&mut first, pair, room),
        };
        Ok((vec![template.sequence(&first, second.as_deref())], cut))
    }
}
