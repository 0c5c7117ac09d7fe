//! Statistics of a corpus, and warnings about problems that hurt training.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use cloze_text::{MarkCounts, ScriptMarks};
use serde::{Deserialize, Serialize};

use crate::corpus::CorpusNotes;

/// What [`Filters`](crate::prepare::Filters) left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Dropped {
    /// Documents with the text of an earlier one.
    pub duplicate_documents: u64,
    /// Lines with the text of an earlier one.
    pub duplicate_lines: u64,
    /// Documents with too few words.
    pub short_documents: u64,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dropped { duplicate_documents, duplicate_lines, short_documents } = *self;
        write!(
            f,
            "{} duplicate documents, {} duplicate lines, {} documents with too few words",
            grouped(duplicate_documents),
            grouped(duplicate_lines),
            grouped(short_documents)
        )
    }
}

/// Statistics of a corpus from [`prepare`](crate::prepare::prepare). Its `Display` is a readable table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
// Manifests of earlier versions may not contain all counts.
#[serde(default)]
#[non_exhaustive]
pub struct CorpusReport {
    /// Files read.
    pub files: u64,
    /// Bytes of decompressed text, without the markup of the format.
    pub text_bytes: u64,
    /// Documents written, in both splits.
    pub documents: u64,
    /// Number of these documents that are held out.
    pub valid_documents: u64,
    /// Sentences written.
    pub sentences: u64,
    /// Tokens written, without special tokens.
    pub tokens: u64,
    /// Words, which are runs of characters that are not white space. Not meaningful for scripts without spaces.
    pub words: u64,
    /// Number of \[UNK\] tokens.
    pub unknown_tokens: u64,
    /// tokens / words.
    pub tokens_per_word: f64,
    /// unknown_tokens / tokens.
    pub unknown_rate: f64,
    /// Documents whose text equals that of an earlier document.
    pub duplicate_documents: u64,
    /// Lines (paragraphs) that are not blank.
    pub lines: u64,
    /// Lines whose text equals that of an earlier line.
    pub duplicate_lines: u64,
    /// Whether the two counts of duplicates are estimates from a sample, because the corpus is too large to count all.
    pub duplicates_estimated: bool,
    /// What the filters left out; all other counts are of the rest.
    pub dropped: Dropped,
    /// Documents with one sentence, which cannot form a sentence pair.
    pub one_sentence_documents: u64,
    /// Documents or rows without text, which are left out.
    pub empty_documents: u64,
    /// Documents that were split because they were longer than
    /// [`MAX_DOCUMENT`](crate::corpus::MAX_DOCUMENT) bytes.
    pub cut_documents: u64,
    /// NUL bytes that were removed.
    #[serde(default)]
    pub nuls: u64,
    /// Unpaired surrogate escapes that were replaced by U+FFFD.
    #[serde(default)]
    pub lone_surrogates: u64,
    /// Sentences that were split because they were longer than
    /// [`MAX_SENTENCE`](crate::prepare::MAX_SENTENCE) tokens.
    pub cut_sentences: u64,
    /// Fraction of capitals among the ASCII letters.
    pub capitals_rate: f64,
    /// Marks that the tokenizer's normalisation removes: accents, vowel signs and tone marks, per script, most frequent first.
    #[serde(default)]
    pub dropped_marks: Vec<ScriptMarks>,
    /// Long text files without a blank line: each was read as one document. At most ten names.
    pub files_without_boundaries: Vec<String>,
    /// Number of such files.
    pub missing_boundaries: u64,
    /// Files without text. At most ten names.
    pub empty_files: Vec<String>,
    /// One warning for each problem that hurts training.
    pub warnings: Vec<String>,
}

/// Counts that are added up over documents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub text_bytes: u64,
    pub sentences: u64,
    pub tokens: u64,
    pub words: u64,
    pub unknown_tokens: u64,
    pub capitals: u64,
    pub letters: u64,
    pub one_sentence_documents: u64,
    pub cut_sentences: u64,
    /// Marks that normalisation removes.
    pub marks: MarkCounts,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.text_bytes += other.text_bytes;
        self.sentences += other.sentences;
        self.tokens += other.tokens;
        self.words += other.words;
        self.unknown_tokens += other.unknown_tokens;
        self.capitals += other.capitals;
        self.letters += other.letters;
        self.one_sentence_documents += other.one_sentence_documents;
        self.cut_sentences += other.cut_sentences;
        self.marks.add(&other.marks);
    }

    /// Counts the words and the ASCII letters in a text.
    pub fn count_text(&mut self, text: &str) {
        let mut within_word = false;
        let (mut words, mut capitals, mut small) = (0u64, 0u64, 0u64);
        for &byte in text.as_bytes() {
            let blank = byte.is_ascii_whitespace();
            words += u64::from(within_word & blank);
            within_word = !blank;
            capitals += u64::from(byte.is_ascii_uppercase());
            small += u64::from(byte.is_ascii_lowercase());
        }
        self.text_bytes += text.len() as u64;
        self.words += words + u64::from(within_word);
        self.capitals += capitals;
        self.letters += capitals + small;
    }
}

