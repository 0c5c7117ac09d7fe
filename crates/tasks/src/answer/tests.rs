//! Helpers for the tests of this module, and end-to-end tests from text to answers: against results of Transformers
//! (`fixtures/answer`) and on SQuAD.

use std::path::{Path, PathBuf};

use cloze_text::{SPECIAL_TOKENS, Tokenizer, truncate_pair};

use super::{EncodedContext, ExtractOptions, Logits, WindowOptions, extract, target, windows};
use crate::sequence::text_windows;

/// A small vocabulary for tests: English, digits, punctuation, a few characters of other scripts.
pub(crate) fn tokenizer(cased: bool) -> Tokenizer {
    const WORDS: &[&str] = &[
        "the", "cat", "##s", "sat", "on", "mat", "who", "left", "cafe", "##a", "a", "##e", "e", "1895", "1943", ".",
        ",", "?", "(", ")", "-", "日", "本", "ᄀ", "##ᅡ", "🙂", "\u{2764}", "\u{3099}", "x", "##x", "The",
    ];
    let tokens = SPECIAL_TOKENS.iter().chain(WORDS).map(|t| t.to_string()).collect();
    Tokenizer::from_tokens(tokens, cased).unwrap()
}

/// SplitMix64.
pub(super) struct Numbers(pub u64);

