//! The vectors of texts: the pooling and the modules of a sentence-transformers folder, after the encoder.
//!
//! For the tokens x of a text, those with `attention_mask` 1, as in sentence-transformers 6.2:
//!
//! ```text
//! cls x₁ · last x_T · mean Σ x_t / T · mean-sqrt-len Σ x_t / √T · weighted-mean Σ t x_t / Σ t · max max_t x_t · pooler tanh(W x₁ + b)
//! Dense f(W x + b) + r, where r is nothing, x or R x · LayerNorm γ (x − mean) / √(variance + 10⁻⁵) + β · Normalize x / |x|
//! ```
//!
//! Padding may be before or after the tokens.

use std::borrow::Cow;

use cloze_engine::ops;

use super::error::OnnxError;
use super::graph::{GraphBuilder, Matrix};
use super::proto::{AttributeProto, BOOL, FLOAT, INT32};

/// The default ε of PyTorch's LayerNorm.
const NORM_EPSILON: f32 = 1e-5;
/// The lower bound of a norm in PyTorch's `normalize`.
const LEAST_NORM: f32 = 1e-12;
/// The lower bound of the divisor of a mean in sentence-transformers.
const LEAST_COUNT: f32 = 1e-9;

/// How the vector of a text is made from the hidden states.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding<'a> {
    /// The pooling modes, whose results are concatenated.
    pub pools: Vec<Pool>,
    /// The hidden states that each mode pools: 0 is the output of the embeddings, 1 … L that of a layer.
    pub layers: Vec<usize>,
    /// What is applied to the pooled vector, in order.
    pub modules: Vec<Module<'a>>,
}

/// A pooling mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pool {
    /// The first token.
    Cls,
    /// The mean of all tokens.
    Mean,
    /// The sum of all tokens over the square root of their number.
    MeanSqrtLen,
    /// The mean of all tokens, the n-th with weight n.
    WeightedMean,
    /// The maximum of each dimension over all tokens.
    Max,
    /// The last token.
    LastToken,
    /// The model's pooler, which reads the last layer.
    Pooler,
}

/// A module after the pooling.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Module<'a> {
    /// A linear layer with an activation.
    Dense(Dense<'a>),
    /// Mean 0 and variance 1, then scale γ and shift β.
    LayerNorm {
        /// γ, one number for each dimension.
        weight: Cow<'a, [f32]>,
        /// β, one number for each dimension.
        bias: Cow<'a, [f32]>,
    },
    /// Norm 1.
    Normalize,
    /// The first dimensions, at most as many as there are.
    Truncate(usize),
}

/// A linear layer with an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense<'a> {
    /// The number of input dimensions.
    pub inputs: usize,
    /// The number of output dimensions.
    pub outputs: usize,
    /// W, `[outputs, inputs]`, row-major.
    pub weight: Cow<'a, [f32]>,
    /// b, if it has one.
    pub bias: Option<Cow<'a, [f32]>>,
    /// f.
    pub activation: Activation,
    /// r.
    pub residual: Residual<'a>,
}

/// What a [`Dense`] adds after its activation.
#[derive(Clone, Debug, PartialEq)]
pub enum Residual<'a> {
    /// Nothing.
    None,
    /// The input vector.
    Same,
    /// The input vector times a matrix `[outputs, inputs]`, row-major.
    Projected(Cow<'a, [f32]>),
}

/// An activation of `torch.nn`, with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// ELU, scaled to keep mean and variance
    Selu,
    /// min(max(x, 0), 6)
    Relu6,
    /// log(1 + eˣ)
    Softplus,
    /// x/(1 + |x|)
    Softsign,
}

impl Embedding<'_> {
    /// The number of dimensions of a vector, for a model with this hidden size and number of layers.
    ///
    /// # Errors
    /// [`OnnxError::Embedding`] if there is no pooling, for a layer that the model does not have, and for modules that do not
    /// fit each other.
    pub(super) fn width(&self, hidden: usize, last: usize) -> Result<usize, OnnxError> {
        let wrong = |problem: String| OnnxError::Embedding { problem };
        if self.pools.is_empty() || self.layers.is_empty() {
            return Err(wrong("expected at least one pooling mode and one layer".to_owned()));
        }
        if let Some(layer) = self.layers.iter().find(|layer| **layer > last) {
            return Err(wrong(format!("expected layers from 0 to {last}, found {layer}")));
        }
        let parts = |pool: &Pool| if *pool == Pool::Pooler { 1 } else { self.layers.len() };
        let mut width = hidden * self.pools.iter().map(parts).sum::<usize>();
        for (number, module) in self.modules.iter().enumerate() {
            width = module.width(width).map_err(|problem| wrong(format!("module {}: {problem}", number + 1)))?;
        }
        Ok(width)
    }
}

