//! Matrices in files, which are memory-mapped: a large matrix needs no memory of its own.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cloze_data::mapped::MappedFile;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::header::{EMBEDDINGS, RANGES};
use super::memory::Vectors;
use super::npy::{self, read_npy};
use super::quantized::Ranges;
use crate::TaskError;

/// The type of the numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// 32-bit floating point, little-endian.
    F32,
    /// Signed bytes.
    I8,
    /// Unsigned bytes.
    U8,
}

impl Element {
    const ALL: [Element; 3] = [Element::F32, Element::I8, Element::U8];

    /// The size of a number in bytes.
    pub fn bytes(self) -> usize {
        if self == Element::F32 { 4 } else { 1 }
    }

    /// NumPy's name of the type.
    pub(super) fn numpy(self) -> &'static str {
        match self {
            Element::F32 => "<f4",
            Element::I8 => "|i1",
            Element::U8 => "|u1",
        }
    }

    pub(super) fn of_numpy(descr: &str) -> Option<Element> {
        Element::ALL.into_iter().find(|element| element.numpy() == descr)
    }

    /// The name of the type in safetensors files.
    pub(super) fn safetensors(self) -> &'static str {
        match self {
            Element::F32 => "F32",
            Element::I8 => "I8",
            Element::U8 => "U8",
        }
    }

    fn of_safetensors(dtype: Dtype) -> Option<Element> {
        match dtype {
            Dtype::F32 => Some(Element::F32),
            Dtype::I8 => Some(Element::I8),
            Dtype::U8 => Some(Element::U8),
            _ => None,
        }
    }
}

/// A matrix in a `.npy` or `.safetensors` file, one vector in a row: f32, or quantized vectors
/// ([`Precision`](super::Precision)).
#[derive(Debug)]
pub struct StoredMatrix {
    path: PathBuf,
    file: MappedFile,
    element: Element,
    rows: usize,
    columns: usize,
    numbers: Range<usize>,
    ranges: Option<Ranges>,
}

impl StoredMatrix {
    /// Maps the matrix of a file: of a `.npy` file, or the tensor `embeddings` of a `.safetensors` file (or its only
    /// tensor). The ranges of quantized dimensions are the tensor `ranges`, for a `.npy` file those of
    /// [`ranges_path`]. Only the header is read.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::File`] for other files, for other types of numbers, and for a file that does not
    /// have the size that its header says.
    pub fn open(path: &Path) -> Result<StoredMatrix, TaskError> {
        let file = MappedFile::open(path).map_err(|error| TaskError::data(path, error))?;
        if file.starts_with(b"\x93NUMPY") {
            let npy::Header { element, rows, columns, numbers } =
                npy::header(&file).map_err(|problem| TaskError::file(path, problem))?;
            let beside = ranges_path(path);
            let ranges = match element {
                Element::I8 | Element::U8 if beside.is_file() => {
                    let found = read_npy(&beside)?;
                    Some(Ranges::of_rows(&found).map_err(|problem| TaskError::file(&beside, problem))?)
                }
                _ => None,
            };
            return StoredMatrix { path: path.to_owned(), file, element, rows, columns, numbers, ranges }.checked();
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
            return StoredMatrix::of_safetensors(path, file);
        }
        Err(TaskError::file(path, "expected a .npy file, such as numpy.save writes, or a .safetensors file"))
    }

