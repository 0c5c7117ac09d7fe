//! Values of options, as the parser reads them.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Threads at most, as the engine has it.
const MOST_THREADS: usize = 1024;
/// Runs of one command at most.
const MOST_SEEDS: usize = 10_000;
/// Items that are shown or drawn together at most.
const MOST_ITEMS: usize = 1_000_000;

/// Parses a count from one up to `most`.
fn count(text: &str, most: usize) -> Result<usize, String> {
    positive(text).ok().filter(|value| *value <= most).ok_or_else(|| format!("must be a whole number from 1 to {most}"))
}

/// Parses a number of threads.
pub fn threads(text: &str) -> Result<usize, String> {
    count(text, MOST_THREADS)
}

/// Parses a number of seeds.
pub fn seeds(text: &str) -> Result<usize, String> {
    count(text, MOST_SEEDS)
}

/// Parses how many of something are held in memory together.
pub fn items(text: &str) -> Result<usize, String> {
    count(text, MOST_ITEMS)
}

/// As [`items`], or none.
pub fn items_or_none(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { count(text, MOST_ITEMS) }
}

/// Parses a count of at least one.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(value) => Ok(value),
        Err(_) => Err("must be a whole number of at least 1".into()),
    }
}

/// Parses a share from 0 to below 1.
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("must be a number of at least 0 and below 1".into()),
    }
}

/// Parses the name of one of some values: value, name and what it means, as the libraries list them.
pub fn named<T>(all: &'static [(T, &'static str, &'static str)]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync,
{
    let names = all.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names)
        .try_map(|chosen| all.iter().find(|(_, name, _)| *name == chosen).map(|(value, ..)| *value).ok_or("not a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that were allocated before they were looked at: `finetune --seeds 4294967296`, `prepare --workers 2147483648`.
    #[test]
    fn reliability_7b_absurd_counts_are_refused() {
        assert_eq!(threads("1025"), Err("must be a whole number from 1 to 1024".to_owned()));
        for absurd in ["4294967296", "9223372036854775807", "18446744073709551616", "0", "-1"] {
            for read in [threads, seeds, items] {
                assert!(read(absurd).is_err(), "{absurd}");
            }
        }
        assert!(items_or_none("4294967296").is_err());
    }

    #[test]
    fn counts_and_shares_are_checked() {
        assert_eq!(positive("3"), Ok(3));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
        assert_eq!((threads("1024"), seeds("5"), items_or_none("0")), (Ok(1024), Ok(5), Ok(0)));
        assert_eq!(fraction("0.05"), Ok(0.05));
        assert!(fraction("1").is_err() && fraction("-0.1").is_err() && fraction("NaN").is_err());
    }
}
