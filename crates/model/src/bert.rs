//! The network of BERT (Devlin et al. 2019) and its family: embeddings, encoder, pooler and heads, in the paper's order.
//! What differs between families is a field of the [`Architecture`].
//!
//! ```text
//! T tokens of the packed batch · S sequences · M predicted tokens · H hidden · N heads · D = H/N · F feed-forward · V
//! vocabulary
//! ```
//!
//! Every parameter is declared here once, by its role, with its shape, its initialiser and whether weight decay
//! applies: it applies to matrices, including the embeddings, but not to biases and LayerNorms. The [`Schema`] gives
//! parameters their names in checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use cloze_engine::ops::{
    self, Activation, BiLstm, DistanceBias, EmbedTables, LossSum, MixWeights, Norm, Rotation, TargetLogits, Visible,
};
use cloze_engine::{Device, DropoutKey, Init, ParamId, ParametersBuilder, Pass, Tensor, Var};

use crate::architecture::{Architecture, Rotary, SequenceHead, distance_bucket};
use crate::heads::{Heads, TaskHead};
use crate::output_rows::OutputRowsTensors;
use crate::role::{LayerPart, Module, Role, Table};
use crate::schema::Schema;
use crate::task_input::BiLstmSize;

/// The parameters of a dense layer: weight `[out, in]`, bias `[out]`.
#[derive(Clone, Copy)]
struct Dense {
    weight: ParamId,
    bias: Option<ParamId>,
}

impl Dense {
    /// act(x·Wᵀ + b): `[rows, in]` → `[rows, out]`.
    fn apply(self, pass: &mut Pass, x: &Var, act: Activation) -> Var {
        ops::linear(pass, x, self.weight, self.bias, act)
    }
}

/// The parameters of the complete network.
pub(crate) struct Bert {
    /// Its dropouts may change; its sizes must not.
    pub(crate) architecture: Architecture,
    pub(crate) embeddings: Embeddings,
    /// E → H, if they differ.
    embedding_projection: Option<Dense>,
    /// Added to the attention scores of all layers.
    distance_bias: Option<DistanceBias>,
    /// The rotations of positions in layers that attend to all tokens, and in local ones; for batches of at most
    /// [`FEW_POSITIONS`] tokens, and for others. Made when they are first needed.
    rotations: [[OnceLock<Rotation>; 2]; 2],
    /// In order of application; layers that share weights have the same parameters.
    layers: Vec<Layer>,
    final_norm: Option<Norm>,
    pooler: Option<Dense>,
    transform: Option<Transform>,
    mlm: Option<MlmHead>,
    nsp: Option<Dense>,
    rtd: Option<RtdHead>,
    task: Option<TaskLayers>,
}

/// The positions of the smaller table of rotations: those of the published models.
const FEW_POSITIONS: usize = 8192;

/// The embedding tables and the LayerNorm of their sum.
#[derive(Clone, Copy)]
pub(crate) struct Embeddings {
    tables: EmbedTables,
    norm: Norm,
}

/// One encoder layer.
#[derive(Clone, Copy)]
struct Layer {
    attention: Attention,
    feed_forward: FeedForward,
}

/// The self-attention of a layer.
#[derive(Clone, Copy)]
struct Attention {
    /// Query, key and value as one matrix `[3H, H]`.
    qkv: Dense,
    /// The first third of `qkv`, and the other two thirds, `[2H, H]`, if they are not one parameter.
    query_and_key_value: Option<[Dense; 2]>,
    output: Dense,
    norms: Norms,
}

/// The feed-forward block of a layer.
#[derive(Clone, Copy)]
struct FeedForward {
    /// `[F, H]`, or `[2F, H]` of a gated linear unit.
    intermediate: Dense,
    output: Dense,
    norms: Norms,
}

/// The LayerNorms of a block of a layer: of its input, or of the sum of its input and its output.
#[derive(Clone, Copy)]
struct Norms {
    before: Option<Norm>,
    after: Option<Norm>,
}

/// A dense layer with a LayerNorm, before the decoder of the masked-language-model head or an output layer.
struct Transform {
    dense: Dense,
    norm: Norm,
}

/// The masked-language-model head, after the [`Transform`].
struct MlmHead {
    /// The word embeddings, or a separate matrix.
    decoder: ParamId,
    bias: ParamId,
}

/// The head that detects replaced tokens.
struct RtdHead {
    dense: Dense,
    output: Dense,
}

/// The head of a task.
struct TaskLayers {
    /// The weights of hidden states, if it reads a weighted sum.
    mix: Option<MixWeights>,
    /// The layers of the BiLSTM; may be empty.
    bilstm: Vec<BiLstm>,
    /// The dense layer before the output layer, if that is neither the pooler nor shared with the MLM head.
    dense: Option<Dense>,
    output: Dense,
}

// ------------------------------------------------------------------------------------------------ parameters

