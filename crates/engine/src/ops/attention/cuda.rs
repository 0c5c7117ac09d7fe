use std::cmp::Reverse;

use super::{Attention, AttentionInputs, Visible};
use crate::cuda::{Cuda, DevicePtr, Grid, args};
use crate::device::Memory;
use crate::{DType, Gradients, Parameters, Tensor};

/// Rows of a tile of queries or keys.
const TILE: usize = 64;
/// A tile's numbers in the kernels.
const TILE_NUMBERS: usize = 5;
/// Tiles whose gradients of the biases are summed first.
const BIAS_TILES: usize = 16;
const THREADS: u32 = 128;
/// Bytes of four numbers of each of the queries of two steps.
const STATISTICS: usize = 2 * 4 * TILE * 4;
/// A distance to earlier or later tokens that none exceeds.
const FAR: usize = 1 << 30;

impl Attention for Cuda {
    fn attention(&self, inputs: &AttentionInputs, params: &Parameters) -> (Tensor, Tensor) {
        let launch = Launch::new(self, inputs, params);
        let (queries, _) = inputs.queries().matrix("attention");
        let mut y = self.empty(&[queries, inputs.hidden()], inputs.tokens.dtype());
        let mut log_sums = self.empty(&[queries, inputs.heads], DType::F32);
        let Launch { q, q_stride, kv, kv_stride, query_tiles, biases, reach, .. } = &launch;
        let (biases, heads, scale) = (address(biases), inputs.heads as i32, launch.scale());
        let (y_at, log_sums_at) = (y.device_ptr_mut(), log_sums.device_ptr_mut());
        let (mask, [before, after], tiles) = (inputs.mask, launch.visible, query_tiles.device_ptr());
        // SAFETY: the addresses are those of queries, keys and values, whose rows the tiles number; y is [R, H], the log-sum-exps are
        // [R, N], and the biases are [N, 2 reach + 1].
        unsafe {
            if launch.is_tiled() {
                let mut args = args![
                    *q,
                    *q_stride,
                    *kv,
                    *kv_stride,
                    tiles,
                    biases,
                    *reach,
                    y_at,
                    log_sums_at,
                    heads,
                    scale,
                    mask,
                    before,
                    after
                ];
                let shared = launch.tile_bytes(TILE) + 4 * launch.tile_bytes(launch.columns()) + launch.bias_bytes();
                let grid = launch.grid(query_tiles).with_shared(shared);
                self.launch(&format!("attention_forward_{}", launch.width), grid, &mut args);
            } else {
                let width = launch.width as i32;
                let mut args = args![
                    *q,
                    *q_stride,
                    *kv,
                    *kv_stride,
                    tiles,
                    biases,
                    *reach,
                    y_at,
                    log_sums_at,
                    heads,
                    width,
                    scale,
                    mask,
                    before,
                    after
                ];
                self.launch_of("attention_any", inputs.tokens.dtype(), launch.warp_grid(query_tiles), &mut args);
            }
        }
        (y, log_sums)
    }

