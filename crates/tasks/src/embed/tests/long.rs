//! Long texts: truncated, or read in windows.

use super::*;

/// A text of 12 letters.
const LONG: &str = "a b c d e f g h a b c d";

fn with(long: Long, max_len: usize) -> Options {
    Options { long, max_len: Some(max_len), ..Options::default() }
}

fn embedded(embedder: &Embedder, texts: &[&str]) -> Embedded {
    embedder.embed(texts, Purpose::Text, &mut |_| ()).unwrap()
}

/// The windows' vectors, pooled by plain loops.
fn pooled_by_hand(long: Long, windows: &[(Vec<f32>, usize)]) -> Vec<f64> {
    let all: usize = windows.iter().map(|(_, tokens)| tokens).sum();
    (0..windows[0].0.len())
        .map(|i| match long {
            Long::Max => windows.iter().map(|(vector, _)| f64::from(vector[i])).fold(f64::NEG_INFINITY, f64::max),
            _ => windows.iter().map(|(vector, n)| f64::from(vector[i]) * *n as f64).sum::<f64>() / all as f64,
        })
        .collect()
}

/// Asserts that a long text's vector is that of its windows, which are embedded one by one. `windows` are the parts of the text with their
/// numbers of tokens.
#[track_caller]
fn assert_windows(dir: &Path, options: &Options, text: &str, windows: &[(String, usize)]) {
    let alone = open(dir, &Options { long: Long::Truncate, stride: None, ..options.clone() }).unwrap();
    let parts: Vec<(Vec<f32>, usize)> = windows
        .iter()
        .map(|(part, tokens)| {
            let found = embedded(&alone, &[part]);
            assert_eq!(found.cut, 0, "{part:?} fits");
            (found.vectors.values().to_vec(), *tokens)
        })
        .collect();
    let found = embedded(&open(dir, options).unwrap(), &["a b", text, "c"]);
    assert_eq!((found.cut, found.windowed, found.windows), (0, 1, windows.len()));
    let what = format!("{options:?}");
    assert_close(found.vectors.rows().nth(1).unwrap(), &pooled_by_hand(options.long, &parts), &what);
    for (row, short) in [(0, "a b"), (2, "c")] {
        let expected: Vec<f64> = embed(&alone, &[short])[0].iter().map(|x| f64::from(*x)).collect();
        assert_close(found.vectors.rows().nth(row).unwrap(), &expected, short);
    }
}

/// Parts of a text of letters and spaces: `size` letters each, starting every `step` letters.
fn parts(text: &str, size: usize, step: usize) -> Vec<(String, usize)> {
    let letters: Vec<&str> = text.split(' ').collect();
    let mut parts = Vec::new();
    for start in (0..).step_by(step) {
        let end = letters.len().min(start + size);
        parts.push((letters[start..end].join(" "), end - start));
        if end == letters.len() {
            return parts;
        }
    }
    parts
}

#[test]
fn a_long_text_has_the_pooled_vector_of_its_windows() {
    let dir = folder(&[]);
    for long in [Long::Mean, Long::Max] {
        for pool in [Pool::Mean, Pool::Cls, Pool::Max, Pool::MeanSqrtLen, Pool::WeightedMean, Pool::LastToken] {
            let options = Options { pool: PoolChoice::Of(pool), ..with(long, 7) };
            // [CLS] and [SEP] leave room for 5 tokens: windows of 5, 5 and 2.
            assert_windows(dir.path(), &options, LONG, &parts(LONG, 5, 5));
            let options = Options { stride: Some(3), ..options };
            assert_windows(dir.path(), &options, LONG, &parts(LONG, 5, 3));
            // A step longer than a window is reduced to it.
            assert_windows(dir.path(), &Options { stride: Some(99), ..options }, LONG, &parts(LONG, 5, 5));
        }
        // Each window has the prompt.
        let prompts = Prompts { text: Prompt::Text("x y ".to_owned()), ..Prompts::default() };
        let options = Options { prompts, layers: vec![-1, 0], pool: PoolChoice::Of(Pool::Mean), ..with(long, 7) };
        assert_windows(dir.path(), &options, LONG, &parts(LONG, 3, 3));
    }
}

#[test]
fn tokens_of_prompts_are_excluded_in_every_window() {
    let module = |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
    for mode in ["pooling_mode_mean_tokens", "pooling_mode_cls_token", "pooling_mode_max_tokens"] {
        let dir = folder(&[
            ("modules.json", json!([module("Transformer", ""), module("Pooling", "1_Pooling")])),
            ("1_Pooling/config.json", json!({mode: true, "include_prompt": false})),
            ("config_sentence_transformers.json", json!({"prompts": {"p": "x y z "}, "default_prompt_name": "p"})),
        ]);
        assert_windows(dir.path(), &with(Long::Mean, 8), LONG, &parts(LONG, 3, 3));
    }
}

