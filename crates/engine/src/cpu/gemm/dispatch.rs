//! Selects the kernel for a level and precision.

use super::epilogue::Epilogue;
use super::kernel::Kernel;
use super::layout::Line;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::operand::{Mat, Precision};
#[cfg(target_arch = "x86_64")]
use super::{amx, amx_tiles, avx2, avx512};
use super::{blocks, portable};
use crate::cpu::level::{Int8, Level};
use crate::cpu::pool::Pool;
use crate::host::Buffer;

/// Runs `$body` with the alias `$K` for the kernel of a [`Selected`].
macro_rules! with_kernel {
    ($choice:expr, $K:ident => $body:expr) => {
        with_kernel!(@match $choice, $K, $body,
            #[cfg(target_arch = "x86_64")]
            Selected::Float(Level::Amx, Precision::BF16) => amx::Amx<amx_tiles::Hardware>,
            #[cfg(target_arch = "x86_64")]
            Selected::Float(Level::Avx512BF16, Precision::BF16) => avx512::Avx512Pairs,
            #[cfg(target_arch = "x86_64")]
            Selected::Float(Level::Amx | Level::Avx512BF16 | Level::Avx512, _) => avx512::Avx512F32,
            #[cfg(target_arch = "x86_64")]
            Selected::Float(Level::Avx2, _) => avx2::Avx2F32,
            #[cfg(target_arch = "aarch64")]
            Selected::Float(Level::Neon, _) => neon::NeonF32,
            Selected::Float(..) => portable::PortableF32,
            #[cfg(target_arch = "x86_64")]
            Selected::Int8(_, Int8::Tiles) => amx::Amx<amx_tiles::Hardware, true>,
            #[cfg(target_arch = "x86_64")]
            Selected::Int8(Level::Avx512, Int8::Avx512Vnni) => avx512::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            Selected::Int8(_, Int8::Avx512Vnni) => avx512::Avx512BF16Vnni,
            #[cfg(target_arch = "x86_64")]
            Selected::Int8(_, Int8::AvxVnni) => avx2::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Selected::Int8(_, Int8::Avx2) => avx2::Avx2Int8,
            #[cfg(target_arch = "aarch64")]
            Selected::Int8(_, Int8::Dot) => neon::NeonDot,
            Selected::Int8(..) => portable::PortableInt8,
        )
    };
    (@match $choice:expr, $K:ident, $body:expr, $($(#[$when:meta])? $pattern:pat => $kernel:ty,)*) => {
        match $choice {
            $($(#[$when])? $pattern => {
                type $K = $kernel;
                $body
            })*
        }
    };
}
/// Multiplies `a` by `b` on all threads of `pool` and passes the tiles of the product to `epilogue`.
///
/// The summation order of each element depends only on k and `level`, not on the threads, m or n.
///
/// # Panics
/// The number of `a`'s columns is not that of `b`'s rows, or the machine does not have `level`.
pub fn product<S: Epilogue>(level: Level, pool: &Pool, precision: Precision, a: Mat, b: Mat, epilogue: &S) {
    dispatch(Selected::of(level, precision), Some(pool), a, b, None, epilogue);
}

/// As [`product`], only on the calling thread: for small matrices within a task.
pub fn product_serial<S: Epilogue>(level: Level, precision: Precision, a: Mat, b: Mat, epilogue: &S) {
    dispatch(Selected::of(level, precision), None, a, b, None, epilogue);
}

/// What the int8 kernel of a level expects to be added to each element of A, modulo 256. Each sum is then too large by as
/// many times the sum of the elements in B's column.
pub fn int8_offset(level: Level) -> u8 {
    Selected::of(level, Precision::Int8).a_offset()
}

/// A kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Selected {
    /// f32 or bf16 at a level.
    Float(Level, Precision),
    /// int8, with packing and epilogue compiled for a level.
    Int8(Level, Int8),
}

impl Selected {
    pub(super) fn of(level: Level, precision: Precision) -> Selected {
        assert!(
            level <= Level::detect(),
            "product at level {} on a machine of level {}",
            level.name(),
            Level::detect().name()
        );
        match precision {
            Precision::Int8 => Selected::Int8(level, Int8::of(level)),
            precision => Selected::Float(level, precision),
        }
    }

    fn precision(self) -> Precision {
        match self {
            Selected::Float(_, precision) => precision,
            Selected::Int8(..) => Precision::Int8,
        }
    }

    pub(super) fn a_offset(self) -> u8 {
        with_kernel!(self, K => <K as Kernel>::A_OFFSET)
    }
}

/// Matrix B, packed once for many products with one kernel.
pub(crate) struct PackedB {
    lines: Buffer,
    kernel: Selected,
    rows: usize,
    cols: usize,
}

impl PackedB {
    /// Packs `b` for bf16 products on all threads of `pool`, if this level packs two elements per word. Otherwise a
    /// packed copy would save little time and take as much memory as the original.
    pub(crate) fn bf16(level: Level, pool: &Pool, b: Mat) -> Option<PackedB> {
        let kernel = Selected::of(level, Precision::BF16);
        // SAFETY: the machine has the level.
        with_kernel!(kernel, K => (K::PER_WORD == 2).then(|| unsafe { PackedB::pack::<K>(kernel, pool, b) }))
    }

    /// Packs `b`, which is int8, on all threads of `pool`.
    pub(crate) fn int8(level: Level, pool: &Pool, b: Mat) -> PackedB {
        let kernel = Selected::of(level, Precision::Int8);
        // SAFETY: the machine has the level.
        with_kernel!(kernel, K => unsafe { PackedB::pack::<K>(kernel, pool, b) })
    }

    /// # Safety
    /// The machine supports `K`, the type of `kernel`.
    unsafe fn pack<K: Kernel>(kernel: Selected, pool: &Pool, b: Mat) -> PackedB {
        let mut lines = Buffer::new(blocks::packed_b_lines::<K>(b) * size_of::<Line>());
        // SAFETY: by the caller's contract; the buffer is large enough and aligned to lines.
        unsafe { blocks::pack_b::<K>(pool, kernel.precision(), b, lines.as_mut_ptr().cast()) };
        PackedB { lines, kernel, rows: b.rows, cols: b.cols }
    }

    /// [`product`] with this matrix as `b`.
    ///
    /// # Panics
    /// The number of `a`'s columns is not that of its rows.
    pub(crate) fn product<S: Epilogue>(&self, pool: &Pool, a: Mat, epilogue: &S) {
        // The product only reads it.
        let packed_b = self.lines.as_ptr().cast_mut().cast();
        dispatch(self.kernel, Some(pool), a, Mat::without_elements(self.rows, self.cols), Some(packed_b), epilogue);
    }
}

/// Multiplies with a kernel that this machine has. `packed_b` is B packed for it, if it has been packed.
pub(super) fn dispatch<S: Epilogue>(
    kernel: Selected,
    pool: Option<&Pool>,
    a: Mat,
    b: Mat,
    packed_b: Option<*mut Line>,
    epilogue: &S,
) {
    let precision = kernel.precision();
    // SAFETY: choices are made for levels that the machine has.
    with_kernel!(kernel, K => unsafe { blocks::multiply::<K, S>(pool, precision, a, b, packed_b, epilogue) });
}
