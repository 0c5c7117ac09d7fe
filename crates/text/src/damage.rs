//! What is wrong in a tokenizer.json that the `tokenizers` crate reads, and then panics at.

use serde_json::Value;

/// Checks the parts of a tokenizer.json whose contents the `tokenizers` crate trusts.
///
/// # Errors
/// What is wrong, and what was expected.
pub(crate) fn check(json: &Value) -> Result<(), String> {
    check_parts("normalizer", &json["normalizer"], &|part| {
        let charsmap = &part["precompiled_charsmap"];
        if charsmap.is_null() && part["type"] != "Precompiled" {
            return Ok(());
        }
        let text = charsmap.as_str().ok_or("has no precompiled_charsmap")?;
        check_charsmap(text).map_err(|problem| format!("has a precompiled_charsmap that {problem}"))
    })?;
    check_parts("pre_tokenizer", &json["pre_tokenizer"], &|part| match &part["length"] {
        length if *length == 0 => Err("cuts texts to pieces of length 0, expected 1 or more".to_owned()),
        _ => Ok(()),
    })?;
    check_parts("decoder", &json["decoder"], &|part| match &part["stop"] {
        // A token may be shorter.
        stop if stop.is_null() || *stop == 0 => Ok(()),
        stop => Err(format!("takes {stop} characters off the end of each token (\"stop\"), expected 0")),
    })?;
    let added = json["added_tokens"].as_array().map_or(0, Vec::len);
    check_ids(&json["model"], added)?;
    check_merges(&json["model"])
}

/// Checks a part of a tokenizer, or the parts of a sequence of parts.
fn check_parts(name: &str, part: &Value, check: &dyn Fn(&Value) -> Result<(), String>) -> Result<(), String> {
    match part {
        Value::Null => return Ok(()),
        // Other forms of a name, and lists of values without names, would be read, too.
        Value::Object(object) if object.get("type").is_none_or(Value::is_string) => {}
        _ => return Err(format!("its {name} is {part}, expected an object with the name of its type")),
    }
    check(part).map_err(|problem| format!("its {name} {problem}"))?;
    let parts = ["normalizers", "pretokenizers", "decoders"].into_iter().filter_map(|key| part[key].as_array());
    parts.flatten().try_for_each(|part| check_parts(name, part, check))
}

/// Ids of a model's tokens run from 0, with some of the added tokens among them.
fn check_ids(model: &Value, added: usize) -> Result<(), String> {
    let Some(vocab) = model["vocab"].as_object() else { return Ok(()) };
    let end = vocab.len() + added;
    let is_beyond = |id: &Value| id.as_u64().is_some_and(|id| id >= end as u64);
    match vocab.iter().find(|(_, id)| is_beyond(id)) {
        Some((token, id)) => {
            Err(format!("token {token:?} has id {id}, expected ids below {end}: ids must run from 0 without holes"))
        }
        None => Ok(()),
    }
}

/// Each merge of a BPE model must make a token of its vocabulary.
fn check_merges(model: &Value) -> Result<(), String> {
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    let mut made = String::new();
    for merge in model["merges"].as_array().into_iter().flatten() {
        // A list of two, or the older form: both with a space between them. Others are refused by the crate.
        let pair = match merge {
            Value::String(text) => text.split_once(' ').filter(|_| !text.starts_with("#version")),
            _ => merge[0].as_str().zip(merge[1].as_str()),
        };
        let Some((first, second)) = pair else { continue };
        let Some(rest) = second.strip_prefix(prefix) else {
            return Err(format!(
                "the second token of its merge [{first:?}, {second:?}] does not begin with its continuing_subword_prefix {prefix:?}"
            ));
        };
        made.clear();
        made.extend([first, rest]);
        if model["vocab"].get(&made).is_none() {
            return Err(format!("its vocabulary lacks {made:?}, which its merge [{first:?}, {second:?}] makes"));
        }
    }
    Ok(())
}

