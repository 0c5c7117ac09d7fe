//! Reading what PyTorch computed, and packing its padded inputs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cloze_data::batch::Batch;
use safetensors::tensor::{TensorView, serialize};
use safetensors::{Dtype, SafeTensors};

/// The label of a token that is not predicted.
pub const IGNORED: i64 = -100;

/// An array of the reference: integers and floats alike fit f64 without loss.
#[derive(Debug, Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// Row `row` of the array seen as rows of its last dimension.
    pub fn row(&self, row: usize) -> &[f64] {
        let width = self.shape.last().copied().unwrap_or(1);
        &self.values[row * width..(row + 1) * width]
    }
}

/// Every tensor of a file by name.
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
                return Err(format!("{name} has type {other:?}, which nothing here reads"));
            }
        };
        arrays.insert(name.to_owned(), Array { shape: view.shape().to_vec(), values });
    }
    Ok(arrays)
}

/// Adds a tensor of one zero to a safetensors file.
pub fn add_tensor(path: &Path, name: &str) {
    let bytes = fs::read(path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = stored.tensors();
    tensors.push((name.to_owned(), TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap()));
    fs::write(path, serialize(tensors, None).unwrap()).unwrap();
}

/// A packed batch and where each of its tokens and sequences lay in the padded one.
#[derive(Debug)]
pub struct Inputs {
    pub batch: Batch,
    /// `[T]` row of the padded `[B·S]` arrays.
    pub rows: Vec<usize>,
    /// `[B, S]` of the padded arrays.
    pub padded: [usize; 2],
}

/// Packs `input_ids`, `attention_mask`, `token_type_ids`, `labels` (`[B, S]`: MLM; `[B]`: NSP) and `next_sentence_label`.
/// Takes what it uses, each named `input.…`, out of `reference`.
pub fn pack(reference: &mut BTreeMap<String, Array>) -> Result<Inputs, String> {
    let mut take = |name: &str| reference.remove(&format!("input.{name}"));
    let ids = take("input_ids").ok_or("the reference lacks input_ids")?;
    let [sequences, width] = ids.shape[..] else {
        return Err(format!("input_ids has shape {:?}: expected [B, S]", ids.shape));
    };
    let mask = take("attention_mask").ok_or("the reference lacks attention_mask")?;
    let segments = take("token_type_ids").ok_or("the reference lacks token_type_ids")?;
    let (mut words, mut pairs) = (None, take("next_sentence_label"));
    match take("labels") {
        Some(labels) if labels.shape == ids.shape => words = Some(labels),
        Some(labels) if labels.shape == [sequences] && pairs.is_none() => pairs = Some(labels),
        Some(labels) => {
            return Err(format!("labels has shape {:?}: expected [B, S] or [B]", labels.shape));
        }
        None => {}
    }
    let mut batch = Batch { cu_seqlens: vec![0], ..Batch::default() };
    let mut rows = Vec::new();
    for sequence in 0..sequences {
        let real = mask.row(sequence).iter().take_while(|&&bit| bit == 1.0).count();
        if real == 0 || mask.row(sequence)[real..].iter().any(|&bit| bit != 0.0) {
            return Err(format!("attention_mask of row {sequence} is not some ones and then zeros"));
        }
        for position in 0..real {
            let row = sequence * width + position;
            if let Some(words) = &words
                && words.values[row] as i64 != IGNORED
            {
                batch.mlm_rows.push(batch.ids.len() as i32);
                batch.mlm_labels.push(words.values[row] as i32);
            }
            batch.ids.push(ids.values[row] as i32);
            batch.positions.push(position as i32);
            batch.segments.push(segments.values[row] as i32);
            rows.push(row);
        }
        batch.cu_seqlens.push(batch.ids.len() as i32);
    }
    if let Some(pairs) = pairs {
        batch.nsp_labels = pairs.values.iter().map(|&label| label as i32).collect();
    }
    Ok(Inputs { batch, rows, padded: [sequences, width] })
}
