//! A model with its tokenizer and its device, ready to compute and to be shared.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cloze_engine::ops::LossSum;
use cloze_engine::{DType, Device, Pass};
use cloze_model::Model;
use cloze_text::Tokenizer;

use crate::TaskError;
use crate::example::Example;
use crate::forward::{check_fit, outputs_of};

/// A model that does not learn any more, with its tokenizer and the device that runs it. Open it once and share it by
/// [`Arc`](std::sync::Arc): fill-mask, embeddings and every task borrow the same weights, from as many threads as there are.
///
/// Forward passes of one `Pretrained` take turns, batch by batch: each uses all threads of the device, which is faster than several
/// passes that share them. Meanwhile other threads can encode text. No output depends on what else is computed.
pub struct Pretrained {
    /// The model. Its packed copies of the weights are made when it is opened.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where it runs.
    pub device: Device,
    /// The type of activations.
    pub precision: DType,
    dir: PathBuf,
    /// Held during a forward pass.
    turn: Mutex<()>,
}

// What a server needs.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Pretrained>();
};

impl Pretrained {
    /// Opens a model folder, whatever its heads.
    ///
    /// # Errors
    /// A folder that cannot be read, a tokenizer with more tokens than the model has embeddings.
    pub fn open(dir: &Path, device: Device, precision: DType) -> Result<Pretrained, TaskError> {
        let model = Model::load(dir, &device)?;
        Pretrained::new(model, Tokenizer::open(dir)?, device, precision, dir)
    }

    /// Opens a model folder for its encoder, and its pooler if it has one: hidden states need no other head, nor anything that does not
    /// fit of one. With a note for people where something is left aside that no head known here has.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_encoder(
        dir: &Path,
        device: Device,
        precision: DType,
    ) -> Result<(Pretrained, Option<String>), TaskError> {
        let (model, report) = Model::load_encoder(dir, &device)?;
        let pretrained = Pretrained::new(model, Tokenizer::open(dir)?, device, precision, dir)?;
        Ok((pretrained, report.unknown_note()))
    }

    /// As [`open`](Self::open), of a model at hand; `dir` is the folder that errors name.
    ///
    /// # Errors
    /// A tokenizer with more tokens than the model has embeddings.
    pub fn new(
        mut model: Model,
        tokenizer: Tokenizer,
        device: Device,
        precision: DType,
        dir: &Path,
    ) -> Result<Pretrained, TaskError> {
        model.check_tokenizer(dir, tokenizer.vocab_size(), tokenizer.template().segments(false))?;
        model.params.cache_packed_weights();
        Ok(Pretrained { model, tokenizer, device, precision, dir: dir.to_owned(), turn: Mutex::new(()) })
    }

    /// The model's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A forward pass, once it is its turn.
    pub fn forward<T>(&self, compute: impl FnOnce(&Model, &mut Pass<'_>) -> T) -> T {
        // A pass that panicked left nothing behind that another could see.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        compute(&self.model, &mut Pass::inference(&self.device, &self.model.params, self.precision))
    }

    /// The logits of every example, in order, and the summed loss of those with a target. `progress` receives the share that is done.
    /// Panics without examples of the model's head.
    pub(crate) fn logits(&self, examples: &[&Example], progress: &mut dyn FnMut(f64)) -> (Vec<Vec<f32>>, LossSum) {
        let Some(head) = self.model.heads.task else { return Default::default() };
        let mut progress = |share| {
            progress(share);
            ControlFlow::Continue(())
        };
        let outputs =
            outputs_of(head, examples, &mut progress, |batch| self.forward(|model, pass| batch.outputs(model, pass)));
        outputs.unwrap_or_default()
    }

    /// Checks that the model can read some examples.
    ///
    /// # Errors
    /// A sequence that is too long, a pair where the model knows single texts only.
    pub(crate) fn check<'a>(&self, examples: impl IntoIterator<Item = &'a Example>) -> Result<(), TaskError> {
        check_fit(&self.model, examples)
    }
}
