//! Learns a vocabulary from text: WordPiece, byte-level BPE or Unigram.
//!
//! This module counts words; a trainer then finds pieces. WordPiece and BPE use that of the `tokenizers` crate. **Its
//! "WordPiece" trainer is byte-pair encoding with `##` prefixes: each step merges the most frequent pair of adjacent pieces**,
//! whereas the original WordPiece (Schuster & Nakajima 2012) merges the pair that most increases the corpus's likelihood. Only
//! the learning differs: encoding is the usual greedy longest match.
//!
//! | step | file |
//! | --- | --- |
//! | texts → words with counts | `count.rs` |
//! | words → characters that get tokens | `alphabet.rs` |
//! | words → WordPiece and byte-level BPE | `pairs.rs` |
//! | words → Unigram | `unigram.rs` |
//!
//! The result depends only on the texts, their order and the options. It does not depend on the number of threads or ranks, or
//! on chance.

mod alphabet;
pub(crate) mod count;
mod pairs;
mod unigram;

use std::error::Error;
use std::path::Path;

use cloze_comm::Communicator;
use compact_str::{CompactString, format_compact};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::unicode::{NFKC, NFKD};
use tokenizers::normalizers::{BertNormalizer, Lowercase, Sequence, StripAccents};
use tokenizers::{AddedToken, NormalizedString, Normalizer, NormalizerWrapper};

use self::alphabet::Alphabet;
use self::count::{
    Counter, Counts, LearnProgress, LearnStage, MAX_WORDS, ROUND_BYTES, SpacedWords, Words, map_counts, thread_count,
};
use self::pairs::{BYTES_AND_SPECIAL, ByteWords, Limits};
use crate::family::{self, Parts};
use crate::settings::{AddedTokens, Class, Family};
use crate::source::Source;
use crate::special::{ALBERT_NAMES, OTHER_NAMES, SPECIAL_TOKENS};
use crate::words::WordSplitter;
use crate::{TextError, Tokenizer};

/// The kind of vocabulary that [`learn`] makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VocabularyKind {
    /// BERT's: words of letters or punctuation; `##` continues a word.
    #[default]
    WordPiece,
    /// RoBERTa's: byte-level BPE, in which a word has the space before it. It keeps case and accents, and can spell any text.
    Bpe,
    /// ALBERT's: Unigram, in which words are separated by spaces only, and `▁` begins a word.
    Unigram,
}

impl VocabularyKind {
    /// All kinds with their names and descriptions.
    pub const ALL: [(VocabularyKind, &'static str, &'static str); 3] = [
        (VocabularyKind::WordPiece, "wordpiece", "As in BERT, DistilBERT and ELECTRA"),
        (VocabularyKind::Bpe, "bpe", "Byte-level BPE as in RoBERTa; it keeps case and accents"),
        (VocabularyKind::Unigram, "unigram", "As in ALBERT (and, with other special tokens, XLM-RoBERTa)"),
    ];

    /// The name in [`ALL`](Self::ALL).
    pub fn name(self) -> &'static str {
        VocabularyKind::ALL.iter().find(|(value, ..)| *value == self).map_or("", |(_, name, _)| name)
    }
}

/// Options of [`learn`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VocabularyOptions {
    /// The kind of vocabulary.
    pub kind: VocabularyKind,
    /// Number of tokens, special tokens included. The result has fewer if the corpus has no more pairs to merge.
    pub size: usize,
    /// Keep case and accents. Otherwise text is lower-cased and accents are stripped. Byte-level BPE always keeps them.
    pub cased: bool,
    /// Keep accents, vowel signs and tone marks when text is lower-cased. `cased` always keeps them. Not for byte-level BPE.
    pub keep_accents: bool,
    /// Pairs that occur fewer times than this are not merged; in Unigram, such pieces are not considered.
    pub min_frequency: u64,
    /// Fraction of the corpus's characters that the vocabulary must be able to spell, in (0, 1]. The rarest characters
    /// beyond it get no token. Otherwise, words in scripts that the corpus hardly contains would fill the vocabulary.
    /// Byte-level BPE spells all characters.
    pub character_coverage: f64,
    /// Memory limit: when there are more distinct words than this, the rarest are dropped until half of this number remains
    /// (so a word that is rare everywhere is undercounted). Each takes about 60 bytes.
    pub max_words: usize,
    /// Threads for counting; 0 means one per core.
    pub threads: usize,
    /// The ranks of a job that learn together: each reads all texts and counts the words of a part, then rank 0 finds the pieces. By
    /// default, one process.
    pub ranks: Communicator,
}

