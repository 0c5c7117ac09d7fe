//! Reads the two files of byte-level BPE: `vocab.json`, an object from tokens to ids, and `merges.txt`, one merge per line.

use std::path::Path;

use ahash::AHashMap;
use serde_json::Value;

use crate::{TextError, files};

/// A vocabulary and its merges, in descending order of priority.
pub(crate) type VocabularyAndMerges = (AHashMap<String, u32>, Vec<(String, String)>);

/// Reads both files. Each merge must consist of two tokens, and its result must be a token.
pub(crate) fn read(vocabulary: &Path, merges: &Path) -> Result<VocabularyAndMerges, TextError> {
    let ids = parse_vocabulary(&files::read(vocabulary)?)
        .map_err(|reason| TextError::BadFile { path: vocabulary.to_owned(), reason })?;
    let bytes = files::read(merges)?;
    let merges = parse_merges(files::text(&bytes, merges)?, &ids)
        .map_err(|reason| TextError::BadFile { path: merges.to_owned(), reason })?;
    Ok((ids, merges))
}

fn parse_vocabulary(bytes: &[u8]) -> Result<AHashMap<String, u32>, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(object) = value else {
        return Err("expected an object from tokens to ids, found another value".to_owned());
    };
    let size = object.len();
    let mut token_of: AHashMap<u32, &str> = AHashMap::with_capacity(size);
    for (token, value) in &object {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < size);
        let Some(id) = id else {
            return Err(format!(
                "token {token:?} has id {value}; expected ids from 0 to {} without gaps, one for each of {size} tokens",
                size - 1
            ));
        };
        if let Some(other) = token_of.insert(id, token) {
            return Err(format!(
                "tokens {other:?} and {token:?} both have id {id}; expected a different id for each token"
            ));
        }
    }
    let ids = token_of.into_iter().map(|(id, token)| (token.to_owned(), id));
    Ok(ids.collect())
}

fn parse_merges(text: &str, ids: &AHashMap<String, u32>) -> Result<Vec<(String, String)>, String> {
    let mut merges = Vec::new();
    let mut merged = String::new();
    for (number, line) in (1..).zip(text.trim_end_matches(['\n', '\r']).lines()) {
        if line.starts_with("#version") {
            continue;
        }
        let Some((first, second)) = line
            .split_once(' ')
            .filter(|(first, second)| !first.is_empty() && !second.is_empty() && !second.contains(' '))
        else {
            return Err(format!("line {number}: found {line:?}, expected two tokens with a space between them"));
        };
        merged.clear();
        merged.extend([first, second]);
        if let Some(unknown) = [first, second, &merged].into_iter().find(|token| !ids.contains_key(*token)) {
            return Err(format!("line {number}: {unknown:?} in the merge {line:?} is not in the vocabulary"));
        }
        merges.push((first.to_owned(), second.to_owned()));
    }
    Ok(merges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_gaps_or_repeats_are_rejected() {
        let problem = |json: &str| parse_vocabulary(json.as_bytes()).unwrap_err();
        assert!(problem("[1]").contains("expected an object"));
        assert!(problem("{\"a\": ").contains("not JSON"));
        assert!(problem(r#"{"a": 0, "b": 2}"#).contains("token \"b\" has id 2; expected ids from 0 to 1"));
        assert!(problem(r#"{"a": 0, "b": -1}"#).contains("token \"b\" has id -1"));
        assert!(problem(r#"{"a": 1, "b": 1}"#).contains("tokens \"a\" and \"b\" both have id 1"));
        assert_eq!(parse_vocabulary(b"{}").unwrap().len(), 0);
    }

    #[test]
    fn merges_name_their_line() {
        let ids: AHashMap<String, u32> = ["a", "b", "ab", "abb"].map(str::to_owned).into_iter().zip(0..).collect();
        let read = |text: &str| parse_merges(text, &ids);
        let expected = [("a", "b"), ("ab", "b")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(read("#version: 0.2\na b\r\nab b\n\n").unwrap(), expected);
        assert_eq!(read("").unwrap(), []);
        for (text, problem) in [
            ("a b\nab\n", "line 2: found \"ab\", expected two tokens"),
            ("a b\n\nab b", "line 2: found \"\""),
            ("a b b", "line 1: found \"a b b\""),
            ("a  b", "line 1: found"),
            ("#version\na c", "line 2: \"c\" in the merge \"a c\" is not in the vocabulary"),
            ("b b", "line 1: \"bb\" in the merge"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(problem) && !found.contains('\n'), "{found}");
        }
    }
}