impl Module<'_> {
    /// The number of dimensions after it.
    fn width(&self, before: usize) -> Result<usize, String> {
        let expect = |what: &str, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => Err(format!("{what}: expected {expected} numbers, found {found}")),
        };
        match self {
            Module::Dense(Dense { inputs, outputs, weight, bias, residual, .. }) => {
                expect("the input of a Dense", *inputs, before)?;
                expect("the weight of a Dense", inputs * outputs, weight.len())?;
                expect("the bias of a Dense", *outputs, bias.as_ref().map_or(*outputs, |bias| bias.len()))?;
                match residual {
                    Residual::None => {}
                    Residual::Same => expect("the residual of a Dense", *outputs, *inputs)?,
                    Residual::Projected(matrix) => expect("the residual of a Dense", inputs * outputs, matrix.len())?,
                }
                Ok(*outputs)
            }
            Module::LayerNorm { weight, bias } => {
                expect("the input of a LayerNorm", weight.len(), before)?;
                expect("the bias of a LayerNorm", before, bias.len())?;
                Ok(before)
            }
            Module::Normalize => Ok(before),
            Module::Truncate(0) => Err("expected at least 1 dimension, found 0".to_owned()),
            Module::Truncate(kept) => Ok(before.min(*kept)),
        }
    }
}

/// The value with the vector of each text, `[B, W]`, whose sizes [`Embedding::width`] has checked. `states` are those of the
/// embeddings and of each layer, `[B, S, H]`; `pooled` is the pooler's output, which [`Pool::Pooler`] needs.
pub(super) fn build<'a>(
    graph: &mut GraphBuilder<'a>,
    embedding: &'a Embedding<'a>,
    states: &[String],
    pooled: Option<&str>,
    attention_mask: &str,
) -> String {
    let mut pooling = Pooling { graph, attention_mask, made: Vec::new() };
    let mut parts = Vec::new();
    for &pool in &embedding.pools {
        match pool {
            Pool::Pooler => parts.push(pooled.unwrap_or_default().to_owned()),
            _ => parts.extend(embedding.layers.iter().map(|&layer| pooling.pooled(pool, layer, &states[layer]))),
        }
    }
    let mut vector = match parts.as_slice() {
        [only] => only.clone(),
        several => {
            let several: Vec<&str> = several.iter().map(String::as_str).collect();
            graph.node("Concat", "pooling".to_owned(), &several, vec![AttributeProto::int("axis", -1)])
        }
    };
    for (number, module) in embedding.modules.iter().enumerate() {
        vector = module.build(graph, number + 1, &vector);
    }
    vector
}

/// Builds the pooling. Each value is made once.
struct Pooling<'g, 'a> {
    graph: &'g mut GraphBuilder<'a>,
    attention_mask: &'g str,
    made: Vec<String>,
}

impl Pooling<'_, '_> {
    /// The value `name`, which is made by `make` if there is none yet.
    fn once(&mut self, name: String, make: impl FnOnce(&mut Self, String)) -> String {
        if !self.made.contains(&name) {
            self.made.push(name.clone());
            make(self, name.clone());
        }
        name
    }

