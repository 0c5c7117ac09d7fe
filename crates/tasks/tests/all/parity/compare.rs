//! Compares a model folder with its `reference.safetensors`. Every tensor of the reference is compared or reported.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use cloze_engine::{DType, Device, Gradients, Pass, Tensor};
use cloze_model::role::{Kind, LayerPart, Table};
use cloze_model::{LossScale, Model, Module, Role, Schema, TaskHead};
use cloze_tasks::Example;
use cloze_tasks::batch::TaskBatch;

use super::reference::{self, Array, Packed};

/// The largest relative errors of tensors, ‖ours − theirs‖ / ‖theirs‖.
#[derive(Debug, Clone, Copy, Default)]
pub struct MaxErrors {
    pub output: f64,
    pub loss: f64,
    pub gradient: f64,
}

impl MaxErrors {
    fn update(&mut self, name: &str, error: f64) {
        let largest = match name {
            "output.loss" => &mut self.loss,
            name if name.starts_with("grad.") => &mut self.gradient,
            _ => &mut self.output,
        };
        *largest = largest.max(error);
    }
}

impl fmt::Display for MaxErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MaxErrors { output, loss, gradient } = self;
        write!(f, "largest relative error: outputs {output:.1e}, loss {loss:.1e}, gradients {gradient:.1e}")
    }
}

/// The minimum bound in f32: see [`YARDSTICKS`].
const F32_BOUND: f64 = 1e-4;

/// The unit roundoff u: the largest relative error of rounding a number.
fn rounding(precision: DType) -> f64 {
    match precision {
        DType::BF16 => 1.0 / 256.0,
        _ => f64::from(f32::EPSILON),
    }
}

/// The bound on errors, in yardsticks. The effect of rounding depends on the model: a steep softmax or two logits that
/// nearly cancel amplify it a hundredfold. Therefore the yardstick is measured on the model: how much a tensor changes,
/// in f32, if each weight changes by a random fraction of u; the maximum over a few draws, and at least u. A pass in
/// bf16 rounds the weights like that, and also about eight activations per layer in the forward and eight in the
/// backward pass. These are independent errors of the same size, whose squares add to √16 yardsticks. The bound is
/// twice that (most tensors reach 1, the largest observed value is 4).
///
/// In f32 this is 1e-5 or less, and [`F32_BOUND`] applies. An exception is a random model with many layers: its last
/// softmax is so steep that its gradient is a difference of equal numbers, in which PyTorch's own f32 differs from its
/// f64 by up to 1e-3.
const YARDSTICKS: f64 = 8.0;
const DRAWS: u64 = 4;

/// How many times as large the bounds of bf16 are on a GPU: as in PyTorch, the input of an activation function is rounded too, which the CPU
/// does not need. Found by the models that repeat one layer (ALBERT), where it is 2.2.
const GPU_ROUNDINGS: f64 = 3.0;

/// The norm of a gradient is replaced by this fraction of the norm of all gradients if it is smaller.
const GRADIENT_FLOOR: f64 = 1e-3;

/// Tensors by the names of the reference, without padding.
type Named = BTreeMap<String, Vec<f64>>;

