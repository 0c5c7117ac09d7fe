//! The published BERT vocabularies: ids on real text equal the reference. Skipped if the data is not available.
#![allow(clippy::print_stdout, reason = "says that it was skipped")]

use std::fs;

use cloze_text::Tokenizer;

#[test]
fn published_vocabularies_give_the_reference_ids() {
    let Some(sample) = cloze_testing::real_data("fixtures/google-bert/sample_text.txt") else { return };
    let Some(tokenizers) = cloze_testing::real_data("tokenizers") else { return };
    let mut text = fs::read_to_string(sample).unwrap();
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
