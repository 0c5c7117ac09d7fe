use super::*;
use crate::SPECIAL_TOKENS;
use std::fs;
use std::path::Path;

const PLAIN: &[&str] = &[
    "the",
    "un",
    "##aff",
    "##able",
    "cat",
    "##s",
    "mask",
    "[",
    "]",
    ",",
    ".",
    "!",
    "日",
    "本",
    "cafe",
    "a",
    "b",
    "c",
    "##a",
    "##b",
    "##c",
    "e",
    "##e",
    "s",
    "##t",
    "##\u{1d165}",
    "ا",
    "##ل",
    "ᄀ",
    "##ᅡ",
    "☃",
    "İ",
    "##i",
    "i",
    "#",
    "##",
    "0",
    "##0",
    "ß",
    "ñ",
    "n",
    "-",
    "🙂",
    "MASK",
    "É",
    "The",
];

fn plain(cased: bool) -> Tokenizer {
    let tokens = SPECIAL_TOKENS.iter().chain(PLAIN).map(|t| t.to_string()).collect();
    Tokenizer::from_tokens(tokens, cased).unwrap()
}

fn words<'a>(tokenizer: &'a Tokenizer, ids: &[u32]) -> Vec<&'a str> {
    ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect()
}

#[test]
fn special_tokens_in_text_are_text() {
    let t = plain(false);
    assert_eq!(words(&t, &t.encode("the [MASK]")), ["the", "[", "mask", "]"]);
    assert_eq!(
        words(&t, &t.encode_masked("the [MASK], [MASK] [CLS]")),
        ["the", "[MASK]", ",", "[MASK]", "[", "[UNK]", "]"]
    );
    assert!(!t.encode("[CLS][SEP][PAD][MASK]").iter().any(|&id| {
        let s = t.special();
        [s.cls, s.sep, s.pad, s.mask].contains(&id)
    }));
    let pieces = t.encode_with_offsets("[MASK]");
    assert_eq!(pieces.len(), 3);
    assert_eq!((pieces[1].start, pieces[1].end), (1, 5));
}

#[test]
fn offsets_are_bytes_of_the_original() {
    let t = plain(false);
    let text = "Thé CAFÉ日cats";
    let spans: Vec<&str> = t.encode_with_offsets(text).iter().map(|p| &text[p.start..p.end]).collect();
    assert_eq!(spans, ["Thé", "CAFÉ", "日", "cat", "s"]);
    let ids: Vec<u32> = t.encode_with_offsets(text).iter().map(|p| p.id).collect();
    assert_eq!(ids, t.encode(text));
}

#[test]
fn decode_joins_pieces_and_omits_template_tokens() {
    let t = plain(false);
    let ids = [2, t.id("un").unwrap(), t.id("##aff").unwrap(), t.id("##able").unwrap(), 4, 1, 3, 0];
    assert_eq!(t.decode(&ids), "unaffable [MASK] [UNK]");
    assert_eq!(t.decode(&[9999]), "[UNK]");
    assert!(t.is_continuation(t.id("##s").unwrap()));
    assert!(!t.is_continuation(t.id("##").unwrap()));
    assert!(!t.is_continuation(9999));
}

