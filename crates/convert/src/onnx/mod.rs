//! Exports models as ONNX files, for onnxruntime and other runtimes.
//!
//! Inputs are `input_ids`, `attention_mask` and, for models with several segments, `token_type_ids`, int64
//! `[batch_size, sequence_length]` with dynamic sizes (multiple choice: `[batch_size, num_choices, sequence_length]`). Dropout is disabled. Outputs are floats with the names of
//! Transformers and Optimum (B sequences, S tokens, H hidden, V vocabulary, L labels, C choices):
//!
//! | class | outputs |
//! | --- | --- |
//! | [`Class::Encoder`] | `last_hidden_state` `[B, S, H]` and, if the model has a pooler, `pooler_output` `[B, H]` |
//! | [`Class::MaskedLm`] | `logits` `[B, S, V]` over the vocabulary for every token |
//! | [`Class::NextSentence`] | `logits` `[B, 2]`: class 0 is "is next" |
//! | [`Class::Pretraining`] | `prediction_logits` `[B, S, V]` and `seq_relationship_logits` (ALBERT: `sop_logits`) `[B, 2]` |
//! | [`Class::ReplacedTokens`] | `logits` `[B, S]`: above 0 for tokens that were replaced |
//! | [`Class::Classify`] | `logits` `[B, L]`: the classifier on the first token (causal models of Cloze: the last) |
//! | [`Class::Tag`] | `logits` `[B, S, L]`: the classifier on every token |
//! | [`Class::Answer`] | `start_logits` and `end_logits` `[B, S]` |
//! | [`Class::Choose`] | `logits` `[B, C]` of C choices, with inputs `[B, C, S]`: a classifier with one row on the first token |
//! | [`Class::CausalLm`] | `logits` `[B, S, V]` over the vocabulary for the token after each |
//!
//! An embedding model ([`write_embedding`]) has `last_hidden_state` and `token_embeddings` `[B, S, H]`, the same numbers under the
//! names that sentence-transformers' and Optimum's exports use, and `sentence_embedding` `[B, W]`, after pooling and modules. Values that nobody asks for
//! cost a copy.
//!
//! The head of a task can read other features, by a BiLSTM ([`TaskInput`](cloze_model::TaskInput)); padding must follow the tokens
//! then, and for causal models.
//!
//! Operator set 17 with IR version 8: the first set with LayerNormalization, supported since onnxruntime 1.12. Set 20 would
//! add Gelu, but requires onnxruntime 1.17, and runtimes fuse the operators of GELU anyway.
//!
//! | module | content |
//! | --- | --- |
//! | `bert` | the network as operators |
//! | [`embedding`] | pooling and modules of embedding models |
//! | `operators` | activations, products with weights, rows of tables |
//! | `quantize` | the same with weights of int8 |
//! | `graph` | nodes and initializers under construction |
//! | `proto` | the messages of `onnx.proto` |
//! | `file` | writes the file in a stream, and a second file above protobuf's limit of 2 GB |
//! | `error` | errors caused by input or environment |

mod bert;
pub mod embedding;
mod error;
mod file;
mod graph;
mod operators;
mod proto;
mod quantize;
#[cfg(test)]
mod tests;

use std::path::Path;

use cloze_model::{Class, Model};

use embedding::Embedding;
pub use error::OnnxError;
pub use file::OnnxReport;

/// Options of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxOptions {
    /// What the graph computes. It determines which head's tensors are needed.
    pub output: Class,
    /// Maximal size of one protobuf file in bytes. The weights of larger models are written to a second file next to it.
    pub largest_file: u64,
    /// How weights are stored and multiplied. None: f32.
    pub quantization: Option<Quantization>,
}

/// How weights are stored and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quantization {
    /// Dynamic: weights are bytes with one scale for each output, activations become bytes with one scale for each tensor when
    /// the graph runs. The tables of words and positions have a scale for each row. Biases, norms, attention, the BiLSTM of
    /// a task and output layers with fewer than 16 outputs stay f32.
    Int8,
}

impl Quantization {
    /// All values, with names and descriptions.
    pub const ALL: [(Quantization, &'static str, &'static str); 1] =
        [(Quantization::Int8, "int8", "Bytes; activations are quantized when the model runs")];
}

impl OnnxOptions {
    /// Protobuf's own limit, 2³¹ − 1 bytes.
    pub const LARGEST_FILE: u64 = i32::MAX as u64;

    /// This output, in one file if the size permits.
    pub fn new(output: Class) -> OnnxOptions {
        OnnxOptions { output, largest_file: OnnxOptions::LARGEST_FILE, quantization: None }
    }
}

/// Exports a model. The file gets its name when it is complete; an existing file is replaced.
///
/// If the file would exceed [`OnnxOptions::largest_file`], the weights are written to a second file, whose name is that of
/// the first followed by `_data`. The two files replace older ones one after the other, the weights first.
///
/// # Errors
/// [`OnnxError::Tensor`] for an output whose head the model does not have; [`OnnxError::Write`],
/// [`OnnxError::Path`] and [`OnnxError::TooLarge`]. Existing files are then unchanged, except that the second file may have
/// been replaced if the system fails between the two renames.
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
    let graph = bert::build(model, model.architecture(), options.output, None, options.quantization)?;
    file::write(&graph, path, options.largest_file)
}

/// Exports an embedding model: the encoder with the pooling and the modules after it. As [`write()`](write()), but of the options' outputs
/// only [`Class::Encoder`] is possible.
///
/// # Errors
/// Those of [`write()`](write()), and [`OnnxError::Embedding`] for another output, for a layer that the model does not have, and for modules that
/// do not fit each other. [`OnnxError::Tensor`] for [`Pool::Pooler`](embedding::Pool::Pooler) and a model without a pooler.
///
/// ```
/// use cloze_convert::onnx::embedding::{Embedding, Module, Pool};
/// use cloze_convert::onnx::{self, OnnxOptions};
/// use cloze_engine::Device;
/// use cloze_model::{Class, Config, Heads, Model};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let mut config = Config::preset("tiny")?;
/// config.vocab_size = 100;
/// let model = Model::new(config, Heads::NONE, &Device::cpu(Some(1))?, 7)?;
/// let last = model.architecture().layers;
/// let embedding = Embedding { pools: vec![Pool::Mean], layers: vec![last], modules: vec![Module::Normalize] };
/// let path = dir.path().join("model.onnx");
/// let report = onnx::write_embedding(&model, &embedding, &path, &OnnxOptions::new(Class::Encoder))?;
/// assert_eq!(report.outputs, ["last_hidden_state", "token_embeddings", "sentence_embedding"]);
/// # Ok(())
/// # }
/// ```
pub fn write_embedding(
    model: &Model,
    embedding: &Embedding<'_>,
    path: &Path,
    options: &OnnxOptions,
) -> Result<OnnxReport, OnnxError> {
    if options.output != Class::Encoder {
        let problem = format!("expected the output {:?}, found {:?}", Class::Encoder, options.output);
        return Err(OnnxError::Embedding { problem });
    }
    let graph = bert::build(model, model.architecture(), options.output, Some(embedding), options.quantization)?;
    file::write(&graph, path, options.largest_file)
}
