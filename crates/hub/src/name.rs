//! Checks the names of models and revisions.

use crate::HubError;

/// Maximal length of a name.
const MAX_LENGTH: usize = 96;

/// Whether this is a valid name of a model on the hub: `name` or `organisation/name` of letters, digits, `-`, `_` and `.`, with
/// the rules of `huggingface_hub`.
///
/// ```
/// assert!(cloze_hub::is_model_name("bert-base-uncased"));
/// assert!(cloze_hub::is_model_name("google-bert/bert-base-uncased"));
/// assert!(!cloze_hub::is_model_name("./bert"));
/// assert!(!cloze_hub::is_model_name("runs/bert/model"));
/// ```
pub fn is_model_name(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_part = |part: &str| {
        part.chars().all(|c| is_word(c) || c == '-' || c == '.')
            && part.chars().next().is_some_and(is_word)
            && part.chars().next_back().is_some_and(is_word)
    };
    text.len() <= MAX_LENGTH
        && text.split('/').count() <= 2
        && text.split('/').all(is_part)
        && !["--", ".."].iter().any(|pair| text.contains(pair))
        && !text.ends_with(".git")
}

/// Checks a name and a revision, which are used in paths and URLs.
pub(crate) fn check(name: &str, revision: &str) -> Result<(), HubError> {
    if !is_model_name(name) {
        return Err(HubError::Name(name.to_owned()));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+@".contains(c);
    let is_part = |part: &str| !part.is_empty() && part.chars().all(is_plain) && !part.starts_with('.');
    if !revision.split('/').all(is_part) || revision.contains("..") {
        return Err(HubError::Revision(revision.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_equal_those_of_the_hub() {
        for good in ["bert", "bert-base-uncased", "a/b", "google-bert/bert_base.v1", "123", "Foo-BAR_foo.bar123"] {
            assert!(is_model_name(good), "{good}");
        }
        let long = "x".repeat(97);
        let bad = [
            "", "/", "a/", "/a", "./a", "../a", "~/a", "a/b/c", "a//b", "a b", "-a", "a-", ".a", "a.", "a--b", "a..b",
            "foo.git", "a\\b", "C:\\a", "ä", &long,
        ];
        for bad in bad {
            assert!(!is_model_name(bad), "{bad}");
        }
    }

    #[test]
    fn revisions_cannot_lead_out_of_the_cache() {
        for good in ["main", "v1.0", "refs/pr/3", "feature/x+y", "0123456789abcdef"] {
            assert!(check("a", good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a/../b", "/a", "a/", "a b", "a?b", "a#b", "a%2f", ".hidden", "a\\b"] {
            assert!(matches!(check("a", bad), Err(HubError::Revision(_))), "{bad}");
        }
        assert!(matches!(check("../a", "main"), Err(HubError::Name(_))));
    }
}
