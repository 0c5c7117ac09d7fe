//! ONNX files from our models, for onnxruntime and whatever else reads them.
//!
//! Inputs are `input_ids`, `attention_mask` and `token_type_ids`, int64 `[batch_size, sequence_length]` with both sizes
//! free (multiple choice: `[batch_size, num_choices, sequence_length]`). Dropout is off. Outputs are floats under the names of
//! Transformers and Optimum (B sequences, S tokens, H hidden, V vocabulary, L labels, C choices):
//!
//! | class | outputs |
//! | --- | --- |
//! | [`Class::Encoder`] | `last_hidden_state` `[B, S, H]` and, where the model has a pooler, `pooler_output` `[B, H]` |
//! | [`Class::MaskedLm`] | `logits` `[B, S, V]` of the whole vocabulary at every token |
//! | [`Class::NextSentence`] | `logits` `[B, 2]`: class 0 is "is next" |
//! | [`Class::Pretraining`] | `prediction_logits` `[B, S, V]` and `seq_relationship_logits` `[B, 2]` |
//! | [`Class::Classify`] | `logits` `[B, L]`: the classifier on the pooler's output |
//! | [`Class::Tag`] | `logits` `[B, S, L]`: the classifier on every token, on as many last layers side by side as it is wide |
//! | [`Class::Answer`] | `start_logits` and `end_logits` `[B, S]` |
//! | [`Class::Choose`] | `logits` `[B, C]` of C choices, the inputs being `[B, C, S]`: a classifier of one row on the pooler's output |
//! | [`Class::CausalLm`] | none: causal models are not written |
//!
//! Operator set 17 with IR version 8: the first set with LayerNormalization, read since onnxruntime 1.12. Set 20 would add
//! Gelu, but needs onnxruntime 1.17, and GELU spelt out is fused all the same.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `bert` | the network as operators |
//! | `graph` | nodes and initializers under construction |
//! | `proto` | the messages of `onnx.proto` |
//! | `file` | the bytes: streamed, and a second file above protobuf's 2 GB |
//! | `error` | what the world can cause |

mod bert;
mod error;
mod file;
mod graph;
mod proto;
#[cfg(test)]
mod tests;

use std::path::Path;

use cloze_model::{Class, Model};

pub use error::OnnxError;
pub use file::OnnxReport;

/// How a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxOptions {
    /// What the graph computes, and so which head's tensors it needs.
    pub output: Class,
    /// The most bytes of one protobuf file. A model that needs more puts its weights into a second file beside it.
    pub largest_file: u64,
}

impl OnnxOptions {
    /// Protobuf's own limit, 2³¹ − 1 bytes.
    pub const LARGEST_FILE: u64 = i32::MAX as u64;

    /// This output, in one file if protobuf can hold it.
    pub fn new(output: Class) -> OnnxOptions {
        OnnxOptions { output, largest_file: OnnxOptions::LARGEST_FILE }
    }
}

/// Writes a model. The file appears under its name when it is whole; a file of that name is replaced.
///
/// A model whose file would exceed [`OnnxOptions::largest_file`] puts its weights into a second file, the first's name
/// followed by `_data`; the two replace older ones one after the other, the weights first.
///
/// # Errors
/// [`OnnxError::Tensor`] for an output whose head the model lacks; [`OnnxError::Causal`]; [`OnnxError::Write`],
/// [`OnnxError::Path`] and [`OnnxError::TooLarge`]. The file that was there before is then still whole; only if the system fails
/// between the two renamings does an older second file not survive.
///
/// ```
/// use cloze_convert::onnx::{self, OnnxOptions};
/// use cloze_engine::Device;
/// use cloze_model::{Config, Heads, Model};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let mut config = Config::preset("tiny")?;
/// config.vocab_size = 100;
/// let model = Model::new(config, Heads::MLM, &Device::cpu(Some(1))?, 7)?;
/// let report = onnx::write(&model, &dir.path().join("model.onnx"), &OnnxOptions::new(model.class()))?;
/// assert_eq!(report.outputs, ["logits"]);
/// # Ok(())
/// # }
/// ```
pub fn write(model: &Model, path: &Path, options: &OnnxOptions) -> Result<OnnxReport, OnnxError> {
    let graph = bert::build(model, model.architecture(), options.output)?;
    file::write(&graph, path, options.largest_file)
}
