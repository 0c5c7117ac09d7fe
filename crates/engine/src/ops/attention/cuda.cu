// Attention within each sequence of a packed batch.
//   attention_forward       a tile of 64 queries streams its sequence's keys and values (Dao 2023), → O, log-sum-exp
//   attention_queries_back  a tile of queries streams keys and values, → dQ, and δ = Σ dO O
//   attention_keys_back     a tile of 64 keys and values streams queries and dO, → dK, dV
// for bf16 and heads of width 32, 64 and 128: blocks of 128 threads, in which a warp has sixteen rows. Backward is two kernels, seven
// products instead of five, so that no sum depends on the order in which blocks finish. attention_any… do the same for other widths and
// types, with a warp for each query or key.
#include "tile.cuh"

constexpr float ATTENTION_LOG2E = 1.4426950408889634f, ATTENTION_NEVER = -1e30f;

// A tile of rows of one sequence: the places of its queries and keys in the batch, their numbers, and the first row of the tile, which
// is a query or a key.
struct AttentionTile { int queries0, queries, keys0, keys, row0; };
__device__ __forceinline__ AttentionTile attention_tile(const int* tiles, int tile) {
  const int* t = tiles + (u64)tile * 5;
  return {t[0], t[1], t[2], t[3], t[4]};
}
// The keys that a query sees: those from `before` tokens before it to `after` tokens after it.
struct AttentionVisible {
  int before, after;
  __device__ __forceinline__ bool sees(int query, int key) const { return (u32)(key - query + before) <= (u32)before + (u32)after; }
  // Whether each of `rows` queries sees each of `columns` keys.
  __device__ __forceinline__ bool sees_all(int query, int rows, int key, int columns) const {
    return query + rows - 1 - key <= before && key + columns - 1 - query <= after;
  }
};
// The steps of N columns, of `count` in all, in which the 64 rows from row0 see something: from `back` before the row to `ahead` after it.
template <int N> struct AttentionSteps {
  int first, end;
  __device__ __forceinline__ AttentionSteps(int row0, int back, int ahead, int count)
      : first(max(0, row0 - back) / N), end((min(count, row0 + 64 + ahead) + N - 1) / N) {}
};
// Columns of a step. With wide heads, fewer, so that sums and scores stay in registers.
template <int D> __device__ __forceinline__ constexpr int attention_columns() { return D > 64 ? 32 : 64; }

// The biases of the distances between a tile of 64 queries and a step of keys, for scores in base 2.
__device__ __forceinline__ void attention_stage_biases(float* staged, const float* biases, int reach, int head, int first_distance) {
  int at = min(max(first_distance + (int)threadIdx.x + reach, 0), 2 * reach);
  staged[threadIdx.x] = biases[(u64)head * (2 * reach + 1) + at] * ATTENTION_LOG2E;
}

