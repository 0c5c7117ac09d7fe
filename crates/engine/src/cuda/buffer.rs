//! The elements of a tensor in the memory of a device.

use std::sync::{Arc, Mutex, PoisonError};

use super::driver::{DevicePtr, Grid};
use super::memory::{Allocator, Block};
use super::{Cuda, args};
use crate::{DType, host};

/// The elements of a tensor, and what is derived from them.
pub(crate) struct Buffer {
    block: Block,
    /// Integers that the host wrote: ops read lengths and labels without a copy from the device.
    host: Option<Arc<host::Buffer>>,
    /// A copy of an f32 tensor in bf16, for products: as long as the elements do not change.
    bf16: Mutex<Option<Block>>,
}

impl Buffer {
    /// Room for this many bytes, with arbitrary contents.
    pub(crate) fn new(allocator: &Arc<Allocator>, bytes: usize) -> Buffer {
        Buffer { block: allocator.allocate(bytes), host: None, bf16: Mutex::new(None) }
    }

    /// These integers.
    pub(crate) fn of_integers(allocator: &Arc<Allocator>, values: &[i32]) -> Buffer {
        let mut buffer = Buffer::new(allocator, size_of_val(values));
        buffer.upload(0, host::bytes(values));
        let mut copy = host::Buffer::new(size_of_val(values));
        copy.slice_mut(values.len()).copy_from_slice(values);
        buffer.host = Some(Arc::new(copy));
        buffer
    }

    /// The address of the elements, for reading.
    pub(crate) fn at(&self) -> DevicePtr {
        self.block.at()
    }

    /// The address of the elements, for writing. Whatever was derived from them is dropped.
    pub(crate) fn at_mut(&mut self) -> DevicePtr {
        self.host = None;
        *self.bf16.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.block.at()
    }

    /// The integers that the host wrote.
    pub(crate) fn on_host(&self) -> Option<&host::Buffer> {
        self.host.as_deref()
    }

    /// Copies bytes from the host to a place.
    pub(crate) fn upload(&mut self, place: usize, bytes: &[u8]) {
        let at = DevicePtr(self.at_mut().0 + place as u64);
        // SAFETY: the caller's range is within the block: `Tensor` checks it.
        unsafe { self.block.allocator().driver().upload(at, bytes) };
    }

    /// Copies bytes from a place to the host.
    pub(crate) fn download(&self, place: usize, bytes: &mut [u8]) {
        let at = DevicePtr(self.at().0 + place as u64);
        // SAFETY: as for `upload`.
        unsafe { self.block.allocator().driver().download(at, bytes) };
    }

    /// Writes zeros to a range of bytes.
    pub(crate) fn zero(&mut self, place: usize, bytes: usize) {
        let at = DevicePtr(self.at_mut().0 + place as u64);
        // SAFETY: as for `upload`.
        unsafe { self.block.allocator().driver().zero(at, bytes) };
    }

    /// A copy in memory of its own.
    pub(crate) fn copy(&self, bytes: usize) -> Buffer {
        let copy = Buffer::new(self.block.allocator(), bytes);
        // SAFETY: both blocks have at least this many bytes, and are different.
        unsafe { self.block.allocator().driver().copy(copy.block.at(), self.at(), bytes) };
        Buffer { host: self.host.clone(), ..copy }
    }

    /// The `count` f32 elements in bf16: converted at the first use after a change.
    pub(crate) fn bf16(&self, cuda: &Cuda, count: usize) -> DevicePtr {
        let mut copy = self.bf16.lock().unwrap_or_else(PoisonError::into_inner);
        let block = copy.get_or_insert_with(|| {
            let block = self.block.allocator().allocate(count * DType::BF16.size());
            // SAFETY: the kernel reads `count` f32 and writes `count` bf16.
            unsafe {
                cuda.launch("cast_f32_to_bf16", Grid::each(count.div_ceil(8)), &mut args![self.at(), block.at(), count])
            };
            block
        });
        block.at()
    }

    /// The addresses of the elements and of their copy in bf16, if there is one: for a kernel that writes both.
    pub(crate) fn both_mut(&mut self) -> (DevicePtr, DevicePtr) {
        self.host = None;
        let copy = self.bf16.get_mut().unwrap_or_else(PoisonError::into_inner);
        (self.block.at(), copy.as_ref().map_or(DevicePtr::NULL, |block| block.at()))
    }
}
