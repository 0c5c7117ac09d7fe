//! The keys of ModernBERT's config.json for parts of the network that other families do not have.

use cloze_engine::ops::Activation;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::HiddenAct;
use crate::architecture::{Biases, LocalLayers, Rotary};

/// The values of the keys, as `ModernBertConfig` of Transformers reads them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ModernKeys {
    pub(crate) biases: Biases,
    pub(crate) rotary: Rotary,
    pub(crate) local: Option<LocalLayers>,
    pub(crate) mean_pooling: bool,
    /// Of the prediction head.
    pub(crate) activation: Activation,
    pub(crate) embedding_dropout: f32,
}

/// The kinds of layers in `layer_types` and `rope_parameters`, with the older key and the default of their θ.
const FULL: (&str, &str, f64) = ("full_attention", "global_rope_theta", 160_000.0);
const SLIDING: (&str, &str, f64) = ("sliding_attention", "local_rope_theta", 10_000.0);

/// The tokens of a window, of which one half is on each side.
pub(crate) const LOCAL_ATTENTION: &str = "local_attention";
pub(crate) const EMBEDDING_DROPOUT: &str = "embedding_dropout";

impl ModernKeys {
    /// Reads the keys of a model with this number of layers.
    ///
    /// # Errors
    /// A line for each problem.
    pub(crate) fn read(keys: &Map<String, Value>, layers: usize) -> Result<ModernKeys, Vec<String>> {
        let mut reader = Reader { keys, problems: Vec::new() };
        let biases = Biases {
            norms: reader.flag("norm_bias", false),
            attention: reader.flag("attention_bias", false),
            feed_forward: reader.flag("mlp_bias", false),
            prediction: reader.flag("classifier_bias", false),
        };
        if !reader.flag("decoder_bias", true) {
            reader.problems.push("decoder_bias is false: expected true, the only supported value".to_owned());
        }
        let found = ModernKeys {
            biases,
            rotary: reader.rotary(),
            local: reader.local(layers),
            mean_pooling: reader.mean_pooling(),
            activation: reader.activation(),
            embedding_dropout: reader.number(
                EMBEDDING_DROPOUT,
                0.0,
                |p| (0.0..1.0).contains(&p),
                "0 or more and less than 1",
            ) as f32,
        };
        if reader.problems.is_empty() { Ok(found) } else { Err(reader.problems) }
    }
}