template <int D>
__global__ void __launch_bounds__(128, D > 64 ? 2 : 4)
    attention_forward(const bf16* q, u64 q_stride, const bf16* kv, u64 kv_stride, const int* tiles, const float* biases, int reach, bf16* out,
                      float* log_sums, int heads, float scale, Mask mask, int before, int after) {
  constexpr int N = attention_columns<D>(), PIECES = tile_pieces<D>(N), ROWS = tile_pieces<D>(64);
  EXTERN_SHARED(shared);  // queries; keys, values; keys, values; biases of two steps
  float(*staged)[128] = (float(*)[128])(shared + ROWS + 4 * PIECES);
  AttentionTile at = attention_tile(tiles, blockIdx.x);
  AttentionVisible visible{before, after};
  AttentionSteps<N> steps(at.row0, before, after, at.keys);
  int head = blockIdx.y, lane = threadIdx.x % 32, r0 = threadIdx.x / 32 * 16, hidden = heads * D;
  const bf16* keys_of_head = kv + at.keys0 * kv_stride + head * D;
  auto fetch = [&](int step) {
    u128* to = shared + ROWS + step % 2 * 2 * PIECES;
    const bf16* from = keys_of_head + (u64)step * N * kv_stride;
    load_tile<D, N>(to, from, kv_stride, at.keys - step * N);
    load_tile<D, N>(to + PIECES, from + hidden, kv_stride, at.keys - step * N);
    copy_async_commit();
    if (biases) attention_stage_biases(staged[step % 2], biases, reach, head, step * N - at.row0 - 63);
  };
  load_tile<D, 64>(shared, q + (at.queries0 + at.row0) * q_stride + head * D, q_stride, at.queries - at.row0);
  if (steps.first < steps.end) fetch(steps.first);
  auto query = [&](int i) { return at.row0 + r0 + lane / 4 + 8 * i; };
  Mask masks[2];
  for (int i = 0; i < 2; i++) masks[i] = mask_row(mask, (u64)(at.queries0 + query(i)) * heads + head);
  Left<D, true> queries;
  float o[D / 8][4], most[2] = {ATTENTION_NEVER, ATTENTION_NEVER}, sum[2] = {0, 0};
  clear(o);
  for (int step = steps.first; step < steps.end; step++) {
    copy_async_wait<0>();
    // The next step's place was read in the last one, which all have left.
    __syncthreads();
    if (step + 1 < steps.end) fetch(step + 1);
    const u128* keys = shared + ROWS + step % 2 * 2 * PIECES;
    if (step == steps.first) queries.set(shared, r0);
    float s[N / 8][4];
    clear(s);
    times_transposed(s, queries, keys);
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) s[n][i] *= scale * ATTENTION_LOG2E;
    if (biases) {
#pragma unroll
      for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] += staged[step % 2][63 + n * 8 + lane % 4 * 2 + i % 2 - (r0 + lane / 4 + i / 2 * 8)];
    }
    if (step * N + N > at.keys || !visible.sees_all(at.row0, 64, step * N, N)) {
#pragma unroll
      for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          int key = step * N + n * 8 + lane % 4 * 2 + i % 2;
          if (key >= at.keys || !visible.sees(query(i / 2), key)) s[n][i] = ATTENTION_NEVER;
        }
    }
    float top[2] = {most[0], most[1]}, shrink[2];
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) top[i / 2] = fmaxf(top[i / 2], s[n][i]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffu, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffu, top[i], 2));
      // A row that has seen no key yet has sums of nonsense, which the first key that it sees multiplies by 0.
      shrink[i] = exp2_fast(most[i] - top[i]);
      most[i] = top[i];
      sum[i] *= shrink[i];
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) o[n][i] *= shrink[i / 2];
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s[n][i] = exp2_fast(s[n][i] - most[i / 2]);
        // The sum includes the weights that are dropped.
        sum[i / 2] += s[n][i];
      }
    if (mask.threshold) {
#pragma unroll
      for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] *= mask_factor(masks[i / 2], step * N + n * 8 + lane % 4 * 2 + i % 2);
    }
    times<D, N / 16>(o, s, keys + PIECES);
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 1);
    sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 2);
    if (lane % 4 == 0 && query(i) < at.queries)
      log_sums[(u64)(at.queries0 + query(i)) * heads + head] = most[i] / ATTENTION_LOG2E + logf(sum[i]);
  }
  store_rows(out + (u64)(at.queries0 + at.row0) * hidden + head * D, hidden, r0, at.queries - at.row0, o, 1 / sum[0], 1 / sum[1]);
}
KERNEL_OF(attention_forward, 32)
KERNEL_OF(attention_forward, 64)
KERNEL_OF(attention_forward, 128)

