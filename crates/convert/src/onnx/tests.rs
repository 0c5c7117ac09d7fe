//! Reads exported files back. `fixtures/onnx/check.py` compares their results with PyTorch.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use cloze_engine::Device;
use cloze_model::{BiLstmSize, Config, Features, Heads, HiddenAct, SequenceToken, TaskHead, TaskInput};
use prost::Message;
use tempfile::tempdir;

use super::embedding::{Activation, Dense, Module, Pool, Residual};
use super::proto::{Dimension, EXTERNAL, FLOAT, GraphProto, INT8, INT64, ModelProto, NodeProto, TensorProto};
use super::*;

fn small() -> Config {
    let mut config = Config::default();
    config.vocab_size = 50;
    config.hidden_size = 16;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 2;
    config.intermediate_size = 24;
    config.max_position_embeddings = 12;
    config
}

fn model(config: Config, heads: Heads) -> Model {
    Model::new(config, heads, &Device::cpu(Some(1)).unwrap(), 5).unwrap()
}

fn read(path: &Path) -> ModelProto {
    ModelProto::decode(fs::read(path).unwrap().as_slice()).unwrap()
}

fn exported(model: &Model, output: Class) -> GraphProto {
    read_back(|path| write(model, path, &OnnxOptions::new(output)))
}

/// With weights of int8.
fn quantized(model: &Model, output: Class) -> GraphProto {
    read_back(|path| {
        write(model, path, &OnnxOptions { quantization: Some(Quantization::Int8), ..OnnxOptions::new(output) })
    })
}

fn with_embedding(model: &Model, embedding: &Embedding<'_>) -> GraphProto {
    read_back(|path| write_embedding(model, embedding, path, &OnnxOptions::new(Class::Encoder)))
}

/// Writes a file and reads its graph.
fn read_back(write: impl FnOnce(&Path) -> Result<OnnxReport, OnnxError>) -> GraphProto {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let report = write(&path).unwrap();
    assert_eq!(report.bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(report.data, None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no other file remains");
    let model = read(&path);
    let opsets: Vec<(&str, i64)> = model.opset_import.iter().map(|set| (set.domain.as_str(), set.version)).collect();
    assert_eq!((model.ir_version, model.producer_name.as_str(), opsets), (8, "cloze", vec![("", 17)]));
    let graph = model.graph.unwrap();
    check_structure(&graph);
    assert_eq!(graph.output.iter().map(|output| output.name.clone()).collect::<Vec<_>>(), report.outputs);
    graph
}

/// Checks that every value is defined once and before it is used, and that every value is used.
fn check_structure(graph: &GraphProto) {
    let mut made: HashSet<&str> = HashSet::new();
    let names = graph.input.iter().map(|value| &value.name).chain(graph.initializer.iter().map(|tensor| &tensor.name));
    for name in names {
        assert!(made.insert(name), "{name} is defined twice");
    }
    let mut used: HashSet<&str> = HashSet::new();
    for node in &graph.node {
        for input in &node.input {
            assert!(made.contains(input.as_str()), "{} uses {input} before it is defined", node.name);
            used.insert(input);
        }
        for output in &node.output {
            assert!(made.insert(output), "{output} is defined twice");
        }
    }
    for output in &graph.output {
        assert!(graph.node.iter().any(|node| node.output.contains(&output.name)), "no node defines {}", output.name);
        used.insert(&output.name);
    }
    let unused: Vec<&&str> = made.difference(&used).collect();
    assert!(unused.is_empty(), "unused values: {unused:?}");
    for tensor in graph.initializer.iter().filter(|tensor| tensor.data_location != EXTERNAL) {
        let width = match tensor.data_type {
            INT64 => 8,
            INT8 => 1,
            _ => 4,
        };
        let count: i64 = tensor.dims.iter().product();
        assert_eq!(tensor.raw_data.len() as i64, width * count, "{}", tensor.name);
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

fn tensor<'a>(graph: &'a GraphProto, name: &str) -> &'a TensorProto {
    graph.initializer.iter().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("no initializer {name}"))
}

fn node<'a>(graph: &'a GraphProto, name: &str) -> &'a NodeProto {
    graph.node.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
}