/// Declares parameters to the engine, and lists their roles and shapes. Loading compares these with a file's before
/// anything is allocated.
pub(crate) struct Declarations {
    pub(crate) builder: ParametersBuilder,
    /// Precedes the parameters' names.
    prefix: &'static str,
    /// In order of declaration.
    pub(crate) listed: Vec<Declared>,
    schema: Schema,
    init: InitFrom,
    architecture: Architecture,
}

/// A declared parameter.
pub(crate) struct Declared {
    pub(crate) id: ParamId,
    pub(crate) role: Role,
    pub(crate) shape: Vec<usize>,
}

/// Where the initial weights come from.
pub(crate) enum InitFrom {
    /// All are sampled.
    Random,
    /// From a checkpoint, so they need not be sampled; only those missing in it are.
    Checkpoint {
        /// The roles of the parameters that are missing in the checkpoint.
        missing: BTreeSet<Role>,
    },
}

impl Declarations {
    /// An empty list for a model of this architecture; the schema names the parameters, after a prefix.
    pub(crate) fn new(
        builder: ParametersBuilder,
        prefix: &'static str,
        schema: Schema,
        architecture: &Architecture,
        init: InitFrom,
    ) -> Declarations {
        Declarations { builder, prefix, listed: Vec::new(), schema, init, architecture: *architecture }
    }

    fn declare(&mut self, role: Role, shape: &[usize], init: Init, decay: bool) -> ParamId {
        let copied = matches!(&self.init, InitFrom::Checkpoint { missing } if !missing.contains(&role));
        let init = if copied { Init::Zeros } else { init };
        let name = format!("{}{}", self.prefix, self.schema.name(role));
        let id = self.builder.declare(&name, shape, init, decay);
        self.listed.push(Declared { id, role, shape: shape.to_vec() });
        id
    }

    /// Lists a parameter of another model in the same arena, which this model shares.
    fn share(&mut self, id: ParamId, role: Role, shape: &[usize]) {
        self.listed.push(Declared { id, role, shape: shape.to_vec() });
    }

    /// N(0, σ²) truncated at 2σ, as in Google's release; Transformers does not truncate. The [PAD] row is not special.
    fn matrix(&mut self, role: Role, shape: [usize; 2]) -> ParamId {
        let std = self.architecture.initial_deviation(role.module);
        self.declare(role, &shape, Init::TruncatedNormal { std }, true)
    }

    /// The bias of a module, if it has one.
    fn bias(&mut self, module: Module, size: usize) -> Option<ParamId> {
        let has = self.architecture.has_bias(module);
        has.then(|| self.declare(module.bias(), &[size], Init::Zeros, false))
    }

    fn dense(&mut self, module: Module, [outputs, inputs]: [usize; 2]) -> Dense {
        let weight = self.matrix(module.weight(), [outputs, inputs]);
        let bias = self.bias(module, outputs);
        Dense { weight, bias }
    }

    /// Several dense layers with the same input. Their weights are consecutive, and so are their biases, so that they
    /// can be [stacked](Self::stack).
    fn dense_group<const N: usize>(&mut self, modules: [Module; N], shape: [usize; 2]) -> [Dense; N] {
        let weights = modules.map(|module| self.matrix(module.weight(), shape));
        let biases = modules.map(|module| self.bias(module, shape[0]));
        std::array::from_fn(|i| Dense { weight: weights[i], bias: biases[i] })
    }

    /// A view of a group of layers as one: weights and biases stacked.
    fn stack(&mut self, layers: &[Dense]) -> Dense {
        let weights: Vec<ParamId> = layers.iter().map(|layer| layer.weight).collect();
        let biases: Option<Vec<ParamId>> = layers.iter().map(|layer| layer.bias).collect();
        Dense { weight: self.builder.stack(&weights), bias: biases.map(|biases| self.builder.stack(&biases)) }
    }

    /// A layer of a BiLSTM with `size` units in each direction, for inputs of this width. Its weights have the standard
    /// deviation of PyTorch's, which are uniform between ±1/√size.
    fn bilstm(&mut self, layer: usize, size: usize, inputs: usize) -> BiLstm {
        let init = Init::TruncatedNormal { std: (3.0 * size as f32).sqrt().recip() };
        let mut both = |recurrent: bool, columns: Option<usize>| {
            let shape: Vec<usize> = std::iter::once(4 * size).chain(columns).collect();
            let parts = [false, true].map(|reverse| {
                let module = Module::BiLstm { layer, reverse, recurrent };
                match columns {
                    Some(_) => self.declare(module.weight(), &shape, init, true),
                    None => self.declare(module.bias(), &shape, Init::Zeros, false),
                }
            });
            self.builder.stack(&parts)
        };
        BiLstm {
            weight_ih: both(false, Some(inputs)),
            weight_hh: both(true, Some(size)),
            bias_ih: both(false, None),
            bias_hh: both(true, None),
        }
    }

