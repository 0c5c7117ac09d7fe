//! Selects the instruction set, and the faster type of activations for it, by measuring once per process.
//!
//! The most advanced instruction set of a CPU is not always its fastest: some Intel CPUs without AMX run the dot
//! product of bf16 pairs at half the rate of f32 multiply-adds. There, bf16 operands are multiplied in f32, which gives
//! the same numbers.

use std::fmt;
use std::sync::OnceLock;

use super::gemm::{Precision, compare_peaks};
use super::level::Level;
use crate::{DType, EngineError};

/// An older instruction set, and f32, must be faster by this factor to be selected: measurements vary.
const MARGIN: f64 = 1.1;

/// An instruction set and why it was selected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub level: Level,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reason {
    /// The environment variable `CLOZE_CPU` selects it.
    Variable,
    /// The caller selects it.
    Caller,
    /// It is the only candidate.
    Best,
    /// It multiplies fastest, or no older one is faster by the margin.
    Fastest,
}

impl Choice {
    /// The level that `CLOZE_CPU` names (an empty variable counts as unset), otherwise the level that `requested`
    /// names, otherwise the fastest one.
    ///
    /// # Errors
    /// The name is unknown, or this machine does not have the level.
    pub(crate) fn select(requested: Option<&str>) -> Result<Choice, EngineError> {
        match (cloze_cpu(), requested) {
            (Some(name), _) => {
                let level = Level::from_name(&name, "CLOZE_CPU=", Level::detect())?;
                Ok(Choice { level, reason: Reason::Variable })
            }
            (None, Some(name)) => {
                let level = Level::from_name(name, "instruction set ", Level::detect())?;
                Ok(Choice { level, reason: Reason::Caller })
            }
            (None, None) => Ok(Choice::fastest()),
        }
    }

    /// The fastest level.
    fn fastest() -> Choice {
        match peaks() {
            [] => Choice { level: Level::detect(), reason: Reason::Best },
            peaks => Choice { level: fastest(peaks), reason: Reason::Fastest },
        }
    }

    /// A fixed level, without measuring.
    #[cfg(test)]
    pub(crate) fn fixed(level: Level) -> Choice {
        Choice { level, reason: Reason::Caller }
    }

    /// The faster type of activations: bf16 if its products are faster than those of f32, otherwise f32, which needs no
    /// conversion.
    pub(crate) fn precision(self) -> DType {
        faster_type(self.level, peaks())
    }

    /// Why this level is used with this type of activations, as a short text.
    pub(crate) fn explain(self, dtype: DType) -> String {
        self.explain_with(dtype, peaks())
    }

    fn explain_with(self, dtype: DType, peaks: &[(Level, f64)]) -> String {
        let reason = match self.reason {
            Reason::Variable => "the instruction set that CLOZE_CPU selects",
            Reason::Caller => "the requested instruction set",
            Reason::Best => "the best instruction set of this CPU",
            Reason::Fastest => "the fastest instruction set by measurement",
        };
        let products = match (find_peak(peaks, self.level), find_peak(peaks, Level::Avx512)) {
            (Some(bf16), Some(f32)) if self.level > Level::Avx512 => {
                format!("a core multiplies {} GFLOP/s in bf16, {} in f32", Gflops(bf16), Gflops(f32))
            }
            _ => match slower_bf16(self.level, peaks) {
                Some((level, bf16, f32)) => {
                    let name = level.name();
                    format!("a core multiplies {} GFLOP/s in f32, {} in bf16 by {name}", Gflops(f32), Gflops(bf16))
                }
                None if dtype == DType::BF16 => "it has no bf16 products: they are computed in f32".to_owned(),
                None => "it has no bf16 products".to_owned(),
            },
        };
        format!("{reason}; {products}")
    }
}

/// The value of `CLOZE_CPU`, unless it is empty.
pub(crate) fn cloze_cpu() -> Option<String> {
    let name = std::env::var_os("CLOZE_CPU").filter(|name| !name.is_empty())?;
    Some(name.to_string_lossy().into_owned())
}

/// Displays FLOP/s in units of GFLOP/s.
struct Gflops(f64);

impl fmt::Display for Gflops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0 / 1e9)
    }
}

/// The single-thread peaks of all candidate levels for bf16 operands, in FLOP/s; empty if there is only one candidate.
/// A level without bf16 products multiplies in f32, so its value is also its f32 peak. The first call measures, for a
/// few milliseconds per level.
fn peaks() -> &'static [(Level, f64)] {
    static PEAKS: OnceLock<Vec<(Level, f64)>> = OnceLock::new();
    PEAKS.get_or_init(|| {
        let levels: Vec<Level> = Level::available().filter(|level| *level >= Level::Avx2).collect();
        if levels.len() < 2 {
            return Vec::new();
        }
        let peaks = compare_peaks(&levels, Precision::BF16);
        levels.into_iter().zip(peaks).collect()
    })
}

fn find_peak(peaks: &[(Level, f64)], level: Level) -> Option<f64> {
    peaks.iter().find(|(of, _)| *of == level).map(|(_, peak)| *peak)
}

