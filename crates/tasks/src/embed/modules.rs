//! The modules of a sentence-transformers folder that are applied to a vector after the pooling.
//!
//! ```text
//! Dense f(W x + b) + r, where r is nothing, x or R x · LayerNorm γ (x − mean) / √(variance + 10⁻⁵) + β · Normalize x / |x|
//! ```

use std::fmt;
use std::path::Path;

use cloze_model::read_tensors;
use serde_json::Value;

use super::arithmetic::{dot, normalize};
use crate::TaskError;

/// The default ε of PyTorch's LayerNorm; the module has no setting for it.
const EPSILON: f64 = 1e-5;
/// The name of the value that modules after the pooling read and write.
const VECTOR: &str = "sentence_embedding";

/// A module after the pooling.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Module {
    /// A linear layer with an activation.
    Dense(Dense),
    /// Normalizes each vector to mean 0 and variance 1, then scales and shifts it.
    LayerNorm(LayerNorm),
    /// Normalizes each vector to norm 1.
    Normalize,
}

/// A linear layer with an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// The number of input dimensions.
    pub inputs: usize,
    /// The number of output dimensions.
    pub outputs: usize,
    /// The weight W, `[outputs, inputs]`, row-major.
    pub weight: Vec<f32>,
    /// The bias b, if it has one.
    pub bias: Option<Vec<f32>>,
    /// The activation f.
    pub activation: Activation,
    /// The residual r.
    pub residual: Residual,
}

/// What a [`Dense`] adds after its activation.
#[derive(Clone, Debug, PartialEq)]
pub enum Residual {
    /// Nothing.
    None,
    /// The input vector.
    Same,
    /// The input vector times a matrix `[outputs, inputs]`, row-major.
    Projected(Vec<f32>),
}

/// Scale and shift of a LayerNorm, one number for each dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// γ.
    pub weight: Vec<f32>,
    /// β.
    pub bias: Vec<f32>,
}

/// The activations of PyTorch without required parameters, with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x
    Identity,
    /// tanh x
    Tanh,
    /// max(x, 0)
    Relu,
    /// x Φ(x), by erf
    Gelu,
    /// 1/(1 + e⁻ˣ)
    Sigmoid,
    /// x/(1 + e⁻ˣ)
    Silu,
    /// x tanh(log(1 + eˣ))
    Mish,
    /// x, or 0.01 x below 0
    LeakyRelu,
    /// x, or eˣ − 1 below 0
    Elu,
    /// ELU, scaled to keep mean and variance (Klambauer et al. 2017)
    Selu,
    /// min(max(x, 0), 6)
    Relu6,
    /// log(1 + eˣ)
    Softplus,
    /// x/(1 + |x|)
    Softsign,
}

/// The activations by the name of their class in `torch.nn`.
const ACTIVATIONS: [(&str, Activation); 14] = [
    ("Identity", Activation::Identity),
    ("Tanh", Activation::Tanh),
    ("ReLU", Activation::Relu),
    ("GELU", Activation::Gelu),
    ("Sigmoid", Activation::Sigmoid),
    ("SiLU", Activation::Silu),
    ("Mish", Activation::Mish),
    ("LeakyReLU", Activation::LeakyRelu),
    ("ELU", Activation::Elu),
    ("CELU", Activation::Elu),
    ("SELU", Activation::Selu),
    ("ReLU6", Activation::Relu6),
    ("Softplus", Activation::Softplus),
    ("Softsign", Activation::Softsign),
];