    fn attention_backward(
        &self,
        inputs: &AttentionInputs,
        y: &Tensor,
        log_sums: &Tensor,
        dy: &Tensor,
        params: &Parameters,
        grads: &mut Gradients,
    ) -> (Tensor, Option<Tensor>) {
        let launch = Launch::new(self, inputs, params);
        assert!(y.shape() == dy.shape() && y.dtype() == dy.dtype(), "attention: {y:?} with the gradient {dy:?}");
        let dtype = inputs.tokens.dtype();
        let mut dtokens = self.empty(inputs.tokens.shape(), dtype);
        let mut dqueries = inputs.queries.as_ref().map(|[queries, _]| self.empty(queries.shape(), dtype));
        let (queries, _) = inputs.queries().matrix("attention_backward");
        let mut deltas = self.empty(&[queries, inputs.heads], DType::F32);
        let Launch { q, q_stride, kv, kv_stride, query_tiles, key_tiles, biases, reach, pitch, .. } = &launch;
        let (width, heads, scale) = (launch.width, inputs.heads as i32, launch.scale());
        let mut partials = biases.as_ref().map(|_| self.empty(&[count(query_tiles), inputs.heads, *pitch], DType::F32));
        let partials_at = partials.as_mut().map_or(DevicePtr::NULL, Tensor::device_ptr_mut);
        let dtokens_at = dtokens.device_ptr_mut();
        let dq = dqueries.as_mut().map_or(dtokens_at, Tensor::device_ptr_mut);
        let dkv = dtokens_at.element(launch.key_column, dtype);
        let (biases, deltas, log_sums) = (address(biases), deltas.device_ptr_mut(), log_sums.device_ptr());
        let (y, dy) = (y.device_ptr(), dy.device_ptr());
        let (mask, [before, after]) = (inputs.mask, launch.visible);
        let key_tiles = key_tiles.as_ref().unwrap_or(query_tiles);
        let [by_query, by_key] = [query_tiles, key_tiles].map(Tensor::device_ptr);
        // SAFETY: as in `attention`. y and its gradient are [R, H]; the gradients of queries, keys and values have the shapes of these;
        // δ is [R, N], and the partial sums are [tiles, N, pitch]. The kernels run in this order.
        unsafe {
            if launch.is_tiled() {
                let [tile, step] = [TILE, launch.columns()].map(|rows| launch.tile_bytes(rows));
                let scores = if partials.is_some() { TILE * (launch.columns() + 1) * 4 } else { 0 };
                let mut args = args![
                    *q,
                    *q_stride,
                    *kv,
                    *kv_stride,
                    by_query,
                    biases,
                    *reach,
                    y,
                    dy,
                    log_sums,
                    deltas,
                    dq,
                    partials_at,
                    *pitch,
                    heads,
                    scale,
                    mask,
                    before,
                    after
                ];
                let grid = launch.grid(query_tiles).with_shared(2 * tile + 4 * step + launch.bias_bytes() + scores);
                self.launch(&format!("attention_queries_back_{width}"), grid, &mut args);
                let mut args = args![
                    *q, *q_stride, *kv, *kv_stride, by_key, biases, *reach, dy, log_sums, deltas, dkv, heads, scale,
                    mask, before, after
                ];
                let grid = launch.grid(key_tiles).with_shared(2 * tile + 4 * step + STATISTICS + launch.bias_bytes());
                self.launch(&format!("attention_keys_back_{width}"), grid, &mut args);
            } else {
                let width = width as i32;
                let mut args = args![
                    *q, *q_stride, *kv, *kv_stride, by_query, biases, *reach, y, dy, log_sums, deltas, dq, heads,
                    width, scale, mask, before, after
                ];
                self.launch_of("attention_any_queries_back", dtype, launch.warp_grid(query_tiles), &mut args);
                let mut args = args![
                    *q, *q_stride, *kv, *kv_stride, by_key, biases, *reach, dy, log_sums, deltas, dkv, heads, width,
                    scale, mask, before, after
                ];
                self.launch_of("attention_any_keys_back", dtype, launch.warp_grid(key_tiles), &mut args);
                if partials.is_some() {
                    let mut args = args![
                        *q,
                        *q_stride,
                        *kv,
                        *kv_stride,
                        by_query,
                        biases,
                        *reach,
                        dy,
                        log_sums,
                        deltas,
                        partials_at,
                        *pitch,
                        heads,
                        width,
                        scale,
                        mask,
                        before,
                        after
                    ];
                    let grid = Grid::of([count(query_tiles), inputs.heads, pitch.div_ceil(THREADS as usize)], THREADS);
                    self.launch_of("attention_any_biases_back", dtype, grid, &mut args);
                }
            }
        }
        if let Some(partials) = partials {
            launch.add_bias_gradients(&partials, params, grads);
        }
        (dtokens, dqueries)
    }
}

/// What the kernels of both directions need.
struct Launch<'a> {
    cuda: &'a Cuda,
    inputs: &'a AttentionInputs,
    /// Of a head.
    width: usize,
    /// The first query, and the first key, before which are the queries unless they are separate.
    q: DevicePtr,
    kv: DevicePtr,
    /// Elements from a row to the next.
    q_stride: usize,
    kv_stride: usize,
    key_column: usize,
    query_tiles: Tensor,
    /// `None` if they are the same.
    key_tiles: Option<Tensor>,
    /// Tokens before and after a query that it sees.
    visible: [i32; 2],
    /// The bias of each head and distance, from −reach to reach.
    biases: Option<Tensor>,
    reach: i32,
    /// The gradients of the biases of a tile: the distances from its last row to the first key, to those from its first row to the last.
    pitch: usize,
}

