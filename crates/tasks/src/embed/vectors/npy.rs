//! Reading `.npy`: matrices in C order, of little-endian f32 or of bytes, which is what [`Writer`](super::Writer) and
//! `numpy.save` write.

use std::ops::Range;
use std::path::Path;

use super::matrix::Element;
use super::memory::Vectors;
use crate::TaskError;

/// Reads a matrix of f32 into memory.
///
/// # Errors
/// [`TaskError::Io`]; [`TaskError::File`] for a file that is not a `.npy` file, does not contain a matrix of
/// little-endian f32 in C order, or does not have the size that its header says.
pub fn read_npy(path: &Path) -> Result<Vectors, TaskError> {
    let bytes = std::fs::read(path).map_err(|e| TaskError::io("read", path, e))?;
    let Header { element, columns, numbers, .. } = header(&bytes).map_err(|problem| TaskError::file(path, problem))?;
    if element != Element::F32 {
        return Err(TaskError::file(path, NOT_F32));
    }
    let (numbers, _) = bytes[numbers].as_chunks::<4>();
    Ok(Vectors::new(columns, numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()))
}

const NOT_F32: &str = "expected numbers of type '<f4' (little-endian f32), found others; save them with .astype('<f4')";

/// What a file's header says.
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// The bytes of the numbers in the file.
    pub(super) numbers: Range<usize>,
}

/// Reads the header of a file, and compares its size with the header.
pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let (element, rows, columns, start) = parse(bytes)?;
    let expected = rows.checked_mul(columns).and_then(|count| count.checked_mul(element.bytes()));
    let found = bytes.len() - start;
    if columns == 0 || expected != Some(found) {
        return Err(format!(
            "expected {rows} rows of {columns} numbers, as its header says, found {found} bytes; the file is damaged or truncated"
        ));
    }
    Ok(Header { element, rows, columns, numbers: start..bytes.len() })
}

/// The type of the numbers, the numbers of rows and columns, and where the numbers start.
fn parse(bytes: &[u8]) -> Result<(Element, usize, usize, usize), &'static str> {
    const NOT_NPY: &str = "expected a .npy file, such as numpy.save writes";
    const CUT: &str = "its header is truncated; write the file again";
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or(NOT_NPY)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(CUT)?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk::<2>().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest)),
        2 | 3 => rest.split_first_chunk::<4>().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest)),
        _ => return Err("expected a .npy file of version 1, 2 or 3, found a different version"),
    }
    .ok_or(CUT)?;
    let (header, data) = rest.split_at_checked(length).ok_or(CUT)?;
    let header = std::str::from_utf8(header).map_err(|_| NOT_NPY)?;
    let field = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let quoted = field("'descr'").and_then(|value| value.strip_prefix('\'')?.split_once('\''));
    let element = quoted.and_then(|(descr, _)| Element::of_numpy(descr)).ok_or(NOT_F32)?;
    if !field("'fortran_order'").is_some_and(|value| value.starts_with("False")) {
        return Err("expected C order (row-major), found Fortran order; save numpy.ascontiguousarray of it");
    }
    let shape = field("'shape'").and_then(|value| value.strip_prefix('(')?.split_once(')'));
    let sizes = shape.map(|(inside, _)| inside.split(',').map(str::trim).filter(|size| !size.is_empty()));
    let sizes: Option<Vec<usize>> = sizes.and_then(|sizes| sizes.map(|size| size.parse().ok()).collect());
    match sizes.as_deref() {
        Some(&[rows, columns]) => Ok((element, rows, columns, bytes.len() - data.len())),
        _ => Err("expected a matrix: two sizes in its shape"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_a_matrix_of_f32_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_npy(&path)
        };
        let file = |header: &str, numbers: usize| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend((0..numbers).flat_map(|n| (n as f32).to_le_bytes()));
            bytes
        };
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
        let found = read(&file(good, 6)).unwrap();
        assert_eq!((found.len(), found.width(), found.values()), (2, 3, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]));
        let fails = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(fails(b"").contains("expected a .npy file"));
        assert!(fails(b"\x93NUMPY\x01").contains("truncated"));
        assert!(fails(&file(good, 6)[..40]).contains("truncated"));
        assert!(fails(&file(good, 5)).contains("2 rows of 3 numbers, as its header says, found 20 bytes"));
        for other in ["<f8", ">f4"] {
            assert!(fails(&file(&good.replace("<f4", other), 6)).contains("'<f4'"), "{other}");
        }
        // Six bytes are not six numbers of four bytes.
        let bytes = file(&good.replace("<f4", "|i1"), 6);
        assert!(fails(&bytes[..bytes.len() - 18]).contains("'<f4'"));
        assert!(fails(&file(&good.replace("False", "True"), 6)).contains("C order"));
        for shape in ["(6,)", "(1, 2, 3)", "()", "(2, x)", "(-2, 3)"] {
            assert!(fails(&file(&good.replace("(2, 3)", shape), 6)).contains("expected a matrix"), "{shape}");
        }
        assert!(fails(&file(&good.replace("(2, 3)", "(99999999999999999999, 1)"), 6)).contains("matrix"));
        assert!(fails(&file(&good.replace("(2, 3)", "(4611686018427387904, 4)"), 0)).contains("damaged"));
    }

    /// Every seed must give vectors or an error, without a panic.
    #[test]
    fn seeds_of_the_fuzz_target_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        for seed in cloze_testing::fuzz_seeds("npy") {
            std::fs::write(&path, seed).unwrap();
            let _ = read_npy(&path);
            let _ = crate::embed::vectors::StoredMatrix::open(&path);
        }
    }
}