fn counted(graph: &GraphProto) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    graph.node.iter().for_each(|node| *counts.entry(node.op_type.as_str()).or_default() += 1);
    counts
}

/// Number of weights in the graph, without constants for operators.
fn stored_weights(graph: &GraphProto) -> usize {
    let weights = graph.initializer.iter().filter(|tensor| !tensor.name.starts_with("constant."));
    weights.map(|tensor| tensor.raw_data.len() / 4).sum()
}

/// `name [a, b, 3]` for every value.
fn signature(values: &[proto::ValueInfoProto], element: i32) -> Vec<String> {
    let dims = |value: &proto::ValueInfoProto| {
        let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()).unwrap();
        assert_eq!(tensor.elem_type, element, "{}", value.name);
        let dims = tensor.shape.as_ref().unwrap().dim.iter().map(|dim| match dim.value.as_ref().unwrap() {
            Dimension::Fixed(size) => size.to_string(),
            Dimension::Named(name) => name.clone(),
        });
        dims.collect::<Vec<_>>().join(", ")
    };
    values.iter().map(|value| format!("{} [{}]", value.name, dims(value))).collect()
}

#[test]
fn every_output_of_a_pretraining_model() {
    let cases: [(Heads, Class, &[&str]); 7] = [
        (
            Heads::ENCODER,
            Class::Encoder,
            &["last_hidden_state [batch_size, sequence_length, 16]", "pooler_output [batch_size, 16]"],
        ),
        (Heads::NONE, Class::Encoder, &["last_hidden_state [batch_size, sequence_length, 16]"]),
        (Heads::MLM, Class::MaskedLm, &["logits [batch_size, sequence_length, 50]"]),
        (Heads::NSP, Class::NextSentence, &["logits [batch_size, 2]"]),
        (
            Heads::PRETRAINING,
            Class::Pretraining,
            &["prediction_logits [batch_size, sequence_length, 50]", "seq_relationship_logits [batch_size, 2]"],
        ),
        // A subset of the model's heads.
        (Heads::PRETRAINING, Class::MaskedLm, &["logits [batch_size, sequence_length, 50]"]),
        (Heads::PRETRAINING, Class::NextSentence, &["logits [batch_size, 2]"]),
    ];
    for (heads, output, expected) in cases {
        let model = model(small(), heads);
        let graph = exported(&model, output);
        assert_eq!(signature(&graph.output, FLOAT), expected);
        let inputs = ["input_ids", "attention_mask", "token_type_ids"]
            .map(|name| format!("{name} [batch_size, sequence_length]"));
        assert_eq!(signature(&graph.input, INT64), inputs);
        // Each weight is stored once, also the tied decoder's.
        let stored = stored_weights(&graph);
        if heads.class(false) == output {
            assert_eq!(stored, model.parameter_count(), "{heads}");
        } else {
            assert!(stored < model.parameter_count(), "{heads}");
        }
    }
}

