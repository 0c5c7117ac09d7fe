//! BERT (Devlin et al. 2019): embeddings, encoder, pooler and the two pre-training heads, in the paper's order.
//!
//! ```text
//! T tokens of the packed batch · S sequences · M predicted tokens · H hidden · N heads · D = H/N · F feed-forward · V words
//! ```
//!
//! Every parameter is declared here once, under the name that Transformers' `BertForPreTraining` gives it, with its shape,
//! its initialiser and whether weight decay applies: matrices decay, the embeddings among them; biases and LayerNorms do not.

use std::collections::BTreeSet;

use cloze_engine::ops::{self, Activation, EmbedTables, LossSum, Norm};
use cloze_engine::{Init, ParamId, ParametersBuilder, Pass, Tensor, Var};

use crate::config::Config;
use crate::heads::{Heads, TaskHead};
use crate::wanted::Asking;

/// The parameters of a dense layer: weight `[out, in]`, bias `[out]`.
#[derive(Clone, Copy)]
struct Dense {
    weight: ParamId,
    bias: ParamId,
}

impl Dense {
    /// act(x·Wᵀ + b): `[rows, in]` → `[rows, out]`.
    fn apply(self, pass: &mut Pass, x: &Var, act: Activation) -> Var {
        ops::linear(pass, x, self.weight, Some(self.bias), act)
    }
}

/// The parameters of the whole network, by their place in it.
pub(crate) struct Bert {
    tables: EmbedTables,
    embedding_norm: Norm,
    layers: Vec<Layer>,
    pooler: Option<Dense>,
    mlm: Option<MlmHead>,
    nsp: Option<Dense>,
    task: Option<Dense>,
}

/// One encoder layer.
#[derive(Clone, Copy)]
struct Layer {
    /// Query, key and value as one matrix `[3H, H]`.
    qkv: Dense,
    /// Its first third.
    query: Dense,
    /// The others, `[2H, H]`.
    key_value: Dense,
    attention_output: Dense,
    attention_norm: Norm,
    intermediate: Dense,
    output: Dense,
    output_norm: Norm,
    /// Whether a token sees only those before it: never in BERT.
    causal: bool,
}

/// The masked-language-model head; its decoder is the word embeddings.
struct MlmHead {
    transform: Dense,
    norm: Norm,
    bias: ParamId,
}

// ------------------------------------------------------------------------------------------------ parameters

/// Declares parameters to the engine and lists their names and shapes, which loading compares with a file's
/// before anything is allocated.
pub(crate) struct Declarations {
    pub(crate) builder: ParametersBuilder,
    /// Name and shape, in order of declaration.
    pub(crate) listed: Vec<(String, Vec<usize>)>,
    start: Start,
    std: f32,
    eps: f32,
}

/// Where the first weights come from.
#[derive(Clone, PartialEq)]
pub(crate) enum Start {
    /// Drawn at random.
    Drawn,
    /// Copied from a file, so that drawing them would be wasted; those that the file lacks are drawn.
    Copied {
        /// The names of those that the file lacks.
        but: BTreeSet<String>,
    },
}

impl Declarations {
    /// An empty list for a model of this configuration.
    pub(crate) fn new(builder: ParametersBuilder, config: &Config, start: Start) -> Declarations {
        let (std, eps) = (config.initializer_range as f32, config.layer_norm_eps as f32);
        Declarations { builder, listed: Vec::new(), start, std, eps }
    }

    fn declare(&mut self, name: String, shape: &[usize], init: Init, decay: bool) -> ParamId {
        let copied = matches!(&self.start, Start::Copied { but } if !but.contains(&name));
        let init = if copied { Init::Zeros } else { init };
        let id = self.builder.declare(&name, shape, init, decay);
        self.listed.push((name, shape.to_vec()));
        id
    }

    /// N(0, σ²) cut at 2σ, as Google's release; Transformers draws uncut. The [PAD] row is not special.
    fn matrix(&mut self, name: String, shape: [usize; 2]) -> ParamId {
        self.declare(name, &shape, Init::TruncatedNormal { std: self.std }, true)
    }

    fn bias(&mut self, name: String, size: usize) -> ParamId {
        self.declare(name, &[size], Init::Zeros, false)
    }

    fn dense(&mut self, name: &str, [outputs, inputs]: [usize; 2]) -> Dense {
        let weight = self.matrix(format!("{name}.weight"), [outputs, inputs]);
        let bias = self.bias(format!("{name}.bias"), outputs);
        Dense { weight, bias }
    }

    /// Several dense layers on one input, whose weights follow each other, and then their biases: they can be [stacked](Self::stack).
    fn dense_row<const N: usize>(&mut self, names: [String; N], shape: [usize; 2]) -> [Dense; N] {
        let weights = names.each_ref().map(|name| self.matrix(format!("{name}.weight"), shape));
        let biases = names.map(|name| self.bias(format!("{name}.bias"), shape[0]));
        std::array::from_fn(|i| Dense { weight: weights[i], bias: biases[i] })
    }

