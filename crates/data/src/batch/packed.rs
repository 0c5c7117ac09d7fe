//! A packed batch.

use std::ops::Range;

/// S concatenated sequences with T tokens in total, of which M are predicted. There is no padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[T]` input ids, after masking.
    pub ids: Vec<i32>,
    /// `[T]` 0 for \[CLS\] A \[SEP\], 1 for B \[SEP\].
    pub segments: Vec<i32>,
    /// `[S+1]` the first row of each sequence; the last element is T.
    pub cu_seqlens: Vec<i32>,
    /// `[M]` rows in `0..T` whose token is predicted, ascending.
    pub mlm_rows: Vec<i32>,
    /// `[M]` the original ids of these rows.
    pub mlm_labels: Vec<i32>,
    /// `[S]` the label of each pair: 0 or 1, see [`PairTask`](super::PairTask). Empty without pairs.
    pub pair_labels: Vec<i32>,
}

impl Batch {
    /// Number of sequences, S.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Number of tokens, T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of predicted tokens, M. It is zero without masking, or if all tokens of every sequence are special.
    pub fn predictions(&self) -> usize {
        self.mlm_rows.len()
    }

    /// Length of each sequence, `[S]`.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.cu_seqlens.windows(2).map(|pair| (pair[1] - pair[0]) as usize)
    }

    /// The rows of sequence `sequence`, in `0..T`.
    pub fn rows(&self, sequence: usize) -> Range<usize> {
        self.cu_seqlens[sequence] as usize..self.cu_seqlens[sequence + 1] as usize
    }

    /// The range in `mlm_rows` of the predictions of sequence `sequence`.
    pub fn prediction_range(&self, sequence: usize) -> Range<usize> {
        let rows = self.rows(sequence);
        let before = |end: usize| self.mlm_rows.partition_point(|&row| (row as usize) < end);
        before(rows.start)..before(rows.end)
    }
}
