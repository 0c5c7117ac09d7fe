//! Checks that a model with a configuration can be built.

use serde_json::Value;

use super::network::BUCKETS;
use super::{Config, unsupported_model_type};
use crate::architecture::DISTANCE_BUCKETS;
use crate::error::ModelError;
use crate::family::Positions;
use crate::heads::Class;
use crate::role::Module;

// A config beyond these limits is a mistake or an attack; within them, no product overflows.
pub(super) const MAX_WIDTH: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;
const MAX_PARAMETERS: u128 = 1 << 37;

impl Config {
    /// Checks that a model of this shape can be built.
    ///
    /// # Errors
    /// [`ModelError::Config`] with all problems found.
    pub fn validate(&self) -> Result<(), ModelError> {
        match self.problems() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(ModelError::Config { path: None, problem: problems.join("; ") }),
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let family = self.family();
        let mut problems = Vec::new();
        if family.model_type != self.model_type {
            problems.push(unsupported_model_type(&self.model_type));
        }
        let has = |key: &str| family.has_key(key);
        let stored = |key: &'static str| family.key(key);
        let sizes = [
            ("vocab_size", self.vocab_size, MAX_WIDTH),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("max_position_embeddings", self.max_position_embeddings, MAX_WIDTH),
            ("type_vocab_size", self.type_vocab_size, MAX_WIDTH),
            ("embedding_size", self.embedding_size.unwrap_or(self.hidden_size), MAX_WIDTH),
            ("num_hidden_groups", self.num_hidden_groups.unwrap_or(1), self.num_hidden_layers.max(1)),
            ("inner_group_num", self.inner_group_num.unwrap_or(1), MAX_LAYERS),
        ];
        for (key, found, max) in sizes {
            if has(key) && (found == 0 || found > max) {
                problems.push(format!("{} is {found}: expected 1 to {max}", stored(key)));
            }
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if hidden > 0 && heads > 0 && !hidden.is_multiple_of(heads) {
            let keys = [stored("hidden_size"), stored("num_attention_heads")];
            problems.push(format!(
                "{} {hidden} is not divisible by {} {heads}: all heads have the same width",
                keys[0], keys[1]
            ));
        }
        let given = [
            ("embedding_size", self.embedding_size),
            ("num_hidden_groups", self.num_hidden_groups),
            ("inner_group_num", self.inner_group_num),
        ];
        for (key, _) in given.into_iter().filter(|(key, value)| value.is_some() && !has(key)) {
            problems.push(format!("{key} is set: {} has no such key", family.title));
        }
        if self.num_hidden_groups.is_some() && !self.shared_parts.is_none() {
            problems.push(format!("cloze_shared_parts is set: {} has groups of layers instead", family.title));
        }
        if family.positions_skip_padding() {
            match family.padding(self.pad_token_id) {
                None => {
                    problems.push(format!("pad_token_id is null: the positions of {} start after it", family.title))
                }
                Some(padding) if padding as usize + 1 >= self.max_position_embeddings => problems.push(format!(
                    "max_position_embeddings is {}: expected more than {} + 1, {}, where positions start",
                    self.max_position_embeddings,
                    if family.network.positions == Positions::AfterPadding {
                        "pad_token_id"
                    } else {
                        "the padding token's id"
                    },
                    u64::from(padding) + 1
                )),
                Some(_) => {}
            }
        }
        if family.is_modern() {
            // The keys describe each layer, so that their number must be known to be possible.
            if (1..=MAX_LAYERS).contains(&self.num_hidden_layers) {
                problems.extend(self.modern_keys().err().into_iter().flatten());
            }
            if heads > 0 && hidden.is_multiple_of(heads) && !(hidden / heads).is_multiple_of(2) {
                problems.push(format!(
                    "hidden_size {hidden} with num_attention_heads {heads}: heads of {}, expected an even width, because positions rotate pairs of numbers",
                    hidden / heads
                ));
            }
            if !self.shared_parts.is_none() {
                problems.push(format!(
                    "cloze_shared_parts is set: the layers of {} differ and cannot share weights",
                    family.title
                ));
            }
        }
        if family.has_module(Module::DistanceBias) && self.distance_buckets() < DISTANCE_BUCKETS {
            problems.push(format!(
                "relative_attention_num_buckets is {}: expected {DISTANCE_BUCKETS} or more, because {} always uses {DISTANCE_BUCKETS}",
                self.extra[BUCKETS], family.title
            ));
        }
        problems.extend(self.summary_problems());
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        let of_heads = self.head_dropout_keys().filter_map(|key| Some((key, self.extra.get(key)?.as_f64()?)));
        for (key, found) in probabilities.into_iter().chain(of_heads) {
            if !(0.0..1.0).contains(&found) {
                problems.push(format!("{} is {found}: expected 0 or more and less than 1", stored(key)));
            }
        }
        for (key, found) in [("initializer_range", self.initializer_range), ("layer_norm_eps", self.layer_norm_eps)] {
            if !(found > 0.0 && found < 1e3 && found as f32 > 0.0) {
                let key = stored(key);
                problems.push(format!("{key} is {found}: expected a small positive number"));
            }
        }
        if self.add_cross_attention {
            problems.push(
                "add_cross_attention is true: expected false, because there is no second encoder to attend to"
                    .to_owned(),
            );
        }
        let causal_class = self.schema().class_name(Class::CausalLm).unwrap_or("no class: this family has none");
        let other = |name: &&String| {
            let class = self.schema().class(name);
            class.is_none_or(|class| !matches!(class, Class::CausalLm | Class::Encoder) && !class.is_task())
        };
        if let (true, Some(found)) = (self.is_decoder, self.architectures.iter().flatten().find(other)) {
            problems.push(format!(
                "is_decoder is true with architectures [{found}]: expected [{causal_class}], a causal language model, or a task's class, or is_decoder false"
            ));
        }
        if let Some(Value::Object(quantized)) = self.extra.get("quantization_config") {
            let method = quantized.get("quant_method").and_then(Value::as_str).unwrap_or("an unknown method");
            problems.push(format!(
                "quantization_config: the weights are quantized ({method}), expected floats; dequantize and save the model in the program \
                 that made it"
            ));
        }
        if let Some(kind) = self.extra.get("position_embedding_type")
            && kind.as_str().is_some_and(|kind| kind != "absolute")
        {
            problems.push(format!("position_embedding_type is {kind}: expected \"absolute\""));
        }
        if problems.is_empty() {
            let layers = self.num_hidden_layers * self.inner_group_num.unwrap_or(1);
            problems.extend(self.task_input.problem(layers));
        }
        if problems.is_empty() && self.encoder_parameters() > MAX_PARAMETERS {
            problems.push(format!("{} parameters: expected at most {MAX_PARAMETERS}", self.encoder_parameters()));
        }
        problems
    }

    /// What is wrong with ELECTRA's `summary_…` keys, which determine the head of multiple choice.
    fn summary_problems(&self) -> Vec<String> {
        if !self.is_of_class(Class::Choose) || !self.schema().has(Module::ChoiceDense) {
            return Vec::new();
        }
        let expected = [("summary_type", Value::from("first")), ("summary_use_proj", Value::from(true))];
        let wrong = expected.into_iter().filter_map(|(key, expected)| {
            let found = self.extra.get(key).filter(|found| **found != expected)?;
            Some(format!("{key} is {found}: expected {expected}, the only supported value"))
        });
        let mut problems: Vec<String> = wrong.collect();
        if let Err(found) = self.summary_activation() {
            problems.push(format!("summary_activation is {found}: expected gelu, relu, silu, tanh or null"));
        }
        problems
    }

    /// Number of parameters of embeddings and encoder, without heads. Cannot overflow if the sizes are in range.
    fn encoder_parameters(&self) -> u128 {
        let [v, e, h, l, f, p, t] = [
            self.vocab_size,
            self.embedding_size.unwrap_or(self.hidden_size),
            self.hidden_size,
            self.num_hidden_layers,
            self.intermediate_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ]
        .map(|size| size as u128);
        let sets = match self.num_hidden_groups {
            Some(groups) => (groups * self.inner_group_num.unwrap_or(1)) as u128,
            None => l,
        };
        (v + p + t) * e + e * h + sets * (4 * h * h + 3 * h * f)
    }
}