impl Activation {
    /// The activation with this Python path; an error message for an unknown one.
    pub(crate) fn named(path: &str) -> Result<Activation, String> {
        let name = path.rsplit('.').next().unwrap_or(path);
        let found = ACTIVATIONS.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<&str> = ACTIVATIONS.iter().map(|(known, _)| *known).collect();
            format!("the activation {path} is not supported (supported: {})", known.join(", "))
        })
    }

    /// Its path in Python.
    pub(crate) fn path(self) -> String {
        let module = if self == Activation::Identity { "linear" } else { "activation" };
        format!("torch.nn.modules.{module}.{}", self.name())
    }

    /// The name of its class in `torch.nn`.
    pub fn name(self) -> &'static str {
        ACTIVATIONS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// f(x).
    pub(crate) fn apply(self, x: f32) -> f32 {
        let x = f64::from(x);
        let below = |negative: f64| if x > 0.0 { x } else { negative };
        let y = match self {
            Activation::Identity => x,
            Activation::Tanh => x.tanh(),
            Activation::Relu => below(0.0),
            Activation::Gelu => x * 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Mish => x * softplus(x).tanh(),
            Activation::LeakyRelu => below(0.01 * x),
            Activation::Elu => below(x.exp_m1()),
            Activation::Selu => 1.050_700_987_355_480_5 * below(1.673_263_242_354_377_2 * x.exp_m1()),
            Activation::Relu6 => x.clamp(0.0, 6.0),
            Activation::Softplus => softplus(x),
            Activation::Softsign => x / (1.0 + x.abs()),
        };
        y as f32
    }
}

/// log(1 + eˣ), without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl Module {
    /// Reads the module of this class from its folder and settings. `root` is the sentence-transformers folder, for
    /// messages. None for a class that is not supported. The string is a note for the user if settings of the folder
    /// are ignored.
    ///
    /// # Errors
    /// [`TaskError::File`] for settings that are not supported, [`TaskError::Model`] for weights that do not fit them.
    pub(super) fn read(
        class: &str,
        folder: &Path,
        config: Option<&Value>,
        root: &Path,
    ) -> Result<Option<(Module, Option<String>)>, TaskError> {
        let bad = |problem: String| TaskError::file(&folder.join("config.json"), problem);
        let absent = || bad("is missing, but modules.json refers to its folder; download the model again".to_owned());
        let config = match class {
            "Normalize" => config.unwrap_or(&Value::Null),
            "Dense" | "LayerNorm" => config.ok_or_else(absent)?,
            _ => return Ok(None),
        };
        for key in ["module_input_name", "module_output_name"] {
            if let Some(name) = config[key].as_str().filter(|name| *name != VECTOR) {
                let problem = format!("{key} is {name:?}, expected {VECTOR:?}");
                return Err(bad(problem));
            }
        }
        let size = |key: &str| {
            let size = config[key].as_u64().and_then(|size| usize::try_from(size).ok());
            size.filter(|size| *size > 0)
                .ok_or_else(|| bad(format!("{key}: expected a number from 1, found {}", config[key])))
        };
        match class {
            "Dense" => {
                let (activation, note) = match &config["activation_function"] {
                    Value::String(path) if path.starts_with("torch.") => (Activation::named(path).map_err(bad)?, None),
                    Value::Null if config.get("activation_function").is_none() => (Activation::Tanh, None),
                    Value::String(path) => {
                        let note = format!(
                            "{}: its activation {path} is custom Python code; Tanh is used instead, as in sentence-transformers",
                            folder.display()
                        );
                        (Activation::Tanh, Some(note))
                    }
                    other => {
                        return Err(bad(format!("activation_function: expected the name of a class, found {other}")));
                    }
                };
                let (inputs, outputs) = (size("in_features")?, size("out_features")?);
                let matrix = [outputs, inputs];
                let mut expected: Vec<(&str, &[usize])> = vec![("linear.weight", &matrix)];
                let has_bias = config["bias"].as_bool().unwrap_or(true);
                if has_bias {
                    expected.push(("linear.bias", &matrix[..1]));
                }
                let adds_itself = config["use_residual"].as_bool().unwrap_or(false);
                if adds_itself && inputs != outputs {
                    expected.push(("residual.weight", &matrix));
                }
                let mut read = tensors(folder, &expected, root)?.into_iter();
                let weight = read.next().unwrap_or_default();
                let bias = if has_bias { read.next() } else { None };
                let residual = match (adds_itself, read.next()) {
                    (false, _) => Residual::None,
                    (true, None) => Residual::Same,
                    (true, Some(matrix)) => Residual::Projected(matrix),
                };
                Ok(Some((Module::Dense(Dense { inputs, outputs, weight, bias, activation, residual }), note)))
            }
            "LayerNorm" => {
                let size = [size("dimension")?];
                let mut read = tensors(folder, &[("norm.weight", &size), ("norm.bias", &size)], root)?.into_iter();
                let (weight, bias) = (read.next().unwrap_or_default(), read.next().unwrap_or_default());
                Ok(Some((Module::LayerNorm(LayerNorm { weight, bias }), None)))
            }
            _ => Ok(Some((Module::Normalize, None))),
        }
    }

    /// The number of dimensions after it, given the number before it.
    ///
    /// # Errors
    /// A message, if it does not support this number of dimensions.
    pub(super) fn width(&self, before: usize) -> Result<usize, String> {
        let (expected, after) = match self {
            Module::Dense(dense) => (dense.inputs, dense.outputs),
            Module::LayerNorm(norm) => (norm.weight.len(), norm.weight.len()),
            Module::Normalize => (before, before),
        };
        if expected == before {
            Ok(after)
        } else {
            Err(format!("{self}: expected vectors of {expected} dimensions, found {before}"))
        }
    }

    /// Applies the module to a vector.
    pub(super) fn apply(&self, mut vector: Vec<f32>) -> Vec<f32> {
        match self {
            Module::Dense(dense) => dense.apply(&vector),
            Module::LayerNorm(norm) => {
                norm.apply(&mut vector);
                vector
            }
            Module::Normalize => {
                normalize(&mut vector);
                vector
            }
        }
    }
}

