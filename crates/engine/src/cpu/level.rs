//! The CPU's instruction sets: detection, and compiling a function body for each of them. `choice` selects the one that
//! is used.
//!
//! Rust compiles a function for an instruction set only if it has `#[target_feature]`, and inlines into it only code
//! that is `#[inline(always)]`. So an element-wise body is written once, as a [`Vectorized`] value whose `call` is
//! inlined into one such function per instruction set ([`Isa::vectorize`]). [`Level::run`] selects the function at run
//! time.

use std::cmp::Ordering;
use std::sync::OnceLock;

use crate::EngineError;
use crate::dtype::{Real, bf16, rounded_to_bf16};

/// Number of f32 in the widest vector.
pub(crate) const LANES: usize = 16;
/// Sixteen numbers, meant to be kept in registers.
pub(crate) type Lanes = [f32; LANES];

/// An instruction set. A smaller level is included in a larger one. Levels of different architectures are not ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// The baseline of the compiler's target (SSE2 on x86-64, NEON on aarch64).
    Portable,
    /// NEON kernels; every aarch64 CPU has NEON.
    Neon,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 and its dot product of bf16 pairs (Zen 4, Cooper Lake and later).
    Avx512BF16,
    /// AVX-512 BF16 and the bf16 matrix tiles (AMX-TILE, AMX-BF16).
    Amx,
}

impl Level {
    /// All levels; each comes after those that it includes.
    pub const ALL: [Level; 6] =
        [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512, Level::Avx512BF16, Level::Amx];

    /// The best level of this machine. The first call requests the tile state from the kernel; the result is cached.
    pub fn detect() -> Level {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(detect_best)
    }

    /// The levels of this machine; each comes after those that it includes.
    pub(crate) fn available() -> impl DoubleEndedIterator<Item = Level> {
        Level::ALL.into_iter().filter(|level| *level <= Level::detect())
    }

    /// The level with this name: `amx`, `avx512bf16`, `avx512`, `avx2`, `neon` or `portable`. Errors start with
    /// `origin`: where the name came from.
    ///
    /// # Errors
    /// The name is unknown, or the level is above `best`, that of the machine.
    pub fn from_name(name: &str, origin: &'static str, best: Level) -> Result<Level, EngineError> {
        let requested = Level::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| EngineError::UnknownLevel { origin, found: name.to_owned() })?;
        if requested <= best {
            Ok(requested)
        } else {
            Err(EngineError::UnavailableLevel { origin, requested: requested.name(), available: best.name() })
        }
    }

    /// The level's name, as in `CLOZE_CPU`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512BF16 => "avx512bf16",
            Level::Amx => "amx",
        }
    }

    /// Runs `body` compiled for this level; for [`Level::Amx`] it is compiled for [`Level::Avx512BF16`].
    ///
    /// # Panics
    /// The machine does not have this level.
    #[inline]
    pub fn run<F: Vectorized>(self, body: F) -> F::Output {
        assert!(self <= Level::detect(), "level {} on a machine of level {}", self.name(), Level::detect().name());
        // SAFETY: the machine has this level, as just asserted.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Level::Amx | Level::Avx512BF16 => Avx512BF16::vectorize(body),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => Avx512::vectorize(body),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => Avx2::vectorize(body),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => Neon::vectorize(body),
                _ => Portable::vectorize(body),
            }
        }
    }
}

