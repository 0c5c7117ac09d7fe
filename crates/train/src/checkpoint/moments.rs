//! optimizer.safetensors: Adam's moments of each parameter, under the parameter's name.

use std::borrow::Cow;
use std::fs;
use std::ops::Range;
use std::path::Path;

use cloze_engine::{Moments, Parameters};
use safetensors::{Dtype, SafeTensors, View};

use crate::TrainError;

/// The file's name.
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";

/// A parameter's moment that is to be written; converted to bytes only when it is.
struct Moment<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for &Moment<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

/// Name, shape and arena range of every parameter.
fn layout(params: &Parameters) -> impl Iterator<Item = (&str, &[usize], Range<usize>)> {
    params.ids().map(|id| (params.name(id), params.shape(id), params.range(id)))
}

pub(super) fn save_moments(path: &Path, params: &Parameters, moments: &Moments) -> Result<(), TrainError> {
    let (first, second) = (moments.read_first(), moments.read_second());
    let mut tensors = Vec::new();
    for (name, shape, range) in layout(params) {
        for (moment, flat) in [("exp_avg", &first), ("exp_avg_sq", &second)] {
            let values = &flat[range.clone()];
            tensors.push((format!("{name}.{moment}"), Moment { shape, values }));
        }
    }
    let views = tensors.iter().map(|(name, moment)| (name.as_str(), moment));
    let failed = |e| TrainError::io("write", path, e);
    // The library creates files that only the owner can read; set the usual mode of new files.
    let default_mode = fs::write(path, "").and_then(|()| fs::metadata(path)).map_err(failed)?.permissions();
    safetensors::serialize_to_file(views, None, path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => failed(e),
        other => failed(std::io::Error::other(other.to_string())),
    })?;
    fs::set_permissions(path, default_mode).map_err(failed)
}

pub(super) fn load_moments(path: &Path, params: &Parameters, moments: &mut Moments) -> Result<(), TrainError> {
    let damaged = |reason: String| TrainError::Damaged { path: path.to_owned(), reason };
    let bytes = fs::read(path).map_err(|e| TrainError::io("read", path, e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    moments.edit(|first, second| {
        for (name, shape, range) in layout(params) {
            for (moment, flat) in [("exp_avg", &mut *first), ("exp_avg_sq", &mut *second)] {
                let name = format!("{name}.{moment}");
                let stored = file.tensor(&name).map_err(|e| damaged(e.to_string()))?;
                if stored.dtype() != Dtype::F32 || stored.shape() != shape {
                    return Err(damaged(format!(
                        "{name} is {:?} {:?}, expected F32 {shape:?}",
                        stored.dtype(),
                        stored.shape(),
                    )));
                }
                let (words, _) = stored.data().as_chunks::<4>();
                for (value, word) in flat[range.clone()].iter_mut().zip(words) {
                    *value = f32::from_le_bytes(*word);
                }
            }
        }
        Ok(())
    })
}
