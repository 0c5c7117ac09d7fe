//! Tensors: contiguous, row-major, with a run-time type; cheap to clone, and immutable once shared.

use crate::cuda::{self, DevicePtr};
use crate::dtype::{DType, Element, Real, bf16};
use crate::host::{self, Buffer};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Dimensions, outermost first; at most four.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    dims: [usize; 4],
    rank: usize,
}

/// Where the elements are stored.
enum Storage {
    Host(Buffer),
    Cuda(cuda::Buffer),
}

/// An array of numbers on a device. Clones share the elements.
#[derive(Clone)]
pub struct Tensor {
    storage: Arc<Storage>,
    shape: Shape,
    dtype: DType,
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype.name(), self.shape())
    }
}

impl Tensor {
    /// A host tensor with arbitrary contents; the caller must write every element.
    pub(crate) fn host(shape: &[usize], dtype: DType) -> Tensor {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Tensor::stored(Storage::Host(Buffer::new(bytes)), shape, dtype)
    }

    /// A tensor in the memory of a GPU.
    pub(crate) fn on_device(buffer: cuda::Buffer, shape: &[usize], dtype: DType) -> Tensor {
        Tensor::stored(Storage::Cuda(buffer), shape, dtype)
    }

    fn stored(storage: Storage, shape: &[usize], dtype: DType) -> Tensor {
        assert!(shape.len() <= 4, "tensors have at most 4 dimensions, found {}", shape.len());
        let mut dims = [1; 4];
        dims[..shape.len()].copy_from_slice(shape);
        Tensor { storage: Arc::new(storage), shape: Shape { dims, rank: shape.len() }, dtype }
    }

    pub(crate) fn host_from<E: Element>(values: &[E], shape: &[usize]) -> Tensor {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values for shape {shape:?}");
        let mut tensor = Tensor::host(shape, E::DTYPE);
        tensor.slice_mut::<E>().copy_from_slice(values);
        tensor
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape.dims[..self.shape.rank]
    }

