//! A model with its tokenizer and its device, for inference; it can be shared between threads.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cloze_engine::ops::LossSum;
use cloze_engine::{DType, Device, Pass};
use cloze_model::Model;
use cloze_text::Tokenizer;

use crate::TaskError;
use crate::example::Example;
use crate::forward::{check_fit, run_batches};
use crate::inference::precision::Precision;
use crate::long::{LongRows, TextWindows};

/// A model for inference, with its tokenizer and its device. Open it once and share it with an [`Arc`](std::sync::Arc):
/// fill-mask, embeddings and all tasks use the same weights, from any number of threads.
///
/// Forward passes of one `Pretrained` run one at a time: each uses all threads of the device, which is faster than
/// several concurrent passes. Other threads can tokenize text in the meantime. Outputs do not depend on concurrent
/// passes.
pub struct Pretrained {
    /// The model. Packed copies of its weights are made when they are first used.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The device.
    pub device: Device,
    precision: Precision,
    /// The type of the activations.
    activations: DType,
    dir: PathBuf,
    /// Held during a forward pass.
    turn: Mutex<()>,
    /// The rows that were predicted.
    long_rows: Mutex<LongRows>,
}

// A server shares it between threads.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Pretrained>();
};

impl Pretrained {
    /// Opens a model folder with any heads.
    ///
    /// # Errors
    /// A folder that cannot be read, a tokenizer with more tokens than the model has embeddings.
    pub fn open(dir: &Path, device: Device, precision: impl Into<Precision>) -> Result<Pretrained, TaskError> {
        let model = Model::load(dir, &device)?;
        Pretrained::new(model, Tokenizer::open(dir)?, device, precision, dir)
    }

    /// Opens only the encoder of a model folder, and its pooler if it has one. Other heads are ignored, even if they
    /// are not valid. Returns a note for the user if the folder has tensors that do not belong to any known head.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_encoder(
        dir: &Path,
        device: Device,
        precision: impl Into<Precision>,
    ) -> Result<(Pretrained, Option<String>), TaskError> {
        let (model, report) = Model::load_encoder(dir, &device)?;
        let pretrained = Pretrained::new(model, Tokenizer::open(dir)?, device, precision, dir)?;
        Ok((pretrained, report.unknown_note()))
    }

    /// As [`open`](Self::open), for a model in memory. `dir` is the folder for error messages.
    ///
    /// # Errors
    /// A tokenizer with more tokens than the model has embeddings; int8 on a GPU.
    pub fn new(
        mut model: Model,
        tokenizer: Tokenizer,
        device: Device,
        precision: impl Into<Precision>,
        dir: &Path,
    ) -> Result<Pretrained, TaskError> {
        model.check_tokenizer(dir, tokenizer.vocab_size(), tokenizer.template().segments(false))?;
        let precision = precision.into().resolved(&device);
        match precision {
            Precision::Int8 if !device.multiplies_int8() => {
                let problem = format!("int8 is supported on CPUs only; use bf16 or f32 on {}", device.describe());
                return Err(TaskError::setting("precision", problem));
            }
            Precision::Int8 => model.quantize(),
            _ => model.params.cache_packed_weights(),
        }
        Ok(Pretrained {
            activations: precision.activations(&device),
            model,
            tokenizer,
            device,
            precision,
            dir: dir.to_owned(),
            turn: Mutex::new(()),
            long_rows: Mutex::default(),
        })
    }

    /// The precision; it is not [`Precision::Auto`].
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The model's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The rows of tasks that were predicted so far, and how many of them were longer than the maximum length.
    pub fn long_rows(&self) -> LongRows {
        *self.long_rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a row that is predicted.
    pub(crate) fn count_row(&self, is_cut: bool, windows: Option<&TextWindows>) {
        self.long_rows.lock().unwrap_or_else(PoisonError::into_inner).add(is_cut, windows);
    }

    /// Runs a forward pass, after waiting for other passes to finish.
    pub fn forward<T>(&self, compute: impl FnOnce(&Model, &mut Pass<'_>) -> T) -> T {
        // A pass that panicked leaves no state that could affect another pass.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        compute(&self.model, &mut Pass::inference(&self.device, &self.model.params, self.activations))
    }

    /// The logits of every example, in order, and the summed loss of the examples with a target. `progress` receives
    /// the completed fraction. Panics if the examples do not match the model's head.
    pub(crate) fn logits(&self, examples: &[&Example], progress: &mut dyn FnMut(f64)) -> (Vec<Vec<f32>>, LossSum) {
        let Some(head) = self.model.heads.task else { return Default::default() };
        let mut progress = |share| {
            progress(share);
            ControlFlow::Continue(())
        };
        let outputs = run_batches(head, examples, &mut progress, |batch| {
            self.forward(|model, pass| batch.logits_and_loss(model, pass))
        });
        outputs.unwrap_or_default()
    }

    /// Checks that examples fit the model.
    ///
    /// # Errors
    /// A sequence that is too long; a pair if the model has only one segment type.
    pub(crate) fn check<'a>(&self, examples: impl IntoIterator<Item = &'a Example>) -> Result<(), TaskError> {
        check_fit(&self.model, examples)
    }
}