/// SentencePiece's normaliser: the length of a double-array trie (Darts), the trie, and texts that its values point into. Every text
/// that can be looked up must stay within both.
fn check_charsmap(text: &str) -> Result<(), String> {
    // As the crate decodes it.
    let bytes = base64::decode(text).map_err(|e| format!("is not base64: {e}"))?;
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("is cut short")?;
    let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*length) as usize / 4 * 4).ok_or("is cut short")?;
    let units: Vec<u32> = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let texts = std::str::from_utf8(texts).map_err(|e| format!("has texts that are not UTF-8: {e}"))?;
    let damaged = || "is damaged: its trie points out of itself".to_owned();
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
                    return Err("is damaged: its trie points out of its texts".to_owned());
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

    /// A trie that maps `a` to the text at `start`; `units` are its number.
    fn charsmap(units: usize, start: u32) -> String {
        let mut trie = vec![0u32; units];
        // The root's children lie around 0; `a` is a leaf whose value is 256 units from it.
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
    fn a_charsmap_that_points_out_of_itself_was_a_panic() {
        let normalizer = |text: &str| {
            let part = json!({"type": "Precompiled", "precompiled_charsmap": text});
            json!({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, part]}})
        };
        assert!(problem(&json!({"normalizer": {"type": "Precompiled"}})).contains("has no precompiled_charsmap"));
        for start in [0, 2, 3] {
            assert_eq!(check(&normalizer(&charsmap(512, start))), Ok(()));
        }
        for (text, expected) in [
            ("AAAA", "is cut short"),
            ("AAAAAA==", "its trie points out of itself"),
            ("/////w==", "is cut short"),
            ("?", "is not base64"),
            (&charsmap(256, 0), "its trie points out of itself"),
            (&charsmap(512, 1), "its trie points out of its texts"),
            (&charsmap(512, 4), "its trie points out of its texts"),
        ] {
            let found = problem(&normalizer(text));
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn a_fixed_length_of_0_was_a_panic() {
        let splitter = |length: u32| json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": length}]}});
        assert_eq!(check(&splitter(1)), Ok(()));
        assert!(problem(&splitter(0)).contains("expected 1 or more"));
    }

    #[test]
    fn a_decoder_that_strips_ends_was_a_panic() {
        let decoder = |stop: u32| json!({"decoder": {"type": "Strip", "content": " ", "start": 1, "stop": stop}});
        assert_eq!(check(&decoder(0)), Ok(()));
        assert!(problem(&decoder(1)).contains("takes 1 characters off the end of each token"));
    }

    #[test]
    fn a_part_that_is_not_an_object_was_a_panic() {
        for part in [json!(3), json!(["AAAA"]), json!({"type": {"Precompiled": null}})] {
            for name in ["normalizer", "pre_tokenizer", "decoder"] {
                let found = problem(&json!({name: part}));
                assert!(found.contains(name) && found.contains("expected an object"), "{found}");
            }
        }
        assert_eq!(check(&json!({"normalizer": null, "decoder": {"type": "Fuse"}})), Ok(()));
    }

    #[test]
    fn an_id_at_the_end_of_the_numbers_was_a_panic() {
        let model = json!({"type": "WordPiece", "vocab": {"a": 0, "b": u32::MAX}});
        assert!(problem(&json!({"model": model})).contains("token \"b\" has id 4294967295, expected ids below 2"));
        let json = json!({"model": {"vocab": {"a": 0, "b": 2}}, "added_tokens": [{"content": "x"}]});
        assert_eq!(check(&json), Ok(()));
    }

    #[test]
    fn a_merge_without_its_token_was_a_panic() {
        let model = |merge: Value, prefix: &str| {
            let vocab = json!({"a": 0, "b": 1, "##b": 2, "ab": 3});
            json!({"model": {"type": "BPE", "vocab": vocab, "merges": [merge], "continuing_subword_prefix": prefix}})
        };
        assert_eq!(check(&model(json!(["a", "b"]), "")), Ok(()));
        assert_eq!(check(&model(json!("a ##b"), "##")), Ok(()));
        assert!(problem(&model(json!(["b", "a"]), "")).contains("lacks \"ba\", which its merge [\"b\", \"a\"] makes"));
        assert!(
            problem(&model(json!("a b"), "##")).contains("does not begin with its continuing_subword_prefix \"##\"")
        );
    }
}