/// For other tokenizers, with prompts whose last token may belong to the text.
#[test]
fn windows_of_byte_level_and_unigram_tokens_equal_separate_texts() {
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rerank").join(name);
    let options = |max_len, prompt: &str| {
        let prompts = Prompts { text: Prompt::Text(prompt.to_owned()), ..Prompts::default() };
        Options { prompts, ..with(Long::Mean, max_len) }
    };
    // Each byte is a token, spaces too.
    let text = "abc de\u{e9}fgh ijk";
    let bytes = |parts: &[&str]| parts.iter().map(|part| ((*part).to_owned(), part.len())).collect::<Vec<_>>();
    assert_windows(&fixture("roberta"), &options(8, "q "), text, &bytes(&["abc ", "de\u{e9}", "fgh ", "ijk"]));
    for name in ["xlm-roberta", "modernbert", "distilbert", "bert"] {
        assert_windows(&fixture(name), &options(7, "q w "), LONG, &parts(LONG, 3, 3));
    }
    // Without the space, the first letter of the text continues the prompt's last word, with a token of its own.
    let dir = fixture("distilbert");
    let embedder = open(&dir, &options(7, "q w")).unwrap();
    let found = embedder.encode_windows(LONG, Purpose::Text).unwrap();
    let names = |window: &Window| -> Vec<&str> {
        window.example.sequences[0].ids.iter().map(|id| embedder.model.tokenizer.token(*id).unwrap()).collect()
    };
    assert_eq!(names(&found.windows[0]), ["[CLS]", "q", "w", "##a", "b", "c", "[SEP]"]);
    assert_eq!(names(&found.windows[1]), ["[CLS]", "q", "w", "d", "e", "f", "[SEP]"]);
}

/// The tokens of the prompt are found at the beginning of a text, without the offsets of all its tokens.
#[test]
fn very_long_texts_have_the_same_windows() {
    let prompts = Prompts { text: Prompt::Text("q w".to_owned()), ..Prompts::default() };
    let options = Options { prompts, ..with(Long::Mean, 7) };
    for name in ["distilbert", "xlm-roberta", "roberta", "modernbert"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rerank").join(name);
        let embedder = open(&dir, &options).unwrap();
        // Words of letters; and one word, in which the first tokens may depend on the last letter.
        for text in ["b cd e \u{e9}".repeat(900), "bcd".repeat(900)] {
            let tokens = embedder.tokens(embedder.prompted(&text, Purpose::Text));
            let pieces = embedder.model.tokenizer.encode_with_offsets(&format!("q w{text}"));
            let expected = pieces.iter().take_while(|piece| piece.end <= 3).count();
            assert_eq!(embedder.leading_prompt_tokens(&text, Purpose::Text, &tokens), expected, "{name}");
            assert!(expected > 0 && tokens.len() > 900 || tokens.contains(&embedder.model.tokenizer.special().unk));
        }
    }
}

#[test]
fn modules_see_the_pooled_vector_of_a_text() {
    let module = |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
    let of = |modules: &[Value]| {
        folder(&[
            ("modules.json", modules.to_vec().into()),
            ("1_Pooling/config.json", json!({"pooling_mode_mean_tokens": true})),
        ])
    };
    let (transformer, pooling) = (module("Transformer", ""), module("Pooling", "1_Pooling"));
    let plain = of(&[transformer.clone(), pooling.clone()]);
    let unit = of(&[transformer, pooling, module("Normalize", "2")]);
    for long in [Long::Mean, Long::Max] {
        let [plain, unit] =
            [&plain, &unit].map(|dir| embed(&open(dir.path(), &with(long, 7)).unwrap(), &[LONG]).remove(0));
        let length = plain.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() > 1e-3);
        assert_close(&unit, &plain.iter().map(|x| f64::from(*x) / length).collect::<Vec<_>>(), "normalised once");
    }
}

