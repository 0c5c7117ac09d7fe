use std::path::Path;

use cloze_engine::DType;
use cloze_model::{Heads, Inputs, Model};
use serde_json::{Value, json};

use super::*;
use crate::forward::BATCH_TOKENS;

mod long;

const TEXTS: [&str; 6] = ["a b c", "", "d", "a a a a b c d e f g h", "Z a", "c b a"];

/// A folder with a random encoder, a tokenizer of letters, and additional files.
fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    folder_of(Heads::ENCODER, files)
}

/// The same, for a model with these heads.
fn folder_of(heads: Heads, files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    cloze_testing::save_letter_model(heads, dir.path());
    for (name, value) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    }
    dir
}

fn open(dir: &Path, options: &Options) -> Result<Embedder, TaskError> {
    Embedder::open(dir, Device::cpu(Some(2)).unwrap(), DType::F32, options)
}

fn of(pool: Pool, layers: &[i64]) -> Options {
    Options { pool: PoolChoice::Of(pool), layers: layers.to_vec(), ..Options::default() }
}

fn embed(embedder: &Embedder, texts: &[&str]) -> Vec<Vec<f32>> {
    let embedded = embedder.embed(texts, Purpose::Text, &mut |_| ()).unwrap();
    assert_eq!(embedded.vectors.width(), embedder.width());
    embedded.vectors.rows().map(<[f32]>::to_vec).collect()
}

/// All hidden states `[T][H]` of a text, and the pooler's output, computed directly with the model.
fn states(embedder: &Embedder, text: &str) -> (Vec<Vec<Vec<f64>>>, Vec<f64>) {
    let Sequence { ids, segments } = embedder.encode_one(text, Purpose::Text).sequence;
    let mut inputs = Inputs::default();
    inputs.push(&ids, &segments);
    let Pretrained { model, device, .. } = &*embedder.model;
    let mut pass = cloze_engine::Pass::inference(device, &model.params, DType::F32);
    let numbers: Vec<usize> = (0..=model.architecture().layers).collect();
    let hidden = model.hidden_states(&mut pass, &inputs, &numbers);
    let cls = model.cls_states(&mut pass, &inputs);
    let pooled = model.pooler_output(&mut pass, &cls).unwrap();
    let rows = |var: &cloze_engine::Var| -> Vec<Vec<f64>> {
        let values: Vec<f64> = var.value().to_vec_f32().into_iter().map(f64::from).collect();
        values.chunks(model.architecture().hidden_size).map(<[f64]>::to_vec).collect()
    };
    (hidden.iter().map(rows).collect(), rows(&pooled).remove(0))
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 2e-6, "{what}: found {found}, expected {expected}");
    }
}

#[test]
fn each_pooling_equals_a_plain_loop() {
    let dir = folder(&[]);
    type Loop = fn(&[Vec<f64>], usize) -> f64;
    let loops: [(Pool, Loop); 6] = [
        (Pool::Cls, |tokens, i| tokens[0][i]),
        (Pool::Mean, |tokens, i| tokens.iter().map(|x| x[i]).sum::<f64>() / tokens.len() as f64),
        (Pool::MeanSqrtLen, |tokens, i| tokens.iter().map(|x| x[i]).sum::<f64>() / (tokens.len() as f64).sqrt()),
        (Pool::Max, |tokens, i| tokens.iter().map(|x| x[i]).fold(f64::NEG_INFINITY, f64::max)),
        (Pool::LastToken, |tokens, i| tokens[tokens.len() - 1][i]),
        (Pool::WeightedMean, |tokens, i| {
            let weighted = tokens.iter().enumerate().map(|(t, x)| (t + 1) as f64 * x[i]).sum::<f64>();
            weighted / (tokens.len() * (tokens.len() + 1) / 2) as f64
        }),
    ];
    for (pool, one) in loops {
        for (layers, indices) in [(&[][..], &[2usize][..]), (&[0], &[0]), (&[-1, 1, -3], &[2, 1, 0])] {
            let embedder = open(dir.path(), &of(pool, layers)).unwrap();
            for (text, found) in TEXTS.iter().zip(embed(&embedder, &TEXTS)) {
                let (hidden, _) = states(&embedder, text);
                let width = hidden[0][0].len();
                let expected: Vec<f64> = indices
                    .iter()
                    .flat_map(|&layer| (0..width).map(|i| one(&hidden[layer], i)).collect::<Vec<_>>())
                    .collect();
                assert_close(&found, &expected, &format!("{pool:?} {layers:?} {text:?}"));
            }
        }
    }
    let embedder = open(dir.path(), &of(Pool::Pooler, &[])).unwrap();
    for (text, found) in TEXTS.iter().zip(embed(&embedder, &TEXTS)) {
        assert_close(&found, &states(&embedder, text).1, text);
    }
}

