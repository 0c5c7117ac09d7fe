#include "device.cuh"

// y[i] = x[rows[i]]: a warp for each row of y.
template <class E> __global__ void __launch_bounds__(128) index_select(const E* x, const int* rows, E* y, int count, int hidden) {
  int i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (i >= count) return;
  copy_by_warp(x + (u64)rows[i] * hidden, y + (u64)i * hidden, hidden);
}
KERNEL_OF(index_select, f32)
KERNEL_OF(index_select, bf16)

// dx[rows[g]] += the sum of the rows of dy that group g has, items[starts[g]..starts[g + 1]]. A warp for each group and 32 vectors of
// columns.
template <class E>
__global__ void __launch_bounds__(128) index_select_backward(const E* dy, const int* rows, const int* starts, const int* items, E* dx,
                                                             int groups, int hidden) {
  int g = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (g >= groups) return;
  LaneColumns<E> columns(blockIdx.y, hidden, (u64)dy | (u64)dx);
  E* to = dx + (u64)rows[g] * hidden;
  Vector<E> sum = columns.read(to);
  for (int i = starts[g]; i < starts[g + 1]; i++) {
    Vector<E> row = columns.read(dy + (u64)items[i] * hidden);
#pragma unroll
    for (int j = 0; j < sum.WIDTH; j++) sum.x[j] += row.x[j];
  }
  columns.write(to, sum);
}
KERNEL_OF(index_select_backward, f32)
KERNEL_OF(index_select_backward, bf16)