    /// The elements' type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape().iter().product()
    }

    /// Bytes of all elements.
    pub(crate) fn bytes(&self) -> usize {
        self.count() * self.dtype.size()
    }

    /// Rows and columns of a matrix. Panics for any other rank, which is a bug, not an input error.
    pub(crate) fn matrix(&self, op: &str) -> (usize, usize) {
        let [rows, cols] = self.shape() else { panic!("{op}: expected a matrix, found {:?}", self.shape()) };
        (*rows, *cols)
    }

    /// The elements in host memory. Integers that the host wrote are there also if the tensor is on a GPU.
    pub(crate) fn slice<E: Element>(&self) -> &[E] {
        assert_eq!(self.dtype, E::DTYPE, "element type of {self:?}");
        match &*self.storage {
            Storage::Host(buffer) => buffer.slice(self.count()),
            Storage::Cuda(buffer) => buffer.on_host().expect("a tensor in host memory").slice(self.count()),
        }
    }

    /// The elements in host memory, mutable. Panics if the tensor is shared.
    pub(crate) fn slice_mut<E: Element>(&mut self) -> &mut [E] {
        assert_eq!(self.dtype, E::DTYPE, "element type");
        let count = self.count();
        match self.storage_mut() {
            Storage::Host(buffer) => buffer.slice_mut(count),
            Storage::Cuda(_) => panic!("a tensor in host memory was expected"),
        }
    }

    fn storage_mut(&mut self) -> &mut Storage {
        Arc::get_mut(&mut self.storage).expect("a shared tensor cannot be written")
    }

    /// The elements in the memory of a GPU.
    pub(crate) fn device_buffer(&self) -> &cuda::Buffer {
        match &*self.storage {
            Storage::Cuda(buffer) => buffer,
            Storage::Host(_) => panic!("a tensor on a GPU was expected, found {self:?} in host memory"),
        }
    }

    /// As [`Tensor::device_buffer`], mutable. Panics if the tensor is shared.
    pub(crate) fn device_buffer_mut(&mut self) -> &mut cuda::Buffer {
        match self.storage_mut() {
            Storage::Cuda(buffer) => buffer,
            Storage::Host(_) => panic!("a tensor on a GPU was expected"),
        }
    }

    /// The address on a GPU, for reading.
    pub(crate) fn device_ptr(&self) -> DevicePtr {
        self.device_buffer().at()
    }

    /// The address on a GPU, for writing. Panics if the tensor is shared.
    pub(crate) fn device_ptr_mut(&mut self) -> DevicePtr {
        self.device_buffer_mut().at_mut()
    }

    /// Elements on a GPU, copied to the host.
    fn download<E: Element>(&self, buffer: &cuda::Buffer, range: Range<usize>) -> Vec<E> {
        assert_eq!(self.dtype, E::DTYPE, "element type of {self:?}");
        assert!(range.end <= self.count(), "{range:?} of {self:?}");
        let mut values = vec![E::default(); range.len()];
        buffer.download(range.start * size_of::<E>(), host::bytes_mut(&mut values));
        values
    }

    /// A range of an f32 tensor: borrowed from host memory, copied from other memory.
    pub(crate) fn read(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        match &*self.storage {
            Storage::Host(_) => Cow::Borrowed(&self.slice()[range]),
            Storage::Cuda(buffer) => Cow::Owned(self.download(buffer, range)),
        }
    }

    /// Lets `edit` change a range of an f32 tensor: in place in host memory, otherwise in a copy that is then written
    /// back. Panics if the tensor is shared.
    pub(crate) fn edit<T>(&mut self, range: Range<usize>, edit: impl FnOnce(&mut [f32]) -> T) -> T {
        if let Storage::Host(_) = &*self.storage {
            return edit(&mut self.slice_mut()[range]);
        }
        let mut values = self.read(range.clone()).into_owned();
        let result = edit(&mut values);
        self.write(range, &values);
        result
    }

    /// Overwrites a range of an f32 tensor. Panics if the tensor is shared or the lengths differ.
    pub(crate) fn write(&mut self, range: Range<usize>, values: &[f32]) {
        let bounds = self.count();
        assert!(
            self.dtype == DType::F32 && range.end <= bounds && range.len() == values.len(),
            "{range:?} of {self:?}"
        );
        match self.storage_mut() {
            Storage::Host(buffer) => buffer.slice_mut(bounds)[range].copy_from_slice(values),
            Storage::Cuda(buffer) => buffer.upload(range.start * 4, host::bytes(values)),
        }
    }

    /// Sets a range of an f32 tensor to zero. Panics if the tensor is shared.
    pub(crate) fn zero(&mut self, range: Range<usize>) {
        let bounds = self.count();
        assert!(self.dtype == DType::F32 && range.end <= bounds, "{range:?} of {self:?}");
        match self.storage_mut() {
            Storage::Host(buffer) => buffer.slice_mut::<f32>(bounds)[range].fill(0.0),
            Storage::Cuda(buffer) => buffer.zero(range.start * 4, range.len() * 4),
        }
    }

    /// The same elements in memory that is not shared, so that an op may overwrite them. Copies only if necessary.
    pub(crate) fn into_unique(mut self) -> Tensor {
        if Arc::get_mut(&mut self.storage).is_some() {
            return self;
        }
        match &*self.storage {
            Storage::Host(_) => {
                let mut copy = Tensor::host(self.shape(), self.dtype);
                match self.dtype {
                    DType::F32 => copy.slice_mut::<f32>().copy_from_slice(self.slice()),
                    DType::BF16 => copy.slice_mut::<bf16>().copy_from_slice(self.slice()),
                    DType::I32 => copy.slice_mut::<i32>().copy_from_slice(self.slice()),
                }
                copy
            }
            Storage::Cuda(buffer) => Tensor::on_device(buffer.copy(self.bytes()), self.shape(), self.dtype),
        }
    }

    /// The integers, copied to the host; panics on real numbers.
    pub(crate) fn to_vec_i32(&self) -> Vec<i32> {
        match &*self.storage {
            Storage::Cuda(buffer) if buffer.on_host().is_none() => self.download(buffer, 0..self.count()),
            _ => self.slice().to_vec(),
        }
    }

    /// The elements of an f32 tensor: borrowed from host memory, copied from other memory. Panics for other types.
    pub fn values_f32(&self) -> Cow<'_, [f32]> {
        self.read(0..self.count())
    }

    /// The elements as `f32`, copied to the host; panics on integers.
    pub fn to_vec_f32(&self) -> Vec<f32> {
        let widened = |values: &[bf16]| values.iter().map(|x| Real::to_f32(*x)).collect();
        match (self.dtype, &*self.storage) {
            (DType::F32, _) => self.values_f32().into_owned(),
            (DType::BF16, Storage::Host(_)) => widened(self.slice()),
            (DType::BF16, Storage::Cuda(buffer)) => widened(&self.download(buffer, 0..self.count())),
            (DType::I32, _) => panic!("to_vec_f32 of an i32 tensor"),
        }
    }
}
