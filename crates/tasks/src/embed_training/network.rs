//! The trained network: an encoder, a pooling, and modules after it, with their parameters in one arena.

use std::fs;
use std::path::Path;

use cloze_data::Purpose;
use cloze_engine::ops::{Activation as EngineActivation, LossSum};
use cloze_engine::{Device, ParamId, Parameters, Pass, Tensor, Var, ops};
use cloze_model::{Heads, Inputs, Layout, LoadReport, Model, ModelError, SentenceDecoder};
use cloze_train::TrainError;
use cloze_train::network::Network;

use super::folder::{self, FolderFiles, Written};
use super::mined::MinedNegatives;
use crate::TaskError;
use crate::embed::Embedder;
use crate::embed::modules::{Activation, Dense, Module, Residual};
use crate::embed::pooling::{Pool, Pooling, pooled_states};

/// The stream of random numbers of a new layer.
const DENSE: Purpose = Purpose::Other(11);
/// The folder of the decoder's cross-attentions in a checkpoint.
const DECODER: &str = "decoder";
/// The largest learned scale, as in CLIP (Radford et al. 2021, section 2.5).
const MAX_SCALE: f32 = 100.0;

/// A model that embeds texts, in training.
pub struct EmbeddingNetwork {
    model: Model,
    pooling: Pooling,
    modules: Vec<Trained>,
    /// The logarithm of the similarities' factor, if it is learned.
    log_scale: Option<ParamId>,
    /// For denoising.
    decoder: Option<SentenceDecoder>,
    /// The negatives that were mined last.
    pub(super) mined: MinedNegatives,
    files: FolderFiles,
}

/// What is new in a network, in addition to the weights of the folder that it starts from.
#[derive(Clone, Copy)]
pub(super) struct NewParts {
    /// The width of a new layer after the pooling (tanh, as in sentence-transformers).
    pub(super) dense: Option<usize>,
    /// The initial factor of the similarities, if it is learned.
    pub(super) scale: Option<f64>,
    /// Whether there is a decoder.
    pub(super) decodes: bool,
    /// Initialises layer and decoder.
    pub(super) seed: u64,
}

/// A module whose parameters are in the arena.
#[derive(Clone, Debug)]
enum Trained {
    Dense { weight: ParamId, bias: Option<ParamId>, activation: Activation },
    Normalize,
}

