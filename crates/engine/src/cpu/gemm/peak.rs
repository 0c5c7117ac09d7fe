//! Measures the matrix peak of the machine: multiply-adds on registers only.

use std::sync::Mutex;
use std::time::Instant;

use super::operand::Precision;
use crate::cpu::level::{Int8, Isa, Level, Vectorized};
use crate::cpu::pool::Pool;

/// Time slices of about 2 ms. The best one counts, since other processes may use the machine.
const SLICES: usize = 25;
const SLICE: f64 = 2e-3;
/// The same for comparing levels at the start of a process.
const QUICK_SLICES: usize = 6;
const QUICK_SLICE: f64 = 0.6e-3;

/// The matrix peak in FLOP/s of all threads of the pool together: f32 multiply-adds, or bf16 or int8 products if `level`
/// and `precision` allow. Takes about 50 ms.
///
/// # Panics
/// The machine does not have `level`.
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

/// One thread's peaks at several levels in FLOP/s, measured alternately so that they are comparable. Takes about 5 ms
/// per level.
///
/// # Panics
/// The machine does not have a level.
pub(crate) fn compare_peaks(levels: &[Level], precision: Precision) -> Vec<f64> {
    let rounds: Vec<u64> =
        levels.iter().map(|&level| rounds(QUICK_SLICE, &|rounds| work(level, precision, rounds))).collect();
    let mut peaks = vec![0.0; levels.len()];
    for _ in 0..QUICK_SLICES {
        for ((&level, &rounds), peak) in levels.iter().zip(&rounds).zip(&mut peaks) {
            *peak = f64::max(*peak, timed(rounds, &|rounds| work(level, precision, rounds)));
        }
    }
    peaks
}

/// This thread's rate in FLOP/s.
fn rate(level: Level, precision: Precision) -> f64 {
    let work = |rounds| work(level, precision, rounds);
    let rounds = rounds(SLICE, &work);
    (0..SLICES).map(|_| timed(rounds, &work)).fold(0.0, f64::max)
}

/// A number of rounds that takes at least half of the given time.
fn rounds(seconds: f64, work: &dyn Fn(u64) -> u64) -> u64 {
    let mut rounds = 1000;
    while {
        let start = Instant::now();
        work(rounds);
        start.elapsed().as_secs_f64() < seconds / 2.0
    } {
        rounds *= 2;
    }
    rounds
}

/// Runs some rounds and returns the rate in FLOP/s.
fn timed(rounds: u64, work: &dyn Fn(u64) -> u64) -> f64 {
    let start = Instant::now();
    work(rounds) as f64 / start.elapsed().as_secs_f64()
}

/// Runs some rounds of multiply-adds; returns the FLOPs.
fn work(level: Level, precision: Precision, rounds: u64) -> u64 {
    assert!(level <= Level::detect(), "peak of {} on a machine without it", level.name());
    match (level, precision) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the tiles, as just asserted; they are configured first.
        (Level::Amx, Precision::BF16) => unsafe {
            use super::amx_tiles::{Hardware, Tiles};
            Hardware::configure();
            Hardware::spin(rounds);
            Hardware::release();
            rounds * 4 * 16 * 16 * 32 * 2
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the level, as just asserted.
        (Level::Avx512BF16, Precision::BF16) => unsafe { super::avx512::spin_bf16(rounds) },
        (_, Precision::Int8) => work_int8(Int8::of(level), rounds),
        _ => level.run(Spin(rounds)),
    }
}

/// Runs some rounds of int8 multiply-adds; returns their operations.
fn work_int8(instructions: Int8, rounds: u64) -> u64 {
    // SAFETY: the machine has the instructions; tiles are configured first.
    unsafe {
        match instructions {
            Int8::Portable => super::portable::spin_int8(rounds),
            #[cfg(target_arch = "aarch64")]
            Int8::Dot => super::neon::spin_int8(rounds),
            #[cfg(target_arch = "x86_64")]
            Int8::Avx2 => super::avx2::spin_int8(rounds),
            #[cfg(target_arch = "x86_64")]
            Int8::AvxVnni => super::avx2::spin_vnni(rounds),
            #[cfg(target_arch = "x86_64")]
            Int8::Avx512Vnni => super::avx512::spin_int8(rounds),
            #[cfg(target_arch = "x86_64")]
            Int8::Tiles => {
                use super::amx_tiles::{Hardware, Tiles};
                Hardware::configure();
                Hardware::spin_int8(rounds);
                Hardware::release();
                rounds * 4 * 16 * 16 * 64 * 2
            }
        }
    }
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
