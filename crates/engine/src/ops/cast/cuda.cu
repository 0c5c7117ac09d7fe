// Each thread converts eight elements: sixteen bytes of bf16 and twice sixteen of f32, if the addresses allow it.
#include "device.cuh"

extern "C" __global__ void __launch_bounds__(256) cast_f32_to_bf16(const f32* x, bf16* y, u64 count) {
  bool aligned = all_aligned((u64)x | (u64)y);
  for (u64 i = thread_index() * 8; i < count; i += thread_count() * 8) {
    if (aligned && i + 8 <= count) {
      Vector<f32> low = load_vector(x + i), high = load_vector(x + i + 4);
      Vector<bf16> v;
#pragma unroll
      for (int j = 0; j < 4; j++) v.x[j] = low.x[j], v.x[4 + j] = high.x[j];
      store_vector(y + i, v);
    } else {
      for (u64 j = i; j < i + 8 && j < count; j++) store(y + j, x[j]);
    }
  }
}
KERNEL(cast_f32_to_bf16)

extern "C" __global__ void __launch_bounds__(256) cast_bf16_to_f32(const bf16* x, f32* y, u64 count) {
  bool aligned = all_aligned((u64)x | (u64)y);
  for (u64 i = thread_index() * 8; i < count; i += thread_count() * 8) {
    if (aligned && i + 8 <= count) {
      Vector<bf16> v = load_vector(x + i);
      store_vector(y + i, Vector<f32>{{v.x[0], v.x[1], v.x[2], v.x[3]}});
      store_vector(y + i + 4, Vector<f32>{{v.x[4], v.x[5], v.x[6], v.x[7]}});
    } else {
      for (u64 j = i; j < i + 8 && j < count; j++) y[j] = load(x + j);
    }
  }
}
KERNEL(cast_bf16_to_f32)
