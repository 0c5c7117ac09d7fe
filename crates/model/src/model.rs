//! The model as a user holds it: configuration, heads and parameters, with its losses and outputs.

use cloze_engine::ops;
use cloze_engine::{Device, Parameters, Pass, Var};

use crate::bert::{Bert, Declarations, Packed, Start};
use crate::config::Config;
use crate::error::ModelError;
use crate::flops::{Work, useful_flops};
use crate::heads::{Heads, TaskHead};
use crate::inputs::{Inputs, PretrainLabels};
use crate::losses::{LossScale, Losses, MLM, NSP};
use crate::wanted::{Asking, Wanted, indices};

/// The activations of a batch that a user may ask for.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// `[T, H]` after the embeddings, then after each layer: L + 1 of them.
    pub hidden: Vec<Var>,
    /// `[S, H]` the pooler's output.
    pub pooled: Option<Var>,
    /// `[M, V]` logits at the chosen tokens, when the head exists and some were chosen.
    pub mlm_logits: Option<Var>,
    /// `[S, 2]` next-sentence logits: class 0 is "is next".
    pub nsp_logits: Option<Var>,
}

/// A BERT with the heads that pre-train it or that it is fine-tuned with.
pub struct Model {
    /// Its shape. The two dropout probabilities may be changed at any time; the sizes may not.
    pub config: Config,
    /// Its heads.
    pub heads: Heads,
    /// Its parameters, under Transformers' names (the encoder's begin with `bert.`).
    pub params: Parameters,
    bert: Bert,
    /// The layers that do not learn, if any: the embeddings and so many above them.
    frozen: Option<usize>,
}

impl Model {
    /// A model with fresh weights: truncated normal (σ = `initializer_range`, cut at 2σ) for matrices, zeros for biases,
    /// ones for LayerNorm's weights. The same seed gives the same weights.
    ///
    /// # Errors
    /// [`ModelError::Config`] or [`ModelError::Heads`] for a model that cannot be built.
    pub fn new(config: Config, heads: Heads, device: &Device, seed: u64) -> Result<Model, ModelError> {
        let (declared, bert) = Model::declare(&config, heads, Start::Drawn)?;
        let params = declared.builder.build(device, seed);
        Ok(Model::assemble(config, heads, params, bert))
    }

    /// The declarations of a model, nothing allocated yet.
    pub(crate) fn declare(config: &Config, heads: Heads, start: Start) -> Result<(Declarations, Bert), ModelError> {
        config.validate()?;
        heads.validate(config)?;
        let mut declared = Declarations::new(Parameters::builder(), config, start);
        let bert = Bert::declare(&mut declared, config, heads);
        Ok((declared, bert))
    }

    pub(crate) fn assemble(config: Config, heads: Heads, params: Parameters, bert: Bert) -> Model {
        Model { config, heads, params, bert, frozen: None }
    }

    /// From now on the embeddings and the lowest `layers` layers stay as they are: they run forward alone, without dropout, and no
    /// optimizer changes them. Replaces what [`decay_rates`](Self::decay_rates) said of them; `None` sets all of it free.
    pub fn freeze(&mut self, layers: Option<usize>) {
        self.frozen = layers;
        self.set_rates(1.0);
    }

    /// Layer-wise learning rates (Howard and Ruder 2018; Clark et al. 2020): the heads learn at the full rate, the top layer at
    /// `factor` of it, each layer below at `factor` of the one above, the embeddings slowest. Frozen layers stay frozen.
    pub fn decay_rates(&mut self, factor: f32) {
        self.set_rates(factor);
    }

    fn set_rates(&mut self, factor: f32) {
        let layers = self.config.num_hidden_layers;
        for id in self.params.ids() {
            let name = self.params.name(id);
            let number = name.strip_prefix("bert.encoder.layer.").and_then(|rest| rest.split('.').next()?.parse().ok());
            // Layers counted from the embeddings, 0.
            let height: Option<usize> =
                if name.starts_with("bert.embeddings.") { Some(0) } else { number.map(|number: usize| number + 1) };
            let rate = match height {
                Some(height) if self.frozen.is_some_and(|frozen| height <= frozen) => 0.0,
                Some(height) => factor.powi((layers + 1 - height) as i32),
                None => 1.0,
            };
            self.params.set_rate(id, rate);
        }
    }

