//! What a tokenizer was read from, to be written again.

use tokenizers::utils::padding::PaddingParams;
use tokenizers::utils::truncation::TruncationParams;

use crate::SpecialTokens;
use crate::settings::{Class, Settings};

/// The key of tokenizer_config.json under which [`SpecialTokens`] are remembered. Transformers keeps it and does nothing with it.
pub(crate) const IN_TEXT: &str = "special_tokens_in_text";

/// What a tokenizer was read from.
#[derive(Clone)]
pub(crate) struct Source {
    /// Who decides what it does.
    pub(crate) class: Class,
    /// The files beside the vocabulary.
    pub(crate) settings: Settings,
    /// tokenizer.json, if it is taken as it is.
    pub(crate) json: Option<Vec<u8>>,
    /// The `truncation` and `padding` of tokenizer.json, which play no part but are kept.
    pub(crate) truncation: Option<TruncationParams>,
    pub(crate) padding: Option<PaddingParams>,
    /// What users must know of how it was read.
    pub(crate) notes: Vec<String>,
}

impl Source {
    /// Of a plain BERT tokenizer that was read from nothing.
    pub(crate) fn plain() -> Source {
        Source {
            class: Class::Bert,
            settings: Settings::default(),
            json: None,
            truncation: None,
            padding: None,
            notes: Vec::new(),
        }
    }

    /// How special tokens in texts were read by what wrote it.
    pub(crate) fn special_tokens(&self) -> SpecialTokens {
        self.settings.get(IN_TEXT).as_str().and_then(SpecialTokens::of_name).unwrap_or_default()
    }

    /// The class of Transformers that reads it.
    pub(crate) fn class_name(&self) -> &str {
        let usual = if self.class == Class::Bert { "BertTokenizer" } else { "PreTrainedTokenizerFast" };
        self.settings.class_name().unwrap_or(usual)
    }
}
