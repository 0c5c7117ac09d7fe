//! A device: where tensors are stored and ops run. This file does not depend on any backend; each backend adds its
//! constructors to [`Device`].

use crate::ops;
use crate::{DType, MemoryUse, Tensor};
use std::any::Any;
use std::sync::Arc;

/// Read bandwidth of all threads together, in bytes per second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bandwidths {
    /// From the cores' L2 caches.
    pub l2: f64,
    /// From the L3 cache, or the next memory beyond L2: on a GPU, its memory.
    pub l3: f64,
    /// From main memory.
    pub dram: f64,
}

/// What a device reports about itself.
pub(crate) trait BackendInfo: Send + Sync {
    /// Number of compute threads.
    fn threads(&self) -> usize;
    /// One line for logs: kind, instruction set, threads.
    fn describe(&self) -> String;
    /// The name of the instruction set in use.
    fn instruction_set(&self) -> &'static str;
    /// The activation type with which this device computes faster.
    fn fastest_precision(&self) -> DType;
    /// Why this instruction set is used with activations of this type, as a short text.
    fn explain(&self, dtype: DType) -> String;
    /// The measured peak of the matrix unit for operands of this type, in FLOP/s.
    fn matrix_peak(&self, dtype: DType) -> f64;
    /// The measured peak of the matrix unit for int8, in operations per second.
    fn int8_peak(&self) -> f64;
    /// The measured read bandwidth of the caches and of memory.
    fn bandwidths(&self) -> Bandwidths;
    /// Whether matrices can be multiplied in int8.
    fn multiplies_int8(&self) -> bool;
    /// Waits until all work has ended.
    fn synchronize(&self);
    /// The memory of a device that has its own.
    fn memory_use(&self) -> Option<MemoryUse>;
}

/// What a backend has computed from weights that do not change, for example packed matrices. Opaque outside the
/// backend.
pub(crate) type WeightCache = Box<dyn Any + Send + Sync>;

/// Allocation in the device's memory.
pub(crate) trait Memory {
    /// A tensor with arbitrary contents; the caller must write every element.
    fn empty(&self, shape: &[usize], dtype: DType) -> Tensor;
    /// A tensor with these values; panics if they do not fill the shape.
    fn tensor_f32(&self, values: &[f32], shape: &[usize]) -> Tensor;
    /// A tensor with these integers; panics if they do not fill the shape.
    fn tensor_i32(&self, values: &[i32], shape: &[usize]) -> Tensor;
    /// An empty cache with one entry for each of `slots` parameters and stacks.
    fn weight_cache(&self, slots: usize) -> WeightCache;
}

/// All functions of a device: every op, forward and backward.
pub(crate) trait Backend:
    BackendInfo
    + Memory
    + ops::add::Add
    + ops::add_norm::AddNorm
    + ops::attention::Attention
    + ops::binary_cross_entropy::BinaryCrossEntropy
    + ops::cosine_embedding_loss::CosineEmbeddingLoss
    + ops::cross_entropy::CrossEntropy
    + ops::cast::Cast
    + ops::concat::Concat
    + ops::dropout::Dropout
    + ops::embed::Embed
    + ops::glu::Glu
    + ops::linear::Linear
    + ops::rope::Rope
    + ops::segment_mean::SegmentMean
    + ops::segment_pool::SegmentPool
    + ops::segment_cross_entropy::SegmentCrossEntropy
    + ops::lstm::Lstm
    + ops::matmul::MatMul
    + ops::mse_loss::MseLoss
    + ops::multinomial::Multinomial
    + ops::normalize::Normalize
    + ops::optimizer::OptimizerStep
    + ops::scalar_mix::ScalarMix
    + ops::sum::Sum
    + ops::index_select::IndexSelect
    + ops::linear_cross_entropy::LinearCrossEntropy
    + ops::linear_kl::LinearKl
    + ops::relation_kl::RelationKl
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
    /// A handle of `backend`.
    pub(crate) fn new(backend: impl Backend + 'static) -> Device {
        Device { backend: Arc::new(backend) }
    }

    /// Number of compute threads.
    pub fn threads(&self) -> usize {
        self.backend.threads()
    }

    /// One line for logs: kind, instruction set, threads.
    pub fn describe(&self) -> String {
        self.backend.describe()
    }

    /// The name of the instruction set in use, in the form that [`Device::cpu_at`] accepts.
    pub fn instruction_set(&self) -> &'static str {
        self.backend.instruction_set()
    }

    /// The faster activation type on this device: bf16 if it measurably multiplies bf16 faster than f32, otherwise f32.
    pub fn fastest_precision(&self) -> DType {
        self.backend.fastest_precision()
    }

    /// Why this instruction set is used, and what it means for activations of this type: a short text for logs.
    pub fn explain(&self, dtype: DType) -> String {
        self.backend.explain(dtype)
    }

    /// The measured peak of the matrix unit for operands of this type in FLOP/s. Each call measures for about 50 ms.
    pub fn matrix_peak(&self, dtype: DType) -> f64 {
        self.backend.matrix_peak(dtype)
    }

    /// The measured peak of the matrix unit for products of int8, in operations per second (two for each product and its
    /// addition). Each call measures for about 50 ms.
    pub fn int8_peak(&self) -> f64 {
        self.backend.int8_peak()
    }

    /// Whether [`Parameters::quantize_weights`](crate::Parameters::quantize_weights) has an effect: on a CPU.
    pub fn multiplies_int8(&self) -> bool {
        self.backend.multiplies_int8()
    }

    /// Waits until all work has ended, for measurements. A CPU works while it is called, so there is nothing to wait for.
    pub fn synchronize(&self) {
        self.backend.synchronize();
    }

    /// The use of a GPU's memory by this device; `None` for a CPU.
    pub fn memory_use(&self) -> Option<MemoryUse> {
        self.backend.memory_use()
    }

    /// The measured read bandwidth of L2, L3 and memory, all threads together. Each call measures for about a second.
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