impl Default for VocabularyOptions {
    fn default() -> VocabularyOptions {
        VocabularyOptions {
            kind: VocabularyKind::WordPiece,
            size: 30_522,
            cased: false,
            keep_accents: false,
            min_frequency: 2,
            character_coverage: 0.999_99,
            max_words: MAX_WORDS,
            threads: 0,
            ranks: Communicator::single(),
        }
    }
}

impl VocabularyOptions {
    fn normalizer(&self) -> BertNormalizer {
        BertNormalizer::new(true, true, self.keep_accents.then_some(false), !self.cased)
    }

    /// Whether accents and other marks are stripped.
    pub fn strips_accents(&self) -> bool {
        self.kind != VocabularyKind::Bpe && !self.cased && !self.keep_accents
    }
}

/// Learns a vocabulary from `texts` (lines, paragraphs or documents, in any mixture). The special tokens come first. WordPiece
/// has BERT's; then characters by code point, then pieces in the order in which they were merged. BPE has RoBERTa's `<s> <pad>
/// </s> <unk> <mask>`; then the bytes, then pieces in the same order. Unigram has ALBERT's `<pad> <unk> [CLS] [SEP] [MASK]`; then
/// pieces by probability.
///
/// Memory is limited for any corpus: 64 MB of text, `max_words` distinct words, and the trainer's data for the half
/// million most frequent ones.
///
/// If [`VocabularyOptions::ranks`] are several, all of them must call this function, with the same texts, and all get the same result.
///
/// # Errors
/// The iterator's own error ([`TextError::Input`]), a corpus without words, a size that is too small for the corpus's
/// characters, an option out of range, ranks that read different texts ([`TextError::Ranks`]). An error of rank 0 may
/// leave the others waiting: the process must end, and with it the job.
pub fn learn<E>(
    options: &VocabularyOptions,
    texts: impl Iterator<Item = Result<String, E>>,
    progress: &dyn Fn(LearnProgress),
) -> Result<Tokenizer, TextError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    check(options)?;
    let mut learning = Learning { options, state: LearnProgress::START, progress, compares_texts: true };
    let limits = Limits { size: options.size, min_frequency: options.min_frequency };
    let tokenizer = match options.kind {
        VocabularyKind::WordPiece => {
            let counts = learning.count(&WordSplitter::new(options.normalizer()), texts)?;
            let tokens = learning.at_root(|learning| {
                let alphabet = Alphabet::choose(&counts, options.character_coverage);
                learning.begin_merging(&alphabet, alphabet.continuations.len())?;
                pairs::word_pieces(limits, counts, &alphabet)
            })?;
            Tokenizer::from_tokens_normalized(tokens, options.normalizer())?
        }
        VocabularyKind::Bpe => {
            let counts = learning.count(&ByteWords::new()?, texts)?;
            if options.size < BYTES_AND_SPECIAL {
                return Err(TextError::VocabularyTooSmall {
                    size: options.size,
                    needed: BYTES_AND_SPECIAL,
                    contents: "5 special tokens and 256 bytes".to_owned(),
                    advice: "",
                });
            }
            let model = learning.at_root(|learning| {
                learning.report(LearnStage::Merging);
                Ok(json!(pairs::byte_pairs(limits, counts)?))
            })?;
            roberta(&model)?
        }
        VocabularyKind::Unigram => {
            let counts = learning.count(&SpacedWords, texts)?;
            let normalizer = unigram_normalizer(options)?;
            let pieces = learning.at_root(|learning| {
                let counts = normalized(counts, &normalizer, thread_count(options.threads));
                if counts.is_empty() {
                    return Err(TextError::EmptyCorpus { bytes: learning.state.bytes });
                }
                let alphabet = Alphabet::choose(&counts, options.character_coverage);
                learning.begin_merging(&alphabet, 0)?;
                let mut words: Vec<(CompactString, u64)> =
                    pairs::trained(alphabet.spelled(counts)).into_iter().collect();
                words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                let corpus = unigram::Corpus {
                    words: &words,
                    characters: &alphabet.starts,
                    min_frequency: options.min_frequency,
                    threads: thread_count(options.threads),
                };
                corpus.learn(options.size - SPECIAL_TOKENS.len())
            })?;
            let tokenizer = albert(pieces)?;
            // ALBERT's class cannot express the other normalisers.
            if options.strips_accents() { tokenizer } else { tokenizer.with_normalizer(normalizer)? }
        }
    };
    learning.report(LearnStage::Finished);
    Ok(tokenizer)
}

