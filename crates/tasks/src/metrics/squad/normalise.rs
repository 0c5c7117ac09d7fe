//! Normalization of answers, exactly as in the official Python scripts.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Converts a text to lower case, removes ASCII punctuation (`string.punctuation`) and the words a, an and the, and
/// puts one space between words. Punctuation is removed first: "the-cat" becomes one word, "thecat". Other punctuation
/// is kept: "–" separates words when articles are removed.
pub fn normalise(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut kept = String::with_capacity(lower.len());
    // The start of the current word.
    let mut word = 0;
    for c in lower.chars().filter(|c| !c.is_ascii_punctuation()) {
        if is_word(c) {
            kept.push(c);
        } else {
            drop_article(&mut kept, word);
            kept.push(c);
            word = kept.len();
        }
    }
    drop_article(&mut kept, word);
    let words: Vec<&str> = kept.split(is_space).filter(|w| !w.is_empty()).collect();
    words.join(" ")
}

/// The words of a normalized text.
pub(super) fn words(normalised: &str) -> impl Iterator<Item = &str> {
    normalised.split(' ').filter(|w| !w.is_empty())
}

/// Replaces the word that starts at `word` by a space if it is an article.
fn drop_article(kept: &mut String, word: usize) {
    if matches!(&kept[word..], "a" | "an" | "the") {
        kept.truncate(word);
        kept.push(' ');
    }
}

/// Python's `\w` without the underscore, which is already removed: letters and numbers, but not marks (Rust's
/// `is_alphanumeric` also includes some marks and symbols).
fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric();
    }
    matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
}

/// The characters at which Python's `str.split()` splits: Unicode's white space and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::super::fixtures::read;
    use super::*;

    #[derive(Deserialize)]
    struct Python {
        unassigned: Vec<u32>,
        word: Vec<u32>,
        space: Vec<u32>,
        upper: String,
        lower: String,
        normalised: Vec<(String, String)>,
    }

    /// Whether a code point is in one of the ranges with these edges.
    fn within(edges: &[u32], c: char) -> bool {
        edges.partition_point(|&edge| edge <= u32::from(c)) % 2 == 1
    }

    #[test]
    fn normalization_equals_python() {
        let python: Python = read("squad");
        assert!(python.normalised.len() > 200);
        for (text, expected) in &python.normalised {
            assert_eq!(normalise(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn character_classes_equal_those_of_python() {
        let python: Python = read("squad");
        assert_eq!(python.upper.to_lowercase(), python.lower);
        assert!(python.upper.chars().count() > 1300);
        let mut words = 0;
        // Characters that are newer than this version of Python cannot be compared.
        for c in ('\0'..=char::MAX).filter(|&c| !within(&python.unassigned, c)) {
            assert_eq!(is_space(c), within(&python.space, c), "{c:?} as space");
            assert_eq!(is_word(c) || c == '_', within(&python.word, c), "{c:?} as part of a word");
            let has_lower = python.upper.contains(c);
            assert!(has_lower || c.to_lowercase().eq([c]), "{c:?} in lower case");
            words += usize::from(is_word(c));
        }
        assert!(words > 100_000, "{words}");
    }

    #[test]
    fn articles_are_complete_words_and_are_removed_after_punctuation() {
        for (text, expected) in [
            ("The theatre of an Athenian", "theatre of athenian"),
            ("the-cat", "thecat"),
            ("a.", ""),
            ("U.S.A.", "usa"),
            ("a–b", "–b"),
            ("vitamin A", "vitamin"),
            ("“The” £5,000", "“ ” £5000"),
            ("...", ""),
            (" \t\n", ""),
        ] {
            assert_eq!(normalise(text), expected, "{text:?}");
        }
    }
}
