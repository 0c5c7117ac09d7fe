//! Tensors of any format as positions in files. They are read when they are written, so a large model is never in memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::ConvertError;

/// Number of bytes copied or compared at once.
const CHUNK: usize = 1 << 20;

/// The size of the next chunk if `left` bytes remain.
fn chunk_of(left: u64) -> usize {
    usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)
}

/// Tensors may overlap (tied weights share their storage). But if the tensors of a small file have many times its size in total,
/// the file was made to fill disks.
const MAX_OVERLAP: u64 = 8;

/// A file that can be read at any position.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
    file: File,
}

impl SourceFile {
    pub(crate) fn open(path: &Path) -> Result<Rc<SourceFile>, ConvertError> {
        let file = File::open(path).map_err(ConvertError::io("open", path))?;
        let found = file.metadata().map_err(ConvertError::io("read", path))?;
        if !found.is_file() {
            return Err(ConvertError::source(path, "expected a file"));
        }
        Ok(Rc::new(SourceFile { path: path.to_owned(), length: found.len(), file }))
    }

    /// Reads `length` bytes at `start`. Reading beyond the end of the file is an error of kind `UnexpectedEof`.
    pub(crate) fn read(&self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        // Checked first: a length from a damaged header must not be allocated.
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.section(start, length as u64).read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A reader of `length` bytes from `start`.
    pub(crate) fn section(&self, start: u64, length: u64) -> Section<'_> {
        Section { file: self, position: start, end: start.saturating_add(length) }
    }

    /// The file, for libraries that seek.
    pub(crate) fn raw(&self) -> &File {
        &self.file
    }
}

/// A part of a file. Each read seeks first, so several readers of one file are independent.
pub(crate) struct Section<'a> {
    file: &'a SourceFile,
    position: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let count = to.len().min(left);
        let Some(to) = to.get_mut(..count).filter(|to| !to.is_empty()) else {
            return Ok(0);
        };
        let mut file = &self.file.file;
        file.seek(SeekFrom::Start(self.position))?;
        let read = file.read(to)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// The expected checksum of a part of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checksum {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) sum: Sum,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sum {
    /// Zip's CRC-32.
    Crc32(u32),
    /// The Castagnoli CRC of LevelDB and TensorFlow, unmasked.
    Crc32c(u32),
}

/// A tensor of a source: name, type, shape and the position of its little-endian elements.
#[derive(Debug, Clone)]
pub(crate) struct SourceTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Steps between adjacent elements along each axis, in elements.
    strides: Vec<usize>,
    file: Rc<SourceFile>,
    /// Position of the first element in bytes.
    start: u64,
    checksum: Option<Checksum>,
}

/// Size of an element in bytes; `None` for unsupported types.
pub(crate) fn element_size(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::BOOL | Dtype::U8 | Dtype::I8 => Some(1),
        Dtype::F16 | Dtype::BF16 | Dtype::I16 => Some(2),
        Dtype::F32 | Dtype::I32 => Some(4),
        Dtype::F64 | Dtype::I64 => Some(8),
        _ => None,
    }
}

/// The product of the sizes, if it does not overflow.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    // The product of the other sizes must not overflow, even if one size is zero.
    let others = shape.iter().filter(|&&size| size > 0).try_fold(1usize, |product, &size| product.checked_mul(size))?;
    Some(if shape.contains(&0) { 0 } else { others })
}

/// The strides of a contiguous tensor in row-major order.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    let mut step = 1usize;
    for (stride, &size) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(size.max(1));
    }
    strides
}

impl SourceTensor {
    /// A tensor whose elements are `length` bytes at `start` in row-major order.
    ///
    /// # Errors
    /// A message, if shape, type, length and file do not match.
    pub(crate) fn contiguous(
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        file: &Rc<SourceFile>,
        (start, length): (u64, u64),
        checksum: Option<Checksum>,
    ) -> Result<SourceTensor, String> {
        let size = element_size(dtype).ok_or_else(|| format!("element type {dtype:?} is not supported"))?;
        let expected = count(&shape).and_then(|count| count.checked_mul(size)).map(|bytes| bytes as u64);
        if expected != Some(length) {
            let expected = expected.map_or("too many to count".to_owned(), |bytes| bytes.to_string());
            return Err(format!("shape {shape:?} of {dtype:?} needs {expected} bytes, found {length}"));
        }
        if start.checked_add(length).is_none_or(|end| end > file.length) {
            return Err(format!("its {length} bytes at byte {start} exceed the file's {}", file.length));
        }
        let strides = row_major(&shape);
        Ok(SourceTensor { name, dtype, shape, strides, file: file.clone(), start, checksum })
    }