/// `fixtures/onnx/check.py` compares their results; here, that the graphs are complete and that shared weights are stored once.
#[test]
fn every_family_and_head() {
    let tasks = [TaskHead::Classify { labels: 3 }, TaskHead::Tag { labels: 3 }, TaskHead::Answer, TaskHead::Choose];
    for family in cloze_model::FAMILIES {
        let mut config = small();
        config.model_type = family.model_type.to_owned();
        if ["albert", "electra"].contains(&family.model_type) {
            config.embedding_size = Some(8);
        }
        if family.model_type == "albert" {
            (config.num_hidden_groups, config.inner_group_num) = (Some(1), Some(2));
        }
        config.type_vocab_size = match family.model_type {
            "distilbert" | "mpnet" | "modernbert" => 0,
            "bert" | "albert" | "electra" => 2,
            _ => 1,
        };
        let mut heads = vec![Heads::NONE, Heads::MLM];
        heads.extend(tasks.map(Heads::of));
        heads.extend((family.model_type == "electra").then_some(Heads::RTD));
        heads.extend((family.model_type == "albert").then_some(Heads::PRETRAINING));
        for heads in heads {
            let model = model(config.clone(), heads);
            let graph = exported(&model, model.class());
            assert_eq!(stored_weights(&graph), model.parameter_count(), "{}: {heads}", family.title);
            let inputs: Vec<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
            let count = if config.type_vocab_size > 1 { 3 } else { 2 };
            assert_eq!(inputs, ["input_ids", "attention_mask", "token_type_ids"][..count]);
            let bytes = quantized(&model, model.class());
            assert_eq!((&bytes.input, &bytes.output), (&graph.input, &graph.output));
            // Only products of activations, and those with fewer than 16 outputs, are of floats.
            let floats =
                bytes.node.iter().filter(|node| node.op_type == "MatMul" && node.input[1].ends_with(".transposed"));
            floats.for_each(|node| assert!(tensor(&bytes, &node.input[1]).dims[1] < 16, "{}", node.name));
            assert!(counted(&bytes)["MatMulInteger"] >= 2 * 4, "{}: {heads}", family.title);
        }
    }
}

#[test]
fn outputs_that_the_family_does_not_have_are_errors() {
    let dir = tempdir().unwrap();
    let mut roberta = small();
    roberta.model_type = "roberta".to_owned();
    for (config, output) in [(roberta, Class::NextSentence), (small(), Class::ReplacedTokens)] {
        let title = config.family().title;
        let options = OnnxOptions::new(output);
        let error = write(&model(config, Heads::MLM), &dir.path().join("x.onnx"), &options).unwrap_err().to_string();
        assert!(error.contains(&format!("{title} has no models with the output {output:?}")), "{error}");
    }
}

#[test]
fn every_output_of_a_task() {
    let span = ["start_logits [batch_size, sequence_length]", "end_logits [batch_size, sequence_length]"];
    let cases: [(TaskHead, Class, &[&str], [i64; 2]); 5] = [
        (TaskHead::Classify { labels: 5 }, Class::Classify, &["logits [batch_size, 5]"], [16, 5]),
        (TaskHead::Classify { labels: 1 }, Class::Classify, &["logits [batch_size, 1]"], [16, 1]),
        (TaskHead::Tag { labels: 7 }, Class::Tag, &["logits [batch_size, sequence_length, 7]"], [16, 7]),
        (TaskHead::Answer, Class::Answer, &span, [16, 2]),
        (TaskHead::Choose, Class::Choose, &["logits [batch_size, num_choices]"], [16, 1]),
    ];
    for (task, output, expected, dims) in cases {
        let model = model(small(), Heads::of(task));
        assert_eq!(model.class(), output);
        let graph = exported(&model, output);
        assert_eq!(signature(&graph.output, FLOAT), expected);
        let sizes = if task == TaskHead::Choose { "batch_size, num_choices, " } else { "batch_size, " };
        let inputs = signature(&graph.input, INT64);
        assert!(inputs.iter().all(|input| input.ends_with(&format!(" [{sizes}sequence_length]"))), "{inputs:?}");
        let head = if task == TaskHead::Answer { "qa_outputs" } else { "classifier" };
        assert_eq!(tensor(&graph, &format!("{head}.weight.transposed")).dims, dims);
        assert_eq!(stored_weights(&graph), model.parameter_count());
        let product = &node(&graph, &format!("{head}.product")).input[0];
        let norm = |layer: usize| format!("bert.encoder.layer.{layer}.output.LayerNorm");
        match task {
            TaskHead::Classify { .. } | TaskHead::Choose => assert_eq!(product, "bert.pooler.tanh"),
            TaskHead::Tag { .. } | TaskHead::Answer => assert_eq!(*product, norm(1)),
        }
    }
}

