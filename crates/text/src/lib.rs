//! Text to ids: tokenizers of every kind, the layout of sequences, WordPiece vocabulary learning.
//!
//! [`Tokenizer`] opens, applies and writes vocabularies in the layout of Hugging Face (`vocab.txt`, `tokenizer.json`,
//! `tokenizer_config.json`); [`learn`] makes one from raw text.
//!
//! The [`tokenizers`] crate is the reference for every id. It yields some hundred thousand tokens a second and thread,
//! so [`Tokenizer::encode`] has a path of its own for plain BERT configurations, an order of magnitude faster and equal
//! to the reference for every string (the tests compare them on each Unicode character and on random mixtures):
//!
//! | step | file |
//! | --- | --- |
//! | text → normalised words | `words.rs`: a class a byte for ASCII, a table of 256-character pages elsewhere |
//! | word → ids | `trie.rs`: greedy longest match over a double-array trie |
//! | added tokens in a text | `added.rs` |
//!
//! Any other configuration (another normaliser, another pre-tokeniser) and any other model (BPE, Unigram, WordLevel) is
//! encoded by the `tokenizers` crate itself. [`Template`] says how one or two texts become the [`Sequence`] of ids that a model
//! reads.
//!
//! A vocabulary changes by [`Tokenizer::with_words`] (more words at its end; [`WordCounts`] finds which are worth it), and
//! [`Tokenizer::origins`] says what each of its tokens was under another one.

#![forbid(unsafe_code)]

mod added;
mod domain;
mod error;
mod extend;
mod folder;
mod kind;
mod learn;
mod marks;
mod origin;
mod save;
mod settings;
mod source;
mod special;
mod template;
mod tokenizer;
mod trie;
mod truncation;
mod vocabulary;
mod words;

pub use added::SpecialTokens;
pub use domain::{DomainWord, WordCounts};
pub use error::{TextError, WordProblem};
pub use learn::{LearnProgress, LearnStage, VocabularyOptions, count_words, learn};
pub use marks::{MarkCounts, ScriptMarks};
pub use origin::TokenOrigin;
pub use special::{SPECIAL_TOKENS, Special};
pub use template::{Part, Sequence, Slot, Template};
pub use tokenizer::{AddedToken, Piece, Tokenizer};
pub use truncation::truncate_pair;
