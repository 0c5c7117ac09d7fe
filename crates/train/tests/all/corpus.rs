//! A tiny corpus of generated sentences as shards, and recipes for it.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use cloze_data::prepare::{PrepareOptions, prepare};
use cloze_text::Tokenizer;
use cloze_train::Recipe;

const WORDS: [&str; 24] = [
    "the", "a", "fox", "owl", "miller", "sailor", "river", "tower", "sees", "paints", "finds", "leaves", "old", "red",
    "quiet", "tall", "morning", "evening", "and", "then", "near", "under", "bridge", "garden",
];

/// Shards of 60 documents in `dir/shards`, with `spare` unused tokens in the vocabulary.
pub fn make_shards(dir: &Path, spare: usize) -> PathBuf {
    make_shards_holding_out(dir, spare, 0.2)
}

/// The same with another fraction of held-out documents.
pub fn make_shards_holding_out(dir: &Path, spare: usize, valid_fraction: f64) -> PathBuf {
    let mut tokens: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."].into_iter().chain(WORDS).map(String::from).collect();
    tokens.extend((0..spare).map(|i| format!("spare{i}")));
    let tokenizer = Tokenizer::from_tokens(tokens, false).unwrap();
    let mut state = 7u64;
    let mut sample = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut text = String::new();
    for _ in 0..60 {
        let (who, place) =
            (["fox", "owl", "miller", "sailor"][sample(4)], ["river", "tower", "bridge", "garden"][sample(4)]);
        for _ in 0..6 {
            let (article, adjective) = (WORDS[sample(2)], WORDS[12 + sample(4)]);
            let (verb, how) = (WORDS[8 + sample(4)], ["near", "under"][sample(2)]);
            text += &format!("The {adjective} {who} {verb} {article} {place} {how} the {place}.\n");
        }
        text.push('\n');
    }
    let corpus = dir.join("corpus.txt");
    fs::write(&corpus, text).unwrap();
    let out = dir.join("shards");
    let mut options = PrepareOptions::new(vec![corpus], tokenizer, out.clone());
    options.valid_fraction = valid_fraction;
    options.workers = Some(1);
    prepare(&options, |_| ControlFlow::Continue(())).unwrap();
    out
}

/// A recipe of a few steps in two phases, with dropout, two micro-batches per step, evaluation and checkpoints.
pub fn recipe(shards: &Path, overrides: &[&str]) -> Recipe {
    let text = format!(
        r#"
        seed = 5
        data = {:?}
        steps = 10
        precision = "f32"
        threads = 1
        [model]
        hidden_size = 32
        num_hidden_layers = 2
        num_attention_heads = 2
        intermediate_size = 64
        max_position_embeddings = 64
        [[phase]]
        share = 0.7
        seq_len = 24
        batch_sequences = 4
        accumulate = 2
        [[phase]]
        share = 0.3
        seq_len = 48
        batch_tokens = 160
        accumulate = 2
        [optimizer]
        lr = 3e-3
        [schedule]
        warmup_share = 0.2
        [eval]
        every = 4
        batches = 2
        [checkpoint]
        every = 3
        keep = 2
        [log]
        every = 2
        "#,
        shards.display().to_string()
    );
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    Recipe::parse(&text, "test recipe", &overrides).unwrap()
}

/// The names and contents of all files in a folder.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// Fails unless two folders contain the same files, except for training_state.json, which contains times.
pub fn assert_same_files(a: &Path, b: &Path) {
    let compared = |dir| -> Vec<(String, Vec<u8>)> {
        files(dir).into_iter().filter(|(name, _)| name != "training_state.json").collect()
    };
    let (a_files, b_files) = (compared(a), compared(b));
    let names = |all: &[(String, Vec<u8>)]| all.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a_files), names(&b_files), "{} and {}", a.display(), b.display());
    assert!(a_files.len() >= 3, "{} contains a model", a.display());
    for ((name, x), (_, y)) in a_files.iter().zip(&b_files) {
        assert!(x == y, "{name} differs between {} and {}", a.display(), b.display());
    }
}

/// The losses of a run by step, without values that depend on time.
pub fn losses(run: &Path) -> Vec<(u64, String)> {
    use cloze_train::run::{Line, read_metrics};
    let figures = |line: Line| match line {
        Line::Train(l) => Some((l.step, format!("train {:?} {} {}", l.losses, l.lr, l.grad_norm))),
        Line::Eval(l) => Some((l.step, format!("eval {:?}", l.losses))),
        _ => None,
    };
    read_metrics(&run.join("metrics.jsonl")).unwrap().into_iter().filter_map(figures).collect()
}