    /// A view of the elements of `storage`: element (i, j, …) has index offset + i·s₀ + j·s₁ + ….
    ///
    /// # Errors
    /// A message, if the view exceeds the storage or repeats elements.
    pub(crate) fn view(
        storage: SourceTensor,
        name: String,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<SourceTensor, String> {
        let elements = storage.elements();
        let size = storage.element_size();
        if shape.len() != strides.len() {
            return Err(format!("found {} sizes but {} strides", shape.len(), strides.len()));
        }
        let needed = count(&shape).ok_or_else(|| format!("shape {shape:?} has too many elements"))?;
        if needed > elements {
            return Err(format!("shape {shape:?} needs {needed} elements, but its storage has {elements}"));
        }
        let last = shape.iter().zip(&strides).try_fold(offset, |last, (&size, &stride)| {
            size.saturating_sub(1).checked_mul(stride).and_then(|reach| last.checked_add(reach))
        });
        if needed > 0 && last.is_none_or(|last| last >= elements) {
            return Err(format!(
                "shape {shape:?} with strides {strides:?} from element {offset} exceeds its storage of {elements}"
            ));
        }
        // An empty tensor may have any offset, because nothing is read.
        let start = if needed == 0 { storage.start } else { storage.start + (offset * size) as u64 };
        Ok(SourceTensor { name, shape, strides, start, ..storage })
    }

    /// The transposed matrix. No data is moved.
    pub(crate) fn transposed(mut self) -> SourceTensor {
        self.shape.reverse();
        self.strides.reverse();
        self
    }

    /// Number of elements.
    pub(crate) fn elements(&self) -> usize {
        count(&self.shape).unwrap_or_default()
    }

    fn element_size(&self) -> usize {
        element_size(self.dtype).unwrap_or(1)
    }

    /// Size of the elements in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.elements() * self.element_size()) as u64
    }

    fn is_contiguous(&self) -> bool {
        let expected = row_major(&self.shape);
        let steps = self.shape.iter().zip(self.strides.iter().zip(&expected));
        self.elements() == 0 || steps.into_iter().all(|(&size, (found, expected))| size == 1 || found == expected)
    }

    /// Verifies the checksum of the tensor's bytes, unless `seen` contains them.
    ///
    /// # Errors
    /// [`ConvertError::Damaged`] if it differs, [`ConvertError::Io`].
    pub(crate) fn verify(&self, seen: &mut HashSet<(PathBuf, u64)>) -> Result<(), ConvertError> {
        let Some(Checksum { start, length, sum }) = self.checksum else {
            return Ok(());
        };
        if !seen.insert((self.file.path.clone(), start)) {
            return Ok(());
        }
        let mut section = self.file.section(start, length);
        let mut buffer = vec![0; chunk_of(length)];
        let mut crc32 = crc32fast::Hasher::new();
        let mut crc32c = 0;
        loop {
            let count = section.read(&mut buffer).map_err(ConvertError::io("read", &self.file.path))?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            match sum {
                Sum::Crc32(_) => crc32.update(bytes),
                Sum::Crc32c(_) => crc32c = crc32c::crc32c_append(crc32c, bytes),
            }
        }
        let (expected, found) = match sum {
            Sum::Crc32(expected) => (expected, crc32.finalize()),
            Sum::Crc32c(expected) => (expected, crc32c),
        };
        if expected != found {
            let name = &self.name;
            let reason = format!(
                "the {length} bytes of {name} at byte {start} have checksum {found:08x}, expected {expected:08x}"
            );
            return Err(ConvertError::damaged(&self.file.path, "checkpoint", reason));
        }
        Ok(())
    }

