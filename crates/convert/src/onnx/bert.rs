//! BERT and its family as ONNX operators, in the order of the paper: the same network as `cloze_model`'s `bert.rs`, on padded
//! batches.
//!
//! ```text
//! B sequences · S tokens each, padding included · H hidden · N heads · D = H/N · F feed-forward · V vocabulary · L labels
//! ```
//!
//! The subgraphs are those that PyTorch's exporter creates from Transformers' `modeling_bert.py`. onnxruntime fuses GELU with
//! its bias, and the scaling with the product of the scores.

use cloze_engine::ops::{Activation, Rotation};
use cloze_model::architecture::{Rotary, SequenceHead, distance_bucket};
use cloze_model::role::{LayerPart, Table};
use cloze_model::{Architecture, BiLstmSize, Class, Model, Module, SequenceToken};

use super::Quantization;
use super::embedding::{self, Embedding, Pool};
use super::error::OnnxError;
use super::graph::{Graph, GraphBuilder};
use super::proto::{AttributeProto, Dimension, FLOAT, INT32, INT64};

/// The graph of the encoder and of the head that computes `output`.
///
/// With an `embedding`, the graph ends with its pooling and modules instead.
pub(super) fn build<'a>(
    model: &'a Model,
    architecture: &'a Architecture,
    output: Class,
    embedding: Option<&'a Embedding<'a>>,
    quantization: Option<Quantization>,
) -> Result<Graph<'a>, OnnxError> {
    let family = model.schema().family();
    if model.schema().class_name(output).is_none() {
        return Err(OnnxError::Family { family: family.title, output });
    }
    let root = family.model_type;
    let mut bert = Bert { graph: GraphBuilder::new(root, model, quantization), architecture, root, lengths: None };
    let inputs = bert.inputs(output);
    let of_task = output.is_task() && !architecture.task_input.is_direct();
    let top = match of_task {
        true => architecture.task_input.features.states(architecture.layers).into_iter().max().unwrap_or_default(),
        false => architecture.layers,
    };
    let mut hidden = bert.embed(&inputs)?;
    let mut states = vec![hidden.clone()];
    if top > 0 {
        let settings = bert.layer_settings(&inputs, top)?;
        for number in 0..top {
            hidden = bert.layer(number, &hidden, &settings)?;
            states.push(hidden.clone());
        }
    }
    if of_task {
        hidden = bert.task_input(&states, &inputs.attention_mask)?;
    }
    if let Some(embedding) = embedding {
        bert.embedding(embedding, &states, &inputs.attention_mask)?;
        return Ok(bert.graph.finish());
    }
    match output {
        Class::Encoder => bert.encoder(&hidden, model.heads.pooler)?,
        Class::MaskedLm | Class::CausalLm => bert.mlm(&hidden, &inputs.input_ids, "logits")?,
        Class::NextSentence => bert.nsp(&hidden, "logits")?,
        Class::Pretraining => {
            bert.mlm(&hidden, &inputs.input_ids, "prediction_logits")?;
            bert.nsp(&hidden, family.pair_logits)?;
        }
        Class::ReplacedTokens => bert.rtd(&hidden)?,
        Class::Classify => bert.classify(&hidden, &inputs.attention_mask)?,
        Class::Tag => bert.tag(&hidden)?,
        Class::Answer => bert.answer(&hidden)?,
        Class::Choose => bert.choose(&hidden, &inputs.attention_mask)?,
    }
    Ok(bert.graph.finish())
}

struct Bert<'a> {
    graph: GraphBuilder<'a>,
    architecture: &'a Architecture,
    /// The beginning of the names of nodes: the `model_type`.
    root: &'static str,
    /// The value with the lengths of the sequences, once it is needed.
    lengths: Option<String>,
}

/// The inputs as `[B, S]`.
struct Inputs {
    input_ids: String,
    attention_mask: String,
    /// Only if there is more than one segment.
    token_type_ids: Option<String>,
}

/// What all layers use: for layers whose tokens attend to all tokens, and for local ones.
struct LayerSettings {
    masks: [Option<String>; 2],
    /// Cosines and sines.
    rotations: [Option<[String; 2]>; 2],
}

fn named(name: &str) -> Dimension {
    Dimension::Named(name.to_owned())
}

fn batch() -> Dimension {
    named("batch_size")
}

fn choices() -> Dimension {
    named("num_choices")
}

fn length() -> Dimension {
    named("sequence_length")
}

fn fixed(size: usize) -> Dimension {
    Dimension::Fixed(size as i64)
}

// ------------------------------------------------------------------------------------------------ operators

