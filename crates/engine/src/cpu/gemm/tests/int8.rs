//! The int8 kernels give the sums of plain code, bit for bit.

use super::super::dispatch::{Selected, dispatch, int8_offset};
use super::*;
use crate::cpu::level::Int8;

/// An operand of int8; with `transposed`, its transpose is stored.
struct Bytes {
    data: Vec<i8>,
    rows: usize,
    cols: usize,
    stride: usize,
    transposed: bool,
}

impl Bytes {
    /// From −127 to 127; with `extreme`, only these two.
    fn new(seed: u64, rows: usize, cols: usize, transposed: bool, extreme: bool) -> Bytes {
        let (r, c) = if transposed { (cols, rows) } else { (rows, cols) };
        let stride = c + seed as usize % 3;
        let byte = |x: f32| if extreme { 127 * x.signum() as i8 } else { (127.0 * x).round() as i8 };
        Bytes { data: numbers(seed, r * stride).into_iter().map(byte).collect(), rows, cols, stride, transposed }
    }

    fn with_offset(&self, offset: u8) -> Bytes {
        let data = self.data.iter().map(|x| x.wrapping_add(offset as i8)).collect();
        Bytes { data, ..*self }
    }

    fn mat(&self) -> Mat<'_> {
        match self.transposed {
            true => Mat::new(Slice::Int8(&self.data), self.cols, self.rows, self.stride).t(),
            false => Mat::new(Slice::Int8(&self.data), self.rows, self.cols, self.stride),
        }
    }

    fn at(&self, row: usize, col: usize) -> i32 {
        let i = if self.transposed { col * self.stride + row } else { row * self.stride + col };
        self.data[i].into()
    }
}

/// A kernel that this machine has.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    Selected(Selected),
    #[cfg(target_arch = "x86_64")]
    EmulatedTiles,
}

impl Kernel {
    /// Those that levels select, and those that they would select on other machines.
    fn available() -> Vec<Kernel> {
        let selected = Level::available().map(|level| Selected::Int8(level, Int8::of(level)));
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut all: Vec<Kernel> = selected.map(Kernel::Selected).collect();
        #[cfg(target_arch = "x86_64")]
        {
            let mut add = |level, int8, is_available: bool| match is_available && level <= Level::detect() {
                true => all.push(Kernel::Selected(Selected::Int8(level, int8))),
                false => println!("skipped: this machine has no {int8:?} at {}", level.name()),
            };
            add(Level::Avx2, Int8::Avx2, true);
            add(Level::Avx2, Int8::AvxVnni, is_x86_feature_detected!("avxvnni"));
            add(Level::Avx512, Int8::Avx512Vnni, is_x86_feature_detected!("avx512vnni"));
            if Level::detect() >= Level::Avx512 {
                all.push(Kernel::EmulatedTiles);
            }
        }
        all
    }

    fn offset(self) -> u8 {
        match self {
            Kernel::Selected(selected) => selected.a_offset(),
            #[cfg(target_arch = "x86_64")]
            Kernel::EmulatedTiles => 0,
        }
    }

    /// The sums, without what the offset adds.
    fn product(self, pool: Option<&Pool>, a: &Bytes, b: &Bytes) -> Vec<i32> {
        let epilogue = Store::new(a.rows, b.cols);
        let with_offset = a.with_offset(self.offset());
        match self {
            Kernel::Selected(selected) => dispatch(selected, pool, with_offset.mat(), b.mat(), None, &epilogue),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: emulated tiles only need AVX-512, which `available` has checked.
            Kernel::EmulatedTiles => unsafe {
                use super::super::amx_tiles::Emulated;
                let (a, b) = (with_offset.mat(), b.mat());
                blocks::multiply::<amx::Amx<Emulated, true>, _>(pool, Precision::Int8, a, b, None, &epilogue);
            },
        }
        let excess: Vec<i32> =
            (0..b.cols).map(|j| i32::from(self.offset()).wrapping_mul((0..b.rows).map(|k| b.at(k, j)).sum())).collect();
        let sums = epilogue.values().into_iter().map(|sum| sum.to_bits() as i32);
        sums.enumerate().map(|(i, sum)| sum.wrapping_sub(excess[i % b.cols])).collect()
    }
}

fn expected(a: &Bytes, b: &Bytes) -> Vec<i32> {
    let columns: Vec<Vec<i32>> = (0..b.cols).map(|j| (0..b.rows).map(|k| b.at(k, j)).collect()).collect();
    let sums = |i| {
        let row: Vec<i32> = (0..a.cols).map(|k| a.at(i, k)).collect();
        columns.iter().map(move |column| row.iter().zip(column).map(|(x, y)| x * y).sum()).collect::<Vec<i32>>()
    };
    (0..a.rows).flat_map(sums).collect()
}

