//! The initial model of a run: a new one with the recipe's sizes, or a checkpoint.

use cloze_data::shards::Shards;
use cloze_engine::Device;
use cloze_files::machine;
use cloze_model::{Class, Heads, LoadReport, Model};
use cloze_text::Tokenizer;

use crate::TrainError;
use crate::recipe::Recipe;
use crate::vocabulary::require_tokenizer;

/// What a run starts with.
pub struct Start<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The shards.
    pub shards: &'a Shards,
    /// The tokenizer of the shards.
    pub tokenizer: &'a Tokenizer,
    /// The device.
    pub device: &'a Device,
}

/// A new model with the heads `new_heads`; or the checkpoint that the recipe names, with the heads that `heads` returns
/// for those of the checkpoint (`None`: unchanged). `causal`: whether tokens attend only to earlier ones.
pub(super) fn initial_model(
    start: &Start<'_>,
    causal: bool,
    new_heads: Heads,
    heads: impl FnOnce(Heads) -> Option<Heads>,
) -> Result<(Model, LoadReport), TrainError> {
    let Start { recipe, shards, tokenizer, device } = *start;
    let (tokens, segments) = (tokenizer.vocab_size(), tokenizer.template().segments(recipe.has_pairs()));
    let Some(init) = &recipe.model.init else {
        let config = recipe.model.config(tokenizer.vocab_size(), tokenizer.special())?;
        let config = if causal { config.causal() } else { config };
        check_memory(Model::count_parameters(&config, new_heads)? as u64, machine::memory())?;
        let model = Model::new(config, new_heads, device, recipe.seed)?;
        model.check_tokenizer(shards.dir(), tokens, segments)?;
        return Ok((model, LoadReport::default()));
    };
    require_tokenizer(shards, init, &Tokenizer::open(init)?)?;
    let mut model = Model::load(init, device)?;
    if model.architecture().causal != causal {
        let kind = if causal { "is not" } else { "is" };
        let class = model.schema().class_name(Class::CausalLm).unwrap_or("no class: its family has none");
        return Err(TrainError::Recipe {
            place: "recipe".into(),
            message: format!(
                "`model.init`: {} {kind} a causal language model ({class}); `objective.kind` = \"causal-lm\" requires one, and other objectives do not accept one",
                init.display()
            ),
        });
    }
    let mut report = LoadReport::default();
    if let Some(heads) = heads(model.heads) {
        (model, report) = Model::load_with(init, heads, &[], device, recipe.seed)?;
    }
    recipe.check_fit(model.architecture().max_sequence_length(), model.architecture().segments)?;
    model.check_tokenizer(init, tokens, segments)?;
    let mut config = model.config().clone();
    config.set_dropout(recipe.model.hidden_dropout_prob, recipe.model.attention_probs_dropout_prob);
    model.set_config(config)?;
    Ok((model, report))
}

/// Bytes per weight for the weight, its gradient and two moments.
const BYTES_PER_WEIGHT: u64 = 16;

/// Rejects a model that needs more memory than available, before anything is allocated.
pub(super) fn check_memory(parameters: u64, available: Option<u64>) -> Result<(), TrainError> {
    let needed = BYTES_PER_WEIGHT.saturating_mul(parameters);
    match available {
        Some(available) if needed > available => Err(TrainError::Memory { parameters, needed, available }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: `model.hidden_size=65536` ended in an abort of the allocator.
    #[test]
    fn a_model_that_exceeds_memory_is_rejected() {
        assert!(check_memory(1 << 20, Some(1 << 24)).is_ok() && check_memory(1 << 60, None).is_ok());
        let error = check_memory(2_000_000_000, Some(16_000_000_000)).unwrap_err().to_string();
        assert!(error.contains("32.0 GB to train") && error.contains("this machine has 16.0 GB"), "{error}");
    }
}