impl Bert<'_> {
    fn node(&mut self, op_type: &str, name: String, inputs: &[&str]) -> String {
        self.graph.plain_node(op_type, name, inputs)
    }

    /// x·Wᵀ + b with the module's weight `[out, in]` and bias, if it has one.
    fn dense(&mut self, module: Module, x: &str, shape: [usize; 2]) -> Result<String, OnnxError> {
        let at = self.graph.module_node(module);
        let weight = self.graph.matrix(module.weight(), shape)?;
        if !self.architecture.has_bias(module) {
            return Ok(self.graph.product(at, x, weight));
        }
        let product = self.graph.product(format!("{at}.product"), x, weight);
        let bias = self.graph.weight(module.bias(), &shape[..1])?;
        Ok(self.node("Add", at, &[&product, &bias]))
    }

    fn norm(&mut self, module: Module, x: &str, width: usize) -> Result<String, OnnxError> {
        let at = self.graph.module_node(module);
        let mut parameters = vec![self.graph.weight(module.weight(), &[width])?];
        if self.architecture.has_bias(module) {
            parameters.push(self.graph.weight(module.bias(), &[width])?);
        }
        Ok(self.graph.layer_norm(at, x, &parameters, self.architecture.layer_norm_eps))
    }

    /// Sizes `start..end` of a tensor's shape; without an `end`, up to the last.
    fn shape(&mut self, name: &str, of: &str, start: i64, end: Option<i64>) -> String {
        let mut attributes = vec![AttributeProto::int("start", start)];
        attributes.extend(end.map(|end| AttributeProto::int("end", end)));
        self.graph.node("Shape", name.to_owned(), &[of], attributes)
    }

    /// Selects `index` along `axis` and removes the axis.
    fn gather(&mut self, name: String, x: &str, index: &str, axis: i64) -> String {
        self.graph.node("Gather", name, &[x, index], vec![AttributeProto::int("axis", axis)])
    }
}

// ------------------------------------------------------------------------------------------------ inputs

impl Bert<'_> {
    /// Declares the inputs. Choices, `[B, C, S]`, are reshaped to `[B·C, S]` first: each is processed independently.
    fn inputs(&mut self, output: Class) -> Inputs {
        let mut names = vec!["input_ids", "attention_mask"];
        // With one segment, all token types are 0; Transformers' exporters omit the input then.
        names.extend((self.architecture.segments > 1).then_some("token_type_ids"));
        let dims = match output {
            Class::Choose => vec![batch(), choices(), length()],
            _ => vec![batch(), length()],
        };
        names.iter().for_each(|name| self.graph.input(name, &dims));
        let mut values = match output {
            Class::Choose => {
                let inferred = self.graph.ints("any", &[-1]);
                let length = self.shape("choices.length", "input_ids", 2, None);
                let axis = vec![AttributeProto::int("axis", 0)];
                let flat = self.graph.node("Concat", "choices.flat_shape".to_owned(), &[&inferred, &length], axis);
                names.iter().map(|name| self.node("Reshape", format!("choices.{name}"), &[name, &flat])).collect()
            }
            _ => names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>(),
        }
        .into_iter();
        let (input_ids, attention_mask) = (values.next().unwrap_or_default(), values.next().unwrap_or_default());
        Inputs { input_ids, attention_mask, token_type_ids: values.next() }
    }

    /// (1 − mask)·min, `[B, 1, 1, S]`: added to the scores, it keeps those of real tokens and makes the weights of padding zero.
    /// The lowest finite float, not −∞, is used, so that a row of padding does not become NaN. With the biases of distances, if the
    /// model has them: `[B, N, S, S]`.
    fn mask(&mut self, inputs: &Inputs) -> Result<String, OnnxError> {
        let to_float = vec![AttributeProto::int("to", i64::from(FLOAT))];
        let mask = self.graph.node("Cast", "mask.float".to_owned(), &[&inputs.attention_mask], to_float);
        let axes = self.graph.ints("mask_axes", &[1, 2]);
        let mask = self.node("Unsqueeze", "mask.broadcast".to_owned(), &[&mask, &axes]);
        let one = self.graph.float("one", 1.0);
        let padding = self.node("Sub", "mask.padding".to_owned(), &[&one, &mask]);
        let lowest = self.graph.float("least", f32::MIN);
        let mask = self.node("Mul", "mask.scores".to_owned(), &[&padding, &lowest]);
        let mask = if self.architecture.causal { self.causal(&mask, &inputs.input_ids) } else { mask };
        match self.architecture.distance_buckets {
            Some(rows) => {
                let biases = self.distance_biases(rows, &inputs.input_ids)?;
                Ok(self.node("Add", "mask.biased".to_owned(), &[&mask, &biases]))
            }
            None => Ok(mask),
        }
    }

    /// The bias of each head for the distances of all pairs of tokens, `[1, N, S, S]`.
    fn distance_biases(&mut self, rows: usize, input_ids: &str) -> Result<String, OnnxError> {
        let architecture = self.architecture;
        let table = self.graph.weight(Module::DistanceBias.weight(), &[rows, architecture.attention_heads])?;
        let at = |part: &str| format!("distance.{part}");
        let apart = self.distances(input_ids);
        // From 0, which is the farthest pair.
        let farthest = architecture.max_sequence_length() as i64 - 1;
        let most = self.graph.int("farthest", farthest);
        let index = self.node("Add", at("index"), &[&apart, &most]);
        let buckets: Vec<i64> = (-farthest..=farthest).map(|distance| distance_bucket(distance) as i64).collect();
        let buckets = self.graph.ints("distance_buckets", &buckets);
        let bucket = self.gather(at("bucket"), &buckets, &index, 0);
        let biases = self.gather(at("biases"), &table, &bucket, 0); // [S, S, N]
        let perm = vec![AttributeProto::ints("perm", &[2, 0, 1])];
        let biases = self.graph.node("Transpose", at("heads"), &[&biases], perm);
        let axis = self.graph.ints("batch_axis", &[0]);
        Ok(self.node("Unsqueeze", at("batch"), &[&biases, &axis]))
    }

    /// The mask of local layers, `[B, 1, S, S]`: no token attends to tokens that are farther away than `window`. The smaller of
    /// both masks, not their sum, which would be −∞.
    fn local(&mut self, mask: &str, window: usize, input_ids: &str) -> String {
        let at = |part: &str| format!("mask.{part}");
        let apart = self.distances(input_ids);
        let distance = self.node("Abs", at("distance"), &[&apart]);
        let window = self.graph.int("window", window as i64);
        let is_far = self.node("Greater", at("is_far"), &[&distance, &window]);
        let lowest = self.graph.float("least", f32::MIN);
        let zero = self.graph.float("zero", 0.0);
        let far = self.node("Where", at("far"), &[&is_far, &lowest, &zero]);
        self.node("Min", at("local"), &[mask, &far])
    }

    /// The cosines and sines of the rotations of all positions, for heads of width D: `[S, D]`.
    fn rotation(&mut self, name: &str, theta: f64, input_ids: &str) -> [String; 2] {
        let at = |part: &str| format!("rotation.{name}.{part}");
        let width = self.architecture.head_size();
        let numbers = self.token_numbers(&at("positions"), input_ids);
        let to_float = vec![AttributeProto::int("to", i64::from(FLOAT))];
        let numbers = self.graph.node("Cast", at("float"), &[&numbers], to_float);
        let perm = vec![AttributeProto::ints("perm", &[1, 0])];
        let column = self.graph.node("Transpose", at("column"), &[&numbers], perm);
        let frequencies = (0..width / 2).map(|i| Rotation::frequency(i, width, theta)).collect();
        let frequencies = self.graph.floats(&at("frequencies"), frequencies);
        let half = self.node("Mul", at("half"), &[&column, &frequencies]);
        let axis = vec![AttributeProto::int("axis", -1)];
        let angles = self.graph.node("Concat", at("angles"), &[&half, &half], axis);
        [self.node("Cos", at("cos"), &[&angles]), self.node("Sin", at("sin"), &[&angles])]
    }

    /// The distances of all pairs of tokens (key minus query): `[S, S]`.
    fn distances(&mut self, input_ids: &str) -> String {
        let at = |part: &str| format!("distance.{part}");
        let keys = self.token_numbers(&at("keys"), input_ids);
        let perm = vec![AttributeProto::ints("perm", &[1, 0])];
        let queries = self.graph.node("Transpose", at("queries"), &[&keys], perm);
        self.node("Sub", at("apart"), &[&keys, &queries])
    }

    /// 0, 1, … up to the length of the batch: `[1, S]`. A batch that is longer than the model's positions fails.
    fn token_numbers(&mut self, at: &str, input_ids: &str) -> String {
        let all = self.graph.arange("position_ids", self.architecture.positions);
        let start = self.graph.ints("position_start", &[0]);
        let axis = self.graph.ints("token_axis", &[1]);
        let length = self.shape(&format!("{at}.length"), input_ids, 1, Some(2));
        self.node("Slice", at.to_owned(), &[&all, &start, &length, &axis])
    }
}

