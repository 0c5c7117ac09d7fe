#include "device.cuh"

// Copies `columns` numbers of each row to a matrix with another stride: a warp for each row.
template <class E> __global__ void __launch_bounds__(128) concat_copy(const E* x, u64 x_stride, E* y, u64 y_stride, int rows, int columns) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row < rows) copy_by_warp(x + row * x_stride, y + row * y_stride, columns);
}
KERNEL_OF(concat_copy, f32)
KERNEL_OF(concat_copy, bf16)