impl Numbers {
    /// Nearly uniform below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A text of up to `parts` random words, punctuation marks, spaces and unusual characters.
pub(super) fn random_text(numbers: &mut Numbers, parts: usize) -> String {
    const PARTS: &[&str] = &[
        "the",
        "cats",
        "sat",
        "on",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "mat",
        "who",
        "left",
        ".",
        "(1895-1943)",
        "café",
        "cafe\u{301}",
        "\u{301}",
        "日",
        "本",
        "가",
        "🙂",
        "👨\u{200d}👩\u{200d}👧",
        "\u{2764}\u{fe0f}",
        "\u{ad}",
        "İ",
        "ﬁ",
        "The",
        "[SEP]",
        "[MASK]",
        "unknown",
        "xx",
        "\u{0}",
        "\u{fffd}",
        "日\u{3099}",
        "\u{2028}",
        "ß",
        "x\u{323}\u{307}",
    ];
    (0..numbers.below(parts + 1)).map(|_| PARTS[numbers.below(PARTS.len())]).collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/answer")
}

/// `cases.json`; see its generator.
fn cases() -> (Tokenizer, serde_json::Value) {
    let vocabulary = std::fs::read_to_string(fixtures().join("vocab.txt")).unwrap();
    let tokens = vocabulary.lines().map(str::to_owned).collect();
    let cases = std::fs::read_to_string(fixtures().join("cases.json")).unwrap();
    (Tokenizer::from_tokens(tokens, false).unwrap(), serde_json::from_str(&cases).unwrap())
}

fn read<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The byte index of a character.
fn byte(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

#[derive(serde::Deserialize)]
struct Case {
    question: String,
    context: String,
    answer: Option<String>,
    answer_start: Option<usize>,
    max_len: usize,
    stride: usize,
    max_question: usize,
    windows: Vec<Expected>,
    searches: Vec<Search>,
}

#[derive(serde::Deserialize)]
struct Expected {
    ids: Vec<u32>,
    segments: String,
    context_start: usize,
    offsets: Vec<(usize, usize)>,
    max_context: String,
    target: (usize, usize),
    start_64ths: Vec<i32>,
    end_64ths: Vec<i32>,
}

#[derive(serde::Deserialize)]
struct Search {
    n_best: usize,
    max_answer: usize,
    null_threshold: Option<f32>,
    prediction: String,
    answers: Vec<(String, f32, f64)>,
    null_odds: Option<f32>,
}

#[test]
fn windows_targets_and_answers_are_those_of_transformers() {
    let (tokenizer, all) = cases();
    let cases: Vec<Case> = read(&all["cases"]);
    let (mut found_targets, mut nulls, mut answers, mut cut, mut x1_cut) = (0, 0, 0, 0, 0);
    for case in &cases {
        let context = EncodedContext::new(&tokenizer, case.context.as_str());
        let options = WindowOptions { max_len: case.max_len, stride: case.stride, max_question: case.max_question };
        let made = windows(&tokenizer, &case.question, &context, &options).unwrap();
        let name = format!("{} ({options:?})", case.question);
        cut += usize::from(made.question_cut > 0);
        assert_eq!(made.windows.len(), case.windows.len(), "{name}");
        let answer = case.answer.as_deref().zip(case.answer_start);
        let answer = answer.map(|(text, start)| (byte(&case.context, start), text));
        for (window, expected) in made.windows.iter().zip(&case.windows) {
            let digits = |text: &str| text.bytes().map(|b| b - b'0').collect::<Vec<u8>>();
            assert_eq!(window.ids, expected.ids, "{name}");
            assert_eq!(window.segments, digits(&expected.segments), "{name}");
            assert_eq!(window.context_start, expected.context_start, "{name}");
            let places: Vec<_> =
                context.pieces()[window.pieces.clone()].iter().map(|piece| (piece.start, piece.end)).collect();
            let offsets: Vec<_> =
                expected.offsets.iter().map(|&(a, b)| (byte(&case.context, a), byte(&case.context, b))).collect();
            assert_eq!(places, offsets, "{name}");
            let home: Vec<u8> = window.max_context.iter().map(|&home| home.into()).collect();
            assert_eq!(home, digits(&expected.max_context), "{name}");
            assert_eq!(target(window, &context, answer).unwrap(), expected.target, "{name}");
            found_targets += usize::from(expected.target != (0, 0));
        }
        let exact = |values: &[i32]| values.iter().map(|&v| v as f32 / 64.0).collect::<Vec<f32>>();
        let logits: Vec<_> = case.windows.iter().map(|w| (exact(&w.start_64ths), exact(&w.end_64ths))).collect();
        let logits: Vec<_> = logits.iter().map(|(start, end)| Logits { start, end }).collect();
        for search in &case.searches {
            let options = ExtractOptions {
                candidates: search.n_best,
                n_best: search.n_best,
                max_answer: search.max_answer,
                null_threshold: search.null_threshold,
            };
            let found = extract(&context, &made.windows, &logits, &options).unwrap();
            let name = format!("{name} {options:?}");
            // If no span is possible, Transformers returns "empty" and 0.
            let mut expected = search.answers.as_slice();
            if let Some(((text, ..), rest)) = expected.split_first()
                && text == "empty"
            {
                assert!(found.best.is_empty() && found.null_odds.is_none(), "{name}");
                assert_eq!(found.n_best.len(), rest.len(), "{name}");
                continue;
            }
            assert_eq!(found.best.text, search.prediction, "{name}");
            assert_eq!(found.null_odds, search.null_odds, "{name}");
            assert_eq!(found.n_best.len(), expected.len(), "{name}");
            while let Some(((text, score, probability), rest)) = expected.split_first() {
                let answer = &found.n_best[found.n_best.len() - expected.len()];
                assert_eq!((&answer.text, answer.score), (text, *score), "{name}");
                assert!((answer.probability - probability).abs() < 1e-8, "{name}");
                answers += 1;
                nulls += usize::from(text.is_empty());
                expected = rest;
            }
            // X1: a shorter list is a prefix of the list, with the same best answer.
            for n_best in 1..search.n_best {
                let shorter = extract(&context, &made.windows, &logits, &ExtractOptions { n_best, ..options }).unwrap();
                assert_eq!((&shorter.best, shorter.null_odds), (&found.best, found.null_odds), "{name}, {n_best}");
                let same = n_best.min(found.n_best.len());
                assert_eq!(shorter.n_best[..same], found.n_best[..same], "{name}, {n_best}");
                assert!(shorter.n_best.len() <= n_best + 1, "{name}, {n_best}");
                x1_cut += usize::from(shorter.n_best.len() < found.n_best.len());
            }
        }
    }
    // Each kind of case occurs.
    assert!(x1_cut > 100 && cases.len() > 10 && found_targets > 10 && answers > 600 && nulls > 30 && cut > 0);
    assert!(cases.iter().flat_map(|c| &c.searches).any(|s| s.null_threshold.is_some() && s.prediction.is_empty()));
}

#[test]
fn truncated_texts_are_those_of_transformers() {
    let (tokenizer, all) = cases();
    let pairs: Vec<[usize; 5]> = read(&all["pairs"]);
    for &[a, b, room, kept_a, kept_b] in &pairs {
        let (mut x, mut y) = (vec![0; a], vec![0; b]);
        assert_eq!(truncate_pair(&mut x, &mut y, room), a + b - kept_a - kept_b);
        assert_eq!((x.len(), y.len()), (kept_a, kept_b), "{a} {b} {room}");
    }
    assert!(pairs.len() > 5);

    let text = &all["text"];
    let ids = tokenizer.encode(text["text"].as_str().unwrap());
    let windows =
        text_windows(tokenizer.template(), &ids, None, read(&text["max_len"]), read(&text["stride"])).unwrap();
    let expected: Vec<Vec<u32>> = read(&text["windows"]);
    assert!(expected.len() > 3);
    assert_eq!(windows.into_iter().map(|w| w.ids).collect::<Vec<_>>(), expected);
}

/// For every question of a SQuAD file: targets converted to logits give a prediction that contains the answer.
#[test]
fn squad_answers_survive_the_round_trip() {
    let Some(file) = cloze_testing::real_data("squad/dev-v1.1.json") else { return };
    let Some(folder) = cloze_testing::real_data("tokenizers/bert-base-uncased") else { return };
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let squad: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let (mut questions, mut exact, mut several, mut cut) = (0, 0, 0, 0);
    for paragraph in squad["data"].as_array().unwrap().iter().flat_map(|d| d["paragraphs"].as_array().unwrap()) {
        let text = paragraph["context"].as_str().unwrap();
        let context = EncodedContext::new(&tokenizer, text);
        for question in paragraph["qas"].as_array().unwrap() {
            let options = WindowOptions { max_question: 24, max_len: 160, stride: 64 };
            let made = windows(&tokenizer, question["question"].as_str().unwrap(), &context, &options).unwrap();
            let answer = &question["answers"][0];
            let gold = answer["text"].as_str().unwrap();
            let start = byte(text, read(&answer["answer_start"]));
            let mut hit = false;
            let mut rows = Vec::new();
            for window in &made.windows {
                let (first, last) = target(window, &context, Some((start, gold))).unwrap();
                let peak = |row: usize| {
                    let mut logits = vec![0.0; window.ids.len()];
                    logits[row] = 9.0;
                    logits
                };
                // The logits of an ideal model.
                rows.push((peak(first), peak(last)));
                hit |= first > 0;
            }
            assert!(hit, "{gold:?}");
            let logits: Vec<_> = rows.iter().map(|(start, end)| Logits { start, end }).collect();
            let options = ExtractOptions { max_answer: 120, null_threshold: Some(0.0), ..ExtractOptions::default() };
            let best = extract(&context, &made.windows, &logits, &options).unwrap().best;
            questions += 1;
            several += usize::from(made.windows.len() > 1);
            cut += usize::from(made.question_cut > 0);
            exact += usize::from(best.text == gold);
            assert!(best.text.contains(gold.trim()), "{gold:?} → {best:?}");
        }
    }
    println!("{questions} questions, {several} with several windows, {cut} cut, {exact} exact");
    // The other answers start or end within a word, or have white space at their ends.
    assert!(questions > 10_000 && several > 1_000 && exact * 100 > questions * 99);
}
