// A block for each row of logits, which is read twice: the second time from L2.
#include "losses.cu"

// Up to eight neighbouring elements as f32; those past `count` are −∞.
struct LinearKlEight { float x[8]; };
template <class E> __device__ __forceinline__ LinearKlEight linear_kl_load(const E* at, int count, bool vectors) {
  constexpr int W = Vector<E>::WIDTH;
  LinearKlEight r;
  if (vectors && count == 8) {
#pragma unroll
    for (int k = 0; k < 8; k += W) {
      Vector<E> v = load_vector(at + k);
#pragma unroll
      for (int i = 0; i < W; i++) r.x[k + i] = v.x[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) r.x[i] = i < count ? load(at + i) : minus_infinity();
  }
  return r;
}
template <class E> __device__ __forceinline__ void linear_kl_store(E* at, const LinearKlEight& values, int count, bool vectors) {
  constexpr int W = Vector<E>::WIDTH;
  if (vectors && count == 8) {
#pragma unroll
    for (int k = 0; k < 8; k += W) {
      Vector<E> v;
#pragma unroll
      for (int i = 0; i < W; i++) v.x[i] = values.x[k + i];
      store_vector(at + k, v);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (i < count) store(at + i, values.x[i]);
  }
}

// z [rows, stride], of which the first `words` columns count, and u [rows, words] → a part of the loss for each row and, unless dz is null,
// dz = scale (softmax(z · factor) − softmax(u · factor)). dz has the stride of z, and may be z.
template <class U, class E>
__device__ __forceinline__ void linear_kl_row(const float* z, const U* u, E* dz, LossPart* parts, int words, int stride, float factor,
                                              float scale) {
  u64 row = blockIdx.x;
  // A thread takes eight neighbouring words if rows of u are whole vectors, and one otherwise.
  bool vectors = all_aligned((u64)u | (u64)words * sizeof(U));
  int step = vectors ? 8 : 1;
  z += row * stride, u += row * words, dz = dz ? dz + row * stride : dz;
  SoftmaxSum of_z, of_u;
  float top = minus_infinity();
  u32 top_index = NO_INDEX;
  for (int c = threadIdx.x * step; c < words; c += blockDim.x * step) {
    int count = min(step, words - c);
    LinearKlEight a = linear_kl_load(z + c, count, vectors), b = linear_kl_load(u + c, count, vectors);
    of_z.add(a.x, factor);
    of_u.add(b.x, factor);
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (b.x[i] > top) top = b.x[i], top_index = c + i;
  }
  of_u.join_block(factor);
  u32 best = block_min(top == of_u.max ? top_index : NO_INDEX);
  float z_best = best == NO_INDEX ? minus_infinity() : z[best];
  // Its barriers also keep dz from being written before all of z is read.
  of_z.join_block(factor);
  float cross = 0, p_factor = scale / of_z.sum, q_factor = scale / of_u.sum;
  for (int c = threadIdx.x * step; c < words; c += blockDim.x * step) {
    int count = min(step, words - c);
    LinearKlEight a = linear_kl_load(z + c, count, vectors), b = linear_kl_load(u + c, count, vectors), d;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (i >= count) continue;
      float x = (a.x[i] - of_z.max) * factor, t = (b.x[i] - of_u.max) * factor, q = expf(t);
      cross += q * (t - x);
      d.x[i] = p_factor * expf(x) - q_factor * q;
    }
    if (dz) linear_kl_store(dz + c, d, count, vectors);
  }
  cross = block_sum(cross);
  if (threadIdx.x == 0) {
    double kl = (double)(cross / of_u.sum) + (log((double)of_z.sum) - log((double)of_u.sum));
    parts[row] = {kl, 1, 1, z_best >= of_z.max ? 1ull : 0ull};
  }
}
template <class U>
__global__ void __launch_bounds__(512) linear_kl_to_f32(const float* z, const U* u, f32* dz, LossPart* parts, int words, int stride,
                                                        float factor, float scale) {
  linear_kl_row(z, u, dz, parts, words, stride, factor, scale);
}
KERNEL_OF(linear_kl_to_f32, f32)
KERNEL_OF(linear_kl_to_f32, bf16)
template <class U>
__global__ void __launch_bounds__(512) linear_kl_to_bf16(const float* z, const U* u, bf16* dz, LossPart* parts, int words, int stride,
                                                         float factor, float scale) {
  linear_kl_row(z, u, dz, parts, words, stride, factor, scale);
}
KERNEL_OF(linear_kl_to_bf16, f32)
KERNEL_OF(linear_kl_to_bf16, bf16)