#[test]
fn the_last_four_layers_are_concatenated() {
    // The model has three hidden states; with a third layer it has four.
    let dir = folder(&[]);
    let last4 = Options { pool: PoolChoice::Last4, ..Options::default() };
    let message = open(dir.path(), &last4).err().unwrap().to_string();
    assert!(message.contains("the model has 3"), "{message}");
    let opened = open(dir.path(), &Options::default()).unwrap().model;
    let Pretrained { model, device, .. } = &*opened;
    let mut config = model.config().clone();
    config.num_hidden_layers = 3;
    let model = Model::new(config, model.heads, device, 5).unwrap();
    let tokenizer = cloze_text::Tokenizer::open(dir.path()).unwrap();
    let model = Pretrained::new(model, tokenizer, device.clone(), opened.precision(), dir.path()).unwrap();
    let embedder = Embedder::new(Arc::new(model), dir.path(), &last4).unwrap();
    assert_eq!(embedder.width(), 4 * 32);
    let found = embed(&embedder, &TEXTS[..1]).remove(0);
    let (hidden, _) = states(&embedder, TEXTS[0]);
    let mean = |tokens: &Vec<Vec<f64>>| -> Vec<f64> {
        (0..32).map(|i| tokens.iter().map(|x| x[i]).sum::<f64>() / tokens.len() as f64).collect()
    };
    assert_close(&found, &hidden.iter().flat_map(mean).collect::<Vec<f64>>(), "last4");
}

#[test]
fn batched_vectors_equal_single_ones_in_the_order_of_the_input() {
    let dir = folder(&[]);
    let embedder = open(dir.path(), &Options { normalize: true, ..Options::default() }).unwrap();
    // Several batches: 800 texts of up to 40 tokens.
    let texts: Vec<String> = (0..800).map(|i| ["a", "b", "x"][i % 3].to_owned() + &" c".repeat(i * 7 % 36)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert!(texts.iter().map(|text| text.len() / 2 + 3).sum::<usize>() > 3 * BATCH_TOKENS);
    let together = embed(&embedder, &texts);
    for i in (0..800).step_by(37) {
        let alone = embed(&embedder, &texts[i..=i]).remove(0);
        assert_close(&together[i], &alone.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), texts[i]);
        let length: f64 = alone.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
    }
    let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-3);
    assert!(differ(&together[0], &together[1]), "different texts have different vectors");
}

#[test]
fn a_stream_is_processed_in_chunks_and_counted() {
    let dir = folder(&[]);
    let embedder = open(dir.path(), &Options { max_len: Some(5), ..Options::default() }).unwrap();
    let texts =
        |n: usize| (0..n).map(|i| if i == 3 { " ".to_owned() } else { "a b c".to_owned() + &" d".repeat(i % 2) });
    let n = CHUNK_TEXTS + 10;
    let (mut chunks, mut received) = (Vec::new(), Vec::new());
    let (mut last, mut increases) = (0, true);
    let summary = embedder
        .embed_stream(
            texts(n).map(Ok),
            Purpose::Text,
            &mut |done| {
                increases &= done > last;
                last = done;
            },
            |texts: Vec<String>, vectors| {
                chunks.push((texts.len(), vectors.len()));
                received.extend(texts);
                Ok(())
            },
        )
        .unwrap();
    // With [CLS] and [SEP], three tokens fit, four do not.
    let cut = (0..n).filter(|i| i % 2 == 1 && *i != 3).count();
    assert_eq!(summary, Summary { texts: n, cut, blank: 1, ..Summary::default() });
    assert_eq!(chunks, [(CHUNK_TEXTS, CHUNK_TEXTS), (10, 10)]);
    assert!(received.into_iter().eq(texts(n)) && increases && last == n);
    // Truncation keeps the first tokens.
    let found = embed(&embedder, &["a b c", "a b c d e f"]);
    assert_close(&found[1], &found[0].iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), "cut");
    // An error of the stream is returned.
    let broken = [Ok("a".to_owned()), Err(TaskError::NoRows("test"))];
    assert!(embedder.embed_stream(broken, Purpose::Text, &mut |_| (), |_, _| Ok(())).is_err());
}

