//! BERT (Devlin et al. 2019) and its family: from packed batches to losses, hidden states and logits.
//!
//! | module | contents |
//! | --- | --- |
//! | [`config`] | the file format: Hugging Face's `config.json`, presets with the papers' sizes, validation |
//! | [`architecture`] | sizes and settings of the network |
//! | [`family`] | one table per model family: RoBERTa, DistilBERT, ALBERT, ELECTRA, … |
//! | [`role`] | the roles of parameters |
//! | [`schema`] | roles ↔ names in checkpoints; the tensors of a file by role |
//! | `bert` | the network: embeddings, encoder, pooler, heads; every parameter is declared once, by its role |
//! | [`task_input`] | what the head of a task reads: features, BiLSTM, token |
//! | [`heads`] | the heads for pre-training and tasks; the class of model that they make |
//! | [`inputs`] | [`Inputs`]: the packed batch; labels for pre-training |
//! | [`losses`] | named sums of losses |
//! | [`graph`] | [`ModelGraph`]: a model without the values of its parameters, with losses and outputs |
//! | [`model`] | [`Model`]: a graph with the values of its parameters |
//! | [`rtd_pair`] | [`RtdPair`]: ELECTRA's generator and discriminator, which share embeddings |
//! | [`attention`] | the attention probabilities of heads |
//! | [`distillation`] | [`Distillation`]: the losses of a student that learns from a teacher |
//! | [`denoising`] | [`SentenceDecoder`]: predicts a text from the vector of a damaged copy |
//! | [`layout`] | the layouts of Transformers' and sentence-transformers' folders |
//! | [`checkpoint`] | reads and writes Hugging Face folders |
//! | [`resize_vocab`] | replaces the vocabulary of a model |
//! | [`extend_positions`] | extends a model's table of positions |
//! | `rates` | the learning rates of parameters |
//! | `output_rows` | the tokens for which the last layer's output is needed |
//! | `weights` | memory-mapped safetensors and their shards |
//! | [`flops`] | useful FLOPs of a batch |
//! | [`error`] | errors caused by input |
//!
//! The crate knows BERT's family and Hugging Face's layout, but no text and no optimizers. Batches are packed ([`Inputs`]): T
//! tokens of S sequences end to end, without padding and without an attention mask.
//!
//! ```
//! use cloze_engine::{DType, Device, Gradients, Pass};
//! use cloze_model::{Config, Heads, Inputs, LossScale, Model, PretrainLabels};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::cpu(Some(1))?;
//! let mut config = Config::preset("tiny")?;
//! config.vocab_size = 100;
//! let model = Model::new(config, Heads::PRETRAINING, &device, 7)?;
//! let mut inputs = Inputs::default();
//! inputs.push(&[2, 17, 4, 3, 23, 3], &[0, 0, 0, 0, 1, 1]); // [CLS] a [MASK] [SEP] b [SEP]
//! let labels = PretrainLabels { mlm_rows: vec![2], mlm_labels: vec![42], nsp_labels: vec![0] };
//! model.check(&inputs, &labels)?;
//! let mut gradients = Gradients::zeros_like(&model.params);
//! let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
//! let losses = model.loss(&mut pass, &inputs, &labels, LossScale::mean(&labels));
//! pass.backward();
//! assert!(losses.iter().map(|(name, loss)| (name, loss.count)).eq([("mlm", 1), ("nsp", 1)]));
//! assert!(gradients.read_all().iter().any(|&gradient| gradient != 0.0));
//! # Ok(())
//! # }
//! ```

pub mod architecture;
pub mod attention;
mod bert;
pub mod checkpoint;
pub mod config;
pub mod denoising;
pub mod distillation;
pub mod error;
pub mod extend_positions;
pub mod family;
pub mod flops;
pub mod graph;
pub mod heads;
pub mod inputs;
pub mod layout;
pub mod losses;
pub mod model;
mod output_rows;
mod rates;
pub mod resize_vocab;
pub mod role;
pub mod rtd_pair;
pub mod schema;
pub mod task_input;
#[cfg(test)]
mod testing;
mod weights;

pub use architecture::{Architecture, SharedParts};
pub use attention::AttentionScores;
pub use checkpoint::{LoadReport, read_tensors, write_tensors};
pub use config::{Config, HiddenAct};
pub use denoising::SentenceDecoder;
pub use distillation::{Distillation, Relations};
pub use error::ModelError;
pub use extend_positions::PositionFill;
pub use family::{FAMILIES, Family};
pub use flops::{FlopsOf, useful_flops};
pub use graph::ModelGraph;
pub use heads::{Class, Heads, TaskHead};
pub use inputs::{Inputs, PretrainLabels};
pub use layout::{Layout, ModuleEntry};
pub use losses::{LossScale, Losses};
pub use model::Model;
pub use resize_vocab::NewRow;
pub use role::{Head, Module, Role};
pub use rtd_pair::RtdPair;
pub use schema::{Inventory, Schema};
pub use task_input::{BiLstmSize, Features, SequenceToken, TaskInput};
pub use weights::{StoredTensor, stored_tensors, verify_weights};