    /// The number of weights; the tied decoder counts once.
    pub fn parameter_count(&self) -> usize {
        self.params.count()
    }

    /// Useful floating-point operations of [`loss`](Self::loss) and its backward pass, or of [`outputs`](Self::outputs) without
    /// predictions: see [`useful_flops`].
    pub fn useful_flops(&self, inputs: &Inputs, labels: &PretrainLabels, work: Work) -> f64 {
        let lengths = inputs.lengths();
        match work {
            Work::Forward => useful_flops(&self.config, lengths.map(|length| [length; 2]), 0, work),
            Work::ForwardBackward => {
                let wanted = self.wanted_by_losses(inputs, labels);
                let wanted = wanted.ends().windows(2).map(|pair| (pair[1] - pair[0]) as usize);
                let predicted = if self.heads.mlm { labels.mlm_rows.len() } else { 0 };
                useful_flops(&self.config, lengths.zip(wanted).map(|(s, r)| [s, r]), predicted, work)
            }
        }
    }

    /// Checks that a batch fits this model, for callers whose batches come from elsewhere than this model's vocabulary and
    /// recipe. [`loss`](Self::loss) and [`outputs`](Self::outputs) take it as given.
    ///
    /// # Errors
    /// [`ModelError::Batch`] naming the first value that does not fit.
    pub fn check(&self, inputs: &Inputs, labels: &PretrainLabels) -> Result<(), ModelError> {
        let tokens = inputs.ids.len();
        let fail = |problem: String| Err(ModelError::Batch(problem));
        for (what, found) in [("positions", inputs.positions.len()), ("segments", inputs.segments.len())] {
            if found != tokens {
                return fail(format!("batch: {found} {what} for {tokens} ids: expected as many"));
            }
        }
        let ends_fit = inputs.cu_seqlens.first() == Some(&0) && inputs.cu_seqlens.last() == Some(&(tokens as i32));
        if !ends_fit || !inputs.cu_seqlens.is_sorted_by(|a, b| a < b) {
            return fail(format!("batch: cu_seqlens must rise from 0 to the number of tokens, {tokens}"));
        }
        let sequences = inputs.cu_seqlens.len() - 1;
        if labels.mlm_rows.len() != labels.mlm_labels.len() {
            let (rows, found) = (labels.mlm_rows.len(), labels.mlm_labels.len());
            return fail(format!("batch: {found} labels for {rows} predicted tokens: expected as many"));
        }
        if !labels.nsp_labels.is_empty() && labels.nsp_labels.len() != sequences {
            let found = labels.nsp_labels.len();
            return fail(format!(
                "batch: {found} next-sentence labels for {sequences} sequences: expected as many or none"
            ));
        }
        let ranges = [
            ("token id", &inputs.ids, self.config.vocab_size, "the model's vocabulary"),
            ("position", &inputs.positions, self.config.max_position_embeddings, "max_position_embeddings"),
            ("segment", &inputs.segments, self.config.type_vocab_size, "type_vocab_size"),
            ("predicted row", &labels.mlm_rows, tokens, "the batch's tokens"),
            ("label", &labels.mlm_labels, self.config.vocab_size, "the model's vocabulary"),
            ("next-sentence label", &labels.nsp_labels, 2, "the classes"),
        ];
        for (what, values, limit, of) in ranges {
            if let Some(found) = values.iter().find(|&&value| value < 0 || value as usize >= limit) {
                return fail(format!("batch: {what} {found} is out of range: {of} end before {limit}"));
            }
        }
        Ok(())
    }

