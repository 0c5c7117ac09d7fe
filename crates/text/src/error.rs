//! What can go wrong between text and ids.

use std::path::PathBuf;

/// An error of this crate: what was found, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder holds neither `tokenizer.json` nor `vocab.txt`.
    #[error(
        "{} holds no tokenizer: expected tokenizer.json or vocab.txt in it (`cloze vocab` makes both)",
        .0.display()
    )]
    NoTokenizer(
        /// The folder.
        PathBuf,
    ),
    /// A vocabulary file has no content.
    #[error("{} is empty: expected one token a line", .0.display())]
    EmptyVocabulary(
        /// The vocabulary file.
        PathBuf,
    ),
    /// A vocabulary file is not UTF-8.
    #[error("{}, line {line}: not UTF-8 (byte {byte} of the file); convert the file to UTF-8", path.display())]
    NotUtf8 {
        /// The vocabulary file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Offset in the file of the first bad byte, from 0.
        byte: usize,
    },
    /// A vocabulary line is blank.
    #[error(
        "{}, line {line}: blank line; a token's id is its line, so remove the line or put its token back",
        path.display()
    )]
    BlankLine {
        /// The vocabulary file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A token stands in a vocabulary twice.
    #[error(
        "{}, line {line}: token {token:?} already stands in line {first}; each token must have one id",
        path.display()
    )]
    DuplicateToken {
        /// The vocabulary file.
        path: PathBuf,
        /// Line of the second occurrence, from 1.
        line: usize,
        /// Line of the first occurrence, from 1.
        first: usize,
        /// The token.
        token: String,
    },
    /// A vocabulary lacks special tokens that BERT needs.
    #[error(
        "{}: the vocabulary of {count} tokens has no {missing}; BERT needs [PAD] [UNK] [CLS] [SEP] [MASK]",
        path.display()
    )]
    MissingSpecial {
        /// The vocabulary file, or the folder.
        path: PathBuf,
        /// Number of tokens found.
        count: usize,
        /// The missing tokens, separated by spaces.
        missing: String,
    },
    /// A JSON file is malformed or no tokenizer.
    #[error("{}: {reason}", path.display())]
    BadJson {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column where it has them.
        reason: String,
    },
    /// The layout of a sequence is none that a [`Template`](crate::Template) can hold.
    #[error("the sequence template {0}")]
    Template(
        /// What is wrong with it.
        String,
    ),
    /// A tokenizer's model is of an unknown kind.
    #[error("{}: {found}; expected WordPiece, BPE, Unigram or WordLevel", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The corpus gave no words to learn a vocabulary from.
    #[error("the corpus holds no words ({bytes} bytes read): nothing to learn a vocabulary from")]
    EmptyCorpus {
        /// Bytes of text read.
        bytes: u64,
    },
    /// The wanted vocabulary is too small for the corpus's characters.
    #[error(
        "a vocabulary of {size} is too small: this corpus needs at least {needed} \
         (5 special tokens and {characters} distinct characters, each also in its ## form where it continues a word); \
         ask for a size above {needed}"
    )]
    VocabularyTooSmall {
        /// The size asked for.
        size: usize,
        /// The smallest possible size.
        needed: usize,
        /// Distinct characters kept.
        characters: usize,
    },
    /// An option is out of its range.
    #[error("{option} is {found}: expected {expected}")]
    BadOption {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        found: String,
        /// The range allowed.
        expected: &'static str,
    },
    /// Words cannot be added to a tokenizer of this kind.
    #[error(
        "the tokenizer is no plain BERT one (BERT's normaliser and pre-tokeniser, WordPiece with ##, every token in its \
         vocabulary): no words can be added to it; make a plain one from its vocab.txt alone"
    )]
    NotPlain,
    /// A word cannot become a token.
    #[error("the word {word:?} cannot become a token: it {problem}")]
    NewWord {
        /// The word.
        word: String,
        /// Why not.
        problem: WordProblem,
    },
    /// The iterator of texts failed.
    #[error("{0}")]
    Input(
        /// The reader's error.
        #[source]
        Box<dyn std::error::Error + Send + Sync>,
    ),
    /// The `tokenizers` crate refused; a bug or an exotic configuration.
    #[error("the tokenizers crate could not {action}: {reason}")]
    Engine {
        /// What was attempted.
        action: &'static str,
        /// Its words.
        reason: String,
    },
}

impl From<cloze_files::FileError> for TextError {
    fn from(cloze_files::FileError { action, path, source, .. }: cloze_files::FileError) -> TextError {
        TextError::Io { action, path, source }
    }
}

/// Why a word cannot become a token of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordProblem {
    /// There is nothing.
    #[error("is empty")]
    Empty,
    /// A token is one word.
    #[error("holds white space; a token is one word")]
    WhiteSpace,
    /// The vocabulary has it.
    #[error("is a token already")]
    Present,
    /// It was given before.
    #[error("is given twice")]
    Repeated,
    /// The model takes no word of this length.
    #[error("has {chars} characters; words of more than {most} are [UNK] whatever the vocabulary")]
    TooLong {
        /// Its characters.
        chars: usize,
        /// The longest word's.
        most: usize,
    },
    /// No text gives this word, since the normaliser (case, accents, control characters) changes it.
    #[error("normalises to {to:?}, so that no text would give it; write it in that form")]
    Normalised {
        /// What it becomes, maybe nothing.
        to: String,
    },
    /// No text gives this word, since the pre-tokeniser splits it at punctuation or between Chinese characters.
    #[error("is split into {} before any token is looked up", .into.join(" "))]
    Split {
        /// Its parts.
        into: Vec<String>,
    },
}
