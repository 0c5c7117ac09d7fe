//! Every kernel, including AMX on emulated tiles, is compared with sums in f64.

use std::cell::UnsafeCell;

use half::bf16;

use super::*;
use crate::cpu::level::{Isa, Level};
use crate::cpu::pool::Pool;

/// Numbers in −1..1 that depend only on the seed.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

mod int8;

/// An operand that owns its elements; with `transposed`, its transpose is stored.
struct Operand {
    wide: Vec<f32>,
    narrow: Option<Vec<bf16>>,
    rows: usize,
    cols: usize,
    stride: usize,
    transposed: bool,
}

impl Operand {
    fn new(seed: u64, rows: usize, cols: usize, transposed: bool, dtype: Precision) -> Operand {
        let (r, c) = if transposed { (cols, rows) } else { (rows, cols) };
        let stride = c + seed as usize % 3;
        let wide = numbers(seed, r * stride);
        let narrow = (dtype == Precision::BF16).then(|| wide.iter().map(|&x| bf16::from_f32(x)).collect());
        Operand { wide, narrow, rows, cols, stride, transposed }
    }

    fn mat(&self) -> Mat<'_> {
        let data = self.narrow.as_deref().map_or(Slice::F32(&self.wide), Slice::BF16);
        match self.transposed {
            true => Mat::new(data, self.cols, self.rows, self.stride).t(),
            false => Mat::new(data, self.rows, self.cols, self.stride),
        }
    }

    fn at(&self, row: usize, col: usize, precision: Precision) -> f64 {
        let i = if self.transposed { col * self.stride + row } else { row * self.stride + col };
        match (&self.narrow, precision) {
            (Some(narrow), _) => narrow[i].to_f64(),
            (None, Precision::BF16) => bf16::from_f32(self.wide[i]).to_f64(),
            (None, _) => f64::from(self.wide[i]),
        }
    }
}

/// Stores C and counts how often each element is written.
struct Store {
    cols: usize,
    values: Vec<UnsafeCell<(f32, u32)>>,
}

// SAFETY: tiles are disjoint; the counts check this.
unsafe impl Sync for Store {}

impl Store {
    fn new(rows: usize, cols: usize) -> Store {
        Store { cols, values: (0..rows * cols).map(|_| UnsafeCell::new((f32::NAN, 0))).collect() }
    }

    fn values(self) -> Vec<f32> {
        let values = self.values.into_iter().map(UnsafeCell::into_inner);
        values
            .map(|(value, count)| {
                assert_eq!(count, 1, "an element was written {count} times");
                value
            })
            .collect()
    }
}

impl Epilogue for Store {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        assert!(col + cols <= self.cols && acc.as_ptr().addr().is_multiple_of(64));
        for i in 0..rows {
            for j in 0..cols {
                // SAFETY: no two threads receive the same element.
                let cell = unsafe { &mut *self.values[(row + i) * self.cols + col + j].get() };
                *cell = (acc[i * stride + j], cell.1 + 1);
            }
        }
        acc.fill(f32::NAN); // An epilogue may overwrite all of its tile.
    }
}

#[derive(Clone, Copy, Debug)]
enum Kernels {
    Of(Level),
    #[cfg(target_arch = "x86_64")]
    EmulatedTiles,
}

impl Kernels {
    fn available() -> Vec<Kernels> {
        let kernels = Level::available().map(Kernels::Of);
        #[cfg(target_arch = "x86_64")]
        let kernels = kernels.chain((Level::detect() >= Level::Avx512).then_some(Kernels::EmulatedTiles));
        kernels.collect()
    }

    fn product(self, pool: Option<&Pool>, precision: Precision, a: &Operand, b: &Operand) -> Vec<f32> {
        let epilogue = Store::new(a.rows, b.cols);
        match (self, pool) {
            (Kernels::Of(level), Some(pool)) => product(level, pool, precision, a.mat(), b.mat(), &epilogue),
            (Kernels::Of(level), None) => product_serial(level, precision, a.mat(), b.mat(), &epilogue),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: emulated tiles only need AVX-512, which `available` has checked.
            (Kernels::EmulatedTiles, _) => unsafe {
                use super::amx_tiles::Emulated;
                blocks::multiply::<amx::Amx<Emulated>, _>(pool, precision, a.mat(), b.mat(), None, &epilogue);
            },
        }
        epilogue.values()
    }

    /// Whether this kernel always rounds operands to bf16.
    fn bf16_only(self) -> bool {
        !matches!(self, Kernels::Of(_))
    }
}

