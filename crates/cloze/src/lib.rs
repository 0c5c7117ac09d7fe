//! Cloze: BERT end to end in Rust. This crate is the library in one piece, and the `cloze` binary.
//!
//! A model is a folder in the layout of Transformers or sentence-transformers. [`Pretrained`] opens it; any number of threads may use it at the
//! same time.
//!
//! # Fill masks
//!
//! The likeliest tokens for each `[MASK]` of a text, by a model with a masked-language-model head:
//!
//! ```
//! use std::sync::Arc;
//!
//! use cloze::{DType, Device, Filler, Pretrained};
//!
//! # use cloze::{model::{Config, Heads, Model}, text::{SPECIAL_TOKENS, Tokenizer}};
//! # let temporary = tempfile::tempdir()?;
//! # let folder = temporary.path();
//! # let words = SPECIAL_TOKENS.iter().chain(&["the", "capital", "of", "france", "is", "paris", "."]);
//! # let tokenizer = Tokenizer::from_tokens(words.map(|word| word.to_string()).collect(), false)?;
//! # let mut config = Config::preset("tiny")?;
//! # config.vocab_size = tokenizer.vocab_size();
//! # Model::new(config, Heads::MLM, &Device::cpu(Some(1))?, 1)?.save(folder)?;
//! # tokenizer.save(folder)?;
//! let model = Pretrained::open(folder, Device::cpu(None)?, DType::F32)?;
//! let filler = Filler::new(Arc::new(model))?;
//! let candidates = &filler.fill("The capital of France is [MASK].", 3)?[0];
//! for candidate in candidates {
//!     println!("{:.3} {}", candidate.probability, candidate.token);
//! }
//! # assert_eq!(candidates.len(), 3);
//! # assert!(candidates[0].probability >= candidates[1].probability);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Embed texts
//!
//! A vector for each text, pooled, prompted and normalised as the folder says; without such settings it is the mean of the last layer.
//!
//! ```
//! use cloze::tasks::embed::{Options, prompts::Purpose};
//! use cloze::{DType, Device, Embedder};
//!
//! # use cloze::{model::{Config, Heads, Model}, text::{SPECIAL_TOKENS, Tokenizer}};
//! # let temporary = tempfile::tempdir()?;
//! # let folder = temporary.path();
//! # let words = SPECIAL_TOKENS.iter().chain(&["a", "red", "fox", "an", "old", "owl"]);
//! # let tokenizer = Tokenizer::from_tokens(words.map(|word| word.to_string()).collect(), false)?;
//! # let mut config = Config::preset("tiny")?;
//! # config.vocab_size = tokenizer.vocab_size();
//! # Model::new(config, Heads::ENCODER, &Device::cpu(Some(1))?, 1)?.save(folder)?;
//! # tokenizer.save(folder)?;
//! let embedder = Embedder::open(folder, Device::cpu(None)?, DType::F32, &Options::default())?;
//! let vectors = embedder.embed(&["a red fox", "an old owl"], Purpose::Text, &mut |_done| ())?.vectors;
//! for vector in vectors.rows() {
//!     println!("{} numbers: {:.3} …", vector.len(), vector[0]);
//! }
//! # assert_eq!((vectors.len(), vectors.width()), (2, 128));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Predict
//!
//! What a fine-tuned model says of a row: a label, the tags of its words, an answer, a choice or a number. Rows and predictions are JSON, as in
//! the files of `cloze predict`.
//!
//! ```
//! use cloze::{DType, Device, Predictor};
//! use serde_json::json;
//!
//! # use cloze::{model::{Config, Heads, Model, TaskHead}, text::{SPECIAL_TOKENS, Tokenizer}};
//! # let temporary = tempfile::tempdir()?;
//! # let folder = temporary.path();
//! # let words = SPECIAL_TOKENS.iter().chain(&["a", "fine", "film", "dull"]);
//! # let tokenizer = Tokenizer::from_tokens(words.map(|word| word.to_string()).collect(), false)?;
//! # let mut config = Config::preset("tiny")?;
//! # config.vocab_size = tokenizer.vocab_size();
//! # config.set_labels(&["bad".to_owned(), "good".to_owned()]);
//! # let heads = Heads::of(TaskHead::Classify { labels: 2 });
//! # Model::new(config, heads, &Device::cpu(Some(1))?, 1)?.save(folder)?;
//! # tokenizer.save(folder)?;
//! let predictor = Predictor::open(folder, Device::cpu(None)?, DType::F32)?;
//! for prediction in predictor.predict(&[json!("a fine film"), json!({"text": "a dull film"})]) {
//!     println!("{}", prediction?); // {"label": "good", "probabilities": {"bad": 0.02, "good": 0.98}}
//! }
//! # assert!(["bad", "good"].map(Some).contains(&predictor.predict(&[json!("a")])[0].as_ref().unwrap()["label"].as_str()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Everything else
//!
//! `examples/pretrain_tiny.rs` pre-trains a small BERT step by step: the place to start reading the code. The modules, in the order in
//! which data flows:
//!
//! | module | in → out |
//! | --- | --- |
//! | [`text`] | text → ids: vocabularies and tokenizers |
//! | [`data`] | ids → batches: corpora, shards, masks |
//! | [`engine`] | arrays → gradients: tensors, operations, optimizers |
//! | [`model`] | batches → losses and logits: BERT |
//! | [`train`] | losses → weights: recipes, the training loop, checkpoints |
//! | [`tasks`] | weights → predictions and scores: fine-tuning, inference, metrics |
//! | [`comm`] | several processes and machines: MPI |
//! | [`convert`] | other programs' formats → a model's folder, and ONNX |
//! | [`hub`] | a name on the Hugging Face Hub → a model's folder |
//!
//! # Versions
//!
//! Options, settings, reports, events and errors may get more fields and variants in a later version, and are `#[non_exhaustive]`: make them with
//! `default()`, `new()` or `preset()` and set the fields that matter.
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `cli` (default) | the `cloze` binary; the library does not need it |
//! | `hub` (default) | downloads from the Hugging Face Hub; without it [`hub`] only reads the local cache |
#![forbid(unsafe_code)]

mod onnx_embedding;

pub use cloze_comm as comm;
pub use cloze_convert as convert;
pub use cloze_data as data;
pub use cloze_engine as engine;
pub use cloze_hub as hub;
pub use cloze_model as model;
pub use cloze_tasks as tasks;
pub use cloze_text as text;
pub use cloze_train as train;

pub use cloze_engine::{DType, Device};
pub use cloze_tasks::embed::Embedder;
pub use cloze_tasks::{Filler, Predictor, Pretrained};
pub use onnx_embedding::onnx_embedding;
