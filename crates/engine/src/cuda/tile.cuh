// Tiles of 64 rows by 64 bf16 in shared memory: eight 16-byte pieces a row, piece p of row r at p ^ (r % 8), so that the eight rows
// that ldmatrix reads at once lie in different banks. And the products of 16 rows a warp with them.
#pragma once
#include "device.cuh"

constexpr int TILE = 64 * 8;  // pieces

// Rows past `rows` become zeros.
__device__ __forceinline__ void load_tile(u128* tile, const bf16* from, size_t stride, int rows) {
  for (int i = threadIdx.x; i < TILE; i += 128) {
    int r = i / 8, p = i % 8;
    copy_async16(&tile[r * 8 + (p ^ (r % 8))], from + (size_t)(r < rows ? r : 0) * stride + p * 8, r < rows);
  }
}
// Rows r0.. r0 + 15 as the left operand of four mma along k.
__device__ __forceinline__ void left_operand(u32 (&a)[4][4], const u128* tile, int r0) {
  int lane = threadIdx.x % 32, r = r0 + lane % 16;
  for (int k = 0; k < 4; k++) ldmatrix_x4(a[k], &tile[r * 8 + ((2 * k + lane / 16) ^ (r % 8))]);
}
// c [16, 64] += a [16, 64] · tileᵀ
__device__ __forceinline__ void times_transposed(float (&c)[8][4], const u32 (&a)[4][4], const u128* tile) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      int r = n * 8 + lane % 8 + lane / 16 * 8;
      u32 b[4];
      ldmatrix_x4(b, &tile[r * 8 + ((2 * k + lane / 8 % 2) ^ (r % 8))]);
      mma_bf16(c[n], a[k], b[0], b[1]);
      mma_bf16(c[n + 1], a[k], b[2], b[3]);
    }
}
// c [16, 64] += a [16, 64] · tile
__device__ __forceinline__ void times(float (&c)[8][4], const u32 (&a)[4][4], const u128* tile) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      int r = k * 16 + lane % 16;
      u32 b[4];
      ldmatrix_x4_trans(b, &tile[r * 8 + ((n + lane / 16) ^ (r % 8))]);
      mma_bf16(c[n], a[k], b[0], b[1]);
      mma_bf16(c[n + 1], a[k], b[2], b[3]);
    }
}
// A product's result [16, 64] as the left operand of the next.
__device__ __forceinline__ void as_left_operand(u32 (&a)[4][4], const float (&c)[8][4]) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    a[k][0] = pack_bf16(c[2 * k][0], c[2 * k][1]);
    a[k][1] = pack_bf16(c[2 * k][2], c[2 * k][3]);
    a[k][2] = pack_bf16(c[2 * k + 1][0], c[2 * k + 1][1]);
    a[k][3] = pack_bf16(c[2 * k + 1][2], c[2 * k + 1][3]);
  }
}
__device__ __forceinline__ void clear(float (&c)[8][4]) {
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) c[n][i] = 0;
}
// Rows r0 + g and r0 + g + 8 of a result, scaled, to bf16 at `to`; rows past `rows` are left out.
__device__ __forceinline__ void store_rows(bf16* to, size_t stride, int r0, int rows, const float (&c)[8][4], float top, float bottom) {
  int lane = threadIdx.x % 32, r = r0 + lane / 4;
#pragma unroll
  for (int n = 0; n < 8; n++) {
    int column = n * 8 + lane % 4 * 2;
    if (r < rows) *(u32*)(to + (size_t)r * stride + column) = pack_bf16(c[n][0] * top, c[n][1] * top);
    if (r + 8 < rows) *(u32*)(to + (size_t)(r + 8) * stride + column) = pack_bf16(c[n][2] * bottom, c[n][3] * bottom);
  }
}
