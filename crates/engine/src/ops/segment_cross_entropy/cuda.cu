// A warp for each column of each segment. Neighbouring warps read neighbouring columns of the same rows.
#include "losses.cu"

// z [rows, columns], the ends of the segments, and labels [segments, columns] → a part of the loss for each label, and dz.
template <class E>
__global__ void __launch_bounds__(128) segment_cross_entropy_columns(const E* z, E* dz, const int* ends, const int* labels, LossPart* parts,
                                                                     u64 count, int columns, float scale) {
  u64 i = (u64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (i >= count) return;
  int segment = i / columns, first = ends[segment];
  u64 start = (u64)first * columns + i % columns;
  LossPart part = warp_cross_entropy(z + start, dz + start, columns, ends[segment + 1] - first, labels[i], scale);
  if (threadIdx.x % 32 == 0) parts[i] = part;
}
KERNEL_OF(segment_cross_entropy_columns, f32)
KERNEL_OF(segment_cross_entropy_columns, bf16)
