//! What commands say of a tokenizer, and how it reads the names of special tokens in texts.

use cloze_text::{SpecialTokens, Tokenizer};

use crate::terminal::Terminal;

/// How the names of special tokens in texts are read: an option of all commands that read texts.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct SpecialTokensArgument {
    /// How [SEP], [MASK] and the other special tokens' names in texts are read: as text, or as those tokens, as Transformers does
    /// [default: the model's way, else text]
    #[arg(long, hide_short_help = true, value_enum, value_name = "HOW")]
    special_tokens: Option<Reading>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Reading {
    /// As ordinary text: [SEP] is the tokens [, sep and ]
    Text,
    /// As the special tokens
    Parse,
}

impl SpecialTokensArgument {
    /// What was given.
    pub fn given(self) -> Option<SpecialTokens> {
        self.special_tokens.map(|reading| match reading {
            Reading::Text => SpecialTokens::Text,
            Reading::Parse => SpecialTokens::Parse,
        })
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
