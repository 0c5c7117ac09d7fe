//! Tensors of any format as places in files, read when they are written: a big model is never in memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::ConvertError;

/// Bytes copied or compared at a time.
const CHUNK: usize = 1 << 20;

/// The next part of `left` bytes.
fn chunk_of(left: u64) -> usize {
    usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)
}

/// Tensors may overlap (tied weights share their storage), but a small file whose tensors add up to much more than its
/// own size is made to fill disks.
const MOST_OVERLAP: u64 = 8;

/// A file open for reading at any place.
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

    /// `length` bytes at `start`; reading beyond the file's end is an error of kind `UnexpectedEof`.
    pub(crate) fn read(&self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        // Compared first: a length out of a damaged header must not be allocated.
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

    /// The file itself, for libraries that seek.
    pub(crate) fn raw(&self) -> &File {
        &self.file
    }
}

/// A part of a file. Each read seeks first, so that several readers of one file do not disturb each other.
pub(crate) struct Section<'a> {
    file: &'a SourceFile,
    position: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = to.len().min(left);
        let Some(to) = to.get_mut(..wanted).filter(|to| !to.is_empty()) else {
            return Ok(0);
        };
        let mut file = &self.file.file;
        file.seek(SeekFrom::Start(self.position))?;
        let count = file.read(to)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// What a part of a file must sum to.
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
    /// Castagnoli's, as LevelDB and TensorFlow use it; here unmasked.
    Crc32c(u32),
}

/// A tensor of a foreign checkpoint: a name, a type, a shape and where its little-endian elements lie.
#[derive(Debug, Clone)]
pub(crate) struct ForeignTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Steps between elements along each axis, in elements.
    strides: Vec<usize>,
    file: Rc<SourceFile>,
    /// Where the first element lies, in bytes.
    start: u64,
    checksum: Option<Checksum>,
}

/// Bytes of an element; `None` for types that no checkpoint of BERT holds.
pub(crate) fn element_size(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::BOOL | Dtype::U8 | Dtype::I8 => Some(1),
        Dtype::F16 | Dtype::BF16 | Dtype::I16 => Some(2),
        Dtype::F32 | Dtype::I32 => Some(4),
        Dtype::F64 | Dtype::I64 => Some(8),
        _ => None,
    }
}

/// The product of the sizes, if it fits.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the product zero, but the others must still be sizes that somebody could mean.
    let others = shape.iter().filter(|&&size| size > 0).try_fold(1usize, |product, &size| product.checked_mul(size))?;
    Some(if shape.contains(&0) { 0 } else { others })
}

/// Strides of a tensor whose elements lie one after the other, the last axis fastest.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    let mut step = 1usize;
    for (stride, &size) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(size.max(1));
    }
    strides
}

impl ForeignTensor {
    /// A tensor whose elements fill `length` bytes at `start` in row-major order.
    ///
    /// # Errors
    /// In words, if shape, type, length and file do not agree.
    pub(crate) fn contiguous(
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        file: &Rc<SourceFile>,
        (start, length): (u64, u64),
        checksum: Option<Checksum>,
    ) -> Result<ForeignTensor, String> {
        let size = element_size(dtype).ok_or_else(|| format!("element type {dtype:?} is not read here"))?;
        let expected = count(&shape).and_then(|count| count.checked_mul(size)).map(|bytes| bytes as u64);
        if expected != Some(length) {
            let expected = expected.map_or("more than can be counted".to_owned(), |bytes| bytes.to_string());
            return Err(format!("shape {shape:?} of {dtype:?} takes {expected} bytes, but {length} are stored"));
        }
        if start.checked_add(length).is_none_or(|end| end > file.length) {
            return Err(format!("its {length} bytes at byte {start} reach beyond the file's {}", file.length));
        }
        let strides = row_major(&shape);
        Ok(ForeignTensor { name, dtype, shape, strides, file: file.clone(), start, checksum })
    }

