//! The model: a graph with the values of its parameters.

use std::ops::Deref;

use cloze_engine::{Device, Parameters};

use crate::architecture::Architecture;
use crate::bert::{Declarations, Declared, InitFrom};
use crate::config::Config;
use crate::error::ModelError;
use crate::graph::ModelGraph;
use crate::heads::Heads;
use crate::role::Head;

/// A model of BERT's family with heads for pre-training or for a task.
pub struct Model {
    graph: ModelGraph,
    /// The parameters, with Transformers' names (those of BERT's encoder start with `bert.`).
    pub params: Parameters,
}

impl Deref for Model {
    type Target = ModelGraph;

    fn deref(&self) -> &ModelGraph {
        &self.graph
    }
}

/// A model whose parameters are declared but not yet allocated.
pub(crate) struct Blueprint {
    pub(crate) graph: ModelGraph,
    pub(crate) declarations: Declarations,
}

impl Blueprint {
    pub(crate) fn new(config: Config, heads: Heads, init: InitFrom) -> Result<Blueprint, ModelError> {
        let heads = checked_heads(&config, heads)?;
        let mut declarations =
            Declarations::new(Parameters::builder(), "", config.schema(), &config.architecture(), init);
        let graph = ModelGraph::declare(&mut declarations, config, heads, None);
        Ok(Blueprint { graph, declarations })
    }

    /// The parameters in order of declaration.
    pub(crate) fn listed(&self) -> &[Declared] {
        &self.declarations.listed
    }

    /// Allocates and initialises the parameters.
    pub(crate) fn build(self, device: &Device, seed: u64) -> Model {
        Model { graph: self.graph, params: self.declarations.builder.build(device, seed) }
    }
}

/// The heads of a model with this configuration: completed, and checked together with it.
pub(crate) fn checked_heads(config: &Config, heads: Heads) -> Result<Heads, ModelError> {
    config.validate()?;
    let heads = heads.completed(&config.architecture(), config.schema());
    heads.validate(&config.architecture(), config.schema())?;
    Ok(heads)
}

impl Model {
    /// A model with new weights: truncated normal (σ = `initializer_range`, truncated at 2σ) for matrices, zeros for
    /// biases, ones for LayerNorm weights. The same seed gives the same weights.
    ///
    /// # Errors
    /// [`ModelError::Config`] or [`ModelError::Heads`] for a model that cannot be built.
    pub fn new(config: Config, heads: Heads, device: &Device, seed: u64) -> Result<Model, ModelError> {
        Ok(Blueprint::new(config, heads, InitFrom::Random)?.build(device, seed))
    }

