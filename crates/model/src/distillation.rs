//! Distillation: the losses of a student that learns from a teacher, a larger model whose weights do not change.
//!
//! | loss | compared | source |
//! | --- | --- | --- |
//! | [`MLM`] | the student's predictions of masked tokens, with the tokens | Devlin et al. 2019 |
//! | [`KL`] | the distributions of masked tokens | Sanh et al. 2019, "DistilBERT", section 2 |
//! | [`COSINE`] | the last hidden states of all tokens | Sanh et al. 2019, section 3 |
//! | [`RELATION`] | relations of queries, of keys and of values within a layer | Wang et al. 2021, "MiniLMv2", section 3.1 |
//!
//! The soft targets are those of the masked tokens, as with `--restrict_ce_to_mask` of
//! huggingface/transformers-research-projects.

use std::ops::Range;

use cloze_engine::ops::{self, LossSum};
use cloze_engine::{Pass, Tensor, Var};

use crate::architecture::Architecture;
use crate::error::ModelError;
use crate::flops::{FlopsOf, useful_flops};
use crate::graph::ModelGraph;
use crate::inputs::{Inputs, PretrainLabels};
use crate::losses::{COSINE, KL, Losses, MLM, RELATION};
use crate::model::Model;
use crate::output_rows::{OutputRows, indices};
use crate::role::{Module, Role};

/// What a student learns from a teacher.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    /// Whether the student predicts masked tokens.
    pub mlm: bool,
    /// The temperature of the soft targets; `None` without them.
    pub temperature: Option<f32>,
    /// Whether the last hidden states are compared. Both must have the same width.
    pub cosine: bool,
    /// The compared relations.
    pub relations: Option<Relations>,
}

/// Attention relations: those of the student's last layer learn from those of a layer of the teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relations {
    /// The number of relation heads. It must divide the widths of both models, not their attention heads.
    pub heads: usize,
    /// The teacher's layer, from 1.
    pub layer: usize,
}

/// The tokens whose last hidden states are needed.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    None,
    Predicted,
    All,
}

/// What the losses compare of one model.
struct States {
    /// The last hidden states of the rows that are needed.
    last: Option<Var>,
    rows: OutputRows,
    /// Queries, keys and values of the layer with the relations, `[T, 3H]`.
    qkv: Option<Var>,
}

impl Distillation {
    /// Whether the student predicts masked tokens: from their labels, or from soft targets.
    pub fn predicts_tokens(&self) -> bool {
        self.mlm || self.temperature.is_some()
    }

    /// Whether the student's last hidden states are compared or read. Otherwise its last layer computes only queries, keys
    /// and values.
    pub fn reads_last_states(&self) -> bool {
        self.predicts_tokens() || self.cosine
    }

    fn needs(&self, predicts: bool, labels: &PretrainLabels) -> Needs {
        match (self.cosine, predicts && !labels.mlm_rows.is_empty()) {
            (true, _) => Needs::All,
            (false, true) => Needs::Predicted,
            (false, false) => Needs::None,
        }
    }