    fn norm(&mut self, module: Module, size: usize) -> Norm {
        let gamma = self.declare(module.weight(), &[size], Init::Ones, false);
        let beta = self.bias(module, size);
        Norm { gamma, beta, eps: self.architecture.layer_norm_eps }
    }
}

impl Bert {
    /// Declares the network of this architecture with these heads, with its own embeddings or those of another network.
    pub(crate) fn declare(
        to: &mut Declarations,
        architecture: Architecture,
        heads: Heads,
        shared: Option<Embeddings>,
    ) -> Bert {
        let Architecture { hidden_size: h, embedding_size: e, .. } = architecture;
        let embeddings = match shared {
            None => Embeddings::declare(to, &architecture),
            Some(embeddings) => embeddings.share(to, &architecture),
        };
        let embedding_projection =
            architecture.projects_embeddings.then(|| to.dense(Module::EmbeddingProjection, [h, e]));
        let distance_bias = architecture.distance_buckets.map(|rows| {
            let farthest = architecture.max_sequence_length() as i64 - 1;
            DistanceBias {
                table: to.matrix(Module::DistanceBias.weight(), [rows, architecture.attention_heads]),
                buckets: (-farthest..=farthest).map(|distance| distance_bucket(distance) as u32).collect(),
            }
        });
        let (mut attentions, mut feed_forwards) = (BTreeMap::new(), BTreeMap::new());
        let layers = (0..architecture.layers)
            .map(|number| {
                let set = |part| architecture.sharing.set(number, part);
                let (attention, feed_forward) = (set(LayerPart::AttentionNorm), set(LayerPart::OutputNorm));
                Layer {
                    attention: *attentions
                        .entry(attention)
                        .or_insert_with(|| Attention::declare(to, attention, &architecture)),
                    feed_forward: *feed_forwards
                        .entry(feed_forward)
                        .or_insert_with(|| FeedForward::declare(to, feed_forward, &architecture)),
                }
            })
            .collect();
        let final_norm = architecture.pre_norm.then(|| to.norm(Module::FinalNorm, h));
        let pooler = heads.pooler.then(|| to.dense(Module::Pooler, [h, h]));
        let transform = match architecture.prediction_head {
            true => {
                let reads = heads.mlm || heads.task.is_some_and(|task| task.sequence_head(&architecture).is_some());
                reads.then_some([Module::PredictionDense, Module::PredictionNorm])
            }
            false => heads.mlm.then_some([Module::MlmTransform, Module::MlmNorm]),
        };
        let transform =
            transform.map(|[dense, norm]| Transform { dense: to.dense(dense, [e, h]), norm: to.norm(norm, e) });
        let mlm = heads.mlm.then(|| MlmHead {
            decoder: match architecture.tied_decoder {
                true => embeddings.tables.word,
                false => to.matrix(Module::MlmDecoder.weight(), [architecture.vocab_size, e]),
            },
            bias: to.declare(Module::MlmBias.bias(), &[architecture.vocab_size], Init::Zeros, false),
        });
        let nsp = heads.nsp.then(|| to.dense(Module::NspHead, [2, h]));
        let rtd = heads.rtd.then(|| RtdHead {
            dense: to.dense(Module::RtdDense, [h, h]),
            output: to.dense(Module::RtdOutput, [1, h]),
        });
        let task = heads.task.map(|task: TaskHead| TaskLayers::declare(to, task, &architecture));
        Bert {
            architecture,
            embeddings,
            embedding_projection,
            distance_bias,
            rotations: [const { [const { OnceLock::new() }; 2] }; 2],
            layers,
            final_norm,
            pooler,
            transform,
            mlm,
            nsp,
            rtd,
            task,
        }
    }
}

impl Bert {
    /// Replaces the architecture by one with other dropouts or another padding token.
    pub(crate) fn set_architecture(&mut self, architecture: Architecture) {
        self.architecture = architecture;
        self.embeddings.tables.word_padding = architecture.word_padding;
    }
}

impl Bert {
    /// The matrices that are int8 in a quantized model: those of the encoder's dense layers, including the stacks that the
    /// network multiplies by, and the dense layers of the pooler and the heads. Not the embeddings; not the output layers,
    /// which are small (except for the vocabulary, whose logits would need more precision than the other products); not a
    /// BiLSTM, whose rounding errors would add up over the tokens.
    pub(crate) fn int8_weights(&self) -> Vec<ParamId> {
        let of_layers = self.layers.iter().flat_map(|Layer { attention, feed_forward }| {
            let stacks = attention.query_and_key_value.into_iter().flatten();
            let attention = [attention.qkv, attention.output].into_iter().chain(stacks);
            attention.chain([feed_forward.intermediate, feed_forward.output])
        });
        let others = [
            self.embedding_projection,
            self.pooler,
            self.transform.as_ref().map(|transform| transform.dense),
            self.rtd.as_ref().map(|head| head.dense),
            self.task.as_ref().and_then(|task| task.dense),
        ];
        of_layers.chain(others.into_iter().flatten()).map(|dense| dense.weight).collect()
    }
}

