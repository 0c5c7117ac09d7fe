//! One model folder against its `reference.safetensors`: everything in the reference is compared, or reported.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use cloze_engine::{DType, Device, Gradients, Pass, Tensor};
use cloze_model::{LossScale, Model, TaskHead};
use cloze_tasks::Example;
use cloze_tasks::batch::TaskBatch;

use super::reference::{self, Array, Packed};

/// Largest relative errors, ‖ours − theirs‖ / ‖theirs‖ of a tensor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Worst {
    pub output: f64,
    pub loss: f64,
    pub gradient: f64,
}

impl Worst {
    fn widen(&mut self, name: &str, error: f64) {
        let worst = match name {
            "output.loss" => &mut self.loss,
            name if name.starts_with("grad.") => &mut self.gradient,
            _ => &mut self.output,
        };
        *worst = worst.max(error);
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Worst { output, loss, gradient } = self;
        write!(f, "largest relative error: outputs {output:.1e}, loss {loss:.1e}, gradients {gradient:.1e}")
    }
}

/// The bound in f32, wherever f32 can tell: see [`YARDSTICKS`].
const F32_BOUND: f64 = 1e-4;

/// u: what rounding changes a number by at most, relative to it.
fn rounding(precision: DType) -> f64 {
    match precision {
        DType::BF16 => 1.0 / 256.0,
        _ => f64::from(f32::EPSILON),
    }
}

/// The bound in bf16, in yardsticks. How far rounding carries depends on the model: a steep softmax or two logits that
/// nearly cancel magnify it a hundredfold. So the yardstick is the model's own: how far a tensor moves, in f32, when each
/// weight moves by a random part of u, the largest of a few draws and u at least. A pass in bf16 rounds weights like that,
/// and some eight activations a layer on the way there and eight on the way back: independent errors of the same size,
/// which add in squares to √16 yardsticks. Twice that is the bound (most tensors come to 1, the worst seen to 4).
///
/// In f32 it comes to 1e-5 or less and [`F32_BOUND`] stands, but for a random model of many layers: its last softmax is so
/// steep that the gradient behind it is a difference of equal numbers, in which PyTorch's f32 itself strays from its f64 by
/// up to 1e-3.
const YARDSTICKS: f64 = 8.0;
const DRAWS: u64 = 4;

/// A gradient smaller than this share of the norm of all gradients together is compared with that share instead.
const GRADIENT_FLOOR: f64 = 1e-3;

/// Tensors by the reference's names, real tokens only.
type Named = BTreeMap<String, Vec<f64>>;

/// Compares a folder with its reference; the findings say all that differs, or why nothing could be compared.
pub fn check_folder(device: &Device, folder: &Path, precision: DType) -> Result<Worst, Vec<String>> {
    let one = |problem: String| vec![problem];
    let mut reference = reference::read(&folder.join("reference.safetensors")).map_err(one)?;
    let load = || Model::load(folder, device).map_err(|error| one(format!("cannot be checked: {error}")));
    let model = load()?;
    let inputs = reference::pack(&mut reference, model.heads.task, model.config()).map_err(one)?;
    model.check(&inputs.tokens, &inputs.labels).map_err(|error| one(error.to_string()))?;
    let has_loss = model.heads.mlm || model.heads.nsp || model.heads.task.is_some();
    if has_loss && !reference.contains_key("output.loss") {
        return Err(one("cannot be checked: the reference lacks output.loss".to_owned()));
    }

    let mut ours = compute(device, &model, &inputs, precision);
    if model.heads.task == Some(TaskHead::Answer)
        && !inputs.unpadded
        && inputs.rows.len() < inputs.padded.iter().product()
    {
        println!(
            "{}: its softmax runs over padding, which is not there in a packed batch: the loss is compared with",
            folder.display()
        );
        println!("  the reference's own logits of the padding beside ours, its gradients are not");
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
                *bound = bound.max(relative_error(name, moved, &still));
            }
        }
    }
    for bound in bounds.values_mut() {
        let least = if precision == DType::F32 { F32_BOUND } else { 0.0 };
        *bound = (YARDSTICKS * *bound).max(least);
    }

    let mut worst = Worst::default();
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
        let (error, bound) = (relative_error(name, ours, &theirs), bounds[name.as_str()]);
        worst.widen(name, error);
        if error.is_nan() || error > bound {
            findings.push(format!("{name}: relative error {error:.2e}, expected at most {bound:.2e}"));
        }
    }
    let unchecked = theirs.keys().filter(|name| !ours.contains_key(*name));
    findings.extend(unchecked.map(|name| format!("{name} is in the reference, and nothing here checks it")));
    if findings.is_empty() { Ok(worst) } else { Err(findings) }
}