#[test]
fn weights_are_exported_with_their_values() {
    let model = model(small(), Heads::PRETRAINING);
    let graph = exported(&model, Class::Pretraining);
    let mut transposed = 0;
    for id in model.params.ids() {
        let (name, shape, values) = (model.params.name(id), model.params.shape(id), model.params.read(id));
        if let Some(stored) = graph.initializer.iter().find(|tensor| tensor.name == name) {
            assert_eq!(stored.dims.iter().map(|&size| size as usize).collect::<Vec<_>>(), shape);
            assert_eq!(floats(&stored.raw_data), values[..], "{name}");
        } else {
            let stored = tensor(&graph, &format!("{name}.transposed"));
            let (out, width) = (shape[0], shape[1]);
            assert_eq!(stored.dims, [width as i64, out as i64]);
            let found = floats(&stored.raw_data);
            assert!((0..out * width).all(|at| found[at % width * out + at / width] == values[at]), "{name}");
            transposed += 1;
        }
    }
    assert_eq!(transposed, 2 * 6 + 3, "six matrices per layer, pooler, transform, next sentence");
    let decoder = node(&graph, "cls.predictions.decoder");
    assert_eq!(decoder.input[1], "bert.embeddings.word_embeddings.weight");
}

#[test]
fn config_determines_activation_and_epsilon() {
    let cases = [
        (HiddenAct::Gelu, "Erf", 3),
        (HiddenAct::GeluNew, "Pow", 3),
        (HiddenAct::GeluPytorchTanh, "Pow", 3),
        (HiddenAct::Relu, "Relu", 3),
        (HiddenAct::Silu, "Sigmoid", 3),
    ];
    let all = BTreeSet::from(["Erf", "Pow", "Relu", "Sigmoid"]);
    for (hidden_act, op, times) in cases {
        let mut config = small();
        config.hidden_act = hidden_act;
        config.layer_norm_eps = 1e-5;
        let model = model(config, Heads::MLM);
        let graph = exported(&model, Class::MaskedLm);
        let counts = counted(&graph);
        assert_eq!(counts.get(op), Some(&times), "{hidden_act:?}: two layers and the head");
        assert!(all.iter().all(|other| *other == op || !counts.contains_key(other)), "{hidden_act:?}: {counts:?}");
        let norms: Vec<&NodeProto> = graph.node.iter().filter(|node| node.op_type == "LayerNormalization").collect();
        assert_eq!(norms.len(), 1 + 2 * 2 + 1);
        for norm in norms {
            let epsilon = norm.attribute.iter().find(|attribute| attribute.name == "epsilon").unwrap();
            assert_eq!(epsilon.f, Some(1e-5));
        }
    }
}

#[test]
fn weights_that_exceed_one_file_go_to_a_second_file() {
    let dir = tempdir().unwrap();
    let model = model(small(), Heads::PRETRAINING);
    let single = dir.path().join("single.onnx");
    let options = OnnxOptions::new(Class::Pretraining);
    let report = write(&model, &single, &options).unwrap();

    // The exact size is allowed; one byte less is not.
    let path = dir.path().join("new/folder/model.onnx");
    assert_eq!(write(&model, &path, &OnnxOptions { largest_file: report.bytes, ..options }).unwrap(), report);
    assert_eq!(fs::read(&path).unwrap(), fs::read(&single).unwrap());
    let split = write(&model, &path, &OnnxOptions { largest_file: report.bytes - 1, ..options }).unwrap();
    let (data_path, data_bytes) = split.data.unwrap();
    assert_eq!(data_path, path.with_file_name("model.onnx_data"));
    let data = fs::read(&data_path).unwrap();
    assert_eq!(data.len() as u64, data_bytes);
    assert_eq!(split.bytes, fs::metadata(&path).unwrap().len());
    assert!(split.bytes < report.bytes);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "only the two files");

    // With the data put back, the message equals that of the single file.
    let (expected, mut joined) = (read(&single), read(&path));
    let graph = joined.graph.as_mut().unwrap();
    check_structure(graph);
    let (mut outside, mut end) = (0, 0);
    for tensor in &mut graph.initializer {
        if tensor.data_location != EXTERNAL {
            assert!(tensor.raw_data.len() < 1024, "{} is large and not external", tensor.name);
            continue;
        }
        assert!(tensor.raw_data.is_empty(), "{} is external", tensor.name);
        let entries: HashMap<&str, &str> =
            tensor.external_data.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
        assert_eq!(entries["location"], "model.onnx_data");
        let [offset, length] = ["offset", "length"].map(|key| entries[key].parse::<usize>().unwrap());
        assert!(offset.is_multiple_of(4096) && offset >= end && length >= 1024);
        assert!(data[end..offset].iter().all(|&byte| byte == 0));
        end = offset + length;
        tensor.raw_data = data[offset..end].to_vec();
        (tensor.data_location, tensor.external_data) = (0, Vec::new());
        outside += 1;
    }
    assert!(outside > 10 && end == data.len());
    assert!(joined == expected);
}