    /// The pooled states of a layer, `[B, H]`.
    fn pooled(&mut self, pool: Pool, layer: usize, states: &str) -> String {
        let name = |what: &str| format!("pooling.{what}.{layer}");
        match pool {
            Pool::Cls => self.once(name("cls"), |pooling, name| pooling.token(name, "first", states)),
            Pool::LastToken => self.once(name("last"), |pooling, name| pooling.token(name, "last", states)),
            Pool::Max => self.once(name("max"), |pooling, at| {
                let is_token = pooling.mask("is_token", BOOL);
                let lowest = pooling.graph.float("negative_infinity", f32::NEG_INFINITY);
                let tokens = pooling.graph.plain_node("Where", format!("{at}.tokens"), &[&is_token, states, &lowest]);
                let attributes = vec![AttributeProto::ints("axes", &[1]), AttributeProto::int("keepdims", 0)];
                pooling.graph.node("ReduceMax", at, &[&tokens], attributes);
            }),
            Pool::WeightedMean => self.once(name("weighted_mean"), |pooling, name| {
                let weights = pooling.numbers();
                let sum = pooling.sum(format!("{name}.sum"), states, &weights);
                let total = pooling.total("number_total", &weights);
                pooling.graph.plain_node("Div", name, &[&sum, &total]);
            }),
            Pool::Mean | Pool::MeanSqrtLen | Pool::Pooler => {
                let mask = self.mask("mask", FLOAT);
                let sum = self.once(name("sum"), |pooling, name| {
                    pooling.sum(name, states, &mask);
                });
                let count = self.total("count", &mask);
                if pool == Pool::MeanSqrtLen {
                    let root = self.once("pooling.root".to_owned(), |pooling, name| {
                        pooling.graph.plain_node("Sqrt", name, &[&count]);
                    });
                    return self.once(name("mean_sqrt_len"), |pooling, name| {
                        pooling.graph.plain_node("Div", name, &[&sum, &root]);
                    });
                }
                self.once(name("mean"), |pooling, name| {
                    pooling.graph.plain_node("Div", name, &[&sum, &count]);
                })
            }
        }
    }

    /// The attention mask as a column of another type, `[B, S, 1]`.
    fn mask(&mut self, what: &str, element: i32) -> String {
        let attention_mask = self.attention_mask;
        self.once(format!("pooling.{what}"), |pooling, name| {
            let to = vec![AttributeProto::int("to", i64::from(element))];
            let mask = pooling.graph.node("Cast", format!("{name}.row"), &[attention_mask], to);
            let axis = pooling.graph.ints("last_axis", &[2]);
            pooling.graph.plain_node("Unsqueeze", name, &[&mask, &axis]);
        })
    }

    /// 1, 2, … for the tokens, 0 for padding: `[B, S, 1]`.
    fn numbers(&mut self) -> String {
        let mask = self.mask("mask", FLOAT);
        self.once("pooling.numbers".to_owned(), |pooling, name| {
            let axis = pooling.graph.int("position_axis", 1);
            let counted = pooling.graph.plain_node("CumSum", format!("{name}.counted"), &[&mask, &axis]);
            pooling.graph.plain_node("Mul", name, &[&counted, &mask]);
        })
    }

    /// The sum of the states with these weights, `[B, H]`.
    fn sum(&mut self, name: String, states: &str, weights: &str) -> String {
        let weighted = self.graph.plain_node("Mul", format!("{name}.states"), &[states, weights]);
        self.reduced("ReduceSum", name, &weighted)
    }

    /// The sum of the weights of each sequence, as a divisor: `[B, 1]`.
    fn total(&mut self, what: &str, weights: &str) -> String {
        self.once(format!("pooling.{what}"), |pooling, name| {
            let total = pooling.reduced("ReduceSum", format!("{name}.sum"), weights);
            let least = pooling.graph.float("least_count", LEAST_COUNT);
            pooling.graph.plain_node("Max", name, &[&total, &least]);
        })
    }

    /// The reduction over all tokens.
    fn reduced(&mut self, op_type: &str, name: String, x: &str) -> String {
        let axis = self.graph.ints("token_axis", &[1]);
        self.graph.node(op_type, name, &[x, &axis], vec![AttributeProto::int("keepdims", 0)])
    }

    /// The state of the first or last token, `[B, H]`. The mask is read as int32, because runtimes lack ArgMax for int64.
    fn token(&mut self, name: String, which: &str, states: &str) {
        let attention_mask = self.attention_mask;
        let index = self.once(format!("pooling.{which}_token"), |pooling, at| {
            let to = vec![AttributeProto::int("to", i64::from(INT32))];
            let mask = pooling.graph.node("Cast", format!("{at}.mask"), &[attention_mask], to);
            let attributes = vec![
                AttributeProto::int("axis", 1),
                AttributeProto::int("keepdims", 1),
                AttributeProto::int("select_last_index", i64::from(which == "last")),
            ];
            pooling.graph.node("ArgMax", at, &[&mask], attributes);
        });
        let batch = vec![AttributeProto::int("batch_dims", 1)];
        self.graph.node("GatherND", name, &[states, &index], batch);
    }
}

