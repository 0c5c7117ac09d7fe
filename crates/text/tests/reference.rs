//! The published BERT vocabularies: ids on real text equal the reference. Skipped if the data is not available.

use std::fs;
use std::path::PathBuf;

use cloze_text::Tokenizer;

/// The folder of test data: the variable `CLOZE_DATA`, or a folder next to the repository.
fn data() -> Option<PathBuf> {
    let path = std::env::var_os("CLOZE_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let found = path.is_dir();
    if !found {
        println!("skipped: no data at {} (set CLOZE_DATA)", path.display());
    }
    found.then_some(path)
}

#[test]
fn published_vocabularies_give_the_reference_ids() {
    let Some(data) = data() else { return };
    let mut text = fs::read_to_string(data.join("fixtures/google-bert/sample_text.txt")).unwrap();
    text.push_str("\nZürich, naïve façade — “quotes” 東京タワー 한국어 العربية हिन्दी 👩‍🔬 [MASK] ½ ﬁ İstanbul e\u{301}");
    for name in ["uncased", "cased", "chinese", "multilingual-cased"] {
        let folder = data.join(format!("tokenizers/bert-base-{name}"));
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
