//! A model with a byte-level BPE tokenizer: the commands use its ids, its sequence template and its mask token.

use std::fs;
use std::path::Path;

use cloze_testing::WORDS;
use cloze_text::Tokenizer;
use serde_json::{Value, json};

use crate::common::{Bench, TEXTS, fails, json, json_file, json_lines, predict, success};

/// A byte-level BPE tokenizer.json in the layout of RoBERTa. Each of [`WORDS`] is one token; other words are split into
/// letters.
fn byte_level() -> Value {
    let mut tokens: Vec<String> = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", "."].map(str::to_owned).to_vec();
    tokens.extend(('a'..='z').map(String::from));
    let mut merges = Vec::new();
    for word in WORDS {
        let mut left = "Ġ".to_owned();
        for letter in word.chars() {
            let joined = format!("{left}{letter}");
            if !tokens.contains(&joined) {
                tokens.push(joined.clone());
                merges.push([left, letter.to_string()]);
            }
            left = joined;
        }
    }
    let vocab: serde_json::Map<String, Value> = tokens.iter().cloned().zip((0..).map(Value::from)).collect();
    let added = [0, 1, 2, 3, 4].map(|id: usize| {
        json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": id == 4, "rstrip": false,
            "normalized": false, "special": true})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true,
            "add_prefix_space": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges}
    })
}

#[test]
fn a_byte_level_tokenizer_fills_embeds_and_predicts() {
    let bench = Bench::new();
    let model = bench.path("bpe");
    fs::create_dir(&model).unwrap();
    let json_text = byte_level().to_string();
    fs::write(Path::new(&model).join("tokenizer.json"), &json_text).unwrap();
    // With the class there is no note that Transformers would read the folder differently.
    let class = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "<mask>"}"#;
    fs::write(Path::new(&model).join("tokenizer_config.json"), class).unwrap();
    let tokenizer = Tokenizer::open(Path::new(&model)).unwrap();
    assert_eq!(tokenizer.encode("the red fox .").len(), 4);
    let mut config = cloze_testing::config();
    config.vocab_size = tokenizer.vocab_size();
    cloze_testing::save_model(config, Path::new(&model));

    let every = tokenizer.vocab_size().to_string();
    let filled = success(&["fill", "--model", &model, "anna sees <mask> .", "--top", &every, "--json"]);
    let filled = json(&filled);
    let candidates = filled["masks"][0].as_array().unwrap();
    let of = |token: &str| candidates.iter().find(|found| found["token"] == token).unwrap();
    assert_eq!(of("Ġrome")["text"], "anna sees rome .");
    assert_eq!(of("Ġrome")["sequence"], " anna sees rome .");
    assert_eq!(of("x")["text"], "anna seesx .");
    fails(&["fill", "--model", &model, "anna sees [MASK] ."], &["no <mask> in"]);

    let lines = bench.file("lines.txt", "the red fox .\n\nanna\n");
    let out = bench.path("out.jsonl");
    success(&["embed", "--model", &model, "--input", &lines, "--out", &out, "--quiet"]);
    assert_eq!(json_lines(&fs::read_to_string(&out).unwrap()).len(), 3);

    let file = bench.file("texts.tsv", TEXTS);
    let paths = [model.clone(), bench.path("run")];
    let outcome = json(&success(&bench.finetune("classify", &file, &paths, &["--json"])));
    let tuned = outcome["model"].as_str().unwrap();
    assert!(outcome["runs"][0]["best"]["scores"]["accuracy"].as_f64().unwrap() > 0.99, "{outcome}");
    // The tokenizer is saved unchanged.
    assert_eq!(fs::read_to_string(Path::new(tuned).join("tokenizer.json")).unwrap(), json_text);
    assert!(!Path::new(tuned).join("vocab.txt").exists());
    assert_eq!(json_file(&format!("{tuned}/tokenizer_config.json"))["mask_token"], "<mask>");
    let found = predict("classify", tuned, "-", "the old fox leaves .\n");
    assert_eq!(found[0]["label"], "fox", "{found:?}");

    let seen = success(&["inspect", &format!("{model}/tokenizer.json")]);
    assert!(seen.contains("<mask> 4") && !seen.contains("##"), "{seen}");
    // A sequence template with more segments than the model has embedding rows is refused.
    let mut other: Value = serde_json::from_str(&json_text).unwrap();
    other["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 4}}],
        "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    });
    let kept = fs::read(Path::new(&model).join("tokenizer.json")).unwrap();
    fs::write(Path::new(&model).join("tokenizer.json"), other.to_string()).unwrap();
    let says = ["tokenizer have 5 segments, but the model only has 2 (type_vocab_size)"];
    fails(&["fill", "--model", &model, "anna sees <mask> ."], &says);
    fails(&["embed", "--model", &model, "--input", &lines, "--out", &bench.path("other.jsonl")], &says);
    fs::write(Path::new(&model).join("tokenizer.json"), kept).unwrap();

    let out = bench.path("extended");
    let extended = ["vocab", "extend", "--model", &model, "--words", "stent", "--out", &out, "--json"];
    let extended = json(&success(&extended));
    let new = Tokenizer::open(Path::new(&out)).unwrap();
    assert_eq!(extended["composed"], new.vocab_size() - tokenizer.vocab_size());
    assert_eq!(new.encode("the stent fox").len(), 3);
    success(&["embed", "--model", &out, "--input", &lines, "--out", &bench.path("extended.npy")]);
}
