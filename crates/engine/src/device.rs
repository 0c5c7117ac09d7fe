//! A device: where tensors live and ops run.

use crate::cpu::Cpu;
use crate::cpu::bandwidth::Bandwidths;
use crate::cpu::choice;
use crate::cpu::level::Level;
use crate::ops;
use crate::{DType, EngineError, Tensor};
use std::sync::Arc;

/// What every device tells about itself.
pub trait BackendInfo: Send + Sync {
    /// Threads that compute.
    fn threads(&self) -> usize;
    /// One line for logs: kind, instruction set, threads.
    fn describe(&self) -> String;
    /// The name of the instruction set that computes.
    fn instruction_set(&self) -> &'static str;
    /// The type of activations with which it computes faster.
    fn fastest_precision(&self) -> DType;
    /// Why it computes as it does with activations of this type, in a few words.
    fn explain(&self, dtype: DType) -> String;
    /// The measured peak of the matrix unit for operands of this type, in FLOP/s.
    fn matrix_peak(&self, dtype: DType) -> f64;
    /// How fast its memories are read.
    fn bandwidths(&self) -> Bandwidths;
}

/// The table of contents of a device: every op, forward and backward.
pub trait Backend:
    BackendInfo
    + ops::add_norm::AddNorm
    + ops::attention::Attention
    + ops::class_loss::ClassLoss
    + ops::concat::Concat
    + ops::dropout::Dropout
    + ops::embed::Embed
    + ops::linear::Linear
    + ops::mean_rows::MeanRows
    + ops::position_loss::PositionLoss
    + ops::square_loss::SquareLoss
    + ops::sum::Sum
    + ops::take_rows::TakeRows
    + ops::vocab_loss::VocabLoss
    + crate::adamw::AdamWStep
{
}

/// A handle on a device; cheap to clone.
#[derive(Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Device {
    /// The host's cores, all of them unless `threads` says how many. The instruction set is what `CLOZE_CPU` (amx, avx512bf16,
    /// avx512, avx2, neon, portable) forces, else the fastest one: where there is a choice, the first device of a process
    /// measures it, for a few milliseconds each.
    ///
    /// # Errors
    /// `CLOZE_CPU` names an unknown or absent level; `threads` is zero or absurd.
    pub fn cpu(threads: Option<usize>) -> Result<Device, EngineError> {
        Ok(Device { backend: Arc::new(Cpu::new(threads, None)?) })
    }

    /// As [`cpu`](Self::cpu), at a given instruction set unless `CLOZE_CPU` forces another: results depend on it in their last
    /// bits.
    ///
    /// # Errors
    /// As `cpu`; also an `instruction_set` that is unknown or absent.
    pub fn cpu_at(threads: Option<usize>, instruction_set: &str) -> Result<Device, EngineError> {
        Ok(Device { backend: Arc::new(Cpu::new(threads, Some(instruction_set))?) })
    }

    /// The host's cores at one instruction set, for checks of all of them.
    #[cfg(test)]
    pub(crate) fn at_level(level: Level, threads: usize) -> Device {
        Device { backend: Arc::new(Cpu::at_level(level, threads)) }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.backend.threads()
    }

    /// One line for logs: kind, instruction set, threads.
    pub fn describe(&self) -> String {
        self.backend.describe()
    }

    /// The instruction set that the environment variable `CLOZE_CPU` forces; an empty variable counts as unset.
    pub fn forced_instruction_set() -> Option<String> {
        choice::forced()
    }

    /// The instruction sets of this CPU that [`cpu_at`](Self::cpu_at) takes, the best first.
    pub fn instruction_sets() -> Vec<&'static str> {
        let present = Level::ALL.into_iter().filter(|level| *level <= Level::detect());
        present.rev().map(Level::name).collect()
    }

    /// The name of the instruction set that computes, as [`cpu_at`](Self::cpu_at) takes it.
    pub fn instruction_set(&self) -> &'static str {
        self.backend.instruction_set()
    }

    /// The type of activations that is fastest here: bf16 where the hardware multiplies it faster than f32, by measurement; else
    /// f32.
    pub fn fastest_precision(&self) -> DType {
        self.backend.fastest_precision()
    }

    /// Why this instruction set, and what it means for activations of this type: a few words for people.
    pub fn explain(&self, dtype: DType) -> String {
        self.backend.explain(dtype)
    }

    /// The matrix unit's peak for operands of this type in FLOP/s, measured now (some 50 ms).
    pub fn matrix_peak(&self, dtype: DType) -> f64 {
        self.backend.matrix_peak(dtype)
    }

    /// How fast all threads together read L2, L3 and memory, measured now (about a second).
    pub fn bandwidths(&self) -> Bandwidths {
        self.backend.bandwidths()
    }

    /// A tensor with these values; panics if they do not fill the shape.
    pub fn tensor_f32(&self, values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::host_from(values, shape)
    }

    /// A tensor with these integers; panics if they do not fill the shape.
    pub fn tensor_i32(&self, values: &[i32], shape: &[usize]) -> Tensor {
        Tensor::host_from(values, shape)
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }
}