#[test]
fn a_graph_above_the_limit_is_rejected() {
    let dir = tempdir().unwrap();
    let model = model(small(), Heads::MLM);
    let options = OnnxOptions { largest_file: 1000, ..OnnxOptions::new(Class::MaskedLm) };
    let error = write(&model, &dir.path().join("model.onnx"), &options).unwrap_err();
    assert!(matches!(error, OnnxError::TooLarge { limit: 1000, .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn missing_heads_are_named_in_the_error() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let two_labels = Heads::of(TaskHead::Classify { labels: 2 });
    let cases = [
        (Heads::ENCODER, Class::MaskedLm, "cls.predictions.transform.dense.weight: this output needs"),
        (Heads::NONE, Class::NextSentence, "bert.pooler.dense.weight: this output needs"),
        (Heads::ENCODER, Class::Classify, "classifier.weight: this output needs"),
        (Heads::ENCODER, Class::Tag, "classifier.weight: this output needs"),
        (Heads::ENCODER, Class::Answer, "qa_outputs.weight: this output needs"),
        (two_labels, Class::Choose, "classifier.weight: expected the shape [1, 16], found [2, 16]"),
    ];
    for (heads, output, expected) in cases {
        let error = write(&model(small(), heads), &path, &OnnxOptions::new(output)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let model = model(small(), Heads::ENCODER);
    let mut wider = *model.architecture();
    wider.intermediate_size = 25;
    let error = bert::build(&model, &wider, Class::Encoder, None, None).err().unwrap().to_string();
    assert!(error.contains("intermediate.dense.weight: expected the shape [25, 16], found [24, 16]"), "{error}");
    assert!(!path.exists());
}

#[test]
fn unwritable_paths_give_errors_and_existing_files_are_kept() {
    let dir = tempdir().unwrap();
    let model = model(small(), Heads::MLM);
    let options = OnnxOptions::new(Class::MaskedLm);
    let error = write(&model, Path::new(".."), &options).unwrap_err();
    assert!(error.to_string().contains("expected the path of a file"), "{error}");
    fs::write(dir.path().join("file"), "x").unwrap();
    for path in ["file/model.onnx", "."] {
        let error = write(&model, &dir.path().join(path), &options).unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
    }
    // The path of the second file is a folder: the first file does not change, and no partial file remains.
    let path = dir.path().join("model.onnx");
    fs::write(&path, "before").unwrap();
    fs::create_dir_all(dir.path().join("model.onnx_data/full")).unwrap();
    let error = write(&model, &path, &OnnxOptions { largest_file: 30_000, ..options }).unwrap_err();
    assert!(error.to_string().contains("model.onnx_data"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"before");
    let names: BTreeSet<String> =
        fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["file", "model.onnx", "model.onnx_data"].map(str::to_owned)));
}

/// `fixtures/onnx/check.py` compares their results; here, that the graphs are complete.
#[test]
fn causal_models_and_every_input_of_a_task() {
    let bilstm = Some(BiLstmSize { layers: 2, size: 3 });
    let cases = [
        (Features::ConcatLast(3), None, SequenceToken::First, 0),
        (Features::SumAll, bilstm, SequenceToken::Last, 2),
        (Features::Embeddings, bilstm, SequenceToken::First, 2),
        (Features::Last, None, SequenceToken::Last, 0),
    ];
    let tasks = [TaskHead::Classify { labels: 5 }, TaskHead::Tag { labels: 7 }, TaskHead::Answer, TaskHead::Choose];
    for (features, bilstm, token, layers) in cases {
        for task in tasks {
            let mut config = small().causal();
            config.task_input = TaskInput { features, bilstm, token };
            let model = model(config, Heads::of(task));
            let graph = exported(&model, model.class());
            let count = |op: &str| graph.node.iter().filter(|node| node.op_type == op).count();
            // The embeddings need no attention.
            assert_eq!((count("LSTM"), count("Trilu")), (layers, usize::from(features != Features::Embeddings)));
        }
    }
    let model = model(small().causal(), Heads::MLM);
    let graph = exported(&model, model.class());
    assert_eq!(signature(&graph.output, FLOAT), ["logits [batch_size, sequence_length, 50]"]);
}

/// An embedding of the last layer of [`small`] models.
fn embedding<'a>(pools: &[Pool], modules: Vec<Module<'a>>) -> Embedding<'a> {
    Embedding { pools: pools.to_vec(), layers: vec![2], modules }
}

fn dense(inputs: usize, outputs: usize, activation: Activation, residual: Residual<'static>) -> Dense<'static> {
    let weight = (0..inputs * outputs).map(|value| value as f32).collect();
    Dense { inputs, outputs, weight, bias: Some(vec![1.0; outputs].into()), activation, residual }
}

/// `fixtures/onnx/check_embeddings.py` compares the vectors with sentence-transformers.
#[test]
fn every_pooling_follows_the_encoder() {
    let cases: [(Pool, &[&str]); 7] = [
        (Pool::Cls, &["ArgMax", "GatherND"]),
        (Pool::LastToken, &["ArgMax", "GatherND"]),
        (Pool::Mean, &["ReduceSum", "Max"]),
        (Pool::MeanSqrtLen, &["ReduceSum", "Max", "Sqrt"]),
        (Pool::WeightedMean, &["ReduceSum", "Max", "CumSum"]),
        (Pool::Max, &["Where", "ReduceMax"]),
        (Pool::Pooler, &["Tanh"]),
    ];
    let model = model(small(), Heads::ENCODER);
    let without = counted(&exported(&model, Class::Encoder)).len();
    for (pool, operators) in cases {
        let graph = with_embedding(&model, &embedding(&[pool], Vec::new()));
        let states = |name: &str| format!("{name} [batch_size, sequence_length, 16]");
        let expected =
            [states("last_hidden_state"), states("token_embeddings"), "sentence_embedding [batch_size, 16]".to_owned()];
        assert_eq!(signature(&graph.output, FLOAT), expected);
        let counts = counted(&graph);
        assert!(operators.iter().all(|operator| counts.contains_key(operator)), "{pool:?}: {counts:?}");
        assert!(counts.len() > without - 2, "the encoder");
        // The pooler is only stored if it is used.
        let pooler = graph.initializer.iter().any(|tensor| tensor.name.contains("pooler"));
        assert_eq!(pooler, pool == Pool::Pooler);
    }
    // A mode in a list, twice, and of several layers.
    let all = cases.map(|(pool, _)| pool);
    let of_all = Embedding { pools: [&all[..], &all[1..3]].concat(), layers: vec![0, 2], modules: Vec::new() };
    let graph = with_embedding(&model, &of_all);
    assert_eq!(signature(&graph.output, FLOAT)[2], format!("sentence_embedding [batch_size, {}]", 16 * (2 * 8 + 1)));
}

#[test]
fn modules_follow_the_pooling_in_their_order() {
    use Activation::{
        Elu, Gelu, Identity, LeakyRelu, Mish, Relu, Relu6, Selu, Sigmoid, Silu, Softplus, Softsign, Tanh,
    };
    let model = model(small(), Heads::NONE);
    let activations = [
        (Identity, "Add"),
        (Tanh, "Tanh"),
        (Relu, "Relu"),
        (Gelu, "Erf"),
        (Sigmoid, "Sigmoid"),
        (Silu, "Sigmoid"),
        (Mish, "Softplus"),
        (LeakyRelu, "LeakyRelu"),
        (Elu, "Elu"),
        (Selu, "Selu"),
        (Relu6, "Clip"),
        (Softplus, "Softplus"),
        (Softsign, "Softsign"),
    ];
    for (activation, operator) in activations {
        let modules = vec![Module::Dense(dense(16, 5, activation, Residual::None))];
        let graph = with_embedding(&model, &embedding(&[Pool::Mean], modules));
        assert!(
            graph.node.iter().any(|node| node.op_type == operator && node.name.starts_with("dense.1")),
            "{activation:?}"
        );
    }
    let gamma = vec![0.5; 20];
    let modules = vec![
        Module::Dense(dense(16, 20, Tanh, Residual::Projected(vec![2.0; 320].into()))),
        Module::Dense(dense(20, 20, Identity, Residual::Same)),
        Module::LayerNorm { weight: (&gamma).into(), bias: vec![0.0; 20].into() },
        Module::Normalize,
        Module::Truncate(7),
    ];
    let graph = with_embedding(&model, &embedding(&[Pool::Cls], modules.clone()));
    assert_eq!(signature(&graph.output, FLOAT)[2], "sentence_embedding [batch_size, 7]");
    assert_eq!(node(&graph, "sentence_embedding").input, ["truncate.5"]);
    assert_eq!(node(&graph, "truncate.5").input[0], "normalize.4");
    assert_eq!(node(&graph, "normalize.4").input[0], "layer_norm.3");
    assert_eq!(node(&graph, "layer_norm.3").input, ["dense.2", "layer_norm.3.weight", "layer_norm.3.bias"]);
    assert_eq!(node(&graph, "dense.2").input, ["dense.2.linear", "dense.1"]);
    let weight = tensor(&graph, "dense.1.weight.transposed");
    assert_eq!((&weight.dims[..], floats(&weight.raw_data)[1]), (&[16, 20][..], 16.0));
    assert_eq!(floats(&tensor(&graph, "layer_norm.3.weight").raw_data), gamma);

    // Matrices of modules are quantized like those of the model.
    let mut options = OnnxOptions::new(Class::Encoder);
    options.quantization = Some(Quantization::Int8);
    let graph = read_back(|path| write_embedding(&model, &embedding(&[Pool::Cls], modules), path, &options));
    for name in ["dense.1.weight", "dense.1.residual.weight", "dense.2.weight"] {
        assert_eq!(tensor(&graph, &format!("{name}.int8.transposed")).data_type, INT8);
    }
}

#[test]
fn embeddings_that_do_not_fit_are_errors() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let model = model(small(), Heads::NONE);
    let mean = |module| embedding(&[Pool::Mean], vec![Module::Normalize, module]);
    let norm = |width: usize| Module::LayerNorm { weight: vec![1.0; 16].into(), bias: vec![1.0; width].into() };
    let short = Dense { bias: Some(vec![1.0; 3].into()), ..dense(16, 4, Activation::Tanh, Residual::None) };
    let thin = Dense { weight: vec![1.0; 3].into(), ..dense(16, 4, Activation::Tanh, Residual::None) };
    let cases = [
        (embedding(&[], Vec::new()), "expected at least one pooling mode"),
        (Embedding { layers: vec![3], ..embedding(&[Pool::Cls], Vec::new()) }, "expected layers from 0 to 2, found 3"),
        (mean(Module::Truncate(0)), "module 2: expected at least 1 dimension, found 0"),
        (
            mean(Module::Dense(dense(8, 4, Activation::Tanh, Residual::None))),
            "the input of a Dense: expected 8 numbers, found 16",
        ),
        (
            mean(Module::Dense(dense(16, 4, Activation::Tanh, Residual::Same))),
            "the residual of a Dense: expected 4 numbers, found 16",
        ),
        (mean(Module::Dense(short)), "the bias of a Dense: expected 4 numbers, found 3"),
        (mean(Module::Dense(thin)), "the weight of a Dense: expected 64 numbers, found 3"),
        (mean(norm(5)), "the bias of a LayerNorm: expected 16 numbers, found 5"),
        (
            embedding(&[Pool::Mean, Pool::Max], vec![norm(16)]),
            "module 1: the input of a LayerNorm: expected 16 numbers, found 32",
        ),
        (embedding(&[Pool::Pooler], Vec::new()), "bert.pooler.dense.weight: this output needs the tensor"),
    ];
    for (embedding, expected) in cases {
        let error =
            write_embedding(&model, &embedding, &path, &OnnxOptions::new(Class::Encoder)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let options = OnnxOptions::new(Class::MaskedLm);
    let error = write_embedding(&model, &embedding(&[Pool::Cls], Vec::new()), &path, &options).unwrap_err().to_string();
    assert!(error.contains("expected the output Encoder, found MaskedLm"), "{error}");
    assert!(!path.exists());
}

#[test]
fn quantized_weights_are_the_models_within_half_a_step() {
    let model = model(small(), Heads::PRETRAINING);
    let graph = quantized(&model, Class::Pretraining);
    let mut found = 0;
    for id in model.params.ids() {
        let (name, shape, values) = (model.params.name(id), model.params.shape(id), model.params.read(id));
        let as_bytes = ["int8", "int8.transposed"].map(|part| format!("{name}.{part}"));
        let Some(stored) = graph.initializer.iter().find(|tensor| as_bytes.contains(&tensor.name)) else { continue };
        let scales = floats(&tensor(&graph, &format!("{name}.scale")).raw_data);
        let (rows, columns) = (shape[0], shape[1]);
        assert_eq!((scales.len(), stored.data_type), (rows, INT8));
        let is_transposed = stored.name.ends_with("transposed");
        let dims = if is_transposed { [columns, rows] } else { [rows, columns] };
        assert_eq!(stored.dims, dims.map(|size| size as i64), "{name}");
        for (at, value) in values.iter().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let byte = stored.raw_data[if is_transposed { column * rows + row } else { at }].cast_signed();
            assert!((f32::from(byte) * scales[row] - value).abs() <= 0.5001 * scales[row] && byte != i8::MIN, "{name}");
        }
        found += 1;
    }
    assert_eq!(found, 2 * 6 + 2 + 2, "six matrices per layer, pooler and transform, words and positions");
    let counts = counted(&graph);
    // Queries, keys and values have one quantized input; so have the pooler and the next layer, if there were one.
    assert_eq!((counts["MatMulInteger"], counts["DynamicQuantizeLinear"]), (2 * 6 + 3, 2 * 4 + 3));
    // The table of words is the decoder's, too.
    assert_eq!(node(&graph, "bert.embeddings.word_embeddings.weight.int8.columns").op_type, "Transpose");
    assert_eq!(counts.get("Gemm"), None);
    // The matrix of next sentences has two outputs.
    assert_eq!(tensor(&graph, "cls.seq_relationship.weight.transposed").data_type, FLOAT);
    let [plain, bytes] = [exported(&model, Class::Pretraining), graph]
        .map(|graph| graph.initializer.iter().map(|tensor| tensor.raw_data.len()).sum::<usize>());
    assert!(3 * bytes < 2 * plain, "{bytes} of {plain}");
}