/// Compares a folder with its reference. The findings are all differences, or the reason why nothing could be compared.
pub fn check_folder(device: &Device, folder: &Path, precision: DType) -> Result<MaxErrors, Vec<String>> {
    let one = |problem: String| vec![problem];
    let mut reference = reference::read(&folder.join("reference.safetensors")).map_err(one)?;
    let load = || Model::load(folder, device).map_err(|error| one(format!("cannot be checked: {error}")));
    let model = load()?;
    // Some classes declare the tied decoder before the word embeddings: its gradient has the decoder's name then.
    let schema = model.schema();
    let [word, decoder] = [Module::Embedding(Table::Word), Module::MlmDecoder].map(Module::weight);
    if schema.has(decoder.module)
        && model.find(decoder).is_none()
        && let Some(gradient) = reference.remove(&format!("grad.{}", schema.name(decoder)))
    {
        reference.insert(format!("grad.{}", schema.name(word)), gradient);
    }
    let inputs = reference::pack(&mut reference, model.heads, model.config()).map_err(one)?;
    model.check(&inputs.tokens, &inputs.labels).map_err(|error| one(error.to_string()))?;
    let has_loss = model.heads.mlm || model.heads.nsp || model.heads.rtd || model.heads.task.is_some();
    if has_loss && !reference.contains_key("output.loss") {
        return Err(one("cannot be checked: the reference lacks output.loss".to_owned()));
    }

    let mut ours = compute(device, &model, &inputs, precision);
    if model.heads.task == Some(TaskHead::Answer)
        && !inputs.unpadded
        && inputs.rows.len() < inputs.padded.iter().product()
    {
        println!(
            "{}: its softmax includes padding, which a packed batch does not have: the loss is computed with",
            folder.display()
        );
        println!("  the reference's logits of the padding in addition to ours; gradients are not compared");
        let loss = answer_loss_with_padding(&ours, &reference, &inputs);
        ours.insert("output.loss".to_owned(), vec![loss]);
        ours.retain(|name, _| !name.starts_with("grad."));
        reference.retain(|name, _| !name.starts_with("grad."));
    }
    let theirs: Named = reference.iter().map(|(name, array)| (name.clone(), real_rows(array, &inputs))).collect();
    let mut bounds: BTreeMap<&str, f64> = theirs.keys().map(|name| (name.as_str(), rounding(precision))).collect();
    let still = compute(device, &model, &inputs, DType::F32);
    for draw in 0..DRAWS {
        let mut moved = load()?;
        moved.params.edit_all(|values| jitter(values, rounding(precision), draw));
        let moved = compute(device, &moved, &inputs, DType::F32);
        for (name, bound) in &mut bounds {
            if let Some(moved) = moved.get(*name) {
                *bound = bound.max(relative_error(name, moved, &still, schema));
            }
        }
    }
    let more_roundings = if precision == DType::BF16 && device.memory_use().is_some() { GPU_ROUNDINGS } else { 1.0 };
    for (name, bound) in &mut bounds {
        let least = if precision == DType::F32 { F32_BOUND } else { 0.0 };
        // A gradient that cancels consists of rounding errors only.
        let yardsticks = if cancels(name, &theirs, schema).is_some() { 2.0 * YARDSTICKS } else { YARDSTICKS };
        *bound = (yardsticks * more_roundings * *bound).max(least);
    }

    let mut max_errors = MaxErrors::default();
    let mut findings = Vec::new();
    for (name, ours) in &ours {
        let Some(expected) = theirs.get(name) else {
            findings.push(format!("the reference lacks {name}"));
            continue;
        };
        if ours.len() != expected.len() {
            findings.push(format!("{name}: {} values, the reference has {}", ours.len(), expected.len()));
            continue;
        }
        let (error, bound) = (relative_error(name, ours, &theirs, schema), bounds[name.as_str()]);
        max_errors.update(name, error);
        if error.is_nan() || error > bound {
            findings.push(format!("{name}: relative error {error:.2e}, expected at most {bound:.2e}"));
        }
    }
    let unchecked = theirs.keys().filter(|name| !ours.contains_key(*name));
    findings.extend(unchecked.map(|name| format!("{name} is in the reference, but is not checked")));
    if findings.is_empty() { Ok(max_errors) } else { Err(findings) }
}

/// ‖ours − theirs‖ / ‖theirs‖; for gradients the divisor has a lower bound.
fn relative_error(name: &str, ours: &[f64], theirs: &Named, schema: Schema) -> f64 {
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let expected = &theirs[name];
    let all = || {
        let gradients = theirs.iter().filter(|(name, _)| name.starts_with("grad."));
        GRADIENT_FLOOR * gradients.map(|(_, values)| norm(values).powi(2)).sum::<f64>().sqrt()
    };
    let floor = if let Some(module) = cancels(name, theirs, schema) {
        // Both sides contain the rounding errors of sums that should cancel; their size is relative to the gradient of
        // the module's weight. That is 0, too, if a token attends only to itself.
        let weight = theirs.get(&format!("grad.{}", schema.name(module.weight()))).map_or(0.0, |weight| norm(weight));
        if weight > 0.0 { weight } else { all() }
    } else if name.starts_with("grad.") {
        all()
    } else {
        0.0
    };
    let difference: Vec<f64> = ours.iter().zip(expected).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(expected).max(floor).max(f64::MIN_POSITIVE)
}

