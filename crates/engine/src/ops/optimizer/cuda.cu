// A block of threads for each part of the arena. Parts start anywhere, but at the same place of all arenas modulo four: so after the first
// few weights, sixteen bytes of each arena are read and written at a time.
#include "device.cuh"

// Where a part starts in the arena of the weights, in that of the moments, and in that of the gradients; how many weights it has; the number
// of its group or parameter.
struct alignas(16) OptimizerPart { u64 w, m, g; u32 count, group; };

// A part's weights that are processed four at a time: from `head` to `tail`.
struct OptimizerVectors {
  u32 head, tail;
  __device__ __forceinline__ OptimizerVectors(u64 address, bool aligned, u32 count) {
    head = aligned ? min(count, (u32)((16 - address % 16) % 16 / 4)) : count;
    tail = head + (count - head) / 4 * 4;
  }
};

// Σ g² of each part.
extern "C" __global__ void __launch_bounds__(256) optimizer_square_sums(const float* g, const OptimizerPart* parts, double* sums) {
  OptimizerPart part = parts[blockIdx.x];
  g += part.g;
  OptimizerVectors vectors((u64)g, true, part.count);
  double sum = 0;
  for (u32 i = threadIdx.x; i < vectors.head; i += blockDim.x) sum += (double)g[i] * g[i];
  for (u32 i = vectors.head + threadIdx.x * 4; i < vectors.tail; i += blockDim.x * 4) {
    Vector<f32> v = load_vector(g + i);
#pragma unroll
    for (int j = 0; j < 4; j++) sum += (double)v.x[j] * v.x[j];
  }
  for (u32 i = vectors.tail + threadIdx.x; i < part.count; i += blockDim.x) sum += (double)g[i] * g[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
KERNEL(optimizer_square_sums)

// The arenas: weights and their copy in bf16, which may be null, moments, and gradients.
struct OptimizerArenas { float* w; bf16* copy; float *m, *v; const float* g; };

// Calls f(w, m, v, g) for each weight of a part. It may change what is stored afterwards.
template <bool READS_GRADIENTS, bool STORES_MOMENTS, bool STORES_WEIGHTS, class F>
__device__ __forceinline__ void optimizer_each(OptimizerArenas a, const OptimizerPart& part, const F& f) {
  a.w += part.w, a.m += part.m, a.v += part.m;
  if (READS_GRADIENTS) a.g += part.g;
  if (STORES_WEIGHTS && a.copy) a.copy += part.w;
  bool aligned = all_aligned(((u64)a.w ^ (u64)a.m) | ((u64)a.w ^ (u64)a.v));
  if (READS_GRADIENTS) aligned = aligned && all_aligned((u64)a.w ^ (u64)a.g);
  OptimizerVectors vectors((u64)a.w, aligned, part.count);
  auto one = [&](u32 i) {
    float w = a.w[i], m = a.m[i], v = a.v[i];
    f(w, m, v, READS_GRADIENTS ? a.g[i] : 0.0f);
    if (STORES_MOMENTS) a.m[i] = m, a.v[i] = v;
    if (STORES_WEIGHTS) {
      a.w[i] = w;
      if (a.copy) store(a.copy + i, w);
    }
  };
  for (u32 i = threadIdx.x; i < vectors.head; i += blockDim.x) one(i);
  for (u32 i = vectors.head + threadIdx.x * 4; i < vectors.tail; i += blockDim.x * 4) {
    Vector<f32> w = load_vector(a.w + i), m = load_vector(a.m + i), v = load_vector(a.v + i), g = {};
    if (READS_GRADIENTS) g = load_vector(a.g + i);
#pragma unroll
    for (int j = 0; j < 4; j++) f(w.x[j], m.x[j], v.x[j], g.x[j]);
    if (STORES_MOMENTS) store_vector(a.m + i, m), store_vector(a.v + i, v);
    if (STORES_WEIGHTS) {
      store_vector(a.w + i, w);
      // The copy starts at the same place as the weights, so four of its numbers are aligned to eight bytes.
      if (a.copy) *(u64*)(a.copy + i) = (u64)pack_bf16(w.x[0], w.x[1]) | (u64)pack_bf16(w.x[2], w.x[3]) << 32;
    }
  }
  for (u32 i = vectors.tail + threadIdx.x; i < part.count; i += blockDim.x) one(i);
}

struct OptimizerMoments {
  float factor, beta1, beta2;
  __device__ __forceinline__ void update(float& m, float& v, float g) const {
    g *= factor;
    m = fmaf(1.0f - beta1, g - m, m);
    v = fmaf(beta2, v, (1.0f - beta2) * g * g);
  }
};

// m̂/(√v̂ + ε), except for the factor 1/(1 − β₁ᵗ).
__device__ __forceinline__ float optimizer_direction(float m, float v, float eps, float root_correction) {
  return m / fmaf(sqrtf(v), root_correction, eps);
}

// `rates` has the factor of the direction and 1 − lr λ of each group.
extern "C" __global__ void __launch_bounds__(256) optimizer_adamw(float* w, bf16* copy, float* m, float* v, const float* g,
                                                                  const OptimizerPart* parts, const float* rates, float factor, float beta1,
                                                                  float beta2, float eps, float root_correction) {
  OptimizerPart part = parts[blockIdx.x];
  float rate = rates[2 * part.group], decay = rates[2 * part.group + 1];
  OptimizerMoments moments{factor, beta1, beta2};
  optimizer_each<true, true, true>({w, copy, m, v, g}, part, [&](float& w, float& m, float& v, float g) {
    moments.update(m, v, g);
    w = fmaf(-rate, optimizer_direction(m, v, eps, root_correction), w * decay);
  });
}
KERNEL(optimizer_adamw)

// Updates the moments; writes Σ w² and Σ u² of each part, u = scale · direction + λ w. `rates` has two numbers for each parameter, of which
// λ is the second.
extern "C" __global__ void __launch_bounds__(256) optimizer_lamb_norms(float* w, float* m, float* v, const float* g, const OptimizerPart* parts,
                                                                       const float* rates, double* sums, float factor, float beta1,
                                                                       float beta2, float eps, float root_correction, float scale) {
  OptimizerPart part = parts[blockIdx.x];
  float decay = rates[2 * part.group + 1];
  OptimizerMoments moments{factor, beta1, beta2};
  double weights = 0, updates = 0;
  optimizer_each<true, true, false>({w, nullptr, m, v, g}, part, [&](float& w, float& m, float& v, float g) {
    moments.update(m, v, g);
    float u = fmaf(decay, w, scale * optimizer_direction(m, v, eps, root_correction));
    weights += (double)w * w;
    updates += (double)u * u;
  });
  weights = block_sum(weights);
  updates = block_sum(updates);
  if (threadIdx.x == 0) sums[2 * blockIdx.x] = weights, sums[2 * blockIdx.x + 1] = updates;
}
KERNEL(optimizer_lamb_norms)

// w −= rate u; `rates` has the rate and λ of each parameter.
extern "C" __global__ void __launch_bounds__(256) optimizer_lamb_update(float* w, bf16* copy, float* m, float* v, const OptimizerPart* parts,
                                                                        const float* rates, float eps, float root_correction,
                                                                        float scale) {
  OptimizerPart part = parts[blockIdx.x];
  float rate = rates[2 * part.group], decay = rates[2 * part.group + 1];
  optimizer_each<false, false, true>({w, copy, m, v, nullptr}, part, [&](float& w, float& m, float& v, float) {
    w = fmaf(-rate, fmaf(decay, w, scale * optimizer_direction(m, v, eps, root_correction)), w);
  });
}
KERNEL(optimizer_lamb_update)