#[test]
fn settings_of_a_sentence_transformers_folder_are_used() {
    let module = |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
    let dir = folder(&[
        ("modules.json", json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2")])),
        ("1_Pooling/config.json", json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})),
        ("sentence_bert_config.json", json!({"max_seq_length": 7})),
    ]);
    let auto = open(dir.path(), &Options::default()).unwrap();
    assert_eq!(auto.describe(), "cls and mean of layer 2, normalised");
    assert_eq!((auto.max_len(Purpose::Query), auto.width()), (7, 64));
    assert!(auto.source == Source::Folder && auto.notes.is_empty());
    // If the caller selects a pooling, the maximum length is still the folder's.
    let own = open(dir.path(), &of(Pool::Max, &[])).unwrap();
    assert_eq!((own.describe().as_str(), own.max_len(Purpose::Text)), ("max of layer 2, not normalised", 7));
    assert!(own.notes.is_empty());
    // A folder without settings: mean pooling, and the model's positions as maximum length.
    let plain = open(folder(&[]).path(), &Options::default()).unwrap();
    assert_eq!((plain.describe().as_str(), plain.max_len(Purpose::Text)), ("mean of layer 2, not normalised", 40));
    assert_eq!(plain.source, Source::Default);
}

/// Reference vectors of sentence-transformers for small folders: see fixtures/embed/make.py.
struct Reference {
    texts: Vec<String>,
    cases: Vec<Value>,
}

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/embed");

impl Reference {
    /// The cases whose names start with this text.
    fn of(start: &str) -> Reference {
        let text = std::fs::read(Path::new(REFERENCE).join("cases.json")).unwrap();
        let file: Value = serde_json::from_slice(&text).unwrap();
        let texts = file["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
        let cases = file["cases"].as_array().unwrap().iter();
        Reference {
            texts,
            cases: cases.filter(|case| case["name"].as_str().unwrap().starts_with(start)).cloned().collect(),
        }
    }
}

/// Writes the folder of a case.
fn case_folder(case: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = case["model"].as_str().unwrap();
    let write = |path: &str, bytes: &[u8]| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let in_model = |name: &str| if model.is_empty() { name.to_owned() } else { format!("{model}/{name}") };
    for name in ["config.json", "model.safetensors", "vocab.txt"] {
        write(&in_model(name), &std::fs::read(Path::new(REFERENCE).join("model").join(name)).unwrap());
    }
    for (name, value) in case["files"].as_object().unwrap() {
        let path = if name == "tokenizer_config.json" { in_model(name) } else { name.clone() };
        write(&path, value.to_string().as_bytes());
    }
    for (path, tensors) in case["tensors"].as_object().into_iter().flatten() {
        let numbers = |value: &Value| value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
        let stored: Vec<(&String, Vec<usize>, Vec<u8>)> = tensors
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, tensor)| {
                let shape = numbers(&tensor["shape"]).into_iter().map(|size| size as usize).collect();
                (name, shape, numbers(&tensor["values"]).into_iter().flat_map(|x| (x as f32).to_le_bytes()).collect())
            })
            .collect();
        let views = stored.iter().map(|(name, shape, bytes)| {
            (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
        });
        write(path, &safetensors::serialize(views, None).unwrap());
    }
    dir
}

