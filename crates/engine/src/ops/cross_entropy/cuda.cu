// A warp for each row.
#include "losses.cu"

// z [rows, classes], a label for each row, and optional weights of the classes → a part of the loss for each row, and dz.
template <class E>
__global__ void __launch_bounds__(128) cross_entropy_rows(const E* z, E* dz, const int* labels, const float* weights, LossPart* parts,
                                                          int rows, int classes, float scale) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  u64 first = (u64)row * classes;
  int label = labels[row];
  float weight = weights && label != IGNORED_LABEL ? weights[label] : 1.0f;
  LossPart part = warp_cross_entropy(z + first, dz + first, 1, classes, label, scale * weight);
  part.sum *= weight, part.weight *= weight;
  if (threadIdx.x % 32 == 0) parts[row] = part;
}
KERNEL_OF(cross_entropy_rows, f32)
KERNEL_OF(cross_entropy_rows, bf16)