impl Bert<'_> {
    /// The mask in which a token attends only to itself and earlier tokens, `[B, 1, S, S]`. The smaller of both masks, not their
    /// sum, which would be −∞.
    fn causal(&mut self, mask: &str, input_ids: &str) -> String {
        let length = self.shape("mask.length", input_ids, 1, Some(2));
        let axis = vec![AttributeProto::int("axis", 0)];
        let square = self.graph.node("Concat", "mask.square".to_owned(), &[&length, &length], axis);
        let lowest = self.graph.float("least", f32::MIN);
        let all = self.node("Expand", "mask.everywhere".to_owned(), &[&lowest, &square]);
        let above = self.graph.int("above_the_diagonal", 1);
        let upper = vec![AttributeProto::int("upper", 1)];
        let later = self.graph.node("Trilu", "mask.later".to_owned(), &[&all, &above], upper);
        self.node("Min", "mask.causal".to_owned(), &[mask, &later])
    }

    /// The number of tokens of each sequence without padding, `[B]`.
    fn lengths(&mut self, attention_mask: &str) -> String {
        if let Some(lengths) = &self.lengths {
            return lengths.clone();
        }
        let axis = self.graph.ints("token_axis", &[1]);
        let keep = vec![AttributeProto::int("keepdims", 0)];
        let lengths = self.graph.node("ReduceSum", "lengths".to_owned(), &[attention_mask, &axis], keep);
        self.lengths.insert(lengths).clone()
    }
}

// ------------------------------------------------------------------------------------------------ embeddings and encoder

