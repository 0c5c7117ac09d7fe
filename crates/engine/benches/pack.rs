//! Packing from memory: GB/s at which products of eight rows, which are little but packing, go through matrices that no cache holds,
//! beside the rate at which the same memory is read from one end to the other.
//! `cargo bench -p cloze-engine --bench pack`; `CLOZE_CPU` forces a level, `CLOZE_THREADS` a number of threads (2).

use std::hint::black_box;
use std::time::Instant;

use cloze_engine::cpu::gemm::{Mat, Precision, Slice, TileSink, product};
use cloze_engine::cpu::level::{Isa, Level};
use cloze_engine::cpu::pool::Pool;
use half::bf16;
use memmap2::MmapMut;

/// Beyond a fair share of any L3.
const BYTES: usize = 576 << 20;
const ROWS: usize = 8;
const REPEATS: usize = 5;

/// Takes no notice.
struct Nowhere;

impl TileSink for Nowhere {
    #[inline(always)]
    fn tile<I: Isa>(&self, _: usize, _: usize, _: usize, _: usize, acc: &mut [f32], _: usize) {
        black_box(acc);
    }
}

/// Zeros in huge pages, as a training step's tensors are.
fn mapped(bytes: usize) -> MmapMut {
    let mut map = MmapMut::map_anon(bytes).expect("memory");
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    // Without a page of its own all of it would be one page of zeros.
    map.iter_mut().step_by(4096).for_each(|byte| *byte = 0);
    map
}

/// The best rate of a few runs in bytes a second.
fn rate(bytes: usize, body: &dyn Fn()) -> f64 {
    let seconds = (0..REPEATS).map(|_| {
        let start = Instant::now();
        body();
        start.elapsed().as_secs_f64()
    });
    bytes as f64 / seconds.fold(f64::MAX, f64::min)
}

fn main() {
    let level = match Level::from_env() {
        Ok(level) => level,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    let threads = std::env::var("CLOZE_THREADS").ok().and_then(|word| word.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    println!("level {}, {} thread(s)", level.name(), pool.threads());
    let (large, small) = (mapped(BYTES), mapped(ROWS * 4096 * 4));
    // SAFETY: the maps are aligned to pages, and any bytes are numbers.
    let wide: &[f32] = unsafe { std::slice::from_raw_parts(large.as_ptr().cast(), BYTES / 4) };
    // SAFETY: as above.
    let narrow: &[bf16] = unsafe { std::slice::from_raw_parts(large.as_ptr().cast(), BYTES / 2) };
    // SAFETY: as above.
    let few: &[bf16] = unsafe { std::slice::from_raw_parts(small.as_ptr().cast(), small.len() / 2) };

    let read = rate(BYTES, &|| {
        pool.run(threads, &|thread| {
            let each = wide.len().div_ceil(threads);
            let mut bits = [0u32; 64];
            for lines in wide[thread * each..wide.len().min((thread + 1) * each)].chunks_exact(bits.len()) {
                bits.iter_mut().zip(lines).for_each(|(bits, x)| *bits ^= x.to_bits());
            }
            black_box(bits);
        });
    });
    println!("{:44} {:6.1} GB/s", "read from end to end", read / 1e9);

    let report = |name: &str, [rows, columns]: [usize; 2], narrow_operand: bool, body: &dyn Fn(Mat)| {
        let (count, size) = (rows * columns, if narrow_operand { 2 } else { 4 });
        let matrices = BYTES / size / count;
        let found = rate(matrices * count * size, &|| {
            for at in (0..matrices).map(|i| i * count) {
                let data = match narrow_operand {
                    true => Slice::BF16(&narrow[at..at + count]),
                    false => Slice::F32(&wide[at..at + count]),
                };
                body(Mat::new(data, rows, columns, columns));
            }
        });
        println!("{name:44} {:6.1} GB/s", found / 1e9);
    };
    let times = |a: Mat, b: Mat| product(level, &pool, Precision::BF16, a, b, &Nowhere);
    let rows = |inner: usize| Mat::new(Slice::BF16(few), ROWS, inner, inner);
    for [outputs, inputs] in [[3072, 768], [768, 3072]] {
        let shape = [outputs, inputs];
        report(&format!("f32 weights {outputs}×{inputs}, forward"), shape, false, &|w| times(rows(inputs), w.t()));
        report(&format!("f32 weights {outputs}×{inputs}, to the input"), shape, false, &|w| times(rows(outputs), w));
    }
    for columns in [768, 3072] {
        let shape = [2048, columns];
        report(&format!("bf16 gradients 2048×{columns}, kept"), shape, true, &|d| times(rows(2048), d));
        report(&format!("bf16 inputs 2048×{columns}, streamed"), shape, true, &|x| times(x.t(), rows(2048).t()));
    }
}