    /// Runs both models on a batch, and returns the losses of the student. Their gradients, recorded in the student's pass,
    /// are multiplied by the scale of the loss's name. The teacher runs without recording and without dropout, with the
    /// same type of activations.
    pub fn loss(
        &self,
        student: &ModelGraph,
        teacher: &Model,
        pass: &mut Pass,
        inputs: &Inputs,
        labels: &PretrainLabels,
        scale: impl Fn(&str) -> f32,
    ) -> Losses {
        let device = pass.device().clone();
        let mut losses = Losses::default();
        let mut add = |name, loss: Option<LossSum>| loss.into_iter().for_each(|loss| losses.add(name, loss));
        let mut inference = Pass::inference(&device, &teacher.params, pass.precision());
        let needs = self.needs(self.temperature.is_some(), labels);
        let of_teacher = states(teacher, &mut inference, inputs, labels, needs, self.relations.map(|r| r.layer));
        let needs = self.needs(self.predicts_tokens(), labels);
        let layer = self.relations.map(|_| student.architecture().layers);
        let of_student = states(student, pass, inputs, labels, needs, layer);

        if let Some(last) = of_student.last.as_ref().filter(|_| self.predicts_tokens() && !labels.mlm_rows.is_empty()) {
            let selected = of_student.rows.select(pass, last, &labels.mlm_rows);
            if let Some(features) = student.bert.mlm_features(pass, &selected) {
                if self.mlm {
                    let ids = indices(&device, &labels.mlm_labels);
                    add(MLM, student.bert.mlm_loss(pass, &features, &ids, scale(MLM)));
                }
                let targets = of_teacher.last.as_ref().and_then(|last| {
                    let selected = of_teacher.rows.select(&mut inference, last, &labels.mlm_rows);
                    teacher.bert.mlm_features(&mut inference, &selected)
                });
                if let (Some(temperature), Some(targets)) = (self.temperature, targets) {
                    let mut logits = |range: Range<usize>| -> Tensor {
                        let rows: Vec<i32> = range.map(|row| row as i32).collect();
                        let features = ops::index_select(&mut inference, &targets, &indices(&device, &rows));
                        let logits = teacher.bert.mlm_logits(&mut inference, &features);
                        logits.expect("a teacher with features has the MLM head").value().clone()
                    };
                    add(KL, student.bert.mlm_kl(pass, &features, &mut logits, temperature, scale(KL)));
                }
            }
        }
        if let (true, Some(student), Some(teacher)) = (self.cosine, &of_student.last, &of_teacher.last) {
            add(COSINE, Some(ops::cosine_embedding_loss(pass, student, teacher.value(), scale(COSINE))));
        }
        if let (Some(Relations { heads, .. }), Some(student), Some(teacher)) =
            (self.relations, &of_student.qkv, &of_teacher.qkv)
        {
            // The heads of queries, keys and values are side by side; the loss is the mean over the relation heads.
            let ends = indices(&device, &inputs.cu_seqlens);
            let scale = scale(RELATION) / heads as f32;
            let mut loss = ops::relation_kl(pass, student, teacher.value(), &ends, 3 * heads, scale);
            loss.sum /= heads as f64;
            add(RELATION, Some(loss));
        }
        losses
    }

    /// Useful floating-point operations of [`loss`](Self::loss) and, if counted, the student's backward pass.
    pub fn useful_flops(
        &self,
        student: &ModelGraph,
        teacher: &Model,
        inputs: &Inputs,
        labels: &PretrainLabels,
        of: FlopsOf,
    ) -> f64 {
        let of_model = |architecture: &Architecture, predicts, layer: Option<usize>, of| {
            let needs = self.needs(predicts, labels);
            let top = match (needs, layer) {
                (Needs::None, layer) => layer.unwrap_or(0),
                _ => architecture.layers,
            };
            let rows = match needs {
                Needs::None => Vec::new(),
                Needs::Predicted => labels.mlm_rows.clone(),
                Needs::All => (0..inputs.tokens() as i32).collect(),
            };
            let rows = OutputRows::new(rows, &inputs.cu_seqlens);
            let lengths = inputs.lengths().zip(rows.counts()).map(|(length, needed)| [length, needed]);
            let predicted = if predicts { labels.mlm_rows.len() } else { 0 };
            let encoder = match top {
                0 => 0.0,
                layers => useful_flops(&Architecture { layers, ..*architecture }, lengths, predicted, of),
            };
            // Forward, a query for each token, whose key and value the last layer computes, and X·Xᵀ for each relation;
            // backward, twice as much.
            let pairs: f64 = inputs.lengths().map(|length| (length as f64).powi(2)).sum();
            let (h, tokens) = (architecture.hidden_size as f64, inputs.tokens() as f64);
            let forward = if layer.is_some() { 2.0 * h * h * tokens + 6.0 * h * pairs } else { 0.0 };
            encoder + if of == FlopsOf::Forward { forward } else { 3.0 * forward }
        };
        let (layer, layers) = (self.relations.map(|r| r.layer), student.architecture().layers);
        of_model(teacher.architecture(), self.temperature.is_some(), layer, FlopsOf::Forward)
            + of_model(student.architecture(), self.predicts_tokens(), layer.map(|_| layers), of)
    }
}

