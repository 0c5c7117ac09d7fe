// What the kernels are written with: CUDA's own functions, and a few wrappers around instructions that C++ has no words for. NVRTC
// compiles it for a GPU. For tests on a machine without one, a C++ compiler compiles it after cuda_cpu.h.
#pragma once

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
typedef float f32;
struct bf16 { u16 bits; };
struct alignas(16) u128 { u32 w[4]; };

#ifdef CUDA_CPU
#include "cuda_cpu.h"
#else
// A kernel, and the instance of a kernel template for an element type. Rust reads these lines, and asks NVRTC for the instances.
#define KERNEL(name)
#define KERNEL_OF(name, E)
#define EXTERN_SHARED(name) extern __shared__ u128 name[]

__device__ __forceinline__ u32 smem_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// Two f32 to packed bf16, rounded to nearest even; `low` becomes the lower half.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
// Four 8x8 matrices of 16-bit elements from shared memory; lane i gives the address of row i%8 of matrix i/8.
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(smem_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(smem_address(row)) : "memory");
}
// c += a b: a 16x16 by rows, b 16x8 by columns, both bf16; c f32.
__device__ __forceinline__ void mma_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// 16 bytes from global to shared memory, past the registers; zeros instead if `valid` is false.
__device__ __forceinline__ void copy_async16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem_address(shared)), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending> __device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float bits_to_float(u32 x) { return __uint_as_float(x); }
__device__ __forceinline__ u32 float_to_bits(float x) { return __float_as_uint(x); }
#endif

__device__ __forceinline__ float low_float(u32 pair) { return bits_to_float(pair << 16); }
__device__ __forceinline__ float high_float(u32 pair) { return bits_to_float(pair & 0xffff0000u); }

// Elements as f32, whatever their type.
__device__ __forceinline__ float load(const f32* at) { return *at; }
__device__ __forceinline__ float load(const bf16* at) { return bits_to_float((u32)at->bits << 16); }
__device__ __forceinline__ void store(f32* at, float x) { *at = x; }
__device__ __forceinline__ void store(bf16* at, float x) { at->bits = (u16)pack_bf16(x, 0); }

// Sixteen bytes of elements as f32. The address must be a multiple of 16 bytes.
template <class E> struct Vector { static constexpr int WIDTH = 16 / sizeof(E); float x[WIDTH]; };
__device__ __forceinline__ Vector<f32> load_vector(const f32* at) {
  u128 v = *(const u128*)at;
  return {{bits_to_float(v.w[0]), bits_to_float(v.w[1]), bits_to_float(v.w[2]), bits_to_float(v.w[3])}};
}
__device__ __forceinline__ Vector<bf16> load_vector(const bf16* at) {
  u128 v = *(const u128*)at;
  Vector<bf16> r;
#pragma unroll
  for (int i = 0; i < 4; i++) r.x[2 * i] = low_float(v.w[i]), r.x[2 * i + 1] = high_float(v.w[i]);
  return r;
}
__device__ __forceinline__ void store_vector(f32* at, const Vector<f32>& v) {
  *(u128*)at = {{float_to_bits(v.x[0]), float_to_bits(v.x[1]), float_to_bits(v.x[2]), float_to_bits(v.x[3])}};
}
__device__ __forceinline__ void store_vector(bf16* at, const Vector<bf16>& v) {
  *(u128*)at = {{pack_bf16(v.x[0], v.x[1]), pack_bf16(v.x[2], v.x[3]), pack_bf16(v.x[4], v.x[5]), pack_bf16(v.x[6], v.x[7])}};
}
// As many f32 from memory as a vector of E has, for kernels whose other operands are E. The address must be a multiple of 16 bytes.
template <class E> __device__ __forceinline__ Vector<E> load_floats(const f32* at) {
  Vector<E> v;
#pragma unroll
  for (int i = 0; i < v.WIDTH; i += 4) {
    Vector<f32> part = load_vector(at + i);
#pragma unroll
    for (int j = 0; j < 4; j++) v.x[i + j] = part.x[j];
  }
  return v;
}
template <class E> __device__ __forceinline__ void store_floats(f32* at, const Vector<E>& v) {
#pragma unroll
  for (int i = 0; i < v.WIDTH; i += 4) store_vector(at + i, Vector<f32>{{v.x[i], v.x[i + 1], v.x[i + 2], v.x[i + 3]}});
}
// Whether all these addresses, or strides in bytes, are multiples of 16.
__device__ __forceinline__ bool all_aligned(u64 bits) { return bits % 16 == 0; }