impl Bert<'_> {
    /// `x⁰ = LN(E_word[id] + E_position[position] + E_segment[segment])`, of the tables that the model has, and its projection if there
    /// is one: `[B, S, H]`.
    fn embed(&mut self, inputs: &Inputs) -> Result<String, OnnxError> {
        let Architecture { hidden_size: h, embedding_size: e, segments, .. } = *self.architecture;
        let root = self.root;
        let at = |part: &str| format!("{root}.embeddings.{part}");
        let table = |table| Module::Embedding(table).weight();
        let words = self.graph.matrix(table(Table::Word), [self.architecture.vocab_size, e])?;
        let mut sum = self.graph.lookup(at("word_embeddings"), words, &inputs.input_ids);
        if segments > 0 {
            let rows = self.graph.weight(table(Table::Segment), &[segments, e])?;
            // The only row of a table is added to all tokens.
            let segment = match &inputs.token_type_ids {
                Some(ids) => self.node("Gather", at("token_type_embeddings"), &[&rows, ids]),
                None => rows,
            };
            sum = self.node("Add", at("word_and_type"), &[&sum, &segment]);
        }
        if self.architecture.rotary.is_none() {
            let positions = self.graph.matrix(table(Table::Position), [self.architecture.positions, e])?;
            let position_ids = self.position_ids(inputs);
            let position = self.graph.lookup(at("position_embeddings"), positions, &position_ids);
            sum = self.node("Add", at("sum"), &[&sum, &position]);
        }
        let normed = self.norm(Module::EmbeddingNorm, &sum, e)?;
        match self.architecture.projects_embeddings {
            true => self.dense(Module::EmbeddingProjection, &normed, [h, e]),
            false => Ok(normed),
        }
    }

    /// Rows of the position table, `[1, S]` or `[B, S]`. A batch that is longer than the table fails.
    fn position_ids(&mut self, inputs: &Inputs) -> String {
        let root = self.root;
        let at = |part: &str| format!("{root}.embeddings.{part}");
        match self.architecture.position_padding {
            None => self.token_numbers(&at("position_ids"), &inputs.input_ids),
            // cumsum(id ≠ padding)·(id ≠ padding) + padding
            Some(padding) => {
                let padding = self.graph.int("padding_id", i64::from(padding));
                let axis = self.graph.int("position_axis", 1);
                let is_padding = self.node("Equal", at("is_padding"), &[&inputs.input_ids, &padding]);
                let is_token = self.node("Not", at("is_token"), &[&is_padding]);
                let to_int = vec![AttributeProto::int("to", i64::from(INT64))];
                let token = self.graph.node("Cast", at("token"), &[&is_token], to_int);
                let counted = self.node("CumSum", at("counted"), &[&token, &axis]);
                let counted = self.node("Mul", at("counted_tokens"), &[&counted, &token]);
                self.node("Add", at("position_ids"), &[&counted, &padding])
            }
        }
    }

    /// What all layers use: masks and rotations.
    fn layer_settings(&mut self, inputs: &Inputs, layers: usize) -> Result<LayerSettings, OnnxError> {
        let architecture = self.architecture;
        let all = self.mask(inputs)?;
        let [is_local, is_global] =
            [true, false].map(|local| (0..layers).any(|number| architecture.window(number).is_some() == local));
        let window = architecture.local.filter(|_| is_local).map(|local| local.window);
        let local = window.map(|window| self.local(&all, window, &inputs.input_ids));
        let mut rotations = [None, None];
        if let Some(Rotary { global_theta, local_theta }) = architecture.rotary {
            if is_global {
                rotations[0] = Some(self.rotation("global", global_theta, &inputs.input_ids));
            }
            if is_local {
                rotations[1] = Some(self.rotation("local", local_theta, &inputs.input_ids));
            }
        }
        Ok(LayerSettings { masks: [Some(all), local], rotations })
    }

    /// Layer `number`: LN(x + attention(x)), then LN(y + feed-forward(y)), or x + attention(LN(x)), then y + feed-forward(LN(y)). `[B,
    /// S, H]` → `[B, S, H]`
    fn layer(&mut self, number: usize, x: &str, settings: &LayerSettings) -> Result<String, OnnxError> {
        let h = self.architecture.hidden_size;
        let root = self.root;
        let at = |part: &str| format!("{root}.encoder.layer.{number}.{part}");
        let architecture = self.architecture;
        let module = |part| architecture.layer_module(number, part);
        let norm = |bert: &mut Self, part, x: &str| bert.norm(module(part), x, h);

        let input = match architecture.pre_norm && number > 0 {
            true => norm(self, LayerPart::AttentionNorm, x)?,
            false => x.to_owned(),
        };
        let attended = self.attention(number, &at("attention.self"), &input, settings)?;
        let projected = self.dense(module(LayerPart::AttentionOutput), &attended, [h, h])?;
        let mut y = self.node("Add", at("attention.output.sum"), &[&projected, x]);
        if !architecture.pre_norm {
            y = norm(self, LayerPart::AttentionNorm, &y)?;
        }

        let input = if architecture.pre_norm { norm(self, LayerPart::OutputNorm, &y)? } else { y.clone() };
        let fed = self.feed_forward(number, &at("intermediate"), &input)?;
        let sum = self.node("Add", at("output.sum"), &[&fed, &y]);
        match architecture.pre_norm {
            false => norm(self, LayerPart::OutputNorm, &sum),
            true if number + 1 == architecture.layers => self.norm(Module::FinalNorm, &sum, h),
            true => Ok(sum),
        }
    }

    /// gelu(y·W1ᵀ + b1)·W2ᵀ + b2, or (gelu(u) ∘ g)·W2ᵀ + b2 of y·W1ᵀ + b1 = \[u g\].
    fn feed_forward(&mut self, number: usize, at: &str, y: &str) -> Result<String, OnnxError> {
        let Architecture { hidden_size: h, intermediate_size: f, activation, gated, .. } = *self.architecture;
        let module = |part| self.architecture.layer_module(number, part);
        let output = module(LayerPart::Output);
        let inner = if gated {
            let both = self.dense(module(LayerPart::GatedIntermediate), y, [2 * f, h])?;
            let split = self.graph.ints("split_gate", &[0, 0, 2, f as i64]);
            let both = self.node("Reshape", format!("{at}.both"), &[&both, &split]);
            let [unit, gate] = [("first", 0, "linear"), ("second", 1, "multiplier")].map(|(constant, index, part)| {
                let index = self.graph.int(constant, index);
                self.gather(format!("{at}.{part}"), &both, &index, 2)
            });
            let active = self.graph.activation(activation, at, &unit);
            self.node("Mul", format!("{at}.unit"), &[&active, &gate])
        } else {
            let inner = self.dense(module(LayerPart::Intermediate), y, [f, h])?;
            self.graph.activation(activation, at, &inner)
        };
        self.dense(output, &inner, [h, f])
    }

    /// Queries, keys and values: `[B, S, H]` each, or `[B, S, N, D]` if they have one matrix.
    fn projections(&mut self, number: usize, at: &str, x: &str) -> Result<[String; 3], OnnxError> {
        let Architecture { hidden_size: h, attention_heads: n, fused_projections, .. } = *self.architecture;
        let module = |part| self.architecture.layer_module(number, part);
        if !fused_projections {
            let [q, k, v] = [LayerPart::Query, LayerPart::Key, LayerPart::Value].map(module);
            return Ok([self.dense(q, x, [h, h])?, self.dense(k, x, [h, h])?, self.dense(v, x, [h, h])?]);
        }
        let all = self.dense(module(LayerPart::QueryKeyValue), x, [3 * h, h])?;
        let split = self.graph.ints("split_projections", &[0, 0, 3, n as i64, (h / n) as i64]);
        let all = self.node("Reshape", format!("{at}.projections"), &[&all, &split]);
        Ok([("first", 0, "query"), ("second", 1, "key"), ("third", 2, "value")].map(|(constant, index, part)| {
            let index = self.graph.int(constant, index);
            self.gather(format!("{at}.{part}"), &all, &index, 2)
        }))
    }

    /// x cos + \[−x₂ x₁\] sin, where x₁ and x₂ are the halves of x: `[B, N, S, D]`.
    fn rotated(&mut self, x: &str, [cos, sin]: &[String; 2]) -> String {
        let width = self.architecture.head_size() as i64;
        let axis = self.graph.ints("width_axis", &[3]);
        let [start, middle, end] = [("width_start", 0), ("width_middle", width / 2), ("width_end", width)]
            .map(|(name, at)| self.graph.ints(name, &[at]));
        let first = self.node("Slice", format!("{x}.first"), &[x, &start, &middle, &axis]);
        let second = self.node("Slice", format!("{x}.second"), &[x, &middle, &end, &axis]);
        let negative = self.node("Neg", format!("{x}.negative"), &[&second]);
        let last = vec![AttributeProto::int("axis", -1)];
        let turned = self.graph.node("Concat", format!("{x}.turned"), &[&negative, &first], last);
        let kept = self.node("Mul", format!("{x}.cos"), &[x, cos]);
        let moved = self.node("Mul", format!("{x}.sin"), &[&turned, sin]);
        self.node("Add", format!("{x}.rotated"), &[&kept, &moved])
    }

    /// softmax(q·kᵀ / √D + mask)·v in each head, with the heads concatenated: `[B, S, H]` → `[B, S, H]`.
    fn attention(&mut self, number: usize, at: &str, x: &str, settings: &LayerSettings) -> Result<String, OnnxError> {
        let Architecture { hidden_size: h, attention_heads: n, .. } = *self.architecture;
        let d = self.architecture.head_size();
        // A size of 0 is copied from the input, so one shape works for all batches and lengths.
        let join = self.graph.ints("join_heads", &[0, 0, h as i64]);
        let root = self.graph.float("sqrt_head_size", (d as f32).sqrt());
        let perm = |axes: [i64; 4]| vec![AttributeProto::ints("perm", &axes)];

        let kind = usize::from(self.architecture.window(number).is_some());
        let mask = settings.masks[kind].as_deref().unwrap_or_default();
        let rotation = settings.rotations[kind].as_ref();
        let parts = self.projections(number, at, x)?;
        let transposed = |bert: &mut Self, projected: &str, axes: [i64; 4]| {
            bert.graph.node("Transpose", format!("{projected}.heads"), &[projected], perm(axes))
        };
        let [q, k, v] = parts.map(|projected| {
            if self.architecture.fused_projections {
                return projected;
            }
            let split = self.graph.ints("split_heads", &[0, 0, n as i64, d as i64]);
            self.node("Reshape", format!("{projected}.split"), &[&projected, &split])
        });
        let mut q = transposed(self, &q, [0, 2, 1, 3]); //  [B, N, S, D]
        let v = transposed(self, &v, [0, 2, 1, 3]); //      [B, N, S, D]
        let k = match rotation {
            None => transposed(self, &k, [0, 2, 3, 1]), //  [B, N, D, S]
            Some(rotation) => {
                let k = transposed(self, &k, [0, 2, 1, 3]);
                q = self.rotated(&q, rotation);
                let k = self.rotated(&k, rotation);
                transposed(self, &k, [0, 1, 3, 2])
            }
        };

        let scores = self.node("MatMul", format!("{at}.scores"), &[&q, &k]);
        let scaled = self.node("Div", format!("{at}.scaled"), &[&scores, &root]);
        let masked = self.node("Add", format!("{at}.masked"), &[&scaled, mask]);
        let axis = vec![AttributeProto::int("axis", -1)];
        let weights = self.graph.node("Softmax", format!("{at}.weights"), &[&masked], axis);
        let mixed = self.node("MatMul", format!("{at}.mixed"), &[&weights, &v]);
        let transposed = self.graph.node("Transpose", format!("{at}.transposed"), &[&mixed], perm([0, 2, 1, 3]));
        Ok(self.node("Reshape", format!("{at}.joined"), &[&transposed, &join]))
    }
}

