//! Attention probabilities, for people who look at them: the softmax of each head, which the network itself never stores.

use std::sync::Arc;

use cloze_engine::Pass;
use cloze_engine::ops::Visible;

use crate::graph::{ModelGraph, upload};
use crate::inputs::Inputs;

/// What a layer compares in its attention: the queries and keys of all tokens, after rotations. Get it with
/// [`ModelGraph::attention_scores`]; [`probabilities`](AttentionScores::probabilities) need no pass and no device.
pub struct AttentionScores {
    /// Queries, keys and values of each token, `[T, 3H]`.
    qkv: Vec<f32>,
    tokens: usize,
    heads: usize,
    visible: Visible,
    bias: Option<Bias>,
}

/// The distance bias of all heads.
#[derive(Clone)]
struct Bias {
    /// `[buckets, N]`
    table: Arc<[f32]>,
    /// The bucket of each distance (key minus query); distance 0 is in the middle.
    buckets: Arc<[u32]>,
}

impl AttentionScores {
    /// Number of heads, N.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// softmax(q·kᵀ / √D + bias) of a head: row i has the weights with which token i attends to each token, `[T, T]`. It is 0
    /// for tokens that the layer does not see. Equals a head of `attentions` in Transformers with `output_attentions=True`
    /// (eager attention). Panics for a head above [`heads`](Self::heads).
    pub fn probabilities(&self, head: usize) -> Vec<f32> {
        assert!(head < self.heads, "attention: head {head} of {}", self.heads);
        let [tokens, width] = self.shape();
        let hidden = self.heads * width;
        let at = |part: usize, token: usize| token * 3 * hidden + part * hidden + head * width;
        // Transposed, so that the sum over D runs over rows.
        let mut keys = vec![0.0; width * tokens];
        for token in 0..tokens {
            for d in 0..width {
                keys[d * tokens + token] = self.qkv[at(1, token) + d];
            }
        }
        let scale = (width as f32).sqrt().recip();
        let mut all = vec![0.0; tokens * tokens];
        for (token, row) in all.chunks_mut(tokens).enumerate() {
            let query = &self.qkv[at(0, token)..][..width];
            for (q, keys) in query.iter().zip(keys.chunks(tokens)) {
                row.iter_mut().zip(keys).for_each(|(score, key)| *score += q * key);
            }
            let visible = self.visible.keys(token, tokens);
            row[..visible.start].fill(0.0);
            row[visible.end..].fill(0.0);
            for (key, score) in row.iter_mut().enumerate().take(visible.end).skip(visible.start) {
                *score = *score * scale + self.bias.as_ref().map_or(0.0, |bias| bias.of(token, key, head, self.heads));
            }
            softmax(&mut row[visible]);
        }
        all
    }

    /// T and D.
    fn shape(&self) -> [usize; 2] {
        [self.tokens, self.qkv.len() / (3 * self.tokens * self.heads)]
    }
}

impl Bias {
    fn of(&self, query: usize, key: usize, head: usize, heads: usize) -> f32 {
        let bucket = self.buckets[self.buckets.len() / 2 + key - query];
        self.table[bucket as usize * heads + head]
    }
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|score| *score /= sum);
}

impl ModelGraph {
    /// Runs the encoder on one sequence of T tokens and returns what the attention of these layers (from 0) compares, in
    /// ascending order of layers. Layers above the highest do not run, and each is computed as usual: queries, keys and
    /// values are computed again from its input. Panics for a layer that the model does not have, and for a batch of several
    /// sequences.
    pub fn attention_scores(&self, pass: &mut Pass, inputs: &Inputs, layers: &[usize]) -> Vec<AttentionScores> {
        assert_eq!(inputs.sequences(), 1, "attention: one sequence");
        let Some(&top) = layers.iter().max() else { return Vec::new() };
        let mut states = Vec::new();
        self.encode(pass, inputs, top, None, |number, state| {
            if layers.contains(&number) {
                states.push((number, state.clone()));
            }
        });
        let (architecture, packed) =
            (*self.architecture(), upload(pass.device(), inputs, self.architecture().position_padding));
        let bias = self.bert.distance_bias().map(|bias| Bias {
            table: pass.parameters().read(bias.table).to_vec().into(),
            buckets: bias.buckets.clone(),
        });
        let scores = states.into_iter().map(|(number, input)| AttentionScores {
            tokens: inputs.tokens(),
            qkv: self.bert.rotated_queries_keys_values(pass, number, &input, &packed.positions).value().to_vec_f32(),
            heads: architecture.attention_heads,
            visible: self.bert.visible(number),
            bias: bias.clone(),
        });
        scores.collect()
    }
}