/// The instructions with which a level multiplies int8. Some levels have several, or none of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Int8 {
    /// Those of the baseline.
    Portable,
    /// `sdot` of NEON (the extension dotprod).
    #[cfg(target_arch = "aarch64")]
    Dot,
    /// AVX2's products of bytes, in 16 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// `vpdpbusd` of 32 bytes (AVX-VNNI).
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// `vpdpbusd` of 64 bytes (AVX-512 VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// `tdpbssd` (AMX-INT8).
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Int8 {
    /// The fastest instructions of this machine that belong to a level, which it has.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of(level: Level) -> Int8 {
        match level {
            Level::Amx if has_int8_tiles() => Int8::Tiles,
            Level::Amx | Level::Avx512BF16 | Level::Avx512 if is_x86_feature_detected!("avx512vnni") => {
                Int8::Avx512Vnni
            }
            Level::Portable | Level::Neon => Int8::Portable,
            _ if is_x86_feature_detected!("avxvnni") => Int8::AvxVnni,
            _ => Int8::Avx2,
        }
    }

    /// The fastest instructions of this machine that belong to a level, which it has.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn of(level: Level) -> Int8 {
        match level {
            Level::Neon if std::arch::is_aarch64_feature_detected!("dotprod") => Int8::Dot,
            _ => Int8::Portable,
        }
    }

    /// The instructions of the baseline.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(crate) fn of(_: Level) -> Int8 {
        Int8::Portable
    }
}

/// Whether the CPU's tiles multiply int8. The result is cached: `cpuid` is slow on virtual machines.
#[cfg(target_arch = "x86_64")]
fn has_int8_tiles() -> bool {
    static INT8: OnceLock<bool> = OnceLock::new();
    *INT8.get_or_init(|| std::arch::x86_64::__cpuid_count(7, 0).edx & 1 << 25 != 0)
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Level) -> Option<Ordering> {
        let x86 = |level| !matches!(level, Level::Portable | Level::Neon);
        match (*self, *other) {
            (Level::Neon, level) | (level, Level::Neon) if x86(level) => None,
            (level, other) => Some((level as u8).cmp(&(other as u8))),
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect_best() -> Level {
    Level::Portable
}

#[cfg(target_arch = "aarch64")]
fn detect_best() -> Level {
    Level::Neon
}

#[cfg(target_arch = "x86_64")]
fn detect_best() -> Level {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return Level::Portable;
    }
    let wide = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match wide {
        false => Level::Avx2,
        true if !is_x86_feature_detected!("avx512bf16") => Level::Avx512,
        true if enable_tiles() => Level::Amx,
        true => Level::Avx512BF16,
    }
}

/// Enables the bf16 tiles for this process. Returns false if the CPU does not have them or the operating system
/// refuses.
#[cfg(target_arch = "x86_64")]
pub(crate) fn enable_tiles() -> bool {
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
    features & TILE_AND_BF16 == TILE_AND_BF16 && request_tile_state()
}

/// Requests the tile state from Linux, which does not grant it by default: `arch_prctl(ARCH_REQ_XCOMP_PERM,
/// XFEATURE_XTILEDATA)`.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn request_tile_state() -> bool {
    let outcome: i64;
    // SAFETY: system call 158 with two integers; the kernel does not access memory of this process, and clobbers rcx
    // and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") 158i64 => outcome,
            in("rdi") 0x1023,
            in("rsi") 18,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    outcome == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn request_tile_state() -> bool {
    false
}

/// An element-wise function body that is compiled for every level; like `pulp::WithSimd`.
pub trait Vectorized {
    /// What the body returns.
    type Output;
    /// The body. Implementations must be `#[inline(always)]`, and so must everything in it that should be vectorised.
    /// Closures are compiled for the baseline unless they are inlined too.
    fn call<I: Isa>(self) -> Self::Output;
}

/// A level known at compile time.
pub trait Isa: Copy + Send + Sync + 'static {
    /// Whether a fused multiply-add is one instruction.
    const FMA: bool;
    /// The level as a run-time value.
    const LEVEL: Level;

    /// Runs `body` in a function that is compiled with this level's target features.
    ///
    /// # Safety
    /// The machine has this level.
    unsafe fn vectorize<F: Vectorized>(body: F) -> F::Output;

    /// Rounds 32 consecutive f32 to bf16, two per word, the first in the lower half.
    ///
    /// # Safety
    /// The machine has this level; 32 f32 can be read.
    #[inline(always)]
    unsafe fn to_bf16_pairs(from: *const f32) -> [u32; LANES] {
        let mut words = [0; LANES];
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: i < 16, so the indices are below 32.
            let [low, high] = unsafe { [rounded_to_bf16(*from.add(2 * i)), rounded_to_bf16(*from.add(2 * i + 1))] };
            *word = low >> 16 | high & 0xffff_0000;
        }
        words
    }

    /// Writes a cache line with a non-temporal store: the line is not read first and does not evict others. Other
    /// threads see it after the end of the pool's task.
    ///
    /// # Safety
    /// The machine has this level; `to` is aligned to 64 bytes and can be written.
    #[inline(always)]
    unsafe fn stream_line(line: [u32; LANES], to: *mut [u32; LANES]) {
        // SAFETY: the caller vouches for `to`.
        unsafe { to.write(line) }
    }

    /// Rounds sixteen f32 to bf16.
    ///
    /// # Safety
    /// The machine has this level.
    #[inline(always)]
    unsafe fn to_bf16(x: &Lanes) -> [bf16; LANES] {
        let mut rounded = [bf16::ZERO; LANES];
        for (rounded, x) in rounded.iter_mut().zip(x) {
            *rounded = Real::from_f32(*x);
        }
        rounded
    }

    /// The lane-wise maximum: `y`, unless `x` is greater.
    ///
    /// # Safety
    /// The machine has this level.
    #[inline(always)]
    unsafe fn max(x: &Lanes, y: &Lanes) -> Lanes {
        let mut max = *y;
        for (max, x) in max.iter_mut().zip(x) {
            *max = if *x > *max { *x } else { *max };
        }
        max
    }

    /// The sum of sixteen numbers, added pairwise by halves.
    ///
    /// # Safety
    /// The machine has this level.
    #[inline(always)]
    unsafe fn reduce_sum(x: &Lanes) -> f32 {
        fold(*x, |x, y| x + y)
    }

    /// The maximum of sixteen numbers, by halves.
    ///
    /// # Safety
    /// The machine has this level.
    #[inline(always)]
    unsafe fn reduce_max(x: &Lanes) -> f32 {
        fold(*x, |x, y| if y > x { y } else { x })
    }
}

