use super::*;
use crate::architecture::SharedParts;
use crate::heads::TaskHead;
use crate::task_input::{BiLstmSize, SequenceToken};
use crate::testing::{device, modern};
use crate::weights::verify_weights;
use safetensors::tensor::{TensorView, serialize};
use std::path::PathBuf;
use tempfile::{TempDir, tempdir};

fn small() -> Config {
    Config {
        vocab_size: 20,
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_position_embeddings: 10,
        ..Config::default()
    }
}

const DECODER: &str = "cls.predictions.decoder.weight";
const DECODER_BIAS: &str = "cls.predictions.decoder.bias";
const MLM_BIAS: &str = "cls.predictions.bias";
const WORDS: &str = "bert.embeddings.word_embeddings.weight";

fn saved(heads: Heads) -> (TempDir, Model) {
    let model = Model::new(small(), heads, &device(), 5).unwrap();
    let dir = tempdir().unwrap();
    model.save(dir.path()).unwrap();
    (dir, model)
}

/// A tensor taken from a file: name, type, shape, bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

fn read_stored(dir: &Path) -> Vec<Stored> {
    let bytes = fs::read(dir.join(WEIGHTS_FILE)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let stored =
        tensors.iter().map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    stored.collect()
}

fn write_stored(path: PathBuf, stored: &[Stored]) {
    let views = stored
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

/// Features, a BiLSTM and the last token of a sequence have keys and tensors of their own.
#[test]
fn every_input_of_a_task_survives_saving_and_loading() {
    let bilstm = Some(BiLstmSize { layers: 2, size: 3 });
    let first = SequenceToken::First;
    let inputs = [
        TaskInput { features: Features::ConcatLast(3), bilstm: None, token: first },
        TaskInput { features: Features::SumAll, bilstm: None, token: SequenceToken::Last },
        TaskInput { features: Features::SumLast(3), bilstm, token: first },
        TaskInput { features: Features::Embeddings, bilstm, token: SequenceToken::Last },
    ];
    let tasks = [TaskHead::Classify { labels: 5 }, TaskHead::Tag { labels: 3 }, TaskHead::Answer, TaskHead::Choose];
    for (number, (input, task)) in inputs.into_iter().flat_map(|input| tasks.map(|task| (input, task))).enumerate() {
        let config = Config { task_input: input, is_decoder: number % 2 == 1, ..small() };
        let (dir, model) = (tempdir().unwrap(), Model::new(config, Heads::of(task), &device(), 5).unwrap());
        model.save(dir.path()).unwrap();
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!((loaded.heads, loaded.architecture()), (model.heads, model.architecture()));
        assert_eq!(loaded.params.read_all(), model.params.read_all());
        // The encoder by itself, and the head of a task that reads something else.
        let (encoder, report) = Model::load_encoder(dir.path(), &device()).unwrap();
        assert_eq!((encoder.config().task_input, report.unknown), (TaskInput::default(), Vec::new()));
        let other = TaskInput { bilstm: Some(BiLstmSize { layers: 1, size: 5 }), ..input };
        let (other, report) = Model::load_for_task(dir.path(), task, other, &[], &device(), 1).unwrap();
        assert_eq!(other.find(Module::BiLstm { layer: 1, reverse: false, recurrent: true }.weight()), None);
        let new: BTreeSet<Head> = report.newly_initialized.iter().map(|tensor| tensor.head).collect();
        assert!(new.contains(&Head::Features) && new.len() == 2, "{new:?}");
    }
}

#[test]
fn the_width_of_a_tagger_determines_features_without_a_key() {
    let config =
        Config { task_input: TaskInput { features: Features::ConcatLast(2), ..TaskInput::default() }, ..small() };
    let (dir, model) =
        (tempdir().unwrap(), Model::new(config, Heads::of(TaskHead::Tag { labels: 3 }), &device(), 5).unwrap());
    model.save(dir.path()).unwrap();
    set(dir.path(), "cloze_features", "last".into());
    assert_eq!(Model::load(dir.path(), &device()).unwrap().architecture(), model.architecture());
}

fn rewrite(dir: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
    let mut stored = read_stored(dir);
    change(&mut stored);
    write_stored(dir.join(WEIGHTS_FILE), &stored);
}

fn load_error(dir: &Path) -> String {
    Model::load(dir, &device()).err().expect("a folder that cannot be loaded").to_string()
}

#[test]
fn every_kind_of_head_survives_saving_and_loading() {
    let tasks = [
        TaskHead::Classify { labels: 1 },
        TaskHead::Classify { labels: 5 },
        TaskHead::Tag { labels: 3 },
        TaskHead::Answer,
        TaskHead::Choose,
    ];
    let all = [Heads::PRETRAINING, Heads::MLM, Heads::NSP, Heads::ENCODER, Heads::NONE];
    for heads in all.into_iter().chain(tasks.map(Heads::of)) {
        let (dir, model) = saved(heads);
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.heads, model.heads);
        assert_eq!(loaded.params.read_all(), model.params.read_all());
        let architecture = loaded.config().architectures.clone().unwrap();
        assert_eq!(architecture, [model.class_name()]);
        let prefixed = stored_names(dir.path()).iter().any(|name| name.starts_with("bert."));
        assert_eq!(prefixed, model.class_name() != "BertModel");
        let files: BTreeSet<String> =
            fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(files, BTreeSet::from([CONFIG_FILE.to_owned(), WEIGHTS_FILE.to_owned()]));
    }
}

/// Transformers opens it as a BERT whose layers are equal; Cloze shares them again.
#[test]
fn shared_parts_are_stored_for_each_layer() {
    for (shared, weights) in [(SharedParts::Attention, 10), (SharedParts::FeedForward, 6), (SharedParts::All, 16)] {
        let config = Config { shared_parts: shared, num_hidden_layers: 3, ..small() };
        let model = Model::new(config.clone(), Heads::MLM, &device(), 5).unwrap();
        let dir = tempdir().unwrap();
        model.save(dir.path()).unwrap();
        let unshared =
            Model::new(Config { shared_parts: SharedParts::None, ..config }, Heads::MLM, &device(), 5).unwrap();
        assert_eq!(unshared.params.ids().count() - model.params.ids().count(), 2 * weights, "{shared:?}");
        assert_eq!(stored_names(dir.path()).len(), unshared.params.ids().count());
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), model.params.read_all());
        let (of_two, _) = Model::load_encoder(dir.path(), &device()).unwrap();
        assert_eq!(of_two.architecture().layers, 3);

        let name = match shared {
            SharedParts::FeedForward => "bert.encoder.layer.2.output.dense.bias",
            _ => "bert.encoder.layer.2.attention.self.key.bias",
        };
        rewrite(dir.path(), |stored| {
            let (.., data) = stored.iter_mut().find(|(known, ..)| known == name).unwrap();
            data[0] ^= 1;
        });
        let error = load_error(dir.path());
        assert!(error.contains("cloze_shared_parts") && error.contains(name), "{error}");
    }
}