impl TaskLayers {
    fn declare(to: &mut Declarations, task: TaskHead, architecture: &Architecture) -> TaskLayers {
        let Architecture { hidden_size: h, layers, task_input, .. } = *architecture;
        let states = task_input.features.states(layers).len();
        let mix = task_input.features.is_sum().then(|| MixWeights {
            weights: to.declare(Module::MixWeights.weight(), &[states], Init::Zeros, false),
            scale: to.declare(Module::MixScale.weight(), &[1], Init::Ones, false),
        });
        let mut width = task_input.features.width(h);
        let mut bilstm = Vec::new();
        if let Some(BiLstmSize { layers, size }) = task_input.bilstm {
            for layer in 0..layers {
                bilstm.push(to.bilstm(layer, size, width));
                width = 2 * size;
            }
        }
        let is_own = |head: &SequenceHead| ![Module::Pooler, Module::PredictionDense].contains(&head.dense);
        let own = task.sequence_head(architecture).filter(is_own);
        TaskLayers {
            mix,
            bilstm,
            dense: own.map(|head| to.dense(head.dense, [h, h])),
            output: to.dense(task.output(architecture), [task.logits(), width]),
        }
    }
}

impl Embeddings {
    fn declare(to: &mut Declarations, architecture: &Architecture) -> Embeddings {
        let e = architecture.embedding_size;
        let table = |to: &mut Declarations, table, rows| to.matrix(Module::Embedding(table).weight(), [rows, e]);
        let tables = EmbedTables {
            word: table(to, Table::Word, architecture.vocab_size),
            position: architecture.rotary.is_none().then(|| table(to, Table::Position, architecture.positions)),
            segment: (architecture.segments > 0).then(|| table(to, Table::Segment, architecture.segments)),
            word_padding: architecture.word_padding,
            position_padding: architecture.position_padding,
        };
        Embeddings { tables, norm: to.norm(Module::EmbeddingNorm, e) }
    }

    /// Lists these embeddings as those of another network, of the same sizes.
    fn share(self, to: &mut Declarations, architecture: &Architecture) -> Embeddings {
        let Architecture { embedding_size: e, vocab_size, positions, segments, .. } = *architecture;
        let EmbedTables { word, position, segment, .. } = self.tables;
        to.share(word, Module::Embedding(Table::Word).weight(), &[vocab_size, e]);
        if let Some(position) = position {
            to.share(position, Module::Embedding(Table::Position).weight(), &[positions, e]);
        }
        if let Some(segment) = segment {
            to.share(segment, Module::Embedding(Table::Segment).weight(), &[segments, e]);
        }
        to.share(self.norm.gamma, Module::EmbeddingNorm.weight(), &[e]);
        if let Some(beta) = self.norm.beta {
            to.share(beta, Module::EmbeddingNorm.bias(), &[e]);
        }
        self
    }
}

impl Attention {
    /// Declares set `number` of the attention's weights.
    fn declare(to: &mut Declarations, number: usize, architecture: &Architecture) -> Attention {
        let h = architecture.hidden_size;
        let at = |part| Module::layer(number, part);
        let (qkv, query_and_key_value) = if architecture.fused_projections {
            (to.dense(at(LayerPart::QueryKeyValue), [3 * h, h]), None)
        } else {
            let parts = to.dense_group([LayerPart::Query, LayerPart::Key, LayerPart::Value].map(at), [h, h]);
            (to.stack(&parts), Some([parts[0], to.stack(&parts[1..])]))
        };
        let output = to.dense(at(LayerPart::AttentionOutput), [h, h]);
        // The embeddings, the input of the first layer, have a norm.
        let has_norm = !architecture.pre_norm || number > 0;
        let norm = has_norm.then(|| to.norm(at(LayerPart::AttentionNorm), h));
        Attention { qkv, query_and_key_value, output, norms: Norms::new(norm, architecture) }
    }
}

impl FeedForward {
    /// Declares set `number` of the feed-forward block's weights.
    fn declare(to: &mut Declarations, number: usize, architecture: &Architecture) -> FeedForward {
        let Architecture { hidden_size: h, intermediate_size: f, .. } = *architecture;
        let at = |part| Module::layer(number, part);
        let intermediate = match architecture.gated {
            true => to.dense(at(LayerPart::GatedIntermediate), [2 * f, h]),
            false => to.dense(at(LayerPart::Intermediate), [f, h]),
        };
        let output = to.dense(at(LayerPart::Output), [h, f]);
        let norm = to.norm(at(LayerPart::OutputNorm), h);
        FeedForward { intermediate, output, norms: Norms::new(Some(norm), architecture) }
    }

