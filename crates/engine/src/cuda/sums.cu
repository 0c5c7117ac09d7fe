// Sums over rows: first within blocks of rows, then over the blocks, so that they do not depend on the card.
#include "device.cuh"

// The sums over each block of `block` rows of x [rows, columns]: partial [blocks, columns]. A thread for each column.
template <class E>
__global__ void __launch_bounds__(128) block_sums(const E* x, float* partial, int rows, int columns, int block) {
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  int first = blockIdx.y * block, end = min(rows, first + block);
  float sum = 0;
  for (int row = first; row < end; row++) sum += load(x + (u64)row * columns + column);
  partial[(u64)blockIdx.y * columns + column] = sum;
}
KERNEL_OF(block_sums, f32)
KERNEL_OF(block_sums, bf16)

// to[i] = Σ partial[b * stride + i] over the blocks, plus to[i] if `adds`.
extern "C" __global__ void __launch_bounds__(128) add_blocks(const float* partial, float* to, int blocks, u64 stride, u64 count, int adds) {
  u64 i = thread_index();
  if (i >= count) return;
  float sum = adds ? to[i] : 0;
  for (int b = 0; b < blocks; b++) sum += partial[b * stride + i];
  to[i] = sum;
}
KERNEL(add_blocks)
