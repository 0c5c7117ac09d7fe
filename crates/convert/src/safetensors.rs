//! Reads the headers of safetensors files. The data stays in the file.

use std::path::Path;

use safetensors::tensor::Metadata;

use crate::error::ConvertError;
use crate::tensors::{SourceFile, SourceTensor};

const FORMAT: &str = "safetensors file";
/// The limit of the safetensors crate.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of a file.
///
/// # Errors
/// [`ConvertError::Damaged`], [`ConvertError::Io`].
pub(crate) fn open(path: &Path) -> Result<Vec<SourceTensor>, ConvertError> {
    let damaged = |reason: String| ConvertError::damaged(path, FORMAT, reason);
    let file = SourceFile::open(path)?;
    let first = file.read(0, 8).map_err(|_| damaged(format!("found {} bytes, expected at least 8", file.length)))?;
    let length = first.try_into().map(u64::from_le_bytes).unwrap_or_default();
    if length > MAX_HEADER || length > file.length - 8 {
        return Err(damaged(format!("found a header length of {length} bytes in a file of {}", file.length)));
    }
    let header = file.read(8, length as usize).map_err(ConvertError::io("read", path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| damaged(format!("invalid header: {e}")))?;
    let data = 8 + length;
    let found = file.length - data;
    if metadata.data_len() as u64 != found {
        return Err(damaged(format!(
            "expected {} bytes of tensors according to its header, found {found}",
            metadata.data_len()
        )));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let range = (data + start as u64, (end - start) as u64);
        SourceTensor::contiguous(name.clone(), info.dtype, info.shape.clone(), &file, range, None)
            .map_err(|reason| damaged(format!("tensor {name}: {reason}")))
    });
    tensors.collect()
}