impl EmbeddingNetwork {
    /// The network of an embedder: its folder's weights, its pooling and modules, and new parts.
    ///
    /// # Errors
    /// Modules that cannot be trained; hidden states other than the last; a model that cannot have a decoder.
    pub(super) fn new(
        embedder: &Embedder,
        files: FolderFiles,
        new: NewParts,
    ) -> Result<(EmbeddingNetwork, LoadReport), TaskError> {
        let NewParts { dense, scale, decodes, seed } = new;
        let (mut model, report) = load(embedder.model.dir(), &embedder.model.device, decodes, seed)?;
        let pooling = embedder.pooling.clone();
        let last = model.architecture().layers;
        if pooling.layers != [last] {
            let problem =
                format!("expected the last layer, {last}: sentence-transformers' folders have no other states");
            return Err(TaskError::setting("layers", problem));
        }
        if !folder::can_store(&pooling.pools) {
            let problem = format!(
                "a sentence-transformers folder cannot store the pooling {pooling}; expected one mode other than the pooler, or several in \
                 the order cls, max, mean, mean-sqrt-len, weighted-mean, last-token"
            );
            return Err(TaskError::setting("pool", problem));
        }
        let mut modules = embedder.modules.clone();
        if let Some(outputs) = dense {
            if modules.iter().any(|module| matches!(module, Module::Dense(_))) {
                return Err(TaskError::setting("dense", "the folder has a dense layer already; omit it"));
            }
            modules.insert(0, Module::Dense(new_dense(pooling.width(model.architecture().hidden_size), outputs, seed)));
        }
        freeze_unused(&mut model, &pooling, decodes);
        let modules = declare(&mut model.params, &modules)
            .map_err(|problem| TaskError::Folder { path: embedder.model.dir().to_owned(), problem })?;
        let log_scale =
            scale.map(|scale| model.params.extend(&[(folder::LOG_SCALE, &[1, 1], &[scale.ln() as f32])])[0]);
        let decoder = if decodes { Some(SentenceDecoder::new(&mut model, seed)?) } else { None };
        let mined = MinedNegatives::default();
        let network = EmbeddingNetwork { model, pooling, modules, log_scale, decoder, mined, files };
        let (width, hidden) = (network.width(), network.model.architecture().hidden_size);
        if decodes && width != hidden {
            let problem =
                format!("expected vectors of {hidden} dimensions, the width of the decoder's layers, found {width}");
            return Err(TaskError::setting("loss", problem));
        }
        Ok((network, report))
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The number of dimensions of a vector.
    pub fn width(&self) -> usize {
        let pooled = self.pooling.width(self.model.architecture().hidden_size);
        self.modules.iter().fold(pooled, |width, module| match module {
            Trained::Dense { weight, .. } => self.model.params.shape(*weight)[0],
            Trained::Normalize => width,
        })
    }

    /// The vectors of a batch, `[S, W]` of f32. The first `excluded` tokens of each sequence are not pooled.
    pub(super) fn embed(&self, pass: &mut Pass<'_>, inputs: &Inputs, excluded: usize) -> Var {
        let mut x = pooled_states(&self.model, pass, &self.pooling, inputs, excluded);
        for module in &self.modules {
            x = match module {
                Trained::Dense { weight, bias, activation } => {
                    ops::linear(pass, &x, *weight, *bias, in_engine(*activation).unwrap_or(EngineActivation::None))
                }
                Trained::Normalize => ops::normalize(pass, &x),
            };
        }
        x
    }

    /// The sum of the decoder's losses on texts, from their damaged copies, and its gradient times `scale`, recorded in the
    /// pass. None without a decoder.
    pub(super) fn denoise(
        &self,
        pass: &mut Pass<'_>,
        damaged: &Inputs,
        excluded: usize,
        texts: &Inputs,
        scale: f32,
    ) -> Option<LossSum> {
        let decoder = self.decoder.as_ref()?;
        let vectors = self.embed(pass, damaged, excluded);
        Some(decoder.loss(&self.model, pass, texts, &vectors, scale))
    }

    /// The learned factor of the similarities.
    pub(super) fn scale(&self) -> Option<f64> {
        let id = self.log_scale?;
        Some(f64::from(self.model.params.read(id)[0].exp().min(MAX_SCALE)))
    }

    /// Records the derivative of the loss by the logarithm of the learned factor.
    pub(super) fn seed_log_scale(&self, pass: &mut Pass<'_>, derivative: f64) {
        let Some(id) = self.log_scale else { return };
        // At its bound, the factor does not grow.
        let is_bound = self.model.params.read(id)[0].exp() >= MAX_SCALE && derivative < 0.0;
        let one: Tensor = pass.device().tensor_f32(&[1.0], &[1, 1]);
        let one = pass.input(one);
        let output = ops::linear(pass, &one, id, None, EngineActivation::None);
        let derivative = if is_bound { 0.0 } else { derivative as f32 };
        let gradient = pass.device().tensor_f32(&[derivative], &[1, 1]);
        pass.seed_gradient(&output, gradient);
    }

    /// Writes the files beside the model's.
    fn save_folder(&self, dir: &Path) -> Result<(), TrainError> {
        let written = Written {
            pooling: self.pooling.clone(),
            modules: self.read_modules(),
            log_scale: self.log_scale.map(|id| self.model.params.read(id)[0]),
            files: self.files.clone(),
        };
        folder::write(dir, &written, self.model.architecture().hidden_size)
    }

    fn read_modules(&self) -> Vec<Module> {
        let params = &self.model.params;
        let read = |module: &Trained| match module {
            Trained::Dense { weight, bias, activation } => Module::Dense(Dense {
                inputs: params.shape(*weight)[1],
                outputs: params.shape(*weight)[0],
                weight: params.read(*weight).to_vec(),
                bias: bias.map(|bias| params.read(bias).to_vec()),
                activation: *activation,
                residual: Residual::None,
            }),
            Trained::Normalize => Module::Normalize,
        };
        self.modules.iter().map(read).collect()
    }
}

/// The encoder in a folder, with its pooler if stored. A decoder needs a language-model head, too: that of the folder, or a
/// new one.
fn load(dir: &Path, device: &Device, decodes: bool, seed: u64) -> Result<(Model, LoadReport), ModelError> {
    let heads = if decodes { Heads::MLM } else { Heads::NONE };
    Model::load_encoder_with(dir, heads, device, seed)
}

/// Freezes the heads that are not read.
fn freeze_unused(model: &mut Model, pooling: &Pooling, decodes: bool) {
    let mut used = Heads::NONE;
    used.mlm = decodes;
    used.pooler = pooling.pools.contains(&Pool::Pooler);
    model.freeze_unused_heads(used);
}

/// A new layer, as PyTorch's `nn.Linear`: uniform within ±1/√inputs.
fn new_dense(inputs: usize, outputs: usize, seed: u64) -> Dense {
    let bound = 1.0 / (inputs as f64).sqrt();
    let mut random = cloze_data::Random::keyed(seed, DENSE, &[]);
    let mut uniform =
        |count: usize| (0..count).map(|_| (bound * (2.0 * random.unit() - 1.0)) as f32).collect::<Vec<f32>>();
    let (weight, bias) = (uniform(inputs * outputs), Some(uniform(outputs)));
    Dense { inputs, outputs, weight, bias, activation: Activation::Tanh, residual: Residual::None }
}

/// The engine's activation function.
fn in_engine(activation: Activation) -> Option<EngineActivation> {
    Some(match activation {
        Activation::Identity => EngineActivation::None,
        Activation::Tanh => EngineActivation::Tanh,
        Activation::Relu => EngineActivation::Relu,
        Activation::Gelu => EngineActivation::Gelu,
        Activation::Silu => EngineActivation::Silu,
        _ => return None,
    })
}

/// Adds the parameters of modules to the arena.
fn declare(params: &mut Parameters, modules: &[Module]) -> Result<Vec<Trained>, String> {
    let mut declared = Vec::new();
    for (number, module) in modules.iter().enumerate() {
        declared.push(match module {
            Module::Normalize => Trained::Normalize,
            Module::Dense(dense) if dense.residual == Residual::None && in_engine(dense.activation).is_some() => {
                let names = ["weight", "bias"].map(|kind| format!("modules.{number}.linear.{kind}"));
                let weight = params.extend(&[(&names[0], &[dense.outputs, dense.inputs], &dense.weight)])[0];
                let bias = dense.bias.as_ref().map(|bias| params.extend(&[(&names[1], &[dense.outputs], bias)])[0]);
                Trained::Dense { weight, bias, activation: dense.activation }
            }
            other => return Err(format!("its module {other} cannot be trained; expected Normalize, or Dense with Identity, Tanh, ReLU, GELU or SiLU")),
        });
    }
    Ok(declared)
}

impl Network for EmbeddingNetwork {
    fn params(&self) -> &Parameters {
        &self.model.params
    }

