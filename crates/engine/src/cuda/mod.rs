//! The CUDA device: memory, kernels and products of an NVIDIA GPU. Each op has its kernels beside its CPU code: `ops/<op>/cuda.rs` and
//! `cuda.cu`.
//!
//! Activations are f32 or bf16 and rounded once, where they are stored. Weights, gradients and moments are f32; products in bf16 read a
//! copy of the weights in bf16. Sums are f32 and have a fixed order that does not depend on the card.

mod buffer;
#[cfg(target_os = "linux")]
mod compile;
mod driver;
#[cfg(all(target_os = "linux", any(test, feature = "emulator")))]
mod emulator;
mod groups;
#[cfg(target_os = "linux")]
mod libraries;
mod losses;
mod memory;
#[cfg(target_os = "linux")]
mod nvidia;
mod peak;
mod sources;
pub(crate) mod sums;
mod vocabulary;

pub(crate) use buffer::Buffer;
pub(crate) use driver::{Arg, DevicePtr, Grid, Operand, Product};
pub(crate) use groups::Groups;
pub use memory::MemoryUse;
pub(crate) use vocabulary::Vocabulary;

use std::ops::Range;
use std::sync::Arc;

use crate::device::{Backend, BackendInfo, Bandwidths, Memory, WeightCache};
use crate::gradients::Write;
use crate::{DType, Gradients, ParamId, Parameters, Tensor};
use driver::Driver;
use memory::Allocator;

/// The arguments of a kernel, in the order of its source.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$($crate::cuda::Arg::from($arg)),*] };
}
pub(crate) use args;

/// A GPU.
pub(crate) struct Cuda {
    driver: Arc<dyn Driver>,
    allocator: Arc<Allocator>,
}

impl Cuda {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Cuda {
        Cuda { allocator: Allocator::new(Arc::clone(&driver)), driver }
    }

    /// Runs a kernel; does nothing for an empty grid.
    ///
    /// # Safety
    /// The arguments are those of the kernel's source, and all that it reads and writes with them is valid.
    pub(crate) unsafe fn launch(&self, kernel: &str, grid: Grid, args: &mut [Arg]) {
        if !grid.is_empty() {
            // SAFETY: the caller's.
            unsafe { self.driver.launch(kernel, grid, args) };
        }
    }

    /// Runs the instance of a kernel for an element type.
    ///
    /// # Safety
    /// As [`Cuda::launch`].
    pub(crate) unsafe fn launch_of(&self, kernel: &str, dtype: DType, grid: Grid, args: &mut [Arg]) {
        // SAFETY: the caller's.
        unsafe { self.launch(&format!("{kernel}_{}", dtype.name()), grid, args) };
    }

    /// Multiplies matrices. Without an inner dimension, C is the bias and the addend only: there is no bias then, in any op.
    ///
    /// # Safety
    /// All matrices are valid; C does not overlap A or B.
    pub(crate) unsafe fn product(&self, product: &Product) {
        let Product { rows, columns, inner, c, addend, bias, .. } = *product;
        if rows == 0 || columns == 0 {
            return;
        }
        if inner > 0 {
            // SAFETY: the caller's.
            return unsafe { self.driver.product(product) };
        }
        assert!(bias.is_none() && c.stride == columns, "an empty sum with a bias, or with gaps between rows");
        let bytes = rows * columns * c.dtype.size();
        // SAFETY: C and the addend have this many bytes, and are the same or do not overlap.
        match addend {
            Some(addend) if addend == c.at => {}
            Some(addend) => unsafe { self.driver.copy(c.at, addend, bytes) },
            None => unsafe { self.driver.zero(c.at, bytes) },
        }
    }

    /// A tensor of zeros.
    pub(crate) fn zeros(&self, shape: &[usize], dtype: DType) -> Tensor {
        let mut tensor = self.empty(shape, dtype);
        tensor.device_buffer_mut().zero(0, shape.iter().product::<usize>() * dtype.size());
        tensor
    }

    /// One parameter's weights in f32.
    pub(crate) fn weights(&self, params: &Parameters, id: ParamId) -> DevicePtr {
        params.arena().device_ptr().element(params.range(id).start, DType::F32)
    }

