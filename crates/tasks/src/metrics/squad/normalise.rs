//! Answers made comparable, exactly as the official scripts do it in Python.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The text in lower case, without ASCII punctuation (`string.punctuation`), without the words a, an and the, and with one
/// space between words. Punctuation goes first: "the-cat" is one word, "thecat". Other punctuation stays: "–" is a word,
/// and parts the words beside it as far as articles are concerned.
pub fn normalise(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut kept = String::with_capacity(lower.len());
    // Where the word now read begins.
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

/// The words of a normalised text.
pub(super) fn words(normalised: &str) -> impl Iterator<Item = &str> {
    normalised.split(' ').filter(|w| !w.is_empty())
}

/// Puts a space in the place of what begins at `word` if it is an article.
fn drop_article(kept: &mut String, word: usize) {
    if matches!(&kept[word..], "a" | "an" | "the") {
        kept.truncate(word);
        kept.push(' ');
    }
}

/// Python's `\w` less the underscore, which is gone by then: letters and numbers, but not marks (Rust's
/// `is_alphanumeric` takes some marks and symbols as well).
fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric();
    }
    matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
}

/// Where Python's `str.split()` splits: Unicode's white space and the four ASCII separators.
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

    /// Whether a code point lies in ranges given by their edges.
    fn within(edges: &[u32], c: char) -> bool {
        edges.partition_point(|&edge| edge <= u32::from(c)) % 2 == 1
    }

    #[test]
    fn equal_to_python() {
        let python: Python = read("squad");
        assert!(python.normalised.len() > 200);
        for (text, expected) in &python.normalised {
            assert_eq!(normalise(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn every_character_is_what_python_takes_it_for() {
        let python: Python = read("squad");
        assert_eq!(python.upper.to_lowercase(), python.lower);
        assert!(python.upper.chars().count() > 1300);
        let mut words = 0;
        // Characters newer than that Python have nothing to be compared with.
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
    fn articles_are_whole_words_and_go_after_punctuation() {
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
