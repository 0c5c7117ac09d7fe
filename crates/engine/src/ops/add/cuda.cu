#include "device.cuh"

// y = r + x times the mask. Sixteen bytes a thread.
template <class E> __global__ void __launch_bounds__(256) add_residual(const E* x, const E* residual, E* y, u64 count, Mask mask) {
  constexpr int W = Vector<E>::WIDTH;
  bool aligned = all_aligned((u64)x | (u64)residual | (u64)y);
  for (u64 i = thread_index() * W; i < count; i += thread_count() * W) {
    if (aligned && i + W <= count) {
      Vector<E> v = load_vector(x + i), r = load_vector(residual + i);
      if (mask.threshold) {
#pragma unroll
        for (int j = 0; j < W; j++) v.x[j] *= mask_factor(mask, (u32)(i + j));
      }
#pragma unroll
      for (int j = 0; j < W; j++) v.x[j] += r.x[j];
      store_vector(y + i, v);
    } else {
      for (u64 j = i; j < i + W && j < count; j++) {
        float v = load(x + j);
        if (mask.threshold) v *= mask_factor(mask, (u32)j);
        store(y + j, v + load(residual + j));
      }
    }
  }
}
KERNEL_OF(add_residual, f32)
KERNEL_OF(add_residual, bf16)
