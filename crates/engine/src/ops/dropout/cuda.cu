#include "device.cuh"

// y = x times the mask. Sixteen bytes a thread.
template <class E> __global__ void __launch_bounds__(256) dropout_all(const E* x, E* y, u64 count, Mask mask) {
  constexpr int W = Vector<E>::WIDTH;
  bool aligned = all_aligned((u64)x | (u64)y);
  for (u64 i = thread_index() * W; i < count; i += thread_count() * W) {
    if (aligned && i + W <= count) {
      Vector<E> v = load_vector(x + i);
#pragma unroll
      for (int j = 0; j < W; j++) v.x[j] *= mask_factor(mask, (u32)(i + j));
      store_vector(y + i, v);
    } else {
      for (u64 j = i; j < i + W && j < count; j++) store(y + j, load(x + j) * mask_factor(mask, (u32)j));
    }
  }
}
KERNEL_OF(dropout_all, f32)
KERNEL_OF(dropout_all, bf16)