    /// One parameter's weights as operands of a product with activations of this type.
    pub(crate) fn weights_as(&self, params: &Parameters, id: ParamId, dtype: DType) -> DevicePtr {
        let arena = params.arena();
        match dtype {
            DType::BF16 => arena.device_buffer().bf16(self, arena.count()).element(params.range(id).start, DType::BF16),
            _ => self.weights(params, id),
        }
    }

    /// A matrix of weights as an operand of a product with activations of this type.
    pub(crate) fn matrix(&self, params: &Parameters, id: ParamId, dtype: DType) -> Operand {
        let [_, stride] = *params.shape(id) else { panic!("{}: a matrix was expected", params.name(id)) };
        Operand { at: self.weights_as(params, id, dtype), dtype, stride, transposed: false }
    }

    /// The gradients at `range`, and whether they must be added to.
    pub(crate) fn gradients(&self, grads: &mut Gradients, range: Range<usize>) -> (DevicePtr, bool) {
        let write = grads.begin_write(range.clone());
        (grads.arena_mut().device_ptr_mut().element(range.start, DType::F32), write == Write::Add)
    }
}

impl BackendInfo for Cuda {
    /// Threads of the host that prepare work.
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }

    fn describe(&self) -> String {
        self.driver.describe()
    }

    fn instruction_set(&self) -> &'static str {
        "cuda"
    }

    fn fastest_precision(&self) -> DType {
        DType::BF16
    }

    fn explain(&self, dtype: DType) -> String {
        match dtype {
            DType::BF16 => "bf16 on tensor cores, f32 sums".to_owned(),
            _ => "f32".to_owned(),
        }
    }

    fn matrix_peak(&self, dtype: DType) -> f64 {
        peak::matrix_peak(self, dtype)
    }

    /// Products of int8 are not used on a GPU.
    fn int8_peak(&self) -> f64 {
        0.0
    }

    fn bandwidths(&self) -> Bandwidths {
        peak::bandwidths(self)
    }

    fn multiplies_int8(&self) -> bool {
        false
    }

    fn synchronize(&self) {
        self.driver.synchronize();
    }

    fn memory_use(&self) -> Option<MemoryUse> {
        Some(self.allocator.usage())
    }
}

impl Memory for Cuda {
    fn empty(&self, shape: &[usize], dtype: DType) -> Tensor {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Tensor::on_device(Buffer::new(&self.allocator, bytes), shape, dtype)
    }

    fn tensor_f32(&self, values: &[f32], shape: &[usize]) -> Tensor {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values for shape {shape:?}");
        let mut tensor = self.empty(shape, DType::F32);
        tensor.write(0..values.len(), values);
        tensor
    }

    fn tensor_i32(&self, values: &[i32], shape: &[usize]) -> Tensor {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values for shape {shape:?}");
        Tensor::on_device(Buffer::of_integers(&self.allocator, values), shape, DType::I32)
    }

    fn weight_cache(&self, _slots: usize) -> WeightCache {
        // The copy in bf16 belongs to the arena.
        Box::new(())
    }
}

impl Backend for Cuda {}

#[cfg(all(target_os = "linux", any(test, feature = "emulator")))]
impl crate::Device {
    /// GPUs for tests: the kernels in the emulator, if there is a C++ compiler, and a real GPU, if there is one.
    pub fn gpus_for_tests() -> Vec<crate::Device> {
        static REAL: std::sync::OnceLock<Option<crate::Device>> = std::sync::OnceLock::new();
        let real = REAL.get_or_init(|| crate::Device::cuda(0).ok()).clone();
        crate::Device::emulated_for_tests(false).into_iter().chain(real).collect()
    }
}

#[cfg(not(target_os = "linux"))]
impl crate::Device {
    /// GPUs are supported on Linux only.
    ///
    /// # Errors
    /// Always.
    pub fn cuda(_ordinal: usize) -> Result<crate::Device, crate::EngineError> {
        Err(crate::EngineError::CudaUnavailable { reason: "GPUs are supported on Linux only".to_owned() })
    }

    /// Says that GPUs are supported on Linux only.
    pub fn cuda_report() -> Vec<(String, Result<String, String>)> {
        vec![("cuda".to_owned(), Err("GPUs are supported on Linux only".to_owned()))]
    }
}
