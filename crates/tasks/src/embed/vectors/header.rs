//! Headers of the two binary formats. Their length does not depend on the number of rows, so that they can be rewritten
//! when the number is known. They are padded with spaces, which both formats allow.

use super::matrix::Element;

/// The size of the header of `.npy` files in bytes: a multiple of 64, as the format requires.
pub(super) const NPY_BYTES: usize = 128;
/// The size of the header of `.safetensors` files in bytes, including the 8 bytes of its length.
const SAFETENSORS_BYTES: usize = 128;
/// The same, of files with ranges.
const SAFETENSORS_RANGES_BYTES: usize = 256;

/// The tensor of the vectors in a `.safetensors` file.
pub(super) const EMBEDDINGS: &str = "embeddings";
/// The tensor of the ranges of its dimensions, f32 `[2, D]`: the minima, then the maxima.
pub(super) const RANGES: &str = "ranges";

/// NumPy's format 1.0: magic number, version, length of the rest as u16, a Python literal, a newline.
pub(super) fn npy(element: Element, rows: u64, width: usize) -> Vec<u8> {
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&((NPY_BYTES - 10) as u16).to_le_bytes());
    let descr = element.numpy();
    header.extend_from_slice(
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {width}), }}").as_bytes(),
    );
    header.resize(NPY_BYTES - 1, b' ');
    header.push(b'\n');
    header
}

/// safetensors: length of the rest as u64, JSON.
pub(super) fn safetensors(element: Element, rows: u64, width: usize) -> Vec<u8> {
    let entry = entry(EMBEDDINGS, element, rows, width, 0);
    padded(&format!("{{{entry}}}"), SAFETENSORS_BYTES)
}

/// As [`safetensors`], with ranges, whose values come first, so that they are aligned.
pub(super) fn safetensors_with_ranges(element: Element, rows: u64, width: usize) -> Vec<u8> {
    let ranges = entry(RANGES, Element::F32, 2, width, 0);
    let embeddings = entry(EMBEDDINGS, element, rows, width, 2 * width as u64 * 4);
    padded(&format!("{{{ranges},{embeddings}}}"), SAFETENSORS_RANGES_BYTES)
}

/// The entry of a tensor whose bytes start at `start`.
fn entry(name: &str, element: Element, rows: u64, width: usize, start: u64) -> String {
    let (dtype, end) = (element.safetensors(), start + rows * width as u64 * element.bytes() as u64);
    format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":[{rows},{width}],\"data_offsets\":[{start},{end}]}}")
}

fn padded(json: &str, bytes: usize) -> Vec<u8> {
    let mut header = ((bytes - 8) as u64).to_le_bytes().to_vec();
    header.extend_from_slice(json.as_bytes());
    header.resize(bytes, b' ');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_any_size_fit() {
        // 16 EiB, more than the capacity of any disk.
        let (rows, width) = (u64::MAX / 4 / (1 << 24), 1 << 24);
        for (header, length) in [
            (npy(Element::F32, rows, width), NPY_BYTES),
            (safetensors(Element::F32, rows, width), SAFETENSORS_BYTES),
            (safetensors_with_ranges(Element::I8, rows, width), SAFETENSORS_RANGES_BYTES),
        ] {
            assert_eq!(header.len(), length);
            let text = String::from_utf8_lossy(&header);
            assert!(text.contains(&width.to_string()) && text.trim_end().ends_with('}'), "{text}");
        }
        assert_eq!(npy(Element::U8, 0, 1).len(), NPY_BYTES);
    }
}
