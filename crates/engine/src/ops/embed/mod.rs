//! Embeddings (Devlin et al. 2019, figure 2): y\[t\] = word[id\[t\]] + position[pos\[t\]] + segment[seg\[t\]],
//! where models without a table of positions or segments leave out that term.
//!
//! Backward: each row of a table gets the sum of the gradients of the tokens that use it; padding rows get none.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{DType, Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// The embedding tables, [V, H], [P, H] and [G, H].
#[derive(Clone, Copy, Debug)]
pub struct EmbedTables {
    /// One row per vocabulary entry.
    pub word: ParamId,
    /// One row per position; some models have none.
    pub position: Option<ParamId>,
    /// One row per segment (token type); some models have none.
    pub segment: Option<ParamId>,
    /// The row of `word` that gets no gradient (`padding_idx` of PyTorch's `Embedding`).
    pub word_padding: Option<u32>,
    /// The row of `position` that gets no gradient.
    pub position_padding: Option<u32>,
}

impl EmbedTables {
    /// These tables, without padding rows.
    pub fn new(word: ParamId, position: Option<ParamId>, segment: Option<ParamId>) -> EmbedTables {
        EmbedTables { word, position, segment, word_padding: None, position_padding: None }
    }
}

/// The indices of a packed batch's tokens, \[T\] each.
#[derive(Clone)]
pub struct EmbedIndices {
    pub(crate) ids: Tensor,
    pub(crate) positions: Tensor,
    pub(crate) segments: Tensor,
}

impl EmbedIndices {
    /// Each table, the indices into it, and the row that gets no gradient.
    fn with_tables(&self, tables: EmbedTables) -> [(Option<ParamId>, &Tensor, Option<u32>); 3] {
        [
            (Some(tables.word), &self.ids, tables.word_padding),
            (tables.position, &self.positions, tables.position_padding),
            (tables.segment, &self.segments, None),
        ]
    }
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

/// The sum of the word, position and segment embeddings of T tokens. The indices are \[T\] each; returns [T, H]. The
/// indices of a missing table are not read. Panics on an index outside its table.
pub fn embed(pass: &mut Pass<'_>, ids: &Tensor, positions: &Tensor, segments: &Tensor, tables: EmbedTables) -> Var {
    let indices = EmbedIndices { ids: ids.clone(), positions: positions.clone(), segments: segments.clone() };
    let value = pass.device().backend().embed(&indices, pass.parameters(), tables, pass.precision());
    let used: Vec<ParamId> = [Some(tables.word), tables.position, tables.segment].into_iter().flatten().collect();
    let count = used.len();
    let (bytes, rows) = (value.bytes(), count * 4 * value.count());
    pass.costs(Cost::new(0, bytes + rows), Cost::new(0, bytes + 2 * rows));
    pass.uses(&used);
    pass.record("embed", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else {
                return;
            };
            backward.device.backend().embed_backward(&indices, &gradient, backward.params, tables, backward.grads);
        })
    })
}