/// The last level, unless an earlier one is faster by the margin. `peaks` has at least one entry and is sorted by
/// level.
fn fastest(peaks: &[(Level, f64)]) -> Level {
    let mut chosen = peaks[peaks.len() - 1];
    for &(level, peak) in peaks.iter().rev() {
        if peak > MARGIN * chosen.1 {
            chosen = (level, peak);
        }
    }
    chosen.0
}

/// The faster type of activations at a level.
fn faster_type(level: Level, peaks: &[(Level, f64)]) -> DType {
    let has_bf16_products = level >= Level::Avx512BF16;
    match (find_peak(peaks, level), find_peak(peaks, Level::Avx512)) {
        (Some(bf16), Some(f32)) if has_bf16_products && bf16 > MARGIN * f32 => DType::BF16,
        _ => DType::F32,
    }
}

/// If a level with bf16 products was rejected because they are slow: that level, its peak, and the f32 peak of `level`.
fn slower_bf16(level: Level, peaks: &[(Level, f64)]) -> Option<(Level, f64, f64)> {
    let f32 = find_peak(peaks, level)?;
    let (rejected, bf16) = *peaks.last().filter(|(best, _)| *best >= Level::Avx512BF16 && level < Level::Avx512BF16)?;
    Some((rejected, bf16, f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    use Level::{Amx, Avx2, Avx512, Avx512BF16};

    /// Peaks of one core, measured on three kinds of CPU.
    const SLOW_PAIRS: [(Level, f64); 3] = [(Avx2, 100e9), (Avx512, 179e9), (Avx512BF16, 93e9)];
    const ZEN4: [(Level, f64); 3] = [(Avx2, 118e9), (Avx512, 118e9), (Avx512BF16, 236e9)];
    const TILES: [(Level, f64); 4] = [(Avx2, 100e9), (Avx512, 210e9), (Avx512BF16, 400e9), (Amx, 3300e9)];

    #[test]
    fn slow_bf16_products_are_not_selected() {
        assert_eq!((fastest(&SLOW_PAIRS), faster_type(Avx512, &SLOW_PAIRS)), (Avx512, DType::F32));
        assert_eq!((fastest(&ZEN4), faster_type(Avx512BF16, &ZEN4)), (Avx512BF16, DType::BF16));
        assert_eq!((fastest(&TILES), faster_type(Amx, &TILES)), (Amx, DType::BF16));
        // If `CLOZE_CPU` selects the level with slow products, they are used for bf16, but f32 is still the faster
        // type.
        assert_eq!(faster_type(Avx512BF16, &SLOW_PAIRS), DType::F32);
        assert_eq!(slower_bf16(Avx512, &SLOW_PAIRS), Some((Avx512BF16, 93e9, 179e9)));
    }

    #[test]
    fn a_small_difference_does_not_change_the_level() {
        assert_eq!(fastest(&[(Avx2, 104e9), (Avx512, 100e9)]), Avx512);
        assert_eq!(fastest(&[(Avx2, 120e9), (Avx512, 100e9)]), Avx2);
        assert_eq!(faster_type(Avx512BF16, &[(Avx512, 100e9), (Avx512BF16, 104e9)]), DType::F32);
    }

    #[test]
    fn the_choice_is_explained() {
        let explained =
            |level, reason, dtype, peaks: &[(Level, f64)]| Choice { level, reason }.explain_with(dtype, peaks);
        assert_eq!(
            explained(Avx512, Reason::Fastest, DType::F32, &SLOW_PAIRS),
            "the fastest instruction set by measurement; a core multiplies 179 GFLOP/s in f32, 93 in bf16 by avx512bf16"
        );
        assert_eq!(
            explained(Avx512BF16, Reason::Fastest, DType::BF16, &ZEN4),
            "the fastest instruction set by measurement; a core multiplies 236 GFLOP/s in bf16, 118 in f32"
        );
        assert_eq!(
            explained(Amx, Reason::Variable, DType::F32, &TILES),
            "the instruction set that CLOZE_CPU selects; a core multiplies 3300 GFLOP/s in bf16, 210 in f32"
        );
        assert_eq!(
            explained(Avx2, Reason::Best, DType::F32, &[]),
            "the best instruction set of this CPU; it has no bf16 products"
        );
        assert_eq!(
            explained(Avx2, Reason::Caller, DType::BF16, &[]),
            "the requested instruction set; it has no bf16 products: they are computed in f32"
        );
    }

    /// The measured levels are available and sorted, and each has a plausible peak.
    #[test]
    fn all_candidates_are_measured() {
        let levels: Vec<Level> = peaks().iter().map(|(level, _)| *level).collect();
        assert!(
            levels.is_sorted_by(|a, b| a < b) && levels.iter().all(|level| *level <= Level::detect()),
            "{levels:?}"
        );
        assert!(levels.is_empty() || levels.last() == Some(&Level::detect()), "{levels:?}");
        assert!(peaks().iter().all(|(_, peak)| peak.is_finite() && *peak > 1e8), "{:?}", peaks());
    }

    #[test]
    fn a_requested_level_is_used_or_rejected() {
        if cloze_cpu().is_some() {
            return; // The variable has precedence.
        }
        assert_eq!(Choice::select(Some("portable")).unwrap().level, Level::Portable);
        let unknown = Choice::select(Some("avx1024")).unwrap_err().to_string();
        assert!(unknown.starts_with("instruction set avx1024"), "{unknown}");
    }
}