    /// `[R, H]` → `[R, H]`, without residual connection and norms.
    fn apply(&self, pass: &mut Pass, architecture: &Architecture, y: &Var) -> Var {
        let Architecture { activation, gated, dropouts, .. } = *architecture;
        // act(y·W1ᵀ + b1), or act(u) ∘ g of y·W1ᵀ + b1 = [u g]                                 [R, F]
        let inner = if gated {
            let both = self.intermediate.apply(pass, y, Activation::None);
            let inner = ops::glu(pass, &both, activation);
            ops::dropout(pass, &inner, dropouts.gated)
        } else {
            self.intermediate.apply(pass, y, activation)
        };
        self.output.apply(pass, &inner, Activation::None)
    }
}

impl Norms {
    /// The norm of a block, in the place that the architecture gives it.
    fn new(norm: Option<Norm>, architecture: &Architecture) -> Norms {
        match architecture.pre_norm {
            true => Norms { before: norm, after: None },
            false => Norms { before: None, after: norm },
        }
    }

    /// The input of the block: LN(x), or x.
    fn enter(self, pass: &mut Pass, x: &Var) -> Var {
        self.before.map_or_else(|| x.clone(), |norm| ops::add_norm(pass, x, None, norm, 0.0))
    }

    /// The residual connection: LN(x + dropout(output)), or x + dropout(output).
    fn leave(self, pass: &mut Pass, output: &Var, x: &Var, dropout: f32) -> Var {
        match self.after {
            Some(norm) => ops::add_norm(pass, output, Some(x), norm, dropout),
            None => ops::add(pass, output, x, dropout),
        }
    }
}

// ------------------------------------------------------------------------------------------------ embeddings and encoder

/// The index tensors of a packed batch on the device.
#[derive(Clone)]
pub(crate) struct Packed {
    /// `[T]` token ids.
    pub(crate) ids: Tensor,
    /// `[T]` rows of the position table.
    pub(crate) positions: Tensor,
    /// `[T]` 0 or 1; not read if there are no segments.
    pub(crate) segments: Tensor,
    /// `[S+1]` the first token of each sequence, then T.
    pub(crate) cu_seqlens: Tensor,
}

impl Bert {
    /// x⁰ = dropout(LN(E_word[id] + E_position[position] + E_segment[segment])): section 3, figure 2. With a projection,
    /// x⁰·Wᵀ + b (Lan et al. 2020, section 3.1). Tables that a model does not have are left out. `[T, H]`
    pub(crate) fn embed(&self, pass: &mut Pass, batch: &Packed) -> Var {
        let sum = ops::embed(pass, &batch.ids, &batch.positions, &batch.segments, self.embeddings.tables);
        let normed = ops::add_norm(pass, &sum, None, self.embeddings.norm, 0.0);
        let dropped = ops::dropout(pass, &normed, self.architecture.dropouts.embeddings);
        match self.embedding_projection {
            Some(projection) => projection.apply(pass, &dropped, Activation::None),
            None => dropped,
        }
    }

    /// Layer `number` of the encoder: `[T, H]` → `[T, H]`, or `[R, H]` if only the tokens `rows` are needed. It is a
    /// checkpoint of the pass, so its activations may be recomputed.
    pub(crate) fn layer(
        &self,
        pass: &mut Pass,
        batch: &Packed,
        number: usize,
        x: &Var,
        rows: Option<&OutputRowsTensors>,
    ) -> Var {
        let (layer, batch, rows) = (self.layers[number], batch.clone(), rows.cloned());
        let settings = LayerSettings {
            architecture: self.architecture,
            window: self.architecture.window(number),
            distance_bias: self.distance_bias.clone(),
            rotation: self.rotation(pass.device(), number, batch.ids.count()),
            final_norm: self.final_norm.filter(|_| number + 1 == self.layers.len()),
            cross: None,
        };
        pass.checkpoint(x, move |pass, x| layer.apply(pass, &settings, &batch, x, rows.as_ref()))
    }

    /// Layer `number` as that of a decoder: causal, and with a cross-attention after the self-attention. `[T, H]` → `[T, H]`.
    /// Its activations are kept for the backward pass.
    pub(crate) fn decoder_layer(&self, pass: &mut Pass, batch: &Packed, number: usize, x: &Var, cross: Cross) -> Var {
        let settings = LayerSettings {
            architecture: Architecture { causal: true, ..self.architecture },
            window: self.architecture.window(number),
            distance_bias: None,
            rotation: self.rotation(pass.device(), number, batch.ids.count()),
            final_norm: self.final_norm.filter(|_| number + 1 == self.layers.len()),
            cross: Some(cross),
        };
        self.layers[number].apply(pass, &settings, batch, x, None)
    }