    /// Forward through encoder and heads to the batch's losses; the heads' gradients, scaled, wait on the pass's tape.
    /// Only the tokens that a head reads go through all of the last layer, only those that are predicted through the vocabulary, and
    /// their logits are never held whole.
    pub fn loss(&self, pass: &mut Pass, inputs: &Inputs, labels: &PretrainLabels, scale: LossScale) -> Losses {
        let wanted = self.wanted_by_losses(inputs, labels);
        let mut losses = Losses::default();
        if wanted.is_empty() {
            return losses;
        }
        let device = pass.device().clone();
        let last = self.encode(pass, inputs, Some(&wanted), |_| ());
        if self.predicts(labels) {
            let rows = wanted.rows(&device, &labels.mlm_rows);
            let ids = indices(&device, &labels.mlm_labels);
            let loss = self.bert.mlm_loss(pass, &self.config, &last, [&rows, &ids], scale.mlm);
            loss.into_iter().for_each(|loss| losses.add(MLM, loss));
        }
        if self.tells_next(labels) {
            let first = ops::take_rows(pass, &last, &wanted.rows(&device, inputs.cls_tokens()));
            let pooled = self.bert.pool(pass, &first);
            let classes = indices(&device, &labels.nsp_labels);
            let logits = self.bert.nsp_logits(pass, pooled.as_ref());
            let loss = logits.map(|logits| ops::class_loss(pass, &logits, &classes, scale.nsp));
            loss.into_iter().for_each(|loss| losses.add(NSP, loss));
        }
        losses
    }

    /// Whether tokens of the batch are predicted.
    fn predicts(&self, labels: &PretrainLabels) -> bool {
        self.heads.mlm && !labels.mlm_rows.is_empty()
    }

    /// Whether the batch's sequences are told apart: next sentence or not.
    fn tells_next(&self, labels: &PretrainLabels) -> bool {
        self.heads.nsp && !labels.nsp_labels.is_empty()
    }

    fn wanted_by_losses(&self, inputs: &Inputs, labels: &PretrainLabels) -> Wanted {
        let mut tokens = Vec::new();
        if self.predicts(labels) {
            tokens.extend(&labels.mlm_rows);
        }
        if self.tells_next(labels) {
            tokens.extend(inputs.cls_tokens());
        }
        Wanted::new(tokens, &inputs.cu_seqlens)
    }

    /// Forward to every hidden state and the heads' logits: those of the vocabulary at the tokens `mlm_rows`, `[M]`.
    pub fn outputs(&self, pass: &mut Pass, inputs: &Inputs, mlm_rows: &[i32]) -> Outputs {
        let device = pass.device().clone();
        let mut hidden = Vec::new();
        let last = self.encode(pass, inputs, None, |state| hidden.push(state.clone()));
        let mlm_logits = (self.heads.mlm && !mlm_rows.is_empty()).then(|| indices(&device, mlm_rows));
        let mlm_logits = mlm_logits.and_then(|rows| self.bert.mlm_logits(pass, &self.config, &last, &rows));
        let pooled = self.heads.pooler.then(|| ops::take_rows(pass, &last, &indices(&device, inputs.cls_tokens())));
        let pooled = pooled.and_then(|first| self.bert.pool(pass, &first));
        let nsp_logits = self.bert.nsp_logits(pass, pooled.as_ref());
        Outputs { hidden, pooled, mlm_logits, nsp_logits }
    }

    /// Forward to the logits of the tokens `rows`, `[M, V]`, alone; none without the head or a token to predict.
    pub fn mlm_logits(&self, pass: &mut Pass, inputs: &Inputs, rows: &[i32]) -> Option<Var> {
        if !self.heads.mlm || rows.is_empty() {
            return None;
        }
        let wanted = Wanted::new(rows.to_vec(), &inputs.cu_seqlens);
        let last = self.encode(pass, inputs, Some(&wanted), |_| ());
        let rows = wanted.rows(pass.device(), rows);
        self.bert.mlm_logits(pass, &self.config, &last, &rows)
    }

    /// Forward to the last hidden state of each sequence's first token, `[S, H]`, and to the pooler's output, if there is one.
    pub fn firsts(&self, pass: &mut Pass, inputs: &Inputs) -> (Var, Option<Var>) {
        let wanted = Wanted::new(inputs.cls_tokens().to_vec(), &inputs.cu_seqlens);
        let first = self.encode(pass, inputs, Some(&wanted), |_| ());
        let pooled = self.bert.pool(pass, &first);
        (first, pooled)
    }

