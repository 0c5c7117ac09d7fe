//! The tokenizers of RoBERTa, XLM-RoBERTa, CamemBERT, ALBERT and MPNet: ids, offsets, pairs and words equal those of Transformers'
//! AutoTokenizer, also after saving.

use std::fs;
use std::path::Path;

use cloze_text::{SpecialTokens, Tokenizer};
use serde_json::{Value, json};

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokenizers/families.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Writes the folder of a case. fixtures/tokenizers/families.py documents its keys.
fn write_case(dir: &Path, fixture: &Value, case: &Value) {
    for (name, content) in case["files"].as_object().unwrap() {
        let blob = content.as_str().map(|blob| &fixture["blobs"][blob]);
        let bytes = match blob {
            None => content.to_string().into_bytes(),
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(coded) => base64::decode(coded["base64"].as_str().unwrap()).unwrap(),
        };
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The ids of words, with the number of each token's word.
fn words(tokenizer: &Tokenizer, words: &[&str]) -> Value {
    let (mut ids, mut numbers) = (Vec::new(), Vec::new());
    for (number, word) in words.iter().enumerate() {
        ids.extend(tokenizer.encode_word(word));
        numbers.resize(ids.len(), number);
    }
    json!([ids, numbers])
}

#[test]
fn folders_of_each_family_are_read_as_auto_tokenizer_reads_them() {
    let fixture = fixture();
    let (texts, split) = (strings(&fixture["texts"]), strings(&fixture["split"]));
    let mut wrong = Vec::new();
    for case in fixture["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_case(dir.path(), &fixture, case);
        let read = Tokenizer::open(dir.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(!read.notes().is_empty(), case["noted"].as_bool().unwrap(), "{name}: {:?}", read.notes());
        let out = dir.path().join("out");
        read.save_for(&out, 99).unwrap();
        let again = Tokenizer::open(&out).unwrap_or_else(|e| panic!("{name}, saved: {e}"));
        assert!(again.notes().is_empty(), "{name}: {:?}", again.notes());
        let limit = case["limit"].as_u64().map(|limit| limit as usize);
        assert_eq!(
            (read.model_max_length(), again.model_max_length()),
            (limit, limit.or(Some(99)).min(Some(99))),
            "{name}"
        );
        assert_eq!((again.fingerprint(), again.special()), (read.fingerprint(), read.special()), "{name}");
        assert_eq!((again.template(), again.class_name()), (read.template(), read.class_name()), "{name}");
        assert_eq!(read.vocab_size(), case["size"].as_u64().unwrap() as usize, "{name}");
        for tokenizer in [&read, &again] {
            // Unless they are parsed, names of special tokens are text, although a Unigram model has pieces for them.
            let special = tokenizer.special();
            let own: Vec<u32> = special.all().into_iter().filter(|&id| id != special.unk).collect();
            for text in &texts {
                let ids = tokenizer.encode(text);
                assert!(!ids.iter().any(|id| own.contains(id)), "{name}: {text:?}");
                assert!(tokenizer.encode_with_offsets(text).iter().map(|piece| piece.id).eq(ids), "{name}: {text:?}");
            }
            let masked = tokenizer.encode_masked(&format!(
                "the {} {}cat",
                tokenizer.mask_token(),
                tokenizer.token(special.sep).unwrap()
            ));
            let found: Vec<u32> = masked.into_iter().filter(|id| own.contains(id)).collect();
            assert_eq!(found, [special.mask], "{name}");
            let parsing = tokenizer.with_special_tokens(SpecialTokens::Parse);
            let mut check = |what: &str, found: Value, expected: &Value| {
                if found != *expected {
                    wrong.push(format!("{name}, {what}: {found}, expected {expected}"));
                }
            };
            for (number, text) in texts.iter().enumerate() {
                let ids = parsing.template().sequence(&parsing.encode(text), None).ids;
                check(&format!("{text:?}"), json!(ids), &case["ids"][number]);
                let pieces = parsing.encode_with_offsets(text);
                let offsets: Vec<[usize; 2]> = pieces.iter().map(|piece| [piece.start, piece.end]).collect();
                check(&format!("offsets of {text:?}"), json!(offsets), &case["offsets"][number]);
            }
            let pair = parsing.template().sequence(&parsing.encode(texts[0]), Some(&parsing.encode(texts[1]))).ids;
            check("pair", json!(pair), &case["pair"]);
            // Transformers writes a byte-level word without a space only if the tokenizer adds none.
            if read.model() == "Unigram" || name.ends_with("spaced") {
                check("words", words(tokenizer, &split), &case["words"]);
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A word is masked as a whole: its tokens up to the next one that begins a word.
#[test]
fn tokens_of_each_family_are_grouped_into_words() {
    let fixture = fixture();
    let groups = |name: &str, text: &str| {
        let case = fixture["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_case(dir.path(), &fixture, case);
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        let mut groups: Vec<String> = Vec::new();
        for id in tokenizer.encode(text) {
            match groups.last_mut() {
                Some(group) if tokenizer.is_continuation(id) => group.push_str(&tokenizer.piece_text(id)),
                _ => groups.push(tokenizer.piece_text(id)),
            }
        }
        groups
    };
    let text = "the owner sat, 12 cats";
    assert_eq!(groups("roberta files", text), ["the", "owner", "sat,", "12", "cats"]);
    assert_eq!(groups("xlmr files", text), ["the", "owner", "sat,", "12", "cats"]);
    assert_eq!(groups("camembert files", text), ["the", "owner", "sat,", "12", "cats"]);
    assert_eq!(groups("albert files", text), ["the", "owner", "sat,", "12", "cats"]);
    // A piece that the user of SentencePiece defined is an added token, and a word by itself.
    assert_eq!(groups("albert files", "a-b (the)"), ["a", "-", "b", "(", "the", ")"]);
    // A lone ▁ begins the word of the next token.
    assert_eq!(groups("xlmr files", "東京 cat"), ["東京", "cat"]);
}

#[test]
fn incomplete_folders_and_unknown_classes_are_one_clear_line() {
    let fixture = fixture();
    let fails = |files: &[(&str, &str)], expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        for (name, blob) in files {
            match fixture["blobs"].get(*blob) {
                Some(_) => write_case(dir.path(), &fixture, &json!({"files": {*name: blob}})),
                None => fs::write(dir.path().join(name), blob).unwrap(),
            }
        }
        let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    let roberta = ("config.json", r#"{"model_type": "roberta"}"#);
    let class = |name: &'static str| ("tokenizer_config.json", name);
    let xlmr = class(r#"{"tokenizer_class": "XLMRobertaTokenizer"}"#);
    fails(&[("vocab.json", "vocab"), ("merges.txt", "merges")], "\"tokenizer_class\": \"RobertaTokenizer\"");
    fails(&[("spiece.model", "albert")], "found spiece.model; to use these files, name the tokenizer's class");
    fails(&[roberta], "model_type in config.json is roberta, which needs tokenizer.json or vocab.json and merges.txt");
    fails(&[roberta, ("vocab.json", "vocab")], "merges.txt, found vocab.json");
    fails(&[xlmr, ("spiece.model", "albert")], "needs tokenizer.json or sentencepiece.bpe.model, found spiece.model");
    fails(
        &[class(r#"{"tokenizer_class": "XLNetTokenizer"}"#), ("spiece.model", "albert")],
        "tokenizer_class is XLNetTokenizer",
    );
    fails(&[roberta, ("vocab.txt", "[PAD]\n")], "found vocab.txt");
    // Files of another kind.
    fails(&[xlmr, ("sentencepiece.bpe.model", "albert")], "its unknown piece has id 1");
    fails(&[xlmr, ("sentencepiece.bpe.model", "merges")], "sentencepiece.bpe.model: not a SentencePiece model");
    fails(&[xlmr, ("sentencepiece.bpe.model", "")], "it has no pieces");
    fails(&[roberta, ("vocab.json", r#"{"a": 0, "b": 2}"#), ("merges.txt", "")], "vocab.json: token \"b\" has id 2");
    fails(
        &[roberta, ("vocab.json", "vocab"), ("merges.txt", "#version\nt h\nth\n")],
        "merges.txt: line 3: found \"th\"",
    );
    fails(&[roberta, ("vocab.json", "vocab"), ("merges.txt", "t h\nt 東\n")], "line 2: \"東\" in the merge");
    // A tokenizer.json of another kind is used unchanged, as for BERT, with a note.
    let dir = tempfile::tempdir().unwrap();
    write_case(
        dir.path(),
        &fixture,
        &json!({"files": {"tokenizer.json": "xlmr.json", "config.json": {"model_type": "roberta"}}}),
    );
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!((tokenizer.model(), tokenizer.notes().len()), ("Unigram", 1));
    assert!(tokenizer.notes()[0].contains("read its vocabulary as BPE"), "{:?}", tokenizer.notes());
}

/// A file by itself is opened with the configuration beside it.
#[test]
fn files_of_each_family_are_opened_by_their_path() {
    let fixture = fixture();
    for (name, file) in
        [("roberta files", "vocab.json"), ("albert files", "spiece.model"), ("xlmr files", "sentencepiece.bpe.model")]
    {
        let case = fixture["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_case(dir.path(), &fixture, case);
        let [folder, single] =
            [dir.path().to_owned(), dir.path().join(file)].map(|path| Tokenizer::open(&path).unwrap());
        assert_eq!(single.fingerprint(), folder.fingerprint());
        assert_eq!(numbers(&case["ids"][2]), single.template().sequence(&single.encode(""), None).ids);
    }
}
