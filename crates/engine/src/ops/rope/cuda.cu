#include "device.cuh"

// Rotates queries and keys of each row of x [T, 3H] by the angles of its position, and copies the values: a warp for each row.
template <class E>
__global__ void __launch_bounds__(128) rope_rotate(const E* x, E* y, const int* positions, const float* table, int rows, int columns,
                                                   int width, int inverse) {
  constexpr int W = Vector<E>::WIDTH;
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  bool vectors = all_aligned((u64)x | (u64)y | (u64)table | (u64)(width / 2) * sizeof(E));
  x += (u64)row * columns, y += (u64)row * columns;
  int half = width / 2, rotated = columns / 3 * 2;
  const float *cosines = table + (u64)positions[row] * width, *sines = cosines + half;
  float sign = inverse ? -1.0f : 1.0f;
  // Each lane has pairs of numbers: number i of a head, and number i + half.
  int step = vectors ? W : 1;
  for (int pair = lane * step; pair < rotated / 2; pair += 32 * step) {
    int i = pair % half, at = pair / half * width + i;
    if (vectors) {
      Vector<E> a = load_vector(x + at), b = load_vector(x + at + half), c = load_floats<E>(cosines + i), s = load_floats<E>(sines + i);
#pragma unroll
      for (int j = 0; j < W; j++) {
        float p = a.x[j], q = b.x[j], sine = sign * s.x[j];
        a.x[j] = p * c.x[j] - q * sine;
        b.x[j] = q * c.x[j] + p * sine;
      }
      store_vector(y + at, a);
      store_vector(y + at + half, b);
    } else {
      float p = load(x + at), q = load(x + at + half), c = cosines[i], sine = sign * sines[i];
      store(y + at, p * c - q * sine);
      store(y + at + half, q * c + p * sine);
    }
  }
  copy_by_warp(x + rotated, y + rotated, columns - rotated);
}
KERNEL_OF(rope_rotate, f32)
KERNEL_OF(rope_rotate, bf16)
