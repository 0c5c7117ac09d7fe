// The activation function and its derivative, element by element. The products are those of cuBLASLt.
#include "activation.cuh"

// u → f(u) in y, which may be u. Sixteen bytes a thread if the addresses allow it.
template <class E> __global__ void __launch_bounds__(256) activate_all(const E* u, E* y, u64 count, int activation) {
  constexpr int W = Vector<E>::WIDTH;
  bool aligned = all_aligned((u64)u | (u64)y);
  float unused;
  for (u64 i = thread_index() * W; i < count; i += thread_count() * W) {
    if (aligned && i + W <= count) {
      Vector<E> v = load_vector(u + i);
#pragma unroll
      for (int j = 0; j < W; j++) v.x[j] = activate(activation, v.x[j], unused);
      store_vector(y + i, v);
    } else {
      for (u64 j = i; j < i + W && j < count; j++) store(y + j, activate(activation, load(u + j), unused));
    }
  }
}
KERNEL_OF(activate_all, f32)
KERNEL_OF(activate_all, bf16)

// du = dy f′(u), in dy's memory.
template <class E> __global__ void __launch_bounds__(256) activate_backward(const E* u, E* dy, u64 count, int activation) {
  constexpr int W = Vector<E>::WIDTH;
  bool aligned = all_aligned((u64)u | (u64)dy);
  for (u64 i = thread_index() * W; i < count; i += thread_count() * W) {
    float derivative;
    if (aligned && i + W <= count) {
      Vector<E> v = load_vector(u + i), d = load_vector(dy + i);
#pragma unroll
      for (int j = 0; j < W; j++) activate(activation, v.x[j], derivative), d.x[j] *= derivative;
      store_vector(dy + i, d);
    } else {
      for (u64 j = i; j < i + W && j < count; j++) activate(activation, load(u + j), derivative), store(dy + j, load(dy + j) * derivative);
    }
  }
}
KERNEL_OF(activate_backward, f32)
KERNEL_OF(activate_backward, bf16)
