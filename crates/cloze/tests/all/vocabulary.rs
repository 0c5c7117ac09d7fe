//! `cloze vocab extend` and `cloze vocab resize` on a tiny model: ids, rows, reports, errors.

use std::borrow::Cow;
use std::path::Path;

use cloze_engine::Device;
use cloze_model::{Config, Heads, Model};
use cloze_text::{SPECIAL_TOKENS, Tokenizer};
use serde_json::Value;

use crate::common::{cloze, failure, text};

const HIDDEN: usize = 16;
const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const BIAS: &str = "cls.predictions.bias";

/// Runs a command that must succeed with `--json`. Returns its result and standard error.
fn success(arguments: &[&str]) -> (Value, String) {
    let output = cloze(&[arguments, &["--json"]].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    (serde_json::from_slice(&output.stdout).unwrap(), said)
}

fn device() -> Device {
    Device::cpu(Some(1)).unwrap()
}

fn tokenizer(words: &[&str]) -> Tokenizer {
    let mut tokens: Vec<String> = SPECIAL_TOKENS.iter().map(|token| token.to_string()).collect();
    tokens.extend(('a'..='z').flat_map(|c| [c.to_string(), format!("##{c}")]));
    for word in words.iter().map(|word| word.to_string()) {
        if !tokens.contains(&word) {
            tokens.push(word);
        }
    }
    Tokenizer::from_tokens(tokens, false).unwrap()
}

/// Saves a model with `spare` more embedding rows than tokens in `dir`.
fn save_model(dir: &Path, spare: usize) -> (Model, Tokenizer) {
    let tokenizer = tokenizer(&["the", "gl", "##io", "##blast", "##oma", "##s", ".", "-"]);
    let mut config = Config::default();
    config.vocab_size = tokenizer.vocab_size() + spare;
    config.hidden_size = HIDDEN;
    config.num_hidden_layers = 1;
    config.num_attention_heads = 2;
    config.intermediate_size = 24;
    config.max_position_embeddings = 32;
    let mut model = Model::new(config, Heads::PRETRAINING, &device(), 9).unwrap();
    let bias = model.params.find(BIAS).unwrap();
    model.params.edit(bias, |bias| bias.iter_mut().enumerate().for_each(|(i, bias)| *bias = i as f32 * 0.25));
    model.save(dir).unwrap();
    tokenizer.save(dir).unwrap();
    (model, tokenizer)
}

fn values<'a>(model: &'a Model, name: &str) -> Cow<'a, [f32]> {
    model.params.read(model.params.find(name).unwrap())
}

/// A token's row of the word embeddings, and its MLM bias.
type Row = (Vec<f32>, f32);

fn row(model: &Model, id: u32) -> Row {
    (values(model, WORDS)[id as usize * HIDDEN..][..HIDDEN].to_vec(), values(model, BIAS)[id as usize])
}

fn mean(model: &Model, ids: &[u32]) -> Row {
    let rows: Vec<Row> = ids.iter().map(|&id| row(model, id)).collect();
    let of = |pick: &dyn Fn(&Row) -> f32| {
        (rows.iter().map(|row| f64::from(pick(row))).sum::<f64>() / rows.len() as f64) as f32
    };
    ((0..HIDDEN).map(|column| of(&|row| row.0[column])).collect(), of(&|row| row.1))
}

/// Checks that all weights except the vocabulary's rows are unchanged.
fn assert_other_weights_equal(new: &Model, old: &Model) {
    assert_eq!(new.heads, old.heads);
    for id in old.params.ids() {
        let name = old.params.name(id);
        if name != WORDS && name != BIAS {
            assert_eq!(values(new, name), old.params.read(id), "{name}");
        }
    }
}

