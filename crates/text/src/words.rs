//! Splits text into normalised words, like `BertNormalizer` followed by `BertPreTokenizer` of the `tokenizers` crate.
//!
//! The normaliser works character by character, so its result for each character can be looked up: a class for each ASCII
//! byte, and for other characters a page of 256 entries, which is computed with the reference normaliser when one of its
//! characters first occurs. There is one exception: decomposition (NFD, used when accents are stripped) also reorders runs
//! of combining characters. This has an effect only if a combining character is not stripped. From such a character to the
//! next space, the text is processed by the reference normaliser.

use std::sync::OnceLock;

use tokenizers::normalizers::BertNormalizer;
use tokenizers::{NormalizedString, Normalizer};
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::canonical_combining_class;

/// Classes of ASCII bytes. The first two are bytes of words.
const KEEP: u8 = 0;
const LOWER: u8 = 1;
const SPACE: u8 = 2;
const DROP: u8 = 3;
const PUNCTUATION: u8 = 4;
const WIDE: u8 = 5;

/// Maximal number of bytes of normalised text in an entry.
const ENTRY_BYTES: usize = 13;

/// The normalisation of one character.
#[derive(Clone, Copy)]
struct Entry {
    kind: Kind,
    /// Number of bytes of `text` in use, and the number of characters that they encode.
    len: u8,
    chars: u8,
    text: [u8; ENTRY_BYTES],
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// Ends a word.
    Space,
    /// Is removed without ending the word.
    Drop,
    /// Adds `text` to the word.
    Word,
    /// `text` is a word by itself.
    Separate,
    /// The reference normaliser must process it.
    Reference,
}

type Page = [Entry; 256];

/// The splitter for one configuration of `BertNormalizer` (with `clean_text`).
pub(crate) struct WordSplitter {
    normalizer: BertNormalizer,
    ascii: [u8; 256],
    pages: Box<[OnceLock<Box<Page>>]>,
}

/// As defined by the pre-tokeniser.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_punctuation()
}

impl WordSplitter {
    pub(crate) fn new(normalizer: BertNormalizer) -> WordSplitter {
        debug_assert!(normalizer.clean_text);
        let mut words =
            WordSplitter { normalizer, ascii: [WIDE; 256], pages: (0..0x1100).map(|_| OnceLock::new()).collect() };
        for byte in 0..128u8 {
            let entry = words.entry_of(char::from(byte));
            words.ascii[usize::from(byte)] = match entry.kind {
                Kind::Space => SPACE,
                Kind::Drop => DROP,
                Kind::Separate => PUNCTUATION,
                Kind::Word if entry.text[0] == byte => KEEP,
                Kind::Word => LOWER,
                Kind::Reference => WIDE,
            };
        }
        words
    }

    /// The reference's normalisation, which never fails for this normaliser.
    pub(crate) fn normalize(&self, text: &str) -> String {
        let mut normalized = NormalizedString::from(text);
        match self.normalizer.normalize(&mut normalized) {
            Ok(()) => normalized.get().to_owned(),
            Err(_) => String::new(),
        }
    }

    fn entry_of(&self, c: char) -> Entry {
        let normal = self.normalize(c.encode_utf8(&mut [0; 4]));
        let strips = self.normalizer.strip_accents.unwrap_or(self.normalizer.lowercase);
        let body = normal.trim();
        let chars = body.chars().count();
        let mut entry = Entry { kind: Kind::Reference, len: 0, chars: 0, text: [0; ENTRY_BYTES] };
        entry.kind = if normal.is_empty() {
            Kind::Drop
        } else if body.is_empty() {
            Kind::Space
        } else if body.len() > ENTRY_BYTES
            || body.contains(char::is_whitespace)
            || strips && body.chars().any(|c| canonical_combining_class(c) != 0)
        {
            return entry;
        } else if chars == 1 && (body.len() < normal.len() || body.contains(is_punctuation)) {
            // The normaliser surrounds Chinese characters with spaces.
            Kind::Separate
        } else if body.len() < normal.len() || body.contains(is_punctuation) {
            return entry;
        } else {
            Kind::Word
        };
        entry.len = body.len() as u8;
        entry.chars = chars as u8;
        entry.text[..body.len()].copy_from_slice(body.as_bytes());
        entry
    }

