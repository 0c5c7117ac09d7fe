//! The files that a tokenizer was read from, kept so that they can be written again.

use tokenizers::utils::padding::PaddingParams;
use tokenizers::utils::truncation::TruncationParams;

use crate::SpecialTokens;
use crate::settings::{Class, Settings};

/// The key of tokenizer_config.json that stores [`SpecialTokens`]. Transformers preserves it and ignores it.
pub(crate) const IN_TEXT: &str = "special_tokens_in_text";

/// The files that a tokenizer was read from.
#[derive(Clone)]
pub(crate) struct Source {
    /// Decides which of the files are used.
    pub(crate) class: Class,
    /// The configuration files.
    pub(crate) settings: Settings,
    /// tokenizer.json, if it is used unchanged.
    pub(crate) json: Option<Vec<u8>>,
    /// The `truncation` and `padding` of tokenizer.json, which are not used but preserved.
    pub(crate) truncation: Option<TruncationParams>,
    pub(crate) padding: Option<PaddingParams>,
    /// Messages to the user about how the files were interpreted.
    pub(crate) notes: Vec<String>,
}

impl Source {
    /// The source of a plain BERT tokenizer that was not read from files.
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

    /// How special tokens in texts are read, as stored in tokenizer_config.json.
    pub(crate) fn special_tokens(&self) -> SpecialTokens {
        self.settings.get(IN_TEXT).as_str().and_then(SpecialTokens::named).unwrap_or_default()
    }

    /// The tokenizer class of Transformers that reads these files.
    pub(crate) fn class_name(&self) -> &str {
        let usual = match self.class {
            Class::Bert => "BertTokenizer",
            Class::Family(family) => family.class_name(),
            Class::AsWritten | Class::Unnamed => "PreTrainedTokenizerFast",
        };
        self.settings.class_name().unwrap_or(usual)
    }
}