/// The state of [`learn`].
struct Learning<'a> {
    options: &'a VocabularyOptions,
    state: LearnProgress,
    progress: &'a dyn Fn(LearnProgress),
    /// Whether texts that differ between ranks are an error.
    compares_texts: bool,
}

impl Learning<'_> {
    fn report(&mut self, stage: LearnStage) {
        self.state.stage = stage;
        (self.progress)(self.state);
    }

    fn count<E>(
        &mut self,
        words: &impl Words,
        texts: impl Iterator<Item = Result<String, E>>,
    ) -> Result<Counts, TextError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let VocabularyOptions { threads, max_words, ref ranks, .. } = *self.options;
        let compares_texts = self.compares_texts;
        let counter = Counter { ranks, threads, max_words, round_bytes: ROUND_BYTES, compares_texts };
        let counts = counter.count(words, texts, &mut self.state, self.progress)?;
        if self.state.distinct == 0 { Err(TextError::EmptyCorpus { bytes: self.state.bytes }) } else { Ok(counts) }
    }

    /// Does `work` at rank 0, which has the counts, and gives the result to all ranks.
    fn at_root<T: Serialize + DeserializeOwned>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, TextError>,
    ) -> Result<T, TextError> {
        let ranks = &self.options.ranks;
        if ranks.is_single() {
            return work(self);
        }
        let failed = |e: serde_json::Error| TextError::Ranks(format!("the vocabulary cannot be sent: {e}"));
        let result = ranks.at_root(|| work(self))?;
        let bytes = result.as_ref().map(serde_json::to_vec).transpose().map_err(failed)?;
        let bytes = ranks.broadcast(bytes.unwrap_or_default());
        result.map_or_else(|| serde_json::from_slice(&bytes).map_err(failed), Ok)
    }

    /// Reports the alphabet and checks that it fits. `more` is the number of characters that need a second token.
    fn begin_merging(&mut self, alphabet: &Alphabet, more: usize) -> Result<(), TextError> {
        let (size, characters) = (self.options.size, alphabet.starts.len());
        self.state.characters = characters;
        self.state.characters_left_out = alphabet.left_out;
        let needed = SPECIAL_TOKENS.len() + characters + more;
        if size < needed {
            let also = if more > 0 { ", each also in its ## form where it continues a word" } else { "" };
            return Err(TextError::VocabularyTooSmall {
                size,
                needed,
                contents: format!("5 special tokens and {characters} distinct characters{also}"),
                advice: " or lower `character_coverage`",
            });
        }
        self.report(LearnStage::Merging);
        Ok(())
    }
}

/// Counts the words of `texts` as [`learn`] does, but learns nothing. It measures a corpus and the reading speed. Returns
/// the number of distinct words. Ranks may read different numbers of texts.
///
/// # Errors
/// Those of `learn` that occur before it merges pieces.
pub fn count_words<E>(
    options: &VocabularyOptions,
    texts: impl Iterator<Item = Result<String, E>>,
) -> Result<usize, TextError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    check(options)?;
    let mut learning = Learning { options, state: LearnProgress::START, progress: &|_| (), compares_texts: false };
    match options.kind {
        VocabularyKind::WordPiece => learning.count(&WordSplitter::new(options.normalizer()), texts)?,
        VocabularyKind::Bpe => learning.count(&ByteWords::new()?, texts)?,
        VocabularyKind::Unigram => learning.count(&SpacedWords, texts)?,
    };
    Ok(learning.state.distinct)
}

