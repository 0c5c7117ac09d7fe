//! Vectors in memory, and files of them.

mod header;
mod memory;
mod npy;
mod writer;

pub use memory::Vectors;
pub use npy::read_npy;
pub use writer::{Format, Writer};
