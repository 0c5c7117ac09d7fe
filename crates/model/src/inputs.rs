//! The packed batch of input tokens, and the labels for pre-training.

/// S sequences end to end: T tokens in total, without padding and without an attention mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// `[T]` token ids.
    pub ids: Vec<i32>,
    /// `[T]` position of each token in its sequence.
    pub positions: Vec<i32>,
    /// `[T]` segment of each token: 0, or 1 for the second text of a pair.
    pub segments: Vec<i32>,
    /// `[S+1]` the first token of each sequence, then T.
    pub cu_seqlens: Vec<i32>,
}

impl Default for Inputs {
    fn default() -> Inputs {
        Inputs { ids: Vec::new(), positions: Vec::new(), segments: Vec::new(), cu_seqlens: vec![0] }
    }
}

impl Inputs {
    /// Adds a sequence: token ids, and the segment of each. Panics if their numbers differ.
    pub fn push(&mut self, ids: &[u32], segments: &[u8]) {
        assert_eq!(ids.len(), segments.len(), "a segment for each id");
        self.ids.extend(ids.iter().map(|&id| id as i32));
        self.segments.extend(segments.iter().map(|&segment| i32::from(segment)));
        self.end_sequence(ids.len());
    }

    /// A batch of sequences that are already packed: `[T]` ids, `[T]` segments, `[S+1]` first tokens. Ids and segments
    /// are moved, not copied.
    pub fn packed(ids: Vec<i32>, segments: Vec<i32>, cu_seqlens: &[i32]) -> Inputs {
        let mut inputs = Inputs { positions: Vec::with_capacity(ids.len()), ids, segments, ..Inputs::default() };
        for pair in cu_seqlens.windows(2) {
            inputs.end_sequence((pair[1] - pair[0]) as usize);
        }
        inputs
    }

    /// Adds the positions and the end of a sequence whose ids and segments were added.
    fn end_sequence(&mut self, length: usize) {
        self.positions.extend(0..length as i32);
        self.cu_seqlens.push(self.positions.len() as i32);
    }

    /// Number of tokens, T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences, S.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Lengths of the sequences, `[S]`.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.cu_seqlens.windows(2).map(|pair| (pair[1] - pair[0]) as usize)
    }

    /// The index of the last token of each sequence: `[S]`.
    pub fn last_tokens(&self) -> Vec<i32> {
        self.cu_seqlens[1..].iter().map(|end| end - 1).collect()
    }

    /// The index of the first token, `[CLS]`, of each sequence: `[S]`.
    pub fn cls_tokens(&self) -> &[i32] {
        &self.cu_seqlens[..self.sequences()]
    }
}

/// Labels of a batch for pre-training.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PretrainLabels {
    /// `[M]` indices in `0..T` of the tokens to predict, ascending.
    pub mlm_rows: Vec<i32>,
    /// `[M]` the token ids to predict there.
    pub mlm_labels: Vec<i32>,
    /// `[S]` 0 if the second text follows the first, 1 if it does not. Empty if there are no pairs.
    pub nsp_labels: Vec<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_restart_with_each_sequence() {
        let mut pushed = Inputs::default();
        pushed.push(&[2, 9, 3], &[0, 0, 0]);
        pushed.push(&[2, 4, 3, 30, 3], &[0, 0, 0, 1, 1]);
        assert_eq!(pushed.positions, [0, 1, 2, 0, 1, 2, 3, 4]);
        assert_eq!((pushed.tokens(), pushed.sequences(), pushed.cls_tokens()), (8, 2, &[0, 3][..]));
        assert_eq!((pushed.lengths().collect::<Vec<_>>(), pushed.last_tokens()), (vec![3, 5], vec![2, 7]));
        let packed = Inputs::packed(pushed.ids.clone(), pushed.segments.clone(), &pushed.cu_seqlens);
        assert_eq!(packed, pushed);
        assert_eq!(Inputs::packed(vec![], vec![], &[0]), Inputs::default());
    }
}
