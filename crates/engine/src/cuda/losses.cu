// Sums of losses, and what several losses are computed with.
#include "device.cuh"

constexpr float LOWEST_FLOAT = -3.402823466e38f;
constexpr u32 NO_INDEX = 0xffffffffu;
constexpr int IGNORED_LABEL = -100;
__device__ __forceinline__ float minus_infinity() { return bits_to_float(0xff800000u); }

// What some predictions contribute to a loss, as LossSum in Rust.
struct LossPart {
  double sum, weight;
  u64 count, correct;
};

// The sum of all parts, in an order that depends only on their number.
extern "C" __global__ void __launch_bounds__(1024) loss_total(const LossPart* parts, LossPart* total, u64 count) {
  LossPart mine{0, 0, 0, 0};
  for (u64 i = threadIdx.x; i < count; i += blockDim.x) {
    LossPart part = parts[i];
    mine.sum += part.sum, mine.weight += part.weight, mine.count += part.count, mine.correct += part.correct;
  }
  LossPart all{block_sum(mine.sum), block_sum(mine.weight), block_sum(mine.count), block_sum(mine.correct)};
  if (threadIdx.x == 0) *total = all;
}
KERNEL(loss_total)

// The part of a whole block of threads, each with its own part. All threads must take part.
__device__ __forceinline__ void store_block_part(LossPart* to, const LossPart& mine) {
  LossPart all{block_sum(mine.sum), block_sum(mine.weight), block_sum(mine.count), block_sum(mine.correct)};
  if (threadIdx.x == 0) *to = all;
}

// The maximum of logits, and Σ exp((z − max) factor), some logits at a time (Milakov and Gimelshein 2018, "Online normalizer calculation
// for softmax").
struct SoftmaxSum {
  float max = LOWEST_FLOAT, sum = 0;

  // Logits of −∞ contribute nothing.
  template <int N> __device__ __forceinline__ void add(const float (&z)[N], float factor = 1.0f) {
    float larger = max;
#pragma unroll
    for (int i = 0; i < N; i++) larger = fmaxf(larger, z[i]);
    if (larger > max) sum *= expf((max - larger) * factor), max = larger;
#pragma unroll
    for (int i = 0; i < N; i++) sum += expf((z[i] - max) * factor);
  }
  // Adds what other lanes of the warp have: those whose numbers differ only in the bits below `lanes`. All 32 lanes must take part.
  __device__ __forceinline__ void join(int lanes) {
    for (int d = lanes / 2; d; d /= 2) {
      float other = __shfl_xor_sync(0xffffffffu, max, d), other_sum = __shfl_xor_sync(0xffffffffu, sum, d);
      float larger = fmaxf(max, other);
      sum = sum * expf(max - larger) + other_sum * expf(other - larger);
      max = larger;
    }
  }
  // That of all threads of the block. All must take part.
  __device__ __forceinline__ void join_block(float factor = 1.0f) {
    float larger = block_max(max);
    sum = block_sum(sum * expf((max - larger) * factor));
    max = larger;
  }
};

// The least number of a block's threads. All must take part; each gets the result.
__device__ __forceinline__ u32 block_min(u32 x) {
  __shared__ u32 minima[32];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int d = 16; d; d /= 2) x = min(x, __shfl_xor_sync(0xffffffffu, x, d));
  if (lane == 0) minima[warp] = x;
  __syncthreads();
  x = lane < warps ? minima[lane] : NO_INDEX;
  for (int d = 16; d; d /= 2) x = min(x, __shfl_xor_sync(0xffffffffu, x, d));
  __syncthreads();
  return x;
}

// Cross-entropy of `count` logits, `stride` elements apart, by one warp: writes scale · dz, and returns the loss. In f64, since the logits
// are few.
template <class E>
__device__ __forceinline__ LossPart warp_cross_entropy(const E* z, E* dz, u64 stride, int count, int label, float scale) {
  int lane = threadIdx.x % 32;
  if (label == IGNORED_LABEL) {
    for (int c = lane; c < count; c += 32) store(dz + c * stride, 0.0f);
    return {0, 0, 0, 0};
  }
  // The largest logit, and the first index that has it.
  float best = lane < count ? load(z + lane * stride) : minus_infinity();
  u32 index = lane < count ? lane : NO_INDEX;
  for (int c = lane + 32; c < count; c += 32) {
    float v = load(z + c * stride);
    if (v > best) best = v, index = c;
  }
  for (int d = 16; d; d /= 2) {
    float v = __shfl_xor_sync(0xffffffffu, best, d);
    u32 i = __shfl_xor_sync(0xffffffffu, index, d);
    if (v > best || (v == best && i < index)) best = v, index = i;
  }
  double sum = 0;
  // Not unrolled: f64 needs many registers.
#pragma unroll 1
  for (int c = lane; c < count; c += 32) sum += exp((double)load(z + c * stride) - best);
  sum = warp_sum(sum);
  // No division by the sum: it would be a call, for which registers are spilled.
  double log_sum = log(sum) + best, loss = log_sum - load(z + label * stride);
#pragma unroll 1
  for (int c = lane; c < count; c += 32) {
    double p = exp(load(z + c * stride) - log_sum) - (c == label ? 1.0 : 0.0);
    store(dz + c * stride, scale * (float)p);
  }
  return {loss, 1, 1, index == (u32)label ? 1ull : 0ull};
}