    /// The rotations of positions in layer `number` for a batch of this number of tokens; `None` for positions from a table.
    fn rotation(&self, device: &Device, number: usize, tokens: usize) -> Option<Rotation> {
        let Rotary { global_theta, local_theta } = self.architecture.rotary?;
        let is_local = self.architecture.window(number).is_some();
        // A sequence has at most the batch's tokens. A config.json may allow any number of positions.
        let has_many = tokens > FEW_POSITIONS;
        let positions =
            if has_many { self.architecture.positions } else { self.architecture.positions.min(FEW_POSITIONS) };
        let (width, theta) = (self.architecture.head_size(), if is_local { local_theta } else { global_theta });
        let rotation = &self.rotations[usize::from(has_many)][usize::from(is_local)];
        Some(rotation.get_or_init(|| Rotation::new(device, positions, width, theta)).clone())
    }
}

impl Bert {
    /// The queries, keys and values of layer `number` from its input `[T, H]`, before rotations: `[T, 3H]`.
    pub(crate) fn queries_keys_values(&self, pass: &mut Pass, number: usize, x: &Var) -> Var {
        let attention = &self.layers[number].attention;
        let x = attention.norms.enter(pass, x);
        attention.qkv.apply(pass, &x, Activation::None)
    }

    /// As [`queries_keys_values`](Self::queries_keys_values), after rotations by these positions `[T]`, as the attention
    /// compares them.
    pub(crate) fn rotated_queries_keys_values(
        &self,
        pass: &mut Pass,
        number: usize,
        x: &Var,
        positions: &Tensor,
    ) -> Var {
        let qkv = self.queries_keys_values(pass, number, x);
        match self.rotation(pass.device(), number, positions.count()) {
            Some(rotation) => ops::rope(pass, &qkv, positions, &rotation, self.architecture.attention_heads),
            None => qkv,
        }
    }

    /// What is added to the attention scores of all layers.
    pub(crate) fn distance_bias(&self) -> Option<&DistanceBias> {
        self.distance_bias.as_ref()
    }

    /// The keys that a token sees in layer `number`.
    pub(crate) fn visible(&self, number: usize) -> Visible {
        Visible { causal: self.architecture.causal, window: self.architecture.window(number) }
    }
}

/// What a layer uses in addition to its own parameters.
struct LayerSettings {
    architecture: Architecture,
    window: Option<usize>,
    distance_bias: Option<DistanceBias>,
    rotation: Option<Rotation>,
    /// After the last layer.
    final_norm: Option<Norm>,
    /// Of a decoder.
    cross: Option<Cross>,
}

/// The cross-attention of a decoder's layer to one vector for each sequence: queries and keys have no effect.
#[derive(Clone, Copy)]
pub(crate) struct CrossAttention {
    pub(crate) value: [ParamId; 2],
    pub(crate) output: [ParamId; 2],
    /// After the block; none in a network with norms before the blocks, where it would only change queries.
    pub(crate) norm: Option<[ParamId; 2]>,
}

/// A cross-attention and what it attends to.
#[derive(Clone)]
pub(crate) struct Cross {
    pub(crate) attention: CrossAttention,
    /// `[S, H]`
    pub(crate) vectors: Var,
    /// `[T]` the sequence of each token.
    pub(crate) sequences: Tensor,
}

impl Cross {
    /// LN(y + dropout(c)), or y + dropout(c), with c = (s·Wvᵀ + bv)·Woᵀ + bo of the token's sequence s, which is
    /// softmax(q·kᵀ)·v·Woᵀ + bo if s is the only key. `[T, H]` → `[T, H]`
    fn apply(&self, pass: &mut Pass, architecture: &Architecture, y: &Var) -> Var {
        let CrossAttention { value, output, norm } = self.attention;
        let dense = |[weight, bias]: [ParamId; 2]| Dense { weight, bias: Some(bias) };
        let value = dense(value).apply(pass, &self.vectors, Activation::None);
        let attended = dense(output).apply(pass, &value, Activation::None);
        let of_tokens = ops::index_select(pass, &attended, &self.sequences);
        let eps = architecture.layer_norm_eps;
        let norms = Norms { before: None, after: norm.map(|[gamma, beta]| Norm { gamma, beta: Some(beta), eps }) };
        norms.leave(pass, &of_tokens, y, architecture.dropouts.attention_output)
    }
}

