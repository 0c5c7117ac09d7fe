//! A GPU in software, for tests: the kernels' sources, compiled by a C++ compiler after `cuda_cpu.h`, run on the host.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::{Library, Symbol};

use super::driver::{Arg, DevicePtr, Driver, Grid, Operand, Product};
use super::{Cuda, sources};
use crate::dtype::bf16;
use crate::{DType, Device};

/// The emulator's own source.
const EMULATOR: &str = include_str!("cuda_cpu.h");
const FLAGS: [&str; 6] = ["-std=c++20", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-w"];

type Launch = unsafe extern "C" fn(*const u32, *const u32, usize, *mut *mut c_void, c_int) -> c_int;
type Sizes = unsafe extern "C" fn() -> *const u32;
type ErrorText = unsafe extern "C" fn() -> *const c_char;

/// A device whose kernels run on this host.
pub(crate) struct Emulator {
    kernels: &'static Library,
    /// Threads and blocks run from the last to the first.
    backwards: bool,
    /// Bytes of its memory.
    size: usize,
    blocks: Mutex<HashMap<u64, Layout>>,
}

impl Device {
    /// A device whose kernels run on this host, the threads of a block from the first to the last or backwards. `None`, with a message, if
    /// this machine has no C++ compiler.
    pub fn emulated_for_tests(backwards: bool) -> Option<Device> {
        Device::emulated(backwards, usize::MAX)
    }

    /// The same with this many bytes of memory.
    pub fn emulated_with_memory(size: usize) -> Option<Device> {
        Device::emulated(false, size)
    }

    fn emulated(backwards: bool, size: usize) -> Option<Device> {
        match kernels() {
            Ok(kernels) => {
                Some(Device::new(Cuda::new(Arc::new(Emulator { kernels, backwards, size, blocks: Mutex::default() }))))
            }
            Err(reason) => {
                skipped(&reason);
                None
            }
        }
    }
}

#[allow(clippy::print_stdout)] // as tests print what they skip
fn skipped(reason: &str) {
    println!("skipped: CUDA kernels in the emulator: {reason}");
}

/// The compiled kernels, or why there are none. Panics if the sources are wrong.
fn kernels() -> Result<&'static Library, String> {
    static KERNELS: OnceLock<Result<Library, String>> = OnceLock::new();
    KERNELS.get_or_init(compile).as_ref().map_err(Clone::clone)
}

fn compile() -> Result<Library, String> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    if Command::new(&compiler).arg("--version").output().is_err() {
        return Err(format!("no C++ compiler `{}`", compiler.display()));
    }
    let program = format!("#define CUDA_CPU\n{}", sources::program());
    // Several test processes use the same file.
    let hash = [&program, EMULATOR, &FLAGS.join(" ")]
        .into_iter()
        .flat_map(str::bytes)
        .fold(0u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5));
    let folder = std::env::temp_dir().join(format!("cloze-cuda-{hash:016x}"));
    let library = folder.join("kernels.so");
    if !library.exists() {
        let own = folder.join(std::process::id().to_string());
        std::fs::create_dir_all(&own).expect("a temporary folder");
        std::fs::write(own.join("cuda_cpu.h"), EMULATOR).expect("a temporary file");
        std::fs::write(own.join("kernels.cpp"), &program).expect("a temporary file");
        let output = Command::new(&compiler)
            .args(FLAGS)
            .args(["kernels.cpp", "-o", "kernels.so"])
            .current_dir(&own)
            .output()
            .expect("the C++ compiler runs");
        assert!(output.status.success(), "CUDA sources:\n{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(own.join("kernels.so"), &library).expect("the compiled kernels");
        let _ = std::fs::remove_dir_all(&own);
    }
    // SAFETY: loading it runs no code of its own.
    Ok(unsafe { Library::new(&library) }.expect("the compiled kernels"))
}

impl Driver for Emulator {
    fn describe(&self) -> String {
        format!("CUDA in the emulator, threads {}", if self.backwards { "last to first" } else { "first to last" })
    }