// ------------------------------------------------------------------------------------------------ heads

impl Bert<'_> {
    /// Declares a value as an output with this name.
    fn publish(&mut self, value: &str, name: &str, dims: &[Dimension]) {
        let name = self.node("Identity", name.to_owned(), &[value]);
        self.graph.output(&name, dims);
    }

    /// The state of the first token: `[B, H]`.
    fn first_token(&mut self, hidden: &str) -> String {
        let zero = self.graph.int("first", 0);
        let name = format!("{}.pooler.first", self.root);
        self.gather(name, hidden, &zero, 1)
    }

    /// `tanh(x·Wᵀ + b)` of the \[CLS\] token: `[B, H]`.
    fn pool(&mut self, hidden: &str) -> Result<String, OnnxError> {
        let h = self.architecture.hidden_size;
        let first = self.first_token(hidden);
        let dense = self.dense(Module::Pooler, &first, [h, h])?;
        Ok(self.node("Tanh", format!("{}.pooler.tanh", self.root), &[&dense]))
    }

    /// The state of the last token, without padding: `[B, H]`.
    fn last_token(&mut self, hidden: &str, attention_mask: &str) -> String {
        let lengths = self.lengths(attention_mask);
        let one = self.graph.int("one_token", 1);
        let last = self.node("Sub", "last_token.number".to_owned(), &[&lengths, &one]);
        let axis = self.graph.ints("token_axis", &[1]);
        let last = self.node("Unsqueeze", "last_token.index".to_owned(), &[&last, &axis]);
        let batch = vec![AttributeProto::int("batch_dims", 1)];
        self.graph.node("GatherND", "last_token".to_owned(), &[hidden, &last], batch)
    }

    /// The logits of a sequence or a choice, from the token that represents it: `[B, L]`.
    fn sequence_head(
        &mut self,
        hidden: &str,
        attention_mask: &str,
        head: SequenceHead,
        labels: usize,
    ) -> Result<String, OnnxError> {
        let Architecture { hidden_size: h, task_input, .. } = *self.architecture;
        let mut features = match task_input.token {
            _ if self.architecture.mean_pooling && task_input.is_direct() => self.mean(hidden, attention_mask),
            SequenceToken::First => self.first_token(hidden),
            SequenceToken::Last => self.last_token(hidden, attention_mask),
        };
        if head.dense == Module::PredictionDense {
            features = self.token_features(&features)?;
        } else if task_input.is_direct() {
            let (at, activation) = match head.dense {
                Module::Pooler => (format!("{}.pooler", self.root), Activation::Tanh),
                _ => ("classifier.dense".to_owned(), head.activation),
            };
            let dense = self.dense(head.dense, &features, [h, h])?;
            features = self.graph.activation(activation, &at, &dense);
        }
        self.dense(head.output, &features, [labels, task_input.width(h)])
    }

    /// What the head of a task reads, from all hidden states: `[B, S, W]`.
    fn task_input(&mut self, states: &[String], attention_mask: &str) -> Result<String, OnnxError> {
        let Architecture { hidden_size: h, layers, task_input, .. } = *self.architecture;
        let chosen: Vec<&str> =
            task_input.features.states(layers).into_iter().map(|number| states[number].as_str()).collect();
        let features = match chosen.as_slice() {
            states if task_input.features.is_sum() => self.mixed(states)?,
            &[one] => one.to_owned(),
            several => {
                let axis = vec![AttributeProto::int("axis", -1)];
                self.graph.node("Concat", "classifier.features".to_owned(), several, axis)
            }
        };
        match task_input.bilstm {
            Some(size) => self.bilstm(&features, attention_mask, size, task_input.features.width(h)),
            None => Ok(features),
        }
    }

    /// The sum of states with their learned weights, γ Σ softmax(w)ₖ xₖ. The weights are constants of the graph.
    fn mixed(&mut self, states: &[&str]) -> Result<String, OnnxError> {
        let w = self.graph.values(Module::MixWeights.weight(), &[states.len()])?;
        let scale = self.graph.values(Module::MixScale.weight(), &[1])?[0];
        let most = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = w.iter().map(|w| (w - most).exp()).sum();
        let mut sum = String::new();
        for (number, (state, w)) in states.iter().zip(w.iter()).enumerate() {
            let share = self.graph.float(&format!("mix.{number}"), scale * (w - most).exp() / total);
            let part = self.node("Mul", format!("mix.part.{number}"), &[state, &share]);
            sum = if number == 0 { part } else { self.node("Add", format!("mix.{number}"), &[&sum, &part]) };
        }
        Ok(sum)
    }

    /// The outputs of both directions of a BiLSTM, side by side: `[B, S, 2U]`. Padding must follow the tokens.
    fn bilstm(
        &mut self,
        x: &str,
        attention_mask: &str,
        BiLstmSize { layers, size: u }: BiLstmSize,
        mut width: usize,
    ) -> Result<String, OnnxError> {
        let perm = |axes: &[i64]| vec![AttributeProto::ints("perm", axes)];
        let lengths = self.lengths(attention_mask);
        let to_int = vec![AttributeProto::int("to", i64::from(INT32))];
        let lengths = self.graph.node("Cast", "bilstm.lengths".to_owned(), &[&lengths], to_int);
        let join = self.graph.ints("join_directions", &[0, 0, 2 * u as i64]);
        let mut x = x.to_owned();
        for layer in 0..layers {
            let at = |part: &str| format!("bilstm.{layer}.{part}");
            let module = |reverse, recurrent| Module::BiLstm { layer, reverse, recurrent };
            // The gates are i, f, g, o in PyTorch, and i, o, f, g in ONNX.
            let gates = [0, 3, 1, 2];
            let (four, rows) = (4 * u, [2, 4 * u as i64]);
            let mut matrix = |recurrent, columns: usize, name: &str| {
                let shape: &[usize] = &[four, columns];
                let roles = [false, true].map(|reverse| (module(reverse, recurrent).weight(), shape));
                self.graph.reordered(&at(name), &roles, &gates, [&rows[..], &[columns as i64]].concat())
            };
            let weights = [matrix(false, width, "weight_ih")?, matrix(true, u, "weight_hh")?];
            let both = [(false, false), (false, true), (true, false), (true, true)];
            let shape: &[usize] = &[four];
            let biases = both.map(|(reverse, recurrent)| (module(reverse, recurrent).bias(), shape));
            let bias = self.graph.reordered(&at("bias"), &biases, &gates, vec![2, 8 * u as i64])?;

            let steps = self.graph.node("Transpose", at("steps"), &[&x], perm(&[1, 0, 2]));
            let attributes =
                vec![AttributeProto::int("hidden_size", u as i64), AttributeProto::text("direction", "bidirectional")];
            let inputs = [&steps, &weights[0], &weights[1], &bias, &lengths].map(String::as_str);
            let outputs = self.graph.node("LSTM", at("lstm"), &inputs, attributes); // [S, 2, B, U]
            let sequences = self.graph.node("Transpose", at("sequences"), &[&outputs], perm(&[2, 0, 1, 3]));
            x = self.node("Reshape", at("joined"), &[&sequences, &join]);
            width = 2 * u;
        }
        Ok(x)
    }

    /// The last hidden states and, if the model has a pooler, its output.
    fn encoder(&mut self, hidden: &str, pools: bool) -> Result<(), OnnxError> {
        let h = self.architecture.hidden_size;
        self.publish(hidden, "last_hidden_state", &[batch(), length(), fixed(h)]);
        if pools {
            let pooled = self.pool(hidden)?;
            self.publish(&pooled, "pooler_output", &[batch(), fixed(h)]);
        }
        Ok(())
    }

    /// LN(gelu(x·Wᵀ + b)), before the decoder or the output layer of a task: `[…, E]`.
    fn transform(&mut self, hidden: &str) -> Result<String, OnnxError> {
        let Architecture { hidden_size: h, embedding_size: e, mlm_activation, prediction_head, .. } =
            *self.architecture;
        let (dense, norm) = match prediction_head {
            true => (Module::PredictionDense, Module::PredictionNorm),
            false => (Module::MlmTransform, Module::MlmNorm),
        };
        let dense = self.dense(dense, hidden, [e, h])?;
        let active = self.graph.activation(mlm_activation, "cls.predictions.transform", &dense);
        self.norm(norm, &active, e)
    }

    /// What the head of a token's label reads: the state, or what the prediction head makes of it.
    fn token_features(&mut self, hidden: &str) -> Result<String, OnnxError> {
        match self.architecture.prediction_head && self.architecture.task_input.is_direct() {
            true => self.transform(hidden),
            false => Ok(hidden.to_owned()),
        }
    }

    /// The mean of the states of a sequence, without padding: `[B, H]`.
    fn mean(&mut self, hidden: &str, attention_mask: &str) -> String {
        let at = |part: &str| format!("mean.{part}");
        let to_float = || vec![AttributeProto::int("to", i64::from(FLOAT))];
        let mask = self.graph.node("Cast", at("mask"), &[attention_mask], to_float());
        let last = self.graph.ints("last_axis", &[2]);
        let mask = self.node("Unsqueeze", at("column"), &[&mask, &last]);
        let states = self.node("Mul", at("states"), &[hidden, &mask]);
        let axis = self.graph.ints("token_axis", &[1]);
        let keep = vec![AttributeProto::int("keepdims", 0)];
        let sum = self.graph.node("ReduceSum", at("sum"), &[&states, &axis], keep);
        let lengths = self.lengths(attention_mask);
        let lengths = self.graph.node("Cast", at("lengths"), &[&lengths], to_float());
        let lengths = self.node("Unsqueeze", at("divisor"), &[&lengths, &axis]);
        self.node("Div", "mean".to_owned(), &[&sum, &lengths])
    }

    /// LN(gelu(x·Wᵀ + b))·E_wordᵀ + b for every token: `[B, S, V]`. The product transposes the word embeddings while reading them
    /// (Gemm's `transB`), so they are stored once, and no runtime needs a transposed copy.
    fn mlm(&mut self, hidden: &str, input_ids: &str, output: &str) -> Result<(), OnnxError> {
        let Architecture { embedding_size: e, vocab_size: v, .. } = *self.architecture;
        let at = |part: &str| format!("cls.predictions.{part}");
        let normed = self.transform(hidden)?;

        let decoder = match self.architecture.tied_decoder {
            true => Module::Embedding(Table::Word),
            false => Module::MlmDecoder,
        };
        let bias = self.graph.weight(Module::MlmBias.bias(), &[v])?;
        if self.graph.quantizes() {
            let words = self.graph.matrix(decoder.weight(), [v, e])?;
            let product = match self.architecture.tied_decoder {
                true => self.graph.product_with_table(at("product"), &normed, words),
                false => self.graph.product(at("product"), &normed, words),
            };
            let logits = self.node("Add", at("logits"), &[&product, &bias]);
            self.publish(&logits, output, &[batch(), length(), fixed(v)]);
            return Ok(());
        }
        let words = self.graph.weight(decoder.weight(), &[v, e])?;
        // Gemm accepts only matrices: [B·S, E] in, [B·S, V] out.
        let rows = self.graph.ints("rows", &[-1, e as i64]);
        let flat = self.node("Reshape", at("rows"), &[&normed, &rows]);
        let transposed = vec![AttributeProto::int("transB", 1)];
        let logits = self.graph.node("Gemm", at("decoder"), &[&flat, &words, &bias], transposed);
        let tokens = self.shape(&at("tokens"), input_ids, 0, None);
        let width = self.graph.ints("vocab_size", &[v as i64]);
        let axis = vec![AttributeProto::int("axis", 0)];
        let full_shape = self.graph.node("Concat", at("shape"), &[&tokens, &width], axis);
        let logits = self.node("Reshape", at("logits"), &[&logits, &full_shape]);
        self.publish(&logits, output, &[batch(), length(), fixed(v)]);
        Ok(())
    }

    /// Whether the second segment follows the first (class 0) or not (class 1): `[B, 2]`.
    fn nsp(&mut self, hidden: &str, output: &str) -> Result<(), OnnxError> {
        let pooled = self.pool(hidden)?;
        let logits = self.dense(Module::NspHead, &pooled, [2, self.architecture.hidden_size])?;
        self.publish(&logits, output, &[batch(), fixed(2)]);
        Ok(())
    }

    /// The score of "replaced" for each token: `[B, S]`.
    fn rtd(&mut self, hidden: &str) -> Result<(), OnnxError> {
        let h = self.architecture.hidden_size;
        let dense = self.dense(Module::RtdDense, hidden, [h, h])?;
        let active = self.graph.activation(self.architecture.activation, "discriminator_predictions.dense", &dense);
        let scores = self.dense(Module::RtdOutput, &active, [1, h])?;
        let zero = self.graph.int("first", 0);
        let logits = self.gather(format!("{scores}.logits"), &scores, &zero, 2);
        self.publish(&logits, "logits", &[batch(), length()]);
        Ok(())
    }

    /// A label for each sequence: `[B, L]`.
    fn classify(&mut self, hidden: &str, attention_mask: &str) -> Result<(), OnnxError> {
        let head = self.architecture.classify;
        let labels = self.labels(head.output)?;
        let logits = self.sequence_head(hidden, attention_mask, head, labels)?;
        self.publish(&logits, "logits", &[batch(), fixed(labels)]);
        Ok(())
    }

    /// A label for each token: `[B, S, L]`.
    fn tag(&mut self, features: &str) -> Result<(), OnnxError> {
        let labels = self.labels(Module::Classifier)?;
        let features = self.token_features(features)?;
        let logits = self.dense(Module::Classifier, &features, [labels, self.width()])?;
        self.publish(&logits, "logits", &[batch(), length(), fixed(labels)]);
        Ok(())
    }

    /// The width of what the head of a task reads.
    fn width(&self) -> usize {
        self.architecture.task_input.width(self.architecture.hidden_size)
    }

    /// The number of labels of the classifier.
    fn labels(&self, output: Module) -> Result<usize, OnnxError> {
        let (role, expected) = (output.weight(), self.width());
        match *self.graph.shape(role)? {
            [labels, width] if labels > 0 && width == expected => Ok(labels),
            ref found => {
                let problem = format!("expected the shape [labels, {expected}], found {found:?}");
                Err(OnnxError::Tensor { name: self.graph.name(role), problem })
            }
        }
    }

    /// The scores of the answer's start and end: `[B, S]` each.
    fn answer(&mut self, hidden: &str) -> Result<(), OnnxError> {
        let output = if self.architecture.prediction_head { Module::Classifier } else { Module::SpanHead };
        let features = self.token_features(hidden)?;
        let both = self.dense(output, &features, [2, self.width()])?;
        for (number, output) in ["start_logits", "end_logits"].into_iter().enumerate() {
            let index = self.graph.int(output, number as i64);
            let logits = self.gather(format!("{both}.{output}"), &both, &index, 2);
            self.publish(&logits, output, &[batch(), length()]);
        }
        Ok(())
    }

    /// The score of each choice: `[B, C]`.
    fn choose(&mut self, hidden: &str, attention_mask: &str) -> Result<(), OnnxError> {
        let scores = self.sequence_head(hidden, attention_mask, self.architecture.choose, 1)?;
        let shape = self.shape("choices.shape", "input_ids", 0, Some(2));
        let logits = self.node("Reshape", "choices.scores".to_owned(), &[&scores, &shape]);
        self.publish(&logits, "logits", &[batch(), choices()]);
        Ok(())
    }
}

impl<'a> Bert<'a> {
    /// The vectors of all tokens, under both names that programs read, and the vector of each text. `states` are those of the
    /// embeddings and of each layer.
    fn embedding(
        &mut self,
        embedding: &'a Embedding<'a>,
        states: &[String],
        attention_mask: &str,
    ) -> Result<(), OnnxError> {
        let h = self.architecture.hidden_size;
        let width = embedding.width(h, self.architecture.layers)?;
        let last = states.last().map(String::as_str).unwrap_or_default();
        for name in ["last_hidden_state", "token_embeddings"] {
            self.publish(last, name, &[batch(), length(), fixed(h)]);
        }
        let pooled = if embedding.pools.contains(&Pool::Pooler) { Some(self.pool(last)?) } else { None };
        let vector = embedding::build(&mut self.graph, embedding, states, pooled.as_deref(), attention_mask);
        self.publish(&vector, "sentence_embedding", &[batch(), fixed(width)]);
        Ok(())
    }
}
