//! Benchmark of matrix products: GFLOP/s, and the fraction of the peak that is measured at the same time, on one thread
//! and on two. In bf16, operands have the types of a training step: activations in bf16, weights and their gradients in
//! f32. In int8, both are int8, and the products are those of inference, without quantization. `cargo bench -p cloze-engine --bench gemm [-- FILTER]`; `CLOZE_CPU` sets the level.
#![allow(clippy::print_stderr, clippy::print_stdout, unsafe_code, reason = "a benchmark program")]

mod shared;

use std::time::Instant;

use cloze_engine::cpu::gemm::{Epilogue, Mat, Precision, Slice, peak, product, product_serial};
use cloze_engine::cpu::level::{Isa, Level};
use cloze_engine::cpu::pool::Pool;
use half::bf16;
use shared::{Mapped, level};

/// Stores the tiles row-major.
struct Store<T> {
    to: *mut T,
    cols: usize,
}

// SAFETY: tiles are disjoint.
unsafe impl<T> Sync for Store<T> {}

trait FromLanes: Copy {
    fn from_lanes<I: Isa>(lanes: &[f32; 16]) -> [Self; 16];
}

impl FromLanes for f32 {
    #[inline(always)]
    fn from_lanes<I: Isa>(lanes: &[f32; 16]) -> [f32; 16] {
        *lanes
    }
}

impl FromLanes for bf16 {
    #[inline(always)]
    fn from_lanes<I: Isa>(lanes: &[f32; 16]) -> [bf16; 16] {
        // SAFETY: an epilogue runs at a level that the machine has.
        unsafe { I::to_bf16(lanes) }
    }
}

impl<T: FromLanes> Epilogue for Store<T> {
    #[inline(always)]
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize) {
        for i in 0..rows {
            // SAFETY: the tile is within C.
            let to = unsafe { std::slice::from_raw_parts_mut(self.to.add((row + i) * self.cols + col), cols) };
            for (to, from) in to.chunks_mut(16).zip(acc[i * stride..i * stride + cols].chunks(16)) {
                match (<&mut [T; 16]>::try_from(&mut *to), from.try_into()) {
                    (Ok(to), Ok(from)) => *to = T::from_lanes::<I>(from),
                    _ => {
                        let mut lanes = [0.0; 16];
                        lanes[..from.len()].copy_from_slice(from);
                        to.copy_from_slice(&T::from_lanes::<I>(&lanes)[..to.len()]);
                    }
                }
            }
        }
    }
}

/// The elements of a matrix.
enum Numbers {
    F32(Mapped<f32>),
    BF16(Mapped<bf16>),
    Int8(Mapped<i8>),
}

impl Numbers {
    fn new(count: usize, precision: Precision) -> Numbers {
        let values = (0..count).map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0);
        match precision {
            Precision::F32 => Numbers::F32(Mapped::of(values)),
            Precision::BF16 => Numbers::BF16(Mapped::of(values.map(bf16::from_f32))),
            Precision::Int8 => Numbers::Int8(Mapped::of(values.map(|x| (127.0 * x) as i8))),
        }
    }

    fn mat(&self, rows: usize, cols: usize, stride: usize) -> Mat<'_> {
        let data = match self {
            Numbers::F32(values) => Slice::F32(values.slice()),
            Numbers::BF16(values) => Slice::BF16(values.slice()),
            Numbers::Int8(values) => Slice::Int8(values.slice()),
        };
        Mat::new(data, rows, cols, stride)
    }
}

struct Bench {
    level: Level,
    pools: [Pool; 2],
    filter: Option<String>,
}

