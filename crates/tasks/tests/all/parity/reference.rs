//! Reads the reference results of PyTorch and packs its padded inputs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cloze_model::{Config, Heads, Inputs, PretrainLabels, TaskHead};
use cloze_tasks::{Example, Target};
use cloze_text::Sequence;
use cloze_train::objective::next_tokens;
use safetensors::tensor::{TensorView, serialize};
use safetensors::{Dtype, SafeTensors};

/// The label of a token that is not predicted.
pub const IGNORE_INDEX: i64 = -100;

/// An array of the reference. f64 represents its integers and floats exactly.
#[derive(Debug, Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// Row `row` of the array, viewed as rows of its last dimension.
    pub fn row(&self, row: usize) -> &[f64] {
        let width = self.shape.last().copied().unwrap_or(1);
        &self.values[row * width..(row + 1) * width]
    }
}

/// All tensors of a file, by name.
pub fn read(path: &Path) -> Result<BTreeMap<String, Array>, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut arrays = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight)).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight) as f64).collect(),
            other => {
                return Err(format!("{name} has type {other:?}, which is not supported"));
            }
        };
        arrays.insert(name.to_owned(), Array { shape: view.shape().to_vec(), values });
    }
    Ok(arrays)
}

/// Adds a tensor with a single zero to a safetensors file.
pub fn add_tensor(path: &Path, name: &str) {
    let bytes = fs::read(path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = stored.tensors();
    tensors.push((name.to_owned(), TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap()));
    fs::write(path, serialize(tensors, None).unwrap()).unwrap();
}

/// A packed batch, and the positions of its tokens in the padded batch.
#[derive(Debug)]
pub struct Packed {
    pub tokens: Inputs,
    /// The labels of the pre-training heads.
    pub labels: PretrainLabels,
    /// `[T]` 1 for a replaced token, if the model detects them.
    pub replaced: Vec<f32>,
    /// `[T]`: the row of each token in the padded `[B·S]` arrays.
    pub rows: Vec<usize>,
    /// The shape of the padded arrays: `[B, S]`, or `[B, C, S]` with choices.
    pub padded: Vec<usize>,
    /// The examples of a task, if the model has a task head.
    pub examples: Vec<Example>,
    /// Whether the reference's loss ignores the padding: see `compare::answer_loss_with_padding`.
    pub unpadded: bool,
}

/// Packs `input_ids`, `attention_mask`, `token_type_ids` (which some families do not have), `labels` (`[B, S]`: MLM, or
/// replaced tokens; `[B]`: NSP) and `next_sentence_label` or `sentence_order_label`. Removes the tensors that it uses, whose names start with `input.`, from `reference`.
pub fn pack(reference: &mut BTreeMap<String, Array>, heads: Heads, config: &Config) -> Result<Packed, String> {
    let task = heads.task;
    let mut take = |name: &str| reference.remove(&format!("input.{name}"));
    let unpadded = take("unpadded").is_some();
    let ids = take("input_ids").ok_or("the reference lacks input_ids")?;
    let (rows_of, width) = match ids.shape[..] {
        [sequences, width] => (vec![1; sequences], width),
        [examples, choices, width] if task == Some(TaskHead::Choose) => (vec![choices; examples], width),
        _ => {
            return Err(format!(
                "input_ids has shape {:?}: expected [B, S], or [B, C, S] for multiple choice",
                ids.shape
            ));
        }
    };
    let sequences = rows_of.iter().sum();
    let mask = take("attention_mask").ok_or("the reference lacks attention_mask")?;
    let segments = take("token_type_ids");
    let (mut words, mut pairs) = (None, take("next_sentence_label").or(take("sentence_order_label")));
    let (starts, ends) = (take("start_positions"), take("end_positions"));
    let task_labels = task.and_then(|_| take("labels"));
    match take("labels") {
        Some(labels) if labels.shape == ids.shape => words = Some(labels),
        Some(labels) if labels.shape == [sequences] && pairs.is_none() => pairs = Some(labels),
        Some(labels) => {
            return Err(format!("labels has shape {:?}: expected [B, S] or [B]", labels.shape));
        }
        None => {}
    }
    let (mut packed, mut labels) = (Inputs::default(), PretrainLabels::default());
    let mut rows = Vec::new();
    for sequence in 0..sequences {
        let real = mask.row(sequence).iter().take_while(|&&bit| bit == 1.0).count();
        if real == 0 || mask.row(sequence)[real..].iter().any(|&bit| bit != 0.0) {
            return Err(format!("expected ones followed by zeros in attention_mask, row {sequence}"));
        }
        let own: Vec<usize> = (0..real).map(|position| sequence * width + position).collect();
        for &row in &own {
            if let Some(words) = &words
                && words.values[row] as i64 != IGNORE_INDEX
            {
                labels.mlm_rows.push(rows.len() as i32);
                labels.mlm_labels.push(words.values[row] as i32);
            }
            rows.push(row);
        }
        let own_ids: Vec<u32> = own.iter().map(|&row| ids.values[row] as u32).collect();
        let segment = |row: usize| segments.as_ref().map_or(0, |segments| segments.values[row] as u8);
        let own_segments: Vec<u8> = own.iter().map(|&row| segment(row)).collect();
        packed.push(&own_ids, &own_segments);
    }
    let mut replaced = Vec::new();
    if heads.rtd {
        replaced = labels.mlm_labels.iter().map(|&label| label as f32).collect();
        labels = PretrainLabels::default();
        if replaced.len() != rows.len() {
            return Err("expected a label for each token of a discriminator".to_owned());
        }
    }
    if config.is_decoder && task.is_none() {
        // The model class shifts its labels, which are the ids, by one: each token's label is the next token.
        if labels.mlm_labels != packed.ids {
            return Err("expected the ids as labels of a causal model".to_owned());
        }
        labels = next_tokens(&packed);
    }
    if let Some(pairs) = pairs {
        labels.nsp_labels = pairs.values.iter().map(|&label| label as i32).collect();
    }
    let mut examples = Vec::new();
    let mut next = 0;
    for (number, count) in rows_of.iter().enumerate().filter(|_| task.is_some()) {
        let own = next..next + count;
        next += count;
        let sequence = |sequence: usize| {
            let tokens = packed.cu_seqlens[sequence] as usize..packed.cu_seqlens[sequence + 1] as usize;
            Sequence {
                ids: packed.ids[tokens.clone()].iter().map(|&id| id as u32).collect(),
                segments: packed.segments[tokens].iter().map(|&segment| segment as u8).collect(),
            }
        };
        let sequences: Vec<Sequence> = own.map(sequence).collect();
        let label = |labels: &Option<Array>| labels.as_ref().map(|labels| labels.values[number]);
        let class = |labels: &Option<Array>| label(labels).map(|label| label as usize);
        let mut tokens = Vec::new();
        let target = match task {
            Some(TaskHead::Classify { .. }) if config.problem_type() == Some("regression") => {
                Target::value(label(&task_labels).map(|value| value as f32))
            }
            Some(TaskHead::Classify { labels }) if config.problem_type() == Some("multi_label_classification") => {
                let known = task_labels.as_ref().map(|all| &all.values[number * labels..(number + 1) * labels]);
                Target::Binary(known.map_or(vec![f32::NAN; labels], |known| known.iter().map(|&x| x as f32).collect()))
            }
            Some(TaskHead::Tag { .. }) => {
                tokens = (0..sequences[0].ids.len() as u32).collect();
                let known = task_labels.as_ref().map(|labels| &labels.values[number * width..]);
                let label = |token: &u32| known.map_or(IGNORE_INDEX, |known| known[*token as usize] as i64) as i32;
                Target::Classes(tokens.iter().map(label).collect())
            }
            Some(TaskHead::Answer) => {
                Target::positions(class(&starts).zip(class(&ends)).map(|(start, end)| [start, end]))
            }
            Some(TaskHead::Choose) => Target::positions(class(&task_labels).map(|label| [label])),
            _ => Target::class(class(&task_labels)),
        };
        examples.push(Example { tokens, ..Example::new(sequences, target) });
    }
    Ok(Packed { tokens: packed, labels, replaced, rows, padded: ids.shape[..].to_vec(), examples, unpadded })
}