/// Transformers' masked language model would open it with attention in both directions.
#[test]
fn a_causal_modernbert_has_a_class_and_a_key_of_its_own() {
    let (device, dir) = (device(), tempfile::tempdir().unwrap());
    let mut model = Model::new(modern(), Heads::MLM, &device, 5).unwrap();
    let config = |dir: &Path| std::fs::read_to_string(dir.join(CONFIG_FILE)).unwrap();
    model.save(dir.path()).unwrap();
    assert!(config(dir.path()).contains("ModernBertForMaskedLM") && !config(dir.path()).contains("cloze_causal"));
    model.set_causal(true);
    model.save(dir.path()).unwrap();
    assert!(config(dir.path()).contains("\"ClozeModernBertForCausalLM\""), "{}", config(dir.path()));
    let loaded = Model::load(dir.path(), &device).unwrap();
    assert_eq!((loaded.heads, loaded.architecture().causal), (Heads::MLM, true));
    assert_eq!(loaded.config().ignored_keys(), [] as [String; 0]);
}

#[test]
fn a_causal_model_is_saved_as_transformers_opens_it() {
    let model = Model::new(small().causal(), Heads::MLM, &device(), 5).unwrap();
    let dir = tempdir().unwrap();
    model.save(dir.path()).unwrap();
    let text = fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&config["is_decoder"], &config["architectures"][0]),
        (&Value::from(true), &Value::from("BertLMHeadModel"))
    );
    let loaded = Model::load(dir.path(), &device()).unwrap();
    assert_eq!((loaded.heads, loaded.architecture().causal), (Heads::MLM, true));
    assert_eq!(loaded.params.read_all(), model.params.read_all());
    // Without is_decoder Transformers attends to both sides, and so do we.
    fs::write(dir.path().join(CONFIG_FILE), text.replace("\"is_decoder\": true", "\"is_decoder\": false")).unwrap();
    let loaded = Model::load(dir.path(), &device()).unwrap();
    assert_eq!((loaded.heads, loaded.architecture().causal), (Heads::MLM, false));
}