impl Layer {
    /// Post-norm as in Vaswani et al. 2017, section 3.1: LN(x + block(x)), twice. Pre-norm as in Xiong et al. 2020: x +
    /// block(LN(x)), twice.
    fn apply(
        &self,
        pass: &mut Pass,
        settings: &LayerSettings,
        batch: &Packed,
        x: &Var,
        rows: Option<&OutputRowsTensors>,
    ) -> Var {
        let Layer { attention, feed_forward } = self;
        let LayerSettings { architecture, final_norm, cross, .. } = settings;

        // a_n = dropout(softmax(q_n·k_nᵀ / √D + bias))·v_n within each sequence, heads side by side [T, H]
        // y = LN(x + dropout(a·Woᵀ + bo))                                                      [T, H]
        let (x, attended) = attention.apply(pass, settings, batch, x, rows);
        let projected = attention.output.apply(pass, &attended, Activation::None);
        let y = attention.norms.leave(pass, &projected, &x, architecture.dropouts.attention_output);
        let y = cross.as_ref().map_or_else(|| y.clone(), |cross| cross.apply(pass, architecture, &y));

        // z = LN(y + dropout(gelu(y·W1ᵀ + b1)·W2ᵀ + b2))                                       [T, F] → [T, H]
        let input = feed_forward.norms.enter(pass, &y);
        let fed = feed_forward.apply(pass, architecture, &input);
        let z = feed_forward.norms.leave(pass, &fed, &y, architecture.dropouts.output);
        final_norm.map_or_else(|| z.clone(), |norm| ops::add_norm(pass, &z, None, norm, 0.0))
    }
}

impl Attention {
    /// The inputs x and attention outputs a, of all tokens or only of `rows`.
    fn apply(
        &self,
        pass: &mut Pass,
        settings: &LayerSettings,
        batch: &Packed,
        x: &Var,
        rows: Option<&OutputRowsTensors>,
    ) -> (Var, Var) {
        let LayerSettings { window, rotation, distance_bias, .. } = settings;
        let Architecture { attention_heads: heads, causal, dropouts, .. } = settings.architecture;
        let dropout = dropouts.attention;
        let visible = Visible { causal, window: *window };

        // Queries of only some tokens see all keys, without rotations and biases.
        let is_plain = visible == Visible::ALL && rotation.is_none() && distance_bias.is_none();
        if let (Some(OutputRowsTensors { tokens, ends }), Some([query, key_value]), true, None) =
            (rows, self.query_and_key_value, is_plain, self.norms.before)
        {
            let selected = ops::index_select(pass, x, tokens);
            let kv = key_value.apply(pass, x, Activation::None);
            let q = query.apply(pass, &selected, Activation::None);
            let attended = ops::attention_queries(pass, [&q, &kv], [ends, &batch.cu_seqlens], heads, dropout);
            return (selected, attended);
        }

        // q, k, v = x·Wqᵀ + bq, x·Wkᵀ + bk, x·Wvᵀ + bv                                        [T, 3H]
        let input = self.norms.enter(pass, x);
        let mut qkv = self.qkv.apply(pass, &input, Activation::None);
        if let Some(rotation) = rotation {
            qkv = ops::rope(pass, &qkv, &batch.positions, rotation, heads);
        }
        let attended = ops::attention(pass, &qkv, &batch.cu_seqlens, heads, dropout, visible, distance_bias.as_ref());
        match rows {
            Some(rows) => (ops::index_select(pass, x, &rows.tokens), ops::index_select(pass, &attended, &rows.tokens)),
            None => (x.clone(), attended),
        }
    }
}

// ------------------------------------------------------------------------------------------------ heads

impl Bert {
    /// C = tanh(x_[CLS]·Wᵀ + b), the representation of a sequence, from the state of its first token: `[S, H]`; `None`
    /// without a pooler.
    pub(crate) fn pool(&self, pass: &mut Pass, cls: &Var) -> Option<Var> {
        Some(self.pooler?.apply(pass, cls, Activation::Tanh))
    }

    /// Logits of "B follows A" (class 0) and "B does not" (class 1): dropout(C)·Wᵀ + b, `[S, 2]`; `None` without this
    /// head. BERT has no dropout here.
    pub(crate) fn nsp_logits(&self, pass: &mut Pass, cls: &Var) -> Option<Var> {
        let head = self.nsp?;
        let pooled = self.pool(pass, cls)?;
        let dropped = ops::dropout(pass, &pooled, self.architecture.dropouts.pair);
        Some(head.apply(pass, &dropped, Activation::None))
    }

    /// What the head of a task reads of each token, from its [features](crate::Features): their concatenation or weighted
    /// sum. `[R, H]` each → `[R, W]`; `None` without a task head.
    pub(crate) fn joined_features(&self, pass: &mut Pass, states: &[Var]) -> Option<Var> {
        Some(match (self.task.as_ref()?.mix, states) {
            (Some(mix), states) => ops::scalar_mix(pass, states, mix),
            (None, [only]) => only.clone(),
            (None, several) => ops::concat(pass, several),
        })
    }

    /// The outputs of the BiLSTM, of both directions side by side: `[T, W]` → `[T, 2U]`; `None` without a task head.
    pub(crate) fn bilstm(&self, pass: &mut Pass, features: &Var, cu_seqlens: &Tensor) -> Option<Var> {
        let layers = &self.task.as_ref()?.bilstm;
        Some(layers.iter().fold(features.clone(), |x, layer| ops::bilstm(pass, &x, cu_seqlens, *layer)))
    }