    fn entry(&self, c: char) -> &Entry {
        let page = self.pages[c as usize >> 8].get_or_init(|| {
            let first = c as u32 & !0xff;
            Box::new(std::array::from_fn(|i| {
                // Surrogates are not characters; these entries are never used.
                self.entry_of(char::from_u32(first + i as u32).unwrap_or('\0'))
            }))
        });
        &page[c as usize & 0xff]
    }

    /// Calls `each` with every normalised word of `text` and its number of characters. `buffer` is scratch memory.
    #[inline]
    pub(crate) fn split(&self, text: &str, buffer: &mut String, mut each: impl FnMut(&str, usize)) {
        let bytes = text.as_bytes();
        let (mut at, mut chars) = (0, 0);
        buffer.clear();
        macro_rules! flush {
            () => {
                if chars > 0 {
                    each(buffer, chars);
                    buffer.clear();
                    chars = 0;
                }
            };
        }
        while at < bytes.len() {
            let class = self.ascii[usize::from(bytes[at])];
            match class {
                KEEP | LOWER => {
                    let start = at;
                    let mut seen = class;
                    at += 1;
                    let mut next = SPACE;
                    while at < bytes.len() {
                        next = self.ascii[usize::from(bytes[at])];
                        if next > LOWER {
                            break;
                        }
                        seen |= next;
                        at += 1;
                    }
                    let run = &text[start..at];
                    let ends = at == bytes.len() || next == SPACE || next == PUNCTUATION;
                    if chars == 0 && ends && seen == KEEP {
                        each(run, run.len());
                    } else {
                        let old = buffer.len();
                        buffer.push_str(run);
                        if seen == LOWER {
                            buffer[old..].make_ascii_lowercase();
                        }
                        chars += run.len();
                    }
                }
                SPACE => {
                    flush!();
                    at += 1;
                }
                DROP => at += 1,
                PUNCTUATION => {
                    flush!();
                    each(&text[at..at + 1], 1);
                    at += 1;
                }
                _ => {
                    let Some(c) = text[at..].chars().next() else {
                        break;
                    };
                    let entry = self.entry(c);
                    // The bytes come from a `&str`, so they are valid UTF-8.
                    let normal = std::str::from_utf8(&entry.text[..usize::from(entry.len)]).unwrap_or("");
                    match entry.kind {
                        Kind::Space => flush!(),
                        Kind::Drop => {}
                        Kind::Word => {
                            buffer.push_str(normal);
                            chars += usize::from(entry.chars);
                        }
                        Kind::Separate => {
                            flush!();
                            each(normal, 1);
                        }
                        Kind::Reference => {
                            let end = self.next_space(text, at);
                            for c in self.normalize(&text[at..end]).chars() {
                                if c.is_whitespace() {
                                    flush!();
                                } else if is_punctuation(c) {
                                    flush!();
                                    each(c.encode_utf8(&mut [0; 4]), 1);
                                } else {
                                    buffer.push(c);
                                    chars += 1;
                                }
                            }
                            at = end;
                            continue;
                        }
                    }
                    at += c.len_utf8();
                }
            }
        }
        flush!();
        // The value that the last flush assigns is not read.
        let _ = chars;
    }

    /// As [`split`](Self::split), for text that has been normalised.
    pub(crate) fn split_normalized(text: &str, mut each: impl FnMut(&str, usize)) {
        for mut rest in text.split_whitespace() {
            while let Some(at) = rest.find(is_punctuation) {
                let (before, mark) = rest.split_at(at);
                if !before.is_empty() {
                    each(before, before.chars().count());
                }
                let end = mark.chars().next().map_or(0, char::len_utf8);
                each(&mark[..end], 1);
                rest = &mark[end..];
            }
            if !rest.is_empty() {
                each(rest, rest.chars().count());
            }
        }
    }

