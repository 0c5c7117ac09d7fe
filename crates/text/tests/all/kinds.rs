//! Tokenizers other than WordPiece: ids, offsets, texts and sequences equal those of the `tokenizers` crate, also after saving.

use std::fs;
use std::path::Path;

use cloze_text::{SPECIAL_TOKENS, Sequence, SpecialTokens, TextError, Tokenizer};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::Metaspace;
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Trainer};

const CORPUS: &str = "the cats sat on the mat and the cat sat there, unaffable as ever; who sat on that mat? the naïve café owner \
                      sat on the mat on the 3rd of May, and the cats of the café sat there with the owner";

const TEXTS: [&str; 9] = [
    "the cats sat on the mat",
    " unaffable  cats,\nwho sat?",
    "naïve café 日本 🙂",
    "",
    " ",
    "the",
    "a mat</s> and [SEP]",
    "e\u{301}tait là\t\u{a0}x",
    "zzz the qqq",
];

/// Special tokens of RoBERTa; `<mask>` takes the space before it.
const ROBERTA: [&str; 5] = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];

fn special(name: &str) -> AddedToken {
    AddedToken::from(name, true).lstrip(name == "<mask>")
}

/// Byte-level BPE in the layout of RoBERTa.
fn byte_level() -> tokenizers::Tokenizer {
    let words: Vec<String> = CORPUS.split_inclusive(' ').map(|word| format!("Ġ{}", word.trim())).collect();
    let mut trainer = BpeTrainer::builder()
        .special_tokens(ROBERTA[..4].iter().map(|name| special(name)).collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .vocab_size(330)
        .show_progress(false)
        .build();
    trainer.feed(words.iter(), |word| Ok(vec![word.to_owned()])).unwrap();
    let mut model = BPE::default();
    trainer.train(&mut model).unwrap();
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    let roberta = RobertaProcessing::new(("</s>".into(), 2), ("<s>".into(), 0)).add_prefix_space(false);
    tokenizer.with_post_processor(Some(roberta));
    tokenizer.add_special_tokens(ROBERTA.map(special)).unwrap();
    tokenizer
}

/// Unigram in the layout of XLM-R.
fn unigram() -> tokenizers::Tokenizer {
    let mut pieces: Vec<(String, f64)> = ROBERTA[..4].iter().map(|name| (name.to_string(), 0.0)).collect();
    let words = ["▁the", "▁cat", "s", "▁sat", "▁on", "▁m", "at", "▁caf", "é", "▁", "un", "aff", "able", ",", "?"];
    pieces.extend(words.iter().enumerate().map(|(i, word)| (word.to_string(), -1.5 - i as f64 / 3.0)));
    pieces.extend(('a'..='z').filter(|&c| c != 's').map(|c| (c.to_string(), -9.1)));
    let mut tokenizer = tokenizers::Tokenizer::new(Unigram::from(pieces, Some(3), false).unwrap());
    tokenizer.with_pre_tokenizer(Some(Metaspace::default()));
    tokenizer.with_decoder(Some(Metaspace::default()));
    let template = TemplateProcessing::builder()
        .try_single("<s> $A </s>")
        .unwrap()
        .try_pair("<s> $A </s> </s> $B </s>")
        .unwrap()
        .special_tokens(vec![("<s>", 0), ("</s>", 2)])
        .build()
        .unwrap();
    tokenizer.with_post_processor(Some(template));
    tokenizer.add_special_tokens(ROBERTA.map(special)).unwrap();
    tokenizer
}

/// A word-level model in the layout of BERT.
fn word_level() -> tokenizers::Tokenizer {
    let words = SPECIAL_TOKENS.iter().copied().chain(["the", "cats", "sat", "on", "mat", ",", "?"]);
    let ids = words.map(str::to_owned).zip(0..).collect();
    let model = WordLevel::builder().vocab(ids).unk_token("[UNK]".into()).build().unwrap();
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(Whitespace {}));
    tokenizer.with_post_processor(Some(BertProcessing::new(("[SEP]".into(), 3), ("[CLS]".into(), 2))));
    tokenizer.add_special_tokens(SPECIAL_TOKENS.map(|name| AddedToken::from(name, true))).unwrap();
    tokenizer
}

