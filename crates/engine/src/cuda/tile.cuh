// Tiles of R rows by D bf16 in shared memory (D = 32, 64 or 128), as 16-byte pieces whose order in a row depends on the row, so that the
// eight rows that ldmatrix reads at once lie in different banks. And the products of 16 rows a warp with them. Blocks have 128 threads.
#pragma once
#include "device.cuh"

// Pieces of a tile.
template <int D> __device__ __forceinline__ constexpr int tile_pieces(int rows) { return rows * D / 8; }
// Where piece p of row r is.
template <int D> __device__ __forceinline__ constexpr int tile_piece(int r, int p) {
  return r * (D / 8) + (p ^ (D == 32 ? r / 2 % 4 : r % 8));
}
// R rows of D columns; rows past `rows` become zeros.
template <int D, int R> __device__ __forceinline__ void load_tile(u128* tile, const bf16* from, u64 stride, int rows) {
  for (int i = threadIdx.x; i < tile_pieces<D>(R); i += 128) {
    int r = i / (D / 8), p = i % (D / 8);
    copy_async16(&tile[tile_piece<D>(r, p)], from + (u64)(r < rows ? r : 0) * stride + p * 8, r < rows);
  }
}
// Rows r0.. r0 + 15 of a tile as the left operand of mma along k: held in registers, or, if there are not enough of them, read for each use.
template <int D, bool Held> struct Left {
  const u128* tile;
  int r0;
  u32 held[Held ? D / 16 : 1][4];

  __device__ __forceinline__ void read(int k, u32 (&a)[4]) const {
    int lane = threadIdx.x % 32;
    ldmatrix_x4(a, &tile[tile_piece<D>(r0 + lane % 16, 2 * k + lane / 16)]);
  }
  // The tile must have landed.
  __device__ __forceinline__ void set(const u128* of, int first_row) {
    tile = of, r0 = first_row;
    if constexpr (Held) {
#pragma unroll
      for (int k = 0; k < D / 16; k++) read(k, held[k]);
    }
  }
};
// c [16, 8 N] += a [16, D] · tileᵀ, where the tile is [8 N, D].
template <int D, bool Held, int N> __device__ __forceinline__ void times_transposed(float (&c)[N][4], const Left<D, Held>& left, const u128* tile) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    u32 a[4];
    if constexpr (Held) {
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = left.held[k][i];
    } else {
      left.read(k, a);
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      u32 b[4];
      ldmatrix_x4(b, &tile[tile_piece<D>(n * 8 + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2)]);
      mma_bf16(c[n], a, b[0], b[1]);
      mma_bf16(c[n + 1], a, b[2], b[3]);
    }
  }
}
// c [16, D] += a [16, 16 K] · tile, where the tile is [16 K, D]. a is a product's result, rounded to bf16.
template <int D, int K> __device__ __forceinline__ void times(float (&c)[D / 8][4], const float (&a)[2 * K][4], const u128* tile) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < K; k++) {
    // The parts of a result are where the next product's left operand has them.
    u32 left[4] = {pack_bf16(a[2 * k][0], a[2 * k][1]), pack_bf16(a[2 * k][2], a[2 * k][3]), pack_bf16(a[2 * k + 1][0], a[2 * k + 1][1]),
                   pack_bf16(a[2 * k + 1][2], a[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      u32 b[4];
      ldmatrix_x4_trans(b, &tile[tile_piece<D>(k * 16 + lane % 16, n + lane / 16)]);
      mma_bf16(c[n], left, b[0], b[1]);
      mma_bf16(c[n + 1], left, b[2], b[3]);
    }
  }
}
template <int N> __device__ __forceinline__ void clear(float (&c)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) c[n][i] = 0;
}
// Rows r0 + g and r0 + g + 8 of a result, scaled, to bf16 at `to`; rows past `rows` are left out.
template <int N> __device__ __forceinline__ void store_rows(bf16* to, u64 stride, int r0, int rows, const float (&c)[N][4], float top, float bottom) {
  int lane = threadIdx.x % 32, r = r0 + lane / 4;
#pragma unroll
  for (int n = 0; n < N; n++) {
    int column = n * 8 + lane % 4 * 2;
    if (r < rows) *(u32*)(to + (u64)r * stride + column) = pack_bf16(c[n][0] * top, c[n][1] * top);
    if (r + 8 < rows) *(u32*)(to + (u64)(r + 8) * stride + column) = pack_bf16(c[n][2] * bottom, c[n][3] * bottom);
  }
}
