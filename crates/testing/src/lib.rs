//! What the tests of several crates share: a tiny model that learns a few rows in seconds, the folder of real data, a simulated hub,
//! ranks without MPI.
#![forbid(unsafe_code)]

pub mod hub;
mod ranks;

use std::path::{Path, PathBuf};

use cloze_engine::Device;
use cloze_model::{Config, Family, Heads, Model, TaskHead};
use cloze_text::{SPECIAL_TOKENS, Tokenizer};
pub use ranks::ranks;

/// The words that the tiny model knows.
pub const WORDS: [&str; 20] = [
    "the", "a", "fox", "owl", "anna", "otto", "paris", "rome", "sees", "paints", "leaves", "old", "red", "quiet",
    "who", "where", "river", "tower", "in", ".",
];

/// The tokenizer of [`WORDS`] and of `more` words after them.
pub fn tokenizer(more: &[&str]) -> Tokenizer {
    let tokens = SPECIAL_TOKENS.iter().chain(&WORDS).chain(more).map(|token| (*token).to_owned()).collect();
    Tokenizer::from_tokens(tokens, false).expect("tokens that differ")
}

/// The tiny model: 2 layers of width 32, 40 positions, the vocabulary of [`tokenizer`].
pub fn config() -> Config {
    let mut config = Config::default();
    config.vocab_size = SPECIAL_TOKENS.len() + WORDS.len();
    config.hidden_size = 32;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 2;
    config.intermediate_size = 48;
    config.max_position_embeddings = 40;
    // Larger than BERT's: a network as narrow as this learns faster from it.
    config.initializer_range = 0.1;
    config
}

/// The tiny model of a family: with embeddings half as wide as the hidden states where the family allows it.
pub fn config_of(family: &Family) -> Config {
    let mut config = config();
    family.model_type.clone_into(&mut config.model_type);
    config.embedding_size = family.has_key("embedding_size").then_some(16);
    config.num_hidden_groups = family.has_key("num_hidden_groups").then_some(1);
    config.type_vocab_size = match family {
        _ if !family.has_key("type_vocab_size") => 0,
        _ if family.positions_skip_padding() => 1,
        _ => 2,
    };
    config
}

/// Saves a random pre-trained model, without a tokenizer.
pub fn save_model(config: Config, dir: &Path) -> Model {
    let device = Device::cpu(Some(1)).expect("a CPU device");
    let model = Model::new(config, Heads::PRETRAINING, &device, 7).expect("a model of this shape");
    model.save(dir).expect("a folder that can be written");
    model
}

/// Saves a random model with these heads, whose tokenizer knows the letters from a to y: 2 layers of width 32, 40 positions.
pub fn save_letter_model(heads: Heads, dir: &Path) {
    save_labelled_letter_model(heads, &[], None, dir);
}

/// As [`save_letter_model`], with the names of labels and the `problem_type`.
pub fn save_labelled_letter_model(heads: Heads, labels: &[&str], problem: Option<&str>, dir: &Path) {
    let mut config = config();
    config.vocab_size = 99;
    config.num_attention_heads = 4;
    config.intermediate_size = 64;
    config.initializer_range = 0.2;
    if !labels.is_empty() {
        config.set_labels(&labels.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    if let Some(problem) = problem {
        config.extra.insert("problem_type".to_owned(), problem.into());
    }
    let device = Device::cpu(Some(1)).expect("a CPU device");
    let model = Model::new(config, heads, &device, 3).expect("a model of this shape");
    model.save(dir).expect("a folder that can be written");
    let letters = ('a'..='y').map(String::from);
    let tokens = SPECIAL_TOKENS.iter().map(|token| token.to_string()).chain(letters).collect();
    let tokenizer = Tokenizer::from_tokens(tokens, false).expect("tokens that differ");
    tokenizer.save(dir).expect("a folder that can be written");
}

/// Saves a random letter model for each task, in a folder with the task's name, and returns the names.
pub fn save_model_of_each_task(dir: &Path) -> Vec<&'static str> {
    let classes = |labels| Heads::of(TaskHead::Classify { labels });
    let models: [(&str, Heads, &[&str], Option<&str>); 10] = [
        ("embed", Heads::ENCODER, &[], None),
        ("classify", classes(3), &["good", "bad", "neutral"], Some("single_label_classification")),
        ("multi-label", classes(3), &["joy", "anger", "fear"], Some("multi_label_classification")),
        ("regress", classes(1), &["similarity"], Some("regression")),
        ("rerank", classes(1), &[], None),
        ("nli", classes(3), &["contradiction", "neutral", "entailment"], Some("single_label_classification")),
        ("tag", Heads::of(TaskHead::Tag { labels: 5 }), &["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], None),
        ("answer", Heads::of(TaskHead::Answer), &[], None),
        ("choose", Heads::of(TaskHead::Choose), &[], None),
        ("mask", Heads::PRETRAINING, &[], None),
    ];
    for (name, heads, labels, problem) in models {
        save_labelled_letter_model(heads, labels, problem, &dir.join(name));
    }
    // What distinguishes a cross-encoder from a model of numbers.
    let marker = r#"{"model_type": "CrossEncoder"}"#;
    std::fs::write(dir.join("rerank/config_sentence_transformers.json"), marker).expect("a file");
    models.iter().map(|(name, ..)| *name).collect()
}

/// The folder of real data, or `part` of it: the variable `CLOZE_DATA`, or `shared/data` next to the repository. Without it, prints
/// that the test is skipped.
///
/// # Panics
/// `CLOZE_DATA` names a folder that does not hold `part`.
#[allow(clippy::print_stdout, reason = "says that the test was skipped")]
pub fn real_data(part: &str) -> Option<PathBuf> {
    let named = std::env::var_os("CLOZE_DATA").map(|folder| Path::new(&folder).join(part));
    if let Some(path) = named {
        assert!(path.exists(), "CLOZE_DATA: no {}", path.display());
        return Some(path);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(part);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {} (set CLOZE_DATA)", path.display());
    None
}

/// The seed inputs of a fuzz target, including inputs that it found. Without the folder `fuzz`, which packages do not
/// contain, there are none, which is printed.
#[allow(clippy::print_stdout, reason = "says that the test was skipped")]
pub fn fuzz_seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let Ok(entries) = std::fs::read_dir(folder) else {
        println!("skipped: no seeds of the fuzz target {target}");
        return Vec::new();
    };
    entries.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a seed")).collect()
}