/// The normaliser of a Unigram model. If it strips accents, it is that of ALBERT's class.
fn unigram_normalizer(options: &VocabularyOptions) -> Result<NormalizerWrapper, TextError> {
    let mut all: Vec<NormalizerWrapper> = Vec::new();
    for quote in ["``", "''"] {
        let replace = Replace::new(quote, "\"");
        all.push(
            replace.map_err(|e| TextError::Engine { action: "set the normaliser", reason: e.to_string() })?.into(),
        );
    }
    if options.strips_accents() {
        all.extend([NFKD.into(), StripAccents.into(), Lowercase.into()]);
    } else {
        all.push(NFKC.into());
        all.extend((!options.cased).then(|| Lowercase.into()));
    }
    Ok(Sequence::new(all).into())
}

/// The words after normalisation, with the mark of their beginning. Only distinct words are normalised, not the corpus: nothing that
/// the normaliser does depends on characters beyond white space.
fn normalized(counts: Counts, normalizer: &NormalizerWrapper, threads: usize) -> Counts {
    map_counts(counts, threads, |word, count, own| {
        let mut text = NormalizedString::from(word);
        if normalizer.normalize(&mut text).is_err() {
            return;
        }
        // The mark would split a word, and a name of a special token would be a piece twice.
        let is_text = |part: &&str| !part.contains(['▁', '\0']) && !ALBERT_NAMES.iter().any(|name| part.contains(name));
        for part in text.get().split_whitespace().filter(is_text) {
            *own.entry(format_compact!("▁{part}")).or_default() += count;
        }
    })
}

/// A tokenizer of RoBERTa's class. `model` is the `model` of a tokenizer.json.
fn roberta(model: &Value) -> Result<Tokenizer, TextError> {
    let mut added = AddedTokens::default();
    // As in the published tokenizer.json: the mask takes the space before it.
    added.set_named("mask_token", AddedToken::from(OTHER_NAMES[4], true).lstrip(true));
    of_family(Family::Roberta, model, added)
}

/// A tokenizer of ALBERT's class, which expects `<unk>` at 1.
fn albert(pieces: Vec<(String, f64)>) -> Result<Tokenizer, TextError> {
    let special = ALBERT_NAMES.map(|name| (name.to_owned(), 0.0));
    let all: Vec<(String, f64)> = special.into_iter().chain(pieces).collect();
    of_family(Family::Albert, &json!({"type": "Unigram", "vocab": all}), AddedTokens::default())
}

fn of_family(family: Family, model: &Value, added: AddedTokens) -> Result<Tokenizer, TextError> {
    let parts = Parts::of_json(family, &json!({"model": model}));
    let parts = parts.map_err(|reason| TextError::Engine { action: "build the tokenizer", reason })?;
    let source = Source { class: Class::Family(family), ..Source::plain() };
    family::build(family, parts, added, source, Path::new("vocabulary"))
}

/// The trainer allocates memory for all tokens before the first merge.
const MAX_TOKENS: usize = 1 << 24;