#[test]
fn fast_path_equals_the_reference_on_random_mixtures() {
    let atoms = [
        "the",
        "The",
        "unaffable",
        "cats",
        "a",
        "b",
        "ab",
        "é",
        "e\u{301}",
        "É",
        "\u{301}",
        "\u{316}",
        "日",
        "本",
        "\u{f900}",
        "\u{2f800}",
        "\u{1d165}",
        "\u{302e}",
        "\u{200d}",
        "\u{200b}",
        "\u{feff}",
        "\u{ad}",
        "\0",
        "\u{7}",
        "\u{fffd}",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\u{a0}",
        "\u{3000}",
        "\u{2028}",
        "\u{85}",
        "[MASK]",
        "[CLS]",
        "##s",
        "#",
        "!",
        ".",
        "—",
        "「",
        "¿",
        "🙂",
        "👩\u{200d}🔬",
        "가",
        "각",
        "İ",
        "ß",
        "ẞ",
        "ﬁ",
        "ا",
        "ل",
        "\u{64e}",
        "ñ",
        "≠",
        "\u{37e}",
        "\u{1fef}",
        "x",
        "0",
        "½",
        "☃",
        "\u{e000}",
        "\u{10ffff}",
        "\u{378}",
        "\u{16ff0}",
        "\u{1b44}",
        "ก็",
        "न्",
        "ǅ",
        "Σ",
        "\u{345}",
        "\u{1c4}",
        "-",
        "\u{2212}",
        "_",
        "$",
        "^",
        "`",
    ];
    let long = "a".repeat(99);
    let mut state = 1u64;
    for cased in [true, false] {
        let t = plain(cased);
        assert!(t.is_fast());
        for _ in 0..5_000 {
            let mut text = String::new();
            for _ in 0..state >> 60 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let pick = (state >> 33) as usize;
                if pick.is_multiple_of(97) {
                    text.push_str(&long);
                }
                if pick.is_multiple_of(13) {
                    // Any character.
                    text.extend(char::from_u32((pick as u32 >> 4) % 0x11_0000));
                }
                text.push_str(atoms[pick % atoms.len()]);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let mut expected = Vec::new();
            t.encode_reference(&text, &mut expected);
            assert_eq!(t.encode(&text), expected, "cased {cased}: {text:?}");
        }
    }
}

#[test]
fn saved_folders_give_the_same_ids_from_each_file() {
    for cased in [true, false] {
        let t = plain(cased);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new/folder");
        t.save(&out).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]);
        for path in [out.clone(), out.join("vocab.txt"), out.join("tokenizer.json")] {
            let again = Tokenizer::open(&path).unwrap();
            assert_eq!(again.fingerprint(), t.fingerprint(), "{}", path.display());
            assert_eq!(again.is_cased(), cased);
            assert!(again.is_fast());
        }
        // Without a config, the vocabulary's capitals decide.
        fs::remove_file(out.join("tokenizer.json")).unwrap();
        fs::remove_file(out.join("tokenizer_config.json")).unwrap();
        assert!(Tokenizer::open(&out).unwrap().is_cased());
    }
    assert_ne!(plain(true).fingerprint(), plain(false).fingerprint());
}

