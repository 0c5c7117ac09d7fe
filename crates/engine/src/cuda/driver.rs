//! What the CUDA backend needs from a GPU: memory, kernels, and matrix products. [`Driver`] is the only part with two implementations: the
//! libraries of NVIDIA, and an emulator for tests.

use std::ffi::c_void;

use crate::random::Mask;
use crate::{DType, EngineError, Tensor};

/// An address in the memory of a device; 0 is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct DevicePtr(pub(crate) u64);

impl DevicePtr {
    pub(crate) const NULL: DevicePtr = DevicePtr(0);

    /// The address of element number `index` of an array of this type.
    pub(crate) fn element(self, index: usize, dtype: DType) -> DevicePtr {
        DevicePtr(self.0 + (index * dtype.size()) as u64)
    }
}

/// How many threads run a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grid {
    /// Blocks in x, y and z.
    pub(crate) blocks: [u32; 3],
    /// Threads of a block: a multiple of 32, at most 1,024.
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub(crate) shared: u32,
}

impl Grid {
    /// Blocks in x, without dynamic shared memory.
    pub(crate) fn new(blocks: usize, threads: u32) -> Grid {
        Grid::of([blocks, 1, 1], threads)
    }

    /// Blocks in x, y and z, without dynamic shared memory.
    pub(crate) fn of(blocks: [usize; 3], threads: u32) -> Grid {
        let blocks = blocks.map(|n| u32::try_from(n).expect("a grid of fewer than 2³² blocks"));
        Grid { blocks, threads, shared: 0 }
    }

    /// The same grid with this many bytes of dynamic shared memory for each block.
    pub(crate) fn with_shared(self, bytes: usize) -> Grid {
        Grid { shared: u32::try_from(bytes).expect("shared memory of a block"), ..self }
    }

    /// One thread for each of `count` elements, in blocks of 256 threads: more elements than 2³¹ threads are dealt to the same threads.
    pub(crate) fn each(count: usize) -> Grid {
        Grid::new(count.div_ceil(256).clamp(1, 1 << 23), 256)
    }

    /// One thread for each 16 bytes of a tensor.
    pub(crate) fn each_vector(of: &Tensor) -> Grid {
        Grid::each(of.bytes().div_ceil(16))
    }

    /// One warp for each of `rows`, in blocks of 128 threads.
    pub(crate) fn warp_for_each(rows: usize) -> Grid {
        Grid::new(rows.div_ceil(4), 128)
    }

    /// How many warps have the columns of a row of this type: `LaneColumns` of device.cuh.
    pub(crate) fn column_blocks(columns: usize, dtype: DType) -> usize {
        (columns * dtype.size()).div_ceil(512)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}

/// An argument of a kernel, by value.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Arg {
    bytes: [u8; 16],
    size: usize,
}

impl Arg {
    fn new(bytes: &[u8]) -> Arg {
        let mut arg = Arg { bytes: [0; 16], size: bytes.len() };
        arg.bytes[..bytes.len()].copy_from_slice(bytes);
        arg
    }

    /// Bytes of the argument: the emulator compares them with the kernel's source.
    #[cfg_attr(not(any(test, feature = "emulator")), allow(dead_code))]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Where the value is.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut c_void {
        self.bytes.as_mut_ptr().cast()
    }
}

macro_rules! number_args {
    ($($number:ty),*) => { $(impl From<$number> for Arg {
        fn from(x: $number) -> Arg {
            Arg::new(&x.to_ne_bytes())
        }
    })* };
}
number_args!(i32, u32, u64, f32, f64);

impl From<DevicePtr> for Arg {
    fn from(at: DevicePtr) -> Arg {
        Arg::from(at.0)
    }
}

/// An `int` of the kernel: 0 or 1.
impl From<bool> for Arg {
    fn from(x: bool) -> Arg {
        Arg::from(i32::from(x))
    }
}

/// A `u64` of the kernel.
impl From<usize> for Arg {
    fn from(x: usize) -> Arg {
        Arg::from(x as u64)
    }
}