#[test]
fn extend_adds_words_as_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (model_dir, list, out) = (path("bert"), path("terms.txt"), path("out"));
    let (old_model, old) = save_model(Path::new(&model_dir), 3);
    let config = dir.path().join("bert/tokenizer_config.json");
    let mut settings: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    settings["model_max_length"] = 32.into();
    settings["never_heard_of"] = "kept".into();
    settings.as_object_mut().unwrap().remove("do_lower_case");
    std::fs::write(&config, settings.to_string()).unwrap();
    std::fs::write(&list, "glioblastoma\r\nU.S.\n\nthe\n  stent \nco-op\ntwo words\nStent\nstent\n\u{2603}\n").unwrap();

    let (result, said) = success(&["vocab", "extend", "--model", &model_dir, "--words", &list, "xenon", "--out", &out]);
    let (size, added) = (old.vocab_size(), ["glioblastoma", "stent", "\u{2603}", "xenon"]);
    assert_eq!(result["added"], serde_json::json!(added));
    assert_eq!((&result["vocab_size"], &result["old_vocab_size"]), (&(size + 4).into(), &size.into()));
    assert_eq!((&result["copied"], &result["composed"], &result["drawn"]), (&size.into(), &3.into(), &1.into()));
    assert_eq!((&result["dropped"], &result["spare_rows_dropped"]), (&0.into(), &3.into()));
    let skipped = result["skipped"].as_array().unwrap();
    let lines = [2, 3, 4, 6, 7, 8, 9];
    assert_eq!(skipped.len(), lines.len(), "{result}");
    for (skipped, line) in skipped.iter().zip(lines) {
        assert!(skipped["place"].as_str().unwrap().ends_with(&format!("terms.txt:{line}")), "{skipped}");
    }
    for part in [
        "terms.txt:2: \"U.S.\" is split into u . s .",
        "\"Stent\" is normalised to \"stent\"",
        "\"the\" is already a token",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let (new_model, new) =
        (Model::load(Path::new(&out), &device()).unwrap(), Tokenizer::open(Path::new(&out)).unwrap());
    assert_eq!((new_model.config().vocab_size, new.vocab_size()), (size + 4, size + 4));
    for id in 0..size as u32 {
        assert_eq!((new.token(id), row(&new_model, id)), (old.token(id), row(&old_model, id)));
    }
    for (id, word) in (size as u32..).zip(added) {
        assert_eq!(new.encode(word), [id], "{word}");
        if word != "\u{2603}" {
            assert_eq!(row(&new_model, id), mean(&old_model, &old.encode(word)), "{word}");
        }
    }
    assert_other_weights_equal(&new_model, &old_model);
    let plain = "the gliomas. a stone-s xen";
    assert_eq!(new.encode(plain), old.encode(plain));
    assert_eq!(new.encode("glioblastomas"), [size as u32, old.id("##s").unwrap()]);
    let written: Value =
        serde_json::from_slice(&std::fs::read(Path::new(&out).join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(
        (&written["model_max_length"], &written["never_heard_of"], &written["do_lower_case"]),
        (&32.into(), &"kept".into(), &true.into())
    );
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["bert", "out", "terms.txt"], "something was left beside");

    assert!(failure(&["vocab", "extend", "--model", &model_dir, "--words", "stent", "--out", &out]).contains("--out"));
    let none = path("none");
    let output = cloze(&["vocab", "extend", "--model", &model_dir, "--words", "terms.text", "the", "--out", &none]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("none of the 2 given words") && said.contains("not a file"), "{said}");
    assert!(!Path::new(&none).exists());
}

#[test]
fn extend_chooses_words_from_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (model_dir, corpus, out) = (path("bert"), path("papers.txt"), path("out"));
    let (_, old) = save_model(Path::new(&model_dir), 0);
    // stent saves 5 × 4 tokens, glioblastoma 6 × 3; rare occurs too seldom.
    let body = "The glioblastoma. Stent\n".repeat(5) + "glioblastomas glioblastoma\n" + &"rare\n".repeat(4);
    std::fs::write(&corpus, &body).unwrap();
    let arguments = ["vocab", "extend", "--model", &model_dir, "--input", &corpus, "--size", "5", "--out", &out];
    let (result, said) = success(&arguments);
    assert_eq!(result["added"], serde_json::json!(["stent", "glioblastoma"]));
    assert_eq!(result["learned"][1], serde_json::json!({"word": "glioblastoma", "count": 6, "pieces": 4}));
    assert!(said.contains("only 2 of 5 words"), "{said}");
    let new = Tokenizer::open(Path::new(&out)).unwrap();
    let words = 4 * 5 + 2 + 4;
    assert_eq!(result["words"], words);
    for (key, tokenizer) in [("tokens_per_word_before", &old), ("tokens_per_word", &new)] {
        let expected = tokenizer.encode(&body).len() as f64 / f64::from(words);
        assert!((result[key].as_f64().unwrap() - expected).abs() < 1e-9, "{key}: {result}");
    }

    std::fs::write(&corpus, "the the the the the the\n").unwrap();
    let arguments =
        ["vocab", "extend", "--model", &model_dir, "--input", &corpus, "--size", "5", "--out", &path("none")];
    assert!(failure(&arguments).contains("--min-count"));
}