#[test]
fn every_kernel_computes_the_exact_sums() {
    let pool = Pool::new(2);
    for (seed, (m, k, n)) in (1u64..).zip(SIZES.into_iter().chain([(33, 64, 48), (9, 192, 100), (65, 255, 33)])) {
        for (case, (a_transposed, b_transposed)) in
            [(false, true), (false, false), (true, false), (true, true)].into_iter().enumerate()
        {
            let a = Bytes::new(seed + case as u64, m, k, a_transposed, case == 1);
            let b = Bytes::new(seed + 77, k, n, b_transposed, case == 1);
            let expected = expected(&a, &b);
            for kernel in Kernel::available() {
                for pool in [None, Some(&pool)] {
                    assert_eq!(kernel.product(pool, &a, &b), expected, "{kernel:?} {m}×{k}×{n} case {case}");
                }
            }
        }
    }
}

/// Sums over several chunks, of the largest magnitude: 127² for each element.
#[test]
fn long_sums_do_not_overflow() {
    for (m, k, n) in [(3, 9000, 20), (40, 2600, 50), (1, 1 << 17, 16)] {
        let mut a = Bytes::new(3, m, k, false, true);
        let mut b = Bytes::new(6, k, n, true, true);
        a.data[..k].fill(127);
        b.data[..k].fill(-127);
        let expected = expected(&a, &b);
        assert_eq!(expected[0], -127 * 127 * k as i32);
        for kernel in Kernel::available() {
            for threads in [1, 3] {
                assert_eq!(kernel.product(Some(&Pool::new(threads)), &a, &b), expected, "{kernel:?} {m}×{k}×{n}");
            }
        }
    }
}

#[test]
fn a_prepacked_matrix_gives_the_same_sums() {
    let pool = Pool::new(2);
    for level in Level::available() {
        let kernel = Kernel::Selected(Selected::of(level, Precision::Int8));
        for (m, k, n) in [(1, 128, 65), (33, 70, 65), (5, 4500, 40), (300, 64, 700)] {
            let (a, b) = (Bytes::new(3, m, k, false, false), Bytes::new(4, k, n, true, false));
            let packed = PackedB::int8(level, &pool, b.mat());
            let epilogue = Store::new(m, n);
            packed.product(&pool, a.with_offset(int8_offset(level)).mat(), &epilogue);
            let found: Vec<i32> = epilogue.values().into_iter().map(|sum| sum.to_bits() as i32).collect();
            let direct = Store::new(m, n);
            product(level, &pool, Precision::Int8, a.with_offset(int8_offset(level)).mat(), b.mat(), &direct);
            let direct: Vec<i32> = direct.values().into_iter().map(|sum| sum.to_bits() as i32).collect();
            assert_eq!(found, direct, "{kernel:?} {m}×{k}×{n}");
        }
    }
}

/// The complete int8 path with the real tile instructions, with the trap handler if necessary.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn int8_products_on_tile_instructions_equal_the_emulation() {
    use super::super::amx_tiles::{Hardware, with_tiles};
    if Level::detect() < Level::Avx512 {
        println!("skipped: no AVX-512");
        return;
    }
    for (m, k, n) in [(33, 70, 65), (5, 1900, 40)] {
        let (a, b) = (Bytes::new(3, m, k, true, false), Bytes::new(4, k, n, true, false));
        let epilogue = Store::new(m, n);
        // SAFETY: AVX-512 was just checked; the tiles are real, or their instructions are emulated on this thread.
        with_tiles(|| unsafe {
            let (a, b) = (a.mat(), b.mat());
            blocks::multiply::<amx::Amx<Hardware, true>, _>(None, Precision::Int8, a, b, None, &epilogue);
        });
        let found: Vec<i32> = epilogue.values().into_iter().map(|sum| sum.to_bits() as i32).collect();
        assert_eq!(found, expected(&a, &b), "{m}×{k}×{n}");
    }
}

#[test]
fn the_int8_peak_is_plausible_at_each_level() {
    let pool = Pool::new(1);
    for level in Level::available().filter(|level| *level != Level::Portable) {
        let [int8, f32] = [Precision::Int8, Precision::F32].map(|precision| peak(level, &pool, precision));
        // Wide bounds: other processes may slow down either measurement.
        assert!(int8 > 0.5 * f32 && int8 < 200.0 * f32, "{level:?}: {int8:e} in int8, {f32:e} in f32");
    }
}

#[test]
#[should_panic(expected = "a product of int8 and another type")]
fn int8_and_f32_are_not_multiplied() {
    let (a, b) = (Operand::new(1, 2, 3, false, Precision::F32), Bytes::new(2, 3, 1, false, false));
    product_serial(Level::Portable, Precision::Int8, a.mat(), b.mat(), &Store::new(2, 1));
}
