//! The machine's matrix peak, measured: multiply-adds on registers only.

use std::sync::Mutex;
use std::time::Instant;

use super::Precision;
use crate::cpu::level::{Isa, Level, Vectorized};
use crate::cpu::pool::Pool;

/// Slices of some 2 ms; the best one counts, since others may use the machine too.
const SLICES: usize = 25;
const SLICE: f64 = 2e-3;

/// The matrix peak in FLOP/s, all threads of the pool at work together: f32 multiply-adds, or bf16 products where `level`
/// and `precision` allow. Takes some 50 ms.
///
/// # Panics
/// The machine lacks `level`.
pub fn peak(level: Level, pool: &Pool, precision: Precision) -> f64 {
    let rates = Mutex::new(Vec::new());
    pool.run(pool.threads(), &|_| {
        let rate = rate(level, precision);
        if let Ok(mut rates) = rates.lock() {
            rates.push(rate);
        }
    });
    rates.into_inner().map_or(0.0, |rates| rates.iter().sum())
}

/// This thread's rate in FLOP/s.
fn rate(level: Level, precision: Precision) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Amx && precision == Precision::BF16 {
        use crate::cpu::tiles::{Hardware, Tiles};
        assert!(level <= Level::detect(), "the tiles' peak on a machine without");
        // SAFETY: the machine has the tiles, as just asserted.
        return unsafe {
            Hardware::configure();
            let rate = best(|rounds| {
                Hardware::spin(rounds);
                rounds * 4 * 16 * 16 * 32 * 2
            });
            Hardware::release();
            rate
        };
    }
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512BF16 && precision == Precision::BF16 {
        assert!(level <= Level::detect(), "the peak of bf16 dot products on a machine without");
        // SAFETY: the machine has them, as just asserted.
        return best(|rounds| unsafe { super::avx512::spin_bf16(rounds) });
    }
    let _ = precision;
    best(|rounds| level.run(Spin(rounds)))
}

/// The best rate of many slices of `work(rounds)`, which returns its FLOPs.
fn best(work: impl Fn(u64) -> u64) -> f64 {
    let mut rounds = 1000;
    while {
        let start = Instant::now();
        work(rounds);
        start.elapsed().as_secs_f64() < SLICE / 2.0
    } {
        rounds *= 2;
    }
    (0..SLICES)
        .map(|_| {
            let start = Instant::now();
            work(rounds) as f64 / start.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}

struct Spin(u64);

impl Vectorized for Spin {
    type Output = u64;

    #[inline(always)]
    fn call<I: Isa>(self) -> u64 {
        // SAFETY: run at the level `I`.
        unsafe {
            match I::LEVEL {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 | Level::Avx512BF16 | Level::Amx => super::avx512::spin(self.0),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => super::avx2::spin(self.0),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => super::neon::spin(self.0),
                _ => super::portable::spin(self.0),
            }
        }
    }
}
