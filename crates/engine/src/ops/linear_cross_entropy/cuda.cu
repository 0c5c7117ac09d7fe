// A block for each row of logits, which is read twice: the second time from L2, which holds the rows of all blocks at work if these are not
// too many. So blocks are large: 768 threads, of which both 1,536 and 2,048 threads of a multiprocessor hold two.
#include "losses.cu"

// z [rows, stride], of which the first `words` columns count, and a label for each row → a part of the loss for each row and, unless dz is
// null, dz = scale (softmax(z) − onehot(label)). dz has the same stride, and may be z. The stride is a multiple of eight.
template <class E>
__global__ void __launch_bounds__(768) linear_cross_entropy_rows(const float* z, E* dz, const int* labels, LossPart* parts, int words,
                                                                 int stride, float scale) {
  constexpr int W = Vector<E>::WIDTH;
  u64 row = blockIdx.x, first = row * stride;
  int label = labels[row];
  float label_logit = z[first + label];
  SoftmaxSum all;
  for (int c = threadIdx.x * 4; c < words; c += blockDim.x * 4) {
    Vector<f32> v = load_vector(z + first + c);
#pragma unroll
    for (int i = 0; i < 4; i++) v.x[i] = c + i < words ? v.x[i] : minus_infinity();
    all.add(v.x);
  }
  // Its barriers also keep dz from being written before all of z is read.
  all.join_block();
  if (threadIdx.x == 0) {
    double loss = log((double)all.sum) + ((double)all.max - label_logit);
    parts[row] = {loss, 1, 1, label_logit >= all.max ? 1ull : 0ull};
  }
  if (!dz) return;
  float factor = scale / all.sum;
  for (int c = threadIdx.x * W; c < words; c += blockDim.x * W) {
    Vector<E> d;
#pragma unroll
    for (int k = 0; k < W; k += 4) {
      Vector<f32> v = load_vector(z + first + c + k);
#pragma unroll
      for (int i = 0; i < 4; i++) d.x[k + i] = v.x[i];
    }
#pragma unroll
    for (int i = 0; i < W; i++) {
      float p = expf(d.x[i] - all.max) * factor;
      d.x[i] = c + i < words ? (c + i == label ? p - scale : p) : 0.0f;
    }
    store_vector(dz + first + c, d);
  }
}
KERNEL_OF(linear_cross_entropy_rows, f32)
KERNEL_OF(linear_cross_entropy_rows, bf16)
