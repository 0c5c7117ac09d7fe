// A block for each segment and 32 vectors of columns, of eight warps.
#include "device.cuh"

// The weighted sums, in f64. A row of weight 0 is left out, even if it is not finite. Each warp has every eighth row.
template <class E>
__global__ void __launch_bounds__(256) segment_sum(const E* x, const int* ends, const float* weights, float* y, int hidden) {
  constexpr int W = Vector<E>::WIDTH;
  __shared__ double sums[8][W][32];
  int segment = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32, end = ends[segment + 1];
  LaneColumns<E> columns(blockIdx.y, hidden, (u64)x | (u64)y);
  double sum[W] = {};
  for (int row = ends[segment] + warp; row < end; row += 8) {
    float weight = weights[row];
    if (weight == 0) continue;
    Vector<E> v = columns.read(x + (u64)row * hidden);
#pragma unroll
    for (int j = 0; j < W; j++) sum[j] += (double)weight * v.x[j];
  }
#pragma unroll
  for (int j = 0; j < W; j++) sums[warp][j][lane] = sum[j];
  __syncthreads();
  if (warp > 0) return;
  Vector<E> all;
#pragma unroll
  for (int j = 0; j < W; j++) {
    for (int k = 1; k < 8; k++) sum[j] += sums[k][j][lane];
    all.x[j] = (float)sum[j];
  }
  columns.write_floats(y + (u64)segment * hidden, all);
}
KERNEL_OF(segment_sum, f32)
KERNEL_OF(segment_sum, bf16)

template <class E>
__global__ void __launch_bounds__(256) segment_sum_backward(const float* dy, const int* ends, const float* weights, E* dx, int hidden) {
  int segment = blockIdx.x, warp = threadIdx.x / 32, end = ends[segment + 1];
  LaneColumns<E> columns(blockIdx.y, hidden, (u64)dy | (u64)dx);
  Vector<E> d = columns.read_floats(dy + (u64)segment * hidden);
  for (int row = ends[segment] + warp; row < end; row += 8) {
    float weight = weights[row];
    Vector<E> v;
#pragma unroll
    for (int j = 0; j < v.WIDTH; j++) v.x[j] = weight * d.x[j];
    columns.write(dx + (u64)row * hidden, v);
  }
}
KERNEL_OF(segment_sum_backward, f32)
KERNEL_OF(segment_sum_backward, bf16)

// A maximum so far and its row. Of equal numbers, the first counts; NaN is larger than all others.
struct SegmentMax {
  float max;
  int row;
  __device__ __forceinline__ void add(float x, int of) {
    if (x > max || (x != x && max == max)) max = x, row = of;
  }
};

// The maxima of each segment without its first rows. The warps have consecutive parts of the rows.
template <class E>
__global__ void __launch_bounds__(256) segment_max(const E* x, const int* ends, float* y, int* rows, int hidden, int skipped) {
  constexpr int W = Vector<E>::WIDTH;
  __shared__ SegmentMax parts[8][W][32];
  int segment = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int start = ends[segment] + skipped, end = ends[segment + 1], share = (end - start + 7) / 8;
  LaneColumns<E> columns(blockIdx.y, hidden, (u64)x | (u64)y);
  SegmentMax best[W];
#pragma unroll
  for (int j = 0; j < W; j++) best[j] = {bits_to_float(0xff800000u), start};
  for (int row = start + warp * share; row < min(end, start + (warp + 1) * share); row++) {
    Vector<E> v = columns.read(x + (u64)row * hidden);
#pragma unroll
    for (int j = 0; j < W; j++) best[j].add(v.x[j], row);
  }
#pragma unroll
  for (int j = 0; j < W; j++) parts[warp][j][lane] = best[j];
  __syncthreads();
  if (warp > 0) return;
  Vector<E> all;
#pragma unroll
  for (int j = 0; j < W; j++) {
    for (int k = 1; k < 8; k++) best[j].add(parts[k][j][lane].max, parts[k][j][lane].row);
    all.x[j] = best[j].max;
    if (columns.has(j)) rows[(u64)segment * hidden + columns.column(j)] = best[j].row;
  }
  columns.write_floats(y + (u64)segment * hidden, all);
}
KERNEL_OF(segment_max, f32)
KERNEL_OF(segment_max, bf16)

// dx[rows[i], i % hidden] = dy[i]. Segments have different rows.
template <class E>
__global__ void __launch_bounds__(256) segment_max_backward(const float* dy, const int* rows, E* dx, u64 count, int hidden) {
  for (u64 i = thread_index(); i < count; i += thread_count()) store(dx + (u64)rows[i] * hidden + i % hidden, dy[i]);
}
KERNEL_OF(segment_max_backward, f32)
KERNEL_OF(segment_max_backward, bf16)