#[test]
fn a_text_that_fits_has_the_same_bits_whatever_is_done_with_long_ones() {
    let dir = folder(&[]);
    let plain = Options { max_len: Some(7), ..Options::default() };
    let texts = ["a b c", "", "a b c d e", "e d c b a", " "];
    let expected = embed(&open(dir.path(), &plain).unwrap(), &texts);
    for (long, ..) in Long::ALL {
        let found = embedded(&open(dir.path(), &with(long, 7)).unwrap(), &texts);
        assert_eq!(found.vectors.rows().map(<[f32]>::to_vec).collect::<Vec<_>>(), expected, "{long:?}");
        assert_eq!((found.cut, found.windowed, found.windows), (0, 0, 0));
    }
    // The first window is what is left of a truncated text.
    let [truncated, first] =
        [Long::Truncate, Long::First].map(|long| embedded(&open(dir.path(), &with(long, 7)).unwrap(), &[LONG, "a"]));
    assert_eq!(truncated, first);
    assert_eq!((first.cut, first.windowed, first.windows), (1, 0, 0));
    assert_eq!(
        first.vectors.rows().next(),
        embed(&open(dir.path(), &plain).unwrap(), &["a b c d e"]).first().map(Vec::as_slice)
    );
}

#[test]
fn the_first_window_is_the_beginning_also_if_the_tokenizer_truncates_the_beginning() {
    let dir = folder(&[]);
    let path = dir.path().join("tokenizer_config.json");
    let mut settings: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    settings["truncation_side"] = "left".into();
    std::fs::write(&path, settings.to_string()).unwrap();
    let vector = |long: Long, text: &str| embed(&open(dir.path(), &with(long, 7)).unwrap(), &[text]).remove(0);
    assert_eq!(vector(Long::First, LONG), vector(Long::Truncate, "a b c d e"));
    assert_eq!(vector(Long::Truncate, LONG), vector(Long::Truncate, "h a b c d"));
    assert_windows(dir.path(), &with(Long::Mean, 7), LONG, &parts(LONG, 5, 5));
}

#[test]
fn the_vector_of_a_long_text_does_not_depend_on_the_order_of_texts() {
    let dir = folder(&[]);
    let embedder = open(dir.path(), &Options { stride: Some(4), ..with(Long::Mean, 9) }).unwrap();
    // Several batches, whose borders are within texts.
    let letters = ["a", "b", "c", "d", "e"];
    let texts: Vec<String> = (0..300)
        .map(|i| (0..1 + i * 37 % 120).map(|n| letters[(i + n * n) % 5]).collect::<Vec<_>>().join(" "))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = embedded(&embedder, &texts);
    let windows: usize = texts.iter().map(|text| parts(text, 7, 4).len()).filter(|windows| *windows > 1).sum();
    let long = texts.iter().filter(|text| text.len() > 13).count();
    assert_eq!((together.cut, together.windowed, together.windows), (0, long, windows));
    assert!(windows * 9 > 5 * BATCH_TOKENS);
    let order: Vec<usize> = (0..300).map(|i| i * 77 % 300).collect();
    let shuffled: Vec<&str> = order.iter().map(|&i| texts[i]).collect();
    let mut done = Vec::new();
    let again = embedder.embed(&shuffled, Purpose::Text, &mut |now| done.push(now)).unwrap();
    assert!(done.is_sorted_by(|a, b| a < b) && done.last() == Some(&300), "{done:?}");
    for (row, &i) in again.vectors.rows().zip(&order) {
        let expected: Vec<f64> = together.vectors.rows().nth(i).unwrap().iter().map(|x| f64::from(*x)).collect();
        assert_close(row, &expected, texts[i]);
    }
    // The stream counts the same.
    let mut rows = Vec::new();
    let summary = embedder
        .embed_stream(texts.iter().map(Ok), Purpose::Text, &mut |_| (), |_, vectors| {
            rows.extend_from_slice(vectors.values());
            Ok(())
        })
        .unwrap();
    assert_eq!(summary, Summary { texts: 300, windowed: long, windows, ..Summary::default() });
    assert_eq!(rows, together.vectors.values());
}

#[test]
fn lengths_without_room_and_strides_without_windows_are_errors() {
    let dir = folder(&[]);
    let prompts = Prompts { text: Prompt::Text("x y z ".to_owned()), ..Prompts::default() };
    let embedder = open(dir.path(), &Options { prompts, ..with(Long::Mean, 5) }).unwrap();
    // A text without tokens needs no room.
    assert_eq!(embedded(&embedder, &[""]).windowed, 0);
    let line = embedder.embed(&["a"], Purpose::Text, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(
        line,
        "`max_len`: expected at least 6, found 5: 2 special tokens and the prompt's 3 tokens leave no room for the windows of a long text"
    );
    let line = open(dir.path(), &Options { stride: Some(3), ..Options::default() }).err().unwrap().to_string();
    assert!(line.starts_with("`stride`: has no effect with `long = truncate`"), "{line}");
    assert!(open(dir.path(), &Options { stride: Some(0), ..with(Long::Max, 7) }).is_err());
}