/// Runs a model as far as its states are needed; `layer` is the one with the relations, from 1.
fn states(
    model: &ModelGraph,
    pass: &mut Pass,
    inputs: &Inputs,
    labels: &PretrainLabels,
    needs: Needs,
    layer: Option<usize>,
) -> States {
    let tokens = match needs {
        Needs::All => (0..inputs.tokens() as i32).collect(),
        _ => labels.mlm_rows.clone(),
    };
    let rows = OutputRows::new(tokens, &inputs.cu_seqlens);
    let (top, last_rows) = match needs {
        Needs::None => (layer.map(|layer| layer - 1), None),
        Needs::Predicted => (Some(model.architecture().layers), Some(&rows)),
        Needs::All => (Some(model.architecture().layers), None),
    };
    let mut input = None;
    let last = top.map(|top| {
        model.encode(pass, inputs, top, last_rows, |number, state| {
            if layer == Some(number + 1) {
                input = Some(state.clone());
            }
        })
    });
    let qkv = layer.zip(input).map(|(layer, input)| model.bert.queries_keys_values(pass, layer - 1, &input));
    States { last: last.filter(|_| needs != Needs::None), rows, qkv }
}

/// Copies the weights of a teacher to a student with fewer layers: embeddings, the MLM head and evenly spaced layers, the
/// first and the last among them. For 6 of 12 layers, these are 0, 2, 4, 7, 9 and 11, as `extract_distilbert.py` of
/// huggingface/transformers-research-projects has them.
///
/// # Errors
/// [`ModelError::Config`] if the student has more layers than the teacher, or a parameter that the teacher does not have
/// or that has another shape.
pub fn start_from_teacher(student: &mut Model, teacher: &Model) -> Result<(), ModelError> {
    let fail = |problem| Err(ModelError::Config { path: None, problem });
    let [layers, of_teacher] = [student, teacher].map(|model| model.architecture().layers);
    if layers > of_teacher {
        return fail(format!(
            "the student has {layers} layers, more than the teacher's {of_teacher}: expected at most {of_teacher} to start from them"
        ));
    }
    let [found, expected] = [student, teacher].map(|model| model.architecture().first_position());
    if found != expected {
        return fail(format!(
            "positions of the student start at {found}, those of the teacher at {expected}: expected models of related families to start from the \
             teacher"
        ));
    }
    let copies: Vec<_> = student.roles().map(|(id, role)| (id, source(student, teacher, role))).collect();
    for (id, role) in copies {
        let name = student.params.name(id);
        let Some(from) = teacher.find(role) else {
            return fail(format!("the teacher has no {name}, so the student cannot start from it"));
        };
        let (found, expected) = (student.params.shape(id), teacher.params.shape(from));
        if found != expected {
            return fail(format!(
                "{name} of the student has the shape {found:?}, that of the teacher {expected:?}: expected a student with the teacher's sizes to \
                 start from it"
            ));
        }
        student.params.write(id, &teacher.params.read(from));
    }
    Ok(())
}

/// The role of the teacher's parameter that a parameter of the student starts from.
fn source(student: &Model, teacher: &Model, role: Role) -> Role {
    let Module::Layer { part, .. } = role.module else { return role };
    let (of_student, of_teacher) = (student.architecture(), teacher.architecture());
    let number = (0..of_student.layers).find(|&number| of_student.layer_module(number, part) == role.module);
    let number = number.map_or(0, |number| spaced(number, of_student.layers, of_teacher.layers));
    Role { module: of_teacher.layer_module(number, part), kind: role.kind }
}