    /// The number of weights of such a model. Allocates nothing.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn count_parameters(config: &Config, heads: Heads) -> Result<usize, ModelError> {
        let blueprint = Blueprint::new(config.clone(), heads, InitFrom::Random)?;
        Ok(blueprint.listed().iter().map(|declared| declared.shape.iter().product::<usize>()).sum())
    }

    /// Replaces the configuration: labels, dropouts, keys for other programs and, except in RoBERTa's family, the padding token
    /// may differ from the current ones.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a configuration that is not valid, or of another architecture.
    pub fn set_config(&mut self, config: Config) -> Result<(), ModelError> {
        config.validate()?;
        let (old, new) = (*self.architecture(), config.architecture());
        let fail = |problem| Err(ModelError::Config { path: None, problem });
        if new.position_padding != old.position_padding {
            let family = config.family().title;
            let [found, expected] = [new, old].map(|architecture| architecture.position_padding.unwrap_or_default());
            return fail(format!(
                "pad_token_id is {found}: expected {expected}, because the positions of {family} start after the padding token"
            ));
        }
        let Architecture { dropouts, word_padding, .. } = new;
        if (Architecture { dropouts, word_padding, ..old }) != new {
            return fail(format!("the architecture of a model cannot change: expected {old:?}, found {new:?}"));
        }
        self.graph.bert.set_architecture(new);
        self.graph.config = config;
        Ok(())
    }

    /// Sets the dropouts of the encoder: see [`Config::set_dropout`].
    ///
    /// # Errors
    /// [`ModelError::Config`] for a probability that is not at least 0 and less than 1.
    pub fn set_dropout(&mut self, hidden: f64, attention: f64) -> Result<(), ModelError> {
        let mut config = self.config.clone();
        config.set_dropout(Some(hidden), Some(attention));
        self.set_config(config)
    }

    /// Sets whether a token attends only to itself and earlier tokens. The weights do not change: causal and masked
    /// language models of one family have the same parameters. A causal model must have no heads except for that of the
    /// language model.
    pub fn set_causal(&mut self, causal: bool) {
        self.graph.config.is_decoder = causal;
        self.graph.bert.architecture.causal = causal;
        self.graph.config.architectures = Some(vec![self.class_name().to_owned()]);
    }

    /// Multiplies the weights of the encoder, and of the dense layers of pooler and heads, in int8 from now on, in passes
    /// that do not record: see [`Parameters::quantize_weights`](cloze_engine::Parameters::quantize_weights). Embeddings, norms,
    /// the products of attention, and output layers are not affected.
    pub fn quantize(&mut self) {
        self.params.quantize_weights(&self.graph.bert.int8_weights());
    }

    /// Reorders the classifier's outputs: output `i` becomes what output `from[i]` was. Does nothing without a
    /// classifier. Panics unless `from` contains each output once.
    pub fn reorder_outputs(&mut self, from: &[usize]) {
        let Some(output) = self.classifier() else { return };
        for role in [output.weight(), output.bias()] {
            let Some(id) = self.find(role) else { continue };
            let old = self.params.read(id).into_owned();
            let width = old.len() / from.len().max(1);
            assert_eq!(self.params.shape(id)[0], from.len(), "an index for each output");
            let rows: Vec<f32> = from.iter().flat_map(|&row| &old[row * width..][..width]).copied().collect();
            self.params.write(id, &rows);
        }
    }

    /// Freezes the embeddings and the lowest `layers` layers: they only run forward, without dropout, and optimizers do
    /// not change them. `None` unfreezes all. A layer whose weights are shared with a higher layer is not frozen, nor
    /// are the layers above it: in ALBERT with one group, freezing fewer than all layers freezes only the embeddings.
    pub fn freeze(&mut self, layers: Option<usize>) {
        let architecture = *self.architecture();
        self.graph.rates.freeze(layers, &architecture);
        self.graph.apply_rates(&mut self.params);
    }

    /// Sets layer-wise learning rates (Howard and Ruder 2018; Clark et al. 2020): the heads have the full rate, the top
    /// layer `factor` times that, each lower layer `factor` times the rate of the layer above, and the embeddings the
    /// lowest rate. Frozen layers stay frozen.
    pub fn decay_rates(&mut self, factor: f32) {
        self.graph.rates.decay = factor;
        self.graph.apply_rates(&mut self.params);
    }

    /// Freezes the heads that are not in `used`: without a loss, a head has no gradient, but weight decay would shrink
    /// it.
    pub fn freeze_unused_heads(&mut self, used: Heads) {
        let used = used.completed(self.architecture(), self.schema());
        let all = [
            Head::Pooler,
            Head::Prediction,
            Head::Mlm,
            Head::Nsp,
            Head::Rtd,
            Head::Classifier,
            Head::Span,
            Head::Features,
        ];
        self.graph.rates.unused = all.into_iter().filter(|&head| !used.has(head)).collect();
        self.graph.apply_rates(&mut self.params);
    }

    /// Freezes what the last layer computes from its queries, keys and values, for a loss that only compares these; layers
    /// that share its weights are not affected.
    pub fn freeze_last_output(&mut self) {
        self.graph.rates.unused_output = true;
        self.graph.apply_rates(&mut self.params);
    }

    /// The number of weights; a tied decoder counts once.
    pub fn parameter_count(&self) -> usize {
        self.params.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::SharedParts;
    use crate::heads::TaskHead;
    use crate::inputs::{Inputs, PretrainLabels};
    use crate::losses::{CLM, LossScale, Losses, MLM, NSP};
    use crate::output_rows::indices;
    use crate::role::{LayerPart, Module, Table};
    use crate::task_input::{BiLstmSize, Features, SequenceToken, TaskInput};
    use crate::testing::{device, inputs, labels, modern, small};
    use cloze_engine::{DType, Gradients, Pass, ops};

    /// First and last element, recorded when parameters were still declared by name.
    #[test]
    fn initial_weights_of_a_seed_are_stable() {
        let classify = Heads::of(TaskHead::Classify { labels: 3 });
        let answer = Heads::of(TaskHead::Answer);
        let (query, key) = (Module::layer(0, LayerPart::Query), Module::layer(1, LayerPart::Key));
        let (intermediate, output) = (Module::layer(1, LayerPart::Intermediate), Module::layer(1, LayerPart::Output));
        let cases: [(Heads, Module, [f32; 2]); 13] = [
            (Heads::PRETRAINING, Module::Embedding(Table::Word), [-0.033918668, 0.02975875]),
            (Heads::PRETRAINING, Module::Embedding(Table::Position), [0.025399543, -0.007576471]),
            (Heads::PRETRAINING, Module::Embedding(Table::Segment), [-0.021270012, -0.007069045]),
            (Heads::PRETRAINING, query, [-0.017503459, -0.0075841956]),
            (Heads::PRETRAINING, key, [0.011064712, 0.0042552846]),
            (Heads::PRETRAINING, Module::layer(1, LayerPart::Value), [-0.0103698345, 0.0067578764]),
            (Heads::PRETRAINING, Module::layer(0, LayerPart::AttentionOutput), [0.0043951413, 0.0005569221]),
            (Heads::PRETRAINING, intermediate, [0.0135546755, 0.029991813]),
            (Heads::PRETRAINING, output, [-0.01649121, -0.036971897]),
            (Heads::PRETRAINING, Module::MlmTransform, [0.012355554, -0.027249971]),
            (Heads::PRETRAINING, Module::NspHead, [-0.0006436689, -0.007897851]),
            (classify, Module::Classifier, [-0.0056253164, 0.018469004]),
            (answer, Module::SpanHead, [-0.01551573, 0.010391868]),
        ];
        for (heads, module, expected) in cases {
            let model = Model::new(small(), heads, &Device::cpu(Some(1)).unwrap(), 7).unwrap();
            let values = model.params.read(model.find(module.weight()).unwrap());
            for (found, expected) in [values[0], values[values.len() - 1]].into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-7, "{module:?}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        let model = Model::new(small(), Heads::PRETRAINING, &device(), 1).unwrap();
        for id in model.params.ids() {
            let (name, values) = (model.params.name(id), model.params.read(id));
            let matrix = model.params.shape(id).len() == 2;
            assert_eq!(model.params.decays(id), matrix, "{name}");
            if matrix {
                assert!(
                    values.iter().all(|value| value.abs() <= 2.0 * 0.02 + 1e-6),
                    "{name} is truncated at two standard deviations"
                );
                let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
                assert!((0.01..0.03).contains(&deviation), "{name}: {deviation}");
            } else {
                let expected = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
                assert!(values.iter().all(|&value| value == expected), "{name}");
            }
        }
    }

    /// `_init_weights` of Transformers' `modeling_modernbert.py`.
    #[test]
    fn matrices_whose_outputs_add_up_are_smaller_in_pre_norm_models() {
        let model = Model::new(modern(), Heads::of(TaskHead::Answer), &device(), 1).unwrap();
        let largest = |module: Module| {
            let values = model.params.read(model.find(module.weight()).unwrap());
            values.iter().fold(0f32, |largest, value| largest.max(value.abs()))
        };
        for (module, std) in [
            (Module::Embedding(Table::Word), 0.02),
            (Module::layer(1, LayerPart::QueryKeyValue), 0.02),
            (Module::layer(1, LayerPart::GatedIntermediate), 0.02),
            (Module::layer(0, LayerPart::AttentionOutput), 0.01),
            (Module::layer(0, LayerPart::Output), 0.01),
            (Module::PredictionDense, 0.01),
            (Module::Classifier, 0.25),
        ] {
            let found = largest(module);
            assert!(found <= 2.0 * std + 1e-6 && found > 1.2 * std, "{module:?}: {found}");
        }
        assert!(model.find(Module::layer(0, LayerPart::AttentionNorm).weight()).is_none());
        assert!(model.find(Module::layer(1, LayerPart::AttentionNorm).weight()).is_some());
        assert!(model.find(Module::layer(1, LayerPart::AttentionNorm).bias()).is_none());
    }

    /// The weights of the MLM head's dense layer are those of the heads of tasks, as in Transformers.
    #[test]
    fn the_prediction_head_is_kept_for_tasks() {
        let (device, dir) = (device(), tempfile::tempdir().unwrap());
        let start = Model::new(modern(), Heads::MLM, &device, 1).unwrap();
        start.save(dir.path()).unwrap();
        for task in [TaskHead::Classify { labels: 3 }, TaskHead::Tag { labels: 3 }, TaskHead::Answer, TaskHead::Choose]
        {
            let (model, report) = Model::load_with(dir.path(), Heads::of(task), &[], &device, 2).unwrap();
            let read = |model: &Model, role| model.params.read(model.find(role).unwrap()).to_vec();
            for role in [Module::PredictionDense.weight(), Module::PredictionNorm.weight()] {
                assert_eq!(read(&model, role), read(&start, role), "{task:?}");
            }
            let new: Vec<&str> = report.newly_initialized.iter().map(|tensor| tensor.name.as_str()).collect();
            assert_eq!(new, ["classifier.bias", "classifier.weight"]);
            let unused: Vec<&str> = report.unused.iter().map(|tensor| tensor.name.as_str()).collect();
            assert_eq!(unused, ["decoder.bias"]);
        }
        let (_, report) = Model::load_encoder(dir.path(), &device).unwrap();
        assert_eq!(report.unused.len(), 3);
    }

    /// Includes dropout: recomputation drops the same elements.
    #[test]
    fn recomputation_gives_identical_bits() {
        let device = device();
        let bert = Model::new(small(), Heads::PRETRAINING, &device, 1).unwrap();
        let modern = Model::new(modern(), Heads::MLM, &device, 1).unwrap();
        for (model, precision) in
            [(&bert, DType::F32), (&bert, DType::BF16), (&modern, DType::F32), (&modern, DType::BF16)]
        {
            let [stored, recomputed] = [false, true].map(|recomputes| {
                let mut gradients = Gradients::zeros_like(&model.params);
                let key = cloze_engine::DropoutKey { seed: 3, step: 1, micro: 0 };
                let mut pass = Pass::recording(&device, &model.params, &mut gradients, precision, Some(key));
                pass = pass.checkpointing(recomputes);
                let losses = model.loss(&mut pass, &inputs(), &labels(), LossScale::mean(&labels()));
                pass.backward();
                let all: Vec<f32> = model.params.ids().flat_map(|id| gradients.read(id).to_vec()).collect();
                (losses, all)
            });
            assert_eq!(stored.0, recomputed.0);
            assert!(stored.1.iter().zip(&recomputed.1).all(|(a, b)| a.to_bits() == b.to_bits()), "{precision:?}");
        }
    }

    /// The loss, with the last layer computed for all tokens.
    fn full_loss(model: &Model, pass: &mut Pass, labels: &PretrainLabels, scale: LossScale) -> Losses {
        let inputs = inputs();
        let last = model.encode(pass, &inputs, 2, None, |_, _| ());
        let tensor = |values: &[i32]| indices(&device(), values);
        let states = ops::index_select(pass, &last, &tensor(&labels.mlm_rows));
        let mut losses = Losses::default();
        let features = model.bert.mlm_features(pass, &states).unwrap();
        losses.add(MLM, model.bert.mlm_loss(pass, &features, &tensor(&labels.mlm_labels), scale.mlm).unwrap());
        if !labels.nsp_labels.is_empty() {
            let cls = ops::index_select(pass, &last, &tensor(inputs.cls_tokens()));
            let logits = model.bert.nsp_logits(pass, &cls).unwrap();
            losses.add(NSP, ops::cross_entropy(pass, &logits, &tensor(&labels.nsp_labels), scale.nsp));
        }
        losses
    }

    #[test]
    fn skipping_unneeded_tokens_changes_nothing() {
        let device = device();
        let encoder = Model::new(small(), Heads::PRETRAINING, &device, 1).unwrap();
        let causal = Model::new(small().causal(), Heads::MLM, &device, 1).unwrap();
        let modern = Model::new(modern(), Heads::MLM, &device, 1).unwrap();
        let biased = Config { model_type: "mpnet".to_owned(), type_vocab_size: 0, ..small() };
        let biased = Model::new(biased, Heads::MLM, &device, 1).unwrap();
        // With next-sentence labels, the first token of each sequence is needed; without, no token of the second
        // sequence is.
        let one = PretrainLabels { mlm_rows: vec![2], mlm_labels: vec![11], nsp_labels: vec![] };
        let two = PretrainLabels { nsp_labels: vec![], ..labels() };
        for (model, labels) in [
            (&encoder, labels()),
            (&encoder, one.clone()),
            (&causal, one.clone()),
            (&causal, two.clone()),
            (&modern, one.clone()),
            (&modern, two.clone()),
            (&biased, one),
            (&biased, two),
        ] {
            let scale = LossScale::mean(&labels);
            let [found, expected] = [false, true].map(|full| {
                let mut gradients = Gradients::zeros_like(&model.params);
                let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
                let losses = match full {
                    false => model.loss(&mut pass, &inputs(), &labels, scale),
                    true => full_loss(model, &mut pass, &labels, scale),
                };
                pass.backward();
                (losses.total(), gradients.read_all().to_vec())
            });
            assert!((found.0 - expected.0).abs() < 1e-6, "{} {}", found.0, expected.0);
            assert!(found.1.iter().zip(&expected.1).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }

    #[test]
    fn a_batch_without_tokens_to_tag_has_no_gradient() {
        let device = device();
        let task = TaskHead::Tag { labels: 3 };
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
        assert!((mlm - 50f64.ln()).abs() < 0.2, "new weights predict uniformly: {losses:?}");
        assert!((losses.total() - mlm - 2f64.ln()).abs() < 0.1, "{losses:?}");
        for id in model.params.ids() {
            let name = model.params.name(id);
            // A key bias shifts all scores of a query equally, which softmax ignores.
            let has_gradient = gradients.read(id).iter().any(|&gradient| gradient != 0.0);
            assert!(has_gradient || name.ends_with("key.bias"), "{name} has no gradient");
        }
    }

    #[test]
    fn packing_does_not_change_outputs() {
        let device = device();
        let model = Model::new(small(), Heads::PRETRAINING, &device, 3).unwrap();
        let mut second = Inputs::default();
        second.push(&[2, 4, 12, 3, 30, 3], &[0, 0, 0, 0, 1, 1]);
        let run = |inputs: &Inputs, mlm_rows: &[i32]| {
            let mut pass = Pass::inference(&device, &model.params, DType::F32);
            let last = model.hidden_states(&mut pass, inputs, &[2]).remove(0);
            let logits = model.mlm_logits(&mut pass, inputs, mlm_rows).unwrap();
            let pair = model.nsp_logits(&mut pass, inputs).unwrap();
            [last, logits, pair].map(|output| output.value().to_vec_f32())
        };
        let (packed, separate) = (run(&inputs(), &[2, 5]), run(&second, &[1]));
        let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&packed[0][4 * 16..], &separate[0]));
        assert!(close(&packed[1][50..], &separate[1]));
        assert!(close(&packed[2][2..], &separate[2]));
    }

    #[test]
    fn hidden_states_are_returned_in_the_requested_order() {
        let device = device();
        let model = Model::new(small(), Heads::ENCODER, &device, 3).unwrap();
        let mut pass = Pass::inference(&device, &model.params, DType::F32);
        let mut states = |numbers: &[usize]| -> Vec<Vec<f32>> {
            let states = model.hidden_states(&mut pass, &inputs(), numbers);
            states.iter().map(|state| state.value().to_vec_f32()).collect()
        };
        let all = states(&[0, 1, 2]);
        assert_ne!(all[1], all[2]);
        assert_eq!(states(&[2, 0, 2]), [all[2].clone(), all[0].clone(), all[2].clone()]);
        assert_eq!((states(&[1]), states(&[])), (vec![all[1].clone()], vec![]));
        let cls = model.cls_states(&mut pass, &inputs());
        let expected = [&all[2][..16], &all[2][4 * 16..5 * 16]].concat();
        assert!(cls.value().to_vec_f32().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!(model.pooler_output(&mut pass, &cls).unwrap().value().shape(), [2, 16]);
    }

    /// The state of a token does not depend on later tokens, and the loss is named CLM.
    #[test]
    fn a_causal_model_attends_only_to_earlier_tokens() {
        let device = device();
        let model = Model::new(small().causal(), Heads::MLM, &device, 1).unwrap();
        assert_eq!(model.class_name(), "BertLMHeadModel");
        let logits = |last: u32| {
            let mut inputs = Inputs::default();
            inputs.push(&[2, 9, 4, last], &[0; 4]);
            let mut pass = Pass::inference(&device, &model.params, DType::F32);
            model.mlm_logits(&mut pass, &inputs, &[0, 1, 2, 3]).unwrap().value().to_vec_f32()
        };
        let (a, b) = (logits(3), logits(30));
        assert_eq!(a[..150], b[..150]);
        assert_ne!(a[150..], b[150..]);
        let mut pass = Pass::inference(&device, &model.params, DType::F32);
        let labels = PretrainLabels { nsp_labels: vec![], ..labels() };
        let losses = model.loss(&mut pass, &inputs(), &labels, LossScale::mean(&labels));
        assert!(losses.iter().map(|(name, loss)| (name, loss.count)).eq([(CLM, 2)]));
        let error = Model::new(small().causal(), Heads::PRETRAINING, &device, 1).err().unwrap().to_string();
        assert!(error.contains("expected the language-model head, the head of a task or none"), "{error}");
    }

    /// A causal model can read the last token of a sequence, which attends to all others; its first attends to none.
    #[test]
    fn a_causal_model_classifies_by_the_last_token() {
        let device = device();
        let logits = |token: SequenceToken, middle: u32| {
            let mut config = small().causal();
            config.task_input.token = token;
            let model = Model::new(config, Heads::of(TaskHead::Classify { labels: 3 }), &device, 1).unwrap();
            let mut inputs = inputs();
            inputs.push(&[2, middle, 3], &[0; 3]);
            let mut pass = Pass::inference(&device, &model.params, DType::F32);
            model.task_logits(&mut pass, &inputs, &[]).unwrap().value().to_vec_f32()
        };
        assert_eq!(logits(SequenceToken::First, 8), logits(SequenceToken::First, 9));
        let [a, b] = [8, 9].map(|middle| logits(SequenceToken::Last, middle));
        assert_eq!((a.len(), &a[..6]), (9, &b[..6]));
        assert_ne!(a[6..], b[6..]);
    }

    /// Frozen layers are not recorded: the BiLSTM and the weights of the features are all that has a gradient.
    #[test]
    fn a_bilstm_on_frozen_features_has_all_gradients() {
        let device = device();
        let mut config = small();
        config.task_input = TaskInput {
            features: Features::SumLast(3),
            bilstm: Some(BiLstmSize { layers: 2, size: 3 }),
            ..TaskInput::default()
        };
        let mut model = Model::new(config, Heads::of(TaskHead::Tag { labels: 3 }), &device, 1).unwrap();
        model.freeze(Some(2));
        let mut gradients = Gradients::zeros_like(&model.params);
        let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
        let logits = model.task_logits(&mut pass, &inputs(), &[1, 2, 6]).unwrap();
        assert_eq!(logits.value().shape(), [3, 3]);
        pass.seed_gradient(&logits, logits.value().clone());
        pass.backward();
        for (id, role) in model.roles() {
            let has_gradient = gradients.read(id).iter().any(|&gradient| gradient != 0.0);
            assert_eq!(has_gradient, role.module.head().is_some(), "{role:?}");
        }
    }

    #[test]
    fn rates_do_not_depend_on_the_order_of_calls() {
        let steps: [fn(&mut Model); 3] = [
            |model| model.freeze(Some(1)),
            |model| model.decay_rates(0.5),
            |model| model.freeze_unused_heads(Heads::MLM),
        ];
        let rates = |order: [usize; 3]| {
            let mut model = Model::new(small(), Heads::PRETRAINING, &device(), 1).unwrap();
            order.into_iter().for_each(|step| steps[step](&mut model));
            model.roles().map(|(_, role)| (role, model.rates.of(role.module, model.architecture()))).collect::<Vec<_>>()
        };
        let expected = rates([0, 1, 2]);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(rates(order), expected, "{order:?}");
        }
        for (role, rate) in expected {
            let expected = match small().architecture().heights(role.module) {
                Some([0 | 1, _]) => 0.0,
                Some(_) => 0.5,
                None if role.module.head() == Some(Head::Mlm) => 1.0,
                None => 0.0,
            };
            assert_eq!(rate, expected, "{role:?}");
        }
    }

    /// Every matrix of a dense layer, directly or as a part of a stack; no embedding, output layer, bias or norm.
    #[test]
    fn dense_layers_are_quantized() {
        let heads = |task| Heads { task: Some(task), ..Heads::PRETRAINING };
        let choose = |model_type: &str, heads: Heads| {
            let segments = if ["distilbert", "mpnet"].contains(&model_type) { 0 } else { 2 };
            (Config { model_type: model_type.to_owned(), type_vocab_size: segments, ..small() }, heads)
        };
        let classify = TaskHead::Classify { labels: 3 };
        for (config, heads) in [
            (small(), heads(classify)),
            (modern(), Heads { task: Some(classify), ..Heads::MLM }),
            choose("roberta", Heads { task: Some(classify), ..Heads::MLM }),
            choose("distilbert", Heads::of(classify)),
            choose("albert", Heads::PRETRAINING),
            choose("electra", Heads::RTD),
            choose("mpnet", Heads::MLM),
        ] {
            let model_type = config.model_type.clone();
            let mut model = Model::new(config, heads, &device(), 1).unwrap();
            let quantized: Vec<_> = model.bert.int8_weights().iter().map(|id| model.params.range(*id)).collect();
            for (id, role) in model.roles() {
                let is_output = matches!(
                    role.module,
                    Module::Embedding(_)
                        | Module::DistanceBias
                        | Module::MlmDecoder
                        | Module::NspHead
                        | Module::RtdOutput
                        | Module::Classifier
                        | Module::SequenceClassifier
                        | Module::SpanHead
                );
                let expected = model.params.shape(id).len() == 2 && !is_output;
                let range = model.params.range(id);
                let found = quantized.iter().any(|of| of.start <= range.start && range.end <= of.end);
                assert_eq!(found, expected, "{model_type}: {role:?}");
            }
            let states = |model: &Model| {
                let mut pass = Pass::inference(&device(), &model.params, DType::F32);
                let mut inputs = Inputs::default();
                inputs.push(&[2, 9, 4, 3], &[0; 4]);
                inputs.push(&[2, 4, 12, 3, 30, 3], &[0; 6]);
                let last = model.architecture().layers;
                model.hidden_states(&mut pass, &inputs, &[last])[0].value().to_vec_f32()
            };
            let exact = states(&model);
            model.quantize();
            let found = states(&model);
            let largest = exact.iter().zip(&found).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(largest > 0.0 && largest < 0.1, "{model_type}: {largest}");
        }
    }

    /// A layer can only be frozen if no trained layer uses its weights.
    #[test]
    fn shared_layers_are_frozen_together() {
        let frozen = |config: Config, layers: usize| {
            let mut model = Model::new(config, Heads::MLM, &device(), 1).unwrap();
            model.freeze(Some(layers));
            let of_layers = model.roles().filter(|(_, role)| matches!(role.module, Module::Layer { .. }));
            of_layers.filter(|(_, role)| model.rates.of(role.module, model.architecture()) == 0.0).count()
        };
        let of_albert = |groups| Config {
            model_type: "albert".to_owned(),
            num_hidden_layers: 4,
            num_hidden_groups: Some(groups),
            ..small()
        };
        // A layer has 16 parameters.
        assert_eq!([1, 3, 4].map(|layers| frozen(of_albert(1), layers)), [0, 0, 16]);
        assert_eq!([1, 2, 3, 4].map(|layers| frozen(of_albert(2), layers)), [0, 16, 16, 32]);
        let attention = Config { shared_parts: SharedParts::Attention, ..small() };
        assert_eq!([1, 2].map(|layers| frozen(attention.clone(), layers)), [0, 10 + 2 * 6]);
    }

    /// Regression: the table of rotations had a row for each of `max_position_embeddings`, so that a config.json could take gigabytes.
    #[test]
    fn rotations_are_computed_for_the_positions_in_use() {
        let device = device();
        let logits = |positions: usize, tokens: usize| {
            let config = Config { max_position_embeddings: positions, ..modern() };
            let model = Model::new(config, Heads::MLM, &device, 1).unwrap();
            let ids: Vec<u32> = (0..tokens as u32).map(|i| i % 40).collect();
            let mut inputs = Inputs::default();
            inputs.push(&ids, &vec![0; tokens]);
            let mut pass = Pass::inference(&device, &model.params, DType::F32);
            model.mlm_logits(&mut pass, &inputs, &[tokens as i32 - 1]).unwrap().value().to_vec_f32()
        };
        assert_eq!(logits(1 << 24, 30), logits(64, 30));
        assert_eq!(logits(9000, 8500), logits(8500, 8500));
    }

    #[test]
    fn families_without_a_head_reject_it() {
        let error = |model_type: &str, heads: Heads, causal: bool| {
            let mut config = Config { model_type: model_type.to_owned(), is_decoder: causal, ..small() };
            config.type_vocab_size = if model_type == "distilbert" { 0 } else { 2 };
            Model::new(config, heads, &device(), 1).err().unwrap().to_string()
        };
        let found = error("roberta", Heads::PRETRAINING, false);
        assert!(found.contains("RoBERTa has no next-sentence head; expected BERT or ALBERT"), "{found}");
        let found = error("bert", Heads::RTD, false);
        assert!(found.contains("BERT has no replaced-token head; expected ELECTRA"), "{found}");
        let found = error("distilbert", Heads::MLM, true);
        assert!(found.contains("DistilBERT has no class of causal language model"), "{found}");
    }

    #[test]
    fn a_config_of_another_architecture_is_rejected() {
        let mut model = Model::new(small(), Heads::MLM, &device(), 1).unwrap();
        model.set_dropout(0.25, 0.0).unwrap();
        assert_eq!((model.config().hidden_dropout_prob, model.architecture().dropouts.classify), (0.25, 0.25));
        assert!(model.set_dropout(1.0, 0.0).unwrap_err().to_string().contains("hidden_dropout_prob is 1"));
        let impossible = Config { num_attention_heads: 3, ..model.config().clone() };
        assert!(matches!(model.set_config(impossible), Err(ModelError::Config { .. })));
        let other = Config { vocab_size: 51, ..model.config().clone() };
        assert!(model.set_config(other).unwrap_err().to_string().contains("architecture of a model cannot change"));
    }

    #[test]
    fn losses_without_a_head_or_labels_are_empty() {
        let device = device();
        let model = Model::new(small(), Heads::MLM, &device, 1).unwrap();
        let no_labels = PretrainLabels { mlm_rows: vec![], mlm_labels: vec![], ..labels() };
        let mut pass = Pass::inference(&device, &model.params, DType::F32);
        let losses = model.loss(&mut pass, &inputs(), &no_labels, LossScale::mean(&no_labels));
        assert_eq!(losses, Losses::default());
        // A head that reads the pooler's output has it.
        let model = Model::new(small(), Heads { pooler: false, ..Heads::PRETRAINING }, &device, 1).unwrap();
        assert_eq!(model.heads, Heads::PRETRAINING);
    }

    #[test]
    fn invalid_batches_are_explained() {
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