fn all() -> [(&'static str, tokenizers::Tokenizer); 3] {
    [("BPE", byte_level()), ("Unigram", unigram()), ("WordLevel", word_level())]
}

/// Saves the reference tokenizer in `dir` and opens it with this crate.
fn saved(reference: &tokenizers::Tokenizer, dir: &Path) -> Tokenizer {
    reference.save(dir.join("tokenizer.json"), true).unwrap();
    Tokenizer::open(dir).unwrap()
}

fn check(ours: &Tokenizer, reference: &tokenizers::Tokenizer) {
    // Special tokens in texts are text here, in both tokenizers.
    let mut reference = reference.clone();
    reference.set_encode_special_tokens(true);
    assert_eq!(ours.vocab_size(), reference.get_vocab_size(true));
    let is_name = |text: &str| text.contains("</s>") && ours.model() == "Unigram";
    for text in TEXTS {
        let expected = reference.encode(text, false).unwrap();
        if is_name(text) {
            // The crate finds the name among the pieces.
            assert!(expected.get_ids().contains(&2) && !ours.encode(text).contains(&2));
            continue;
        }
        assert_eq!(ours.encode(text), expected.get_ids(), "{text:?}");
        let pieces = ours.encode_with_offsets(text);
        assert_eq!(pieces.iter().map(|piece| piece.id).collect::<Vec<_>>(), expected.get_ids());
        let offsets: Vec<(usize, usize)> = pieces.iter().map(|piece| (piece.start, piece.end)).collect();
        let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).chain([text.len()]).collect();
        let chars = reference.encode_char_offsets(text, false).unwrap();
        let expected_offsets: Vec<_> = chars.get_offsets().iter().map(|&(a, b)| (starts[a], starts[b])).collect();
        assert_eq!(offsets, expected_offsets, "{text:?}");
        assert_eq!(ours.decode_all(expected.get_ids()), reference.decode(expected.get_ids(), false).unwrap());

        let encoding_with_special = reference.encode(text, true).unwrap();
        let segments = |encoding: &tokenizers::Encoding| encoding.get_type_ids().iter().map(|&id| id as u8).collect();
        let expected =
            Sequence { ids: encoding_with_special.get_ids().to_vec(), segments: segments(&encoding_with_special) };
        assert_eq!(ours.template().sequence(&ours.encode(text), None), expected, "{text:?}");
        assert_eq!(ours.template().added(false), expected.ids.len() - ours.encode(text).len());
        for other in TEXTS.into_iter().filter(|other| !is_name(other)) {
            let pair = reference.encode((text, other), true).unwrap();
            let (first, second) = (ours.encode(text), ours.encode(other));
            let expected = Sequence { ids: pair.get_ids().to_vec(), segments: segments(&pair) };
            assert_eq!(ours.template().sequence(&first, Some(&second)), expected, "{text:?} {other:?}");
        }
    }
}

#[test]
fn ids_offsets_texts_and_sequences_equal_the_reference_also_after_saving() {
    for (model, reference) in all() {
        let dir = tempfile::tempdir().unwrap();
        let ours = saved(&reference, dir.path());
        assert_eq!((ours.model(), ours.is_fast(), ours.is_cased()), (model, false, true));
        check(&ours, &reference);
        let again = dir.path().join("again");
        ours.save_for(&again, 40).unwrap();
        let reopened = Tokenizer::open(&again).unwrap();
        check(&reopened, &reference);
        assert_eq!(reopened.fingerprint(), ours.fingerprint());
        assert_eq!(reopened.special(), ours.special());
        // The files that were read are written: no vocab.txt, no BertTokenizer.
        assert!(!again.join("vocab.txt").exists());
        assert_eq!(
            fs::read(again.join("tokenizer.json")).unwrap(),
            fs::read(dir.path().join("tokenizer.json")).unwrap()
        );
        let config: Value = serde_json::from_slice(&fs::read(again.join("tokenizer_config.json")).unwrap()).unwrap();
        assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
        assert_eq!((&config["mask_token"], &config["model_max_length"]), (&json!(ours.mask_token()), &json!(40)));
    }
    let prints: Vec<String> =
        all().iter().map(|(_, t)| saved(t, tempfile::tempdir().unwrap().path()).fingerprint()).collect();
    assert!(prints[0] != prints[1] && prints[1] != prints[2]);
}