/// The layer of `all` from which layer `number` of `layers` starts, all from 0.
fn spaced(number: usize, layers: usize, all: usize) -> usize {
    match layers {
        0 | 1 => 0,
        // Rounded to the nearest.
        _ => (2 * number * (all - 1) + layers - 1) / (2 * (layers - 1)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::heads::Heads;
    use crate::role::LayerPart;
    use crate::testing::{device, inputs, labels, small};
    use cloze_engine::{DType, Gradients};

    fn model(layers: usize, family: &str, seed: u64) -> Model {
        let config = Config { num_hidden_layers: layers, model_type: family.to_owned(), ..small() };
        Model::new(config, Heads::MLM, &device(), seed).unwrap()
    }

    #[test]
    fn a_student_starts_from_evenly_spaced_layers_of_another_family() {
        let spacing = |layers, all| (0..layers).map(|number| spaced(number, layers, all)).collect::<Vec<_>>();
        assert_eq!(spacing(6, 12), [0, 2, 4, 7, 9, 11]);
        assert_eq!((spacing(4, 4), spacing(1, 12)), (vec![0, 1, 2, 3], vec![0]));
        let (teacher, mut student) = (model(4, "bert", 1), model(2, "distilbert", 2));
        start_from_teacher(&mut student, &teacher).unwrap();
        let read = |model: &Model, module: Module| model.params.read(model.find(module.weight()).unwrap()).to_vec();
        for (number, from) in [(0, 0), (1, 3)] {
            let [found, expected] = [(&student, number), (&teacher, from)]
                .map(|(model, number)| read(model, Module::layer(number, LayerPart::Intermediate)));
            assert_eq!(found, expected, "layer {number}");
        }
        assert_eq!(read(&student, Module::MlmTransform), read(&teacher, Module::MlmTransform));

        let error = |student: &mut Model, teacher| start_from_teacher(student, teacher).unwrap_err().to_string();
        let found = error(&mut model(5, "bert", 3), &teacher);
        assert!(found.contains("the student has 5 layers, more than the teacher's 4"), "{found}");
        let narrow = Config { hidden_size: 8, ..small() };
        let found = error(&mut Model::new(narrow, Heads::MLM, &device(), 3).unwrap(), &teacher);
        assert!(
            found.contains("word_embeddings.weight of the student has the shape [50, 8], that of the teacher [50, 16]"),
            "{found}"
        );
        let found = error(&mut student, &Model::new(small(), Heads::NONE, &device(), 3).unwrap());
        assert!(found.contains("the teacher has no vocab_transform.weight"), "{found}");
    }

    /// Compares losses and the gradients of all parameters with those of PyTorch; see `fixtures/distillation/make.py`.
    #[test]
    fn losses_and_gradients_equal_those_of_pytorch() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/distillation");
        let (device, weights) = (device(), [(MLM, 2.0), (KL, 5.0), (COSINE, 1.0), (RELATION, 0.5)]);
        let teacher = Model::load(&fixtures.join("teacher"), &device).unwrap();
        let relations = |layer| Some(Relations { heads: 4, layer });
        for (name, compared) in [
            ("distilbert", Distillation { mlm: true, temperature: Some(2.0), cosine: true, relations: relations(3) }),
            ("narrow", Distillation { mlm: false, temperature: None, cosine: false, relations: relations(2) }),
        ] {
            let mut student = Model::load(&fixtures.join(name), &device).unwrap();
            let bytes = std::fs::read(fixtures.join(name).join("reference.safetensors")).unwrap();
            let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let words = |key: &str| reference.tensor(key).unwrap().data().as_chunks::<4>().0.to_vec();
            let integers = |key: &str| words(key).into_iter().map(i32::from_le_bytes).collect::<Vec<i32>>();
            let numbers = |key: &str| words(key).into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>();
            let ids = integers("ids");
            let inputs = Inputs::packed(ids.clone(), vec![0; ids.len()], &integers("ends"));
            let (mlm_rows, mlm_labels) = (integers("rows"), integers("labels"));
            let labels = PretrainLabels { mlm_rows, mlm_labels, nsp_labels: vec![] };
            let count = |name: &str| if [MLM, KL].contains(&name) { labels.mlm_rows.len() } else { ids.len() };
            let scale = |name: &str| {
                let weight = weights.iter().find(|(known, _)| *known == name).unwrap().1;
                weight / count(name) as f32
            };

            let mut gradients = Gradients::zeros_like(&student.params);
            let mut pass = Pass::recording(&device, &student.params, &mut gradients, DType::F32, None);
            let losses = compared.loss(&student, &teacher, &mut pass, &inputs, &labels, scale);
            pass.backward();
            let expected = reference.names().into_iter().filter_map(|key| key.strip_prefix("loss."));
            assert_eq!(losses.iter().count(), expected.count(), "{name}");
            for (loss, sum) in losses.iter() {
                let expected = f64::from(numbers(&format!("loss.{loss}"))[0]);
                assert_eq!(sum.count, count(loss));
                assert!((sum.mean() - expected).abs() < 2e-6 * expected, "{name}: {loss} {}, {expected}", sum.mean());
            }
            let stored: Vec<&str> = reference.names().into_iter().filter_map(|key| key.strip_prefix("grad.")).collect();
            let mut compared_count = 0;
            let largest = gradients.read_all().iter().fold(0f32, |largest, x| largest.max(x.abs()));
            for id in student.params.ids() {
                // A model without a head has no prefix in Transformers.
                let own = student.params.name(id);
                let key = stored.iter().find(|key| own == **key || own.strip_prefix("bert.") == Some(*key));
                let found = gradients.read(id);
                let expected = key.map_or(vec![0.0; found.len()], |key| numbers(&format!("grad.{key}")));
                compared_count += usize::from(key.is_some());
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-6 * largest, "{name}: {own}: {found}, expected {expected}");
                }
            }
            assert_eq!(compared_count, stored.len(), "{name}: {stored:?}");

            // What has no gradient is frozen, if the model is prepared for it.
            if !compared.reads_last_states() {
                student.freeze_last_output();
                let is_frozen = |module: Module| student.rates.of(module, student.architecture()) == 0.0;
                let parts = LayerPart::ALL.map(|part| is_frozen(Module::layer(1, part)));
                assert_eq!(parts, [false, false, false, false, true, true, true, true, true, true]);
                assert!(!is_frozen(Module::layer(0, LayerPart::Output)));
            }
        }
    }

    #[test]
    fn flops_are_those_of_both_models() {
        let (teacher, student) = (model(4, "bert", 1), model(2, "bert", 2));
        let labels = PretrainLabels { nsp_labels: vec![], ..labels() };
        let soft = Distillation { mlm: true, temperature: Some(2.0), cosine: false, relations: None };
        let flops = |compared: Distillation, of| compared.useful_flops(&student, &teacher, &inputs(), &labels, of);
        let [of_teacher, of_student] =
            [&teacher, &student].map(|model| model.useful_flops(&inputs(), &labels, FlopsOf::ForwardBackward));
        let found = flops(soft, FlopsOf::ForwardBackward);
        assert!((found / (of_teacher / 3.0 + of_student) - 1.0).abs() < 1e-12, "{found}");
        let found = flops(soft, FlopsOf::Forward);
        assert!((found / (of_teacher + of_student) * 3.0 - 1.0).abs() < 1e-12, "{found}");
        // Relations of the teacher's second layer need neither the layers above it nor the vocabulary.
        let relations = Some(Relations { heads: 4, layer: 2 });
        let minilm = Distillation { mlm: false, temperature: None, cosine: false, relations };
        assert!(flops(minilm, FlopsOf::Forward) < of_student, "{}", flops(minilm, FlopsOf::Forward));
    }

    /// A student that equals its teacher has nothing to learn from it.
    #[test]
    fn the_distance_from_itself_is_zero() {
        let (model, device, labels) =
            (model(2, "bert", 1), device(), PretrainLabels { nsp_labels: vec![], ..labels() });
        let relations = Some(Relations { heads: 4, layer: 2 });
        let all = Distillation { mlm: false, temperature: Some(2.0), cosine: true, relations };
        let mut gradients = Gradients::zeros_like(&model.params);
        let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
        let losses = all.loss(&model, &model, &mut pass, &inputs(), &labels, |_| 1.0);
        pass.backward();
        let counts: Vec<_> = losses.iter().map(|(name, loss)| (name, loss.count, loss.sum.abs() < 1e-5)).collect();
        assert_eq!(counts, [(KL, 2, true), (COSINE, 10, true), (RELATION, 10, true)]);
        assert_eq!(losses.get(KL).unwrap().correct, 2);
        assert!(gradients.read_all().iter().all(|gradient| gradient.abs() < 1e-5));
    }
}