/// The module whose bias has this gradient, if its true gradient is 0.
fn cancels(name: &str, theirs: &Named, schema: Schema) -> Option<Module> {
    let Role { module, kind: Kind::Bias } = schema.role(name.strip_prefix("grad.")?)? else { return None };
    let cancels = match module {
        // It adds the same value to every score of a query, which does not change the softmax.
        Module::Layer { part: LayerPart::Key, .. } => true,
        // The bias of the head of answers and of the last LayerNorm add the same value to the logits of all tokens,
        // which does not change the softmax over them.
        Module::SpanHead => true,
        Module::Classifier => theirs.contains_key("output.start_logits"),
        Module::Layer { part: LayerPart::OutputNorm, .. } => {
            schema.has(Module::SpanHead)
                && theirs.contains_key(&format!("grad.{}", schema.name(Module::SpanHead.bias())))
        }
        _ => false,
    };
    cancels.then_some(module)
}

/// Changes every value by a random fraction of up to `most`.
fn jitter(values: &mut [f32], most: f64, draw: u64) {
    let mut state = draw;
    for value in values {
        // Knuth's linear congruential generator; the upper bits are random enough.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let part = (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0;
        *value = (f64::from(*value) * (1.0 + most * part)) as f32;
    }
}

/// A reference array `[B, S, …]` without the rows of padding.
fn real_rows(array: &Array, inputs: &Packed) -> Vec<f64> {
    let padded = &inputs.padded;
    // Hidden states of choices have the shape [B·C, S, H].
    let flat = padded.len() == 3 && array.shape.len() == 3 && array.shape[..2] == [padded[0] * padded[1], padded[2]];
    if array.shape == *padded {
        return inputs.rows.iter().map(|&row| array.values[row]).collect();
    }
    if flat || array.shape.len() == padded.len() + 1 && array.shape[..padded.len()] == padded[..] {
        inputs.rows.iter().flat_map(|&row| array.row(row)).copied().collect()
    } else {
        array.values.clone()
    }
}

/// Computes all values that a reference contains: hidden states, pooler output, logits of every token, loss, and the
/// gradient of every parameter, without dropout.
fn compute(device: &Device, model: &Model, inputs: &Packed, precision: DType) -> Named {
    let floats = |tensor: &Tensor| tensor.to_vec_f32().into_iter().map(f64::from).collect::<Vec<f64>>();
    let mut named = Named::new();

    let everywhere: Vec<i32> = (0..inputs.rows.len() as i32).collect();
    let mut pass = Pass::inference(device, &model.params, precision);
    let numbers: Vec<usize> = (0..=model.architecture().layers).collect();
    let hidden = model.hidden_states(&mut pass, &inputs.tokens, &numbers);
    let mlm_logits = model.mlm_logits(&mut pass, &inputs.tokens, &everywhere);
    let nsp_logits = model.nsp_logits(&mut pass, &inputs.tokens);
    for (number, hidden) in hidden.iter().enumerate() {
        named.insert(format!("output.hidden.{number}"), floats(hidden.value()));
    }
    let both = model.heads.mlm && model.heads.nsp;
    let heads = [("prediction_logits", mlm_logits), (model.schema().family().pair_logits, nsp_logits)];
    for (name, logits) in heads.into_iter().filter_map(|(name, logits)| Some((name, logits?))) {
        named.insert(format!("output.{}", if both { name } else { "logits" }), floats(logits.value()));
    }

    if model.heads.rtd {
        let logits = model.rtd_logits(&mut pass, &inputs.tokens, &everywhere).expect("a discriminator");
        named.insert("output.logits".to_owned(), floats(logits.value()));
        let mut gradients = Gradients::zeros_like(&model.params);
        let mut pass = Pass::recording(device, &model.params, &mut gradients, precision, None);
        let scale = 1.0 / inputs.replaced.len() as f32;
        let loss = model.rtd_loss(&mut pass, &inputs.tokens, &inputs.replaced, scale).expect("a discriminator");
        pass.backward();
        named.insert("output.loss".to_owned(), vec![loss.mean()]);
        insert_gradients(&mut named, model, &gradients);
    } else if model.heads.task.is_some() {
        named.extend(compute_task(device, model, inputs, precision));
    } else if model.heads.mlm || model.heads.nsp {
        let mut gradients = Gradients::zeros_like(&model.params);
        let mut pass = Pass::recording(device, &model.params, &mut gradients, precision, None);
        let losses = model.loss(&mut pass, &inputs.tokens, &inputs.labels, LossScale::mean(&inputs.labels));
        pass.backward();
        named.insert("output.loss".to_owned(), vec![losses.total()]);
        insert_gradients(&mut named, model, &gradients);
    } else {
        // BertModel has no loss: its outputs are the last hidden state and the pooler output.
        named.extend(hidden.last().map(|last| ("output.last_hidden_state".to_owned(), floats(last.value()))));
        let cls = model.cls_states(&mut pass, &inputs.tokens);
        let pooled = model.pooler_output(&mut pass, &cls);
        named.extend(pooled.map(|pooled| ("output.pooler_output".to_owned(), floats(pooled.value()))));
    }
    named
}