/// Reduces all lanes to one number, by halves.
#[inline(always)]
fn fold(mut lanes: Lanes, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] = combine(lanes[l], lanes[l + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// [`fold`] with vector instructions; the compiler generates scalar code for it.
#[cfg(target_arch = "x86_64")]
macro_rules! fold_256 {
    ($x:expr, $add:ident, $add_128:ident) => {{
        use std::arch::x86_64::*;
        let x: *const f32 = $x.as_ptr();
        // SAFETY: the caller vouches for the level; sixteen numbers are read.
        unsafe {
            let eight = $add(_mm256_loadu_ps(x), _mm256_loadu_ps(x.add(8)));
            let four = $add_128(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = $add_128(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32($add_128(two, _mm_movehdup_ps(two)))
        }
    }};
}

/// The reductions of the levels with AVX2.
#[cfg(target_arch = "x86_64")]
macro_rules! reductions {
    () => {
        #[inline(always)]
        unsafe fn reduce_sum(x: &Lanes) -> f32 {
            fold_256!(x, _mm256_add_ps, _mm_add_ps)
        }

        #[inline(always)]
        unsafe fn reduce_max(x: &Lanes) -> f32 {
            fold_256!(x, _mm256_max_ps, _mm_max_ps)
        }
    };
}

/// Shared by the levels with AVX-512.
#[cfg(target_arch = "x86_64")]
macro_rules! avx512 {
    () => {
        #[inline(always)]
        unsafe fn stream_line(line: [u32; LANES], to: *mut [u32; LANES]) {
            use std::arch::x86_64::{_mm512_loadu_si512, _mm512_stream_si512};
            // SAFETY: the caller vouches for the level and `to`.
            unsafe { _mm512_stream_si512(to.cast(), _mm512_loadu_si512(line.as_ptr().cast())) }
        }

        #[inline(always)]
        unsafe fn max(x: &Lanes, y: &Lanes) -> Lanes {
            use std::arch::x86_64::{_mm512_loadu_ps, _mm512_max_ps};
            // SAFETY: the caller vouches for the level; sixteen numbers of each are read.
            unsafe { std::mem::transmute(_mm512_max_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(y.as_ptr()))) }
        }

        reductions!();
    };
}

/// [`Level::Portable`] at compile time.
#[derive(Clone, Copy)]
pub struct Portable;

impl Isa for Portable {
    // The aarch64 baseline has FMA; on x86-64 only if the build targets a newer CPU.
    const FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
    const LEVEL: Level = Level::Portable;

    #[inline]
    unsafe fn vectorize<F: Vectorized>(body: F) -> F::Output {
        body.call::<Portable>()
    }
}

/// [`Level::Neon`] at compile time.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub struct Neon;

#[cfg(target_arch = "aarch64")]
impl Isa for Neon {
    const FMA: bool = true;
    const LEVEL: Level = Level::Neon;

    // NEON is part of the baseline: no features need to be enabled.
    #[inline]
    unsafe fn vectorize<F: Vectorized>(body: F) -> F::Output {
        body.call::<Neon>()
    }
}

/// [`Level::Avx2`] at compile time.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Isa for Avx2 {
    const FMA: bool = true;
    const LEVEL: Level = Level::Avx2;

    #[inline]
    unsafe fn vectorize<F: Vectorized>(body: F) -> F::Output {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<F: Vectorized>(body: F) -> F::Output {
            body.call::<Avx2>()
        }
        // SAFETY: the caller vouches for the level.
        unsafe { compiled(body) }
    }

    #[inline(always)]
    unsafe fn max(x: &Lanes, y: &Lanes) -> Lanes {
        use std::arch::x86_64::{_mm256_loadu_ps, _mm256_max_ps};
        // SAFETY: the caller vouches for the level; both halves of each are read.
        unsafe {
            std::mem::transmute([0, 8].map(|half| {
                _mm256_max_ps(_mm256_loadu_ps(x.as_ptr().add(half)), _mm256_loadu_ps(y.as_ptr().add(half)))
            }))
        }
    }

    reductions!();
}

/// [`Level::Avx512`] at compile time.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Isa for Avx512 {
    const FMA: bool = true;
    const LEVEL: Level = Level::Avx512;

    #[inline]
    unsafe fn vectorize<F: Vectorized>(body: F) -> F::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn compiled<F: Vectorized>(body: F) -> F::Output {
            body.call::<Avx512>()
        }
        // SAFETY: the caller vouches for the level.
        unsafe { compiled(body) }
    }

    avx512!();
}