fn check(kernels: Kernels, pool: Option<&Pool>, precision: Precision, a: &Operand, b: &Operand) -> Vec<f32> {
    let found = kernels.product(pool, precision, a, b);
    let columns: Vec<Vec<f64>> = (0..b.cols).map(|j| (0..b.rows).map(|k| b.at(k, j, precision)).collect()).collect();
    for i in 0..a.rows {
        let row: Vec<f64> = (0..a.cols).map(|k| a.at(i, k, precision)).collect();
        for (j, column) in columns.iter().enumerate() {
            let terms = row.iter().zip(column).map(|(x, y)| x * y);
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            let error = (f64::from(found[i * b.cols + j]) - sum).abs();
            assert!(
                error <= 1e-6 * size + 1e-30,
                "{kernels:?} {precision:?} {}×{}×{}, transposed {}, {}: C({i}, {j}) = {}, expected {sum}",
                a.rows,
                a.cols,
                b.cols,
                a.transposed,
                b.transposed,
                found[i * b.cols + j]
            );
        }
    }
    found
}

const SIZES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 33, 300),
    (31, 65, 33),
    (33, 31, 1),
    (65, 127, 65),
    (127, 64, 31),
    (14, 16, 32),
    (28, 300, 48),
    (300, 33, 65),
    (5, 0, 7),
    (64, 1, 64),
    (127, 2, 17),
];

