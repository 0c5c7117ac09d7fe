//! What happens to texts that are longer than the maximum length: they are truncated, or read in windows whose results are pooled.
//!
//! For the windows w₁ … w_N of a text, with n_i tokens of the text (without special tokens and prompt) and the results v_i, a vector or
//! logits:
//!
//! ```text
//! mean Σ n_i v_i / Σ n_i · max max_i v_i, in each dimension
//! ```
//!
//! The windows themselves are made by [`spans`](crate::sequence): all but the last are full.

use crate::TaskError;
use crate::example::Target;

/// How texts that are longer than the maximum length are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Long {
    /// Truncated at the end, or at the beginning if the tokenizer says so, as in Transformers and sentence-transformers.
    #[default]
    Truncate,
    /// Only the first window is read: the same as truncation at the end, on purpose.
    First,
    /// In windows, whose results are averaged, weighted by their numbers of tokens of the text.
    Mean,
    /// In windows; the maximum of each dimension of their results.
    Max,
}

impl Long {
    /// All values with names and descriptions.
    pub const ALL: [(Long, &'static str, &'static str); 4] = [
        (Long::Truncate, "truncate", "They are truncated, with a warning"),
        (Long::First, "first", "Only the first window is read, without a warning"),
        (Long::Mean, "mean", "In windows: the mean of their results, weighted by their numbers of tokens"),
        (Long::Max, "max", "In windows: the maximum of each dimension of their results"),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        Long::ALL.iter().find(|(known, ..)| *known == self).map_or("", |(_, name, _)| name)
    }

    /// Whether all of a text is read, in windows.
    pub fn reads_windows(self) -> bool {
        matches!(self, Long::Mean | Long::Max)
    }

    /// Checks a stride for windows.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for a stride that is 0, or without windows.
    pub(crate) fn check_stride(self, stride: Option<usize>) -> Result<(), TaskError> {
        match stride {
            Some(0) => Err(TaskError::setting("stride", "expected at least 1 token from window to window, found 0")),
            Some(_) if !self.reads_windows() => {
                let problem = format!(
                    "has no effect with `long = {}`, which reads no windows; set `long` to mean or max",
                    self.name()
                );
                Err(TaskError::setting("stride", problem))
            }
            _ => Ok(()),
        }
    }
}

/// The pooled result of the windows of a text. The order in which windows are added is that of the text, so that the rounding is
/// always the same.
#[derive(Clone, Debug)]
pub(crate) struct PooledWindows {
    long: Long,
    /// Weighted sums, or maxima.
    values: Vec<f64>,
    weight: f64,
}

impl PooledWindows {
    pub(crate) fn new(long: Long) -> PooledWindows {
        PooledWindows { long, values: Vec::new(), weight: 0.0 }
    }

    /// Adds the result of the next window, which has `tokens` tokens of the text.
    pub(crate) fn add(&mut self, result: &[f32], tokens: usize) {
        let weight = tokens as f64;
        let is_first = self.weight == 0.0;
        self.weight += weight;
        if is_first {
            self.values = vec![if self.long == Long::Max { f64::NEG_INFINITY } else { 0.0 }; result.len()];
        }
        for (value, result) in self.values.iter_mut().zip(result) {
            let result = f64::from(*result);
            match self.long {
                // NaN is kept, so that the caller finds it.
                Long::Max if result > *value || result.is_nan() => *value = result,
                Long::Max => {}
                _ => *value += weight * result,
            }
        }
    }

    /// The pooled result; empty if no window was added.
    pub(crate) fn finish(self) -> Vec<f32> {
        let divisor = if self.long == Long::Max { 1.0 } else { self.weight };
        self.values.into_iter().map(|value| (value / divisor) as f32).collect()
    }
}

/// The windows of a text whose logits are pooled. Each window is an [`Example`](crate::Example) of its own, without the target: the network sees one
/// window at a time, so that the memory does not grow with the text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextWindows {
    long: Long,
    /// The number of tokens of the text in each window.
    tokens: Vec<usize>,
    target: Target,
}

impl TextWindows {
    /// Windows, of which `tokens` has the numbers of tokens of the text, and the target of the text.
    pub(crate) fn new(long: Long, tokens: Vec<usize>, target: Target) -> TextWindows {
        TextWindows { long, tokens, target }
    }

    /// The number of windows.
    pub fn count(&self) -> usize {
        self.tokens.len()
    }

    /// The logits of the text, from those of its windows.
    pub(crate) fn pooled(&self, logits: &[Vec<f32>]) -> Vec<f32> {
        let mut pooled = PooledWindows::new(self.long);
        logits.iter().zip(&self.tokens).for_each(|(logits, tokens)| pooled.add(logits, *tokens));
        pooled.finish()
    }

    /// The target of the text.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }
}

/// The number of long rows that were truncated or read in windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct LongRows {
    /// The number of rows.
    pub rows: usize,
    /// The number of rows that were truncated.
    pub cut: usize,
    /// The number of rows that were read in windows.
    pub windowed: usize,
    /// The number of their windows.
    pub windows: usize,
}

impl LongRows {
    /// Counts a row.
    pub(crate) fn add(&mut self, is_cut: bool, windows: Option<&TextWindows>) {
        self.rows += 1;
        self.cut += usize::from(is_cut);
        self.windowed += usize::from(windows.is_some());
        self.windows += windows.map_or(0, TextWindows::count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled(long: Long, windows: &[([f32; 2], usize)]) -> Vec<f32> {
        let mut pooled = PooledWindows::new(long);
        windows.iter().for_each(|(result, tokens)| pooled.add(result, *tokens));
        pooled.finish()
    }

    #[test]
    fn results_are_weighted_by_tokens_or_the_maximum() {
        let windows = [([1.0, -4.0], 6), ([4.0, -8.0], 2), ([-8.0, -2.0], 1)];
        assert_eq!(pooled(Long::Mean, &windows), [(6.0 + 8.0 - 8.0) / 9.0, (-24.0 - 16.0 - 2.0) / 9.0]);
        assert_eq!(pooled(Long::Max, &windows), [4.0, -2.0]);
        for long in [Long::Mean, Long::Max] {
            for damaged in [[([f32::NAN, 0.0], 3), ([1.0, 1.0], 3)], [([1.0, 0.0], 3), ([f32::NAN, 1.0], 3)]] {
                assert!(pooled(long, &damaged)[0].is_nan(), "{long:?}");
            }
        }
        assert!(pooled(Long::Mean, &[]).is_empty());
    }

    #[test]
    fn a_stride_needs_windows() {
        for (long, name, _) in Long::ALL {
            assert_eq!(long.name(), name);
            assert!(long.check_stride(None).is_ok());
            assert_eq!(long.check_stride(Some(3)).is_ok(), long.reads_windows());
            assert!(long.check_stride(Some(0)).unwrap_err().to_string().starts_with("`stride`: expected at least 1"));
        }
        let line = Long::First.check_stride(Some(3)).unwrap_err().to_string();
        assert_eq!(
            line,
            "`stride`: has no effect with `long = first`, which reads no windows; set `long` to mean or max"
        );
    }
}
