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
pub(crate) mod sums;
mod turns;

use crate::device::{Backend, BackendInfo, Bandwidths, Memory, WeightCache};
use crate::{DType, Device, EngineError, Tensor};
use choice::Choice;
use gemm::{Mat, Precision, Slice};
use level::Level;
use pool::Pool;
use std::ops::Range;

/// All cores of one host.
pub(crate) struct Cpu {
    pub(crate) level: Level,
    choice: Choice,
    pub(crate) pool: Pool,
}

impl Cpu {
    const MOST_THREADS: usize = 1024;

    /// `CLOZE_CPU` names the instruction set; else `level` does, else measurement.
    pub(crate) fn new(threads: Option<usize>, level: Option<&str>) -> Result<Cpu, EngineError> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = threads.unwrap_or(cores);
        if threads == 0 || threads > Self::MOST_THREADS {
            return Err(EngineError::Threads { found: threads, most: Self::MOST_THREADS });
        }
        Ok(Cpu::of(Choice::make(level)?, threads))
    }

    fn of(choice: Choice, threads: usize) -> Cpu {
        Cpu { level: choice.level, choice, pool: Pool::new(threads) }
    }

    /// Runs `body` over `0..rows` cut into blocks of `block` rows; the cut does not depend on the threads.
    pub(crate) fn for_blocks(&self, rows: usize, block: usize, body: impl Fn(Range<usize>) + Sync) {
        self.pool.run(rows.div_ceil(block), &|i| body(i * block..rows.min((i + 1) * block)));
    }
}

/// What a product rounds its operands to, for activations of this type.
pub(crate) fn precision_of(dtype: DType) -> Precision {
    match dtype {
        DType::BF16 => Precision::BF16,
        DType::F32 | DType::I32 => Precision::F32,
    }
}

/// A tensor as a product's operand.
pub(crate) fn mat(tensor: &Tensor) -> Mat<'_> {
    mat_part(tensor, 0..tensor.shape()[0], 0..tensor.shape()[1])
}

/// Some rows and columns of a tensor as a product's operand.
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

    fn bandwidths(&self) -> Bandwidths {
        bandwidth::bandwidths(self.level, &self.pool)
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
    /// The host's cores, all of them unless `threads` says how many. The instruction set is what `CLOZE_CPU` (amx, avx512bf16,
    /// avx512, avx2, neon, portable) forces, else the fastest one: where there is a choice, the first device of a process
    /// measures it, for a few milliseconds each.
    ///
    /// # Errors
    /// `CLOZE_CPU` names an unknown or absent level; `threads` is zero or absurd.
    pub fn cpu(threads: Option<usize>) -> Result<Device, EngineError> {
        Ok(Device::of(Cpu::new(threads, None)?))
    }

    /// As [`cpu`](Self::cpu), at a given instruction set unless `CLOZE_CPU` forces another: results depend on it in their last
    /// bits.
    ///
    /// # Errors
    /// As `cpu`; also an `instruction_set` that is unknown or absent.
    pub fn cpu_at(threads: Option<usize>, instruction_set: &str) -> Result<Device, EngineError> {
        Ok(Device::of(Cpu::new(threads, Some(instruction_set))?))
    }

    /// The instruction set that the environment variable `CLOZE_CPU` forces; an empty variable counts as unset.
    pub fn forced_instruction_set() -> Option<String> {
        choice::forced()
    }

    /// The instruction sets of this CPU that [`cpu_at`](Self::cpu_at) takes, the best first.
    pub fn instruction_sets() -> Vec<&'static str> {
        Level::present().rev().map(Level::name).collect()
    }

    /// One for each instruction set of this machine on one and on two threads: for checks of all of them.
    #[cfg(test)]
    pub(crate) fn every_kind() -> Vec<Device> {
        let at = |level, threads| Device::of(Cpu::of(Choice::of(level), threads));
        Level::present().flat_map(|level| [1, 2].map(|threads| at(level, threads))).collect()
    }
}