#[test]
fn decoded_text_has_no_template_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let bpe = saved(&byte_level(), dir.path());
    let ids = bpe.template().sequence(&bpe.encode("the cats, naïve 日"), Some(&bpe.encode(" sat"))).ids;
    assert_eq!(bpe.decode(&ids), "the cats, naïve 日 sat");
    assert_eq!(bpe.decode(&[0, 9999, 2, 1]), "<unk>");
    let unigram = saved(&unigram(), dir.path());
    let ids = unigram.template().sequence(&unigram.encode("the cats sat"), None).ids;
    assert_eq!(unigram.decode(&ids), "the cats sat");
}

#[test]
fn tokens_mark_word_starts() {
    let dir = tempfile::tempdir().unwrap();
    for (reference, mark) in [(byte_level(), 'Ġ'), (unigram(), '▁')] {
        let ours = saved(&reference, dir.path());
        assert!(ours.marks_word_starts());
        let ids = ours.encode(" the zcats on a mat");
        let begins: String =
            ids.iter().filter(|&&id| !ours.is_continuation(id)).map(|&id| ours.token(id).unwrap()).collect();
        assert_eq!(begins.matches(mark).count(), 5, "{begins}");
        assert!(ids.iter().any(|&id| ours.is_continuation(id)));
        let pieces: String = ids.iter().map(|&id| ours.piece_text(id)).collect();
        assert_eq!(pieces, "thezcatsonamat");
        assert!(ours.special().all().iter().all(|&id| !ours.is_continuation(id)));
        // A single word is encoded like a word inside a text.
        assert_eq!(ours.encode_word("mat"), ours.encode(" mat"));
        assert_eq!(ours.token(ours.encode_word("the")[0]).unwrap(), format!("{mark}the"));
    }
    let words = saved(&word_level(), dir.path());
    assert!(words.marks_word_starts() && !(0..words.vocab_size() as u32).any(|id| words.is_continuation(id)));
    // BPE over characters, without markers of word starts.
    let mut plain = byte_level();
    plain.with_pre_tokenizer(Some(Whitespace {}));
    assert!(!saved(&plain, dir.path()).marks_word_starts());
}

#[test]
fn masks_are_recognised_as_in_transformers() {
    let dir = tempfile::tempdir().unwrap();
    for (_, reference) in all() {
        let ours = saved(&reference, dir.path());
        let mask = ours.mask_token().to_owned();
        for text in [format!("the {mask} sat, {mask}."), mask.clone(), format!("the{mask} cats {mask}the")] {
            let expected = reference.encode(text.as_str(), false).unwrap();
            assert_eq!(ours.encode_masked(&text), expected.get_ids(), "{text}");
            assert!(ours.encode_masked(&text).contains(&ours.special().mask));
        }
    }
}