/// Some exporters write a tied tensor only under the copy's name.
#[test]
fn a_copy_replaces_a_missing_original() {
    let (dir, model) = saved(Heads::MLM);
    rewrite(dir.path(), |stored| {
        stored.iter_mut().filter(|(name, ..)| name == WORDS).for_each(|(name, ..)| *name = DECODER.to_owned());
    });
    let loaded = Model::load(dir.path(), &device()).unwrap();
    assert_eq!(loaded.params.read_all(), model.params.read_all());
}

fn stored_names(dir: &Path) -> Vec<String> {
    crate::stored_tensors(dir).unwrap().into_iter().map(|tensor| tensor.name).collect()
}

#[test]
fn old_names_and_copies_are_understood() {
    let (dir, model) = saved(Heads::PRETRAINING);
    rewrite(dir.path(), |stored| {
        let find =
            |stored: &[Stored], expected: &str| stored.iter().find(|(name, ..)| name == expected).unwrap().clone();
        let (words, bias) = (find(stored, WORDS), find(stored, MLM_BIAS));
        stored.push((DECODER.to_owned(), words.1, words.2, words.3));
        stored.push((DECODER_BIAS.to_owned(), bias.1, bias.2, bias.3));
        let positions: Vec<u8> = (0..10i64).flat_map(i64::to_le_bytes).collect();
        stored.push(("bert.embeddings.position_ids".to_owned(), Dtype::I64, vec![1, 10], positions));
        for (name, ..) in stored {
            *name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        }
    });
    let loaded = Model::load(dir.path(), &device()).unwrap();
    assert_eq!(loaded.params.read_all(), model.params.read_all());

    // The decoder's bias only under its other name.
    rewrite(dir.path(), |stored| stored.retain(|(name, ..)| name != MLM_BIAS));
    let loaded = Model::load(dir.path(), &device()).unwrap();
    assert_eq!(loaded.params.read_all(), model.params.read_all());
}

