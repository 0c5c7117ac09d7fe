//! The trained network: one, or several that are trained together.

use std::path::Path;

use cloze_engine::{Device, Parameters};
use cloze_model::rtd_pair::{DISCRIMINATOR, GENERATOR};
use cloze_model::{Model, RtdPair};

use crate::TrainError;

/// A network, or several that are trained together and may share parameters. All parameters are in one arena, so that
/// the optimizer, the gradient norm and a checkpoint's moments treat them as one network.
pub trait Network: Sized {
    /// The parameters.
    fn params(&self) -> &Parameters;

    /// The parameters, for the optimizer.
    fn params_mut(&mut self) -> &mut Parameters;

    /// The model folders in a folder that [`save`](Self::save) wrote: the folder itself, or folders in it.
    const MODELS: &'static [&'static str] = &[""];

    /// Maximum number of tokens of a sequence.
    fn positions(&self) -> usize;

    /// Reads the network from a folder that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A folder that cannot be read.
    fn load(dir: &Path, device: &Device) -> Result<Self, TrainError>;

    /// Writes the network to an existing folder, without the tokenizer.
    ///
    /// # Errors
    /// The system's error with the path.
    fn save(&self, dir: &Path) -> Result<(), TrainError>;

    /// Writes what is used after the training to an existing folder, without the tokenizer. Parts that only training needs may be
    /// left out.
    ///
    /// # Errors
    /// The system's error with the path.
    fn save_final(&self, dir: &Path) -> Result<(), TrainError> {
        self.save(dir)
    }
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

impl Network for RtdPair {
    const MODELS: &'static [&'static str] = &[GENERATOR, DISCRIMINATOR];

    fn params(&self) -> &Parameters {
        &self.params
    }

    fn params_mut(&mut self) -> &mut Parameters {
        &mut self.params
    }

    fn positions(&self) -> usize {
        self.discriminator.architecture().max_sequence_length()
    }

    fn load(dir: &Path, device: &Device) -> Result<RtdPair, TrainError> {
        Ok(RtdPair::load(dir, device)?)
    }

    fn save(&self, dir: &Path) -> Result<(), TrainError> {
        Ok(RtdPair::save(self, dir)?)
    }
}
