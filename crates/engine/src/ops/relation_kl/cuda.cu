// A block takes 64 rows of one head of one sequence, and goes through the sequence's tokens, 64 at a time, as keys. No relations are
// stored: the first kernel leaves the statistics of each row, the second computes the scores again. Since scores are symmetric, dS and dSᵀ
// of a row's relations follow from the statistics of both tokens: each block writes complete rows of dX, and nothing is added across blocks.
#include "losses.cu"

// Rows and keys of a tile, columns of X in shared memory at a time, and columns of dX in registers at a time.
constexpr int RELATION_TILE = 64, RELATION_COLUMNS = 32, RELATION_SLAB = 128;

// Columns of 64 rows, padded so that a column's rows lie in different banks.
typedef float RelationColumns[RELATION_TILE][RELATION_COLUMNS + 1];

// x [tokens, stride], from `column`: RELATION_COLUMNS columns of the rows from `first`. Zeros from the rows' `end` and from `width`.
template <class E>
__device__ __forceinline__ void relation_kl_load(RelationColumns& to, const E* x, u64 stride, int first, int end, int column, int width) {
  for (int i = threadIdx.x; i < RELATION_TILE * RELATION_COLUMNS; i += 256) {
    int row = i / RELATION_COLUMNS, c = i % RELATION_COLUMNS;
    bool valid = first + row < end && column + c < width;
    to[row][c] = valid ? load(x + (u64)(first + row) * stride + column + c) : 0.0f;
  }
}

// The scores of four rows and four keys for each thread: rows 4 (t / 16) + i, keys t % 16 + 16 j. Starts with a barrier.
template <class E>
__device__ __forceinline__ void relation_kl_scores(float (&s)[4][4], RelationColumns& rows, RelationColumns& keys, const E* x, u64 stride,
                                                   int width, int first_row, int first_key, int end) {
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) s[i][j] = 0;
  for (int column = 0; column < width; column += RELATION_COLUMNS) {
    __syncthreads();
    relation_kl_load(rows, x, stride, first_row, end, column, width);
    relation_kl_load(keys, x, stride, first_key, end, column, width);
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < RELATION_COLUMNS; c++) {
      float a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = rows[4 * ty + i][c], b[i] = keys[tx + 16 * i][c];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) s[i][j] += a[i] * b[j];
    }
  }
  float factor = rsqrtf((float)width);
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) s[i][j] *= factor;
}

// For each row and head: the maximum score and log Σ exp(score − maximum), of the student, then of the teacher.
struct alignas(16) RelationStatistics { float max, log_sum, target_max, target_log_sum; };

// x [tokens, heads · width], targets [tokens, heads · target_width]; `tiles` has the first and the end of a sequence, and the first row of
// the tile. → stats [tokens, heads].
template <class E>
__global__ void __launch_bounds__(256) relation_kl_statistics(const E* x, const E* targets, const int* tiles, RelationStatistics* stats,
                                                              int heads, int width, int target_width) {
  __shared__ RelationColumns rows, keys;
  int start = tiles[3 * blockIdx.x], end = tiles[3 * blockIdx.x + 1], first = tiles[3 * blockIdx.x + 2], head = blockIdx.y;
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  SoftmaxSum of_x[4], of_targets[4];
  for (int key = start; key < end; key += RELATION_TILE) {
    float s[4][4], u[4][4];
    relation_kl_scores(s, rows, keys, x + head * width, heads * width, width, first, key, end);
    relation_kl_scores(u, rows, keys, targets + head * target_width, heads * target_width, target_width, first, key, end);
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (key + tx + 16 * j >= end) s[i][j] = u[i][j] = minus_infinity();
      of_x[i].add(s[i]);
      of_targets[i].add(u[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    of_x[i].join(16);
    of_targets[i].join(16);
    int row = first + 4 * ty + i;
    if (tx == 0 && row < end)
      stats[(u64)row * heads + head] = {of_x[i].max, logf(of_x[i].sum), of_targets[i].max, logf(of_targets[i].sum)};
  }
}
KERNEL_OF(relation_kl_statistics, f32)
KERNEL_OF(relation_kl_statistics, bf16)

// → a part of the loss for each block and, unless dx is null, dx = scale/√width (dS + dSᵀ) X.
template <class E>
__global__ void __launch_bounds__(256, 1) relation_kl_rows(const E* x, const E* targets, const int* tiles, const RelationStatistics* stats,
                                                        E* dx, LossPart* parts, int heads, int width, int target_width, float scale) {
  __shared__ RelationColumns rows, keys;
  __shared__ float ds[RELATION_TILE][RELATION_TILE + 1];
  int start = tiles[3 * blockIdx.x], end = tiles[3 * blockIdx.x + 1], first = tiles[3 * blockIdx.x + 2], head = blockIdx.y;
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  u64 stride = (u64)heads * width;
  x += head * width, targets += head * target_width;
  float loss = 0;
  for (int slab = 0; slab < width; slab += RELATION_SLAB) {
    float sums[4][8];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int k = 0; k < 8; k++) sums[i][k] = 0;
    for (int key = start; key < end; key += RELATION_TILE) {
      float s[4][4], u[4][4];
      relation_kl_scores(s, rows, keys, x, stride, width, first, key, end);
      relation_kl_scores(u, rows, keys, targets, (u64)heads * target_width, target_width, first, key, end);
      float kl = 0;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int row = first + 4 * ty + i;
        bool valid_row = row < end;
        RelationStatistics of_row = stats[(u64)(valid_row ? row : first) * heads + head];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          int other = key + tx + 16 * j;
          bool valid = valid_row && other < end;
          RelationStatistics of_key = stats[(u64)(other < end ? other : start) * heads + head];
          float log_p = s[i][j] - of_row.max - of_row.log_sum, log_q = u[i][j] - of_row.target_max - of_row.target_log_sum;
          float q = expf(log_q);
          if (valid) kl += q * (log_q - log_p);
          float d = expf(log_p) - q + expf(s[i][j] - of_key.max - of_key.log_sum) - expf(u[i][j] - of_key.target_max - of_key.target_log_sum);
          ds[4 * ty + i][tx + 16 * j] = valid ? d : 0.0f;
        }
      }
      if (slab == 0) loss += kl;
      if (!dx) continue;
#pragma unroll
      for (int m = 0; m < 4; m++) {
        int column = slab + m * RELATION_COLUMNS;
        if (column >= width) continue;
        __syncthreads();
        relation_kl_load(keys, x, stride, key, end, column, width);
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < RELATION_TILE; k++) {
          float left = keys[k][tx], right = keys[k][tx + 16];
#pragma unroll
          for (int i = 0; i < 4; i++) sums[i][2 * m] += ds[4 * ty + i][k] * left, sums[i][2 * m + 1] += ds[4 * ty + i][k] * right;
        }
      }
    }
    if (!dx) break;
    float factor = scale * rsqrtf((float)width);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int row = first + 4 * ty + i;
#pragma unroll
      for (int k = 0; k < 8; k++) {
        int column = slab + tx + 16 * k;
        if (row < end && column < width) store(dx + (u64)row * stride + head * width + column, sums[i][k] * factor);
      }
    }
  }
  double sum = block_sum((double)loss);
  if (threadIdx.x == 0) parts[(u64)blockIdx.y * gridDim.x + blockIdx.x] = {sum, 0, 0, 0};
}
KERNEL_OF(relation_kl_rows, f32)
KERNEL_OF(relation_kl_rows, bf16)
