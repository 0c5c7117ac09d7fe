//! A packed batch.

use std::ops::Range;

/// S sequences laid end to end: T tokens in all, M of them predicted. No padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[T]` input ids, after masking.
    pub ids: Vec<i32>,
    /// `[T]` 0 for \[CLS\] A \[SEP\], 1 for B \[SEP\].
    pub segments: Vec<i32>,
    /// `[S+1]` where each sequence begins; the last is T.
    pub cu_seqlens: Vec<i32>,
    /// `[M]` rows in `0..T` whose token is to be predicted, ascending.
    pub mlm_rows: Vec<i32>,
    /// `[M]` the token that stood there.
    pub mlm_labels: Vec<i32>,
    /// `[S]` 0: B continues A; 1: B is of another document. Empty when there are no pairs.
    pub nsp_labels: Vec<i32>,
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

    /// Number of predicted tokens, M. Zero only if the text of every sequence is nothing but special tokens.
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

    /// Where in `mlm_rows` the predictions of sequence `sequence` lie.
    pub fn prediction_range(&self, sequence: usize) -> Range<usize> {
        let rows = self.rows(sequence);
        let before = |end: usize| self.mlm_rows.partition_point(|&row| (row as usize) < end);
        before(rows.start)..before(rows.end)
    }
}
