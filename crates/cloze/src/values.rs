//! Parsers for option values.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use cloze_train::recipe::Precision;

/// Maximum number of threads, the same as the engine's.
const MAX_THREADS: usize = 1024;
/// Maximum number of runs of one command.
const MAX_SEEDS: usize = 10_000;
/// Maximum number of items held in memory together.
const MAX_ITEMS: usize = 1_000_000;

/// Parses a count from 1 to `max`.
fn count(text: &str, max: usize) -> Result<usize, String> {
    positive(text).ok().filter(|value| *value <= max).ok_or_else(|| format!("must be a whole number from 1 to {max}"))
}

/// Parses a number of threads.
pub fn threads(text: &str) -> Result<usize, String> {
    count(text, MAX_THREADS)
}

/// Parses a number of seeds.
pub fn seeds(text: &str) -> Result<usize, String> {
    count(text, MAX_SEEDS)
}

/// Parses a number of items that are held in memory together.
pub fn items(text: &str) -> Result<usize, String> {
    count(text, MAX_ITEMS)
}

/// Like [`items`], but 0 is allowed.
pub fn items_or_none(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { count(text, MAX_ITEMS) }
}

/// Parses a count of at least one.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(value) => Ok(value),
        Err(_) => Err("must be a whole number of at least 1".into()),
    }
}

/// Parses a fraction in [0, 1).
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("must be at least 0 and less than 1".into()),
    }
}

/// Parses a finite number above 0.
pub fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("must be a number above 0".into()),
    }
}

/// Parses the name of a value. `all` has the values with their names and descriptions.
pub fn named<T>(all: &'static [(T, &'static str, &'static str)]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync,
{
    let names = all.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names)
        .try_map(|given| all.iter().find(|(_, name, _)| *name == given).map(|(value, ..)| *value).ok_or("unknown name"))
}

/// Parses the precision of computations that int8 is not for: training, and the losses of pre-training.
pub fn float_precision() -> impl TypedValueParser<Value = Precision> {
    let names = Precision::ALL.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    let int8 = PossibleValue::new(INT8).hide(true);
    PossibleValuesParser::new(names.chain([int8])).try_map(|given| {
        let known = Precision::ALL.iter().find(|(_, name, _)| *name == given);
        known.map(|(precision, ..)| *precision).ok_or(
            "training and the losses of pre-training need f32 or bf16; int8 is for predictions and vectors \
             (predict, embed, similar, rerank, fill, evaluate)",
        )
    })
}

/// The name of the precision that only inference has.
const INT8: &str = "int8";

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: memory was allocated for these numbers before they were checked: `finetune --seeds 4294967296`,
    /// `prepare --workers 2147483648`.
    #[test]
    fn too_large_counts_are_refused() {
        assert_eq!(threads("1025"), Err("must be a whole number from 1 to 1024".to_owned()));
        for absurd in ["4294967296", "9223372036854775807", "18446744073709551616", "0", "-1"] {
            for read in [threads, seeds, items] {
                assert!(read(absurd).is_err(), "{absurd}");
            }
        }
        assert!(items_or_none("4294967296").is_err());
    }

    #[test]
    fn counts_and_fractions_are_parsed_and_checked() {
        assert_eq!(positive("3"), Ok(3));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
        assert_eq!((threads("1024"), seeds("5"), items_or_none("0")), (Ok(1024), Ok(5), Ok(0)));
        assert_eq!(fraction("0.05"), Ok(0.05));
        assert_eq!(above_zero("0.5"), Ok(0.5));
        assert!(above_zero("0").is_err() && above_zero("inf").is_err() && above_zero("NaN").is_err());
        assert!(fraction("1").is_err() && fraction("-0.1").is_err() && fraction("NaN").is_err());
    }
}
