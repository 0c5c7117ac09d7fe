use super::{Embed, EmbedIndices, EmbedTables, check_indices};
use crate::cpu::Cpu;
use crate::cpu::arena::{gradient_sums, weights};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::level::{Isa, Vectorized};
use crate::dtype::{Real, with_real};
use crate::{DType, Gradients, Parameters, Tensor};

/// Tokens per forward task.
const TOKENS: usize = 64;
/// Columns per backward task. Each task processes all tokens in order for its own columns, so that no two tasks write
/// the same element and the order of the sum is fixed.
const COLUMNS: usize = 128;

impl Embed for Cpu {
    fn embed(&self, indices: &EmbedIndices, params: &Parameters, tables: EmbedTables, dtype: DType) -> Tensor {
        let (ids, positions, segments) =
            (indices.ids.slice::<i32>(), indices.positions.slice::<i32>(), indices.segments.slice::<i32>());
        let hidden = params.shape(tables.word)[1];
        check_indices(indices, params, tables);
        let word = weights(params, tables.word);
        let [position, segment] =
            [tables.position, tables.segment].map(|table| table.map(|table| weights(params, table)));
        let mut y = Tensor::host(&[ids.len(), hidden], dtype);
        with_real!(dtype, E => {
            let parts = DisjointSlice::new(y.slice_mut::<E>());
            self.for_blocks(ids.len(), TOKENS, |tokens| {
                for t in tokens {
                    let rows = |index: i32| index as usize * hidden..(index as usize + 1) * hidden;
                    // SAFETY: each token belongs to one task.
                    let y = unsafe { parts.part(t * hidden..(t + 1) * hidden) };
                    let w = &word[rows(ids[t])];
                    let p = position.map(|position| &position[rows(positions[t])]);
                    let s = segment.map(|segment| &segment[rows(segments[t])]);
                    self.level.run(SumRows { w, p, s, y });
                }
            });
        });
        y
    }

    fn embed_backward(
        &self,
        indices: &EmbedIndices,
        dy: &Tensor,
        params: &Parameters,
        tables: EmbedTables,
        grads: &mut Gradients,
    ) {
        let (tokens, hidden) = dy.matrix("embed_backward");
        let columns: Vec<_> = indices
            .with_tables(tables)
            .into_iter()
            .filter_map(|(table, indices, padding)| Some((indices.slice::<i32>(), params.range(table?), padding)))
            .collect();
        for (_, table, _) in &columns {
            gradient_sums(grads, table.clone());
        }
        let arena = DisjointSlice::new(grads.arena_mut().slice_mut::<f32>());
        with_real!(dy.dtype(), E => {
            let dy = dy.slice::<E>();
            self.for_blocks(hidden, COLUMNS, |part| {
                for (indices, table, padding) in &columns {
                    for t in 0..tokens {
                        if padding.is_some_and(|padding| indices[t] as u32 == padding) {
                            continue;
                        }
                        let start = table.start + indices[t] as usize * hidden;
                        // SAFETY: column blocks are disjoint between tasks, and a task holds one row at a time.
                        let row = unsafe { arena.part(start + part.start..start + part.end) };
                        let dy = &dy[t * hidden + part.start..t * hidden + part.end];
                        self.level.run(AddInto { row, dy });
                    }
                }
            });
        });
    }
}

struct SumRows<'a, E> {
    w: &'a [f32],
    /// Not in all models, like `s`.
    p: Option<&'a [f32]>,
    s: Option<&'a [f32]>,
    y: &'a mut [E],
}

impl<E: Real> Vectorized for SumRows<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let words = self.y.iter_mut().zip(self.w);
        match (self.p, self.s) {
            (Some(p), Some(s)) => words.zip(p).zip(s).for_each(|(((y, w), p), s)| *y = E::from_f32(w + p + s)),
            (Some(one), None) | (None, Some(one)) => words.zip(one).for_each(|((y, w), x)| *y = E::from_f32(w + x)),
            (None, None) => words.for_each(|(y, w)| *y = E::from_f32(*w)),
        }
    }
}

struct AddInto<'a, E> {
    row: &'a mut [f32],
    dy: &'a [E],
}

impl<E: Real> Vectorized for AddInto<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        for (row, dy) in self.row.iter_mut().zip(self.dy) {
            *row += dy.to_f32();
        }
    }
}
