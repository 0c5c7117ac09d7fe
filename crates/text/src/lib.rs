//! Tokenizers of every kind, the layout of input sequences, and learning of vocabularies.
//!
//! [`Tokenizer`] reads, applies and writes vocabularies in the file layouts of Hugging Face (`tokenizer.json`, `vocab.txt`,
//! `vocab.json` with `merges.txt`, SentencePiece's `.model`, and `tokenizer_config.json`). [`learn`] makes a vocabulary from raw text.
//!
//! The [`tokenizers`] crate is the reference for every id. It encodes some hundred thousand tokens per second and thread.
//! For plain BERT configurations, [`Tokenizer::encode`] therefore uses a fast path, which is an order of magnitude faster
//! and gives the same ids for every string (the tests compare both on each Unicode character and on random mixtures):
//!
//! | step | file |
//! | --- | --- |
//! | text → normalised words | `words.rs`: one class per byte for ASCII, tables of 256 characters for the rest |
//! | word → ids | `trie.rs`: greedy longest match over a double-array trie |
//! | added tokens in a text | `added.rs` |
//!
//! Any other configuration (another normaliser or pre-tokeniser) and any other model (BPE, Unigram, WordLevel) is
//! encoded by the `tokenizers` crate. [`Template`] defines how one or two texts become the [`Sequence`] of ids that a model
//! reads.
//!
//! [`Tokenizer::with_words`] appends words to a WordPiece, byte-level BPE or Unigram vocabulary; [`WordCounts`] finds the words
//! that are worth a token.
//! [`Tokenizer::origins`] maps each token to its equivalent in another vocabulary.

#![forbid(unsafe_code)]

mod added;
mod domain;
mod error;
mod extend;
mod family;
mod files;
mod folder;
mod kind;
mod learn;
mod marks;
mod merges;
mod origin;
mod save;
mod sentencepiece;
mod settings;
mod source;
mod special;
mod template;
mod tokenizer;
mod trie;
mod truncation;
mod validate;
mod vocabulary;
mod words;

pub use added::SpecialTokens;
pub use domain::{DomainWord, WordCounts};
pub use error::{TextError, WordProblem};
pub use learn::count::{LearnProgress, LearnStage};
pub use learn::{VocabularyKind, VocabularyOptions, count_words, learn};
pub use marks::{MarkCounts, ScriptMarks};
pub use origin::TokenOrigin;
pub use special::{SPECIAL_TOKENS, Special};
pub use template::{Part, Sequence, Slot, Template};
pub use tokenizer::{AddedToken, Piece, Tokenizer};
pub use truncation::truncate_pair;