    /// Layers of a row seen as one: weights stacked by rows, biases end to end.
    fn stack(&mut self, layers: &[Dense]) -> Dense {
        let [weights, biases] = [|layer: &Dense| layer.weight, |layer: &Dense| layer.bias]
            .map(|part| layers.iter().map(part).collect::<Vec<ParamId>>());
        Dense { weight: self.builder.stack(&weights), bias: self.builder.stack(&biases) }
    }

    fn norm(&mut self, name: &str, size: usize) -> Norm {
        let gamma = self.declare(format!("{name}.weight"), &[size], Init::Ones, false);
        let beta = self.bias(format!("{name}.bias"), size);
        Norm { gamma, beta, eps: self.eps }
    }
}

impl Bert {
    /// Declares the network of this configuration with these heads.
    pub(crate) fn declare(to: &mut Declarations, config: &Config, heads: Heads) -> Bert {
        let (h, f) = (config.hidden_size, config.intermediate_size);
        let table =
            |to: &mut Declarations, name: &str, rows| to.matrix(format!("bert.embeddings.{name}.weight"), [rows, h]);
        let tables = EmbedTables {
            word: table(to, "word_embeddings", config.vocab_size),
            position: table(to, "position_embeddings", config.max_position_embeddings),
            segment: table(to, "token_type_embeddings", config.type_vocab_size),
        };
        let embedding_norm = to.norm("bert.embeddings.LayerNorm", h);
        let layers = (0..config.num_hidden_layers)
            .map(|number| {
                let at = format!("bert.encoder.layer.{number}");
                let parts = ["query", "key", "value"].map(|part| format!("{at}.attention.self.{part}"));
                let parts = to.dense_row(parts, [h, h]);
                Layer {
                    qkv: to.stack(&parts),
                    query: parts[0],
                    key_value: to.stack(&parts[1..]),
                    attention_output: to.dense(&format!("{at}.attention.output.dense"), [h, h]),
                    attention_norm: to.norm(&format!("{at}.attention.output.LayerNorm"), h),
                    intermediate: to.dense(&format!("{at}.intermediate.dense"), [f, h]),
                    output: to.dense(&format!("{at}.output.dense"), [h, f]),
                    output_norm: to.norm(&format!("{at}.output.LayerNorm"), h),
                    causal: false,
                }
            })
            .collect();
        let pooler = heads.pooler.then(|| to.dense("bert.pooler.dense", [h, h]));
        let mlm = heads.mlm.then(|| MlmHead {
            transform: to.dense("cls.predictions.transform.dense", [h, h]),
            norm: to.norm("cls.predictions.transform.LayerNorm", h),
            bias: to.bias("cls.predictions.bias".to_owned(), config.vocab_size),
        });
        let nsp = heads.nsp.then(|| to.dense("cls.seq_relationship", [2, h]));
        let task = heads.task.map(|task: TaskHead| to.dense(task.tensors(), task.shape(h)));
        Bert { tables, embedding_norm, layers, pooler, mlm, nsp, task }
    }
}

// ------------------------------------------------------------------------------------------------ embeddings and encoder

/// The index tensors of a packed batch on the device.
#[derive(Clone)]
pub(crate) struct Packed {
    /// `[T]` word ids.
    pub(crate) ids: Tensor,
    /// `[T]` 0.. within each sequence.
    pub(crate) positions: Tensor,
    /// `[T]` 0 or 1.
    pub(crate) segments: Tensor,
    /// `[S+1]` first token of each sequence, then T.
    pub(crate) cu_seqlens: Tensor,
}

impl Bert {
    /// x⁰ = dropout(LN(E_word[id] + E_position[position] + E_segment[segment])): section 3, figure 2. `[T, H]`
    pub(crate) fn embed(&self, pass: &mut Pass, config: &Config, batch: &Packed) -> Var {
        let sum = ops::embed(pass, &batch.ids, &batch.positions, &batch.segments, self.tables);
        let normed = ops::add_norm(pass, &sum, None, self.embedding_norm, 0.0);
        ops::dropout(pass, &normed, config.hidden_dropout_prob as f32)
    }

    /// Layer `number` of the encoder: `[T, H]` → `[T, H]`, or `[R, H]` of the tokens that are asked for. A segment of the pass: all of
    /// it may be computed again.
    pub(crate) fn layer(
        &self,
        pass: &mut Pass,
        config: &Config,
        batch: &Packed,
        number: usize,
        x: &Var,
        asking: Option<&Asking>,
    ) -> Var {
        let (layer, config, batch, asking) = (self.layers[number], config.clone(), batch.clone(), asking.cloned());
        pass.segment(x, move |pass, x| layer.apply(pass, &config, &batch, x, asking.as_ref()))
    }
}

#[cfg(test)]
impl Bert {
    /// As the left-to-right ablation (Devlin et al. 2019, section 5.1).
    pub(crate) fn see_earlier_tokens_alone(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.causal = true);
    }
}

