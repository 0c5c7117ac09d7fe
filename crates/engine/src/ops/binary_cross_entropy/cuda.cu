// A block for each 2,048 elements, which has a part of the loss. In f64, as on the CPU: targets are few.
#include "losses.cu"

template <class E>
__global__ void __launch_bounds__(256) binary_cross_entropy_all(const E* z, const float* targets, E* dz, LossPart* parts, u64 count,
                                                                float scale) {
  LossPart part{0, 0, 0, 0};
  u64 first = (u64)blockIdx.x * 2048;
  for (u64 i = first + threadIdx.x; i < count && i < first + 2048; i += blockDim.x) {
    float target = targets[i];
    if (target != target) {  // NaN: not known
      store(dz + i, 0.0f);
      continue;
    }
    double x = load(z + i), t = target;
    part.sum += fmax(x, 0.0) - x * t + log1p(exp(-fabs(x)));
    part.weight += 1, part.count += 1;
    part.correct += (x > 0) == (t >= 0.5) ? 1 : 0;
    store(dz + i, scale * (float)(1.0 / (1.0 + exp(-x)) - t));
  }
  store_block_part(parts + blockIdx.x, part);
}
KERNEL_OF(binary_cross_entropy_all, f32)
KERNEL_OF(binary_cross_entropy_all, bf16)