/// A `Mask` of the kernel, device.cuh.
impl From<Mask> for Arg {
    fn from(mask: Mask) -> Arg {
        let mut bytes = [0; 16];
        for (to, word) in bytes.chunks_exact_mut(4).zip(mask.words()) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        Arg::new(&bytes)
    }
}

/// A matrix in row-major order; `transposed` says that it is stored as its transpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) at: DevicePtr,
    pub(crate) dtype: DType,
    /// Elements from a stored row to the next.
    pub(crate) stride: usize,
    pub(crate) transposed: bool,
}

impl Operand {
    /// A matrix that is read.
    pub(crate) fn of(x: &Tensor) -> Operand {
        let (_, stride) = x.matrix("product");
        Operand { at: x.device_ptr(), dtype: x.dtype(), stride, transposed: false }
    }

    /// A matrix that is written.
    pub(crate) fn of_mut(x: &mut Tensor) -> Operand {
        let (_, stride) = x.matrix("product");
        Operand { at: x.device_ptr_mut(), dtype: x.dtype(), stride, transposed: false }
    }

    /// The same matrix, stored as its transpose.
    pub(crate) fn t(self) -> Operand {
        Operand { transposed: !self.transposed, ..self }
    }
}

/// C = A B + bias + addend, with sums in f32. A is [rows, inner], B is [inner, columns], C is [rows, columns].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) inner: usize,
    pub(crate) a: Operand,
    pub(crate) b: Operand,
    pub(crate) c: Operand,
    /// A matrix with the stride and type of C, which may be C itself.
    pub(crate) addend: Option<DevicePtr>,
    /// A number of the type of C for each column.
    pub(crate) bias: Option<DevicePtr>,
}

/// A device and its stream of work. Calls run in order; only `download` and `synchronize` wait.
///
/// Failures of the device after it was opened end the process's work with it: they are raised by [`raise`].
pub(crate) trait Driver: Send + Sync {
    /// The name of the card, and its number.
    fn describe(&self) -> String;
    /// Memory of at least this many bytes, aligned to 256; `None` if there is not enough.
    fn allocate(&self, bytes: usize) -> Option<DevicePtr>;
    /// Memory from `allocate` has a new user.
    fn reused(&self, _at: DevicePtr, _bytes: usize) {}
    /// Bytes of memory of the device that are free, and of all.
    fn memory(&self) -> (usize, usize);
    /// Frees memory.
    ///
    /// # Safety
    /// `at` came from `allocate`, and no later call uses it.
    unsafe fn free(&self, at: DevicePtr);
    /// Copies from the host.
    ///
    /// # Safety
    /// `to` has room for all bytes.
    unsafe fn upload(&self, to: DevicePtr, from: &[u8]);
    /// Copies to the host, after all earlier work.
    ///
    /// # Safety
    /// `from` has this many bytes.
    unsafe fn download(&self, from: DevicePtr, to: &mut [u8]);
    /// Copies within the device.
    ///
    /// # Safety
    /// Both ranges are valid and do not overlap.
    unsafe fn copy(&self, to: DevicePtr, from: DevicePtr, bytes: usize);
    /// Writes zeros.
    ///
    /// # Safety
    /// The range is valid.
    unsafe fn zero(&self, at: DevicePtr, bytes: usize);
    /// Runs a kernel.
    ///
    /// # Safety
    /// The arguments are those of the kernel's source, and all that it reads and writes with them is valid.
    unsafe fn launch(&self, kernel: &str, grid: Grid, args: &mut [Arg]);
    /// Multiplies matrices; none of the dimensions is 0.
    ///
    /// # Safety
    /// All matrices are valid; C does not overlap A or B.
    unsafe fn product(&self, product: &Product);
    /// Waits for all work.
    fn synchronize(&self);
    /// Rows of square matrices whose product takes long enough to be measured.
    fn measurable(&self) -> usize {
        8192
    }
}

/// Ends what is running because the device failed. The failure is the payload of an unwinding that prints nothing; the caller that
/// started the work turns it into an error.
pub(crate) fn raise(error: EngineError) -> ! {
    std::panic::resume_unwind(Box::new(error))
}