fn check(options: &VocabularyOptions) -> Result<(), TextError> {
    let coverage = options.character_coverage;
    if !(coverage > 0.0 && coverage <= 1.0) {
        return Err(TextError::BadOption {
            option: "character_coverage",
            found: coverage.to_string(),
            expected: "above 0 and at most 1",
        });
    }
    if options.max_words < 1000 {
        return Err(TextError::BadOption {
            option: "max_words",
            found: options.max_words.to_string(),
            expected: "at least 1000",
        });
    }
    if options.kind == VocabularyKind::Bpe && options.keep_accents {
        return Err(TextError::BadOption {
            option: "keep_accents",
            found: "true".to_owned(),
            expected: "false for byte-level BPE, which keeps case and accents",
        });
    }
    if options.size <= SPECIAL_TOKENS.len() {
        return Err(TextError::BadOption {
            option: "size",
            found: options.size.to_string(),
            expected: "greater than 5, the number of special tokens",
        });
    }
    if options.size > MAX_TOKENS {
        return Err(TextError::BadOption {
            option: "size",
            found: options.size.to_string(),
            expected: "at most 16,777,216",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::convert::Infallible;

    fn ignore(_: LearnProgress) {}

    fn texts(lines: &[&str]) -> impl Iterator<Item = Result<String, Infallible>> {
        lines.iter().map(|&line| Ok(line.to_owned())).collect::<Vec<_>>().into_iter()
    }

    fn options(size: usize) -> VocabularyOptions {
        VocabularyOptions { size, ..VocabularyOptions::default() }
    }

    fn tokens(tokenizer: &Tokenizer) -> Vec<&str> {
        (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.token(id).unwrap()).collect()
    }

    /// Deterministic words of one to three syllables with a skewed distribution.
    fn synthetic_text(n: usize) -> String {
        let syllables = ["ka", "lo", "mi", "Ne", "tu", "ré", "san", "or", "eth", "ix"];
        let (mut state, mut text) = (7u64, String::new());
        for i in 0..n {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut x = (state >> 33) as usize;
            for _ in 0..1 + x % 3 {
                text.push_str(syllables[(x * x) % syllables.len()]);
                x /= 5;
            }
            text.push(if i % 11 == 10 { '.' } else { ' ' });
        }
        text
    }

    #[test]
    fn special_tokens_then_characters_then_frequent_pieces() {
        let corpus = ["The cat sat. The cats sat!", "the cat"];
        let learned = learn(&options(30), texts(&corpus), &ignore).unwrap();
        let all = tokens(&learned);
        assert_eq!(all[..5], SPECIAL_TOKENS);
        assert_eq!(all[5..12], ["!", ".", "a", "c", "e", "h", "s"]);
        assert!(all.contains(&"the") && all.contains(&"cat"), "{all:?}");
        assert!(!all.contains(&"The"));
        assert_eq!(learned.decode(&learned.encode("THE cats")), "the cats");
        let cased = VocabularyOptions { cased: true, ..options(30) };
        let learned = learn(&cased, texts(&corpus), &ignore).unwrap();
        assert!(learned.is_cased());
        assert!(tokens(&learned).contains(&"T"));
    }

    #[test]
    fn result_is_deterministic_and_independent_of_threads() {
        let text = synthetic_text(40_000);
        let lines: Vec<&str> = text.split('.').collect();
        let run = |threads, lines: &[&str]| {
            let options = VocabularyOptions { threads, ..options(400) };
            learn(&options, texts(lines), &ignore).unwrap().fingerprint()
        };
        let one = run(1, &lines);
        assert_eq!(one, run(4, &lines));
        assert_eq!(one, run(3, &lines));
        // One long text is cut into slices for the threads.
        assert_eq!(one, run(3, &[&text.replace('.', " ")]).clone());
    }

    #[test]
    fn size_is_reached_and_an_error_reports_the_minimum() {
        let text = synthetic_text(20_000);
        let learned = learn(&options(200), texts(&[&text]), &ignore).unwrap();
        assert_eq!(learned.vocab_size(), 200);
        let error = learn(&options(12), texts(&[&text]), &ignore).unwrap_err();
        let TextError::VocabularyTooSmall { needed, .. } = error else {
            panic!("{error}");
        };
        assert!(error.to_string().contains(&needed.to_string()));
        assert_eq!(learn(&options(needed), texts(&[&text]), &ignore).unwrap().vocab_size(), needed);
    }

    #[test]
    fn a_high_minimum_frequency_merges_less() {
        let text = synthetic_text(2_000);
        let frequent = VocabularyOptions { min_frequency: 500, ..options(300) };
        let few = learn(&frequent, texts(&[&text]), &ignore).unwrap();
        let many = learn(&options(300), texts(&[&text]), &ignore).unwrap();
        assert!(few.vocab_size() < many.vocab_size());
    }

    #[test]
    fn empty_corpora_and_failing_readers_are_errors() {
        for lines in [&[][..], &["", " \n\t "][..]] {
            let error = learn(&options(100), texts(lines), &ignore).unwrap_err();
            assert!(matches!(error, TextError::EmptyCorpus { .. }), "{error}");
        }
        let failing = [Ok("a".to_owned()), Err("corpus.txt: bad byte")].into_iter();
        let error = learn(&options(100), failing, &ignore).unwrap_err();
        assert_eq!(error.to_string(), "corpus.txt: bad byte");
    }

    #[test]
    fn r22_marks_can_be_kept_when_text_is_lower_cased() {
        let options = VocabularyOptions { keep_accents: true, ..options(60) };
        let learned = learn(&options, texts(&["Möchte möchte MÖCHTE हिन्दी हिन्दी"]), &ignore).unwrap();
        assert!(!learned.is_cased() && !learned.strips_accents());
        assert_eq!(learned.decode(&learned.encode("MÖCHTE हिन्दी")), "möchte हिन्दी");
        let dir = tempfile::tempdir().unwrap();
        learned.save(dir.path()).unwrap();
        let again = Tokenizer::open(dir.path()).unwrap();
        assert_eq!((again.fingerprint(), again.strips_accents()), (learned.fingerprint(), false));
    }

    #[test]
    fn progress_reports_stages_bytes_and_words() {
        let seen = RefCell::new(Vec::new());
        learn(&options(40), texts(&["one two", "two three"]), &|p| {
            seen.borrow_mut().push(p);
        })
        .unwrap();
        let seen = seen.into_inner();
        let last = seen.last().unwrap();
        assert_eq!(seen[0].stage, LearnStage::Counting);
        assert_eq!(last.stage, LearnStage::Finished);
        assert_eq!((last.bytes, last.words, last.distinct), (16, 4, 3));
    }

    #[test]
    fn options_out_of_range_are_named_in_the_error() {
        let bad = VocabularyOptions { character_coverage: 0.0, ..options(100) };
        let error = learn(&bad, texts(&["a"]), &ignore).unwrap_err().to_string();
        assert!(error.contains("`character_coverage` must be above 0 and at most 1, found 0"), "{error}");
        assert!(learn(&options(5), texts(&["a"]), &ignore).is_err());
    }

    fn options_of(kind: VocabularyKind, size: usize) -> VocabularyOptions {
        VocabularyOptions { kind, ..options(size) }
    }

    #[test]
    fn byte_level_vocabularies_are_those_of_roberta() {
        let text = synthetic_text(20_000).replace('.', "\n");
        let learned = learn(&options_of(VocabularyKind::Bpe, 400), texts(&[&text, "Naïve café."]), &ignore).unwrap();
        let all = tokens(&learned);
        assert_eq!((all.len(), &all[..5]), (400, &["<s>", "<pad>", "</s>", "<unk>", "<mask>"][..]));
        assert_eq!((learned.class_name(), learned.model(), learned.is_cased()), ("RobertaTokenizer", "BPE", true));
        assert_eq!(learned.special().all(), [1, 3, 0, 2, 4]);
        let line = text.lines().next().unwrap();
        assert!(learned.encode(line).len() < line.len() / 3);
        // Any text can be spelled.
        assert_eq!(learned.decode(&learned.encode("Ünknown 日本\t🙂")), "Ünknown 日本\t🙂");
        let ids = learned.encode_masked("ka <mask> lo");
        assert_eq!(learned.decode_all(&ids), "ka<mask> lo");
        let error = learn(&options_of(VocabularyKind::Bpe, 260), texts(&["a b"]), &ignore).unwrap_err().to_string();
        assert!(error.contains("at least 261 (5 special tokens and 256 bytes); increase `size`"), "{error}");
        let accents = VocabularyOptions { keep_accents: true, ..options_of(VocabularyKind::Bpe, 400) };
        let error = learn(&accents, texts(&["a b"]), &ignore).unwrap_err().to_string();
        assert!(error.contains("`keep_accents` must be false for byte-level BPE"), "{error}");
    }

    #[test]
    fn unigram_vocabularies_are_those_of_albert() {
        let text = synthetic_text(20_000);
        let kind = VocabularyKind::Unigram;
        let run = |options: VocabularyOptions| learn(&options, texts(&[&text, "ﬁn ½ ``x'' NUÑEZ"]), &ignore).unwrap();
        let learned = run(options_of(kind, 90));
        let all = tokens(&learned);
        assert_eq!((all.len(), &all[..5]), (90, &["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"][..]));
        assert_eq!((learned.class_name(), learned.model(), learned.is_cased()), ("AlbertTokenizer", "Unigram", false));
        assert!(learned.strips_accents() && learned.template().segments(true) == 2);
        assert_eq!(learned.decode(&learned.encode("Réka LO")), "reka lo");
        let cased = run(VocabularyOptions { cased: true, ..options_of(kind, 90) });
        assert!(cased.is_cased() && !cased.strips_accents());
        assert_eq!(cased.decode(&cased.encode("ﬁn re\u{301}NUN\u{303}")), "fin réNUÑ");
        assert_eq!(cased.class_name(), "PreTrainedTokenizerFast");
        let accents = run(VocabularyOptions { keep_accents: true, ..options_of(kind, 90) });
        assert_eq!(accents.decode(&accents.encode("RéNe")), "réne");
        // Names of special tokens in the corpus do not become pieces.
        let names = "ka<unk>lo <pad> ▁ [CLS]x ".repeat(50);
        assert_eq!(learn(&options_of(kind, 60), texts(&[&text, &names]), &ignore).unwrap().special().unk, 1);
        let error = learn(&options_of(kind, 60), texts(&["▁ ▁▁"]), &ignore).unwrap_err();
        assert!(matches!(error, TextError::EmptyCorpus { .. }), "{error}");
        let error = learn(&options_of(kind, 10), texts(&[&text]), &ignore).unwrap_err().to_string();
        assert!(error.contains("distinct characters); increase `size` or lower `character_coverage`"), "{error}");
    }

    #[test]
    fn other_kinds_do_not_depend_on_threads_and_are_saved() {
        let text = synthetic_text(20_000);
        let lines: Vec<&str> = text.split('.').collect();
        for kind in [VocabularyKind::Bpe, VocabularyKind::Unigram] {
            let run = |threads, lines: &[&str]| {
                learn(&VocabularyOptions { threads, ..options_of(kind, 300) }, texts(lines), &ignore).unwrap()
            };
            let learned = run(1, &lines);
            assert_eq!(learned.fingerprint(), run(3, &lines).fingerprint());
            let dir = tempfile::tempdir().unwrap();
            learned.save(dir.path()).unwrap();
            let again = Tokenizer::open(dir.path()).unwrap();
            assert_eq!((again.fingerprint(), again.notes().len()), (learned.fingerprint(), 0));
            assert_eq!((again.special(), again.template()), (learned.special(), learned.template()));
        }
    }

    #[test]
    fn result_does_not_depend_on_the_number_of_ranks() {
        let text = synthetic_text(20_000);
        let lines: Vec<&str> = text.split('.').collect();
        for (kind, ..) in VocabularyKind::ALL {
            let run = |ranks: &Communicator| {
                let options = VocabularyOptions { ranks: ranks.clone(), threads: 1, ..options_of(kind, 300) };
                let last = RefCell::new(LearnProgress::START);
                let learned = learn(&options, texts(&lines), &|progress| *last.borrow_mut() = progress).unwrap();
                let LearnProgress { stage, bytes, words, distinct, .. } = last.into_inner();
                let dir = tempfile::tempdir().unwrap();
                learned.save(dir.path()).unwrap();
                let saved = std::fs::read_to_string(dir.path().join("tokenizer.json")).unwrap();
                (
                    learned.fingerprint(),
                    saved,
                    stage,
                    bytes,
                    words,
                    distinct,
                    count_words(&options, texts(&lines)).unwrap(),
                )
            };
            let one = run(&Communicator::single());
            for size in [2, 3] {
                assert!(cloze_testing::ranks(size, run).iter().all(|found| *found == one), "{kind:?} on {size} ranks");
            }
        }
    }

    #[test]
    fn ranks_with_other_texts_are_found() {
        let errors = cloze_testing::ranks(3, |ranks| {
            let text = if ranks.rank() == 2 { "one two three" } else { "one two two" };
            let options = VocabularyOptions { ranks: ranks.clone(), ..options(40) };
            // A sample may differ.
            assert!(count_words(&options, texts(&["one", text][..1 + ranks.rank() / 2])).unwrap() > 0);
            learn(&options, texts(&[text]), &ignore).unwrap_err().to_string()
        });
        let expected =
            "rank 2 (localhost) reads other text than rank 0: all machines need the same files under the same paths";
        assert_eq!(errors, [expected; 3]);
        let empty = cloze_testing::ranks(2, |ranks| {
            let options = VocabularyOptions { ranks: ranks.clone(), ..options(40) };
            learn(&options, texts(&[" "]), &ignore).unwrap_err().to_string()
        });
        assert!(empty.iter().all(|error| error.contains("contains no words (1 bytes read)")), "{empty:?}");
    }
}
