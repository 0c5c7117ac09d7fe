// A warp for each row. In f64, as on the CPU: rows are few.
#include "device.cuh"

// y = x/max(‖x‖, ε)
extern "C" __global__ void __launch_bounds__(128) normalize_rows(const float* x, float* y, int rows, int columns, double epsilon) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += (u64)row * columns, y += (u64)row * columns;
  double squares = 0;
  for (int i = lane; i < columns; i += 32) squares += (double)x[i] * x[i];
  double norm = fmax(sqrt(warp_sum(squares)), epsilon);
  for (int i = lane; i < columns; i += 32) y[i] = (float)(x[i] / norm);
}
KERNEL(normalize_rows)

// dx = (dy − x (x·dy)/‖x‖²)/‖x‖; dy/ε if ‖x‖ is less than ε
extern "C" __global__ void __launch_bounds__(128) normalize_backward(const float* x, const float* dy, float* dx, int rows, int columns,
                                                                     double epsilon) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += (u64)row * columns, dy += (u64)row * columns, dx += (u64)row * columns;
  double squares = 0, product = 0;
  for (int i = lane; i < columns; i += 32) squares += (double)x[i] * x[i], product += (double)x[i] * dy[i];
  double norm = sqrt(warp_sum(squares));
  product = warp_sum(product);
  double along = norm > epsilon ? product / (norm * norm) : 0, factor = 1 / fmax(norm, epsilon);
  for (int i = lane; i < columns; i += 32) dx[i] = (float)(factor * (dy[i] - along * x[i]));
}
KERNEL(normalize_backward)
