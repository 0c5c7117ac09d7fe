// A warp for each row.
#include "losses.cu"

// x, targets [rows, columns] → a part of the loss for each row, and dx.
template <class E>
__global__ void __launch_bounds__(128) cosine_embedding_loss_rows(const E* x, const E* targets, E* dx, LossPart* parts, int rows,
                                                                  int columns, float scale) {
  constexpr int W = Vector<E>::WIDTH;
  constexpr float EPS = 1e-12f;
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  bool vectors = all_aligned((u64)x | (u64)targets | (u64)dx | (u64)columns * sizeof(E));
  x += (u64)row * columns, targets += (u64)row * columns, dx += (u64)row * columns;
  float dot = 0, xx = 0, tt = 0;
  if (vectors) {
    for (int c = lane * W; c < columns; c += 32 * W) {
      Vector<E> a = load_vector(x + c), b = load_vector(targets + c);
#pragma unroll
      for (int i = 0; i < W; i++) dot += a.x[i] * b.x[i], xx += a.x[i] * a.x[i], tt += b.x[i] * b.x[i];
    }
  } else {
    for (int c = lane; c < columns; c += 32) {
      float a = load(x + c), b = load(targets + c);
      dot += a * b, xx += a * a, tt += b * b;
    }
  }
  dot = warp_sum(dot), xx = warp_sum(xx) + EPS, tt = warp_sum(tt) + EPS;
  float inverse = 1.0f / sqrtf(xx * tt), cosine = dot * inverse;
  if (lane == 0) parts[row] = {1.0f - cosine, 1, 1, 0};
  float of_x = scale * cosine / xx, of_t = scale * inverse;
  if (vectors) {
    for (int c = lane * W; c < columns; c += 32 * W) {
      Vector<E> a = load_vector(x + c), b = load_vector(targets + c);
#pragma unroll
      for (int i = 0; i < W; i++) a.x[i] = of_x * a.x[i] - of_t * b.x[i];
      store_vector(dx + c, a);
    }
  } else {
    for (int c = lane; c < columns; c += 32) store(dx + c, of_x * load(x + c) - of_t * load(targets + c));
  }
}
KERNEL_OF(cosine_embedding_loss_rows, f32)
KERNEL_OF(cosine_embedding_loss_rows, bf16)