/// Counts duplicate hashes in limited memory: all hashes up to a limit, then those of a random half of the hash values, a
/// quarter, … A hash value is either always or never in the sample, so the number of duplicates is an unbiased estimate.
pub(crate) struct DuplicateCounter {
    counts: HashMap<u64, u32, BuildHasherDefault<IdentityHasher>>,
    limit: usize,
    /// Only hashes whose sampling bits are all zero are counted: a fraction of 1/2^halvings.
    halvings: u32,
}

impl DuplicateCounter {
    pub fn new(limit: usize) -> DuplicateCounter {
        DuplicateCounter { counts: HashMap::default(), limit, halvings: 0 }
    }

    pub fn add(&mut self, hash: u64) {
        if !sampled(hash, self.halvings) {
            return;
        }
        let count = self.counts.entry(hash).or_default();
        *count = count.saturating_add(1);
        while self.counts.len() > self.limit {
            self.halvings += 1;
            let halvings = self.halvings;
            self.counts.retain(|&hash, _| sampled(hash, halvings));
        }
    }

    /// Number of hashes that are not the first of their value.
    pub fn duplicates(&self) -> u64 {
        let found: u64 = self.counts.values().map(|&n| u64::from(n) - 1).sum();
        found << self.halvings
    }

    pub fn is_estimate(&self) -> bool {
        self.halvings > 0
    }
}

/// Uses bits 32 and higher, because the hash table uses the lowest bits and the seven highest.
fn sampled(hash: u64, halvings: u32) -> bool {
    (hash >> 32) & ((1 << halvings) - 1) == 0
}

/// The keys are already hashes.
#[derive(Default)]
pub(crate) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64(bytes);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// The declared and the actual casing of a vocabulary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VocabularyCase {
    pub cased: bool,
    /// Fraction of the vocabulary's tokens with a capital letter, without special tokens.
    pub capital_tokens: f64,
}

fn percent(part: u64, total: u64) -> f64 {
    100.0 * part as f64 / total.max(1) as f64
}

impl CorpusReport {
    /// Copies the counts and computes the rates. Call `warn` after the duplicates have been set.
    pub(crate) fn new(tally: &Tally, notes: &CorpusNotes, documents: u64) -> CorpusReport {
        let names = |paths: &[std::path::PathBuf]| -> Vec<String> {
            paths.iter().take(10).map(|p| p.display().to_string()).collect()
        };
        CorpusReport {
            files: notes.files,
            text_bytes: tally.text_bytes,
            documents,
            sentences: tally.sentences,
            tokens: tally.tokens,
            words: tally.words,
            unknown_tokens: tally.unknown_tokens,
            tokens_per_word: tally.tokens as f64 / tally.words.max(1) as f64,
            unknown_rate: tally.unknown_tokens as f64 / tally.tokens.max(1) as f64,
            one_sentence_documents: tally.one_sentence_documents,
            empty_documents: notes.empty_documents,
            cut_documents: notes.split_documents,
            nuls: notes.nul_bytes,
            lone_surrogates: notes.lone_surrogates,
            cut_sentences: tally.cut_sentences,
            capitals_rate: tally.capitals as f64 / tally.letters.max(1) as f64,
            dropped_marks: tally.marks.scripts(),
            files_without_boundaries: names(&notes.no_boundaries),
            missing_boundaries: notes.no_boundaries.len() as u64,
            empty_files: names(&notes.empty_files),
            ..CorpusReport::default()
        }
    }

