//! What is trained: one network, or several together.

use std::path::Path;

use cloze_engine::{Device, Parameters};
use cloze_model::Model;

use crate::TrainError;

/// A network, or several that are trained together and may share parameters. All parameters lie in one arena, so that the optimizer,
/// the gradient's norm and a checkpoint's moments see them as one.
pub trait Network: Sized {
    /// Its parameters.
    fn params(&self) -> &Parameters;

    /// Its parameters for the optimizer.
    fn params_mut(&mut self) -> &mut Parameters;

    /// Tokens of a sequence at most.
    fn positions(&self) -> usize;

    /// Reads it from a folder that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A folder that cannot be read.
    fn load(dir: &Path, device: &Device) -> Result<Self, TrainError>;

    /// Writes it into an existing folder: its files, not the tokenizer's.
    ///
    /// # Errors
    /// The system's, with the path.
    fn save(&self, dir: &Path) -> Result<(), TrainError>;
}

impl Network for Model {
    fn params(&self) -> &Parameters {
        &self.params
    }

    fn params_mut(&mut self) -> &mut Parameters {
        &mut self.params
    }

    fn positions(&self) -> usize {
        self.architecture().max_sequence_length()
    }

    fn load(dir: &Path, device: &Device) -> Result<Model, TrainError> {
        Ok(Model::load(dir, device)?)
    }

    fn save(&self, dir: &Path) -> Result<(), TrainError> {
        Ok(Model::save(self, dir)?)
    }
}
