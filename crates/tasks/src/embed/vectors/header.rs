//! The two binary formats' beginnings. Both are as long for any number of rows, so that they can be written again when the number is
//! known: what is short is filled up with spaces, which both formats allow.

/// Bytes of a `.npy` file's beginning: a multiple of 64, as its format asks.
pub(super) const NPY_BYTES: usize = 128;
/// Bytes of a `.safetensors` file's beginning, its length of 8 bytes included.
const SAFETENSORS_BYTES: usize = 128;

/// NumPy's format 1.0: magic, version, the rest's length as u16, a Python literal, a newline.
pub(super) fn npy(rows: u64, width: usize) -> Vec<u8> {
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&((NPY_BYTES - 10) as u16).to_le_bytes());
    header.extend_from_slice(
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}").as_bytes(),
    );
    header.resize(NPY_BYTES - 1, b' ');
    header.push(b'\n');
    header
}

/// safetensors: the rest's length as u64, JSON.
pub(super) fn safetensors(rows: u64, width: usize) -> Vec<u8> {
    let bytes = rows * width as u64 * 4;
    let mut header = ((SAFETENSORS_BYTES - 8) as u64).to_le_bytes().to_vec();
    header.extend_from_slice(
        format!("{{\"embeddings\":{{\"dtype\":\"F32\",\"shape\":[{rows},{width}],\"data_offsets\":[0,{bytes}]}}}}")
            .as_bytes(),
    );
    header.resize(SAFETENSORS_BYTES, b' ');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fit() {
        // More than any disk holds: 16 EiB.
        let (rows, width) = (u64::MAX / 4 / (1 << 24), 1 << 24);
        for (header, length) in [(npy(rows, width), NPY_BYTES), (safetensors(rows, width), SAFETENSORS_BYTES)] {
            assert_eq!(header.len(), length);
            let text = String::from_utf8_lossy(&header);
            assert!(text.contains(&width.to_string()) && text.trim_end().ends_with('}'), "{text}");
        }
        assert_eq!(npy(0, 1).len(), NPY_BYTES);
    }
}