    fn of_safetensors(path: &Path, file: MappedFile) -> Result<StoredMatrix, TaskError> {
        let wrong = |problem: String| TaskError::file(path, problem);
        // It checks that the offsets are those of the types and shapes, and that they cover the file.
        let damaged =
            |error: SafeTensorError| wrong(format!("not a complete .safetensors file: {error}; write it again"));
        SafeTensors::deserialize(&file).map_err(damaged)?;
        let (header, metadata) = SafeTensors::read_metadata(&file).map_err(damaged)?;
        let names = metadata.offset_keys();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let name = match &names[..] {
            [only] => *only,
            several if several.contains(&EMBEDDINGS) => EMBEDDINGS,
            several => {
                let list = crate::datasets::quoted_list(several.iter().copied());
                return Err(wrong(format!("expected a tensor \"{EMBEDDINGS}\", or only one tensor, found {list}")));
            }
        };
        let Some(info) = metadata.info(name) else {
            return Err(wrong(format!("it has no tensor \"{name}\"")));
        };
        let Some(element) = Element::of_safetensors(info.dtype) else {
            return Err(wrong(format!("\"{name}\": expected f32, i8 or u8, found {:?}", info.dtype)));
        };
        let &[rows, columns] = &info.shape[..] else {
            return Err(wrong(format!("\"{name}\": expected a matrix, found the shape {:?}", info.shape)));
        };
        let ranges = match metadata.info(RANGES) {
            Some(found) if name != RANGES && found.dtype == Dtype::F32 && found.shape == [2, columns] => {
                let (start, end) = found.data_offsets;
                let (values, _) = file[8 + header + start..8 + header + end].as_chunks::<4>();
                let values = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
                Some(Ranges::of_rows(&Vectors::new(columns, values)).map_err(wrong)?)
            }
            _ => None,
        };
        let (start, end) = info.data_offsets;
        let numbers = 8 + header + start..8 + header + end;
        StoredMatrix { path: path.to_owned(), file, element, rows, columns, numbers, ranges }.checked()
    }

    /// Checks that there are numbers, and that ranges fit.
    fn checked(mut self) -> Result<StoredMatrix, TaskError> {
        // The file of ranges may be left from bytes of the same name.
        self.ranges = self.ranges.filter(|ranges| ranges.width().div_ceil(8) != self.columns || self.columns == 1);
        if self.rows == 0 || self.columns == 0 {
            return Err(TaskError::file(&self.path, "expected at least one vector, found an empty matrix"));
        }
        if let Some(found) = self.ranges.as_ref().map(Ranges::width)
            && found != self.columns
        {
            let problem = format!("expected the ranges of {} dimensions, found those of {found}", self.columns);
            return Err(TaskError::file(&ranges_path(&self.path), problem));
        }
        Ok(self)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The type of the numbers.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The number of vectors.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of numbers in a row. A row of bits has eight in each number.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The ranges of the quantized dimensions; none for f32 and bits.
    pub fn ranges(&self) -> Option<&Ranges> {
        self.ranges.as_ref()
    }

    /// The bytes of some rows. Panics if there are no such rows.
    pub fn bytes(&self, rows: Range<usize>) -> &[u8] {
        &self.file[self.range(rows)]
    }

    fn range(&self, rows: Range<usize>) -> Range<usize> {
        let width = self.columns * self.element.bytes();
        assert!(rows.end <= self.rows, "row {} of {}", rows.end, self.rows);
        self.numbers.start + rows.start * width..self.numbers.start + rows.end * width
    }

    /// The vectors of some rows as f32, row-major: borrowed from the file or, if they have to be converted, in `buffer`.
    /// Bytes without [`ranges`](Self::ranges) are the numbers themselves. Panics if there are no such rows.
    pub fn values<'a>(&'a self, rows: Range<usize>, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let range = self.range(rows);
        if self.element == Element::F32
            && cfg!(target_endian = "little")
            && let Some(numbers) = self.file.numbers(range.clone())
        {
            return numbers;
        }
        let bytes = &self.file[range];
        buffer.clear();
        match (self.element, &self.ranges) {
            (Element::F32, _) => buffer.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
            (element, Some(ranges)) => {
                bytes.chunks_exact(self.columns).for_each(|row| ranges.restore(row, element, buffer));
            }
            (Element::I8, None) => buffer.extend(bytes.iter().map(|byte| f32::from(*byte as i8))),
            (Element::U8, None) => buffer.extend(bytes.iter().map(|byte| f32::from(*byte))),
        }
        buffer
    }
}