    /// Sets the warnings.
    pub(crate) fn warn(&mut self, case: VocabularyCase, letters: u64) {
        let mut warnings = Vec::new();
        if self.documents == 1 {
            warnings.push(
                "The corpus is a single document: it is used for training, and nothing is held out. Put a blank line between \
                 documents, or pre-train without evaluation and without sentence pairs (set `eval.every` to 0 and `objective.nsp` \
                 to false)."
                    .into(),
            );
        } else if self.valid_documents == 0 {
            warnings.push(
                "No document is held out because `valid_fraction` is 0. Pre-train without evaluation (set `eval.every` to 0), or \
                 increase `valid_fraction`."
                    .into(),
            );
        }
        if self.missing_boundaries > 0 {
            warnings.push(format!(
                "Missing document boundaries: {} long text file(s) have no blank line, so each is one document \
                 (first: {}). If they contain several documents, put blank lines between them; otherwise a random next sentence \
                 may come from the same text.",
                self.missing_boundaries, self.files_without_boundaries[0]
            ));
        }
        if self.one_sentence_documents * 5 > self.documents {
            warnings.push(format!(
                "{:.0} % of the documents have one sentence and cannot form next-sentence pairs. If there are blank lines \
                 between sentences, remove them; otherwise pre-train with `objective.nsp` set to false.",
                percent(self.one_sentence_documents, self.documents)
            ));
        }
        if self.unknown_rate > 0.2 {
            warnings.push(format!(
                "{:.0} % of the tokens are [UNK]: the vocabulary is for another language, script or casing. Learn a \
                 vocabulary from this corpus.",
                100.0 * self.unknown_rate
            ));
        } else if self.unknown_rate > 0.01 {
            warnings.push(format!(
                "{:.1} % of the tokens are [UNK], from which the model learns nothing: the vocabulary does not contain all \
                 characters of this corpus.",
                100.0 * self.unknown_rate
            ));
        }
        if self.tokens_per_word > 2.5 && letters * 2 > self.text_bytes {
            warnings.push(format!(
                "{:.1} tokens per word: the vocabulary splits the text into small pieces. Learn a vocabulary from this \
                 corpus.",
                self.tokens_per_word
            ));
        }
        let has_enough_letters = letters >= 1000;
        if has_enough_letters && case.cased && self.capitals_rate < 0.005 {
            warnings.push(
                "Casing mismatch: the vocabulary is cased, but the text is in lower case. Use an uncased \
                 vocabulary, or the original text."
                    .into(),
            );
        }
        if has_enough_letters && case.cased && case.capital_tokens == 0.0 && self.capitals_rate >= 0.005 {
            warnings.push(
                "Casing mismatch: the tokenizer keeps case, but its vocabulary has no capital letters, so words \
                 with capitals become [UNK]. Set do_lower_case to true."
                    .into(),
            );
        }
        if !case.cased && case.capital_tokens > 0.02 {
            warnings.push(format!(
                "Casing mismatch: the tokenizer lower-cases, but {:.0} % of its vocabulary has capital letters and \
                 cannot be used. Set do_lower_case to false.",
                100.0 * case.capital_tokens
            ));
        }
        warnings.extend(ScriptMarks::warning(&self.dropped_marks));
        if self.duplicate_documents * 100 > self.documents {
            warnings.push(format!(
                "{:.1} % of the documents are duplicates: the model will memorise them, and copies of held-out documents \
                 may be in the training split. `drop_duplicates` leaves them out.",
                percent(self.duplicate_documents, self.documents)
            ));
        }
        if self.duplicate_lines * 5 > self.lines {
            warnings.push(format!(
                "{:.0} % of the lines are duplicates (boilerplate?): the model will memorise them. `drop_duplicate_lines` leaves them out.",
                percent(self.duplicate_lines, self.lines)
            ));
        }
        if !self.empty_files.is_empty() {
            warnings.push(format!("Files without text: {}.", self.empty_files.join(", ")));
        }
        self.warnings = warnings;
    }
}

