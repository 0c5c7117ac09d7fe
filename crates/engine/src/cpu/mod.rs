//! The CPU device: instruction-set levels, the thread pool, matrix products, buffers and element-wise mathematics.

pub(crate) mod bandwidth;
pub(crate) mod buffer;
pub(crate) mod choice;
pub mod gemm;
pub(crate) mod lanes;
pub mod level;
pub(crate) mod math;
pub mod pool;
pub(crate) mod rows;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tiles;

use crate::device::{Backend, BackendInfo};
use crate::{DType, EngineError, Tensor};
use bandwidth::Bandwidths;
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

    #[cfg(test)]
    pub(crate) fn at_level(level: Level, threads: usize) -> Cpu {
        Cpu::of(Choice::of(level), threads)
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

impl Backend for Cpu {}
