// A warp for each row; sixteen bytes a lane if rows allow it.
#include "activation.cuh"

// x = [u g] → f(u) ∘ g
template <class E> __global__ void __launch_bounds__(128) glu_forward(const E* x, E* y, int rows, int width, int activation) {
  constexpr int W = Vector<E>::WIDTH;
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const E *u = x + (u64)row * 2 * width, *g = u + width;
  y += (u64)row * width;
  float unused;
  if (all_aligned((u64)x | (u64)y | (u64)width * sizeof(E))) {
    for (int i = lane * W; i < width; i += 32 * W) {
      Vector<E> v = load_vector(u + i), gate = load_vector(g + i);
#pragma unroll
      for (int j = 0; j < W; j++) v.x[j] = activate(activation, v.x[j], unused) * gate.x[j];
      store_vector(y + i, v);
    }
  } else {
    for (int i = lane; i < width; i += 32) store(y + i, activate(activation, load(u + i), unused) * load(g + i));
  }
}
KERNEL_OF(glu_forward, f32)
KERNEL_OF(glu_forward, bf16)

// dx = [dy ∘ g ∘ f′(u), dy ∘ f(u)]
template <class E>
__global__ void __launch_bounds__(128) glu_backward(const E* x, const E* dy, E* dx, int rows, int width, int activation) {
  constexpr int W = Vector<E>::WIDTH;
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const E *u = x + (u64)row * 2 * width, *g = u + width;
  E *du = dx + (u64)row * 2 * width, *dg = du + width;
  bool vectors = all_aligned((u64)x | (u64)dy | (u64)dx | (u64)width * sizeof(E));
  dy += (u64)row * width;
  if (vectors) {
    for (int i = lane * W; i < width; i += 32 * W) {
      Vector<E> v = load_vector(u + i), gate = load_vector(g + i), d = load_vector(dy + i);
#pragma unroll
      for (int j = 0; j < W; j++) {
        float slope, f = activate(activation, v.x[j], slope);
        v.x[j] = d.x[j] * gate.x[j] * slope;
        gate.x[j] = d.x[j] * f;
      }
      store_vector(du + i, v);
      store_vector(dg + i, gate);
    }
  } else {
    for (int i = lane; i < width; i += 32) {
      float slope, f = activate(activation, load(u + i), slope), d = load(dy + i);
      store(du + i, d * load(g + i) * slope);
      store(dg + i, d * f);
    }
  }
}
KERNEL_OF(glu_backward, f32)
KERNEL_OF(glu_backward, bf16)
