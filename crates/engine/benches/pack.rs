//! Benchmark of packing from memory: GB/s of products with eight rows, which consist mostly of packing, over matrices
//! that do not fit in any cache; and for comparison the rate of reading the same memory sequentially. `cargo bench -p
//! cloze-engine --bench pack`; `CLOZE_CPU` sets the level, `CLOZE_THREADS` the number of threads (default 2).
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a benchmark program")]

#[allow(unsafe_code)]
mod shared;

use std::hint::black_box;
use std::time::Instant;

use cloze_engine::cpu::gemm::{Epilogue, Mat, Precision, Slice, product};
use cloze_engine::cpu::level::Isa;
use cloze_engine::cpu::pool::Pool;
use half::bf16;
use shared::{Mapped, level};

/// More than a thread's share of any L3.
const BYTES: usize = 576 << 20;
const ROWS: usize = 8;
const REPEATS: usize = 5;

/// Ignores the product.
struct Discard;

impl Epilogue for Discard {
    #[inline(always)]
    fn tile<I: Isa>(&self, _: usize, _: usize, _: usize, _: usize, acc: &mut [f32], _: usize) {
        black_box(acc);
    }
}

/// The best rate of several runs in bytes per second.
fn rate(bytes: usize, body: &dyn Fn()) -> f64 {
    let seconds = (0..REPEATS).map(|_| {
        let start = Instant::now();
        body();
        start.elapsed().as_secs_f64()
    });
    bytes as f64 / seconds.fold(f64::MAX, f64::min)
}

fn main() {
    let level = level();
    let threads = std::env::var("CLOZE_THREADS").ok().and_then(|number| number.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    println!("level {}, {} thread(s)", level.name(), pool.threads());
    // Written, not only mapped: otherwise all of it would be one page of zeros.
    let wide = Mapped::of((0..BYTES / size_of::<f32>()).map(|_| 0f32));
    let narrow = Mapped::of((0..BYTES / size_of::<bf16>()).map(|_| bf16::ZERO));
    let few = Mapped::of((0..ROWS * 4096).map(|_| bf16::ZERO));
    let (wide, narrow, few) = (wide.slice(), narrow.slice(), few.slice());

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
    println!("{:44} {:6.1} GB/s", "sequential read", read / 1e9);

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
    let times = |a: Mat, b: Mat| product(level, &pool, Precision::BF16, a, b, &Discard);
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