/// The file with the ranges of the dimensions of quantized vectors in a `.npy` file, which has room for only one matrix:
/// `vectors.ranges.npy` for `vectors.npy`, f32 `[2, D]`, the minima, then the maxima.
pub fn ranges_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().map_or_else(OsString::new, OsString::from);
    name.push(".ranges.npy");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;

    #[test]
    fn matrices_of_both_formats_are_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let vectors = Vectors::new(3, (0..12).map(|n| n as f32 / 4.0).collect());
        for name in ["x.npy", "x.safetensors"] {
            let path = dir.path().join(name);
            let mut writer = Writer::create(&path, 3).unwrap();
            writer.push(&["a"; 4], &vectors).unwrap();
            writer.finish().unwrap();
            let matrix = StoredMatrix::open(&path).unwrap();
            assert_eq!((matrix.rows(), matrix.columns(), matrix.element()), (4, 3, Element::F32));
            let mut buffer = Vec::new();
            assert_eq!(matrix.values(1..3, &mut buffer), &vectors.values()[3..9]);
            assert!(matrix.values(0..0, &mut buffer).is_empty() && matrix.ranges().is_none());
            if cfg!(target_endian = "little") {
                assert_eq!(buffer.capacity(), 0, "{name}: the numbers are copied");
            }
        }
    }

    #[test]
    fn f32_at_odd_addresses_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16 + 1).to_le_bytes());
        bytes.extend(header.as_bytes());
        // The numbers start at a multiple of 4, plus 1, 2 or 3.
        bytes.push(b' ');
        assert_ne!(bytes.len() % 4, 0);
        bytes.extend([1.5f32, -2.0].map(f32::to_le_bytes).concat());
        std::fs::write(&path, bytes).unwrap();
        let mut buffer = Vec::new();
        assert_eq!(StoredMatrix::open(&path).unwrap().values(0..1, &mut buffer), [1.5, -2.0]);
    }

    #[test]
    fn other_files_are_errors_of_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let line = StoredMatrix::open(&path).unwrap_err().to_string();
            assert!(line.contains(name) && !line.contains('\n'), "{line}");
            line
        };
        let tensors = |of: &[(&str, Dtype, &[usize], usize)]| {
            let zeros = [0; 64];
            let views = of.iter().map(|(name, dtype, shape, bytes)| {
                (*name, safetensors::tensor::TensorView::new(*dtype, shape.to_vec(), &zeros[..*bytes]).unwrap())
            });
            safetensors::serialize(views, None).unwrap()
        };
        assert!(fails("x.txt", b"text").contains("expected a .npy file"));
        assert!(fails("x.safetensors", b"text").contains("not a complete .safetensors file"));
        assert!(fails("x.npy", b"\x93NUMPY\x01").contains("truncated"));
        let two = tensors(&[("a", Dtype::F32, &[1, 2], 8), ("b", Dtype::F32, &[1, 2], 8)]);
        assert!(
            fails("x.safetensors", &two)
                .contains("expected a tensor \"embeddings\", or only one tensor, found \"a\", \"b\"")
        );
        let cases: [(&[usize], Dtype, usize, &str); 3] = [
            (&[4], Dtype::F32, 16, "expected a matrix, found the shape [4]"),
            (&[1, 2], Dtype::F64, 16, "expected f32, i8 or u8, found F64"),
            (&[0, 2], Dtype::F32, 0, "expected at least one vector"),
        ];
        for (shape, dtype, bytes, expected) in cases {
            let line = fails("x.safetensors", &tensors(&[("embeddings", dtype, shape, bytes)]));
            assert!(line.contains(expected), "{line}");
        }
        let whole = tensors(&[("embeddings", Dtype::F32, &[2, 2], 16)]);
        assert!(fails("x.safetensors", &whole[..whole.len() - 1]).contains("not a complete"));
        assert!(StoredMatrix::open(&dir.path().join("absent.npy")).unwrap_err().to_string().contains("absent.npy"));
    }
}
