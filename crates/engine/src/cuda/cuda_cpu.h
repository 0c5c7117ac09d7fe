// Runs the source of CUDA kernels on the host, for tests: one block at a time, each of its threads a fiber. Fibers wait for each other
// at barriers and at the joint instructions of a warp (shuffles, ldmatrix, mma). What CUDA leaves undefined becomes visible: shared
// memory starts as NaN, an asynchronous copy is complete only when it is waited for, and threads run in a chosen order. With
// -fsanitize=thread, each access that no barrier orders is reported, as racecheck of compute-sanitizer does on a GPU.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>
#include <sys/mman.h>

#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif
#define UNSEEN __attribute__((no_sanitize("thread", "address")))

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __noinline__ __attribute__((noinline))
#define threadIdx (cuda_cpu::self->thread)
#define blockIdx (cuda_cpu::grid.block)
#define blockDim (cuda_cpu::grid.threads)
#define gridDim (cuda_cpu::grid.blocks)
#define EXTERN_SHARED(name) u128* name = (u128*)cuda_cpu::grid.shared

namespace cuda_cpu {
struct Dim { u32 x, y, z; };
enum State { Ready, AtWarp, AtBlock, Done };
struct Copy { void* to; const void* from; bool valid; int group; };
struct Fiber {
  void* sp;
  char* stack;
  Dim thread;
  State state;
  const char* at;      // what it waits in
  unsigned meetings;   // of its warp so far
  int groups;          // of asynchronous copies
  Copy* copies;        // not yet waited for
  int copied;
  void* sanitizer;
};
struct Box { u32 words[6]; const void* row; };
struct Warp { Box boxes[2][32]; char order; };  // meetings alternate between the boxes
struct Grid {
  Dim blocks, threads, block;
  void* shared;
  size_t shared_bytes;
  void (*kernel)(void**);
  void** args;
  std::vector<Fiber> fibers;  // at least those of a block
  unsigned count;             // threads of a block
  std::vector<Warp> warps;
  char order, start, end;  // addresses to hang happens-before on: the block's barrier, its start, its end
  bool backwards;
  char error[256];
};
inline thread_local Grid grid;
inline thread_local Fiber* self;
inline thread_local void* scheduler_sp;
inline thread_local void* scheduler_sanitizer;

extern "C" void cuda_cpu_switch(void** save, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.weak cuda_cpu_switch
.type cuda_cpu_switch,@function
cuda_cpu_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");
#else
#error "a context switch for this processor"
#endif

// Happens-before edges for the thread sanitizer.
UNSEEN inline void acquire(void* p) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(p);
#endif
}
UNSEEN inline void release(void* p) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(p);
#endif
}
UNSEEN inline void yield() {
  Fiber* me = self;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(scheduler_sanitizer, 1);
#endif
  cuda_cpu_switch(&me->sp, scheduler_sp);
}
UNSEEN inline void fail(const char* format, ...) {
  if (grid.error[0]) return;
  va_list args;
  va_start(args, format);
  vsnprintf(grid.error, sizeof grid.error, format, args);
  va_end(args);
}
UNSEEN inline unsigned index() { return self - grid.fibers.data(); }
UNSEEN inline Warp& warp() { return grid.warps[index() / 32]; }
// Waits for the warp's other lanes at the same instruction; orders no memory.
UNSEEN inline Box* meet(const char* what, Box mine, u32 mask = 0xffffffffu) {
  if (mask != 0xffffffffu) fail("%s with mask %08x: the emulator knows whole warps only", what, mask);
  unsigned round = self->meetings++ & 1;
  Box* boxes = warp().boxes[round];
  boxes[index() % 32] = mine;
  self->at = what;
  self->state = AtWarp;
  yield();
  return boxes;
}
UNSEEN inline void entry() {
  acquire(&grid.start);
  grid.kernel(grid.args);
  release(&grid.end);
  self->state = Done;
  yield();
  abort();
}
UNSEEN inline void resume(Fiber& f) {
  self = &f;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(f.sanitizer, 1);
#endif
  cuda_cpu_switch(&scheduler_sp, f.sp);
}
constexpr size_t Stack = 128 << 10, Copies = 1024;