/// Panics on an index outside its table.
fn check_indices(indices: &EmbedIndices, params: &Parameters, tables: EmbedTables) {
    let all = [
        (Some(tables.word), &indices.ids, "word"),
        (tables.position, &indices.positions, "position"),
        (tables.segment, &indices.segments, "segment"),
    ];
    for (table, indices, name) in all {
        let Some(table) = table else { continue };
        let rows = params.shape(table)[0];
        if let Some(bad) = indices.slice::<i32>().iter().find(|i| !(0..rows as i32).contains(*i)) {
            panic!("embed: {name} index {bad} is outside of a table of {rows} rows");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, devices};

    #[test]
    fn embed_matches_its_oracle() {
        for (tokens, hidden) in [(1, 1), (7, 33), (70, 130), (200, 264)] {
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
                    embed(pass, &i, &o, &s, EmbedTables::new(p[0], Some(p[1]), Some(p[2])))
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

    #[test]
    fn embed_without_segments_matches_its_oracle() {
        let (ids, positions, hidden) = ([3, 0, 3, 4], [0, 1, 2, 0], 33);
        check_op(
            "embed",
            &[],
            &[("word", &[5, hidden]), ("position", &[3, hidden])],
            |pass, _, p| {
                let [i, o, s] = [ids, positions, [9; 4]].map(|v| pass.device().tensor_i32(&v, &[4]));
                embed(pass, &i, &o, &s, EmbedTables::new(p[0], Some(p[1]), None))
            },
            |_, p| {
                let row = |table: usize, r: i32, h: usize| p[table][r as usize * hidden + h];
                (0..4 * hidden)
                    .map(|i| (i / hidden, i % hidden))
                    .map(|(t, h)| row(0, ids[t], h) + row(1, positions[t], h))
                    .collect()
            },
        );
    }

    #[test]
    fn embed_with_only_words_matches_its_oracle() {
        let (ids, hidden) = ([3, 0, 3, 4], 33);
        check_op(
            "embed",
            &[],
            &[("word", &[5, hidden])],
            |pass, _, p| {
                let [i, o, s] = [ids, [9; 4], [9; 4]].map(|v| pass.device().tensor_i32(&v, &[4]));
                embed(pass, &i, &o, &s, EmbedTables::new(p[0], None, None))
            },
            |_, p| ids.iter().flat_map(|id| p[0][*id as usize * hidden..][..hidden].to_vec()).collect(),
        );
    }

    #[test]
    fn padding_rows_get_no_gradient() {
        for device in devices() {
            let mut builder = crate::Parameters::builder();
            let [word, position] =
                ["word", "position"].map(|name| builder.declare(name, &[3, 1], crate::Init::Zeros, true));
            let params = builder.build(&device, 0);
            let tables = EmbedTables {
                word_padding: Some(1),
                position_padding: Some(0),
                ..EmbedTables::new(word, Some(position), None)
            };
            let mut gradients = Gradients::zeros_like(&params);
            let mut pass = Pass::recording(&device, &params, &mut gradients, DType::F32, None);
            let [ids, positions] = [[1, 2, 1, 0], [0, 1, 1, 0]].map(|indices| device.tensor_i32(&indices, &[4]));
            let y = embed(&mut pass, &ids, &positions, &positions, tables);
            pass.seed_gradient(&y, device.tensor_f32(&[1.0, 2.0, 4.0, 8.0], &[4, 1]));
            pass.backward();
            assert_eq!(gradients.read(word).to_vec(), [8.0, 0.0, 2.0]);
            assert_eq!(gradients.read(position).to_vec(), [0.0, 6.0, 0.0]);
        }
    }

    /// Rows of very many tokens, added to earlier gradients. All sums are exact.
    #[test]
    fn rows_of_many_tokens_get_all_their_gradients() {
        const TOKENS: usize = 9000;
        const HIDDEN: usize = 8;
        for device in devices() {
            let mut builder = crate::Parameters::builder();
            let [word, position, segment] = ["word", "position", "segment"]
                .map(|name| builder.declare(name, &[100, HIDDEN], crate::Init::Zeros, true));
            let params = builder.build(&device, 0);
            let mut gradients = Gradients::zeros_like(&params);
            gradients.edit_all(|gradients| gradients.fill(1.0));
            let indices: [Vec<i32>; 3] =
                [64, 65, 9000].map(|step| (0..TOKENS).map(|t| (t / step % 100) as i32).collect());
            let dy: Vec<f32> = (0..TOKENS * HIDDEN).map(|i| (i * i % 17) as f32).collect();
            let mut pass = Pass::recording(&device, &params, &mut gradients, DType::F32, None);
            let [ids, positions, segments] = [0, 1, 2].map(|table| device.tensor_i32(&indices[table], &[TOKENS]));
            let tables = EmbedTables::new(word, Some(position), Some(segment));
            let y = embed(&mut pass, &ids, &positions, &segments, tables);
            pass.seed_gradient(&y, device.tensor_f32(&dy, &[TOKENS, HIDDEN]));
            pass.backward();
            for (table, indices) in [word, position, segment].into_iter().zip(&indices) {
                let mut expected = vec![1.0; 100 * HIDDEN];
                for (i, dy) in dy.iter().enumerate() {
                    expected[indices[i / HIDDEN] as usize * HIDDEN + i % HIDDEN] += dy;
                }
                assert_eq!(gradients.read(table)[..], expected, "{device:?}: {}", params.name(table));
            }
        }
    }

    /// Replaces the index 1 by an index before the start or after the end, in each table.
    #[test]
    fn an_index_out_of_range_panics() {
        for device in devices() {
            let mut builder = crate::Parameters::builder();
            let [word, position, segment] =
                ["word", "position", "segment"].map(|name| builder.declare(name, &[3, 4], crate::Init::Zeros, true));
            let params = builder.build(&device, 0);
            let run = |[word_index, position_index, segment_index]: [i32; 3]| {
                let mut pass = Pass::inference(&device, &params, crate::DType::F32);
                let [ids, positions, segments] =
                    [word_index, position_index, segment_index].map(|index| device.tensor_i32(&[0, index, 2], &[3]));
                embed(&mut pass, &ids, &positions, &segments, EmbedTables::new(word, Some(position), Some(segment)));
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
}
