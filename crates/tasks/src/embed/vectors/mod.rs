//! Vectors in memory, and files of them.

mod header;
mod matrix;
mod memory;
mod npy;
mod quantized;
mod writer;

pub use matrix::{Element, StoredMatrix, ranges_path};
pub use memory::Vectors;
pub use npy::read_npy;
pub use quantized::{Precision, QuantizedWriter, Ranges, quantize};
pub(crate) use quantized::{SIGN, pack_bits};
pub use writer::{Format, Writer};