// Copies elements within a warp.
template <class E> __device__ __forceinline__ void copy_by_warp(const E* from, E* to, int count) {
  constexpr int W = Vector<E>::WIDTH;
  int lane = threadIdx.x % 32, vectors = all_aligned((u64)from | (u64)to) ? count / W : 0;
#pragma unroll 2
  for (int i = lane; i < vectors; i += 32) ((u128*)to)[i] = ((const u128*)from)[i];
#pragma unroll 1
  for (int i = vectors * W + lane; i < count; i += 32) to[i] = from[i];
}

// What a lane has of the columns of rows of E, where the warp has columns block * COLUMNS and the following: a vector, or as many single
// columns if rows, at these addresses, cannot be read in vectors.
template <class E> struct LaneColumns {
  static constexpr int WIDTH = Vector<E>::WIDTH, COLUMNS = 32 * WIDTH;
  int first, columns;
  bool vectors;

  __device__ __forceinline__ LaneColumns(int block, int columns, u64 addresses)
      : first(block * COLUMNS), columns(columns), vectors(all_aligned(addresses | (u64)columns * sizeof(E))) {}
  __device__ __forceinline__ int column(int j) const {
    int lane = threadIdx.x % 32;
    return first + (vectors ? lane * WIDTH + j : j * 32 + lane);
  }
  __device__ __forceinline__ bool has(int j) const { return column(j) < columns; }
  // Zeros past the end of the row.
  __device__ __forceinline__ Vector<E> read(const E* row) const {
    Vector<E> v = {};
    if (vectors) {
      if (has(0)) v = load_vector(row + column(0));
    } else {
#pragma unroll
      for (int j = 0; j < WIDTH; j++)
        if (has(j)) v.x[j] = load(row + column(j));
    }
    return v;
  }
  __device__ __forceinline__ void write(E* row, const Vector<E>& v) const {
    if (vectors) {
      if (has(0)) store_vector(row + column(0), v);
    } else {
#pragma unroll
      for (int j = 0; j < WIDTH; j++)
        if (has(j)) store(row + column(j), v.x[j]);
    }
  }
  // The same for rows of f32.
  __device__ __forceinline__ Vector<E> read_floats(const f32* row) const {
    Vector<E> v = {};
    if (vectors) {
      if (has(0)) v = load_floats<E>(row + column(0));
    } else {
#pragma unroll
      for (int j = 0; j < WIDTH; j++)
        if (has(j)) v.x[j] = row[column(j)];
    }
    return v;
  }
  __device__ __forceinline__ void write_floats(f32* row, const Vector<E>& v) const {
    if (vectors) {
      if (has(0)) store_floats<E>(row + column(0), v);
    } else {
#pragma unroll
      for (int j = 0; j < WIDTH; j++)
        if (has(j)) row[column(j)] = v.x[j];
    }
  }
};

__device__ __forceinline__ u64 thread_index() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ u64 thread_count() { return (u64)gridDim.x * blockDim.x; }

// Sums and maxima over the lanes of a warp, in a fixed order. All 32 lanes must take part.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
  for (int d = 16; d; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int d = 16; d; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}
// The same over the threads of a block of at most 1,024 threads, a multiple of 32. All threads must take part; each gets the result.
template <class T> __device__ __forceinline__ T block_sum(T x) {
  __shared__ T sums[32];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  x = warp_sum(x);
  if (lane == 0) sums[warp] = x;
  __syncthreads();
  x = warp_sum(lane < warps ? sums[lane] : T(0));
  __syncthreads();
  return x;
}
__device__ __forceinline__ float block_max(float x) {
  __shared__ float maxima[32];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  x = warp_max(x);
  if (lane == 0) maxima[warp] = x;
  __syncthreads();
  x = warp_max(lane < warps ? maxima[lane] : maxima[0]);
  __syncthreads();
  return x;
}

// Counter-based randomness, the same words as on the CPU (random.rs).
struct Mask {
  u32 add, middle, threshold;
  float scale;
};
__device__ __forceinline__ u64 mix(u64 a, u64 b) {
  u64 z = a * 0x9E3779B97F4A7C15ull ^ (b + 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}
// The mask of another row.
__device__ __forceinline__ Mask mask_row(Mask m, u64 row) {
  u64 key = mix(((u64)m.middle << 32) | m.add, row);
  m.add = (u32)key;
  m.middle = (u32)(key >> 32);
  return m;
}
// 0 or 1/(1 − p) for the element at `index`. Kernels skip it if `threshold` is 0.
__device__ __forceinline__ float mask_factor(const Mask& m, u32 index) {
  u32 x = index * 0x9E3779B1u + m.add;
  x ^= x >> 16;
  x = x * 0x7feb352du + m.middle;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x >= m.threshold ? m.scale : 0.0f;
}