/// All kernels, sizes and layouts, with operands of the given types.
fn check_all(pool: Option<&Pool>, types: &[Precision]) {
    for kernels in Kernels::available() {
        for (seed, (m, k, n)) in (1u64..).zip(SIZES) {
            for (case, (a_transposed, b_transposed)) in
                [(false, false), (false, true), (true, false), (true, true)].iter().enumerate()
            {
                for &a_type in types {
                    for &b_type in types {
                        let a = Operand::new(seed + case as u64, m, k, *a_transposed, a_type);
                        let b = Operand::new(seed + 77, k, n, *b_transposed, b_type);
                        for precision in [Precision::F32, Precision::BF16] {
                            if precision == Precision::BF16 || !kernels.bf16_only() {
                                check(kernels, pool, precision, &a, &b);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn serial_products_match_f64_sums() {
    check_all(None, &[Precision::F32, Precision::BF16]);
}

#[test]
fn parallel_products_match_f64_sums() {
    check_all(Some(&Pool::new(2)), &[Precision::F32]);
}

/// Sizes that exceed one chunk of k, one range of packed panels of B, or one task's panels of A.
#[test]
fn long_sums_match_and_do_not_depend_on_the_threads() {
    for kernels in Kernels::available() {
        for (m, k, n) in [(70, 2500, 37), (37, 1999, 290), (700, 65, 40), (40, 65, 1100), (300, 1600, 300)] {
            if kernels.bf16_only() && m * k * n > 20_000_000 {
                continue; // emulation is slow
            }
            let a = Operand::new(3, m, k, false, Precision::F32);
            let b = Operand::new(4, k, n, true, Precision::BF16);
            let serial = check(kernels, None, Precision::BF16, &a, &b);
            for threads in [1, 2, 3] {
                let pool = Pool::new(threads);
                let parallel = kernels.product(Some(&pool), Precision::BF16, &a, &b);
                let equal = serial.iter().zip(&parallel).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(equal, "{kernels:?} {m}×{k}×{n}: {threads} threads give different bits");
            }
        }
    }
}

/// The result has the same bits as that of a product that packs B itself.
#[test]
fn a_prepacked_matrix_gives_the_same_product() {
    let pool = Pool::new(2);
    for level in Level::available() {
        for (m, k, n) in [(33, 70, 65), (5, 4500, 40), (300, 64, 700)] {
            let a = Operand::new(3, m, k, false, Precision::BF16);
            let b = Operand::new(4, k, n, true, Precision::F32);
            let Some(packed) = PackedB::bf16(level, &pool, b.mat()) else { continue };
            let expected = Kernels::Of(level).product(Some(&pool), Precision::BF16, &a, &b);
            let epilogue = Store::new(m, n);
            packed.product(&pool, a.mat(), &epilogue);
            assert_eq!(epilogue.values(), expected, "{level:?} {m}×{k}×{n}");
        }
    }
}

/// NaN and infinity survive packing, and padding does not spread NaN to other rows.
#[test]
fn non_finite_elements_stay_in_their_row() {
    for kernels in Kernels::available() {
        for (value, infinite) in [(f32::NAN, false), (f32::from_bits(0x7f80_0001), false), (f32::INFINITY, true)] {
            let mut a = Operand::new(3, 9, 33, false, Precision::F32);
            let mut b = Operand::new(6, 33, 5, false, Precision::F32);
            a.wide[4 * a.stride + 32] = value;
            b.wide.iter_mut().for_each(|x| *x = x.abs() + 0.5);
            let found = kernels.product(None, Precision::BF16, &a, &b);
            for (i, x) in found.iter().enumerate() {
                let ok = if i / 5 != 4 {
                    x.is_finite()
                } else if infinite {
                    *x == f32::INFINITY
                } else {
                    x.is_nan()
                };
                assert!(ok, "{kernels:?}: element {i} is {x} with {value} in row 4");
            }
        }
    }
}

/// An epilogue may multiply, as in attention: scratch buffers and tiles of the outer product are not affected.
#[test]
fn a_product_within_an_epilogue_does_not_affect_the_outer_one() {
    struct Outer<'a> {
        store: Store,
        inner: &'a dyn Fn(),
    }
    // SAFETY: only used with one thread.
    unsafe impl Sync for Outer<'_> {}
    impl Epilogue for Outer<'_> {
        #[inline(always)]
        fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
            (self.inner)();
            self.store.tile::<I>(row, col, rows, cols, acc, stride);
        }
    }
    let a = Operand::new(3, 40, 70, false, Precision::F32);
    let b = Operand::new(4, 70, 90, false, Precision::F32);
    for kernels in Kernels::available() {
        let expected = kernels.product(None, Precision::BF16, &a, &b);
        let inner = || assert_eq!(kernels.product(None, Precision::BF16, &a, &b), expected);
        let epilogue = Outer { store: Store::new(40, 90), inner: &inner };
        match kernels {
            Kernels::Of(level) => product_serial(level, Precision::BF16, a.mat(), b.mat(), &epilogue),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: emulated tiles only need AVX-512, which `available` has checked.
            Kernels::EmulatedTiles => unsafe {
                use super::amx_tiles::Emulated;
                blocks::multiply::<amx::Amx<Emulated>, _>(None, Precision::BF16, a.mat(), b.mat(), None, &epilogue);
            },
        }
        assert_eq!(epilogue.store.values(), expected);
    }
}

/// The complete AMX path with its real instructions, with the trap handler if necessary.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn products_on_tile_instructions_equal_the_emulation() {
    use super::amx_tiles::{Hardware, with_tiles};
    if Level::detect() < Level::Avx512 {
        println!("skipped: no AVX-512");
        return;
    }
    for (m, k, n) in [(33, 70, 65), (5, 900, 40)] {
        let a = Operand::new(3, m, k, true, Precision::F32);
        let b = Operand::new(4, k, n, true, Precision::BF16);
        let expected = Kernels::EmulatedTiles.product(None, Precision::BF16, &a, &b);
        let epilogue = Store::new(m, n);
        // SAFETY: AVX-512 was just checked; the tiles are real, or their instructions are emulated on this thread.
        with_tiles(|| unsafe {
            blocks::multiply::<amx::Amx<Hardware>, _>(None, Precision::BF16, a.mat(), b.mat(), None, &epilogue);
        });
        assert_eq!(epilogue.values(), expected, "{m}×{k}×{n}");
    }
}

#[test]
fn the_peak_is_plausible_at_each_level() {
    // Wide bounds: other processes may slow down either measurement.
    let pool = Pool::new(1);
    let (a, b) = (Operand::new(1, 140, 256, false, Precision::F32), Operand::new(2, 256, 128, false, Precision::F32));
    let levels = [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512];
    for level in levels.into_iter().filter(|&level| level <= Level::detect()) {
        let peak = peak(level, &pool, Precision::F32);
        let kernels = Kernels::Of(level);
        let best = (0..10)
            .map(|_| {
                let start = std::time::Instant::now();
                kernels.product(None, Precision::F32, &a, &b);
                start.elapsed().as_secs_f64()
            })
            .fold(f64::MAX, f64::min);
        let rate = (2 * 140 * 256 * 128) as f64 / best;
        assert!(
            peak > 0.5 * rate && peak < 20.0 * rate && peak < 1e13,
            "{level:?}: peak {peak:e}, product {rate:e} FLOP/s"
        );
    }
}

#[test]
#[should_panic(expected = "matrix 3×4 with rows 5 apart in 13 elements")]
fn a_matrix_beyond_its_data_is_rejected() {
    Mat::new(Slice::F32(&[0.0; 13]), 3, 4, 5);
}

#[test]
#[should_panic(expected = "product of 2×3 and 4×1")]
fn unequal_inner_sizes_are_rejected() {
    let a = Operand::new(1, 2, 3, false, Precision::F32);
    let b = Operand::new(2, 4, 1, false, Precision::F32);
    Kernels::Of(Level::Portable).product(None, Precision::F32, &a, &b);
}