UNSEEN inline bool run_block() {
  unsigned threads = grid.count;
  memset(grid.shared, 0xff, grid.shared_bytes);
  release(&grid.start);
  for (unsigned i = 0; i < threads; i++) {
    Fiber& f = grid.fibers[i];
    void** top = (void**)(f.stack + Stack - 64);
    *--top = nullptr;
    *--top = (void*)entry;
    for (int r = 0; r < 6; r++) *--top = nullptr;
    f.sp = top;
    f.state = Ready, f.at = "start", f.meetings = 0, f.groups = 0;
    f.copied = 0;
    f.thread = {i % grid.threads.x, i / grid.threads.x % grid.threads.y, i / grid.threads.x / grid.threads.y};
  }
  for (;;) {
    bool moved = false;
    for (unsigned step = 0; step < (threads + 31) / 32; step++) {
      unsigned w = grid.backwards ? (threads + 31) / 32 - 1 - step : step;
      unsigned first = w * 32, lanes = std::min(32u, threads - first);
      for (;;) {
        for (unsigned l = 0; l < lanes; l++) {
          Fiber& f = grid.fibers[first + (grid.backwards ? lanes - 1 - l : l)];
          if (f.state == Ready) resume(f), moved = true;
          if (grid.error[0]) return false;
        }
        const char* at = nullptr;
        unsigned waiting = 0, over = 0;
        for (unsigned l = 0; l < lanes; l++) {
          Fiber& f = grid.fibers[first + l];
          if (f.state == AtWarp) {
            if (at && strcmp(at, f.at)) return fail("warp %u: lanes meet in %s and in %s", w, at, f.at), false;
            at = f.at, waiting++;
          }
          over += f.state == Done;
        }
        if (!waiting) break;
        if (waiting != lanes) return fail("warp %u: %u of %u lanes reach %s", w, waiting, lanes, at), false;
        for (unsigned l = 0; l < lanes; l++) grid.fibers[first + l].state = Ready;
      }
    }
    unsigned waiting = 0, over = 0;
    for (unsigned i = 0; i < threads; i++) waiting += grid.fibers[i].state == AtBlock, over += grid.fibers[i].state == Done;
    if (over == threads) return true;
    if (waiting + over == threads) {
      for (unsigned i = 0; i < threads; i++)
        if (grid.fibers[i].state == AtBlock) grid.fibers[i].state = Ready;
    } else if (!moved) return fail("deadlock: %u of %u threads at the block's barrier, %u done", waiting, threads, over), false;
  }
}

// 0, or -1 and a message behind cuda_cpu_error.
UNSEEN inline int launch(void (*kernel)(void**), const u32 blocks[3], const u32 threads[3], size_t shared_bytes, void** args, int backwards) {
  grid.blocks = {blocks[0], blocks[1], blocks[2]};
  grid.threads = {threads[0], threads[1], threads[2]};
  grid.kernel = kernel, grid.args = args, grid.backwards = backwards, grid.error[0] = 0;
  unsigned count = threads[0] * threads[1] * threads[2];
  while (grid.fibers.size() < count) {
    Fiber f{};
    f.copies = (Copy*)malloc(Copies * sizeof(Copy));
    f.stack = (char*)mmap(nullptr, Stack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#if defined(__SANITIZE_THREAD__)
    f.sanitizer = __tsan_create_fiber(0);
#endif
    grid.fibers.push_back(f);
  }
  grid.count = count;
  grid.warps.resize((count + 31) / 32);
#if defined(__SANITIZE_THREAD__)
  scheduler_sanitizer = __tsan_get_current_fiber();
#endif
  free(grid.shared);
  grid.shared = aligned_alloc(128, (shared_bytes + 127) / 128 * 128 + 128), grid.shared_bytes = shared_bytes;
  unsigned total = blocks[0] * blocks[1] * blocks[2];
  for (unsigned i = 0; i < total; i++) {
    unsigned b = backwards ? total - 1 - i : i;
    grid.block = {b % blocks[0], b / blocks[0] % blocks[1], b / blocks[0] / blocks[1]};
    if (!run_block()) return -1;
    acquire(&grid.end);
  }
  return 0;
}

template <auto F> struct Call;
template <class... A, void (*F)(A...)> struct Call<F> {
  template <size_t... I> static void with(void** args, std::index_sequence<I...>) { F(*(std::remove_const_t<A>*)args[I]...); }
  static void run(void** args) { with(args, std::index_sequence_for<A...>{}); }
  // The number of arguments, then the size of each in bytes: the caller compares them with what it passes.
  static const u32* sizes() {
    static const u32 all[] = {sizeof...(A), sizeof(A)...};
    return all;
  }
};
}  // namespace cuda_cpu