/// [`Level::Avx512BF16`] at compile time; also [`Level::Amx`], except for its tiles.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512BF16;

#[cfg(target_arch = "x86_64")]
impl Isa for Avx512BF16 {
    const FMA: bool = true;
    const LEVEL: Level = Level::Avx512BF16;

    #[inline]
    unsafe fn vectorize<F: Vectorized>(body: F) -> F::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        fn compiled<F: Vectorized>(body: F) -> F::Output {
            body.call::<Avx512BF16>()
        }
        // SAFETY: the caller vouches for the level.
        unsafe { compiled(body) }
    }

    /// One instruction, which treats subnormals as zeros. The products that use these pairs do the same.
    #[inline(always)]
    unsafe fn to_bf16_pairs(from: *const f32) -> [u32; LANES] {
        use std::arch::x86_64::{_mm512_cvtne2ps_pbh, _mm512_loadu_ps};
        // SAFETY: the caller vouches for the level and the elements.
        unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(16)), _mm512_loadu_ps(from))) }
    }

    /// One instruction; treats subnormals as zeros, as [`Isa::to_bf16_pairs`] here.
    #[inline(always)]
    unsafe fn to_bf16(x: &Lanes) -> [bf16; LANES] {
        use std::arch::x86_64::{_mm512_cvtneps_pbh, _mm512_loadu_ps};
        // SAFETY: the caller vouches for the level; sixteen elements are read.
        unsafe { std::mem::transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr()))) }
    }

    avx512!();
}

