// A block for each segment and 32 vectors of columns. Its eight warps have every eighth row each.
#include "device.cuh"

template <class E> __global__ void __launch_bounds__(256) segment_mean(const E* x, const int* ends, E* y, int hidden) {
  constexpr int W = Vector<E>::WIDTH;
  __shared__ float sums[8][W][32];
  int segment = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32, start = ends[segment], end = ends[segment + 1];
  LaneColumns<E> columns(blockIdx.y, hidden, (u64)x | (u64)y);
  Vector<E> sum = {};
#pragma unroll 4
  for (int row = start + warp; row < end; row += 8) {
    Vector<E> v = columns.read(x + (u64)row * hidden);
#pragma unroll
    for (int j = 0; j < W; j++) sum.x[j] += v.x[j];
  }
#pragma unroll
  for (int j = 0; j < W; j++) sums[warp][j][lane] = sum.x[j];
  __syncthreads();
  if (warp > 0) return;
#pragma unroll
  for (int j = 0; j < W; j++) {
    for (int k = 1; k < 8; k++) sum.x[j] += sums[k][j][lane];
    sum.x[j] /= end - start;
  }
  columns.write(y + (u64)segment * hidden, sum);
}
KERNEL_OF(segment_mean, f32)
KERNEL_OF(segment_mean, bf16)

template <class E> __global__ void __launch_bounds__(256) segment_mean_backward(const E* dy, const int* ends, E* dx, int hidden) {
  int segment = blockIdx.x, warp = threadIdx.x / 32, start = ends[segment], end = ends[segment + 1];
  LaneColumns<E> columns(blockIdx.y, hidden, (u64)dy | (u64)dx);
  Vector<E> v = columns.read(dy + (u64)segment * hidden);
  float share = 1.0f / (end - start);
#pragma unroll
  for (int j = 0; j < v.WIDTH; j++) v.x[j] *= share;
  for (int row = start + warp; row < end; row += 8) columns.write(dx + (u64)row * hidden, v);
}
KERNEL_OF(segment_mean_backward, f32)
KERNEL_OF(segment_mean_backward, bf16)