    /// The byte index of the first space at or after `from`. The normaliser never looks past a space.
    fn next_space(&self, text: &str, from: usize) -> usize {
        text[from..]
            .char_indices()
            .find(|&(_, c)| self.entry(c).kind == Kind::Space)
            .map_or(text.len(), |(i, _)| from + i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn all_settings() -> Vec<BertNormalizer> {
        let mut all = Vec::new();
        for chinese in [true, false] {
            for strip in [None, Some(true), Some(false)] {
                for lower in [true, false] {
                    all.push(BertNormalizer::new(true, chinese, strip, lower));
                }
            }
        }
        all
    }

    fn reference(normalizer: &BertNormalizer, text: &str) -> Vec<String> {
        let mut pre = PreTokenizedString::from(text);
        pre.normalize(|s| normalizer.normalize(s)).unwrap();
        tokenizers::pre_tokenizers::bert::BertPreTokenizer.pre_tokenize(&mut pre).unwrap();
        pre.get_splits(OffsetReferential::Normalized, OffsetType::Byte)
            .into_iter()
            .map(|(s, _, _)| s.to_owned())
            .collect()
    }

    fn ours(words: &WordSplitter, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        words.split(text, &mut String::new(), |word, chars| {
            assert_eq!(word.chars().count(), chars);
            out.push(word.to_owned());
        });
        out
    }

    #[test]
    fn every_character_is_split_as_by_the_reference() {
        for normalizer in [BertNormalizer::new(true, true, None, true), BertNormalizer::new(true, true, None, false)] {
            let words = WordSplitter::new(normalizer);
            // Sixty-four characters at a time, each between letters, keep the test fast.
            // Of the large uniform blocks (Han, Hangul, private use, unassigned planes), every 31st character is enough.
            let all: Vec<char> = ('\0'..=char::MAX)
                .filter(|&c| {
                    let in_uniform_block =
                        matches!(u32::from(c), 0x3410..0x9ff0 | 0xac10..0xd790 | 0xe010..0xf8f0 | 0x20010..);
                    !in_uniform_block || u32::from(c).is_multiple_of(31)
                })
                .collect();
            for chunk in all.chunks(64) {
                let text: String = chunk.iter().flat_map(|&c| ['x', c, 'Y', ' ']).collect();
                assert_eq!(ours(&words, &text), reference(&normalizer, &text), "{chunk:?}");
            }
        }
    }

    #[test]
    fn combining_runs_are_split_as_by_the_reference() {
        // Marks of many classes, some of which are not stripped, in every order of three.
        let marks = [
            '\u{301}',
            '\u{316}',
            '\u{1d165}',
            '\u{302e}',
            '\u{1b44}',
            '\u{345}',
            '\u{a953}',
            'é',
            '\u{16ff0}',
            '\u{200d}',
            '中',
            '-',
            ' ',
            '가',
            'İ',
            '\u{1dfa}',
        ];
        for normalizer in all_settings() {
            let words = WordSplitter::new(normalizer);
            for a in marks {
                for b in marks {
                    for c in marks {
                        let text = format!("E{a}{b}{c}o {c}{a}");
                        assert_eq!(ours(&words, &text), reference(&normalizer, &text), "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn ascii_and_controls_are_split_as_by_the_reference() {
        let text = "Hello,world!  a\tb\nc\rd\u{b}e\u{0}f\u{7f}g it's [MASK] soft\u{ad}hyphen x\u{a0}y ÉTÉ \u{fffd}z";
        for normalizer in all_settings() {
            let words = WordSplitter::new(normalizer);
            assert_eq!(ours(&words, text), reference(&normalizer, text));
        }
        let words = WordSplitter::new(BertNormalizer::new(true, true, None, true));
        assert_eq!(ours(&words, "Él said: NO"), ["el", "said", ":", "no"]);
        assert_eq!(ours(&words, ""), Vec::<String>::new());
    }
}
