// A warp for each row. Its lanes read 16 bytes at a time if rows allow it. The row is read again for each pass over it: it is in L1.
#include "device.cuh"

// s of one row, a vector of elements at a time.
template <class E> struct NormRow {
  const E *x, *residual;  // of this row; the residual may be null
  Mask mask;
  u64 first;  // the index of the row's first element

  __device__ __forceinline__ float at(int column) const {
    float s = load(x + column);
    if (mask.threshold) s *= mask_factor(mask, (u32)(first + column));
    return residual ? s + load(residual + column) : s;
  }
  __device__ __forceinline__ Vector<E> vector_at(int column) const {
    Vector<E> s = load_vector(x + column);
    if (mask.threshold) {
#pragma unroll
      for (int i = 0; i < s.WIDTH; i++) s.x[i] *= mask_factor(mask, (u32)(first + column + i));
    }
    if (residual) {
      Vector<E> r = load_vector(residual + column);
#pragma unroll
      for (int i = 0; i < s.WIDTH; i++) s.x[i] += r.x[i];
    }
    return s;
  }
  // Calls f(column, s) for each element of this lane.
  template <class F> __device__ __forceinline__ void each(int hidden, bool vectors, const F& f) const {
    int lane = threadIdx.x % 32;
    if (vectors) {
      for (int column = lane * Vector<E>::WIDTH; column < hidden; column += 32 * Vector<E>::WIDTH) {
        Vector<E> s = vector_at(column);
#pragma unroll
        for (int i = 0; i < s.WIDTH; i++) f(column + i, s.x[i]);
      }
    } else {
      for (int column = lane; column < hidden; column += 32) f(column, at(column));
    }
  }
};

// Whether rows of this width, at these addresses, can be read in vectors.
template <class E> __device__ __forceinline__ bool rows_in_vectors(int hidden, u64 addresses) {
  return all_aligned(addresses | (u64)hidden * sizeof(E));
}

// y = γ (s − μ)/√(σ² + ε) + β, and the statistics (μ, 1/√(σ² + ε)).
template <class E>
__global__ void __launch_bounds__(128) add_norm(const E* x, const E* residual, const float* gamma, const float* beta, E* y, float* stats,
                                                int rows, int hidden, float eps, Mask mask) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  u64 first = (u64)row * hidden;
  bool vectors = rows_in_vectors<E>(hidden, (u64)x | (u64)residual | (u64)y);
  NormRow<E> s{x + first, residual ? residual + first : nullptr, mask, first};
  float sum = 0, squares = 0;
  s.each(hidden, vectors, [&](int, float v) { sum += v; });
  float mean = warp_sum(sum) / hidden;
  s.each(hidden, vectors, [&](int, float v) { squares += (v - mean) * (v - mean); });
  float scale = 1.0f / sqrtf(warp_sum(squares) / hidden + eps);
  int lane = threadIdx.x % 32;
  if (vectors) {
    for (int column = lane * Vector<E>::WIDTH; column < hidden; column += 32 * Vector<E>::WIDTH) {
      Vector<E> v = s.vector_at(column);
#pragma unroll
      for (int i = 0; i < v.WIDTH; i++)
        v.x[i] = (v.x[i] - mean) * scale * gamma[column + i] + (beta ? beta[column + i] : 0.0f);
      store_vector(y + first + column, v);
    }
  } else {
    for (int column = lane; column < hidden; column += 32)
      store(y + first + column, (s.at(column) - mean) * scale * gamma[column] + (beta ? beta[column] : 0.0f));
  }
  if (lane == 0) stats[2 * row] = mean, stats[2 * row + 1] = scale;
}
KERNEL_OF(add_norm, f32)
KERNEL_OF(add_norm, bf16)

// ds = (g − mean(g) − x̂ mean(g x̂))/√(σ² + ε) with g = γ dy. Writes ds to dr, unless it is null, and mask ds to dx.
template <class E>
__global__ void __launch_bounds__(128) add_norm_backward(const E* x, const E* residual, const float* gamma, const float* stats, const E* dy,
                                                         E* dx, E* dr, int rows, int hidden, Mask mask) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  u64 first = (u64)row * hidden;
  bool vectors = rows_in_vectors<E>(hidden, (u64)x | (u64)residual | (u64)dy | (u64)dx | (u64)dr);
  NormRow<E> s{x + first, residual ? residual + first : nullptr, mask, first};
  float mean = stats[2 * row], scale = stats[2 * row + 1], sum = 0, product = 0;
  s.each(hidden, vectors, [&](int column, float v) {
    float g = gamma[column] * load(dy + first + column);
    sum += g;
    product += g * (v - mean) * scale;
  });
  float mean_g = warp_sum(sum) / hidden, mean_gx = warp_sum(product) / hidden;
  int lane = threadIdx.x % 32;
  if (vectors) {
    for (int column = lane * Vector<E>::WIDTH; column < hidden; column += 32 * Vector<E>::WIDTH) {
      Vector<E> v = s.vector_at(column), d = load_vector(dy + first + column);
#pragma unroll
      for (int i = 0; i < v.WIDTH; i++) v.x[i] = (gamma[column + i] * d.x[i] - mean_g - (v.x[i] - mean) * scale * mean_gx) * scale;
      if (dr) store_vector(dr + first + column, v);
      if (mask.threshold) {
#pragma unroll
        for (int i = 0; i < v.WIDTH; i++) v.x[i] *= mask_factor(mask, (u32)(first + column + i));
      }
      store_vector(dx + first + column, v);
    }
  } else {
    for (int column = lane; column < hidden; column += 32) {
      float ds = (gamma[column] * load(dy + first + column) - mean_g - (s.at(column) - mean) * scale * mean_gx) * scale;
      if (dr) store(dr + first + column, ds);
      store(dx + first + column, mask.threshold ? ds * mask_factor(mask, (u32)(first + column)) : ds);
    }
  }
}
KERNEL_OF(add_norm_backward, f32)
KERNEL_OF(add_norm_backward, bf16)

// The sums of dy x̂ and of dy over a block of `block` rows, for each column: partial [blocks, 2, hidden]. A thread for each column.
template <class E>
__global__ void __launch_bounds__(128) add_norm_sums(const E* x, const E* residual, const float* stats, const E* dy, float* partial, int rows,
                                                     int hidden, int block, Mask mask) {
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= hidden) return;
  int first = blockIdx.y * block, end = min(rows, first + block);
  float dgamma = 0, dbeta = 0;
  for (int row = first; row < end; row++) {
    u64 start = (u64)row * hidden;
    NormRow<E> s{x + start, residual ? residual + start : nullptr, mask, start};
    float d = load(dy + start + column);
    dgamma += d * (s.at(column) - stats[2 * row]) * stats[2 * row + 1];
    dbeta += d;
  }
  partial[((u64)blockIdx.y * 2) * hidden + column] = dgamma;
  partial[((u64)blockIdx.y * 2 + 1) * hidden + column] = dbeta;
}
KERNEL_OF(add_norm_sums, f32)
KERNEL_OF(add_norm_sums, bf16)