struct Reader<'a> {
    keys: &'a Map<String, Value>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The value of a key; `None` if it is missing or null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn expect<T>(&mut self, key: &str, found: Option<T>, expected: &str) -> Option<T> {
        if found.is_none() {
            self.problems.push(format!("{key} is {}: expected {expected}", self.keys[key]));
        }
        found
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(value) = self.get(key) else { return default };
        self.expect(key, value.as_bool(), "true or false").unwrap_or(default)
    }

    fn number(&mut self, key: &str, default: f64, fits: impl Fn(f64) -> bool, expected: &str) -> f64 {
        let Some(value) = self.get(key) else { return default };
        self.expect(key, value.as_f64().filter(|&number| fits(number)), expected).unwrap_or(default)
    }

    fn mean_pooling(&mut self) -> bool {
        const KEY: &str = "classifier_pooling";
        let Some(value) = self.get(KEY) else { return false };
        let found = match value.as_str() {
            Some("cls") => Some(false),
            Some("mean") => Some(true),
            _ => None,
        };
        self.expect(KEY, found, "\"cls\" or \"mean\"").unwrap_or_default()
    }

    fn activation(&mut self) -> Activation {
        const KEY: &str = "classifier_activation";
        let Some(value) = self.get(KEY) else { return Activation::Gelu };
        let found = value.as_str().and_then(|_| HiddenAct::deserialize(value).ok()).map(HiddenAct::activation);
        self.expect(KEY, found, "a name such as \"gelu\"").unwrap_or(Activation::Gelu)
    }

    fn rotary(&mut self) -> Rotary {
        if let Some(scaling) = self.get("rope_scaling") {
            self.check_kind("rope_scaling", scaling);
        }
        let parameters = self.get("rope_parameters");
        for kind in parameters.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if ![FULL.0, SLIDING.0].contains(&kind.as_str()) {
                let problem =
                    format!("rope_parameters has the key {kind:?}: expected {:?} and {:?}", FULL.0, SLIDING.0);
                self.problems.push(problem);
            }
        }
        let [global_theta, local_theta] = [FULL, SLIDING].map(|(kind, older, default)| {
            let of_kind = parameters.map_or(&Value::Null, |parameters| &parameters[kind]);
            let key = format!("rope_parameters.{kind}");
            self.check_kind(&key, of_kind);
            let is_positive = |theta: &f64| *theta > 0.0 && theta.is_finite();
            match &of_kind["rope_theta"] {
                Value::Null => self.number(older, default, |theta| is_positive(&theta), "a number above 0"),
                found => found.as_f64().filter(is_positive).unwrap_or_else(|| {
                    self.problems.push(format!("{key}.rope_theta is {found}: expected a number above 0"));
                    default
                }),
            }
        });
        Rotary { global_theta, local_theta }
    }

    fn check_kind(&mut self, key: &str, parameters: &Value) {
        for name in ["rope_type", "type"] {
            let found = &parameters[name];
            if !found.is_null() && found != "default" {
                let problem = format!("{key}.{name} is {found}: expected \"default\", rotations that are not scaled");
                self.problems.push(problem);
            }
        }
    }

    fn local(&mut self, layers: usize) -> Option<LocalLayers> {
        let is_local = self.local_layers(layers)?;
        if !is_local.contains(&true) {
            return None;
        }
        if layers > LocalLayers::MAX_LAYERS {
            let most = LocalLayers::MAX_LAYERS;
            self.problems.push(format!("num_hidden_layers is {layers}: expected at most {most} with {}", SLIDING.0));
            return None;
        }
        let tokens = match self.get(LOCAL_ATTENTION) {
            None => 128,
            Some(value) => {
                let fits = |tokens: &u64| *tokens >= 2 && tokens.is_multiple_of(2) && *tokens <= 1 << 24;
                let expected = "an even number of tokens, 2 or more, of which one half is on each side";
                self.expect(LOCAL_ATTENTION, value.as_u64().filter(fits), expected)? as usize
            }
        };
        let window = tokens / 2;
        let bits = is_local.iter().enumerate().map(|(number, &is_local)| u128::from(is_local) << number);
        Some(LocalLayers { window, layers: bits.sum() })
    }

    /// Whether each layer is local.
    fn local_layers(&mut self, layers: usize) -> Option<Vec<bool>> {
        const TYPES: &str = "layer_types";
        const EVERY: &str = "global_attn_every_n_layers";
        let Some(types) = self.get(TYPES) else {
            let every = match self.get(EVERY) {
                None => 3,
                Some(value) => {
                    self.expect(EVERY, value.as_u64().filter(|&every| every > 0), "a number of layers, 1 or more")?
                }
            };
            return Some((0..layers as u64).map(|number| !number.is_multiple_of(every)).collect());
        };
        let Some(types) = types.as_array().filter(|types| types.len() == layers) else {
            self.problems.push(format!("{TYPES} is {types}: expected a list of {layers} types, one for each layer"));
            return None;
        };
        let kind = |(number, kind): (usize, &Value)| match kind.as_str() {
            Some(kind) if kind == FULL.0 => Ok(false),
            Some(kind) if kind == SLIDING.0 => Ok(true),
            _ => Err(format!("{TYPES}.{number} is {kind}: expected {:?} or {:?}", FULL.0, SLIDING.0)),
        };
        match types.iter().enumerate().map(kind).collect() {
            Ok(is_local) => Some(is_local),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(keys: Value) -> Result<ModernKeys, Vec<String>> {
        ModernKeys::read(keys.as_object().unwrap(), 4)
    }

    #[test]
    fn keys_of_both_generations_have_the_same_meaning() {
        let defaults = read(json!({})).unwrap();
        assert_eq!(defaults.rotary, Rotary { global_theta: 160_000.0, local_theta: 10_000.0 });
        assert_eq!(defaults.local, Some(LocalLayers { window: 64, layers: 0b0110 }));
        let Biases { norms, attention, feed_forward, prediction } = defaults.biases;
        assert!(!norms && !attention && !feed_forward && !prediction && !defaults.mean_pooling);
        let older = read(
            json!({"global_rope_theta": 7, "local_rope_theta": 5.5, "global_attn_every_n_layers": 2, "local_attention": 10,
            "rope_scaling": null, "layer_types": null}),
        );
        let newer = read(json!({
            "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 7.0}, "sliding_attention": {"rope_theta": 5.5}},
            "global_rope_theta": 3.0, "global_attn_every_n_layers": 3, "local_attention": 10
        }));
        assert_eq!(older, newer);
        assert_eq!(older.unwrap().local, Some(LocalLayers { window: 5, layers: 0b1010 }));
        assert_eq!(read(json!({"global_attn_every_n_layers": 1, "local_attention": 7})).unwrap().local, None);
    }

    #[test]
    fn invalid_keys_are_explained() {
        for (keys, expected) in [
            (json!({"local_attention": 7}), "local_attention is 7: expected an even number of tokens"),
            (json!({"local_attention": 0}), "local_attention is 0: expected an even number of tokens"),
            (json!({"local_attention": -2}), "local_attention is -2: expected an even number"),
            (json!({"global_attn_every_n_layers": 0}), "global_attn_every_n_layers is 0: expected a number of layers"),
            (json!({"layer_types": ["full_attention"]}), "expected a list of 4 types"),
            (
                json!({"layer_types": ["full_attention", "chunked_attention", "full_attention", "full_attention"]}),
                "layer_types.1 is \"chunked_attention\": expected \"full_attention\" or \"sliding_attention\"",
            ),
            (
                json!({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}),
                "rope_parameters.full_attention.rope_type is \"yarn\": expected \"default\"",
            ),
            (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "rope_scaling.type is \"linear\": expected"),
            (json!({"rope_parameters": {"rope_theta": 1e4}}), "rope_parameters has the key \"rope_theta\""),
            (
                json!({"rope_parameters": {"full_attention": {"rope_theta": 0}}}),
                "rope_theta is 0: expected a number above 0",
            ),
            (json!({"local_rope_theta": "1e4"}), "local_rope_theta is \"1e4\": expected a number above 0"),
            (json!({"classifier_pooling": "max"}), "classifier_pooling is \"max\": expected \"cls\" or \"mean\""),
            (
                json!({"classifier_activation": "mish"}),
                "classifier_activation is \"mish\": expected a name such as \"gelu\"",
            ),
            (json!({"norm_bias": 1}), "norm_bias is 1: expected true or false"),
            (json!({"decoder_bias": false}), "decoder_bias is false: expected true"),
            (json!({"embedding_dropout": 1.0}), "embedding_dropout is 1.0: expected 0 or more and less than 1"),
        ] {
            let problems = read(keys.clone()).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(expected), "{keys}: {problems:?}");
        }
        let problems = ModernKeys::read(&Map::new(), 129).unwrap_err();
        assert_eq!(problems, ["num_hidden_layers is 129: expected at most 128 with sliding_attention"]);
    }
}
