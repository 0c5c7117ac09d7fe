//! Checks a tokenizer.json for contents that make the `tokenizers` crate panic.

use serde_json::Value;

/// Checks the parts of a tokenizer.json that the `tokenizers` crate does not validate.
///
/// # Errors
/// Describes the first problem and what was expected.
pub(crate) fn check(json: &Value) -> Result<(), String> {
    check_parts("normalizer", &json["normalizer"], &|part| {
        let charsmap = &part["precompiled_charsmap"];
        if charsmap.is_null() && part["type"] != "Precompiled" {
            return Ok(());
        }
        let text = charsmap.as_str().ok_or("has no precompiled_charsmap")?;
        // Decoded as in the crate.
        let bytes = base64::decode(text).map_err(|e| format!("has a precompiled_charsmap that is not base64: {e}"))?;
        check_charsmap(&bytes).map_err(|problem| format!("has a precompiled_charsmap that {problem}"))
    })?;
    check_parts("pre_tokenizer", &json["pre_tokenizer"], &|part| match &part["length"] {
        length if *length == 0 => Err("splits text into parts of length 0, expected 1 or more".to_owned()),
        _ => Ok(()),
    })?;
    check_parts("decoder", &json["decoder"], &|part| match &part["stop"] {
        // The crate panics at tokens that are shorter.
        stop if stop.is_null() || *stop == 0 => Ok(()),
        stop => Err(format!("removes {stop} characters at the end of each token (\"stop\"), expected 0")),
    })?;
    let added = json["added_tokens"].as_array().map_or(0, Vec::len);
    check_ids(&json["model"], added)?;
    let prefix = json["model"]["continuing_subword_prefix"].as_str().unwrap_or_default();
    check_merges(&json["model"], prefix)
}

/// Checks a part of a tokenizer, or the parts of a sequence of parts.
fn check_parts(name: &str, part: &Value, check: &dyn Fn(&Value) -> Result<(), String>) -> Result<(), String> {
    match part {
        Value::Null => return Ok(()),
        // The crate would also accept other forms of a type name, and lists of values without a type.
        Value::Object(object) if object.get("type").is_none_or(Value::is_string) => {}
        _ => return Err(format!("the {name} is {part}, expected an object with a type name")),
    }
    check(part).map_err(|problem| format!("the {name} {problem}"))?;
    let parts = ["normalizers", "pretokenizers", "decoders"].into_iter().filter_map(|key| part[key].as_array());
    parts.flatten().try_for_each(|part| check_parts(name, part, check))
}

/// The ids of a model's tokens must run from 0 without gaps, except for ids of added tokens.
fn check_ids(model: &Value, added: usize) -> Result<(), String> {
    let Some(vocab) = model["vocab"].as_object() else { return Ok(()) };
    let end = vocab.len() + added;
    let is_beyond = |id: &Value| id.as_u64().is_some_and(|id| id >= end as u64);
    match vocab.iter().find(|(_, id)| is_beyond(id)) {
        Some((token, id)) => {
            Err(format!("token {token:?} has id {id}, expected ids below {end}: ids must run from 0 without gaps"))
        }
        None => Ok(()),
    }
}

/// The result of each merge of a BPE model must be in its vocabulary. Tokens that continue a word begin with `prefix`.
pub(crate) fn check_merges(model: &Value, prefix: &str) -> Result<(), String> {
    let mut merged = String::new();
    for merge in model["merges"].as_array().into_iter().flatten() {
        // A list of two tokens or, in older files, both separated by a space. The crate rejects other forms.
        let pair = match merge {
            Value::String(text) => text.split_once(' ').filter(|_| !text.starts_with("#version")),
            _ => merge[0].as_str().zip(merge[1].as_str()),
        };
        let Some((first, second)) = pair else { continue };
        let Some(rest) = second.strip_prefix(prefix) else {
            return Err(format!(
                "the second token of merge [{first:?}, {second:?}] does not begin with the continuing_subword_prefix {prefix:?}"
            ));
        };
        merged.clear();
        merged.extend([first, rest]);
        if model["vocab"].get(&merged).is_none() {
            return Err(format!("{merged:?}, the result of merge [{first:?}, {second:?}], is not in the vocabulary"));
        }
    }
    Ok(())
}