    /// Forward to the logits of the task's head, none without one: `[S, C]` to classify, `[R, C]` of the batch's `rows` to tag,
    /// `[T, 2]` (start, end) to answer, `[S, 1]` to choose.
    pub fn task_logits(&self, pass: &mut Pass, inputs: &Inputs, rows: &[i32]) -> Option<Var> {
        let device = pass.device().clone();
        match self.heads.task? {
            TaskHead::Classify { .. } | TaskHead::Choose => {
                let (_, pooled) = self.firsts(pass, inputs);
                self.bert.task_logits(pass, &pooled?, self.config.classifier_dropout())
            }
            TaskHead::Tag { layers, .. } if layers > 1 => {
                let mut hidden = Vec::new();
                self.encode(pass, inputs, None, |state| hidden.push(state.clone()));
                let rows = indices(&device, rows);
                let states = hidden.iter().rev().take(layers).map(|state| ops::take_rows(pass, state, &rows));
                let states: Vec<Var> = states.collect();
                let features = ops::concat(pass, &states);
                self.bert.task_logits(pass, &features, self.config.classifier_dropout())
            }
            TaskHead::Tag { .. } => {
                let wanted = Wanted::new(rows.to_vec(), &inputs.cu_seqlens);
                let last = self.encode(pass, inputs, Some(&wanted), |_| ());
                let features = ops::take_rows(pass, &last, &wanted.rows(&device, rows));
                self.bert.task_logits(pass, &features, self.config.classifier_dropout())
            }
            // As in Transformers and the paper's release, nothing is dropped before a span's logits.
            TaskHead::Answer => {
                let last = self.encode(pass, inputs, None, |_| ());
                self.bert.task_logits(pass, &last, 0.0)
            }
        }
    }

    /// The last layer's output, of the tokens that are wanted or of all; `visit` sees the embeddings' and then every layer's.
    fn encode(&self, pass: &mut Pass, inputs: &Inputs, wanted: Option<&Wanted>, mut visit: impl FnMut(&Var)) -> Var {
        let packed = upload(pass.device(), inputs);
        let asking = wanted.map(|wanted| wanted.upload(pass.device()));
        let (frozen, layers) = (self.frozen, self.config.num_hidden_layers);
        let mut run = |pass: &mut Pass, height: usize, layer: &dyn Fn(&mut Pass) -> Var| {
            let state = if frozen.is_some_and(|frozen| height <= frozen) { pass.constant(layer) } else { layer(pass) };
            visit(&state);
            state
        };
        let mut last = run(pass, 0, &|pass| self.bert.embed(pass, &self.config, &packed));
        for number in 0..layers {
            let asking: Option<&Asking> = asking.as_ref().filter(|_| number + 1 == layers);
            last = run(pass, number + 1, &|pass| self.bert.layer(pass, &self.config, &packed, number, &last, asking));
        }
        last
    }
}