impl<'a> Launch<'a> {
    fn new(cuda: &'a Cuda, inputs: &'a AttentionInputs, params: &Parameters) -> Launch<'a> {
        let (heads, hidden) = (inputs.heads, inputs.hidden());
        let width = hidden / heads;
        assert_eq!(width * heads, hidden, "attention: {heads} heads of {hidden} columns");
        let (queries, q_stride) = inputs.queries().matrix("attention");
        assert_eq!(q_stride % hidden, 0, "attention: {q_stride} query columns are not a multiple of {hidden}");
        let (tokens, kv_stride) = inputs.tokens.matrix("attention");
        assert_eq!(inputs.queries().dtype(), inputs.tokens.dtype(), "attention: the type of the queries");
        let ends = [(&inputs.cu_seqlens, tokens), (inputs.query_ends(), queries)];
        let [token_ends, query_ends] = ends.map(|(ends, rows)| {
            let ends = ends.slice::<i32>();
            assert!(
                ends.first() == Some(&0) && ends.last() == Some(&(rows as i32)) && ends.is_sorted(),
                "attention: cumulative lengths must increase from 0 to {rows}"
            );
            ends
        });
        assert_eq!(token_ends.len(), query_ends.len(), "attention: number of sequences");
        let Visible { causal, window } = inputs.visible;
        let before = window.unwrap_or(FAR).min(FAR);
        let after = if causal { 0 } else { before };
        let query_tiles = tiles(query_ends, query_ends, token_ends, [before, after]);
        let has_key_tiles = inputs.queries.is_some() || causal;
        let key_tiles = has_key_tiles.then(|| tiles(token_ends, query_ends, token_ends, [after, before]));
        let upload = |tiles: Vec<i32>| cuda.tensor_i32(&tiles, &[tiles.len() / TILE_NUMBERS, TILE_NUMBERS]);
        let key_column = kv_stride - 2 * hidden;
        let longest = token_ends.windows(2).map(|ends| (ends[1] - ends[0]) as usize).max().unwrap_or(0);
        let mut launch = Launch {
            cuda,
            inputs,
            width,
            q: inputs.queries().device_ptr(),
            kv: inputs.tokens.device_ptr().element(key_column, inputs.tokens.dtype()),
            q_stride,
            kv_stride,
            key_column,
            query_tiles: upload(query_tiles),
            key_tiles: key_tiles.map(upload),
            visible: [before as i32, after as i32],
            biases: None,
            reach: longest.saturating_sub(1) as i32,
            pitch: longest.next_multiple_of(TILE) + TILE,
        };
        launch.biases = launch.expand_biases(params);
        launch
    }

    /// The buckets of the distances from −reach to reach.
    fn buckets(&self) -> Option<&[u32]> {
        self.inputs.bias.as_ref().map(|bias| bias.of_length(self.reach as usize + 1))
    }

    /// The bias of each head and distance.
    fn expand_biases(&self, params: &Parameters) -> Option<Tensor> {
        let (bias, buckets) = (self.inputs.bias.as_ref()?, self.buckets()?);
        let heads = self.inputs.heads;
        let [rows, columns] = *params.shape(bias.table) else { panic!("attention: a table of biases is a matrix") };
        assert!(
            columns == heads && buckets.iter().all(|b| (*b as usize) < rows),
            "attention: buckets of [{rows}, {columns}]"
        );
        let buckets: Vec<i32> = buckets.iter().map(|bucket| *bucket as i32).collect();
        let count = buckets.len();
        let buckets = self.cuda.tensor_i32(&buckets, &[count]);
        let mut biases = self.cuda.empty(&[heads, count], DType::F32);
        let table = self.cuda.weights(params, bias.table);
        let mut args = args![table, buckets.device_ptr(), biases.device_ptr_mut(), heads as i32, count as i32];
        let grid = Grid::of([count.div_ceil(THREADS as usize), heads, 1], THREADS);
        // SAFETY: all buckets are rows of the table [buckets, N]; the biases are [N, count].
        unsafe { self.cuda.launch("attention_biases", grid, &mut args) };
        Some(biases)
    }

    /// Sums the gradients of the biases of each tile and distance by bucket.
    fn add_bias_gradients(&self, partials: &Tensor, params: &Parameters, grads: &mut Gradients) {
        let (Some(bias), Some(buckets)) = (&self.inputs.bias, self.buckets()) else { return };
        let (heads, rows) = (self.inputs.heads, params.shape(bias.table)[0]);
        let mut starts = vec![0i32; rows + 1];
        buckets.iter().for_each(|bucket| starts[*bucket as usize + 1] += 1);
        (0..rows).for_each(|bucket| starts[bucket + 1] += starts[bucket]);
        let mut distances: Vec<i32> = (-self.reach..=self.reach).collect();
        distances.sort_by_key(|distance| buckets[(distance + self.reach) as usize]);
        let [distances, starts] = [distances, starts].map(|x| self.cuda.tensor_i32(&x, &[x.len()]));
        let tiles = count(&self.query_tiles);
        let chunks = tiles.div_ceil(BIAS_TILES);
        let mut sums = self.cuda.empty(&[chunks, rows, heads], DType::F32);
        let [before, after] = self.visible;
        let columns = if self.is_tiled() { self.columns() } else { TILE };
        let mut args = args![
            partials.device_ptr(),
            self.pitch,
            self.query_tiles.device_ptr(),
            tiles as i32,
            distances.device_ptr(),
            starts.device_ptr(),
            sums.device_ptr_mut(),
            heads as i32,
            columns as i32,
            before,
            after
        ];
        // SAFETY: the partial sums are [tiles, N, pitch], each bucket's distances are a range of `distances`, and there is a sum for each
        // chunk of tiles, bucket and head.
        unsafe { self.cuda.launch("attention_bias_sums", Grid::of([rows, heads, chunks], 32), &mut args) };
        self.cuda.add_blocks(&sums, 0, rows * heads, grads, params.range(bias.table));
    }

    /// Whether the kernels of tensor cores know these heads: all rows of a head are whole 16-byte vectors.
    fn is_tiled(&self) -> bool {
        self.inputs.tokens.dtype() == DType::BF16 && matches!(self.width, 32 | 64 | 128)
    }

    /// Columns of a step, as `attention_columns` of the kernels.
    fn columns(&self) -> usize {
        if self.width > 64 { 32 } else { 64 }
    }

    /// Bytes of a tile in shared memory.
    fn tile_bytes(&self, rows: usize) -> usize {
        rows * self.width * DType::BF16.size()
    }

    /// Bytes of the biases of two steps.
    fn bias_bytes(&self) -> usize {
        if self.biases.is_some() { 2 * 128 * 4 } else { 0 }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// A block for each tile and head.
    fn grid(&self, tiles: &Tensor) -> Grid {
        Grid::of([count(tiles), self.inputs.heads, 1], THREADS)
    }

    /// A warp for each row of each tile, and head.
    fn warp_grid(&self, tiles: &Tensor) -> Grid {
        Grid::of([count(tiles), self.inputs.heads, TILE / 4], THREADS)
    }
}

