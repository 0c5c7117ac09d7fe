//! A product's way to the kernels of its level.

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

/// Multiplies `a` by `b` on all threads of `pool` and hands the tiles of the product to `sink`.
///
/// Each element is summed in an order that depends on k and on `level` alone: not on the threads, nor on m and n.
///
/// # Panics
/// `a` has not as many columns as `b` has rows, or the machine lacks `level`.
pub fn product<S: Epilogue>(level: Level, pool: &Pool, precision: Precision, a: Mat, b: Mat, sink: &S) {
    dispatch(level, Some(pool), precision, a, b, None, sink);
}

/// As [`product`], on the calling thread alone: for small matrices within a task.
pub fn product_serial<S: Epilogue>(level: Level, precision: Precision, a: Mat, b: Mat, sink: &S) {
    dispatch(level, None, precision, a, b, None, sink);
}

/// B, packed once for many products: at one level, for one precision.
pub(crate) struct PackedB {
    lines: Buffer,
    level: Level,
    rows: usize,
    cols: usize,
}

impl PackedB {
    /// Packs `b` for bf16 products on all threads of `pool`, if this level packs two elements into a word: where it does not, a
    /// packed copy would save little and take as much memory again.
    pub(crate) fn bf16(level: Level, pool: &Pool, b: Mat) -> Option<PackedB> {
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (pool, b);
        match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a device's level is one that the machine has.
            Level::Amx => Some(unsafe { PackedB::of::<amx::Amx<amx_tiles::Hardware>>(level, pool, b) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512BF16 => Some(unsafe { PackedB::of::<avx512::Avx512Pairs>(level, pool, b) }),
            _ => None,
        }
    }

    /// # Safety
    /// The machine has what `K` needs.
    #[cfg(target_arch = "x86_64")]
    unsafe fn of<K: Kernel>(level: Level, pool: &Pool, b: Mat) -> PackedB {
        let mut lines = Buffer::new(blocks::lines_of_b::<K>(b) * size_of::<Line>());
        // SAFETY: as the caller vouches; the buffer has the room, and is aligned to lines.
        unsafe { blocks::pack_b::<K>(pool, Precision::BF16, b, lines.as_mut_ptr().cast()) };
        PackedB { lines, level, rows: b.rows, cols: b.cols }
    }

    /// [`product`] with this as `b`.
    ///
    /// # Panics
    /// `b` is not the matrix that was packed, by its size, or `level` another.
    pub(crate) fn product<S: Epilogue>(&self, level: Level, pool: &Pool, a: Mat, b: Mat, sink: &S) {
        assert_eq!((self.level, self.rows, self.cols), (level, b.rows, b.cols), "a packed matrix");
        // The product only reads it.
        let ready = self.lines.as_ptr().cast_mut().cast();
        dispatch(level, Some(pool), Precision::BF16, a, b, Some(ready), sink);
    }
}

fn dispatch<S: Epilogue>(
    level: Level,
    pool: Option<&Pool>,
    precision: Precision,
    a: Mat,
    b: Mat,
    ready: Option<*mut Line>,
    sink: &S,
) {
    assert!(
        level <= Level::detect(),
        "product at level {} on a machine of level {}",
        level.name(),
        Level::detect().name()
    );
    // SAFETY: the machine has the level, hence what the kernels need.
    unsafe {
        match (level, precision) {
            #[cfg(target_arch = "x86_64")]
            (Level::Amx, Precision::BF16) => {
                blocks::multiply::<amx::Amx<amx_tiles::Hardware>, S>(pool, precision, a, b, ready, sink)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512BF16, Precision::BF16) => {
                blocks::multiply::<avx512::Avx512Pairs, S>(pool, precision, a, b, ready, sink)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Amx | Level::Avx512BF16 | Level::Avx512, _) => {
                blocks::multiply::<avx512::Avx512F32, S>(pool, precision, a, b, ready, sink)
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, _) => blocks::multiply::<avx2::Avx2F32, S>(pool, precision, a, b, ready, sink),
            #[cfg(target_arch = "aarch64")]
            (Level::Neon, _) => blocks::multiply::<neon::NeonF32, S>(pool, precision, a, b, ready, sink),
            _ => blocks::multiply::<portable::PortableF32, S>(pool, precision, a, b, ready, sink),
        }
    }
}
