//! BERT (Devlin et al. 2019): a packed batch in, losses, hidden states and logits out.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`config`] | the file format: Hugging Face's `config.json`, the papers' sizes as presets, what makes a config impossible |
//! | [`architecture`] | what the network needs to know of a configuration |
//! | [`role`] | what each parameter is for |
//! | [`schema`] | a table a model family: roles ↔ names in checkpoints; the tensors of a file by what they are |
//! | `bert` | the network: embeddings, encoder, pooler, heads; every parameter declared once, by its role; reads like the paper |
//! | [`heads`] | what is on the encoder: pre-training's heads, tasks' heads; the class that they make |
//! | [`inputs`] | [`Inputs`]: the packed batch; pre-training's labels beside it |
//! | [`losses`] | named sums of losses |
//! | [`model`] | [`Model`]: configuration, heads and parameters, with losses and outputs |
//! | [`layout`] | where a folder has the model and its modules: Transformers' layout, sentence-transformers' |
//! | [`checkpoint`] | Hugging Face folders, read and written |
//! | [`resize_vocab`] | a model with another vocabulary |
//! | `rates` | how fast each parameter learns |
//! | `output_rows` | the tokens at which heads read the last layer |
//! | `weights` | memory-mapped safetensors and their shards |
//! | [`flops`] | useful work of a batch |
//! | [`error`] | what the world can cause |
//!
//! The crate knows BERT and Hugging Face's layout, nothing of text or of optimizers. Batches are packed ([`Inputs`]):
//! T tokens of S sequences end to end, no padding and no attention mask.
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
mod bert;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod flops;
pub mod heads;
pub mod inputs;
pub mod layout;
pub mod losses;
pub mod model;
mod output_rows;
mod rates;
pub mod resize_vocab;
pub mod role;
pub mod schema;
#[cfg(test)]
mod testing;
mod weights;

pub use architecture::Architecture;
pub use checkpoint::{LoadReport, read_tensors};
pub use config::{Config, HiddenAct};
pub use error::ModelError;
pub use flops::{FlopsOf, useful_flops};
pub use heads::{Class, Heads, TaskHead};
pub use inputs::{Inputs, PretrainLabels};
pub use layout::{Layout, ModuleEntry};
pub use losses::{LossScale, Losses};
pub use model::Model;
pub use resize_vocab::NewRow;
pub use role::{Head, Module, Role};
pub use schema::{Inventory, Schema};
pub use weights::{StoredTensor, stored_tensors, verify_weights};
