//! Converts the names of a checkpoint's tensors to Transformers' names, and completes the configuration.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use cloze_model::schema::Inventory;
use cloze_model::{Class, Config, Head, Heads, Module, Schema};
use safetensors::Dtype;
use serde_json::Value;

use crate::error::ConvertError;
use crate::skipped::Skipped;
use crate::tensors::SourceTensor;

/// Gives every tensor its name in Transformers' models with a head; tensors of unknown heads keep their names. Skips tensors that
/// are not weights: buffers of old exporters, copies of tied tensors. A decoder whose values differ from the embeddings is kept,
/// and `config` is set to untied.
///
/// # Errors
/// [`ConvertError::Mismatch`] for two tensors with the same name, and for tensors of several models.
pub(crate) fn canonicalise(
    config: &mut Config,
    tensors: Vec<SourceTensor>,
    source: &Path,
    skipped: &mut Skipped,
) -> Result<Vec<SourceTensor>, ConvertError> {
    let schema = config.schema();
    let mut inventory = Inventory::of(schema, tensors.iter().map(|tensor| tensor.name.as_str()));
    let mut stored: HashMap<String, SourceTensor> =
        tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    for buffer in &inventory.buffers {
        skipped.add("a buffer of old exporters, not a weight", buffer);
    }
    let mut report: Vec<String> = inventory.duplicates.iter().map(|line| format!("  duplicate: {line}")).collect();
    let decoder = Module::MlmDecoder.weight();
    let mut untied = false;
    for copy in &inventory.copies {
        let is_equal = match (stored.get(&copy.stored), stored.get(&copy.original)) {
            (Some(a), Some(b)) => a.has_same_values(b)?,
            _ => false,
        };
        untied |= copy.role == decoder && !(is_equal && config.tie_word_embeddings);
        match is_equal {
            true => skipped.add("a copy of the tensor to which it is tied", &copy.name),
            false if copy.role == decoder => {}
            false => skipped.add("a bias that is replaced by another one", &copy.stored),
        }
    }
    if untied {
        inventory.untie(decoder);
        config.tie_word_embeddings = false;
    }
    if let Some(other) = inventory.other_family {
        let family = schema.family().title;
        report.push(format!(
            "  tensors with the names of {other}, not of {family}; correct the model_type in config.json"
        ));
    } else if !inventory.models.is_empty() {
        report.push(format!("  tensors of several models; their names begin with {}", inventory.models.join(", ")));
    } else if inventory.tensors.is_empty() {
        report.push("  found no tensors".to_owned());
    } else if !inventory.tensors.iter().any(|tensor| schema.is_of_encoder(&tensor.name)) {
        let some: Vec<&str> = inventory.tensors.iter().map(|tensor| tensor.name.as_str()).take(4).collect();
        report.push(format!(
            "  found no tensors of {}; the first names are {}",
            schema.family().title,
            some.join(", ")
        ));
    }
    if !report.is_empty() {
        return Err(ConvertError::Mismatch { path: source.to_owned(), report: report.join("\n") });
    }
    let renamed = inventory.tensors.into_iter().filter_map(|found| {
        let mut tensor = stored.remove(&found.stored)?;
        tensor.name = found.name;
        Some(tensor)
    });
    let mut renamed: Vec<SourceTensor> = renamed.collect();
    // In an untied model, Transformers reads the decoder's bias under its own name.
    let bias = schema.name(Module::MlmBias.bias());
    if untied && let Some(mut bias) = renamed.iter().find(|tensor| tensor.name == bias).cloned() {
        bias.name = schema.name(Module::MlmDecoder.bias());
        renamed.push(bias);
    }
    Ok(renamed)
}

/// The parts of a model, detected from its tensors.
#[derive(Debug)]
pub(crate) struct DetectedModel {
    heads: BTreeSet<Head>,
    /// Whether there are tensors of heads that [`cloze_model::Model`] does not support.
    has_other: bool,
}

impl DetectedModel {
    pub(crate) fn from_tensors(schema: Schema, tensors: &[SourceTensor]) -> DetectedModel {
        let is_supported =
            |tensor: &SourceTensor| schema.is_of_encoder(&tensor.name) || schema.head(&tensor.name).is_some();
        DetectedModel {
            heads: tensors.iter().filter_map(|tensor| schema.head(&tensor.name)).collect(),
            has_other: !tensors.iter().all(is_supported),
        }
    }

    /// Whether [`cloze_model::Model`] supports all heads.
    pub(crate) fn is_supported(&self) -> bool {
        !self.has_other
    }

    /// Transformers' class, if the tensors determine it. The tensors of a classifier do not show what it classifies.
    fn class(&self) -> Option<Class> {
        let has = |head| self.heads.contains(&head);
        let mut heads = Heads::NONE;
        heads.pooler = has(Head::Pooler);
        heads.mlm = has(Head::Mlm);
        heads.nsp = has(Head::Nsp);
        heads.rtd = has(Head::Rtd);
        match () {
            () if self.has_other || has(Head::Classifier) => None,
            () if has(Head::Span) => Some(Class::Answer),
            () => Some(heads.class(false)),
        }
    }
}

/// Sets `architectures`, labels and `dtype` if the configuration does not contain them.
pub(crate) fn complete_config(
    config: &mut Config,
    detected: &DetectedModel,
    tensors: &[SourceTensor],
    is_tensorflow: bool,
) {
    if config.architectures.as_ref().is_none_or(Vec::is_empty) {
        let schema = config.schema();
        // In TensorFlow, only run_classifier.py writes such a head, and it classifies sequences.
        let classifier = (is_tensorflow && detected.heads.contains(&Head::Classifier)).then_some(Class::Classify);
        let class = detected.class().or(classifier).and_then(|class| schema.class_name(class));
        config.architectures = class.map(|class| vec![class.to_owned()]);
        let bias = schema.name(Module::Classifier.bias());
        let labels = tensors.iter().find(|tensor| tensor.name == bias).map_or(2, SourceTensor::elements);
        // Transformers' default is two labels. The limit keeps the list of names small.
        if is_tensorflow && labels != 2 && labels <= 1 << 16 && !config.extra.contains_key("id2label") {
            config.set_labels(&(0..labels).map(|i| format!("LABEL_{i}")).collect::<Vec<_>>());
        }
    }
    let types: BTreeSet<&str> = tensors.iter().filter_map(|tensor| torch_type(tensor.dtype)).collect();
    if let (Some(&only), 1) = (types.first(), types.len())
        && !config.extra.contains_key("dtype")
        && !config.extra.contains_key("torch_dtype")
    {
        config.extra.insert("dtype".to_owned(), Value::from(only));
    }
}

fn torch_type(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F32 => Some("float32"),
        Dtype::F64 => Some("float64"),
        Dtype::F16 => Some("float16"),
        Dtype::BF16 => Some("bfloat16"),
        _ => None,
    }
}

/// Removes the prefix of tensor names if the model is only an encoder, as Transformers writes it.
pub(crate) fn rename_encoder(config: &Config, detected: &DetectedModel, tensors: &mut [SourceTensor]) {
    let schema = config.schema();
    let is_encoder = config.architectures.iter().flatten().all(|name| schema.class(name) == Some(Class::Encoder));
    if is_encoder && detected.class() == Some(Class::Encoder) {
        for tensor in tensors {
            tensor.name = schema.name_in(Class::Encoder, &tensor.name).to_owned();
        }
    }
}
