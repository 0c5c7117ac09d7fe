// Sixteen bytes of elements a thread, if the addresses allow it.
#include "device.cuh"

// y = a + b; y may be one of them.
template <class E> __global__ void __launch_bounds__(256) sum_pairs(const E* a, const E* b, E* y, u64 count) {
  constexpr int W = Vector<E>::WIDTH;
  bool aligned = all_aligned((u64)a | (u64)b | (u64)y);
  for (u64 i = thread_index() * W; i < count; i += thread_count() * W) {
    if (aligned && i + W <= count) {
      Vector<E> v = load_vector(a + i), other = load_vector(b + i);
#pragma unroll
      for (int j = 0; j < W; j++) v.x[j] += other.x[j];
      store_vector(y + i, v);
    } else {
      for (u64 j = i; j < i + W && j < count; j++) store(y + j, load(a + j) + load(b + j));
    }
  }
}
KERNEL_OF(sum_pairs, f32)
KERNEL_OF(sum_pairs, bf16)