/// `a·b + c`, fused if that is one instruction (otherwise `f32::mul_add` would be a slow library call).
#[inline(always)]
pub fn mul_add<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
    if I::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Prefetches a cache line into L2. The address may be invalid.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64; a prefetch does not access memory.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_by_name_or_rejected() {
        assert_eq!(Level::from_name("avx2", "CLOZE_CPU=", Level::Amx).unwrap(), Level::Avx2);
        assert_eq!(Level::from_name("portable", "CLOZE_CPU=", Level::Portable).unwrap(), Level::Portable);
        let unknown = Level::from_name("avx1024", "CLOZE_CPU=", Level::Amx).unwrap_err().to_string();
        assert!(unknown.contains("avx1024") && unknown.contains("portable"), "{unknown}");
        let unavailable = Level::from_name("amx", "CLOZE_CPU=", Level::Avx2).unwrap_err().to_string();
        assert!(unavailable.contains("amx") && unavailable.contains("avx2"), "{unavailable}");
    }

    #[test]
    fn a_level_of_another_architecture_is_rejected() {
        assert_eq!(Level::from_name("neon", "CLOZE_CPU=", Level::Neon).unwrap(), Level::Neon);
        assert_eq!(Level::from_name("portable", "CLOZE_CPU=", Level::Neon).unwrap(), Level::Portable);
        for (requested, best) in [("neon", Level::Amx), ("neon", Level::Portable), ("avx2", Level::Neon)] {
            let unavailable = Level::from_name(requested, "CLOZE_CPU=", best).unwrap_err().to_string();
            assert!(unavailable.contains(requested) && unavailable.contains(best.name()), "{unavailable}");
        }
    }

    struct Sum<'a>(&'a [f32]);
    impl Vectorized for Sum<'_> {
        type Output = (f32, Level);
        #[inline(always)]
        fn call<I: Isa>(self) -> (f32, Level) {
            (self.0.iter().fold(0.0, |sum, &x| mul_add::<I>(x, 2.0, sum)), I::LEVEL)
        }
    }

    #[test]
    fn every_available_level_runs_the_body_compiled_for_it() {
        for level in Level::available() {
            let (sum, ran) = level.run(Sum(&[1.0, 2.0, 3.0]));
            assert_eq!(sum, 12.0);
            assert_eq!(ran, if level == Level::Amx { Level::Avx512BF16 } else { level });
        }
    }

    struct Reduce(Lanes, Lanes);
    impl Vectorized for Reduce {
        type Output = (Lanes, f32, f32);
        #[inline(always)]
        fn call<I: Isa>(self) -> Self::Output {
            // SAFETY: run at an available level.
            unsafe { (I::max(&self.0, &self.1), I::reduce_sum(&self.0), I::reduce_max(&self.0)) }
        }
    }

    /// Results must be identical to the bit: the order of summation is part of their definition.
    #[test]
    fn reductions_are_identical_at_every_level() {
        let lanes = |seed: usize| std::array::from_fn(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 * 1.37 - 700.0);
        for seed in 0..20 {
            let (mut x, y): (Lanes, Lanes) = (lanes(seed), lanes(seed + 50));
            let expected = Level::Portable.run(Reduce(x, y));
            assert_eq!(expected.2, x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            x[seed % 16] = f32::NAN;
            let with_nan = Level::Portable.run(Reduce(x, y)).0;
            assert_eq!(with_nan[seed % 16], y[seed % 16], "NaN is never the maximum");
            for level in Level::available() {
                assert_eq!(level.run(Reduce(lanes(seed), y)), expected, "{level:?}");
                assert_eq!(level.run(Reduce(x, y)).0, with_nan, "{level:?}");
            }
        }
    }
}