    /// A view of a storage of `elements` elements at byte `start`: element (i, j, …) is number offset + i·s₀ + j·s₁ + ….
    ///
    /// # Errors
    /// In words, if the view reaches beyond the storage or shows an element many times.
    pub(crate) fn view(
        storage: ForeignTensor,
        name: String,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<ForeignTensor, String> {
        let elements = storage.elements();
        let size = storage.element_size();
        if shape.len() != strides.len() {
            return Err(format!("{} sizes but {} strides", shape.len(), strides.len()));
        }
        let wanted = count(&shape).ok_or_else(|| format!("shape {shape:?} is beyond counting"))?;
        if wanted > elements {
            return Err(format!("shape {shape:?} takes {wanted} elements, but its storage holds {elements}"));
        }
        let last = shape.iter().zip(&strides).try_fold(offset, |last, (&size, &stride)| {
            size.saturating_sub(1).checked_mul(stride).and_then(|reach| last.checked_add(reach))
        });
        if wanted > 0 && last.is_none_or(|last| last >= elements) {
            return Err(format!(
                "shape {shape:?} with strides {strides:?} from element {offset} reaches beyond its storage of {elements}"
            ));
        }
        // An empty tensor may point anywhere; nothing is read for it.
        let start = if wanted == 0 { storage.start } else { storage.start + (offset * size) as u64 };
        Ok(ForeignTensor { name, shape, strides, start, ..storage })
    }

    /// The transposed matrix, without touching a byte.
    pub(crate) fn transposed(mut self) -> ForeignTensor {
        self.shape.reverse();
        self.strides.reverse();
        self
    }

    /// Elements of the tensor.
    pub(crate) fn elements(&self) -> usize {
        count(&self.shape).unwrap_or_default()
    }

    fn element_size(&self) -> usize {
        element_size(self.dtype).unwrap_or(1)
    }

    /// Bytes of its elements.
    pub(crate) fn bytes(&self) -> u64 {
        (self.elements() * self.element_size()) as u64
    }

    fn is_contiguous(&self) -> bool {
        let expected = row_major(&self.shape);
        let steps = self.shape.iter().zip(self.strides.iter().zip(&expected));
        self.elements() == 0 || steps.into_iter().all(|(&size, (found, expected))| size == 1 || found == expected)
    }

    /// Compares the checksum of the bytes behind the tensor, unless `seen` says that it was done.
    ///
    /// # Errors
    /// [`ConvertError::Damaged`] when it differs, [`ConvertError::Io`].
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
                "the {length} bytes at byte {start}, which hold {name}, have checksum {found:08x}, expected {expected:08x}"
            );
            return Err(ConvertError::damaged(&self.file.path, "checkpoint", reason));
        }
        Ok(())
    }

    /// Its elements in row-major order.
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
            return Ok(Box::new(Cursor::new(span))); // a scalar is contiguous; never here
        };
        let mut index = vec![0usize; outer.len()];
        loop {
            let row: usize = index.iter().zip(outer_strides).map(|(&i, &stride)| i * stride).sum();
            for i in 0..inner {
                let at = (row + i * step) * size;
                gathered.extend_from_slice(span.get(at..at + size).unwrap_or_default());
            }
            // The next index, the last axis fastest; all axes at their end: done.
            let Some(axis) = (0..outer.len()).rev().find(|&axis| index[axis] + 1 < outer[axis]) else {
                break;
            };
            index[axis] += 1;
            index[axis + 1..].fill(0);
        }
        Ok(Box::new(Cursor::new(gathered)))
    }

    /// Whether two tensors hold the same values.
    ///
    /// # Errors
    /// [`ConvertError::Io`].
    pub(crate) fn same(&self, other: &ForeignTensor) -> Result<bool, ConvertError> {
        if self.dtype != other.dtype || self.shape != other.shape {
            return Ok(false);
        }
        if self.file.path == other.file.path && self.start == other.start && self.strides == other.strides {
            return Ok(true);
        }
        let read = |tensor: &ForeignTensor| ConvertError::io("read", &tensor.file.path);
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

    /// Writes its elements in row-major order.
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

/// Refuses tensors that together are much more than the files that hold them.
///
/// # Errors
/// [`ConvertError::Damaged`].
pub(crate) fn check_total(tensors: &[ForeignTensor], format: &'static str) -> Result<(), ConvertError> {
    let mut files = HashSet::new();
    let (mut held, mut wanted) = (0u64, 0u64);
    for tensor in tensors {
        wanted = wanted.saturating_add(tensor.bytes());
        if files.insert(&tensor.file.path) {
            held = held.saturating_add(tensor.file.length);
        }
    }
    match tensors.first() {
        Some(first) if wanted > held.saturating_mul(MOST_OVERLAP) => {
            let reason = format!("its {} tensors add up to {wanted} bytes in {held} bytes of files", tensors.len());
            Err(ConvertError::damaged(&first.file.path, format, reason))
        }
        _ => Ok(()),
    }
}

/// Writes a safetensors file, tensor by tensor, comparing checksums on the way. Wide types come first, so that every
/// tensor is aligned; within a type the order is that of the names.
///
/// # Errors
/// [`ConvertError::Io`], [`ConvertError::Damaged`].
pub(crate) fn write(
    path: &Path,
    tensors: &[ForeignTensor],
    progress: &mut dyn FnMut(&str),
) -> Result<(), ConvertError> {
    let mut ordered: Vec<&ForeignTensor> = tensors.iter().collect();
    ordered.sort_by(|a, b| b.element_size().cmp(&a.element_size()).then_with(|| a.name.cmp(&b.name)));
    let mut end = 0;
    let infos = ordered.iter().map(|tensor| {
        let start = end;
        end += tensor.elements() * tensor.element_size();
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.clone(), info)
    });
    let about = [("format".to_owned(), "pt".to_owned())].into();
    let write = || ConvertError::io("write", path);
    let header = Metadata::new(Some(about), infos.collect())
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