/// SentencePiece's normaliser: the length of a double-array trie (Darts), the trie, and a buffer of texts to which its values are
/// offsets. No lookup may leave the trie or the buffer.
pub(crate) fn check_charsmap(bytes: &[u8]) -> Result<(), String> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("is truncated")?;
    let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*length) as usize / 4 * 4).ok_or("is truncated")?;
    let units: Vec<u32> = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let texts = std::str::from_utf8(texts).map_err(|e| format!("has texts that are not UTF-8: {e}"))?;
    let damaged = || "is damaged: an offset in its trie is too large".to_owned();
    let unit = |at: usize| units.get(at).copied().ok_or_else(damaged);
    let offset = |unit: u32| (unit as usize >> 10) << ((unit & (1 << 9)) >> 6);
    let mut seen = vec![false; units.len()];
    let mut nodes = vec![offset(unit(0)?)];
    while let Some(node) = nodes.pop() {
        match seen.get_mut(node) {
            Some(seen) if *seen => continue,
            Some(seen) => *seen = true,
            None => return Err(damaged()),
        }
        for byte in 1..=u8::MAX {
            let child = node ^ usize::from(byte);
            let found = unit(child)?;
            if found & ((1 << 31) | 0xff) != u32::from(byte) {
                continue;
            }
            let next = child ^ offset(found);
            if (found >> 8) & 1 == 1 {
                let start = (unit(next)? & !(1 << 31)) as usize;
                if !texts.is_char_boundary(start) {
                    return Err("is damaged: a value of its trie is not an offset in its texts".to_owned());
                }
            }
            nodes.push(next);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A trie of `units` units that maps `a` to the text at `start`.
    fn charsmap(units: usize, start: u32) -> String {
        let mut trie = vec![0u32; units];
        // The root's children are at their byte values; the value of the leaf `a` is 256 units further.
        if let Some(a) = trie.get_mut(usize::from(b'a')) {
            *a = (1 << 18) | (1 << 8) | u32::from(b'a');
        }
        if let Some(value) = trie.get_mut(usize::from(b'a') + 256) {
            *value = (1 << 31) | start;
        }
        let length = (4 * units as u32).to_le_bytes();
        let bytes: Vec<u8> = length.into_iter().chain(trie.iter().flat_map(|unit| unit.to_le_bytes())).collect();
        base64::encode([&bytes[..], "\u{e9}\0".as_bytes()].concat())
    }

    fn problem(json: &Value) -> String {
        check(json).unwrap_err()
    }

    #[test]
    fn charsmaps_with_invalid_offsets_are_rejected() {
        let normalizer = |text: &str| {
            let part = json!({"type": "Precompiled", "precompiled_charsmap": text});
            json!({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, part]}})
        };
        assert!(problem(&json!({"normalizer": {"type": "Precompiled"}})).contains("has no precompiled_charsmap"));
        for start in [0, 2, 3] {
            assert_eq!(check(&normalizer(&charsmap(512, start))), Ok(()));
        }
        for (text, expected) in [
            ("AAAA", "is truncated"),
            ("AAAAAA==", "an offset in its trie is too large"),
            ("/////w==", "is truncated"),
            ("?", "is not base64"),
            (&charsmap(256, 0), "an offset in its trie is too large"),
            (&charsmap(512, 1), "not an offset in its texts"),
            (&charsmap(512, 4), "not an offset in its texts"),
        ] {
            let found = problem(&normalizer(text));
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn fixed_length_of_0_is_rejected() {
        let splitter = |length: u32| json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": length}]}});
        assert_eq!(check(&splitter(1)), Ok(()));
        assert!(problem(&splitter(0)).contains("expected 1 or more"));
    }

    #[test]
    fn decoder_that_strips_ends_is_rejected() {
        let decoder = |stop: u32| json!({"decoder": {"type": "Strip", "content": " ", "start": 1, "stop": stop}});
        assert_eq!(check(&decoder(0)), Ok(()));
        assert!(problem(&decoder(1)).contains("removes 1 characters at the end of each token"));
    }

    #[test]
    fn parts_that_are_not_objects_are_rejected() {
        for part in [json!(3), json!(["AAAA"]), json!({"type": {"Precompiled": null}})] {
            for name in ["normalizer", "pre_tokenizer", "decoder"] {
                let found = problem(&json!({name: part}));
                assert!(found.contains(name) && found.contains("expected an object"), "{found}");
            }
        }
        assert_eq!(check(&json!({"normalizer": null, "decoder": {"type": "Fuse"}})), Ok(()));
    }

    #[test]
    fn ids_with_gaps_are_rejected() {
        let model = json!({"type": "WordPiece", "vocab": {"a": 0, "b": u32::MAX}});
        assert!(problem(&json!({"model": model})).contains("token \"b\" has id 4294967295, expected ids below 2"));
        let json = json!({"model": {"vocab": {"a": 0, "b": 2}}, "added_tokens": [{"content": "x"}]});
        assert_eq!(check(&json), Ok(()));
    }

    #[test]
    fn merges_without_a_token_are_rejected() {
        let model = |merge: Value, prefix: &str| {
            let vocab = json!({"a": 0, "b": 1, "##b": 2, "ab": 3});
            json!({"model": {"type": "BPE", "vocab": vocab, "merges": [merge], "continuing_subword_prefix": prefix}})
        };
        assert_eq!(check(&model(json!(["a", "b"]), "")), Ok(()));
        assert_eq!(check(&model(json!("a ##b"), "##")), Ok(()));
        assert!(
            problem(&model(json!(["b", "a"]), ""))
                .contains("\"ba\", the result of merge [\"b\", \"a\"], is not in the vocabulary")
        );
        assert!(
            problem(&model(json!("a b"), "##")).contains("does not begin with the continuing_subword_prefix \"##\"")
        );
    }
}
