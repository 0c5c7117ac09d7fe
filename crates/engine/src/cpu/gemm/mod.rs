//! Matrix products `C = A·B` (A `m×k`, B `k×n`, sums in f32, or in i32 if the operands are int8) whose tiles go to an [`Epilogue`] when they are finished.
//!
//! In the order of the data flow:
//! - a [`Mat`] is a view of an operand in memory;
//! - `pack` converts it and copies it into panels as wide as the micro-kernel's tile;
//! - `blocks` cuts C into tasks for the threads, so that a task's packed panels of B stay in L2;
//! - a `kernel::Kernel` (micro-kernel) multiplies two panels into one tile of C in registers;
//! - the caller's [`Epilogue`] receives the tile while it is still in L1: it adds biases, applies functions, rounds and
//!   stores. The GEMM itself never stores C.
//!
//! The names are those of BLIS (Van Zee and van de Geijn 2015, "BLIS: A framework for rapidly instantiating BLAS
//! functionality"). k is counted in blocks of 16 words of 32 bits; a word is one f32, a pair of bf16 or four int8.
//!
//! | name | meaning |
//! | --- | --- |
//! | `MR`, `NR` | rows and columns of the micro-kernel's tile, hence the widths of the panels of A and B |
//! | `KC` | maximum number of blocks of k that are packed at a time, so that panels fit in L2 |
//! | `KC_L1` | maximum number of blocks of k that are summed before the tile is stored, so that a panel of A stays in L1 |
//! | `NC_BYTES` | bytes of packed panels of B that a task keeps in L2, so NC = `NC_BYTES` / (64 `KC`) columns; BLIS keeps these panels in L3 |
//! | MC | rows of A that a task multiplies; they are streamed from memory, so this number is not tied to a cache |
//! | panel | `MR` rows of A, or up to `NR` columns of B, over a range of k |
//! | line | 16 packed words of one row or column: 64 bytes, a cache line |

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
pub use dispatch::{int8_offset, product, product_serial};
pub use epilogue::Epilogue;
pub use operand::{Mat, Precision, Slice};
pub(crate) use peak::compare_peaks;
pub use peak::peak;
