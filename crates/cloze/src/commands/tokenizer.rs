//! Notes about tokenizers, and the option for special tokens' names in texts.

use cloze_text::{SpecialTokens, Tokenizer};

use crate::terminal::Terminal;

/// The `--special-tokens` option of all commands that read texts.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct SpecialTokensArgument {
    /// How names of special tokens in texts, such as [SEP] and [MASK], are read: as text, or as those tokens, like
    /// Transformers [default: the model's setting, else text]
    #[arg(long, hide_short_help = true, value_name = "HOW", value_parser = crate::values::named(&SpecialTokens::ALL))]
    special_tokens: Option<SpecialTokens>,
}

impl SpecialTokensArgument {
    /// The value of the option, if it was given.
    pub fn given(self) -> Option<SpecialTokens> {
        self.special_tokens
    }
}

/// Prints the tokenizer's notes.
pub fn show_notes(tokenizer: &Tokenizer, terminal: &Terminal) {
    tokenizer.notes().iter().for_each(|note| terminal.note(note));
}

/// Prints how often the encoded texts contained names of special tokens, if they did.
pub fn note_special_names(tokenizer: &Tokenizer, terminal: &Terminal) {
    tokenizer.special_names_note().iter().for_each(|note| terminal.note(note));
}