    /// The features of a sequence's label or a choice's score, from the state of the token that represents it: `[S, H]`.
    pub(crate) fn sequence_features(
        &self,
        pass: &mut Pass,
        cls: &Var,
        head: SequenceHead,
        dropout: f32,
    ) -> Option<Var> {
        let dense = match head.dense {
            Module::Pooler => self.pooler?,
            Module::PredictionDense => return self.transformed(pass, cls),
            _ => self.task.as_ref()?.dense?,
        };
        match head.drops_input {
            true => {
                let dropped = ops::dropout(pass, cls, dropout);
                Some(dense.apply(pass, &dropped, head.activation))
            }
            false => Some(dense.apply(pass, cls, head.activation)),
        }
    }

    /// dropout(x)·Wᵀ + b: the logits of each row, which is a sequence or a token; `None` without a task head.
    pub(crate) fn task_logits(&self, pass: &mut Pass, x: &Var, dropout: f32) -> Option<Var> {
        let head = self.task.as_ref()?.output;
        let dropped = ops::dropout(pass, x, dropout);
        Some(head.apply(pass, &dropped, Activation::None))
    }

    /// Logits of "replaced" for the last states of R tokens: act(x·Wᵀ + b)·wᵀ + b' (Clark et al. 2020, section 2),
    /// `[R, 1]`; `None` without this head.
    pub(crate) fn rtd_logits(&self, pass: &mut Pass, states: &Var) -> Option<Var> {
        let head = self.rtd.as_ref()?;
        let dense = head.dense.apply(pass, states, self.architecture.activation);
        Some(head.output.apply(pass, &dense, Activation::None))
    }

    /// t = LN(gelu(x_m·Wᵀ + b)), what the MLM head's decoder reads, from the last states of M tokens: `[M, E]`; `None`
    /// without this head.
    pub(crate) fn mlm_features(&self, pass: &mut Pass, states: &Var) -> Option<Var> {
        self.mlm.as_ref()?;
        self.transformed(pass, states)
    }

    /// LN(act(x·Wᵀ + b)): `[R, H]` → `[R, E]`; `None` without such a head.
    fn transformed(&self, pass: &mut Pass, states: &Var) -> Option<Var> {
        let Transform { dense, norm } = self.transform.as_ref()?;
        let active = dense.apply(pass, states, self.architecture.mlm_activation);
        Some(ops::add_norm(pass, &active, None, *norm, 0.0))
    }

    /// Logits over the vocabulary from [features](Self::mlm_features): t·Wᵀ + b with W the word embeddings or a separate
    /// matrix, `[M, V]`; `None` without this head.
    pub(crate) fn mlm_logits(&self, pass: &mut Pass, features: &Var) -> Option<Var> {
        let head = self.mlm.as_ref()?;
        Some(ops::linear(pass, features, head.decoder, Some(head.bias), Activation::None))
    }

    /// The sum of −log p(label) over M tokens, from their [features](Self::mlm_features); its recorded gradient is
    /// multiplied by `scale`. `None` without this head.
    pub(crate) fn mlm_loss(&self, pass: &mut Pass, features: &Var, labels: &Tensor, scale: f32) -> Option<LossSum> {
        let head = self.mlm.as_ref()?;
        Some(ops::linear_cross_entropy(pass, features, head.decoder, head.bias, labels, scale))
    }

    /// The KL divergence from a teacher's distributions over the vocabulary, from [features](Self::mlm_features); its
    /// recorded gradient is multiplied by `scale`. See [`ops::linear_kl`]. `None` without this head.
    pub(crate) fn mlm_kl(
        &self,
        pass: &mut Pass,
        features: &Var,
        targets: TargetLogits<'_>,
        temperature: f32,
        scale: f32,
    ) -> Option<LossSum> {
        let head = self.mlm.as_ref()?;
        Some(ops::linear_kl(pass, features, [head.decoder, head.bias], targets, temperature, scale))
    }

    /// As [`mlm_loss`](Self::mlm_loss), and a token for each of the M tokens, sampled from the model's distribution.
    pub(crate) fn mlm_loss_and_samples(
        &self,
        pass: &mut Pass,
        features: &Var,
        labels: &Tensor,
        scale: f32,
        key: DropoutKey,
    ) -> Option<(LossSum, Vec<i32>)> {
        let head = self.mlm.as_ref()?;
        let logits = pass.no_grad(|pass| ops::linear(pass, features, head.decoder, Some(head.bias), Activation::None));
        let samples = ops::multinomial(pass.device(), logits.value(), key);
        Some((self.mlm_loss(pass, features, labels, scale)?, samples))
    }
}
