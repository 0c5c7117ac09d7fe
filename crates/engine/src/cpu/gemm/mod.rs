//! Matrix products `C = A·B` (A `m×k`, B `k×n`, f32 sums) whose tiles go to a sink as they get finished.
//!
//! In the order of the data: a [`Mat`] names an operand where it lies; `pack` copies it, converted, into panels as wide as
//! the micro-kernel's tile; `blocks` cuts C into blocks whose panels stay in L2 and shares them among threads; a
//! `kernel::Kernel` multiplies two panels into one tile of C held in registers; the tile, still in L1, goes to the caller's
//! [`Epilogue`], which adds biases, applies functions, rounds and stores. C itself is nobody's business but the sink's.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_tiles;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod dispatch;
mod epilogue;
mod kernel;
mod layout;
#[cfg(target_arch = "aarch64")]
mod neon;
mod operand;
mod pack;
mod peak;
mod portable;
mod scratch;
#[cfg(test)]
mod tests;
mod transpose;

pub(crate) use dispatch::PackedB;
pub use dispatch::{product, product_serial};
pub use epilogue::Epilogue;
pub use operand::{Mat, Precision, Slice};
pub(crate) use peak::compare_peaks;
pub use peak::peak;