// With `partials`, also the gradients of the biases of the tile's distances: partials [tiles, heads, pitch], where place i is the
// distance i − row0 − 63.
template <int D>
__global__ void __launch_bounds__(128, D > 64 ? 2 : 3)
    attention_queries_back(const bf16* q, u64 q_stride, const bf16* kv, u64 kv_stride, const int* tiles, const float* biases, int reach,
                           const bf16* out, const bf16* dout, const float* log_sums, float* deltas, bf16* dq, float* partials, u64 pitch,
                           int heads, float scale, Mask mask, int before, int after) {
  constexpr int N = attention_columns<D>(), PIECES = tile_pieces<D>(N), ROWS = tile_pieces<D>(64);
  EXTERN_SHARED(shared);  // queries, dO; keys, values; keys, values; biases of two steps; dS in f32, for their gradients
  float(*staged)[128] = (float(*)[128])(shared + 2 * ROWS + 4 * PIECES);
  float* scores = staged[2];
  AttentionTile at = attention_tile(tiles, blockIdx.x);
  AttentionVisible visible{before, after};
  AttentionSteps<N> steps(at.row0, before, after, at.keys);
  int head = blockIdx.y, lane = threadIdx.x % 32, r0 = threadIdx.x / 32 * 16, hidden = heads * D, rows = at.queries - at.row0;
  const bf16* keys_of_head = kv + at.keys0 * kv_stride + head * D;
  u64 out0 = (u64)(at.queries0 + at.row0) * hidden + head * D;
  auto fetch = [&](int step) {
    u128* to = shared + 2 * ROWS + step % 2 * 2 * PIECES;
    const bf16* from = keys_of_head + (u64)step * N * kv_stride;
    load_tile<D, N>(to, from, kv_stride, at.keys - step * N);
    load_tile<D, N>(to + PIECES, from + hidden, kv_stride, at.keys - step * N);
    copy_async_commit();
    if (biases) attention_stage_biases(staged[step % 2], biases, reach, head, step * N - at.row0 - 63);
  };
  load_tile<D, 64>(shared, q + (at.queries0 + at.row0) * q_stride + head * D, q_stride, rows);
  load_tile<D, 64>(shared + ROWS, dout + out0, hidden, rows);
  if (steps.first < steps.end) fetch(steps.first);
  auto query = [&](int i) { return at.row0 + r0 + lane / 4 + 8 * i; };
  Mask masks[2];
  float log_sum[2], delta[2] = {0, 0};
  for (int i = 0; i < 2; i++) {
    u64 row = (u64)(at.queries0 + query(i)) * heads + head;
    bool there = query(i) < at.queries;
    masks[i] = mask_row(mask, row);
    log_sum[i] = there ? log_sums[row] * ATTENTION_LOG2E : 0;
    if (there) {
#pragma unroll
      for (int c = 0; c < D / 32; c++) {  // four lanes share a row: pieces lane % 4 + 4 c
        u64 from = out0 + (u64)(query(i) - at.row0) * hidden + (lane % 4 + 4 * c) * 8;
        Vector<bf16> a = load_vector(out + from), b = load_vector(dout + from);
#pragma unroll
        for (int w = 0; w < 8; w++) delta[i] += a.x[w] * b.x[w];
      }
    }
    delta[i] += __shfl_xor_sync(0xffffffffu, delta[i], 1);
    delta[i] += __shfl_xor_sync(0xffffffffu, delta[i], 2);
    if (there && lane % 4 == 0) deltas[row] = delta[i];
  }
  Left<D, true> queries, gradients;
  float sums[D / 8][4];
  clear(sums);
  for (int step = steps.first; step < steps.end; step++) {
    copy_async_wait<0>();
    __syncthreads();
    if (step + 1 < steps.end) fetch(step + 1);
    const u128* keys = shared + 2 * ROWS + step % 2 * 2 * PIECES;
    if (step == steps.first) queries.set(shared, r0), gradients.set(shared + ROWS, r0);
    float s[N / 8][4], dp[N / 8][4];
    clear(s), clear(dp);
    times_transposed(s, queries, keys);
    times_transposed(dp, gradients, keys + PIECES);
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) s[n][i] = s[n][i] * (scale * ATTENTION_LOG2E) - log_sum[i / 2];
    if (biases) {
#pragma unroll
      for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] += staged[step % 2][63 + n * 8 + lane % 4 * 2 + i % 2 - (r0 + lane / 4 + i / 2 * 8)];
    }
    if (mask.threshold) {
#pragma unroll
      for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) dp[n][i] *= mask_factor(masks[i / 2], step * N + n * 8 + lane % 4 * 2 + i % 2);
    }
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) s[n][i] = exp2_fast(s[n][i]) * (dp[n][i] - delta[i / 2]);
    // Keys past the end and rows of no query may be infinite or NaN here.
    if (step * N + N > at.keys || rows < 64 || !visible.sees_all(at.row0, 64, step * N, N)) {
#pragma unroll
      for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          int key = step * N + n * 8 + lane % 4 * 2 + i % 2;
          if (query(i / 2) >= at.queries || key >= at.keys || !visible.sees(query(i / 2), key)) s[n][i] = 0;
        }
    }
    if (partials) {
      // Each thread sums a diagonal, a distance.
#pragma unroll
      for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) scores[(r0 + lane / 4 + i / 2 * 8) * (N + 1) + n * 8 + lane % 4 * 2 + i % 2] = s[n][i];
      __syncthreads();
      int place = threadIdx.x;
      if (place < 63 + N) {
        float sum = 0;
        for (int r = 0; r < 64; r++) {
          int c = place - 63 + r;
          if (c >= 0 && c < N) sum += scores[r * (N + 1) + c];
        }
        // The last step has summed the first 63 of these distances, too.
        float* to = partials + ((u64)blockIdx.x * heads + head) * pitch + step * N + place;
        *to = place < 63 && step > steps.first ? *to + sum : sum;
      }
    }
    times<D, N / 16>(sums, s, keys);
  }
  store_rows(dq + (at.queries0 + at.row0) * q_stride + head * D, q_stride, r0, rows, sums, scale, scale);
}
KERNEL_OF(attention_queries_back, 32)
KERNEL_OF(attention_queries_back, 64)
KERNEL_OF(attention_queries_back, 128)