fn set(dir: &Path, key: &str, value: Value) {
    let path = dir.join(CONFIG_FILE);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn an_untied_decoder_is_a_separate_parameter() {
    for tied in [true, false] {
        let (dir, model) = saved(Heads::PRETRAINING);
        set(dir.path(), "tie_word_embeddings", tied.into());
        let ones: Vec<u8> = [1f32; 160].iter().flat_map(|one| one.to_le_bytes()).collect();
        let bias: Vec<u8> = [3f32; 20].iter().flat_map(|three| three.to_le_bytes()).collect();
        rewrite(dir.path(), |stored| {
            stored.push((DECODER.to_owned(), Dtype::F32, vec![20, 8], ones));
            // Transformers adds this bias, not the head's.
            stored.push((DECODER_BIAS.to_owned(), Dtype::F32, vec![20], bias));
        });
        let loaded = Model::load(dir.path(), &device()).unwrap();
        let values = |model: &Model, name: &str| model.params.read(model.params.find(name).unwrap()).into_owned();
        assert_eq!(loaded.heads, Heads::PRETRAINING);
        assert_eq!((values(&loaded, DECODER), values(&loaded, MLM_BIAS)), (vec![1.0; 160], vec![3.0; 20]));
        assert_eq!(values(&loaded, WORDS), values(&model, WORDS));
        let again = tempdir().unwrap();
        loaded.save(again.path()).unwrap();
        assert!(stored_names(again.path()).contains(&DECODER_BIAS.to_owned()), "the name that Transformers reads");
        let again = Model::load(again.path(), &device()).unwrap();
        assert!(!again.config().tie_word_embeddings);
        assert_eq!(again.params.read_all(), loaded.params.read_all());
    }
}

#[test]
fn problems_of_unneeded_parts_are_ignored() {
    // The flag in a model without a decoder.
    for heads in [Heads::ENCODER, Heads::of(TaskHead::Answer), Heads::of(TaskHead::Classify { labels: 2 })] {
        let (dir, model) = saved(heads);
        set(dir.path(), "tie_word_embeddings", false.into());
        assert_eq!(Model::load(dir.path(), &device()).unwrap().params.read_all(), model.params.read_all());
    }
    // A missing decoder, a damaged head, tensors of an unknown head.
    let (dir, model) = saved(Heads::MLM);
    set(dir.path(), "tie_word_embeddings", false.into());
    assert!(load_error(dir.path()).contains("missing: cls.predictions.decoder.weight, expected [20, 8]"));
    rewrite(dir.path(), |stored| {
        stored.retain(|(name, ..)| name != MLM_BIAS);
        stored.push(("linear.weight".to_owned(), Dtype::F32, vec![1], vec![0; 4]));
    });
    let (encoder, report) = Model::load_encoder(dir.path(), &device()).unwrap();
    assert_eq!((encoder.heads, report.unknown), (Heads::NONE, vec!["linear.weight".to_owned()]));
    let count = encoder.parameter_count();
    assert_eq!(encoder.params.read_all()[..], model.params.read_all()[..count]);
    let (_, report) = Model::load_with(dir.path(), Heads::of(TaskHead::Answer), &[], &device(), 1).unwrap();
    assert_eq!(report.unknown, ["linear.weight"]);
    assert!(report.notes().contains(&"not used from the checkpoint (unknown tensors): linear.weight".to_owned()));
    // The states of a causal model without its head.
    let model = Model::new(small().causal(), Heads::MLM, &device(), 5).unwrap();
    model.save(dir.path()).unwrap();
    assert!(Model::load_encoder(dir.path(), &device()).unwrap().0.architecture().causal);
}

#[test]
fn a_common_prefix_of_all_names_is_ignored() {
    for wrapper in ["module.", "model.", "_orig_mod.", "bert.", "module.model.", "encoder.", "sbert."] {
        let (dir, model) = saved(Heads::PRETRAINING);
        rewrite(dir.path(), |stored| stored.iter_mut().for_each(|(name, ..)| *name = format!("{wrapper}{name}")));
        let loaded = Model::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), model.params.read_all(), "{wrapper}");
        // Only the encoder, and a head without the prefix.
        let (dir, model) = saved(Heads::ENCODER);
        rewrite(dir.path(), |stored| {
            stored.iter_mut().for_each(|(name, ..)| *name = format!("{wrapper}{name}"));
            stored.push(("proj.weight".to_owned(), Dtype::F32, vec![1], vec![0; 4]));
        });
        let (loaded, _) = Model::load_encoder(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), model.params.read_all(), "{wrapper}");
    }
    // Two models in a file: it is unclear which one to load.
    let (dir, _) = saved(Heads::ENCODER);
    rewrite(dir.path(), |stored| {
        let queries: Vec<Stored> =
            stored.iter().map(|(name, t, s, b)| (format!("query.{name}"), *t, s.clone(), b.clone())).collect();
        stored.iter_mut().for_each(|(name, ..)| *name = format!("document.{name}"));
        stored.extend(queries);
    });
    let error = load_error(dir.path());
    assert!(error.contains("several models, with names that start with document.; query.; save one"), "{error}");
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn long_lists_are_abbreviated_with_a_count() {
    let (dir, _) = saved(Heads::PRETRAINING);
    rewrite(dir.path(), |stored| stored.retain(|(name, ..)| !name.starts_with("bert.encoder.")));
    let error = load_error(dir.path());
    assert!(error.contains("query.weight, expected [8, 8]; ") && error.contains("; and 28 more"), "{error}");
    assert!(error.lines().count() == 2 && error.len() < 600, "{error}");
    rewrite(dir.path(), |stored| stored.iter_mut().for_each(|(name, ..)| *name = name.replace("bert.", "tower-")));
    let error = load_error(dir.path());
    assert!(
        error.contains("none of its tensors belongs to an encoder of BERT; it contains cls.predictions.bias; "),
        "{error}"
    );
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn adapter_folders_are_rejected() {
    let (dir, _) = saved(Heads::ENCODER);
    fs::write(dir.path().join(ADAPTER_FILE), "{}").unwrap();
    assert!(load_error(dir.path()).contains("merge_and_unload()"));
}

/// The f32 value of elements of all supported types, including the limits of each type's range.
#[test]
fn elements_of_all_types_are_converted_exactly() {
    let narrow = |pairs: &[(u16, u32)]| -> Vec<(Vec<u8>, u32)> {
        pairs.iter().map(|(stored, read)| (stored.to_le_bytes().to_vec(), *read)).collect()
    };
    let wide = |pairs: &[(f64, u32)]| -> Vec<(Vec<u8>, u32)> {
        pairs.iter().map(|(stored, read)| (stored.to_le_bytes().to_vec(), *read)).collect()
    };
    const INF: u32 = 0x7f80_0000;
    const NAN: u32 = 0x7fc0_0000;
    const MINUS: u32 = 0x8000_0000;
    let unchanged = [1.5f32.to_bits(), 1, 0x007f_ffff, 0x0080_0000, 0x7f7f_ffff, INF, MINUS | INF, NAN | 0x1234, MINUS];
    // The smallest subnormal of f32, 2^-149.
    let smallest = f64::from(f32::from_bits(1));
    let cases = [
        (Dtype::F32, unchanged.iter().map(|bits| (bits.to_le_bytes().to_vec(), *bits)).collect()),
        (
            Dtype::F16,
            narrow(&[
                (0x3c00, 0x3f80_0000),         // 1
                (0xc001, 0xc000_2000),         // −(2 + 2^-9)
                (0x0001, (127 - 24) << 23),    // the smallest subnormal, 2^-24
                (0x83ff, MINUS | 0x387f_c000), // the largest subnormal, −(2^-14 − 2^-24)
                (0x0400, (127 - 14) << 23),    // the smallest normal number
                (0x7bff, 0x477f_e000),         // the largest number, 65504
                (0x7c00, INF),
                (0xfc00, MINUS | INF),
                (0x7e00, NAN),
                (0x8000, MINUS),
            ]),
        ),
        (
            Dtype::BF16,
            narrow(&[
                (0x3f80, 0x3f80_0000),
                (0xc049, 0xc049_0000),
                (0x0001, 0x0001_0000), // subnormals of both types
                (0x807f, 0x807f_0000),
                (0x7f7f, 0x7f7f_0000),
                (0x7f80, INF),
                (0xff80, MINUS | INF),
                (0x7fc0, NAN),
                (0x8000, MINUS),
            ]),
        ),
        (
            Dtype::F64,
            wide(&[
                (1.0, 0x3f80_0000),
                (-std::f64::consts::PI, 0xc049_0fdb),
                // Rounds to nearest, ties to even.
                (1.0 + 2f64.powi(-24), 0x3f80_0000),
                (1.0 + 3.0 * 2f64.powi(-24), 0x3f80_0002),
                (1.0 + 2f64.powi(-24) + f64::EPSILON, 0x3f80_0001),
                (smallest, 1),
                (0.5 * smallest, 0),
                (-0.75 * smallest, MINUS | 1),
                (1.5 * smallest, 2),
                (5e-324, 0),
                (f64::from(f32::MAX), 0x7f7f_ffff),
                (f64::MAX, INF),
                (f64::NEG_INFINITY, MINUS | INF),
                (f64::NAN, NAN),
                (-0.0, MINUS),
            ]),
        ),
    ];
    for (dtype, elements) in cases {
        let (dir, model) = saved(Heads::ENCODER);
        let store = |elements: &[&(Vec<u8>, u32)]| {
            let mut count = 0;
            rewrite(dir.path(), |stored| {
                for (_, of, shape, bytes) in stored {
                    let repeated = elements.iter().cycle().take(shape.iter().product());
                    (*of, *bytes) = (dtype, repeated.flat_map(|(bytes, _)| bytes.clone()).collect());
                    count += 1;
                }
            });
            assert_eq!(count, model.params.ids().count());
        };
        let is_nan = |element: &&(Vec<u8>, u32)| f32::from_bits(element.1).is_nan();
        let elements: Vec<(Vec<u8>, u32)> = elements;
        let (damaged, sound): (Vec<_>, Vec<_>) = elements.iter().partition(is_nan);
        store(&sound);
        let loaded = Model::load(dir.path(), &device()).unwrap();
        for id in loaded.params.ids() {
            let found: Vec<u32> = loaded.params.read(id).iter().map(|value| value.to_bits()).collect();
            let expected: Vec<u32> = sound.iter().map(|(_, bits)| *bits).cycle().take(found.len()).collect();
            assert_eq!(found, expected, "{dtype:?}, {}", loaded.params.name(id));
        }
        store(&damaged);
        assert!(load_error(dir.path()).contains("contains NaN"), "{dtype:?}");
    }
}

#[test]
fn shards_are_joined_and_missing_ones_reported() {
    let (dir, model) = saved(Heads::PRETRAINING);
    let stored = read_stored(dir.path());
    fs::remove_file(dir.path().join(WEIGHTS_FILE)).unwrap();
    let half = stored.len() / 2;
    let mut map = serde_json::Map::new();
    for (file, part) in [("a.safetensors", &stored[..half]), ("b.safetensors", &stored[half..])] {
        write_stored(dir.path().join(file), part);
        map.extend(part.iter().map(|(name, ..)| (name.clone(), Value::from(file))));
    }
    let index = dir.path().join("model.safetensors.index.json");
    let write_index = |map: &serde_json::Map<String, Value>| {
        fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    };
    write_index(&map);
    let loaded = Model::load(dir.path(), &device()).unwrap();
    assert_eq!(loaded.params.read_all(), model.params.read_all());

    map.insert("phantom".to_owned(), Value::from("a.safetensors"));
    write_index(&map);
    assert!(load_error(dir.path()).contains("no shard contains phantom"));
    map.insert("phantom".to_owned(), Value::from("../a.safetensors"));
    write_index(&map);
    assert!(load_error(dir.path()).contains("is not a plain file name"));
    fs::remove_file(dir.path().join("b.safetensors")).unwrap();
    map.remove("phantom");
    write_index(&map);
    assert!(load_error(dir.path()).contains("b.safetensors"));
}

#[test]
fn all_mismatched_tensors_are_reported_at_once() {
    let (dir, _) = saved(Heads::PRETRAINING);
    rewrite(dir.path(), |stored| {
        stored.retain(|(name, ..)| name != "bert.encoder.layer.1.attention.self.key.bias");
        for (name, dtype, shape, bytes) in stored.iter_mut() {
            match name.as_str() {
                "bert.pooler.dense.weight" => (*shape, *bytes) = (vec![4, 8], vec![0; 128]),
                "cls.seq_relationship.bias" => *dtype = Dtype::I32,
                _ => {}
            }
        }
        stored.push(("adapter.weight".to_owned(), Dtype::F32, vec![3, 8], vec![0; 96]));
    });
    let error = load_error(dir.path());
    for line in [
        "missing: bert.encoder.layer.1.attention.self.key.bias, expected [8]",
        "wrong shape: bert.pooler.dense.weight, expected [8, 8], found [4, 8]",
        "wrong type: cls.seq_relationship.bias, expected F32, BF16, F16 or F64, found I32",
        "unexpected: adapter.weight [3, 8]",
    ] {
        assert!(error.contains(line), "{line} not in {error}");
    }
    assert_eq!(error.lines().count(), 5, "{error}");
}

#[test]
fn a_declared_head_without_tensors_is_missing() {
    let (dir, _) = saved(Heads::MLM);
    let config = fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap();
    fs::write(dir.path().join(CONFIG_FILE), config.replace("BertForMaskedLM", "BertForPreTraining")).unwrap();
    let error = load_error(dir.path());
    assert!(error.contains("missing: ") && error.contains("cls.seq_relationship.weight, expected [2, 8]"), "{error}");
}

#[test]
fn damaged_weights_are_reported() {
    let (dir, _) = saved(Heads::MLM);
    let path = dir.path().join(WEIGHTS_FILE);
    let complete = fs::read(&path).unwrap();
    let cases: [(&[u8], &str); 5] = [
        (&complete[..complete.len() - 5], "truncated"),
        (&complete[..100], "in a file of 100 bytes"),
        (&[], "0 bytes"),
        (b"this is not a safetensors file at all", "its header claims"),
        (b"\x05\0\0\0\0\0\0\0{\"a\":", "damaged"),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let error = load_error(dir.path());
        assert!(error.contains(expected) && error.contains(WEIGHTS_FILE), "{expected}: {error}");
    }
    fs::remove_file(&path).unwrap();
    fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
    let error = load_error(dir.path());
    assert!(error.contains("neither model.safetensors") && error.contains("pytorch_model.bin"), "{error}");
    assert!(load_error(&dir.path().join("absent")).contains("is not a model folder"));
}

#[test]
fn unwritable_folder_is_an_error() {
    let (dir, model) = saved(Heads::MLM);
    let error = model.save(&dir.path().join(CONFIG_FILE)).unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
}

/// Regression: a model with a flipped byte gave other results with exit code 0.
#[test]
fn saved_weights_have_a_checksum() {
    let (dir, model) = saved(Heads::PRETRAINING);
    let path = dir.path().join(WEIGHTS_FILE);
    let complete = fs::read(&path).unwrap();
    assert!(verify_weights(dir.path()).unwrap());
    model.save(dir.path()).unwrap();
    assert!(complete == fs::read(&path).unwrap(), "equal weights are equal files");
    let mut altered = complete.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 0x40;
    fs::write(&path, altered).unwrap();
    let error = verify_weights(dir.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors is damaged") && error.contains("expected the checksum"), "{error}");
    // Files that another program wrote have no checksum.
    fs::write(&path, complete).unwrap();
    rewrite(dir.path(), |_| ());
    assert!(!verify_weights(dir.path()).unwrap());
}

/// Regression: `cloze fill` printed "NaN %" and `cloze evaluate pretrain` "MLM loss NaN", both with exit code 0.
#[test]
fn nan_weights_are_rejected() {
    let (dir, _) = saved(Heads::PRETRAINING);
    rewrite(dir.path(), |stored| {
        let (.., bytes) = stored.iter_mut().find(|(name, ..)| name == WORDS).unwrap();
        bytes[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let error = load_error(dir.path());
    assert!(error.contains(WORDS) && error.contains("its weights are damaged"), "{error}");
}

/// The inputs that the fuzz target begins with, those that it found among them.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let Ok(entries) = fs::read_dir(folder) else {
        println!("skipped: no seeds of the fuzz target {target}");
        return Vec::new();
    };
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// Each must give a model or an error, and never a panic.
#[test]
fn seeds_of_the_fuzz_targets_are_read() {
    let dir = tempdir().unwrap();
    for seed in seeds("config") {
        let config = seed.split(|byte| *byte == b'\n').take_while(|line| *line != b"-----").collect::<Vec<_>>();
        fs::write(dir.path().join(CONFIG_FILE), config.join(&b'\n')).unwrap();
        let _ = Model::load(dir.path(), &device());
    }
    fs::write(dir.path().join(CONFIG_FILE), small().to_json()).unwrap();
    for seed in seeds("safetensors") {
        fs::write(dir.path().join(WEIGHTS_FILE), seed).unwrap();
        let _ = Model::load(dir.path(), &device());
    }
}
