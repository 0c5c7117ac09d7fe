use super::{Embed, EmbedIndices, EmbedTables, check_indices};
use crate::cuda::{Cuda, DevicePtr, Grid, Groups, args};
use crate::device::Memory;
use crate::{DType, Gradients, Parameters, Tensor};
use std::ops::Range;

/// A warp adds at most this number of rows. Where there are more, it adds their parts' sums in the same way.
const ROWS: usize = 64;
/// The number of partial sums, as that of a table.
const PARTIAL: i32 = 3;

impl Embed for Cuda {
    fn embed(&self, indices: &EmbedIndices, params: &Parameters, tables: EmbedTables, dtype: DType) -> Tensor {
        check_indices(indices, params, tables);
        let (tokens, hidden) = (indices.ids.count(), params.shape(tables.word)[1]);
        let mut y = self.empty(&[tokens, hidden], dtype);
        let [word, position, segment] = [Some(tables.word), tables.position, tables.segment]
            .map(|table| table.map_or(DevicePtr::NULL, |table| self.weights(params, table)));
        let [ids, positions, segments] =
            [&indices.ids, &indices.positions, &indices.segments].map(|indices| indices.device_ptr());
        let y_at = y.device_ptr_mut();
        let mut args = args![ids, positions, segments, word, position, segment, y_at, tokens as i32, hidden as i32];
        // SAFETY: the indices are those of rows of their tables, whose rows have H numbers; y is [T, H].
        unsafe { self.launch_of("embed_tokens", dtype, Grid::warp_for_each(tokens), &mut args) };
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
        let (_, hidden) = dy.matrix("embed_backward");
        let mut places = [DevicePtr::NULL; 3];
        let (mut tokens, mut rows) = (Vec::new(), Vec::new());
        for (number, (table, indices, padding)) in indices.with_tables(tables).into_iter().enumerate() {
            let Some(table) = table else { continue };
            let range = params.range(table);
            // Rows without tokens get zeros.
            grads.zero_untouched(&range);
            (places[number], _) = self.gradients(grads, range);
            let groups = Groups::new(indices.slice(), params.shape(table)[0], padding);
            let first = tokens.len() as i32;
            let ends = groups.starts.windows(2);
            rows.extend(groups.rows.iter().zip(ends).map(|(row, ends)| RowSum {
                table: number as i32,
                row: *row,
                items: (first + ends[0]) as usize..(first + ends[1]) as usize,
            }));
            tokens.extend(groups.items);
        }
        let sums = Sums { places, hidden };
        let list = self.tensor_i32(&tokens, &[tokens.len()]);
        let (mut rest, mut partial) = self.embed_sums(&sums, dy, Some(&list), rows);
        while let Some(x) = partial {
            (rest, partial) = self.embed_sums(&sums, &x, None, rest);
        }
    }
}

/// Where sums of the backward pass are added to.
struct Sums {
    /// The gradient of each table.
    places: [DevicePtr; 3],
    hidden: usize,
}

/// A row of a table, and what is added to it.
struct RowSum {
    table: i32,
    row: i32,
    items: Range<usize>,
}

impl Cuda {
    /// Adds rows of x (or those in a list) to rows of the tables. Where there are too many of them for one warp, returns what is left to
    /// do: to add partial sums, which it returns too.
    fn embed_sums(
        &self,
        sums: &Sums,
        x: &Tensor,
        list: Option<&Tensor>,
        rows: Vec<RowSum>,
    ) -> (Vec<RowSum>, Option<Tensor>) {
        let (mut parts, mut rest, mut partial_sums) = (Vec::new(), Vec::new(), 0);
        for RowSum { table, row, items } in rows {
            if items.len() <= ROWS {
                parts.push([items.start as i32, items.end as i32, table, row]);
                continue;
            }
            let first = partial_sums;
            for start in items.clone().step_by(ROWS) {
                parts.push([start as i32, items.end.min(start + ROWS) as i32, PARTIAL, partial_sums as i32]);
                partial_sums += 1;
            }
            rest.push(RowSum { table, row, items: first..partial_sums });
        }
        let Sums { places: [word, position, segment], hidden } = *sums;
        let mut partial = (partial_sums > 0).then(|| self.empty(&[partial_sums, hidden], DType::F32));
        let partial_at = partial.as_mut().map_or(DevicePtr::NULL, Tensor::device_ptr_mut);
        let on_device = self.tensor_i32(parts.as_flattened(), &[parts.len(), 4]);
        let (list, parts_at) = (list.map_or(DevicePtr::NULL, Tensor::device_ptr), on_device.device_ptr());
        let (count, columns) = (parts.len() as i32, hidden as i32);
        let mut args = args![x.device_ptr(), list, parts_at, count, word, position, segment, partial_at, columns];
        let grid = Grid::of([parts.len().div_ceil(4), Grid::column_blocks(hidden, x.dtype()), 1], 128);
        // SAFETY: parts are of the rows of x or of the list, whose entries are rows of x. Rows of tables were checked by the forward pass,
        // and each belongs to one part; the gradients of tables, x and the partial sums have rows of H numbers.
        unsafe { self.launch_of("embed_sums", x.dtype(), grid, &mut args) };
        (rest, partial)
    }
}