impl Layer {
    /// Post-norm, as Vaswani et al. 2017 section 3.1: LN(x + sublayer(x)), twice.
    fn apply(&self, pass: &mut Pass, config: &Config, batch: &Packed, x: &Var, asking: Option<&Asking>) -> Var {
        let dropout = config.hidden_dropout_prob as f32;

        // a_n = dropout(softmax(q_n·k_nᵀ / √D))·v_n within each sequence, heads side by side  [T, H]
        // y = LN(x + dropout(a·Woᵀ + bo))                                                      [T, H]
        let (x, attended) = self.attend(pass, config, batch, x, asking);
        let projected = self.attention_output.apply(pass, &attended, Activation::None);
        let y = ops::add_norm(pass, &projected, Some(&x), self.attention_norm, dropout);

        // z = LN(y + dropout(gelu(y·W1ᵀ + b1)·W2ᵀ + b2))                                       [T, F] → [T, H]
        let inner = self.intermediate.apply(pass, &y, config.hidden_act.activation());
        let fed = self.output.apply(pass, &inner, Activation::None);
        ops::add_norm(pass, &fed, Some(&y), self.output_norm, dropout)
    }

    /// x and a, of the tokens that are asked for if not of all.
    fn attend(&self, pass: &mut Pass, config: &Config, batch: &Packed, x: &Var, asking: Option<&Asking>) -> (Var, Var) {
        let (heads, dropout) = (config.num_attention_heads, config.attention_probs_dropout_prob as f32);

        // q, k, v = x·Wqᵀ + bq, x·Wkᵀ + bk, x·Wvᵀ + bv                                        [T, 3H]
        let of_all = |pass: &mut Pass| {
            let qkv = self.qkv.apply(pass, x, Activation::None);
            ops::attention(pass, &qkv, &batch.cu_seqlens, heads, dropout, self.causal)
        };
        let Some(Asking { tokens, ends }) = asking else {
            return (x.clone(), of_all(pass));
        };
        if self.causal {
            let attended = of_all(pass);
            return (ops::take_rows(pass, x, tokens), ops::take_rows(pass, &attended, tokens));
        }
        let asked = ops::take_rows(pass, x, tokens);
        let kv = self.key_value.apply(pass, x, Activation::None);
        let q = self.query.apply(pass, &asked, Activation::None);
        let attended = ops::attention_of(pass, [&q, &kv], [ends, &batch.cu_seqlens], heads, dropout);
        (asked, attended)
    }
}

// ------------------------------------------------------------------------------------------------ heads

impl Bert {
    /// C = tanh(x_[CLS]·Wᵀ + b), the sequence's representation, from its first token's state: `[S, H]`; none without a pooler.
    pub(crate) fn pool(&self, pass: &mut Pass, first: &Var) -> Option<Var> {
        Some(self.pooler?.apply(pass, first, Activation::Tanh))
    }

    /// Whether B follows A (class 0) or not (class 1): C·Wᵀ + b, `[S, 2]`; none without the head.
    pub(crate) fn nsp_logits(&self, pass: &mut Pass, pooled: Option<&Var>) -> Option<Var> {
        Some(self.nsp?.apply(pass, pooled?, Activation::None))
    }

    /// dropout(x)·Wᵀ + b: the logits of each row, a sequence or a token; none without a task's head.
    pub(crate) fn task_logits(&self, pass: &mut Pass, x: &Var, dropout: f64) -> Option<Var> {
        let head = self.task?;
        let dropped = ops::dropout(pass, x, dropout as f32);
        Some(head.apply(pass, &dropped, Activation::None))
    }

    /// Logits of every word at the M predicted tokens: t·E_wordᵀ + b, `[M, V]`; none without the head.
    pub(crate) fn mlm_logits(&self, pass: &mut Pass, config: &Config, last: &Var, rows: &Tensor) -> Option<Var> {
        let head = self.mlm.as_ref()?;
        let transformed = head.transform(pass, config, last, rows);
        Some(ops::linear(pass, &transformed, self.tables.word, Some(head.bias), Activation::None))
    }

    /// The sum of −log p(label) over the M predicted tokens, its gradient scaled; none without the head.
    pub(crate) fn mlm_loss(
        &self,
        pass: &mut Pass,
        config: &Config,
        last: &Var,
        [rows, labels]: [&Tensor; 2],
        scale: f32,
    ) -> Option<LossSum> {
        let head = self.mlm.as_ref()?;
        let transformed = head.transform(pass, config, last, rows);
        Some(ops::vocab_loss(pass, &transformed, self.tables.word, head.bias, labels, scale))
    }
}

impl MlmHead {
    /// t = LN(gelu(x_m·Wᵀ + b)) at the predicted tokens m: `[M, H]`.
    fn transform(&self, pass: &mut Pass, config: &Config, last: &Var, rows: &Tensor) -> Var {
        let chosen = ops::take_rows(pass, last, rows);
        let dense = self.transform.apply(pass, &chosen, config.hidden_act.activation());
        ops::add_norm(pass, &dense, None, self.norm, 0.0)
    }
}