// The tiles' rows are keys. Scores are transposed, [keys, queries], so that P̃ᵀ and dSᵀ are left operands as they lie.
template <int D>
__global__ void __launch_bounds__(128, 2)
    attention_keys_back(const bf16* q, u64 q_stride, const bf16* kv, u64 kv_stride, const int* tiles, const float* biases, int reach,
                        const bf16* dout, const float* log_sums, const float* deltas, bf16* dkv, int heads, float scale, Mask mask, int before,
                        int after) {
  constexpr int N = attention_columns<D>(), PIECES = tile_pieces<D>(N), ROWS = tile_pieces<D>(64);
  constexpr bool HELD = D <= 64;
  EXTERN_SHARED(shared);  // keys, values; queries, dO; queries, dO; of two steps: log-sum-exps, δ, masks' words, biases
  float(*log_sum)[64] = (float(*)[64])(shared + 2 * ROWS + 4 * PIECES), (*delta)[64] = log_sum + 2;
  u32(*adds)[64] = (u32(*)[64])(delta + 2), (*middles)[64] = adds + 2;
  float(*staged)[128] = (float(*)[128])(middles + 2);
  AttentionTile at = attention_tile(tiles, blockIdx.x);
  AttentionVisible visible{before, after};
  AttentionSteps<N> steps(at.row0, after, before, at.queries);
  int head = blockIdx.y, lane = threadIdx.x % 32, r0 = threadIdx.x / 32 * 16, hidden = heads * D, rows = at.keys - at.row0;
  const bf16* keys_of_head = kv + (at.keys0 + at.row0) * kv_stride + head * D;
  const bf16* queries_of_head = q + at.queries0 * q_stride + head * D;
  const bf16* gradients = dout + (u64)at.queries0 * hidden + head * D;
  auto fetch = [&](int step) {
    u128* to = shared + 2 * ROWS + step % 2 * 2 * PIECES;
    load_tile<D, N>(to, queries_of_head + (u64)step * N * q_stride, q_stride, at.queries - step * N);
    load_tile<D, N>(to + PIECES, gradients + (u64)step * N * hidden, hidden, at.queries - step * N);
    copy_async_commit();
    if (threadIdx.x < N) {
      int query = step * N + threadIdx.x;
      u64 row = (u64)(at.queries0 + query) * heads + head;
      bool there = query < at.queries;
      Mask m = mask_row(mask, row);
      log_sum[step % 2][threadIdx.x] = there ? log_sums[row] * ATTENTION_LOG2E : 0;
      delta[step % 2][threadIdx.x] = there ? deltas[row] : 0;
      adds[step % 2][threadIdx.x] = m.add, middles[step % 2][threadIdx.x] = m.middle;
    }
    // Distances from the tile's first key and the step's last query to its last key and the first query.
    if (biases) attention_stage_biases(staged[step % 2], biases, reach, head, at.row0 - (step * N + N - 1));
  };
  Left<D, HELD> keys, values;
  float dk[D / 8][4], dv[D / 8][4];
  clear(dk), clear(dv);
  if (steps.first < steps.end) {
    load_tile<D, 64>(shared, keys_of_head, kv_stride, rows);
    load_tile<D, 64>(shared + ROWS, keys_of_head + hidden, kv_stride, rows);
    fetch(steps.first);
  }
  for (int step = steps.first; step < steps.end; step++) {
    copy_async_wait<0>();
    __syncthreads();
    if (step + 1 < steps.end) fetch(step + 1);
    const u128* queries = shared + 2 * ROWS + step % 2 * 2 * PIECES;
    if (step == steps.first) keys.set(shared, r0), values.set(shared + ROWS, r0);
    float s[N / 8][4], dp[N / 8][4];
    clear(s), clear(dp);
    times_transposed(s, keys, queries);
    times_transposed(dp, values, queries + PIECES);
    int half = step % 2;
    bool is_whole = step * N + N <= at.queries && rows >= 64 && visible.sees_all(step * N, N, at.row0, 64);
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int column = n * 8 + lane % 4 * 2 + i % 2, r = r0 + lane / 4 + i / 2 * 8;
        float score = s[n][i] * (scale * ATTENTION_LOG2E) - log_sum[half][column];
        if (biases) score += staged[half][r - column + N - 1];
        float p = exp2_fast(score);
        if (!is_whole) {
          int query = step * N + column, key = at.row0 + r;
          if (query >= at.queries || key >= at.keys || !visible.sees(query, key)) p = 0;
        }
        float factor = 1;
        if (mask.threshold) factor = mask_factor({adds[half][column], middles[half][column], mask.threshold, mask.scale}, at.row0 + r);
        s[n][i] = p * factor;
        dp[n][i] = p * (factor * dp[n][i] - delta[half][column]);
      }
    times<D, N / 16>(dv, s, queries + PIECES);
    times<D, N / 16>(dk, dp, queries);
  }
  bf16* to = dkv + (at.keys0 + at.row0) * kv_stride + head * D;
  store_rows(to, kv_stride, r0, rows, dk, scale, scale);
  store_rows(to + hidden, kv_stride, r0, rows, dv, 1, 1);
}
KERNEL_OF(attention_keys_back, 32)
KERNEL_OF(attention_keys_back, 64)
KERNEL_OF(attention_keys_back, 128)

