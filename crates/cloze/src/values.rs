//! Values of options, as the parser reads them.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_shares_are_checked() {
        assert_eq!(positive("3"), Ok(3));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
        assert_eq!(fraction("0.05"), Ok(0.05));
        assert!(fraction("1").is_err() && fraction("-0.1").is_err() && fraction("NaN").is_err());
    }
}
