//! Embeddings (Devlin et al. 2019, figure 2): y\[t\] = word[id\[t\]] + position[pos\[t\]] + segment[seg\[t\]].
//!
//! Backward: each row of a table gets the sum of the gradients of the tokens that use it.

#[allow(unsafe_code)]
mod cpu;

use crate::profile::Cost;
use crate::{DType, Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// The three embedding tables, [V, H], [P, H] and [G, H].
#[derive(Clone, Copy, Debug)]
pub struct EmbedTables {
    /// One row per vocabulary entry.
    pub word: ParamId,
    /// One row per position.
    pub position: ParamId,
    /// One row per segment (token type).
    pub segment: ParamId,
}

/// The indices of a packed batch's tokens, \[T\] each.
#[derive(Clone)]
pub struct EmbedIndices {
    pub(crate) ids: Tensor,
    pub(crate) positions: Tensor,
    pub(crate) segments: Tensor,
}

/// The kernels of both directions.
pub(crate) trait Embed {
    /// Returns [T, H] of type `dtype`.
    fn embed(&self, indices: &EmbedIndices, params: &Parameters, tables: EmbedTables, dtype: DType) -> Tensor;
    /// Adds dy [T, H] to the gradients of the tables.
    fn embed_backward(
        &self,
        indices: &EmbedIndices,
        dy: &Tensor,
        params: &Parameters,
        tables: EmbedTables,
        grads: &mut Gradients,
    );
}

/// The sum of the word, position and segment embeddings of T tokens. The indices are \[T\] each; returns [T, H]. Panics
/// on an index outside its table.
pub fn embed(pass: &mut Pass<'_>, ids: &Tensor, positions: &Tensor, segments: &Tensor, tables: EmbedTables) -> Var {
    let indices = EmbedIndices { ids: ids.clone(), positions: positions.clone(), segments: segments.clone() };
    let value = pass.device().backend().embed(&indices, pass.parameters(), tables, pass.precision());
    let (bytes, rows) = (value.bytes(), 3 * 4 * value.count());
    pass.costs(Cost::new(0, bytes + rows), Cost::new(0, bytes + 2 * rows));
    pass.uses(&[tables.word, tables.position, tables.segment]);
    pass.record("embed", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else {
                return;
            };
            backward.device.backend().embed_backward(&indices, &gradient, backward.params, tables, backward.grads);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_op;

    #[test]
    fn embed_matches_its_oracle() {
        for (tokens, hidden) in [(1, 1), (7, 33), (70, 130)] {
            let index = |rows: usize, step: usize| (0..tokens).map(|t| (t * step + t * t) % rows).collect::<Vec<_>>();
            let (ids, positions, segments) = (index(11, 3), index(9, 1), index(2, 5));
            check_op(
                "embed",
                &[],
                &[("word", &[11, hidden]), ("position", &[9, hidden]), ("segment", &[2, hidden])],
                |pass, _, p| {
                    let tensor = |v: &[usize]| {
                        let v: Vec<i32> = v.iter().map(|i| *i as i32).collect();
                        pass.device().tensor_i32(&v, &[v.len()])
                    };
                    let (i, o, s) = (tensor(&ids), tensor(&positions), tensor(&segments));
                    embed(pass, &i, &o, &s, EmbedTables { word: p[0], position: p[1], segment: p[2] })
                },
                |_, p| {
                    let row = |table: usize, r: usize, h: usize| p[table][r * hidden + h];
                    (0..tokens * hidden)
                        .map(|i| (i / hidden, i % hidden))
                        .map(|(t, h)| row(0, ids[t], h) + row(1, positions[t], h) + row(2, segments[t], h))
                        .collect()
                },
            );
        }
    }

    /// Replaces the index 1 by an index before the start or after the end, in each table.
    #[test]
    fn an_index_out_of_range_panics() {
        let device = crate::Device::cpu(Some(1)).expect("a CPU device");
        let mut builder = crate::Parameters::builder();
        let [word, position, segment] =
            ["word", "position", "segment"].map(|name| builder.declare(name, &[3, 4], crate::Init::Zeros, true));
        let params = builder.build(&device, 0);
        let run = |[word_index, position_index, segment_index]: [i32; 3]| {
            let mut pass = Pass::inference(&device, &params, crate::DType::F32);
            let [ids, positions, segments] =
                [word_index, position_index, segment_index].map(|index| device.tensor_i32(&[0, index, 2], &[3]));
            embed(&mut pass, &ids, &positions, &segments, EmbedTables { word, position, segment });
        };
        run([1, 1, 1]);
        for table in 0..3 {
            for bad in [-1, 3] {
                let mut indices = [1; 3];
                indices[table] = bad;
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(indices)));
                let message = *outcome.expect_err("it should panic").downcast::<String>().expect("a message");
                assert!(message.ends_with(&format!("index {bad} is outside of a table of 3 rows")), "{message}");
            }
        }
    }
}