    /// A reader of the elements in row-major order.
    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        if self.is_contiguous() {
            return Ok(Box::new(self.file.section(self.start, self.bytes())));
        }
        let size = self.element_size();
        let reach: usize = self.shape.iter().zip(&self.strides).map(|(&size, &stride)| (size - 1) * stride).sum();
        let span = self.file.read(self.start, (reach + 1) * size)?;
        let mut gathered = Vec::with_capacity(self.elements() * size);
        let (Some((&inner, outer)), Some((&step, outer_strides))) =
            (self.shape.split_last(), self.strides.split_last())
        else {
            return Ok(Box::new(Cursor::new(span))); // unreachable: a scalar is contiguous
        };
        let mut index = vec![0usize; outer.len()];
        loop {
            let row: usize = index.iter().zip(outer_strides).map(|(&i, &stride)| i * stride).sum();
            for i in 0..inner {
                let at = (row + i * step) * size;
                gathered.extend_from_slice(span.get(at..at + size).unwrap_or_default());
            }
            // The next index, with the last axis fastest. If all axes are at their end, all elements have been read.
            let Some(axis) = (0..outer.len()).rev().find(|&axis| index[axis] + 1 < outer[axis]) else {
                break;
            };
            index[axis] += 1;
            index[axis + 1..].fill(0);
        }
        Ok(Box::new(Cursor::new(gathered)))
    }

    /// Whether two tensors have the same values.
    ///
    /// # Errors
    /// [`ConvertError::Io`].
    pub(crate) fn has_same_values(&self, other: &SourceTensor) -> Result<bool, ConvertError> {
        if self.dtype != other.dtype || self.shape != other.shape {
            return Ok(false);
        }
        if self.file.path == other.file.path && self.start == other.start && self.strides == other.strides {
            return Ok(true);
        }
        let read = |tensor: &SourceTensor| ConvertError::io("read", &tensor.file.path);
        let (mut a, mut b) = (self.reader().map_err(read(self))?, other.reader().map_err(read(other))?);
        let mut left = self.bytes();
        let (mut from_a, mut from_b) = (vec![0; chunk_of(left)], vec![0; chunk_of(left)]);
        while left > 0 {
            let next = chunk_of(left);
            let (from_a, from_b) = (&mut from_a[..next], &mut from_b[..next]);
            a.read_exact(from_a).map_err(read(self))?;
            b.read_exact(from_b).map_err(read(other))?;
            if from_a != from_b {
                return Ok(false);
            }
            left -= next as u64;
        }
        Ok(true)
    }

    /// Writes the elements in row-major order.
    fn copy_to(&self, to: &mut impl Write, path: &Path) -> Result<(), ConvertError> {
        let read = |e| ConvertError::io("read", &self.file.path)(e);
        let mut from = self.reader().map_err(read)?;
        let mut left = self.bytes();
        let mut buffer = vec![0; chunk_of(left)];
        while left > 0 {
            let next = chunk_of(left);
            let chunk = &mut buffer[..next];
            from.read_exact(chunk).map_err(read)?;
            to.write_all(chunk).map_err(ConvertError::io("write", path))?;
            left -= next as u64;
        }
        Ok(())
    }
}

/// Rejects tensors whose total size is much larger than their files.
///
/// # Errors
/// [`ConvertError::Damaged`].
pub(crate) fn check_total(tensors: &[SourceTensor], format: &'static str) -> Result<(), ConvertError> {
    let mut files = HashSet::new();
    let (mut file_bytes, mut tensor_bytes) = (0u64, 0u64);
    for tensor in tensors {
        tensor_bytes = tensor_bytes.saturating_add(tensor.bytes());
        if files.insert(&tensor.file.path) {
            file_bytes = file_bytes.saturating_add(tensor.file.length);
        }
    }
    match tensors.first() {
        Some(first) if tensor_bytes > file_bytes.saturating_mul(MAX_OVERLAP) => {
            let reason = format!(
                "its {} tensors have {tensor_bytes} bytes in total, but the files have only {file_bytes}",
                tensors.len()
            );
            Err(ConvertError::damaged(&first.file.path, format, reason))
        }
        _ => Ok(()),
    }
}

/// Writes a safetensors file, tensor by tensor, and verifies checksums. Wider types come first, so that every tensor is
/// aligned; tensors of the same width are sorted by name.
///
/// # Errors
/// [`ConvertError::Io`], [`ConvertError::Damaged`].
pub(crate) fn write(path: &Path, tensors: &[SourceTensor], progress: &mut dyn FnMut(&str)) -> Result<(), ConvertError> {
    let mut ordered: Vec<&SourceTensor> = tensors.iter().collect();
    ordered.sort_by(|a, b| b.element_size().cmp(&a.element_size()).then_with(|| a.name.cmp(&b.name)));
    let mut end = 0;
    let infos = ordered.iter().map(|tensor| {
        let start = end;
        end += tensor.elements() * tensor.element_size();
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.clone(), info)
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let write = || ConvertError::io("write", path);
    let header = Metadata::new(Some(metadata), infos.collect())
        .map_err(io::Error::other)
        .and_then(|metadata| serde_json::to_vec(&metadata).map_err(io::Error::other));
    let mut header = header.map_err(write())?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(File::create(path).map_err(ConvertError::io("create", path))?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(write())?;
    file.write_all(&header).map_err(write())?;
    let mut seen = HashSet::new();
    for (i, tensor) in ordered.iter().enumerate() {
        progress(&format!("writing {} ({} of {})", tensor.name, i + 1, ordered.len()));
        tensor.verify(&mut seen)?;
        tensor.copy_to(&mut file, path)?;
    }
    let file = file.into_inner().map_err(io::IntoInnerError::into_error).map_err(write())?;
    file.sync_all().map_err(write())
}