// For any width and type: a warp for each row, and blockIdx.z says which four rows of the tile. Each lane computes the score of its own
// column; then the lanes share the weights, and sum up to 128 columns of the result.
constexpr int ATTENTION_PART = 4;

template <class E> struct AttentionAny {
  const E *q, *kv, *dout;
  u64 q_stride, kv_stride;
  const float* biases;
  int reach, heads, width, head;
  float scale;
  Mask mask;
  AttentionTile at;
  bool vectors;

  __device__ __forceinline__ const E* query(int row) const { return q + (at.queries0 + row) * q_stride + head * width; }
  __device__ __forceinline__ const E* key(int row) const { return kv + (at.keys0 + row) * kv_stride + head * width; }
  __device__ __forceinline__ const E* value(int row) const { return key(row) + heads * width; }
  __device__ __forceinline__ u64 out(int row) const { return ((u64)(at.queries0 + row) * heads + head) * width; }
  __device__ __forceinline__ u64 statistics(int row) const { return (u64)(at.queries0 + row) * heads + head; }
  __device__ __forceinline__ float dot(const E* a, const E* b) const {
    float sum = 0;
    if (vectors) {
      for (int c = 0; c < width; c += Vector<E>::WIDTH) {
        Vector<E> x = load_vector(a + c), y = load_vector(b + c);
#pragma unroll
        for (int i = 0; i < Vector<E>::WIDTH; i++) sum += x.x[i] * y.x[i];
      }
    } else {
      for (int c = 0; c < width; c++) sum += load(a + c) * load(b + c);
    }
    return sum;
  }
  __device__ __forceinline__ float score(int query_row, int key_row) const {
    float bias = biases ? biases[(u64)head * (2 * reach + 1) + key_row - query_row + reach] : 0;
    return dot(query(query_row), key(key_row)) * scale + bias;
  }
  // P̃ and dS of a pair.
  __device__ __forceinline__ void backward(int query_row, int key_row, float log_sum, float delta, float& dropped, float& ds) const {
    float p = expf(score(query_row, key_row) - log_sum), dp = dot(dout + out(query_row), value(key_row)), factor = 1;
    if (mask.threshold) factor = mask_factor(mask_row(mask, statistics(query_row)), key_row);
    dropped = p * factor;
    ds = p * (factor * dp - delta);
  }
};
template <class E>
__device__ __forceinline__ AttentionAny<E> attention_any_of(const E* q, u64 q_stride, const E* kv, u64 kv_stride, const int* tiles,
                                                            const float* biases, int reach, const E* dout, int heads, int width, float scale,
                                                            const Mask& mask) {
  bool vectors = all_aligned((u64)q | (u64)kv | (u64)dout | (q_stride | kv_stride | (u64)width) * sizeof(E));
  return {q, kv, dout, q_stride, kv_stride, biases, reach, heads, width, (int)blockIdx.y, scale, mask, attention_tile(tiles, blockIdx.x), vectors};
}
// sums[c] += Σ weight · row, over the columns c0 + 32 c + lane; `row(j)` is the row of lane j's weight. These up to 32 rows have a sum of
// their own, which keeps the rounding errors of long sums small.
template <class F>
__device__ __forceinline__ void attention_add_rows(float (&sums)[ATTENTION_PART], float weight, int count, int c0, int width, const F& row) {
  __shared__ float shared[4][32];
  int lane = threadIdx.x % 32;
  float *weights = shared[threadIdx.x / 32], part[ATTENTION_PART] = {};
  weights[lane] = weight;
  __syncwarp();
  for (int j = 0; j < count; j++) {
    float w = weights[j];
    auto from = row(j);
#pragma unroll
    for (int c = 0; c < ATTENTION_PART; c++) {
      int column = c0 + 32 * c + lane;
      if (column < width) part[c] += w * load(from + column);
    }
  }
  // The next weights wait until all lanes have read these.
  __syncwarp();
#pragma unroll
  for (int c = 0; c < ATTENTION_PART; c++) sums[c] += part[c];
}
template <class E>
__device__ __forceinline__ void attention_store_row(E* to, const float (&sums)[ATTENTION_PART], float factor, int c0, int width) {
#pragma unroll
  for (int c = 0; c < ATTENTION_PART; c++) {
    int column = c0 + 32 * c + threadIdx.x % 32;
    if (column < width) store(to + column, sums[c] * factor);
  }
}