    fn allocate(&self, bytes: usize) -> Option<DevicePtr> {
        let layout = Layout::from_size_align(bytes, 256).ok()?;
        if bytes > self.memory().0 {
            return None;
        }
        // SAFETY: the size is not 0: the allocator's smallest class is larger.
        let at = unsafe { std::alloc::alloc(layout) } as u64;
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).insert(at, layout);
        self.reused(DevicePtr(at), bytes);
        Some(DevicePtr(at))
    }

    fn reused(&self, at: DevicePtr, bytes: usize) {
        // NaN, so that a read of what was not written shows.
        // SAFETY: the block has this many bytes and no other user.
        unsafe { std::ptr::write_bytes(at.0 as *mut u8, 0xff, bytes) };
    }

    fn memory(&self) -> (usize, usize) {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        (self.size - blocks.values().map(Layout::size).sum::<usize>(), self.size)
    }

    unsafe fn free(&self, at: DevicePtr) {
        let layout = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).remove(&at.0).expect("a block");
        // SAFETY: the block came from `alloc` with this layout.
        unsafe { std::alloc::dealloc(at.0 as *mut u8, layout) };
    }

    unsafe fn upload(&self, to: DevicePtr, from: &[u8]) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.0 as *mut u8, from.len()) };
    }

    unsafe fn download(&self, from: DevicePtr, to: &mut [u8]) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.as_mut_ptr(), to.len()) };
    }

    unsafe fn copy(&self, to: DevicePtr, from: DevicePtr, bytes: usize) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes) };
    }

    unsafe fn zero(&self, at: DevicePtr, bytes: usize) {
        // SAFETY: the caller's.
        unsafe { std::ptr::write_bytes(at.0 as *mut u8, 0, bytes) };
    }

    unsafe fn launch(&self, kernel: &str, grid: Grid, args: &mut [Arg]) {
        assert!(grid.threads.is_multiple_of(32) && grid.threads <= 1024, "{kernel}: {} threads", grid.threads);
        assert!(grid.blocks[1] < 1 << 16 && grid.blocks[2] < 1 << 16, "{kernel}: {:?} blocks", grid.blocks);
        let sizes: Vec<u32> = args.iter().map(|arg| arg.size() as u32).collect();
        let mut pointers: Vec<*mut c_void> = args.iter_mut().map(Arg::as_mut_ptr).collect();
        // SAFETY: the functions have these signatures, those of `CUDA_CPU_KERNEL`; the kernel's arguments have the sizes that it declares.
        unsafe {
            let get_sizes: Symbol<'_, Sizes> =
                self.kernels.get(format!("cuda_cpu_sizes_{kernel}\0")).unwrap_or_else(|_| panic!("no kernel {kernel}"));
            let declared = get_sizes();
            let declared = std::slice::from_raw_parts(declared.add(1), *declared as usize);
            assert_eq!(declared, sizes, "{kernel}: the sizes of the arguments");
            let launch: Symbol<'_, Launch> =
                self.kernels.get(format!("cuda_cpu_{kernel}\0")).expect("a kernel with sizes has code");
            let threads = [grid.threads, 1, 1];
            let (blocks, shared) = (grid.blocks.as_ptr(), grid.shared as usize);
            let code = launch(blocks, threads.as_ptr(), shared, pointers.as_mut_ptr(), self.backwards.into());
            if code != 0 {
                let text: Symbol<'_, ErrorText> = self.kernels.get("cuda_cpu_error\0").expect("the emulator's message");
                panic!("{kernel}: {}", CStr::from_ptr(text()).to_string_lossy());
            }
        }
    }

    unsafe fn product(&self, product: &Product) {
        let Product { rows, columns, inner, a, b, c, addend, bias } = *product;
        // SAFETY: the caller's.
        unsafe {
            let (a, b) = (matrix(a, rows, inner), matrix(b, inner, columns));
            let addend = addend.map(|at| matrix(Operand { at, ..c }, rows, columns));
            let bias = bias.map(|at| matrix(Operand { at, ..c }, 1, columns));
            for row in 0..rows {
                let mut sums = vec![0f32; columns];
                for (a, b) in a[row * inner..(row + 1) * inner].iter().zip(b.chunks_exact(columns)) {
                    sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
                }
                for (column, sum) in sums.into_iter().enumerate() {
                    let sum = sum + bias.as_ref().map_or(0.0, |bias| bias[column]);
                    let sum = sum + addend.as_ref().map_or(0.0, |addend| addend[row * columns + column]);
                    let at = c.at.element(row * c.stride + column, c.dtype).0;
                    match c.dtype {
                        DType::BF16 => *(at as *mut bf16) = bf16::from_f32(sum),
                        _ => *(at as *mut f32) = sum,
                    }
                }
            }
        }
    }

    fn synchronize(&self) {}

    fn measurable(&self) -> usize {
        64
    }
}

/// A matrix in row-major order, without gaps.
///
/// # Safety
/// The matrix is valid.
unsafe fn matrix(operand: Operand, rows: usize, columns: usize) -> Vec<f32> {
    let Operand { at, dtype, stride, transposed } = operand;
    let element = |row: usize, column: usize| {
        let index = if transposed { column * stride + row } else { row * stride + column };
        let at = at.element(index, dtype).0;
        // SAFETY: the caller's.
        unsafe {
            match dtype {
                DType::BF16 => (*(at as *const bf16)).to_f32(),
                _ => *(at as *const f32),
            }
        }
    };
    (0..rows * columns).map(|i| element(i / columns, i % columns)).collect()
}
