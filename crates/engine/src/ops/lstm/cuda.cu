// The recurrence of a BiLSTM layer: a block for each sequence and direction, a warp for each unit of a step. All products that need no
// previous step are those of cuBLASLt.
#include "device.cuh"

// The token of a step; direction 1 is the reverse one.
struct LstmSequence {
  int first, length, direction;
  __device__ __forceinline__ u64 token(int step) const { return first + (direction ? length - 1 - step : step); }
  // The number of a token's unit in a matrix [T, 2 width].
  __device__ __forceinline__ u64 at(int step, int width) const { return (2 * token(step) + direction) * width; }
};
__device__ __forceinline__ LstmSequence lstm_sequence(const int* ends) {
  return {ends[blockIdx.x], ends[blockIdx.x + 1] - ends[blockIdx.x], (int)blockIdx.y};
}
// This lane's share of the products of `Rows` rows of a matrix with x; a row has `columns` elements, and the next row is `stride` further.
template <int Rows, class E>
__device__ __forceinline__ void lstm_products(float (&sums)[Rows], const E* matrix, u64 stride, const float* x, int columns, bool vectors) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int row = 0; row < Rows; row++) sums[row] = 0;
  if (vectors) {
    constexpr int W = Vector<E>::WIDTH;
    for (int k = lane * W; k < columns; k += 32 * W)
#pragma unroll
      for (int row = 0; row < Rows; row++) {
        Vector<E> w = load_vector(matrix + row * stride + k);
#pragma unroll
        for (int i = 0; i < W; i++) sums[row] += w.x[i] * x[k + i];
      }
  } else {
    for (int k = lane; k < columns; k += 32)
#pragma unroll
      for (int row = 0; row < Rows; row++) sums[row] += load(matrix + row * stride + k) * x[k];
  }
}

// gates [T, 8H] contains W_ih x; it is replaced by i, f, g, o. → c [T, 2H], y [T, 2H].
template <class E>
__global__ void __launch_bounds__(512, 1)
    lstm_forward(float* gates, const E* weight_hh, const float* bias_ih, const float* bias_hh, const int* ends, float* cells, E* y, int hidden) {
  EXTERN_SHARED(shared);  // h of two steps, c
  float *h = (float*)shared, *c = h + 2 * hidden;
  LstmSequence sequence = lstm_sequence(ends);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, direction = sequence.direction;
  const E* weight = weight_hh + (u64)direction * 4 * hidden * hidden;
  bool vectors = all_aligned((u64)weight | (u64)hidden * sizeof(E));
  for (int step = 0; step < sequence.length; step++) {
    const float* last = h + (step + 1) % 2 * hidden;
    for (int unit = warp; unit < hidden; unit += warps) {
      float sums[4] = {};
      if (step > 0) lstm_products<4>(sums, weight + (u64)unit * hidden, (u64)hidden * hidden, last, hidden, vectors);
      float value = 0;
#pragma unroll
      for (int gate = 0; gate < 4; gate++) {
        float sum = warp_sum(sums[gate]);
        if (lane == gate) value = sum;
      }
      // The first four lanes have a gate each.
      if (lane < 4) {
        int row = (4 * direction + lane) * hidden + unit;
        float* gate = gates + sequence.at(step, 4 * hidden) + lane * hidden + unit;
        float a = *gate + value + bias_ih[row] + bias_hh[row];
        value = lane == 2 ? tanhf(a) : 1.0f / (1.0f + expf(-a));
        *gate = value;
      }
      float f = __shfl_sync(0xffffffffu, value, 1), g = __shfl_sync(0xffffffffu, value, 2), o = __shfl_sync(0xffffffffu, value, 3);
      if (lane == 0) {
        float cell = (step > 0 ? f * c[unit] : 0.0f) + value * g, state = o * tanhf(cell);
        u64 to = sequence.at(step, hidden) + unit;
        c[unit] = cell, h[step % 2 * hidden + unit] = state;
        cells[to] = cell;
        store(y + to, state);
      }
    }
    __syncthreads();
  }
}
KERNEL_OF(lstm_forward, f32)
KERNEL_OF(lstm_forward, bf16)

// → da [T, 8H], and h of the previous step of each token, [T, 2H]. weight_t is the transpose of W_hh of each direction, [H, 4H].
template <class E>
__global__ void __launch_bounds__(512, 1) lstm_backward(const float* gates, const float* cells, const E* y, const E* dy, const E* weight_t,
                                                     const int* ends, E* da, E* previous, int hidden) {
  EXTERN_SHARED(shared);  // da of two steps, the next step's contribution to dc
  float *das = (float*)shared, *dc = das + 8 * hidden;
  LstmSequence sequence = lstm_sequence(ends);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const E* weight = weight_t + (u64)sequence.direction * 4 * hidden * hidden;
  bool vectors = all_aligned((u64)weight | (u64)4 * hidden * sizeof(E));
  for (int step = sequence.length - 1; step >= 0; step--) {
    bool is_last = step == sequence.length - 1;
    const float* next = das + (step + 1) % 2 * 4 * hidden;
    for (int unit = warp; unit < hidden; unit += warps) {
      u64 at = sequence.at(step, hidden) + unit;
      float sums[1] = {};
      if (!is_last) lstm_products<1>(sums, weight + (u64)unit * 4 * hidden, 0, next, 4 * hidden, vectors);
      float dh = load(dy + at) + warp_sum(sums[0]);
      float value = lane < 4 ? gates[sequence.at(step, 4 * hidden) + lane * hidden + unit] : 0;
      float i = __shfl_sync(0xffffffffu, value, 0), f = __shfl_sync(0xffffffffu, value, 1);
      float g = __shfl_sync(0xffffffffu, value, 2), o = __shfl_sync(0xffffffffu, value, 3);
      u64 before = step > 0 ? sequence.at(step - 1, hidden) + unit : 0;
      float t = tanhf(cells[at]), last = step > 0 ? cells[before] : 0;
      // Only the first lane reads and writes the unit's dc.
      float through = __shfl_sync(0xffffffffu, lane == 0 && !is_last ? dc[unit] : 0.0f, 0);
      float d = through + dh * o * (1.0f - t * t);
      if (lane < 4) {
        float a = d * g * i * (1.0f - i);
        if (lane == 1) a = d * last * f * (1.0f - f);
        if (lane == 2) a = d * i * (1.0f - g * g);
        if (lane == 3) a = dh * t * o * (1.0f - o);
        das[step % 2 * 4 * hidden + lane * hidden + unit] = a;
        store(da + sequence.at(step, 4 * hidden) + lane * hidden + unit, a);
      }
      if (lane == 0) {
        dc[unit] = d * f;
        store(previous + at, step > 0 ? load(y + before) : 0.0f);
      }
    }
    __syncthreads();
  }
}
KERNEL_OF(lstm_backward, f32)
KERNEL_OF(lstm_backward, bf16)

// The transpose of each of `matrices` matrices [rows, columns].
template <class E> __global__ void __launch_bounds__(256) lstm_transpose(const E* from, E* to, u64 matrices, u64 rows, u64 columns) {
  u64 size = rows * columns;
  for (u64 i = thread_index(); i < matrices * size; i += thread_count()) {
    u64 matrix = i / size, column = i % size / rows, row = i % rows;
    to[i] = from[matrix * size + row * columns + column];
  }
}
KERNEL_OF(lstm_transpose, f32)
KERNEL_OF(lstm_transpose, bf16)
