//! The CPU device: instruction-set levels, the thread pool, matrix products and element-wise mathematics.

pub(crate) mod arena;
mod bandwidth;
mod choice;
pub(crate) mod disjoint;
pub mod gemm;
pub(crate) mod lanes;
pub mod level;
pub(crate) mod math;
pub(crate) mod packed;
pub mod pool;
pub(crate) mod quantized;
pub(crate) mod scores;
pub(crate) mod sums;
mod ticket_lock;

use crate::device::{Backend, BackendInfo, Bandwidths, Memory, WeightCache};
use crate::{DType, Device, EngineError, MemoryUse, Tensor};
use choice::Choice;
use gemm::{Mat, Precision, Slice};
use level::Level;
use pool::Pool;
use std::ops::Range;

/// The CPU cores of one host.
pub(crate) struct Cpu {
    pub(crate) level: Level,
    choice: Choice,
    pub(crate) pool: Pool,
}

impl Cpu {
    const MAX_THREADS: usize = 1024;

    /// The instruction set is that of `CLOZE_CPU`, otherwise `level`, otherwise the fastest by measurement.
    pub(crate) fn new(threads: Option<usize>, level: Option<&str>) -> Result<Cpu, EngineError> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = threads.unwrap_or(cores);
        if threads == 0 || threads > Self::MAX_THREADS {
            return Err(EngineError::Threads { found: threads, max: Self::MAX_THREADS });
        }
        Ok(Cpu::with_choice(Choice::select(level)?, threads))
    }

    fn with_choice(choice: Choice, threads: usize) -> Cpu {
        Cpu { level: choice.level, choice, pool: Pool::new(threads) }
    }

    /// Runs `body` over `0..rows` in blocks of `block` rows. The blocks do not depend on the number of threads.
    pub(crate) fn for_blocks(&self, rows: usize, block: usize, body: impl Fn(Range<usize>) + Sync) {
        self.pool.run(rows.div_ceil(block), &|i| body(i * block..rows.min((i + 1) * block)));
    }
}

/// The operand precision of matrix products for activations of this type.
pub(crate) fn precision_of(dtype: DType) -> Precision {
    match dtype {
        DType::BF16 => Precision::BF16,
        DType::F32 | DType::I32 => Precision::F32,
    }
}

/// A tensor as an operand of a matrix product.
pub(crate) fn mat(tensor: &Tensor) -> Mat<'_> {
    mat_part(tensor, 0..tensor.shape()[0], 0..tensor.shape()[1])
}

/// A range of rows and columns of a tensor as an operand of a matrix product.
pub(crate) fn mat_part(tensor: &Tensor, rows: Range<usize>, columns: Range<usize>) -> Mat<'_> {
    let (_, stride) = tensor.matrix("product");
    let slice = if rows.is_empty() || columns.is_empty() {
        Slice::F32(&[])
    } else {
        let range = rows.start * stride + columns.start..(rows.end - 1) * stride + columns.end;
        match tensor.dtype() {
            DType::F32 => Slice::F32(&tensor.slice()[range]),
            DType::BF16 => Slice::BF16(&tensor.slice()[range]),
            DType::I32 => panic!("a product of integers"),
        }
    };
    Mat::new(slice, rows.len(), columns.len(), stride)
}

impl BackendInfo for Cpu {
    fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn describe(&self) -> String {
        format!("CPU, {}, {} threads", self.level.name(), self.pool.threads())
    }

    fn instruction_set(&self) -> &'static str {
        self.level.name()
    }

    fn fastest_precision(&self) -> DType {
        self.choice.precision()
    }

    fn explain(&self, dtype: DType) -> String {
        self.choice.explain(dtype)
    }

    fn matrix_peak(&self, dtype: DType) -> f64 {
        gemm::peak(self.level, &self.pool, precision_of(dtype))
    }

    fn int8_peak(&self) -> f64 {
        gemm::peak(self.level, &self.pool, Precision::Int8)
    }

    fn bandwidths(&self) -> Bandwidths {
        bandwidth::bandwidths(self.level, &self.pool)
    }

    fn multiplies_int8(&self) -> bool {
        true
    }

    fn synchronize(&self) {}

    fn memory_use(&self) -> Option<MemoryUse> {
        None
    }
}

impl Memory for Cpu {
    fn empty(&self, shape: &[usize], dtype: DType) -> Tensor {
        Tensor::host(shape, dtype)
    }

    fn tensor_f32(&self, values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::host_from(values, shape)
    }

    fn tensor_i32(&self, values: &[i32], shape: &[usize]) -> Tensor {
        Tensor::host_from(values, shape)
    }

    fn weight_cache(&self, slots: usize) -> WeightCache {
        packed::weight_cache(slots)
    }
}

impl Backend for Cpu {}

impl Device {
    /// The CPU cores of this host: all of them, or `threads`. The environment variable `CLOZE_CPU` (amx, avx512bf16,
    /// avx512, avx2, neon, portable) sets the instruction set. Without it, the fastest one is used: if there are
    /// several candidates, the first device of a process measures each for a few milliseconds.
    ///
    /// # Errors
    /// `CLOZE_CPU` names an unknown or unavailable instruction set; `threads` is zero or above 1024.
    pub fn cpu(threads: Option<usize>) -> Result<Device, EngineError> {
        Ok(Device::new(Cpu::new(threads, None)?))
    }

    /// As [`cpu`](Self::cpu), with the given instruction set unless `CLOZE_CPU` sets another. The last bits of results
    /// depend on it.
    ///
    /// # Errors
    /// As `cpu`; also an unknown or unavailable `instruction_set`.
    pub fn cpu_at(threads: Option<usize>, instruction_set: &str) -> Result<Device, EngineError> {
        Ok(Device::new(Cpu::new(threads, Some(instruction_set))?))
    }

    /// The value of the environment variable `CLOZE_CPU`; an empty variable counts as unset.
    pub fn forced_instruction_set() -> Option<String> {
        choice::cloze_cpu()
    }

    /// The instruction sets of this CPU in the form that [`cpu_at`](Self::cpu_at) accepts, the best first.
    pub fn instruction_sets() -> Vec<&'static str> {
        Level::available().rev().map(Level::name).collect()
    }

    /// Devices for tests: each instruction set of this machine with one and with two threads.
    #[cfg(test)]
    pub(crate) fn all_for_tests() -> Vec<Device> {
        let at = |level, threads| Device::new(Cpu::with_choice(Choice::fixed(level), threads));
        let is_absent = |level: &Level| !Level::available().any(|available| available == *level);
        for absent in Level::ALL.into_iter().filter(is_absent) {
            println!("skipped: this machine has no {}", absent.name());
        }
        Level::available().flat_map(|level| [1, 2].map(|threads| at(level, threads))).collect()
    }
}
