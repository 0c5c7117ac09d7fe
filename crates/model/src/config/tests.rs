use super::*;
use crate::architecture::{Architecture, Dropouts};

fn parse(text: &str) -> Result<Config, ModelError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, text).unwrap();
    Config::read(&path)
}

/// What Transformers 5 writes for a tiny model, plus an unknown key.
const WRITTEN: &str = r#"{
  "add_cross_attention": false, "architectures": ["BertForPreTraining"], "attention_probs_dropout_prob": 0.1,
  "bos_token_id": null, "classifier_dropout": null, "dtype": "float32", "eos_token_id": null, "hidden_act": "gelu_new",
  "hidden_dropout_prob": 0.25, "hidden_size": 48, "id2label": {"0": "NO", "1": "YES"}, "initializer_range": 0.2,
  "intermediate_size": 64, "is_decoder": false, "layer_norm_eps": 1e-12, "max_position_embeddings": 40,
  "model_type": "bert", "num_attention_heads": 3, "num_hidden_layers": 2, "pad_token_id": 0, "surprise": [1, {"a": 2.5}],
  "tie_word_embeddings": true, "transformers_version": "5.23.0", "type_vocab_size": 2, "use_cache": true, "vocab_size": 99
}"#;

#[test]
fn every_key_survives_reading_and_writing() {
    let config = parse(WRITTEN).unwrap();
    assert_eq!((config.hidden_size, config.num_attention_heads, config.architecture().head_size()), (48, 3, 16));
    assert_eq!(config.hidden_act, HiddenAct::GeluNew);
    assert_eq!(config.layer_norm_eps, 1e-12);
    let written: Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(WRITTEN).unwrap());
    assert_eq!(parse(&config.to_json()).unwrap(), config);
}