template <class E>
__global__ void __launch_bounds__(128, 1)
    attention_any(const E* q, u64 q_stride, const E* kv, u64 kv_stride, const int* tiles, const float* biases, int reach, E* out,
                  float* log_sums, int heads, int width, float scale, Mask mask, int before, int after) {
  AttentionAny<E> any = attention_any_of<E>(q, q_stride, kv, kv_stride, tiles, biases, reach, out, heads, width, scale, mask);
  int lane = threadIdx.x % 32, row = any.at.row0 + blockIdx.z * 4 + threadIdx.x / 32;
  if (row >= any.at.queries) return;
  int first = max(0, row - before), end = min(any.at.keys, row + 1 + after);
  Mask row_mask = mask_row(mask, any.statistics(row));
  for (int c0 = 0; c0 < width; c0 += 32 * ATTENTION_PART) {
    float o[ATTENTION_PART] = {}, most = ATTENTION_NEVER, sum = 0;
    for (int key0 = first; key0 < end; key0 += 32) {
      bool there = key0 + lane < end;
      float s = there ? any.score(row, key0 + lane) : ATTENTION_NEVER, top = fmaxf(most, warp_max(s)), shrink = expf(most - top);
      float p = there ? expf(s - top) : 0;
      most = top;
      sum = sum * shrink + p;
      if (mask.threshold) p *= mask_factor(row_mask, key0 + lane);
#pragma unroll
      for (int c = 0; c < ATTENTION_PART; c++) o[c] *= shrink;
      attention_add_rows(o, p, min(32, end - key0), c0, width, [&](int j) { return any.value(key0 + j); });
    }
    sum = warp_sum(sum);
    attention_store_row(out + any.out(row), o, 1 / sum, c0, width);
    if (c0 == 0 && lane == 0) log_sums[any.statistics(row)] = most + logf(sum);
  }
}
KERNEL_OF(attention_any, f32)
KERNEL_OF(attention_any, bf16)

