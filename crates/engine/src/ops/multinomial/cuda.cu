// A block for each row, in steps of 256 classes as on the CPU: their sums of exponentials are known first, then only one step is searched
// class by class.
#include "device.cuh"

// exp(z − max). Differences below −80 have no probability, as on the CPU.
__device__ __forceinline__ float multinomial_weight(float z, float max) { return z - max < -80.0f ? 0.0f : expf(z - max); }

// logits [rows, classes] and a number in [0, 1) for each row → a class for each. `sums` of shared memory has a number for each 256 classes.
template <class E> __global__ void __launch_bounds__(256) multinomial_rows(const E* logits, const double* uniform, int* samples, int classes) {
  constexpr int W = Vector<E>::WIDTH;
  EXTERN_SHARED(shared);
  double* sums = (double*)shared;
  __shared__ float weights[256];
  __shared__ int chosen;
  __shared__ double remaining;
  int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, steps = (classes + 255) / 256;
  bool vectors = all_aligned((u64)logits | (u64)classes * sizeof(E));
  const E* z = logits + (u64)blockIdx.x * classes;
  float max = bits_to_float(0xff800000u);
  if (vectors) {
    for (int c = thread * W; c < classes; c += 256 * W) {
      Vector<E> v = load_vector(z + c);
#pragma unroll
      for (int i = 0; i < W; i++) max = fmaxf(max, v.x[i]);
    }
  } else {
    for (int c = thread; c < classes; c += 256) max = fmaxf(max, load(z + c));
  }
  max = block_max(max);
  for (int step = warp; step < steps; step += 8) {
    float sum = 0;
    if (vectors) {
#pragma unroll
      for (int k = 0; k < 8; k += W) {
        int c = step * 256 + k * 32 + lane * W;
        if (c >= classes) continue;
        Vector<E> v = load_vector(z + c);
#pragma unroll
        for (int i = 0; i < W; i++) sum += multinomial_weight(v.x[i], max);
      }
    } else {
      for (int c = step * 256 + lane; c < classes && c < step * 256 + 256; c += 32) sum += multinomial_weight(load(z + c), max);
    }
    sum = warp_sum(sum);
    if (lane == 0) sums[step] = sum;
  }
  __syncthreads();
  if (thread == 0) {
    double total = 0;
    int last = 0;
    for (int step = 0; step < steps; step++) {
      total += sums[step];
      if (sums[step] > 0) last = step;
    }
    double rest = uniform[blockIdx.x] * total;
    int step = 0;
    while (rest >= sums[step] && step < last) rest -= sums[step++];
    chosen = step, remaining = rest;
  }
  __syncthreads();
  int first = chosen * 256;
  weights[thread] = first + thread < classes ? multinomial_weight(load(z + first + thread), max) : 0.0f;
  __syncthreads();
  if (thread == 0) {
    double rest = remaining;
    int sample = 0;
    for (int i = 0; i < 256 && first + i < classes; i++) {
      double e = weights[i];
      if (e > 0) {
        sample = first + i;
        if (rest < e) break;
      }
      rest -= e;
    }
    samples[blockIdx.x] = sample;
  }
}
KERNEL_OF(multinomial_rows, f32)
KERNEL_OF(multinomial_rows, bf16)