#[test]
fn missing_keys_have_defaults() {
    let config = parse(r#"{"hidden_size": 128, "num_attention_heads": 2, "hidden_act": "swish"}"#).unwrap();
    assert_eq!((config.hidden_act, config.vocab_size, config.pad_token_id), (HiddenAct::Silu, 30522, Some(0)));
}

/// What Transformers 5.24 writes for `DistilBertConfig()`, with two keys of other families.
#[test]
fn keys_of_another_family_are_translated_and_written_back() {
    let text = r#"{
  "activation": "relu", "attention_dropout": 0.25, "dim": 48, "dropout": 0.5, "hidden_dim": 64, "initializer_range": 0.02,
  "layer_norm_eps": 0.5, "max_position_embeddings": 40, "model_type": "distilbert", "n_heads": 3, "n_layers": 2,
  "num_hidden_groups": 4, "pad_token_id": 0, "qa_dropout": 0.125, "seq_classif_dropout": 0.75, "sinusoidal_pos_embds": false,
  "tie_word_embeddings": true, "type_vocab_size": 7, "vocab_size": 99
}"#;
    let config = parse(text).unwrap();
    assert_eq!((config.hidden_size, config.num_attention_heads, config.num_hidden_layers), (48, 3, 2));
    assert_eq!((config.intermediate_size, config.hidden_act), (64, HiddenAct::Relu));
    let architecture = config.architecture();
    assert_eq!((architecture.segments, architecture.layer_norm_eps), (0, 1e-12));
    let Dropouts { embeddings, attention, attention_output, gated, output, .. } = architecture.dropouts;
    assert_eq!([embeddings, attention, attention_output, gated, output], [0.5, 0.25, 0.5, 0.0, 0.5]);
    let Dropouts { classify, tag, choose, answer, pair, .. } = architecture.dropouts;
    assert_eq!([classify, tag, choose, answer, pair], [0.75, 0.5, 0.75, 0.125, 0.0]);
    let written: Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
    assert_eq!(
        config.ignored_keys(),
        [
            "config.json: DistilBERT ignores layer_norm_eps (0.5)",
            "config.json: DistilBERT ignores num_hidden_groups (4)",
            "config.json: DistilBERT ignores type_vocab_size (7)"
        ]
    );
    // Transformers accepts both names.
    let config = parse(r#"{"model_type": "distilbert", "hidden_size": 24, "n_heads": 2}"#).unwrap();
    assert_eq!((config.hidden_size, config.num_hidden_layers), (24, 6));
    let error = parse(r#"{"model_type": "distilbert", "hidden_size": 24, "dim": 48}"#).unwrap_err().to_string();
    assert!(error.contains("dim is 48, but hidden_size is 24: expected only dim"), "{error}");
    let error = parse(r#"{"model_type": "distilbert", "dim": "wide"}"#).unwrap_err().to_string();
    assert!(error.contains("dim: invalid type"), "{error}");
    let config = parse(r#"{"model_type": "roberta", "embedding_size": 64}"#).unwrap();
    assert_eq!(config.ignored_keys(), ["config.json: RoBERTa ignores embedding_size (64)"]);
}

#[test]
fn missing_keys_have_the_defaults_of_the_family() {
    let sizes = |model_type: &str| {
        let config = parse(&format!("{{\"model_type\": \"{model_type}\"}}")).unwrap();
        let Architecture { vocab_size, embedding_size, hidden_size, layers, positions, segments, .. } =
            config.architecture();
        ([vocab_size, embedding_size, hidden_size, layers, positions, segments], config.pad_token_id)
    };
    assert_eq!(sizes("roberta"), ([50265, 768, 768, 12, 512, 2], Some(1)));
    assert_eq!(sizes("xlm-roberta"), ([30522, 768, 768, 12, 512, 2], Some(1)));
    assert_eq!(sizes("camembert"), ([30522, 768, 768, 12, 512, 2], Some(1)));
    assert_eq!(sizes("mpnet"), ([30527, 768, 768, 12, 512, 0], Some(1)));
    assert_eq!(sizes("distilbert"), ([30522, 768, 768, 6, 512, 0], Some(0)));
    assert_eq!(sizes("albert"), ([30000, 128, 4096, 12, 512, 2], Some(0)));
    assert_eq!(sizes("electra"), ([30522, 128, 256, 12, 512, 2], Some(0)));
    let albert = parse(r#"{"model_type": "albert"}"#).unwrap();
    assert_eq!((albert.hidden_act, albert.hidden_dropout_prob), (HiddenAct::GeluNew, 0.0));
    assert_eq!(albert.architecture().dropouts.pair, 0.1);
    let long = parse(r#"{"model_type": "roberta", "max_position_embeddings": 514}"#).unwrap();
    assert_eq!(long.architecture().max_sequence_length(), 512);
    let shorter = parse(r#"{"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 3}"#).unwrap();
    assert_eq!(shorter.architecture().max_sequence_length(), 510);
}

/// Keys of ModernBERT: those of BERT are ignored, and only reported if they contradict the family's own.
#[test]
fn names_of_bert_are_not_read_where_transformers_does_not_read_them() {
    let text = r#"{"model_type": "modernbert", "layer_norm_eps": 1e-05, "norm_eps": 1e-05, "hidden_act": "relu",
        "hidden_activation": "gelu", "mlp_dropout": 0.25, "embedding_dropout": 0.5, "attention_dropout": 0.125,
        "local_attention": 10, "pad_token_id": 0}"#;
    let config = parse(text).unwrap();
    assert_eq!((config.hidden_act, config.layer_norm_eps), (HiddenAct::Gelu, 1e-5));
    assert_eq!(config.ignored_keys(), ["config.json: ModernBERT ignores hidden_act (\"relu\")"]);
    let Dropouts { embeddings, attention, attention_output, gated, output, .. } = config.architecture().dropouts;
    assert_eq!([embeddings, attention, attention_output, gated, output], [0.5, 0.125, 0.125, 0.25, 0.0]);
    let architecture = config.architecture();
    assert_eq!([0, 1, 2, 3].map(|number| architecture.window(number)), [None, Some(5), Some(5), None]);
    assert_eq!((architecture.segments, architecture.layers, architecture.positions), (0, 22, 8192));
    let mut written = parse(&config.to_json()).unwrap();
    assert_eq!(written, config);
    written.set_dropout(Some(0.75), None);
    let dropouts = written.architecture().dropouts;
    assert_eq!([dropouts.embeddings, dropouts.gated, dropouts.attention], [0.75, 0.75, 0.125]);
}

/// A configuration that a program makes can have values that no file of the family has.
#[test]
fn values_that_the_family_does_not_have_never_reach_the_network() {
    let distilbert = Config { model_type: "distilbert".to_owned(), ..Config::default() };
    assert_eq!((distilbert.type_vocab_size, distilbert.architecture().segments), (2, 0));
    for change in [
        Config { embedding_size: Some(64), ..Config::default() },
        Config { num_hidden_groups: Some(1), ..Config::default() },
    ] {
        let error = change.validate().unwrap_err().to_string();
        assert!(error.contains("is set: BERT has no such key"), "{error}");
    }
}

#[test]
fn presets_have_the_papers_sizes() {
    let size = |name| {
        let config = Config::preset(name).unwrap();
        config.validate().unwrap();
        (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    };
    assert_eq!(size("tiny"), (2, 128, 2, 512));
    assert_eq!(size("base"), (12, 768, 12, 3072));
    assert_eq!(size("large"), (24, 1024, 16, 4096));
    let error = Config::preset("huge").unwrap_err().to_string();
    assert!(error.contains("\"huge\"") && error.contains("medium"), "{error}");
}

#[test]
fn invalid_configs_are_explained() {
    let cases = [
        (
            r#"{"hidden_size": 50, "num_attention_heads": 3}"#,
            "hidden_size 50 is not divisible by num_attention_heads 3",
        ),
        (r#"{"hidden_act": "mish"}"#, "unknown variant `mish`, expected one of `gelu`"),
        (
            r#"{"model_type": "deberta-v2", "hidden_act": 7}"#,
            "model_type is \"deberta-v2\": expected one of the supported architectures, bert, roberta",
        ),
        (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers is 0"),
        (r#"{"vocab_size": 99999999999}"#, "vocab_size is 99999999999"),
        (
            r#"{"vocab_size": 16777216, "hidden_size": 16777216, "num_attention_heads": 1}"#,
            "parameters: expected at most",
        ),
        (r#"{"is_decoder": true, "architectures": ["BertForPreTraining"]}"#, "is_decoder"),
        (r#"{"cloze_bilstm": {"layers": 0, "size": 8}}"#, "a BiLSTM of 0 layers of 8: expected 1 to 16 layers"),
        (r#"{"cloze_bilstm": {"layers": 2}}"#, "cloze_bilstm: missing field `size`"),
        (r#"{"cloze_features": "first"}"#, "cloze_features: \"first\": expected embeddings, second-to-last, last"),
        (r#"{"num_hidden_layers": 18446744073709551615, "cloze_bilstm": null}"#, "num_hidden_layers is"),
        (r#"{"cloze_features": "sum-last-14"}"#, "features from 14 layers: expected 1 to 13"),
        (r#"{"cloze_sequence_token": "second"}"#, "cloze_sequence_token: unknown variant `second`"),
        (
            r#"{"is_decoder": true, "architectures": ["BertForMaskedLM"]}"#,
            "is_decoder is true with architectures [BertForMaskedLM]: expected [BertLMHeadModel]",
        ),
        (
            r#"{"is_decoder": true, "architectures": ["BertLMHeadModel"], "add_cross_attention": true}"#,
            "add_cross_attention is true",
        ),
        (r#"{"hidden_act": {"type": "gelu"}}"#, r#"hidden_act is {"type":"gelu"}: expected a name such as "gelu""#),
        (r#"{"quantization_config": {"quant_method": "fp8"}}"#, "the weights are quantized (fp8), expected floats"),
        (r#"{"hidden_dropout_prob": 1.0}"#, "hidden_dropout_prob is 1"),
        (r#"{"model_type": "distilbert", "seq_classif_dropout": 1.5}"#, "seq_classif_dropout is 1.5"),
        (r#"{"model_type": "distilbert", "n_heads": 5}"#, "dim 768 is not divisible by n_heads 5"),
        (r#"{"model_type": "roberta", "pad_token_id": null}"#, "pad_token_id is null: the positions of RoBERTa start"),
        (r#"{"model_type": "roberta", "max_position_embeddings": 2}"#, "expected more than pad_token_id + 1, 2"),
        (
            r#"{"model_type": "mpnet", "relative_attention_num_buckets": 31}"#,
            "relative_attention_num_buckets is 31: expected 32 or more",
        ),
        (
            r#"{"model_type": "mpnet", "pad_token_id": 7, "max_position_embeddings": 2}"#,
            "expected more than the padding token's id + 1, 2",
        ),
        (r#"{"model_type": "modernbert", "local_attention": 9}"#, "local_attention is 9: expected an even number"),
        (r#"{"model_type": "modernbert", "num_attention_heads": 256}"#, "heads of 3, expected an even width"),
        (r#"{"model_type": "modernbert", "cloze_shared_parts": "all"}"#, "layers of ModernBERT differ"),
        // Regression: a list of that many layers was allocated.
        (r#"{"model_type": "modernbert", "num_hidden_layers": 18446744073709551615}"#, "num_hidden_layers is 184467"),
        (r#"{"model_type": "modernbert", "norm_eps": 0}"#, "norm_eps is 0"),
        (r#"{"model_type": "albert", "num_hidden_groups": 13}"#, "num_hidden_groups is 13: expected 1 to 12"),
        (r#"{"model_type": "albert", "cloze_shared_parts": "all"}"#, "ALBERT has groups of layers instead"),
        (
            r#"{"model_type": "electra", "architectures": ["ElectraForMultipleChoice"], "summary_type": "mean"}"#,
            "summary_type is \"mean\": expected \"first\"",
        ),
        (r#"{"position_embedding_type": "relative_key"}"#, "position_embedding_type is \"relative_key\""),
        (r#"{"hidden_size": "wide"}"#, "hidden_size: invalid type: string \"wide\", expected usize"),
        ("[1]", "expected a JSON object"),
        ("{\"hidden_size\": ", "EOF"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("config.json"), "{text}: {error}");
    }
}
