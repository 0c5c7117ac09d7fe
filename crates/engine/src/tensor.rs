//! Tensors: contiguous, row-major, of a run-time type, cheap to clone, immutable once shared.

use crate::cpu::buffer::Buffer;
use crate::dtype::{DType, Element, Real, bf16};
use std::sync::Arc;

/// Dimensions, outermost first; at most four.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    dims: [usize; 4],
    rank: usize,
}

/// Where the elements lie. A GPU adds a variant here.
enum Storage {
    Host(Buffer),
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
    /// A host tensor with arbitrary contents, to be written whole by its maker.
    pub(crate) fn host(shape: &[usize], dtype: DType) -> Tensor {
        assert!(shape.len() <= 4, "rank {} tensors are not used here", shape.len());
        let mut dims = [1; 4];
        dims[..shape.len()].copy_from_slice(shape);
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Tensor { storage: Arc::new(Storage::Host(Buffer::new(bytes))), shape: Shape { dims, rank: shape.len() }, dtype }
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

    /// Rows and columns of a matrix; panics on any other rank (a bug, not an input error).
    pub(crate) fn matrix(&self, op: &str) -> (usize, usize) {
        let [rows, cols] = self.shape() else { panic!("{op}: expected a matrix, found {:?}", self.shape()) };
        (*rows, *cols)
    }

    /// The elements, if they lie on the host and have this type.
    pub(crate) fn slice<E: Element>(&self) -> &[E] {
        assert_eq!(self.dtype, E::DTYPE, "element type of {self:?}");
        let Storage::Host(buffer) = &*self.storage;
        debug_assert!(buffer.len() >= self.count() * self.dtype.size());
        // SAFETY: the buffer holds `count` initialised elements of this type, aligned to 64 bytes.
        unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), self.count()) }
    }

    /// The elements for writing; panics when the tensor is shared.
    pub(crate) fn slice_mut<E: Element>(&mut self) -> &mut [E] {
        assert_eq!(self.dtype, E::DTYPE, "element type");
        let count = self.count();
        let Storage::Host(buffer) = Arc::get_mut(&mut self.storage).expect("a tensor is written before it is shared");
        // SAFETY: as in `slice`; `get_mut` proves that nobody else sees the buffer.
        unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), count) }
    }

    /// The same elements in memory that nobody else holds, so that an op may write over them.
    pub(crate) fn into_unique(mut self) -> Tensor {
        if Arc::get_mut(&mut self.storage).is_some() {
            return self;
        }
        let mut copy = Tensor::host(self.shape(), self.dtype);
        match self.dtype {
            DType::F32 => copy.slice_mut::<f32>().copy_from_slice(self.slice()),
            DType::BF16 => copy.slice_mut::<bf16>().copy_from_slice(self.slice()),
            DType::I32 => copy.slice_mut::<i32>().copy_from_slice(self.slice()),
        }
        copy
    }

    /// The elements as `f32`, copied to the host; panics on integers.
    pub fn to_vec_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => self.slice::<f32>().to_vec(),
            DType::BF16 => self.slice::<bf16>().iter().map(|x| Real::to_f32(*x)).collect(),
            DType::I32 => panic!("to_vec_f32 of an i32 tensor"),
        }
    }
}

/// Calls `$body` with the type alias `$E` bound to the Rust type of a real-valued dtype.
macro_rules! with_real {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $E = f32;
                $body
            }
            $crate::DType::BF16 => {
                type $E = $crate::dtype::bf16;
                $body
            }
            $crate::DType::I32 => panic!("a real-valued tensor was expected, found i32"),
        }
    };
}
pub(crate) use with_real;