template <class E>
__global__ void __launch_bounds__(128, 1)
    attention_any_queries_back(const E* q, u64 q_stride, const E* kv, u64 kv_stride, const int* tiles, const float* biases, int reach,
                               const E* out, const E* dout, const float* log_sums, float* deltas, E* dq, int heads, int width, float scale,
                               Mask mask, int before, int after) {
  AttentionAny<E> any = attention_any_of<E>(q, q_stride, kv, kv_stride, tiles, biases, reach, dout, heads, width, scale, mask);
  int lane = threadIdx.x % 32, row = any.at.row0 + blockIdx.z * 4 + threadIdx.x / 32;
  if (row >= any.at.queries) return;
  int first = max(0, row - before), end = min(any.at.keys, row + 1 + after);
  float log_sum = log_sums[any.statistics(row)], delta = 0;
  for (int c = lane; c < width; c += 32) delta += load(out + any.out(row) + c) * load(dout + any.out(row) + c);
  delta = warp_sum(delta);
  if (lane == 0) deltas[any.statistics(row)] = delta;
  for (int c0 = 0; c0 < width; c0 += 32 * ATTENTION_PART) {
    float sums[ATTENTION_PART] = {};
    for (int key0 = first; key0 < end; key0 += 32) {
      float dropped, ds = 0;
      if (key0 + lane < end) any.backward(row, key0 + lane, log_sum, delta, dropped, ds);
      attention_add_rows(sums, ds, min(32, end - key0), c0, width, [&](int j) { return any.key(key0 + j); });
    }
    attention_store_row(dq + (any.at.queries0 + row) * q_stride + any.head * width, sums, scale, c0, width);
  }
}
KERNEL_OF(attention_any_queries_back, f32)
KERNEL_OF(attention_any_queries_back, bf16)

// The tiles' rows are keys.
template <class E>
__global__ void __launch_bounds__(128, 1)
    attention_any_keys_back(const E* q, u64 q_stride, const E* kv, u64 kv_stride, const int* tiles, const float* biases, int reach,
                            const E* dout, const float* log_sums, const float* deltas, E* dkv, int heads, int width, float scale, Mask mask,
                            int before, int after) {
  AttentionAny<E> any = attention_any_of<E>(q, q_stride, kv, kv_stride, tiles, biases, reach, dout, heads, width, scale, mask);
  int lane = threadIdx.x % 32, row = any.at.row0 + blockIdx.z * 4 + threadIdx.x / 32;
  if (row >= any.at.keys) return;
  int first = max(0, row - after), end = min(any.at.queries, row + 1 + before);
  for (int c0 = 0; c0 < width; c0 += 32 * ATTENTION_PART) {
    float dk[ATTENTION_PART] = {}, dv[ATTENTION_PART] = {};
    for (int query0 = first; query0 < end; query0 += 32) {
      int query = query0 + lane, count = min(32, end - query0);
      float dropped = 0, ds = 0;
      if (query < end) any.backward(query, row, log_sums[any.statistics(query)], deltas[any.statistics(query)], dropped, ds);
      attention_add_rows(dk, ds, count, c0, width, [&](int j) { return any.query(query0 + j); });
      attention_add_rows(dv, dropped, count, c0, width, [&](int j) { return dout + any.out(query0 + j); });
    }
    E* to = dkv + (any.at.keys0 + row) * kv_stride + any.head * width;
    attention_store_row(to, dk, scale, c0, width);
    attention_store_row(to + heads * width, dv, 1, c0, width);
  }
}
KERNEL_OF(attention_any_keys_back, f32)
KERNEL_OF(attention_any_keys_back, bf16)

