//! The published BERT vocabularies: ids on real text equal the reference. Skipped if the data is not available.
#![allow(clippy::print_stdout, reason = "says that it was skipped")]

use std::fs;
use std::path::{Path, PathBuf};

use cloze_text::Tokenizer;

/// The same as in cloze-testing. That crate depends on this one, and a circular dev-dependency would prevent publishing.
fn real_data() -> Option<PathBuf> {
    let named = std::env::var_os("CLOZE_DATA").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let exists = folder.join("tokenizers").exists();
    assert!(exists || named.is_none(), "CLOZE_DATA: no tokenizers in {}", folder.display());
    if !exists {
        println!("skipped: no {} (set CLOZE_DATA)", folder.display());
    }
    exists.then_some(folder)
}

#[test]
fn published_vocabularies_give_the_reference_ids() {
    let Some(data) = real_data() else { return };
    let tokenizers = data.join("tokenizers");
    let mut text = fs::read_to_string(data.join("fixtures/google-bert/sample_text.txt")).unwrap();
    text.push_str("\nZürich, naïve façade — “quotes” 東京タワー 한국어 العربية हिन्दी 👩‍🔬 [MASK] ½ ﬁ İstanbul e\u{301}");
    for name in ["uncased", "cased", "chinese", "multilingual-cased"] {
        let folder = tokenizers.join(format!("bert-base-{name}"));
        let tokenizer = Tokenizer::open(&folder).unwrap();
        assert!(tokenizer.is_fast(), "{name}");
        let mut expected = Vec::new();
        tokenizer.encode_reference(&text, &mut expected);
        assert_eq!(tokenizer.encode(&text), expected, "{name}");
        let list = Tokenizer::open(&folder.join("vocab.txt")).unwrap();
        assert_eq!(list.encode(&text), expected, "{name}: vocab.txt");
        // The Chinese list has a token that ends in U+2028, which BertTokenizer takes from the end of a line.
        assert_eq!(list.fingerprint() == tokenizer.fingerprint(), name != "chinese", "{name}");
    }
}