/// Asserts that every vector of every case differs from that of sentence-transformers by less than 1e-5.
#[track_caller]
fn assert_equals_sentence_transformers(start: &str) {
    let Reference { texts, cases } = Reference::of(start);
    assert!(!cases.is_empty());
    for case in &cases {
        let (dir, name) = (case_folder(case), &case["name"]);
        let mut made = Vec::new();
        for call in case["calls"].as_array().unwrap() {
            let given = match (call["prompt"].as_str(), call["prompt_name"].as_str()) {
                (Some(prompt), _) => Prompt::Text(prompt.to_owned()),
                (None, Some(name)) => Prompt::Named(name.to_owned()),
                (None, None) => Prompt::Auto,
            };
            let mut prompts = Prompts::default();
            let (purpose, place) = match call["role"].as_str().unwrap() {
                "query" => (Purpose::Query, &mut prompts.query),
                "document" => (Purpose::Document, &mut prompts.document),
                _ => (Purpose::Text, &mut prompts.text),
            };
            *place = given;
            let embedder = open(dir.path(), &Options { prompts, ..Options::default() }).unwrap();
            let texts = &texts[..call["vectors"].as_array().unwrap().len()];
            let found = embedder.embed(texts, purpose, &mut |_| ()).unwrap().vectors;
            let expected = |row: usize| call["vectors"][row].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
            for (row, vector) in found.rows().enumerate() {
                assert_eq!(vector.len(), expected(row).len(), "{name} {call}");
                let gap = vector.iter().zip(expected(row)).map(|(x, y)| (f64::from(*x) - y).abs()).fold(0.0, f64::max);
                assert!(gap < 1e-5, "{name}, {}, text {row}: {gap}", call["role"]);
            }
            made.push((embedder.similarity, found));
        }
        if let (Some(scores), [(similarity, queries), (_, documents)]) = (case["scores"].as_array(), &made[..]) {
            assert_eq!(case["similarity"], similarity.name(), "{name}");
            let index = search::Index::new(documents.clone(), *similarity);
            for (row, hits) in
                index.nearest(&Device::cpu(Some(1)).unwrap(), queries.clone(), 99, |_, _| true).into_iter().enumerate()
            {
                assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
                for hit in hits {
                    let expected = scores[row][hit.row].as_f64().unwrap();
                    assert!((f64::from(hit.score) - expected).abs() < 2e-5, "{name}: {hit:?}, expected {expected}");
                }
            }
        }
    }
}

#[test]
fn r12_layouts_and_modules_equal_sentence_transformers() {
    assert_equals_sentence_transformers("r12");
}

#[test]
fn r13_the_limit_in_tokenizer_config_is_used() {
    assert_equals_sentence_transformers("r13");
}

#[test]
fn r14_prompts_are_put_before_texts_queries_and_documents() {
    assert_equals_sentence_transformers("r14");
}

#[test]
fn r15_the_folders_similarity_is_used() {
    assert_equals_sentence_transformers("r15");
}

#[test]
fn do_lower_case_converts_character_by_character() {
    assert_equals_sentence_transformers("do_lower_case");
}

#[test]
fn r13_truncated_texts_are_counted() {
    let Reference { texts, cases } = Reference::of("r13 lengths of queries");
    let embedder = open(case_folder(&cases[0]).path(), &Options::default()).unwrap();
    assert_eq!(Purpose::ALL.map(|purpose| embedder.max_len(purpose)), [20, 5, 11]);
    let cut = |purpose: Purpose| embedder.embed(&texts, purpose, &mut |_| ()).unwrap().cut;
    assert_eq!(Purpose::ALL.map(cut), [1, 2, 1], "ab cd zz is six pieces");
}

#[test]
fn r12_modules_that_do_not_fit_are_errors() {
    let Reference { cases, .. } = Reference::of("r12 Dense without bias");
    let fails = |change: &dyn Fn(&mut Value)| {
        let mut case = cases[0].clone();
        change(&mut case);
        let line = open(case_folder(&case).path(), &Options::default()).err().unwrap().to_string();
        assert!(line.lines().count() <= 3, "{line}");
        line
    };
    let config = "2_Dense/config.json";
    let set = |key: &'static str, value: Value| move |case: &mut Value| case["files"][config][key] = value.clone();
    assert!(fails(&set("in_features", json!(9))).contains("linear.weight, expected [5, 9], found [5, 8]"));
    assert!(fails(&set("out_features", json!(1u64 << 62))).contains("found [5, 8]"), "nothing is allocated");
    assert!(fails(&set("bias", json!(true))).contains("missing: linear.bias, expected [5]"));
    let concatenated = fails(&|case| case["files"]["1_Pooling/config.json"] = json!({"pooling_mode": ["mean", "cls"]}));
    assert!(concatenated.contains("Dense 8 → 5 (Tanh): expected vectors of 8 dimensions, found 16"), "{concatenated}");
    let dir = case_folder(&cases[0]);
    std::fs::rename(dir.path().join("2_Dense/model.safetensors"), dir.path().join("2_Dense/pytorch_model.bin"))
        .unwrap();
    let line = open(dir.path(), &Options::default()).err().unwrap().to_string();
    assert!(line.contains(&format!("convert the folder {}", dir.path().display())), "{line}");
}

