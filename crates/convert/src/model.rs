//! From whatever names a checkpoint has to Transformers' own, and the configuration that goes with them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use cloze_model::schema::Inventory;
use cloze_model::{Class, Config, Head, Heads, Module, Schema};
use safetensors::Dtype;
use serde_json::Value;

use crate::aside::LeftAside;
use crate::error::ConvertError;
use crate::tensors::ForeignTensor;

/// Gives every tensor its name in Transformers' models with a head (unknown heads keep theirs) and leaves aside what holds no weights
/// of its own: buffers of old exporters, copies of tied tensors. A decoder with other values than the embeddings' stays, and `config`
/// then says that it is not tied.
///
/// # Errors
/// [`ConvertError::Fit`] for two tensors of one name, and for tensors of several models.
pub(crate) fn canonicalise(
    config: &mut Config,
    tensors: Vec<ForeignTensor>,
    source: &Path,
    aside: &mut LeftAside,
) -> Result<Vec<ForeignTensor>, ConvertError> {
    let schema = config.schema();
    let mut inventory = Inventory::of(schema, tensors.iter().map(|tensor| tensor.name.as_str()));
    let mut stored: HashMap<String, ForeignTensor> =
        tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    for buffer in &inventory.buffers {
        aside.put("a buffer of old exporters, no weight", buffer);
    }
    let mut report: Vec<String> = inventory.duplicates.iter().map(|line| format!("  duplicate: {line}")).collect();
    let decoder = Module::MlmDecoder.weight();
    let mut untied = false;
    for copy in &inventory.copies {
        let same = match (stored.get(&copy.stored), stored.get(&copy.original)) {
            (Some(a), Some(b)) => a.same(b)?,
            _ => false,
        };
        untied |= copy.role == decoder && !(same && config.tie_word_embeddings);
        match same {
            true => aside.put("a copy of the tensor that it is tied to", &copy.name),
            false if copy.role == decoder => {}
            false => aside.put("a bias in whose place another one is added", &copy.stored),
        }
    }
    if untied {
        inventory.untie(decoder);
        config.tie_word_embeddings = false;
    }
    if !inventory.models.is_empty() {
        report.push(format!("  tensors of several models; their names begin with {}", inventory.models.join(", ")));
    } else if inventory.tensors.is_empty() {
        report.push("  no tensor in it".to_owned());
    } else if !inventory.tensors.iter().any(|tensor| schema.is_of_encoder(&tensor.name)) {
        let some: Vec<&str> = inventory.tensors.iter().map(|tensor| tensor.name.as_str()).take(4).collect();
        report.push(format!("  no part of BERT among its tensors; they begin with {}", some.join(", ")));
    }
    if !report.is_empty() {
        return Err(ConvertError::Fit { path: source.to_owned(), report: report.join("\n") });
    }
    let renamed = inventory.tensors.into_iter().filter_map(|found| {
        let mut tensor = stored.remove(&found.stored)?;
        tensor.name = found.name;
        Some(tensor)
    });
    let mut renamed: Vec<ForeignTensor> = renamed.collect();
    // Where nothing is tied, Transformers reads the decoder's bias under its own name.
    let bias = schema.name(Module::MlmBias.bias());
    if untied && let Some(mut bias) = renamed.iter().find(|tensor| tensor.name == bias).cloned() {
        bias.name = schema.name(Module::MlmDecoder.bias());
        renamed.push(bias);
    }
    Ok(renamed)
}

/// What the tensors tell of a model.
#[derive(Debug)]
pub(crate) struct Found {
    heads: BTreeSet<Head>,
    /// Whether there are others than those of the encoder and of heads that [`cloze_model::Model`] has.
    other: bool,
}

impl Found {
    pub(crate) fn of(schema: &Schema, tensors: &[ForeignTensor]) -> Found {
        let known = |tensor: &ForeignTensor| schema.is_of_encoder(&tensor.name) || schema.head(&tensor.name).is_some();
        Found {
            heads: tensors.iter().filter_map(|tensor| schema.head(&tensor.name)).collect(),
            other: !tensors.iter().all(known),
        }
    }

    /// Whether [`cloze_model::Model`] has all of it.
    pub(crate) fn is_known(&self) -> bool {
        !self.other
    }

    /// Transformers' class, where the tensors tell: a classifier's do not tell what it classifies.
    fn class(&self) -> Option<Class> {
        let has = |head| self.heads.contains(&head);
        let mut heads = Heads::NONE;
        heads.pooler = has(Head::Pooler);
        heads.mlm = has(Head::Mlm);
        heads.nsp = has(Head::Nsp);
        match () {
            () if self.other || has(Head::Classifier) => None,
            () if has(Head::Span) => Some(Class::Answer),
            () => Some(heads.class(false)),
        }
    }
}

/// Completes a configuration whose writer did not say what lies beside it.
pub(crate) fn complete(config: &mut Config, found: &Found, tensors: &[ForeignTensor], is_tensorflow: bool) {
    if config.architectures.as_ref().is_none_or(Vec::is_empty) {
        let schema = config.schema();
        // run_classifier.py, the one writer of such a head in TensorFlow, classifies sequences.
        let classifier = (is_tensorflow && found.heads.contains(&Head::Classifier)).then_some(Class::Classify);
        config.architectures = found.class().or(classifier).map(|class| vec![schema.class_name(class).to_owned()]);
        let bias = schema.name(Module::Classifier.bias());
        let labels = tensors.iter().find(|tensor| tensor.name == bias).map_or(2, ForeignTensor::elements);
        // Two labels are Transformers' default. A name a label: no more of them than a file can list.
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

/// Transformers writes an encoder alone without the prefix before every name.
pub(crate) fn rename_for(config: &Config, found: &Found, tensors: &mut [ForeignTensor]) {
    let schema = config.schema();
    let alone = config.architectures.iter().flatten().all(|name| schema.class(name) == Some(Class::Encoder));
    if alone && found.class() == Some(Class::Encoder) {
        for tensor in tensors {
            tensor.name = schema.name_in(Class::Encoder, &tensor.name).to_owned();
        }
    }
}
