//! Headers of the two binary formats. Their length does not depend on the number of rows, so that they can be rewritten
//! when the number is known. They are padded with spaces, which both formats allow.

/// The size of the header of `.npy` files in bytes: a multiple of 64, as the format requires.
pub(super) const NPY_BYTES: usize = 128;
/// The size of the header of `.safetensors` files in bytes, including the 8 bytes of its length.
const SAFETENSORS_BYTES: usize = 128;

/// NumPy's format 1.0: magic number, version, length of the rest as u16, a Python literal, a newline.
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

/// safetensors: length of the rest as u64, JSON.
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
    fn headers_of_any_size_fit() {
        // 16 EiB, more than the capacity of any disk.
        let (rows, width) = (u64::MAX / 4 / (1 << 24), 1 << 24);
        for (header, length) in [(npy(rows, width), NPY_BYTES), (safetensors(rows, width), SAFETENSORS_BYTES)] {
            assert_eq!(header.len(), length);
            let text = String::from_utf8_lossy(&header);
            assert!(text.contains(&width.to_string()) && text.trim_end().ends_with('}'), "{text}");
        }
        assert_eq!(npy(0, 1).len(), NPY_BYTES);
    }
}
