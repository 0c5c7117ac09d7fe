// The parts are an array of addresses.
#include "device.cuh"

// shares = softmax(w), by one warp.
extern "C" __global__ void __launch_bounds__(32) scalar_mix_softmax(const float* w, float* shares, int parts) {
  int lane = threadIdx.x;
  float most = bits_to_float(0xff800000u), sum = 0;
  for (int k = lane; k < parts; k += 32) most = fmaxf(most, w[k]);
  most = warp_max(most);
  for (int k = lane; k < parts; k += 32) sum += expf(w[k] - most);
  sum = warp_sum(sum);
  for (int k = lane; k < parts; k += 32) shares[k] = expf(w[k] - most) / sum;
}
KERNEL(scalar_mix_softmax)

// y = γ Σ shares[k] x[k]. Sixteen bytes a thread; tensors start at multiples of them.
template <class E>
__global__ void __launch_bounds__(256) scalar_mix_forward(const E* const* x, const float* shares, const float* scale, E* y, int parts,
                                                          u64 count) {
  constexpr int W = Vector<E>::WIDTH;
  for (u64 i = thread_index() * W; i < count; i += thread_count() * W) {
    if (i + W <= count) {
      Vector<E> sum = {};
      for (int k = 0; k < parts; k++) {
        Vector<E> v = load_vector(x[k] + i);
#pragma unroll
        for (int j = 0; j < W; j++) sum.x[j] += shares[k] * v.x[j];
      }
#pragma unroll
      for (int j = 0; j < W; j++) sum.x[j] *= *scale;
      store_vector(y + i, sum);
    } else {
      for (u64 j = i; j < count; j++) {
        float sum = 0;
        for (int k = 0; k < parts; k++) sum += shares[k] * load(x[k] + j);
        store(y + j, *scale * sum);
      }
    }
  }
}
KERNEL_OF(scalar_mix_forward, f32)
KERNEL_OF(scalar_mix_forward, bf16)

// dx[k] = γ shares[k] dy, of the parts whose address is not null.
template <class E>
__global__ void __launch_bounds__(256) scalar_mix_backward(const E* dy, E* const* dx, const float* shares, const float* scale, int parts,
                                                           u64 count) {
  constexpr int W = Vector<E>::WIDTH;
  for (u64 i = thread_index() * W; i < count; i += thread_count() * W) {
    if (i + W <= count) {
      Vector<E> d = load_vector(dy + i), v;
      for (int k = 0; k < parts; k++) {
        if (!dx[k]) continue;
        float factor = *scale * shares[k];
#pragma unroll
        for (int j = 0; j < W; j++) v.x[j] = factor * d.x[j];
        store_vector(dx[k] + i, v);
      }
    } else {
      for (u64 j = i; j < count; j++)
        for (int k = 0; k < parts; k++)
          if (dx[k]) store(dx[k] + j, *scale * shares[k] * load(dy + j));
    }
  }
}
KERNEL_OF(scalar_mix_backward, f32)
KERNEL_OF(scalar_mix_backward, bf16)

// Σ dy ∘ x[k] over `block` elements: partial [parts, blocks]. A block of threads for each.
template <class E>
__global__ void __launch_bounds__(256) scalar_mix_products(const E* dy, const E* const* x, double* partial, u64 count, int block) {
  constexpr int W = Vector<E>::WIDTH;
  const E* of = x[blockIdx.y];
  u64 start = (u64)blockIdx.x * block, end = min(count, start + block);
  float sum = 0;
  for (u64 i = start + threadIdx.x * W; i < end; i += blockDim.x * W) {
    if (i + W <= end) {
      Vector<E> d = load_vector(dy + i), v = load_vector(of + i);
#pragma unroll
      for (int j = 0; j < W; j++) sum += d.x[j] * v.x[j];
    } else {
      for (u64 j = i; j < end; j++) sum += load(dy + j) * load(of + j);
    }
  }
  double all = block_sum((double)sum);
  if (threadIdx.x == 0) partial[(u64)blockIdx.y * gridDim.x + blockIdx.x] = all;
}
KERNEL_OF(scalar_mix_products, f32)
KERNEL_OF(scalar_mix_products, bf16)

// The gradients of γ and w from the products' sums, by one block.
extern "C" __global__ void __launch_bounds__(256) scalar_mix_gradients(const double* partial, u64 blocks, double* products, const float* shares,
                                                                       const float* scale, int parts, float* dscale, int adds_scale,
                                                                       float* dw, int adds_w) {
  double mean = 0;
  for (int k = 0; k < parts; k++) {
    double product = 0;
    for (u64 i = threadIdx.x; i < blocks; i += blockDim.x) product += partial[k * blocks + i];
    product = block_sum(product);
    if (threadIdx.x == 0) products[k] = product;
    mean += shares[k] * product;
  }
  if (threadIdx.x > 0) return;
  *dscale = (adds_scale ? *dscale : 0) + (float)mean;
  for (int k = 0; k < parts; k++) dw[k] = (adds_w ? dw[k] : 0) + *scale * shares[k] * (float)(products[k] - mean);
}
KERNEL(scalar_mix_gradients)