    fn params_mut(&mut self) -> &mut Parameters {
        &mut self.model.params
    }

    fn positions(&self) -> usize {
        self.model.architecture().max_sequence_length()
    }

    fn load(dir: &Path, device: &Device) -> Result<EmbeddingNetwork, TrainError> {
        let damaged = |e: TaskError| TrainError::Damaged { path: dir.to_owned(), reason: e.to_string() };
        let decoder = dir.join(DECODER);
        let decodes = decoder.is_dir();
        let (mut model, _) = load(&Layout::of(dir)?.model, device, decodes, 0)?;
        let Written { pooling, modules, log_scale, files } =
            folder::read(dir, model.architecture().layers).map_err(damaged)?;
        freeze_unused(&mut model, &pooling, decodes);
        let modules = declare(&mut model.params, &modules)
            .map_err(|reason| TrainError::Damaged { path: dir.to_owned(), reason })?;
        let log_scale = log_scale.map(|value| model.params.extend(&[(folder::LOG_SCALE, &[1, 1], &[value])])[0]);
        let decoder = if decodes { Some(SentenceDecoder::load(&decoder, &mut model)?) } else { None };
        let mined = MinedNegatives::read(dir)?;
        Ok(EmbeddingNetwork { model, pooling, modules, log_scale, decoder, mined, files })
    }

    fn save(&self, dir: &Path) -> Result<(), TrainError> {
        self.model.save(dir)?;
        if let Some(decoder) = &self.decoder {
            let folder = dir.join(DECODER);
            fs::create_dir_all(&folder).map_err(|e| TrainError::io("create", &folder, e))?;
            decoder.save(&folder, &self.model, &self.model.params)?;
        }
        self.mined.write(dir)?;
        self.save_folder(dir)
    }

    /// Without the decoder, its head and mined negatives.
    fn save_final(&self, dir: &Path) -> Result<(), TrainError> {
        let mut heads = self.model.heads;
        heads.mlm = false;
        self.model.save_heads(heads, &self.model.params, dir)?;
        self.save_folder(dir)
    }
}