impl Bench {
    /// One of a layer's three products, of `tokens × inputs` activations and `outputs × inputs` weights; `kind` says
    /// which.
    fn layer(&self, kind: &str, precision: Precision, tokens: usize, outputs: usize, inputs: usize) {
        let (m, k, n) = match kind {
            "forward" => (tokens, inputs, outputs),
            "inputs" => (tokens, outputs, inputs),
            _ => (outputs, tokens, inputs),
        };
        if !self.is_selected(&name(kind, m, k, n, precision)) {
            return;
        }
        let x = Numbers::new(tokens * inputs, precision);
        let dy = Numbers::new(tokens * outputs, precision);
        let w = Numbers::new(outputs * inputs, if precision == Precision::Int8 { precision } else { Precision::F32 });
        let x = x.mat(tokens, inputs, inputs);
        let dy = dy.mat(tokens, outputs, outputs);
        let w = w.mat(outputs, inputs, inputs);
        let (a, b) = match kind {
            "forward" => (x, w.t()),
            "inputs" => (dy, w),
            _ => (dy.t(), x),
        };
        match precision {
            Precision::BF16 if kind != "weights" => self.report::<bf16>(kind, precision, a, b, false),
            _ => self.report::<f32>(kind, precision, a, b, false),
        }
    }

    fn is_selected(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }

    fn report<T: FromLanes>(&self, kind: &str, precision: Precision, a: Mat, b: Mat, serial: bool) {
        let (m, k, n) = (a.rows(), a.cols(), b.cols());
        let name = name(kind, m, k, n, precision);
        if !self.is_selected(&name) {
            return;
        }
        let mut c = Mapped::<T>::zeroed(m * n);
        let epilogue = Store { to: c.pointer(), cols: n };
        let flops = 2.0 * (m * k * n) as f64;
        let repeats = ((2e10 / flops) as usize).clamp(6, 3000);
        for pool in &self.pools[..if serial { 1 } else { 2 }] {
            let peak = peak(self.level, pool, precision);
            let best = (0..repeats)
                .map(|_| {
                    let start = Instant::now();
                    match serial {
                        true => product_serial(self.level, precision, a, b, &epilogue),
                        false => product(self.level, pool, precision, a, b, &epilogue),
                    }
                    start.elapsed().as_secs_f64()
                })
                .fold(f64::MAX, f64::min);
            println!(
                "{name:38} {} thread(s) {:9.3} ms {:8.1} GFLOP/s of {:7.1} {:5.1} %",
                pool.threads(),
                best * 1e3,
                flops / best / 1e9,
                peak / 1e9,
                100.0 * flops / best / peak
            );
        }
    }
}

fn name(kind: &str, m: usize, k: usize, n: usize, precision: Precision) -> String {
    format!("{kind} {m}x{k}x{n} {precision:?}")
}

fn main() {
    let level = level();
    let filter = std::env::args().skip(1).find(|word| !word.starts_with("--"));
    let bench = Bench { level, pools: [Pool::new(1), Pool::new(2)], filter };
    println!("level {}", level.name());
    let sizes = [
        (2048, 768, 768),
        (2048, 2304, 768),
        (2048, 3072, 768),
        (2048, 768, 3072),
        (4096, 768, 768),
        (4096, 3072, 768),
        (4096, 768, 3072),
        (4096, 256, 256),
        (4096, 768, 256),
        (4096, 1024, 256),
        (4096, 256, 1024),
        (307, 30522, 768),
    ];
    for (tokens, outputs, inputs) in sizes {
        bench.layer("forward", Precision::Int8, tokens, outputs, inputs);
    }
    for precision in [Precision::F32, Precision::BF16] {
        for (tokens, outputs, inputs) in sizes {
            for kind in ["forward", "inputs", "weights"] {
                bench.layer(kind, precision, tokens, outputs, inputs);
            }
        }
        // Products of an attention head: rows of a packed q|k|v of width 3·768.
        for (length, head) in [(128, 64), (512, 64), (64, 64), (128, 32)] {
            let (qkv, p) = (Numbers::new(length * 2304, precision), Numbers::new(length * length, Precision::F32));
            let q = qkv.mat(length, head, 2304);
            let p = p.mat(length, length, length);
            bench.report::<f32>("serial q·kᵀ", precision, q, q.t(), true);
            bench.report::<f32>("serial p·v", precision, p, q, true);
            bench.report::<f32>("serial pᵀ·v", precision, p.t(), q, true);
        }
    }
}
