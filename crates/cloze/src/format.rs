//! Numbers and paths in human-readable form.

use std::path::{Path, PathBuf};

/// "512 B", "1.5 kB", "304.2 MB", "1.25 GB" (powers of 1000).
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// "1,234,567".
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "950", "12.3k", "4.5M", "1.2G".
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.1}G", value / 1e9),
        size if size >= 1e6 => format!("{:.1}M", value / 1e6),
        size if size >= 1e3 => format!("{:.1}k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

/// "0.4 s", "59 s", "2:05", "1:02:03", "12 days".
pub fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let days = seconds / 86_400.0;
    if days >= 3.0 {
        return format!("{} days", count(days.round() as u64));
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

/// "85 ms", "1.2 s": like [`duration`], with milliseconds below one second.
pub fn short_duration(seconds: f64) -> String {
    if seconds < 0.995 { format!("{:.0} ms", 1e3 * seconds) } else { duration(seconds) }
}

/// A path as a JSON string. Bytes that are not Unicode become U+FFFD.
pub fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Several paths, each as [`path`].
pub fn paths(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|one| path(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_people() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1500), "1.5 kB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(bytes(304_200_000), "304.2 MB");
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(short(12_345.0), "12.3k");
        assert_eq!(duration(0.44), "0.4 s");
        assert_eq!(short_duration(0.0849), "85 ms");
        assert_eq!(short_duration(1.24), "1.2 s");
        assert_eq!(duration(125.0), "2:05");
        assert_eq!(duration(3723.0), "1:02:03");
        assert_eq!(duration(215.2 * 86_400.0), "215 days");
    }
}