/// ‖ours − theirs‖ / ‖theirs‖, for a gradient with a floor under the divisor.
fn relative_error(name: &str, ours: &[f64], theirs: &Named) -> f64 {
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let expected = &theirs[name];
    let floor = if let Some(layer) = name.strip_suffix("key.bias") {
        // It adds the same to every score of a query, which softmax does not see: the true gradient is 0. Both sides hold
        // the rounding errors of sums that should cancel, of the size of what the key's weight gets.
        theirs.get(&format!("{layer}key.weight")).map_or(0.0, |weight| norm(weight))
    } else if let Some(part) = name.strip_suffix("bias").filter(|_| theirs.contains_key("grad.qa_outputs.bias"))
        && (part == "grad.qa_outputs." || part.ends_with(".output.LayerNorm."))
    {
        // What adds the same to the logits of all tokens moves no softmax over them: the head's bias, and the last norm's.
        theirs.get(&format!("{part}weight")).map_or(0.0, |weight| norm(weight))
    } else if name.starts_with("grad.") {
        let gradients = theirs.iter().filter(|(name, _)| name.starts_with("grad."));
        GRADIENT_FLOOR * gradients.map(|(_, values)| norm(values).powi(2)).sum::<f64>().sqrt()
    } else {
        0.0
    };
    let difference: Vec<f64> = ours.iter().zip(expected).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(expected).max(floor).max(f64::MIN_POSITIVE)
}

/// Moves every value by a random part, up to `most`, of itself.
fn jitter(values: &mut [f32], most: f64, draw: u64) {
    let mut state = draw;
    for value in values {
        // Knuth's linear congruential generator; the upper bits are random enough.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let part = (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0;
        *value = (f64::from(*value) * (1.0 + most * part)) as f32;
    }
}

/// A reference array, `[B, S, …]` cut to the real tokens: padded rows hold what no one reads.
fn real_rows(array: &Array, inputs: &Packed) -> Vec<f64> {
    let padded = &inputs.padded;
    // Hidden states of choices come as [B·C, S, H].
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

/// Everything that a reference holds, as this engine computes it: hidden states, pooler and logits at every token, loss and
/// every parameter's gradient, dropout off.
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
    let heads = [("prediction_logits", mlm_logits), ("seq_relationship_logits", nsp_logits)];
    for (name, logits) in heads.into_iter().filter_map(|(name, logits)| Some((name, logits?))) {
        named.insert(format!("output.{}", if both { name } else { "logits" }), floats(logits.value()));
    }

    if model.heads.task.is_some() {
        named.extend(compute_task(device, model, inputs, precision));
    } else if model.heads.mlm || model.heads.nsp {
        let mut gradients = Gradients::zeros_like(&model.params);
        let mut pass = Pass::recording(device, &model.params, &mut gradients, precision, None);
        let losses = model.loss(&mut pass, &inputs.tokens, &inputs.labels, LossScale::mean(&inputs.labels));
        pass.backward();
        named.insert("output.loss".to_owned(), vec![losses.total()]);
        for id in model.params.ids() {
            let gradient = gradients.read(id).iter().copied().map(f64::from).collect();
            named.insert(format!("grad.{}", model.params.name(id)), gradient);
        }
    } else {
        // BertModel has no loss: its outputs are the last hidden state and the pooler's.
        named.extend(hidden.last().map(|last| ("output.last_hidden_state".to_owned(), floats(last.value()))));
        let cls = model.cls_states(&mut pass, &inputs.tokens);
        let pooled = model.pooler_output(&mut pass, &cls);
        named.extend(pooled.map(|pooled| ("output.pooler_output".to_owned(), floats(pooled.value()))));
    }
    named
}

/// What a task's head gives: logits, loss and every parameter's gradient.
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
    for id in model.params.ids() {
        let gradient = gradients.read(id).iter().copied().map(f64::from).collect();
        named.insert(format!("grad.{}", model.params.name(id)), gradient);
    }
    named
}

/// `BertForQuestionAnswering`'s loss of a padded batch: its softmax over a row takes in the logits of the padding, which are here
/// the reference's.
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
                panic!("an answer's rows are known");
            };
            let label = rows[end] as usize;
            sum += row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[label];
        }
    }
    sum / (2 * inputs.examples.len()) as f64
}
