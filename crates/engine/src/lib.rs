//! A small training engine for Transformer encoders: packed batches, a few fused differentiable operations, a tape, and
//! all weights in one flat arena.
//!
//! The engine does not know about text or BERT. A model declares its weights with a [`ParametersBuilder`], then runs
//! [`ops`] in a [`Pass`]. [`Pass::backward`] adds every weight's gradient to [`Gradients`], and [`optimizer_step`] updates
//! the arena. Activations are `f32` or `bf16`, depending on the pass's precision; accumulation, weights, gradients and
//! moments are always `f32`.
//!
//! Each op checks shapes at its start and panics if they are wrong: that is a bug, not an input error.

mod completion;
#[doc(hidden)] // only for the benches
#[allow(unsafe_code)]
pub mod cpu;
#[allow(unsafe_code)]
mod cuda;
mod device;
mod device_choice;
mod dtype;
mod error;
mod gradient_sums;
mod gradients;
#[allow(unsafe_code)]
mod host;
pub mod ops;
mod params;
mod profile;
mod random;
mod share;
mod tape;
mod tensor;

pub use cuda::MemoryUse;
pub use device::{Bandwidths, Device};
pub use device_choice::DeviceChoice;
pub use dtype::DType;
pub use error::EngineError;
pub use gradient_sums::GradientSums;
pub use gradients::Gradients;
pub use ops::optimizer::{
    BlockSums, Moments, Optimizer, StepReport, StepSettings, UpdateRule, optimizer_step, optimizer_step_of_share,
};
pub use params::{Init, ParamId, Parameters, ParametersBuilder};
pub use profile::{Cost, Entry, Profile};
pub use random::DropoutKey;
pub use share::Share;
pub use tape::{Pass, Var};
pub use tensor::Tensor;
