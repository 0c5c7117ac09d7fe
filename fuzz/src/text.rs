//! Tokenizers.

use std::fs;
use std::sync::LazyLock;

use cloze_text::{SpecialTokens, Tokenizer};

use crate::files;
use crate::folder::Folder;

/// What is read where an input has no text: marks, other scripts, special tokens, characters that are dropped.
const TEXT: &str = "A na\u{ef}ve caf\u{e9}, [MASK] un##able\u{0}\u{fffd}\u{200d} \u{65e5}\u{672c} \u{1f600}\u{e0041} e\u{301}\u{323} \
                    <s>[CLS] don't\r\n\t3,14\u{a0}\u{130}\u{df}";

/// `tokenizer.json`, a text, `tokenizer_config.json`.
pub fn tokenizer_json(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("tokenizer_json"));
    let [json, text, config] = files(input);
    FOLDER.set("tokenizer.json", json);
    FOLDER.set("tokenizer_config.json", config);
    opened(&FOLDER, text);
}

/// `vocab.txt`, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, a text, `vocab.json`, `merges.txt`, a
/// SentencePiece model.
pub fn tokenizer_folder(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("tokenizer_folder"));
    let [list, config, map, added, text, vocabulary, merges, model] = files(input);
    FOLDER.set("vocab.txt", list);
    FOLDER.set("tokenizer_config.json", config);
    FOLDER.set("special_tokens_map.json", map);
    FOLDER.set("added_tokens.json", added);
    FOLDER.set("vocab.json", vocabulary);
    FOLDER.set("merges.txt", merges);
    FOLDER.set("sentencepiece.bpe.model", model);
    FOLDER.set("spiece.model", model);
    opened(&FOLDER, text);
}

/// What opens encodes, equally on both paths, and is equal when it was saved.
fn opened(folder: &Folder, text: Option<&[u8]>) {
    let Ok(tokenizer) = Tokenizer::open(folder.path()) else { return };
    let text = text.map_or(TEXT.into(), String::from_utf8_lossy);
    let out = folder.join("saved");
    let saved = tokenizer.save(&out).map(|()| Tokenizer::open(&out).expect("a saved tokenizer"));
    let _ = fs::remove_dir_all(&out);
    let same = saved.as_ref().is_ok_and(|saved| saved.fingerprint() == tokenizer.fingerprint());
    assert!(saved.is_err() || same, "a saved tokenizer differs");
    for how in [SpecialTokens::Text, SpecialTokens::Parse] {
        let tokenizer = tokenizer.clone().with_special_tokens(how);
        let ids = tokenizer.encode(&text);
        let mut reference = Vec::new();
        tokenizer.encode_reference(&text, &mut reference);
        assert_eq!(ids, reference, "{text:?}");
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        for piece in tokenizer.encode_with_offsets(&text) {
            assert!(text.get(piece.start..piece.end).is_some(), "{text:?}: {piece:?} is not a part of it");
        }
        tokenizer.encode_masked(&text);
        tokenizer.encode_word(&text);
        tokenizer.decode(&ids);
    }
}
