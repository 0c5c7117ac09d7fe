//! What commands say of a tokenizer, and how it reads the names of special tokens in texts.

use cloze_text::{SpecialTokens, Tokenizer};

use crate::terminal::Terminal;

/// How the names of special tokens in texts are read: an option of all commands that read texts.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct SpecialTokensArgument {
    /// How [SEP], [MASK] and the other special tokens' names in texts are read: as text, or as those tokens, as Transformers does
    /// [default: the model's way, else text]
    #[arg(long, hide_short_help = true, value_name = "HOW", value_parser = crate::values::named(&SpecialTokens::ALL))]
    special_tokens: Option<SpecialTokens>,
}

impl SpecialTokensArgument {
    /// What was given.
    pub fn given(self) -> Option<SpecialTokens> {
        self.special_tokens
    }
}

/// Says what users must know of how a tokenizer was read.
pub fn tell_notes(tokenizer: &Tokenizer, terminal: &Terminal) {
    tokenizer.notes().iter().for_each(|note| terminal.note(note));
}

/// Says how often the texts that were encoded had names of special tokens, if any had.
pub fn tell_special_names(tokenizer: &Tokenizer, terminal: &Terminal) {
    tokenizer.special_names_note().iter().for_each(|note| terminal.note(note));
}
