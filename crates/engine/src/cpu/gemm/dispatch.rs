//! Selects the kernel for a level and precision.

use super::epilogue::Epilogue;
#[cfg(target_arch = "x86_64")]
use super::kernel::Kernel;
use super::layout::Line;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::operand::{Mat, Precision};
#[cfg(target_arch = "x86_64")]
use super::{amx, amx_tiles, avx2, avx512};
use super::{blocks, portable};
use crate::cpu::level::Level;
use crate::cpu::pool::Pool;
use crate::host::Buffer;

/// Multiplies `a` by `b` on all threads of `pool` and passes the tiles of the product to `epilogue`.
///
/// The summation order of each element depends only on k and `level`, not on the threads, m or n.
///
/// # Panics
/// The number of `a`'s columns is not that of `b`'s rows, or the machine does not have `level`.
pub fn product<S: Epilogue>(level: Level, pool: &Pool, precision: Precision, a: Mat, b: Mat, epilogue: &S) {
    dispatch(level, Some(pool), precision, a, b, None, epilogue);
}

/// As [`product`], only on the calling thread: for small matrices within a task.
pub fn product_serial<S: Epilogue>(level: Level, precision: Precision, a: Mat, b: Mat, epilogue: &S) {
    dispatch(level, None, precision, a, b, None, epilogue);
}

/// Matrix B, packed once for many products at one level and precision.
pub(crate) struct PackedB {
    lines: Buffer,
    level: Level,
    rows: usize,
    cols: usize,
}

impl PackedB {
    /// Packs `b` for bf16 products on all threads of `pool`, if this level packs two elements per word. Otherwise a
    /// packed copy would save little time and take as much memory as the original.
    pub(crate) fn bf16(level: Level, pool: &Pool, b: Mat) -> Option<PackedB> {
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (pool, b);
        match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level of a device is one that the machine has.
            Level::Amx => Some(unsafe { PackedB::pack::<amx::Amx<amx_tiles::Hardware>>(level, pool, b) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512BF16 => Some(unsafe { PackedB::pack::<avx512::Avx512Pairs>(level, pool, b) }),
            _ => None,
        }
    }

    /// # Safety
    /// The machine supports `K`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn pack<K: Kernel>(level: Level, pool: &Pool, b: Mat) -> PackedB {
        let mut lines = Buffer::new(blocks::packed_b_lines::<K>(b) * size_of::<Line>());
        // SAFETY: by the caller's contract; the buffer is large enough and aligned to lines.
        unsafe { blocks::pack_b::<K>(pool, Precision::BF16, b, lines.as_mut_ptr().cast()) };
        PackedB { lines, level, rows: b.rows, cols: b.cols }
    }

    /// [`product`] with this matrix as `b`.
    ///
    /// # Panics
    /// The size of `b` or the level differs from those of the packed matrix.
    pub(crate) fn product<S: Epilogue>(&self, level: Level, pool: &Pool, a: Mat, b: Mat, epilogue: &S) {
        assert_eq!((self.level, self.rows, self.cols), (level, b.rows, b.cols), "a packed matrix");
        // The product only reads it.
        let packed_b = self.lines.as_ptr().cast_mut().cast();
        dispatch(level, Some(pool), Precision::BF16, a, b, Some(packed_b), epilogue);
    }
}

fn dispatch<S: Epilogue>(
    level: Level,
    pool: Option<&Pool>,
    precision: Precision,
    a: Mat,
    b: Mat,
    packed_b: Option<*mut Line>,
    epilogue: &S,
) {
    assert!(
        level <= Level::detect(),
        "product at level {} on a machine of level {}",
        level.name(),
        Level::detect().name()
    );
    // SAFETY: the machine has the level, so it supports the kernels.
    unsafe {
        match (level, precision) {
            #[cfg(target_arch = "x86_64")]
            (Level::Amx, Precision::BF16) => {
                blocks::multiply::<amx::Amx<amx_tiles::Hardware>, S>(pool, precision, a, b, packed_b, epilogue)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512BF16, Precision::BF16) => {
                blocks::multiply::<avx512::Avx512Pairs, S>(pool, precision, a, b, packed_b, epilogue)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Amx | Level::Avx512BF16 | Level::Avx512, _) => {
                blocks::multiply::<avx512::Avx512F32, S>(pool, precision, a, b, packed_b, epilogue)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, _) => blocks::multiply::<avx2::Avx2F32, S>(pool, precision, a, b, packed_b, epilogue),
            #[cfg(target_arch = "aarch64")]
            (Level::Neon, _) => blocks::multiply::<neon::NeonF32, S>(pool, precision, a, b, packed_b, epilogue),
            _ => blocks::multiply::<portable::PortableF32, S>(pool, precision, a, b, packed_b, epilogue),
        }
    }
}