#define CUDA_CPU_KERNEL(symbol, ...)                                                                                    \
  extern "C" int cuda_cpu_##symbol(const u32* blocks, const u32* threads, size_t shared, void** args, int backwards) { \
    return cuda_cpu::launch(cuda_cpu::Call<__VA_ARGS__>::run, blocks, threads, shared, args, backwards);               \
  }                                                                                                                    \
  extern "C" const u32* cuda_cpu_sizes_##symbol() { return cuda_cpu::Call<__VA_ARGS__>::sizes(); }
#define KERNEL(name) CUDA_CPU_KERNEL(name, name)
#define KERNEL_OF(name, E) CUDA_CPU_KERNEL(name##_##E, name<E>)

inline void __syncthreads() {
  cuda_cpu::self->at = "__syncthreads";
  cuda_cpu::self->state = cuda_cpu::AtBlock;
  cuda_cpu::release(&cuda_cpu::grid.order);
  cuda_cpu::yield();
  cuda_cpu::acquire(&cuda_cpu::grid.order);
}
inline void __syncwarp() {
  cuda_cpu::release(&cuda_cpu::warp().order);
  cuda_cpu::meet("__syncwarp", {});
  cuda_cpu::acquire(&cuda_cpu::warp().order);
}
inline float bits_to_float(u32 x) { float f; memcpy(&f, &x, 4); return f; }
inline u32 float_to_bits(float x) { u32 u; memcpy(&u, &x, 4); return u; }
namespace cuda_cpu {
// The value of another lane.
template <class T> UNSEEN inline T exchange(const char* what, u32 mask, T x, unsigned lane) {
  static_assert(sizeof(T) <= sizeof(Box::words));
  Box mine{};
  memcpy(mine.words, &x, sizeof x);
  Box* boxes = meet(what, mine, mask);
  memcpy(&x, boxes[lane % 32].words, sizeof x);
  return x;
}
}  // namespace cuda_cpu
template <class T> inline T __shfl_xor_sync(u32 mask, T x, int d) {
  return cuda_cpu::exchange("__shfl_xor_sync", mask, x, (cuda_cpu::index() ^ d) % 32);
}
template <class T> inline T __shfl_sync(u32 mask, T x, int lane) { return cuda_cpu::exchange("__shfl_sync", mask, x, lane); }
// A lane past the end gets its own value.
template <class T> inline T __shfl_up_sync(u32 mask, T x, unsigned d) {
  unsigned lane = cuda_cpu::index() % 32;
  return cuda_cpu::exchange("__shfl_up_sync", mask, x, lane < d ? lane : lane - d);
}
template <class T> inline T __shfl_down_sync(u32 mask, T x, unsigned d) {
  unsigned lane = cuda_cpu::index() % 32;
  return cuda_cpu::exchange("__shfl_down_sync", mask, x, lane + d > 31 ? lane : lane + d);
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float exp2_fast(float x) { return exp2f(x); }
template <class T> T min(T a, T b) { return a < b ? a : b; }
template <class T> T max(T a, T b) { return a > b ? a : b; }
inline u32 round_bf16(float x) {
  u32 b = float_to_bits(x);
  return (b & 0x7fffffff) > 0x7f800000 ? (b >> 16) | 0x40 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
}
inline u32 pack_bf16(float low, float high) { return round_bf16(low) | round_bf16(high) << 16; }

namespace cuda_cpu {
// The rows' addresses come from the boxes; the elements are read as the lane's own accesses.
UNSEEN inline void rows(const void* mine, const u16* (&all)[32]) {
  Box box{};
  box.row = mine;
  if ((uintptr_t)mine % 16) fail("ldmatrix: a row at %p is not aligned to 16 bytes", mine);
  Box* boxes = meet("ldmatrix", box);
  for (int l = 0; l < 32; l++) all[l] = (const u16*)boxes[l].row;
}
}  // namespace cuda_cpu
inline void ldmatrix_x4(u32 (&r)[4], const void* row) {
  const u16* rows[32];
  cuda_cpu::rows(row, rows);
  unsigned lane = cuda_cpu::index() % 32;
  for (int m = 0; m < 4; m++) {
    const u16* at = rows[8 * m + lane / 4] + lane % 4 * 2;
    r[m] = at[0] | (u32)at[1] << 16;
  }
}
inline void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
  const u16* rows[32];
  cuda_cpu::rows(row, rows);
  unsigned lane = cuda_cpu::index() % 32;
  for (int m = 0; m < 4; m++) r[m] = rows[8 * m + lane % 4 * 2][lane / 4] | (u32)rows[8 * m + lane % 4 * 2 + 1][lane / 4] << 16;
}
UNSEEN inline void mma_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  cuda_cpu::Box mine{};
  for (int i = 0; i < 4; i++) mine.words[i] = a[i];
  mine.words[4] = b0, mine.words[5] = b1;
  const cuda_cpu::Box* boxes = cuda_cpu::meet("mma", mine);
  unsigned lane = cuda_cpu::index() % 32, row = lane / 4, column = lane % 4 * 2;
  for (int k = 0; k < 16; k += 2) {
    // A: registers 0, 1 hold rows g, g + 8 of the first eight k, 2, 3 of the last; B: 0 and 1 likewise. A lane holds pairs of k.
    unsigned half = k / 8, pair = k % 8 / 2;
    u32 top = boxes[row * 4 + pair].words[2 * half], bottom = boxes[row * 4 + pair].words[2 * half + 1];
    u32 left = boxes[column * 4 + pair].words[4 + half], right = boxes[(column + 1) * 4 + pair].words[4 + half];
    auto low = [](u32 x) { return bits_to_float(x << 16); };
    auto high = [](u32 x) { return bits_to_float(x & 0xffff0000u); };
    c[0] += low(top) * low(left) + high(top) * high(left);
    c[1] += low(top) * low(right) + high(top) * high(right);
    c[2] += low(bottom) * low(left) + high(bottom) * high(left);
    c[3] += low(bottom) * low(right) + high(bottom) * high(right);
  }
}
// A copy may land at any time from its start until it is waited for: NaN at its start, which whoever still reads the place sees, the
// numbers when they are waited for, before which nobody finds them.
namespace cuda_cpu {
UNSEEN inline void note(void* shared, const void* global, bool valid) {
  if ((uintptr_t)shared % 16 || (uintptr_t)global % 16) fail("cp.async: %p to %p is not aligned to 16 bytes", global, shared);
  if (self->copied == Copies) return fail("cp.async: more than %zu copies are not waited for", Copies);
  self->copies[self->copied++] = {shared, global, valid, self->groups};
}
}  // namespace cuda_cpu
inline void copy_async16(void* shared, const void* global, bool valid) {
  cuda_cpu::note(shared, global, valid);
  *(u128*)shared = u128{~0u, ~0u, ~0u, ~0u};
}
UNSEEN inline void copy_async_commit() { cuda_cpu::self->groups++; }
namespace cuda_cpu {
// The next copy that has to have landed; the copying itself is the thread's own access.
UNSEEN inline bool next(int& at, int& kept, int pending, Copy& copy) {
  for (; at < self->copied; at++) {
    copy = self->copies[at];
    if (copy.group < self->groups - pending) return at++, true;
    self->copies[kept++] = copy;
  }
  return self->copied = kept, false;
}
}  // namespace cuda_cpu
template <int Pending> inline void copy_async_wait() {
  cuda_cpu::Copy copy;
  for (int at = 0, kept = 0; cuda_cpu::next(at, kept, Pending, copy);)
    if (copy.valid) *(u128*)copy.to = *(const u128*)copy.from; else *(u128*)copy.to = u128{};
}
extern "C" __attribute__((used)) inline const char* cuda_cpu_error() { return cuda_cpu::grid.error; }