fn upload(device: &Device, inputs: &Inputs) -> Packed {
    Packed {
        ids: indices(device, &inputs.ids),
        positions: indices(device, &inputs.positions),
        segments: indices(device, &inputs.segments),
        cu_seqlens: indices(device, &inputs.cu_seqlens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloze_engine::{DType, Gradients};

    fn small() -> Config {
        Config {
            vocab_size: 50,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 12,
            ..Config::default()
        }
    }

    fn inputs() -> Inputs {
        let mut inputs = Inputs::default();
        inputs.push(&[2, 9, 4, 3], &[0, 0, 1, 1]);
        inputs.push(&[2, 4, 12, 3, 30, 3], &[0, 0, 0, 0, 1, 1]);
        inputs
    }

    fn labels() -> PretrainLabels {
        PretrainLabels { mlm_rows: vec![2, 5], mlm_labels: vec![11, 13], nsp_labels: vec![0, 1] }
    }

    fn device() -> Device {
        Device::cpu(Some(1)).unwrap()
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        let model = Model::new(small(), Heads::PRETRAINING, &device(), 1).unwrap();
        for id in model.params.ids() {
            let (name, values) = (model.params.name(id), model.params.read(id));
            let matrix = model.params.shape(id).len() == 2;
            assert_eq!(model.params.decays(id), matrix, "{name}");
            if matrix {
                assert!(values.iter().all(|value| value.abs() <= 2.0 * 0.02 + 1e-6), "{name} is cut at two deviations");
                let spread = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
                assert!((0.01..0.03).contains(&spread), "{name}: {spread}");
            } else {
                let expected = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
                assert!(values.iter().all(|&value| value == expected), "{name}");
            }
        }
    }

    /// Dropout included: the second time round it drops the same.
    #[test]
    fn recomputing_changes_no_bit() {
        let device = device();
        let model = Model::new(small(), Heads::PRETRAINING, &device, 1).unwrap();
        for precision in [DType::F32, DType::BF16] {
            let [kept, again] = [false, true].map(|recomputes| {
                let mut gradients = Gradients::zeros_like(&model.params);
                let key = cloze_engine::DropoutKey { seed: 3, step: 1, micro: 0 };
                let mut pass = Pass::recording(&device, &model.params, &mut gradients, precision, Some(key));
                pass = pass.recomputing(recomputes);
                let losses = model.loss(&mut pass, &inputs(), &labels(), LossScale::mean(&labels()));
                pass.backward();
                let all: Vec<f32> = model.params.ids().flat_map(|id| gradients.read(id).to_vec()).collect();
                (losses, all)
            });
            assert_eq!(kept.0, again.0);
            assert!(kept.1.iter().zip(&again.1).all(|(a, b)| a.to_bits() == b.to_bits()), "{precision:?}");
        }
    }

    /// The loss by a pass that works out all of the last layer.
    fn whole_loss(model: &Model, pass: &mut Pass, labels: &PretrainLabels, scale: LossScale) -> Losses {
        let inputs = inputs();
        let last = model.encode(pass, &inputs, None, |_| ());
        let tensor = |values: &[i32]| indices(&device(), values);
        let [rows, ids] = [&labels.mlm_rows, &labels.mlm_labels].map(|values| tensor(values));
        let mut losses = Losses::default();
        losses.add(MLM, model.bert.mlm_loss(pass, &model.config, &last, [&rows, &ids], scale.mlm).unwrap());
        if !labels.nsp_labels.is_empty() {
            let first = ops::take_rows(pass, &last, &tensor(inputs.cls_tokens()));
            let pooled = model.bert.pool(pass, &first);
            let logits = model.bert.nsp_logits(pass, pooled.as_ref()).unwrap();
            losses.add(NSP, ops::class_loss(pass, &logits, &tensor(&labels.nsp_labels), scale.nsp));
        }
        losses
    }

    #[test]
    fn tokens_that_no_head_reads_change_nothing() {
        let device = device();
        let mut model = Model::new(small(), Heads::PRETRAINING, &device, 1).unwrap();
        // With next sentences each sequence's first token is read; without, the second sequence has none.
        let one = PretrainLabels { mlm_rows: vec![2], mlm_labels: vec![11], nsp_labels: vec![] };
        for (labels, causal) in [(labels(), false), (one, false), (labels(), true)] {
            if causal {
                model.bert.see_earlier_tokens_alone();
            }
            let scale = LossScale::mean(&labels);
            let [found, expected] = [false, true].map(|whole| {
                let mut gradients = Gradients::zeros_like(&model.params);
                let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
                let losses = match whole {
                    false => model.loss(&mut pass, &inputs(), &labels, scale),
                    true => whole_loss(&model, &mut pass, &labels, scale),
                };
                pass.backward();
                (losses.total(), gradients.read_all().to_vec())
            });
            assert!((found.0 - expected.0).abs() < 1e-6, "{} {}", found.0, expected.0);
            assert!(found.1.iter().zip(&expected.1).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }

    #[test]
    fn a_batch_without_a_word_to_tag_moves_nothing() {
        let device = device();
        let task = TaskHead::Tag { labels: 3, layers: 1 };
        let model = Model::new(small(), Heads { task: Some(task), ..Heads::NONE }, &device, 1).unwrap();
        let mut gradients = Gradients::zeros_like(&model.params);
        let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
        let logits = model.task_logits(&mut pass, &inputs(), &[]).unwrap();
        assert_eq!(logits.value().shape(), [0, 3]);
        pass.seed_gradient(&logits, logits.value().clone());
        pass.backward();
        assert!(gradients.read_all().iter().all(|&gradient| gradient == 0.0));
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        let device = device();
        let model = Model::new(small(), Heads::PRETRAINING, &device, 1).unwrap();
        let mut gradients = Gradients::zeros_like(&model.params);
        let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
        let losses = model.loss(&mut pass, &inputs(), &labels(), LossScale::mean(&labels()));
        pass.backward();
        let mlm = losses.get(MLM).unwrap().mean();
        assert!((mlm - 50f64.ln()).abs() < 0.2, "fresh weights know nothing: {losses:?}");
        assert!((losses.total() - mlm - 2f64.ln()).abs() < 0.1, "{losses:?}");
        for id in model.params.ids() {
            let name = model.params.name(id);
            // A key bias moves every score of a query alike, which softmax does not see.
            let seen = gradients.read(id).iter().any(|&gradient| gradient != 0.0);
            assert!(seen || name.ends_with("key.bias"), "{name} learns nothing");
        }
    }

    #[test]
    fn packed_sequences_equal_each_alone() {
        let device = device();
        let model = Model::new(small(), Heads::PRETRAINING, &device, 3).unwrap();
        let mut second = Inputs::default();
        second.push(&[2, 4, 12, 3, 30, 3], &[0, 0, 0, 0, 1, 1]);
        let run = |inputs: &Inputs, mlm_rows: &[i32]| {
            let mut pass = Pass::inference(&device, &model.params, DType::F32);
            model.outputs(&mut pass, inputs, mlm_rows)
        };
        let (together, alone) = (run(&inputs(), &[2, 5]), run(&second, &[1]));
        let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        let last = |outputs: &Outputs| outputs.hidden[2].value().to_vec_f32();
        assert!(close(&last(&together)[4 * 16..], &last(&alone)));
        let logits = |outputs: &Outputs| outputs.mlm_logits.as_ref().unwrap().value().to_vec_f32();
        assert!(close(&logits(&together)[50..], &logits(&alone)));
        let pair = |outputs: &Outputs| outputs.nsp_logits.as_ref().unwrap().value().to_vec_f32();
        assert!(close(&pair(&together)[2..], &pair(&alone)));
    }

    #[test]
    fn losses_without_a_head_or_labels_are_empty() {
        let device = device();
        let model = Model::new(small(), Heads::MLM, &device, 1).unwrap();
        let nothing = PretrainLabels { mlm_rows: vec![], mlm_labels: vec![], ..labels() };
        let mut pass = Pass::inference(&device, &model.params, DType::F32);
        let losses = model.loss(&mut pass, &inputs(), &nothing, LossScale::mean(&nothing));
        assert_eq!(losses, Losses::default());
        assert!(matches!(
            Model::new(small(), Heads { pooler: false, ..Heads::PRETRAINING }, &device, 1),
            Err(ModelError::Heads { .. })
        ));
    }

    #[test]
    fn batches_that_do_not_fit_say_why() {
        let model = Model::new(small(), Heads::PRETRAINING, &device(), 1).unwrap();
        model.check(&inputs(), &labels()).unwrap();
        let cases: [(Inputs, PretrainLabels, &str); 6] = [
            (Inputs { ids: vec![50; 10], ..inputs() }, labels(), "token id 50 is out of range"),
            (Inputs { positions: vec![12; 10], ..inputs() }, labels(), "position 12"),
            (Inputs { segments: vec![2; 10], ..inputs() }, labels(), "segment 2"),
            (Inputs { cu_seqlens: vec![0, 4, 9], ..inputs() }, labels(), "cu_seqlens"),
            (inputs(), PretrainLabels { mlm_labels: vec![1], ..labels() }, "1 labels for 2 predicted tokens"),
            (inputs(), PretrainLabels { nsp_labels: vec![1], ..labels() }, "1 next-sentence labels for 2 sequences"),
        ];
        for (inputs, labels, expected) in cases {
            let error = model.check(&inputs, &labels).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