// The gradients of the biases of each tile's distances, as in attention_queries_back. A thread for each distance.
template <class E>
__global__ void __launch_bounds__(128, 1)
    attention_any_biases_back(const E* q, u64 q_stride, const E* kv, u64 kv_stride, const int* tiles, const float* biases, int reach,
                              const E* dout, const float* log_sums, const float* deltas, float* partials, u64 pitch, int heads, int width,
                              float scale, Mask mask, int before, int after) {
  AttentionAny<E> any = attention_any_of<E>(q, q_stride, kv, kv_stride, tiles, biases, reach, dout, heads, width, scale, mask);
  AttentionVisible visible{before, after};
  int place = blockIdx.z * blockDim.x + threadIdx.x;
  if (place >= pitch) return;
  float sum = 0;
  for (int query = any.at.row0; query < min(any.at.queries, any.at.row0 + 64); query++) {
    int key = query + place - any.at.row0 - 63;
    if (key < 0 || key >= any.at.keys || !visible.sees(query, key)) continue;
    float dropped, ds;
    any.backward(query, key, log_sums[any.statistics(query)], deltas[any.statistics(query)], dropped, ds);
    sum += ds;
  }
  partials[((u64)blockIdx.x * heads + any.head) * pitch + place] = sum;
}
KERNEL_OF(attention_any_biases_back, f32)
KERNEL_OF(attention_any_biases_back, bf16)

// The bias of each head and distance: biases [heads, count], from table [buckets, heads] and the bucket of each distance.
extern "C" __global__ void __launch_bounds__(128)
    attention_biases(const float* table, const int* buckets, float* biases, int heads, int count) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < count) biases[(u64)blockIdx.y * count + at] = table[(u64)buckets[at] * heads + blockIdx.y];
}
KERNEL(attention_biases)

// The sums of `partials` over 16 tiles and the distances of a bucket: sums [chunks, buckets, heads]. A block of one warp for each sum. The
// distances of bucket b are distances[starts[b]..starts[b + 1]].
extern "C" __global__ void __launch_bounds__(32)
    attention_bias_sums(const float* partials, u64 pitch, const int* tiles, int tile_count, const int* distances, const int* starts, float* sums,
                        int heads, int columns, int before, int after) {
  int bucket = blockIdx.x, head = blockIdx.y, first_tile = blockIdx.z * 16;
  float sum = 0;
  for (int tile = first_tile; tile < min(tile_count, first_tile + 16); tile++) {
    AttentionTile at = attention_tile(tiles, tile);
    // Places of other steps are not written. The steps are those of attention_queries_back.
    int begin = max(0, at.row0 - before) / columns * columns;
    int end = (min(at.keys, at.row0 + 64 + after) + columns - 1) / columns * columns + 63;
    const float* of_tile = partials + ((u64)tile * heads + head) * pitch;
    for (int i = starts[bucket] + (int)threadIdx.x; i < starts[bucket + 1]; i += 32) {
      int place = distances[i] + at.row0 + 63;
      if (place >= begin && place < end) sum += of_tile[place];
    }
  }
  sum = warp_sum(sum);
  if (threadIdx.x == 0) sums[((u64)blockIdx.z * gridDim.x + bucket) * heads + head] = sum;
}
KERNEL(attention_bias_sums)
