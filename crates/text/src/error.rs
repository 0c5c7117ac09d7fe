//! Errors of reading, writing and applying tokenizers.

use std::path::PathBuf;

/// An error of this crate. Each message says what was expected, what was found, where, and what to do.
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
        /// The system's error.
        source: std::io::Error,
    },
    /// A folder does not contain the files of a tokenizer.
    #[error("{} contains no tokenizer: {expected}", path.display())]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
        /// What was found and expected in it.
        expected: String,
    },
    /// A vocabulary file is empty.
    #[error("{} is empty: expected one token per line", .0.display())]
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
        "{}, line {line}: blank line; a token's id is its line, so remove the line or restore its token",
        path.display()
    )]
    BlankLine {
        /// The vocabulary file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A token occurs twice in a vocabulary.
    #[error(
        "{}, line {line}: token {token:?} is already in line {first}; each token must occur once",
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
    /// A vocabulary has no token for some of BERT's special tokens.
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
    /// A file is malformed or does not describe a tokenizer.
    #[error("{}: {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What was found and expected, with the line if the file has lines.
        reason: String,
    },
    /// The layout of a sequence cannot be represented by a [`Template`](crate::Template).
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
    /// The corpus has no words to learn a vocabulary from.
    #[error("the corpus contains no words ({bytes} bytes read); a vocabulary needs text")]
    EmptyCorpus {
        /// Bytes of text read.
        bytes: u64,
    },
    /// The requested vocabulary is too small for the corpus's characters.
    #[error(
        "`size` is {size}, which is too small for this corpus: expected at least {needed} ({contents}); increase `size`{advice}"
    )]
    VocabularyTooSmall {
        /// The requested size.
        size: usize,
        /// The smallest possible size.
        needed: usize,
        /// What every vocabulary for this corpus contains.
        contents: String,
        /// What else to do.
        advice: &'static str,
    },
    /// An option is out of its range.
    #[error("`{option}` must be {expected}, found {found}")]
    BadOption {
        /// The option's name.
        option: &'static str,
        /// The value.
        found: String,
        /// The allowed range.
        expected: &'static str,
    },
    /// The tokenizer does not have BERT's normaliser.
    #[error("the tokenizer has another normaliser than BERT's; expected one that can be changed to keep accents")]
    NotPlain,
    /// Words cannot be added to a tokenizer of this kind.
    #[error(
        "no words can be added to this tokenizer, whose model is {model}; expected BERT's WordPiece (its normaliser and \
         pre-tokeniser, ##), byte-level BPE, or Unigram whose tokens mark the beginnings of words"
    )]
    NotExtensible {
        /// The kind of its model.
        model: &'static str,
    },
    /// A word cannot become a token.
    #[error("the word {word:?} cannot become a token: it {problem}")]
    NewWord {
        /// The word.
        word: String,
        /// The reason.
        problem: WordProblem,
    },
    /// The iterator of texts failed.
    #[error("{0}")]
    Input(
        /// The reader's error.
        #[source]
        Box<dyn std::error::Error + Send + Sync>,
    ),
    /// The ranks of a job do not fit together: they read different texts, or are different versions.
    #[error("{0}")]
    Ranks(
        /// Which rank, and what to do.
        String,
    ),
    /// The `tokenizers` crate failed: a bug or an unusual configuration.
    #[error("the tokenizers crate could not {action}: {reason}")]
    Engine {
        /// What was attempted.
        action: &'static str,
        /// The message.
        reason: String,
    },
}

impl From<cloze_files::FileError> for TextError {
    fn from(cloze_files::FileError { action, path, source, .. }: cloze_files::FileError) -> TextError {
        TextError::Io { action, path, source }
    }
}

/// Why a word cannot become a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordProblem {
    /// The word is empty.
    #[error("is empty")]
    Empty,
    /// The word contains white space.
    #[error("contains white space; a token is one word")]
    WhiteSpace,
    /// The vocabulary already contains it.
    #[error("is already a token")]
    Present,
    /// It occurs twice in the list of words.
    #[error("is given twice")]
    Repeated,
    /// The model cannot encode words of this length.
    #[error("has {chars} characters; words of more than {max} characters are always [UNK]")]
    TooLong {
        /// The length in characters.
        chars: usize,
        /// The length limit.
        max: usize,
    },
    /// The vocabulary has no tokens for some of its bytes.
    #[error("cannot be spelled with the vocabulary's tokens, which byte-pair encoding merges")]
    Unspelled,
    /// No text contains this word after normalisation, because the normaliser (case, accents, control characters) changes it.
    #[error("is normalised to {to:?}, so no text would contain it; write it in that form")]
    Normalised {
        /// The normalised form, which may be empty.
        to: String,
    },
    /// No text gives this word, because the pre-tokeniser splits it at punctuation or between Chinese characters.
    #[error("is split into {} before tokens are looked up", .into.join(" "))]
    Split {
        /// The parts.
        into: Vec<String>,
    },
}
