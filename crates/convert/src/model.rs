//! From whatever names a checkpoint has to Transformers' own, and the configuration that goes with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cloze_model::Config;
use cloze_model::checkpoint::canonical_name;
use safetensors::Dtype;
use serde_json::Value;

use crate::ConvertError;
use crate::aside::LeftAside;
use crate::tensors::ForeignTensor;

const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";
const DECODER_BIAS: &str = "cls.predictions.decoder.bias";
const MLM_BIAS: &str = "cls.predictions.bias";

/// What programs put before every name: DistributedDataParallel, torch.compile, Lightning.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// Gives every tensor its name in `BertForPreTraining` (other heads keep theirs) and leaves aside what holds no weights of
/// its own: buffers of old exporters, the decoder's copies of tied tensors.
///
/// # Errors
/// [`ConvertError::Fit`] for two tensors of one name, and for a decoder that is not tied.
pub(crate) fn canonicalise(
    mut tensors: Vec<ForeignTensor>,
    source: &Path,
    aside: &mut LeftAside,
) -> Result<Vec<ForeignTensor>, ConvertError> {
    while let Some(wrapper) =
        WRAPPERS.iter().find(|wrapper| !tensors.is_empty() && tensors.iter().all(|t| t.name.starts_with(**wrapper)))
    {
        for tensor in &mut tensors {
            tensor.name.drain(..wrapper.len());
        }
    }
    let mut report = Vec::new();
    let mut named: BTreeMap<String, ForeignTensor> = BTreeMap::new();
    for tensor in tensors {
        if tensor.name.ends_with("embeddings.position_ids") || tensor.name.ends_with("embeddings.token_type_ids") {
            aside.put("a buffer of old exporters, no weight", &tensor.name);
            continue;
        }
        let (name, from) = (canonical_name(&tensor.name), tensor.name.clone());
        if let Some(other) = named.insert(name, tensor) {
            report.push(format!("  twice: {from} and {} are the same tensor", other.name));
        }
    }
    for (copy, original) in [(DECODER, WORDS), (DECODER_BIAS, MLM_BIAS)] {
        match (named.get(copy), named.get(original)) {
            (Some(a), Some(b)) if a.same(b)? => {
                aside.put("a copy of the tensor that it is tied to", copy);
                named.remove(copy);
            }
            (Some(_), Some(_)) => {
                report.push(format!("  untied: {copy} differs from {original}; only a tied decoder can be built"));
            }
            // Some exporters write the decoder's bias under its other name alone.
            (Some(_), None) => {
                if let Some(tensor) = named.remove(copy) {
                    named.insert(original.to_owned(), tensor);
                }
            }
            _ => {}
        }
    }
    if named.is_empty() {
        report.push("  no tensor in it".to_owned());
    } else if !named.keys().any(|name| name.starts_with("bert.")) {
        let some: Vec<&str> = named.keys().map(String::as_str).take(4).collect();
        report.push(format!("  no part of BERT among its tensors; they begin with {}", some.join(", ")));
    }
    if !report.is_empty() {
        return Err(ConvertError::Fit { path: source.to_owned(), report: report.join("\n") });
    }
    let rename = |(name, mut tensor): (String, ForeignTensor)| {
        tensor.name = name;
        tensor
    };
    Ok(named.into_iter().map(rename).collect())
}

/// Which heads stand on the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    mlm: bool,
    nsp: bool,
    answers: bool,
    /// A classifier of sequences, of tokens, or of choices, which its tensors do not tell.
    classifies: bool,
    /// Whatever else.
    other: bool,
}

impl Heads {
    pub(crate) fn of(tensors: &[ForeignTensor]) -> Heads {
        let of = |prefix: &str| tensors.iter().filter(|tensor| tensor.name.starts_with(prefix)).count();
        let [encoder, mlm, nsp, answers, classifies] =
            ["bert.", "cls.predictions.", "cls.seq_relationship.", "qa_outputs.", "classifier."].map(of);
        Heads {
            mlm: mlm > 0,
            nsp: nsp > 0,
            answers: answers > 0,
            classifies: classifies > 0,
            other: encoder + mlm + nsp + answers + classifies < tensors.len(),
        }
    }

    /// Whether [`cloze_model::Model`] has them all.
    pub(crate) fn are_known(self) -> bool {
        !self.other
    }

    /// Transformers' class, where the tensors tell.
    fn architecture(self) -> Option<&'static str> {
        match self {
            Heads { other: true, .. } | Heads { classifies: true, .. } => None,
            Heads { answers: true, .. } => Some("BertForQuestionAnswering"),
            Heads { mlm: true, nsp: true, .. } => Some("BertForPreTraining"),
            Heads { mlm: true, .. } => Some("BertForMaskedLM"),
            Heads { nsp: true, .. } => Some("BertForNextSentencePrediction"),
            _ => Some("BertModel"),
        }
    }
}

/// Completes a configuration whose writer did not say what lies beside it.
pub(crate) fn complete(config: &mut Config, heads: Heads, tensors: &[ForeignTensor], is_tensorflow: bool) {
    if config.architectures.as_ref().is_none_or(Vec::is_empty) {
        // run_classifier.py, the one writer of such a head in TensorFlow, classifies sequences.
        let classifier = (is_tensorflow && heads.classifies).then_some("BertForSequenceClassification");
        config.architectures = heads.architecture().or(classifier).map(|name| vec![name.to_owned()]);
        let labels = tensors.iter().find(|tensor| tensor.name == "classifier.bias").map_or(2, ForeignTensor::elements);
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

/// Transformers writes an encoder alone without the `bert.` before every name.
pub(crate) fn rename_for(config: &Config, heads: Heads, tensors: &mut [ForeignTensor]) {
    let alone = config.architectures.iter().flatten().all(|name| name == "BertModel");
    if alone && heads.architecture() == Some("BertModel") {
        for tensor in tensors {
            if let Some(rest) = tensor.name.strip_prefix("bert.") {
                tensor.name = rest.to_owned();
            }
        }
    }
}