fn address(tensor: &Option<Tensor>) -> DevicePtr {
    tensor.as_ref().map_or(DevicePtr::NULL, Tensor::device_ptr)
}

/// The number of tiles.
fn count(tiles: &Tensor) -> usize {
    tiles.shape()[0]
}

/// The tiles of the sequences' `rows`, which see columns from `back` before a row to `ahead` after it. Those with most work are first, so
/// that no block that starts last takes long.
fn tiles(rows: &[i32], queries: &[i32], keys: &[i32], [back, ahead]: [usize; 2]) -> Vec<i32> {
    let mut tiles = Vec::new();
    for ((rows, queries), keys) in rows.windows(2).zip(queries.windows(2)).zip(keys.windows(2)) {
        let [rows, queries_len, keys_len] = [rows, queries, keys].map(|ends| ends[1] - ends[0]);
        // All tokens have queries, or a row sees all columns.
        let columns = queries_len.max(keys_len) as usize;
        for row in (0..rows).step_by(TILE) {
            let seen = columns.min(row as usize + TILE + ahead) - (row as usize).saturating_sub(back).min(columns);
            tiles.push((Reverse(seen), [queries[0], queries_len, keys[0], keys_len, row]));
        }
    }
    tiles.sort_by_key(|(seen, _)| *seen);
    tiles.into_iter().flat_map(|(_, tile)| tile).collect()
}