impl<'a> Module<'a> {
    /// The vectors after the module, which is the one with this number.
    fn build(&'a self, graph: &mut GraphBuilder<'a>, number: usize, x: &str) -> String {
        match self {
            Module::Dense(dense) => dense.build(graph, &format!("dense.{number}"), x),
            Module::LayerNorm { weight, bias } => {
                let at = format!("layer_norm.{number}");
                let parameters = [("weight", weight), ("bias", bias)]
                    .map(|(part, values)| graph.vector(format!("{at}.{part}"), Cow::Borrowed(values)));
                graph.layer_norm(at, x, &parameters, NORM_EPSILON)
            }
            Module::Normalize => {
                let at = format!("normalize.{number}");
                let attributes = vec![AttributeProto::ints("axes", &[-1]), AttributeProto::int("keepdims", 1)];
                let norm = graph.node("ReduceL2", format!("{at}.norm"), &[x], attributes);
                let least = graph.float("least_norm", LEAST_NORM);
                let norm = graph.plain_node("Max", format!("{at}.divisor"), &[&norm, &least]);
                graph.plain_node("Div", at, &[x, &norm])
            }
            Module::Truncate(kept) => {
                let at = format!("truncate.{number}");
                let start = graph.ints("truncate_start", &[0]);
                let end = graph.ints(&at, &[i64::try_from(*kept).unwrap_or(i64::MAX)]);
                let axis = graph.ints("vector_axis", &[1]);
                graph.plain_node("Slice", at, &[x, &start, &end, &axis])
            }
        }
    }
}

impl<'a> Dense<'a> {
    fn build(&'a self, graph: &mut GraphBuilder<'a>, at: &str, x: &str) -> String {
        let name = |part: &str| format!("{at}.{part}");
        let matrix = |part: &str, values: &'a [f32]| Matrix {
            name: name(part),
            values: Cow::Borrowed(values),
            rows: self.outputs,
            columns: self.inputs,
        };
        let mut y = graph.product(name("product"), x, matrix("weight", &self.weight));
        if let Some(bias) = &self.bias {
            let bias = graph.vector(name("bias"), Cow::Borrowed(bias));
            y = graph.plain_node("Add", name("linear"), &[&y, &bias]);
        }
        y = self.activation.build(graph, at, &y);
        match &self.residual {
            Residual::None => y,
            Residual::Same => graph.plain_node("Add", at.to_owned(), &[&y, x]),
            Residual::Projected(projection) => {
                let projected = graph.product(name("residual"), x, matrix("residual.weight", projection));
                graph.plain_node("Add", at.to_owned(), &[&y, &projected])
            }
        }
    }
}

impl Activation {
    /// f(x), as nodes whose names begin with `at`.
    fn build(self, graph: &mut GraphBuilder<'_>, at: &str, x: &str) -> String {
        let name = |part: &str| format!("{at}.{part}");
        match self {
            Activation::Identity => x.to_owned(),
            Activation::Tanh => graph.activation(ops::Activation::Tanh, at, x),
            Activation::Relu => graph.activation(ops::Activation::Relu, at, x),
            Activation::Gelu => graph.activation(ops::Activation::Gelu, at, x),
            Activation::Silu => graph.activation(ops::Activation::Silu, at, x),
            Activation::Sigmoid => graph.plain_node("Sigmoid", name("sigmoid"), &[x]),
            // The operator Mish is newer than the operator set.
            Activation::Mish => {
                let softplus = graph.plain_node("Softplus", name("softplus"), &[x]);
                let gate = graph.plain_node("Tanh", name("gate"), &[&softplus]);
                graph.plain_node("Mul", name("mish"), &[x, &gate])
            }
            Activation::LeakyRelu => {
                let alpha = vec![AttributeProto::float("alpha", 0.01)];
                graph.node("LeakyRelu", name("leaky_relu"), &[x], alpha)
            }
            Activation::Elu => graph.plain_node("Elu", name("elu"), &[x]),
            Activation::Selu => graph.plain_node("Selu", name("selu"), &[x]),
            Activation::Relu6 => {
                let (zero, six) = (graph.float("zero", 0.0), graph.float("six", 6.0));
                graph.plain_node("Clip", name("relu6"), &[x, &zero, &six])
            }
            Activation::Softplus => graph.plain_node("Softplus", name("softplus"), &[x]),
            Activation::Softsign => graph.plain_node("Softsign", name("softsign"), &[x]),
        }
    }
}