#[test]
fn special_tokens_are_named_by_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let mut reference = byte_level();
    reference.add_special_tokens([AddedToken::from("<gap>", true)]).unwrap();
    let gap = reference.token_to_id("<gap>");
    assert_ne!(Some(saved(&reference, dir.path()).special().mask), gap);
    fs::write(dir.path().join("special_tokens_map.json"), r#"{"mask_token": {"content": "<gap>"}}"#).unwrap();
    let ours = Tokenizer::open(dir.path()).unwrap();
    assert_eq!((Some(ours.special().mask), ours.mask_token()), (gap, "<gap>"));
    // It overrides tokenizer_config.json unless that lists all added tokens. Both files are preserved.
    let check = |config: &str, mask: &str| {
        fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let ours = Tokenizer::open(dir.path()).unwrap();
        assert_eq!(ours.mask_token(), mask);
        let again = dir.path().join("again");
        ours.save_for(&again, 40).unwrap();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let read = |dir: &Path| -> Value { serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap() };
            assert_eq!(read(&again), read(dir.path()), "{name}");
        }
        fs::remove_dir_all(again).unwrap();
    };
    let class = r#""tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8, "x": [1]"#;
    check(&format!(r#"{{"mask_token": "<mask>", {class}}}"#), "<gap>");
    check(&format!(r#"{{"mask_token": "<mask>", "added_tokens_decoder": {{}}, {class}}}"#), "<mask>");
}

/// Writes a tokenizer folder of the fixture. fixtures/tokenizers/make.py documents its keys.
fn write_case(dir: &Path, fixture: &Value, case: &Value) {
    let vocabulary = fixture["vocabularies"][case["vocab"].as_u64().unwrap() as usize].as_array().unwrap();
    let tokens: Vec<&str> = vocabulary.iter().map(|token| token.as_str().unwrap()).collect();
    if let Some(own) = case["json"].as_object() {
        let mut json = fixture["base"].clone();
        for (key, value) in own {
            match value.as_array().filter(|_| key == "added_tokens") {
                Some(more) => json[key].as_array_mut().unwrap().extend(more.iter().cloned()),
                None => json[key] = value.clone(),
            }
        }
        json["model"]["vocab"] = tokens.iter().zip(0..).map(|(token, id)| (token.to_string(), json!(id))).collect();
        fs::write(dir.join("tokenizer.json"), json.to_string()).unwrap();
    } else {
        fs::write(dir.join("vocab.txt"), tokens.iter().flat_map(|token| [token, "\n"]).collect::<String>()).unwrap();
    }
    for (name, content) in case["files"].as_object().unwrap() {
        fs::write(dir.join(name), content.to_string()).unwrap();
    }
}

/// R2, R3, R4: folders of many kinds are read as by Transformers' AutoTokenizer, and so are the folders saved from them.
#[test]
fn r2_r3_r4_folders_are_read_as_auto_tokenizer_reads_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokenizers/cases.json");
    let fixture: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let texts: Vec<&str> = fixture["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for case in fixture["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_case(dir.path(), &fixture, case);
        let read = Tokenizer::open(dir.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(!read.notes().is_empty(), case["guessed"].as_bool().unwrap(), "{name}: {:?}", read.notes());
        let out = dir.path().join("out");
        read.save_for(&out, 512).unwrap();
        let again = Tokenizer::open(&out).unwrap_or_else(|e| panic!("{name}, saved: {e}"));
        assert!(again.notes().is_empty(), "{name}: {:?}", again.notes());
        let limit = case["limit"].as_f64().map(|limit| limit as usize);
        assert_eq!((read.model_max_length(), again.model_max_length()), (limit, limit.or(Some(512))), "{name}");
        assert_eq!((again.fingerprint(), again.special()), (read.fingerprint(), read.special()), "{name}");
        for (text, expected) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            let expected: Vec<u32> =
                expected.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            for (which, tokenizer) in [("read", &read), ("saved", &again)] {
                let parsing = tokenizer.with_special_tokens(SpecialTokens::Parse);
                let ids = parsing.template().sequence(&parsing.encode(text), None).ids;
                if ids != expected {
                    wrong.push(format!("{name}, {which}, {text:?}: {ids:?}, expected {expected:?}"));
                }
                for reading in [tokenizer, &parsing] {
                    let mut by_reference = Vec::new();
                    reading.encode_reference(text, &mut by_reference);
                    let pieces = reading.encode_with_offsets(text);
                    assert_eq!(reading.encode(text), by_reference, "{name}, {which}: {text:?}");
                    assert_eq!(
                        pieces.iter().map(|piece| piece.id).collect::<Vec<_>>(),
                        by_reference,
                        "{name}: {text:?}"
                    );
                }
                let is_own = |id: &u32| tokenizer.special().all().contains(id) && *id != tokenizer.special().unk;
                assert!(!tokenizer.encode(text).iter().any(is_own), "{name}: {text:?}");
            }
        }
        let size = case["size"].as_u64().unwrap() as usize;
        assert_eq!((read.vocab_size(), again.vocab_size()), (size, size), "{name}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn words_are_added_or_refused_and_invalid_json_gives_clear_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, reference) in all() {
        let ours = saved(&reference, dir.path());
        assert!(matches!(ours.keeping_accents(), Err(TextError::NotPlain)));
        match ours.with_words(&["glioma".to_owned()]) {
            Ok(new) => assert_eq!(new.encode(" glioma"), [ours.vocab_size() as u32], "{kind}"),
            Err(error) => {
                assert!(
                    kind == "WordLevel" && error.to_string().contains("whose model is WordLevel"),
                    "{kind}: {error}"
                );
            }
        }
    }
    let fails = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut json: Value = serde_json::from_str(&byte_level().to_string(false).unwrap()).unwrap();
        change(&mut json);
        fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains(expected) && !error.contains('\n'), "{error}");
    };
    fails(&|json| json["model"]["dropout"] = 0.1.into(), "\"dropout\": 0.1");
    fails(&|json| json["post_processor"]["sep"][1] = 5000.into(), "adds token 5000");
    fails(&|json| json["added_tokens"].as_array_mut().unwrap().retain(|t| t["content"] != "<mask>"), "no [MASK]");
}