impl fmt::Display for CorpusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = if self.duplicates_estimated { "about " } else { "" };
        let mut row = |name: &str, value: String| writeln!(f, "{name:<24}{value}");
        row("files", grouped(self.files))?;
        row("text", format!("{:.1} MB", self.text_bytes as f64 / 1e6))?;
        row("documents", format!("{} ({} held out)", grouped(self.documents), grouped(self.valid_documents)))?;
        row(
            "sentences",
            format!(
                "{} ({:.1} per document)",
                grouped(self.sentences),
                self.sentences as f64 / self.documents.max(1) as f64
            ),
        )?;
        row(
            "tokens",
            format!("{} ({:.1} per sentence)", grouped(self.tokens), self.tokens as f64 / self.sentences.max(1) as f64),
        )?;
        if self.dropped != Dropped::default() {
            row("left out", self.dropped.to_string())?;
        }
        row("words", grouped(self.words))?;
        row("tokens per word", format!("{:.3}", self.tokens_per_word))?;
        row("[UNK]", format!("{} ({:.3} % of the tokens)", grouped(self.unknown_tokens), 100.0 * self.unknown_rate))?;
        row(
            "duplicate documents",
            format!(
                "{about}{} ({:.2} %)",
                grouped(self.duplicate_documents),
                percent(self.duplicate_documents, self.documents)
            ),
        )?;
        row(
            "duplicate lines",
            format!(
                "{about}{} of {} ({:.2} %)",
                grouped(self.duplicate_lines),
                grouped(self.lines),
                percent(self.duplicate_lines, self.lines)
            ),
        )?;
        row(
            "one-sentence documents",
            format!(
                "{} ({:.2} %)",
                grouped(self.one_sentence_documents),
                percent(self.one_sentence_documents, self.documents)
            ),
        )?;
        row(
            "missing boundaries",
            match self.missing_boundaries {
                0 => "none".into(),
                n => format!("{n} file(s)"),
            },
        )?;
        row("capital letters", format!("{:.2} %", 100.0 * self.capitals_rate))?;
        if !self.dropped_marks.is_empty() {
            row("marks dropped", self.dropped_marks.iter().map(ScriptMarks::describe).collect::<Vec<_>>().join(", "))?;
        }
        for (name, count) in [
            ("rows without text", self.empty_documents),
            ("documents cut", self.cut_documents),
            ("sentences cut", self.cut_sentences),
            ("NUL bytes dropped", self.nuls),
            ("lone surrogates read as U+FFFD", self.lone_surrogates),
        ] {
            if count > 0 {
                row(name, grouped(count))?;
            }
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

/// 1234567 → "1,234,567".
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hash(n: u64) -> u64 {
        xxh3_64(&n.to_le_bytes())
    }

    #[test]
    fn duplicates_are_exact_below_the_limit_and_estimated_above() {
        let mut few = DuplicateCounter::new(1000);
        (0..500).for_each(|n| few.add(hash(n % 300)));
        assert_eq!((few.duplicates(), few.is_estimate()), (200, false));

        let mut many = DuplicateCounter::new(1000);
        (0..40_000).for_each(|n| many.add(hash(n % 30_000)));
        assert!(many.is_estimate() && many.counts.len() <= 1000);
        let found = many.duplicates() as f64;
        assert!((8_000.0..12_000.0).contains(&found), "{found}");
    }

    #[test]
    fn words_and_letters_are_counted() {
        let mut tally = Tally::default();
        tally.count_text("  Über die  Brücke,\nGO ");
        assert_eq!(tally.words, 4);
        assert_eq!((tally.capitals, tally.letters), (3, 13));
    }

    fn warnings(change: impl FnOnce(&mut CorpusReport), case: VocabularyCase) -> String {
        let mut report = CorpusReport {
            documents: 1000,
            valid_documents: 10,
            lines: 1000,
            text_bytes: 20_000,
            capitals_rate: 0.04,
            tokens_per_word: 1.3,
            ..CorpusReport::default()
        };
        change(&mut report);
        report.warn(case, 15_000);
        report.warnings.join("\n")
    }

    #[test]
    fn each_problem_has_a_warning() {
        let good = VocabularyCase { cased: false, capital_tokens: 0.0 };
        let cased = VocabularyCase { cased: true, capital_tokens: 0.3 };
        assert_eq!(warnings(|_| {}, good), "");
        assert_eq!(warnings(|_| {}, cased), "");
        let has = |text: String, word: &str| assert!(text.contains(word), "{word}: {text}");
        has(warnings(|r| r.documents = 1, good), "single document");
        has(warnings(|r| r.valid_documents = 0, good), "held out");
        has(warnings(|r| r.unknown_rate = 0.5, good), "[UNK]");
        has(warnings(|r| r.unknown_rate = 0.02, good), "does not contain all");
        has(warnings(|r| r.tokens_per_word = 3.0, good), "tokens per word");
        has(warnings(|r| r.duplicate_documents = 20, good), "duplicates");
        has(warnings(|r| r.duplicate_lines = 300, good), "lines are duplicates");
        has(warnings(|r| r.one_sentence_documents = 300, good), "one sentence");
        has(warnings(|r| r.capitals_rate = 0.0, cased), "lower case");
        let missing = |r: &mut CorpusReport| {
            r.missing_boundaries = 1;
            r.files_without_boundaries = vec!["x.txt".into()];
        };
        has(warnings(missing, good), "x.txt");
        let flat = VocabularyCase { cased: true, capital_tokens: 0.0 };
        has(warnings(|_| {}, flat), "no capital letters");
        let loud = VocabularyCase { cased: false, capital_tokens: 0.3 };
        has(warnings(|_| {}, loud), "cannot be used");
    }

    #[test]
    fn display_groups_digits() {
        let report = CorpusReport { tokens: 1_234_567, ..CorpusReport::default() };
        assert!(report.to_string().contains("1,234,567"));
        assert_eq!((grouped(0), grouped(999)), ("0".into(), "999".into()));
    }
}