impl fmt::Display for Module {
    /// The class with its sizes, such as `Dense 768 → 256 (Tanh)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Module::Dense(Dense { inputs, outputs, activation, .. }) => {
                write!(f, "Dense {inputs} → {outputs} ({})", activation.name())
            }
            Module::LayerNorm(norm) => write!(f, "LayerNorm {}", norm.weight.len()),
            Module::Normalize => f.write_str("Normalize"),
        }
    }
}

impl Dense {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(self.inputs).enumerate();
        let mut y: Vec<f32> = rows
            .map(|(output, row)| {
                let bias = self.bias.as_ref().map_or(0.0, |bias| bias[output]);
                self.activation.apply(dot(row, x) + bias)
            })
            .collect();
        match &self.residual {
            Residual::None => {}
            Residual::Same => y.iter_mut().zip(x).for_each(|(y, x)| *y += x),
            Residual::Projected(matrix) => {
                y.iter_mut().zip(matrix.chunks_exact(self.inputs)).for_each(|(y, row)| *y += dot(row, x));
            }
        }
        y
    }
}

impl LayerNorm {
    fn apply(&self, vector: &mut [f32]) {
        let count = vector.len() as f64;
        let mean = vector.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let variance = vector.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
        let scale = (variance + EPSILON).sqrt().recip();
        for ((x, gamma), beta) in vector.iter_mut().zip(&self.weight).zip(&self.bias) {
            *x = ((f64::from(*x) - mean) * scale * f64::from(*gamma) + f64::from(*beta)) as f32;
        }
    }
}

/// Reads the tensors of a module's folder.
fn tensors(folder: &Path, expected: &[(&str, &[usize])], root: &Path) -> Result<Vec<Vec<f32>>, TaskError> {
    if !folder.join("model.safetensors").is_file() && folder.join("pytorch_model.bin").is_file() {
        let problem = format!(
            "expected model.safetensors, found only pytorch_model.bin; convert the folder {} to safetensors",
            root.display()
        );
        return Err(TaskError::file(&folder.join("pytorch_model.bin"), problem));
    }
    Ok(read_tensors(folder, expected)?)
}