#[test]
fn r13_model_max_length_is_read_from_tokenizer_config() {
    let dir = tempfile::tempdir().unwrap();
    plain(false).save(dir.path()).unwrap();
    let config = dir.path().join("tokenizer_config.json");
    let longest = |text: &str| {
        fs::write(&config, text).unwrap();
        ["", "vocab.txt", "tokenizer.json"]
            .map(|name| Tokenizer::open(&dir.path().join(name)).unwrap().model_max_length())
    };
    assert_eq!(longest(r#"{"model_max_length": 16}"#), [Some(16); 3]);
    assert_eq!(longest(r#"{"max_len": 24}"#), [Some(24); 3]);
    assert_eq!(longest(r#"{"max_len": 24, "model_max_length": null}"#), [None; 3]);
    // What Transformers writes for "no limit".
    assert_eq!(longest(r#"{"model_max_length": 1000000000000000019884624838656}"#), [None; 3]);
    assert_eq!(longest("{}"), [None; 3]);
}

/// The values are those of BertTokenizerFast with these settings.
#[test]
fn truncation_side_and_model_input_names_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    plain(false).save(dir.path()).unwrap();
    let open = |config: &str| {
        fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::open(dir.path()).unwrap()
    };
    let cut = |tokenizer: &Tokenizer| {
        let (mut first, mut second) = ((10..15).collect(), (20..25).collect());
        let cut = tokenizer.truncate_pair(&mut first, &mut second, 5);
        (cut, first, second)
    };
    let usual = open("{}");
    assert_eq!(cut(&usual), (5, vec![10, 11], vec![20, 21, 22]));
    assert_eq!(usual.template().sequence(&[7], Some(&[8])).segments, [0, 0, 0, 1, 1]);
    let left = open(r#"{"truncation_side": "left", "model_input_names": ["input_ids", "attention_mask"]}"#);
    assert_eq!(cut(&left), (5, vec![13, 14], vec![22, 23, 24]));
    assert_eq!(left.template().sequence(&[7], Some(&[8])).segments, [0; 5]);
    let named = open(r#"{"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}"#);
    assert_eq!(named.template(), usual.template());
}

/// Regression: a vocab.txt of `BertJapaneseTokenizer` was read as BERT's, with other words than MeCab's.
#[test]
fn vocab_txt_of_another_class_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    plain(false).save(dir.path()).unwrap();
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let open = |config: &[u8]| {
        fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::open(dir.path()).map_err(|e| e.to_string())
    };
    let rejected = open(br#"{"tokenizer_class": "BertJapaneseTokenizer"}"#).err().unwrap();
    assert!(rejected.contains("tokenizer_config.json: tokenizer_class is BertJapaneseTokenizer"), "{rejected}");
    assert!(open(br#"{"tokenizer_class": "ElectraTokenizerFast"}"#).is_ok());
    let marked = open(b"\xef\xbb\xbf{}").err().unwrap();
    assert!(marked.contains("byte-order mark"), "{marked}");
}

#[test]
fn other_configurations_use_the_tokenizers_crate() {
    let dir = tempfile::tempdir().unwrap();
    plain(false).save(dir.path()).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#).unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["normalizer"] = serde_json::json!({"type": "Lowercase"});
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
    });
    fs::write(&path, json.to_string()).unwrap();
    let t = Tokenizer::open(dir.path()).unwrap();
    assert!(!t.is_fast() && !t.is_cased());
    // No truncation, no accents stripped, [MASK] read as text.
    assert_eq!(words(&t, &t.encode("The CAT, [MASK] é")), ["the", "cat", ",", "[", "mask", "]", "[UNK]"]);
    assert_ne!(t.fingerprint(), plain(false).fingerprint());
}

#[test]
fn bad_files_give_one_line_errors() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |path: &Path| Tokenizer::open(path).unwrap_err().to_string();
    assert!(fails(dir.path()).contains("contains no tokenizer"));
    let json = dir.path().join("tokenizer.json");
    assert!(fails(&json).contains("cannot read"));
    let check = |text: &str, expected: &str| {
        fs::write(&json, text).unwrap();
        let message = fails(dir.path());
        assert!(message.contains("tokenizer.json") && message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    };
    check("{\"model\": ", "line 1");
    check("", "not JSON");
    check("{}", "an object \"model\"");
    check(r#"{"model": {"type": "Morfessor"}}"#, "its model is Morfessor");
    check(r#"{"model": {"type": "BPE"}}"#, "not a tokenizer.json");
    check(r#"{"model": {"type": "WordPiece", "vocab": 3}}"#, "not a tokenizer.json");
    plain(true).save(dir.path()).unwrap();
    let json_text = fs::read_to_string(&json).unwrap();
    check(&json_text.replace("\"cat\": 9,", "\"cat\": 999,"), "expected");
    check(&json_text[..json_text.len() / 2], "not JSON");
}

/// Found by fuzzing: a normaliser that splits a character into its bytes gave the place of a byte.
#[test]
fn places_of_tokens_are_at_character_boundaries() {
    let special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
    let vocab: serde_json::Map<String, serde_json::Value> =
        special.iter().chain(&["a", "©"]).zip(0..).map(|(token, id)| ((*token).to_owned(), id.into())).collect();
    let json = serde_json::json!({
        "version": "1.0",
        "normalizer": {"type": "ByteLevel"},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let text = "aéa";
    let pieces = tokenizer.encode_with_offsets(text);
    assert!(pieces.iter().any(|piece| &text[piece.start..piece.end] == "é"), "{pieces:?}");
}
