//! A device: where tensors live and ops run. The backends know this file, it knows none of them: each adds its constructors to
//! [`Device`].

use crate::ops;
use crate::{DType, Tensor};
use std::any::Any;
use std::sync::Arc;

/// Bytes a second that all threads together read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bandwidths {
    /// From their L2s.
    pub l2: f64,
    /// From the L3, or what there is beyond L2.
    pub l3: f64,
    /// From memory.
    pub dram: f64,
}

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

/// What a backend has computed of weights that do not change; only the backend knows what it is.
pub type WeightCache = Box<dyn Any + Send + Sync>;

/// Where a device keeps its numbers.
pub trait Memory {
    /// A tensor with arbitrary contents, to be written whole.
    fn empty(&self, shape: &[usize], dtype: DType) -> Tensor;
    /// A tensor with these values; panics if they do not fill the shape.
    fn tensor_f32(&self, values: &[f32], shape: &[usize]) -> Tensor;
    /// A tensor with these integers; panics if they do not fill the shape.
    fn tensor_i32(&self, values: &[i32], shape: &[usize]) -> Tensor;
    /// An empty cache for what is computed of `slots` parameters.
    fn weight_cache(&self, slots: usize) -> WeightCache;
}

/// The table of contents of a device: every op, forward and backward.
pub trait Backend:
    BackendInfo
    + Memory
    + ops::adamw::AdamWStep
    + ops::add_norm::AddNorm
    + ops::attention::Attention
    + ops::binary_cross_entropy::BinaryCrossEntropy
    + ops::cross_entropy::CrossEntropy
    + ops::concat::Concat
    + ops::dropout::Dropout
    + ops::embed::Embed
    + ops::linear::Linear
    + ops::segment_mean::SegmentMean
    + ops::segment_cross_entropy::SegmentCrossEntropy
    + ops::mse_loss::MseLoss
    + ops::sum::Sum
    + ops::index_select::IndexSelect
    + ops::linear_cross_entropy::LinearCrossEntropy
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
    /// A handle on what `backend` computes with.
    pub(crate) fn of(backend: impl Backend + 'static) -> Device {
        Device { backend: Arc::new(backend) }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.backend.threads()
    }

    /// One line for logs: kind, instruction set, threads.
    pub fn describe(&self) -> String {
        self.backend.describe()
    }

    /// The name of the instruction set that computes, as [`Device::cpu_at`] takes it.
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

    /// A tensor with these values, in the device's memory; panics if they do not fill the shape.
    pub fn tensor_f32(&self, values: &[f32], shape: &[usize]) -> Tensor {
        self.backend.tensor_f32(values, shape)
    }

    /// A tensor with these integers, in the device's memory; panics if they do not fill the shape.
    pub fn tensor_i32(&self, values: &[i32], shape: &[usize]) -> Tensor {
        self.backend.tensor_i32(values, shape)
    }

    /// `count` zeros in f32, in the device's memory.
    pub(crate) fn zeros(&self, count: usize) -> Tensor {
        let mut zeros = self.backend.empty(&[count], DType::F32);
        zeros.zero(0..count);
        zeros
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }
}
