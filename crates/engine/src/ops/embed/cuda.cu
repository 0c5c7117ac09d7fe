#include "device.cuh"

// y[t] = word[ids[t]] + position[positions[t]] + segment[segments[t]]: a warp for each token. Missing tables are null.
template <class E>
__global__ void __launch_bounds__(128) embed_tokens(const int* ids, const int* positions, const int* segments, const float* word,
                                                    const float* position, const float* segment, E* y, int tokens, int hidden) {
  constexpr int W = Vector<E>::WIDTH;
  int t = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (t >= tokens) return;
  word += (u64)ids[t] * hidden;
  if (position) position += (u64)positions[t] * hidden;
  if (segment) segment += (u64)segments[t] * hidden;
  y += (u64)t * hidden;
  int column = lane;
  if (all_aligned((u64)word | (u64)position | (u64)segment | (u64)y)) {
    for (int v = lane; v < hidden / W; v += 32) {
      Vector<E> sum = load_floats<E>(word + v * W);
      if (position) {
        Vector<E> p = load_floats<E>(position + v * W);
#pragma unroll
        for (int j = 0; j < W; j++) sum.x[j] += p.x[j];
      }
      if (segment) {
        Vector<E> s = load_floats<E>(segment + v * W);
#pragma unroll
        for (int j = 0; j < W; j++) sum.x[j] += s.x[j];
      }
      store_vector(y + v * W, sum);
    }
    column += hidden / W * W;
  }
  for (; column < hidden; column += 32) {
    float sum = word[column];
    if (position) sum += position[column];
    if (segment) sum += segment[column];
    store(y + column, sum);
  }
}
KERNEL_OF(embed_tokens, f32)
KERNEL_OF(embed_tokens, bf16)

// Some rows of x that belong to the same row of a table: those at list[start..end], or x[start..end] without a list. Their sum is added
// to row `row` of the gradient of table number `table`, or becomes row `row` of the partial sums if there is no such table.
struct alignas(16) EmbedPart { int start, end, table, row; };

// A warp for each part and 32 vectors of columns. The rows are added in their order.
template <class E>
__global__ void __launch_bounds__(128) embed_sums(const E* x, const int* list, const EmbedPart* parts, int count, float* word,
                                                  float* position, float* segment, float* partial, int hidden) {
  int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (index >= count) return;
  EmbedPart part = parts[index];
  float* to = part.table == 0 ? word : part.table == 1 ? position : part.table == 2 ? segment : partial;
  LaneColumns<E> columns(blockIdx.y, hidden, (u64)x | (u64)to);
  to += (u64)part.row * hidden;
  Vector<E> sum = {};
#pragma unroll 4
  for (int i = part.start; i < part.end; i++) {
    Vector<E> row = columns.read(x + (u64)(list ? list[i] : i) * hidden);
#pragma unroll
    for (int j = 0; j < row.WIDTH; j++) sum.x[j] += row.x[j];
  }
  if (part.table < 3) {
    Vector<E> before = columns.read_floats(to);
#pragma unroll
    for (int j = 0; j < sum.WIDTH; j++) sum.x[j] += before.x[j];
  }
  columns.write_floats(to, sum);
}
KERNEL_OF(embed_sums, f32)
KERNEL_OF(embed_sums, bf16)
