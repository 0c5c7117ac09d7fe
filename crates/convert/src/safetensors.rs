//! Safetensors files as foreign tensors: the header is read, the data stays where it is.

use std::path::Path;

use safetensors::tensor::Metadata;

use crate::error::ConvertError;
use crate::tensors::{ForeignTensor, SourceFile};

const FORMAT: &str = "safetensors file";
/// The bound of the safetensors crate.
const MOST_HEADER: u64 = 100_000_000;

/// The tensors of one file.
///
/// # Errors
/// [`ConvertError::Damaged`], [`ConvertError::Io`].
pub(crate) fn open(path: &Path) -> Result<Vec<ForeignTensor>, ConvertError> {
    let damaged = |reason: String| ConvertError::damaged(path, FORMAT, reason);
    let file = SourceFile::open(path)?;
    let first = file.read(0, 8).map_err(|_| damaged(format!("{} bytes: expected 8 at least", file.length)))?;
    let length = first.try_into().map(u64::from_le_bytes).unwrap_or_default();
    if length > MOST_HEADER || length > file.length - 8 {
        return Err(damaged(format!("a header of {length} bytes is announced in a file of {}", file.length)));
    }
    let header = file.read(8, length as usize).map_err(ConvertError::io("read", path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| damaged(format!("its header: {e}")))?;
    let data = 8 + length;
    let found = file.length - data;
    if metadata.data_len() as u64 != found {
        return Err(damaged(format!("its header lists {} bytes of tensors, {found} are there", metadata.data_len())));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let place = (data + start as u64, (end - start) as u64);
        ForeignTensor::contiguous(name.clone(), info.dtype, info.shape.clone(), &file, place, None)
            .map_err(|reason| damaged(format!("tensor {name}: {reason}")))
    });
    tensors.collect()
}
