// A block for each 2,048 elements, which has a part of the loss.
#include "losses.cu"

template <class E>
__global__ void __launch_bounds__(256) mse_loss_all(const E* z, const float* targets, E* dz, LossPart* parts, u64 count, float scale) {
  LossPart part{0, 0, 0, 0};
  u64 first = (u64)blockIdx.x * 2048;
  for (u64 i = first + threadIdx.x; i < count && i < first + 2048; i += blockDim.x) {
    float target = targets[i], error = load(z + i) - target;
    if (target != target) {  // NaN: not known
      store(dz + i, 0.0f);
      continue;
    }
    part.sum += (double)error * error;
    part.weight += 1, part.count += 1;
    store(dz + i, 2.0f * scale * error);
  }
  store_block_part(parts + blockIdx.x, part);
}
KERNEL_OF(mse_loss_all, f32)
KERNEL_OF(mse_loss_all, bf16)