#[test]
fn resize_gives_a_model_another_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (model_dir, other_dir) = (path("bert"), path("tokenizer"));
    let (old_model, old) = save_model(Path::new(&model_dir), 2);
    let mut tokens =
        ["glioblastoma", "##omas", "[MASK]", "the", "[UNK]", "##s", "a", "[SEP]", "\u{2603}", "[CLS]"].to_vec();
    tokens.push("[PAD]");
    let other = Tokenizer::from_tokens(tokens.iter().map(|token| token.to_string()).collect(), false).unwrap();
    other.save(Path::new(&other_dir)).unwrap();

    let resize = |out: &str, seed: &str| {
        success(&["vocab", "resize", "--model", &model_dir, "--tokenizer", &other_dir, "--seed", seed, "--out", out]).0
    };
    let result = resize(&path("out"), "1");
    for (key, expected) in [
        ("vocab_size", 11),
        ("copied", 8),
        ("composed", 2),
        ("drawn", 1),
        ("dropped", old.vocab_size() - 8),
        ("spare_rows_dropped", 2),
    ] {
        assert_eq!(result[key], expected, "{key}: {result}");
    }
    let load = |name: &str| Model::load(&dir.path().join(name), &device()).unwrap();
    let new_model = load("out");
    let new = Tokenizer::open(&dir.path().join("out")).unwrap();
    assert_eq!(new.fingerprint(), other.fingerprint());
    assert_eq!((new_model.config().vocab_size, new_model.config().pad_token_id), (11, Some(10)));
    let ids = |tokens: &[&str]| tokens.iter().map(|token| old.id(token).unwrap()).collect::<Vec<u32>>();
    for (id, token) in (0..).zip(&tokens) {
        match *token {
            "\u{2603}" => {}
            "glioblastoma" => {
                assert_eq!(row(&new_model, id), mean(&old_model, &ids(&["gl", "##io", "##blast", "##oma"])));
            }
            "##omas" => assert_eq!(row(&new_model, id), mean(&old_model, &ids(&["##oma", "##s"]))),
            token => assert_eq!(row(&new_model, id), row(&old_model, old.id(token).unwrap()), "{token}"),
        }
    }
    assert_other_weights_equal(&new_model, &old_model);
    // Only the random row depends on the seed.
    resize(&path("again"), "1");
    resize(&path("other"), "2");
    let flat = |model: &Model| model.params.read_all().to_vec();
    assert_eq!(flat(&load("again")), flat(&new_model));
    let other = load("other");
    assert_ne!(row(&other, 8).0, row(&new_model, 8).0);
    assert!((0..11).filter(|&id| id != 8).all(|id| row(&other, id) == row(&new_model, id)));

    assert!(
        failure(&["vocab", "resize", "--model", &model_dir, "--tokenizer", &path("absent"), "--out", &path("x")])
            .contains("absent")
    );
    assert!(!Path::new(&path("x")).exists());
    // A model with fewer rows than tokens is refused.
    let (_, small) = save_model(&dir.path().join("small"), 0);
    small.with_words(&["stent".to_owned()]).unwrap().save(&dir.path().join("small")).unwrap();
    let said = failure(&["vocab", "extend", "--model", &path("small"), "--words", "xenon", "--out", &path("x")]);
    assert!(said.contains("tokenizer has 65 tokens, but the model only has 64 embeddings"), "{said}");
}