#[test]
fn layers_lengths_and_poolers_that_the_model_lacks_are_errors() {
    let dir = folder(&[]);
    let fails = |options: &Options| open(dir.path(), options).err().unwrap().to_string();
    for layer in [3, -4, i64::MIN, i64::MAX] {
        let message = fails(&of(Pool::Mean, &[layer]));
        assert!(message.contains("`layers`") && message.contains("0 (embeddings) to 2"), "{message}");
    }
    assert!(fails(&of(Pool::Pooler, &[1])).contains("omit `layers`"));
    assert!(
        fails(&Options { pool: PoolChoice::Last4, layers: vec![1], ..Options::default() })
            .contains("set `pool` to mean")
    );
    for max_len in [0, 2, 41] {
        let message = fails(&Options { max_len: Some(max_len), ..Options::default() });
        assert!(message.contains("expected 3 to 40") && message.contains(&format!("found {max_len}")), "{message}");
    }
    let dir = folder_of(Heads::MLM, &[]);
    let message = open(dir.path(), &of(Pool::Pooler, &[])).err().unwrap().to_string();
    assert!(message.contains("the model has no pooler"), "{message}");
}

/// The binary's tests compare with whole vectors, too; truncate_dim of a folder is one of the cases of `cases.json`.
#[test]
fn the_first_dimensions_are_kept_and_then_normalized() {
    let normalized = json!([
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
    ]);
    let pooling = ("1_Pooling/config.json", json!({"pooling_mode": "mean"}));
    let dir = folder(&[
        ("modules.json", normalized),
        pooling,
        ("config_sentence_transformers.json", json!({"truncate_dim": 20})),
    ]);
    let kept = |dimensions: Option<usize>, normalize: bool| {
        open(dir.path(), &Options { dimensions, normalize, ..Options::default() }).unwrap()
    };
    let whole = embed(&kept(None, false), &TEXTS);
    assert_eq!(whole[0].len(), 20);
    let (short, unit) = (kept(Some(6), false), kept(Some(6), true));
    assert_eq!((short.width(), short.truncation()), (6, Some(6)));
    assert_eq!(
        short.describe(),
        "mean of layer 2, Normalize, the first 20 numbers, not normalised, then the first 6 numbers"
    );
    assert_eq!(unit.describe(), format!("{}, normalised", short.describe()));
    for ((whole, short), unit) in whole.iter().zip(embed(&short, &TEXTS)).zip(embed(&unit, &TEXTS)) {
        assert_eq!(whole[..6], short);
        let mut expected = short.clone();
        normalize(&mut expected);
        assert_eq!(unit, expected);
    }
    let note = "not normalized again";
    assert!(short.notes.iter().any(|line| line.contains(note)) && !unit.notes.iter().any(|line| line.contains(note)));
    assert!(!kept(Some(20), false).notes.iter().any(|line| line.contains(note)), "nothing is cut");
    for wrong in [0, 21] {
        let options = Options { dimensions: Some(wrong), ..Options::default() };
        let error = open(dir.path(), &options).err().unwrap().to_string();
        assert_eq!(
            error,
            format!("`dimensions`: expected 1 to 20, the dimensions of the model's vectors, found {wrong}")
        );
    }
}

#[test]
fn damaged_weights_are_errors() {
    let dir = folder(&[]);
    let mut bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let end = bytes.len();
    // Finite numbers that are so large that their sums are not finite.
    bytes[end / 2..].fill(0x7f);
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    for pool in [Pool::Mean, Pool::Max] {
        let embedder = open(dir.path(), &of(pool, &[])).unwrap();
        let message = embedder.embed(&TEXTS, Purpose::Text, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains("not finite"), "{message}");
    }
}