/// Computes the values of a task head: logits, loss, and the gradient of every parameter.
fn compute_task(device: &Device, model: &Model, inputs: &Packed, precision: DType) -> Named {
    let mut named = Named::new();
    let examples: Vec<&Example> = inputs.examples.iter().collect();
    let batch = TaskBatch::pack(model.heads.task.expect("a task's head"), &examples);
    let mut gradients = Gradients::zeros_like(&model.params);
    let mut pass = Pass::recording(device, &model.params, &mut gradients, precision, None);
    let logits = batch.logits(model, &mut pass);
    let weight = batch.weight(None);
    let loss = batch.loss(&mut pass, &logits, None, (1.0 / weight) as f32);
    pass.backward();
    let values: Vec<f64> = batch.split(&logits).concat().into_iter().map(f64::from).collect();
    if model.heads.task == Some(TaskHead::Answer) {
        for (column, name) in ["output.start_logits", "output.end_logits"].into_iter().enumerate() {
            named.insert(name.to_owned(), values.iter().skip(column).step_by(2).copied().collect());
        }
    } else {
        named.insert("output.logits".to_owned(), values);
    }
    named.insert("output.loss".to_owned(), vec![loss.sum / weight]);
    insert_gradients(&mut named, model, &gradients);
    named
}

fn insert_gradients(named: &mut Named, model: &Model, gradients: &Gradients) {
    for id in model.params.ids() {
        let gradient = gradients.read(id).iter().copied().map(f64::from).collect();
        named.insert(format!("grad.{}", model.params.name(id)), gradient);
    }
}

/// The loss of `BertForQuestionAnswering` for a padded batch. Its softmax over a row includes the logits of the
/// padding, for which the reference's are used.
fn answer_loss_with_padding(ours: &Named, reference: &BTreeMap<String, Array>, inputs: &Packed) -> f64 {
    let width = inputs.padded[1];
    let mut sum = 0.0;
    for (end, name) in ["output.start_logits", "output.end_logits"].into_iter().enumerate() {
        let mut logits = reference[name].values.clone();
        for (value, &row) in ours[name].iter().zip(&inputs.rows) {
            logits[row] = *value;
        }
        for (row, example) in logits.chunks(width).zip(&inputs.examples) {
            let cloze_tasks::Target::Positions(rows) = &example.target else {
                panic!("the targets of answers are positions");
            };
            let label = rows[end] as usize;
            sum += row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[label];
        }
    }
    sum / (2 * inputs.examples.len()) as f64
}
