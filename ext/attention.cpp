// Deformable attention, plain and key-aware, forward and backward: threads, memory and the choice of instruction set.
// The arithmetic is in attention_kernel.inc, compiled here once per instruction set.
//
// The work is cut by picture and head, because one head of a map fits a core's cache and because no two tasks write to
// the same gradient then: no atomics, and the result does not depend on the number of threads.
#include "attention.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

#define INLINE static inline __attribute__((always_inline))
#define OUT_OF_LINE static __attribute__((noinline))

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, ivec{__VA_ARGS__})
#endif

using Mode = LitedetrMode;

// Where a level lies in the copy of a map. There every line ends with a pixel of zeros, which is also the one before the
// next line's first; a line of zeros stands before the first line and two after the last. So a sampling point that touches
// the map finds its four corners at fixed distances, wherever it is.
struct Level {
  int height, width;
  int line;       // pixels from one line to the next: width + 1
  int64_t start;  // pixel (0, 0), counted in pixels of the copy
};

struct Problem : LitedetrAttention {
  int tokens, points_total, points_padded;
  int64_t bordered_tokens;
  float scale;
  const Level* level;
  const int32_t* order;  // Q: the queries in the order in which they are worked on; null: as they come
  // One entry per sampling point (L * P, then zeros up to a whole register): its level.
  const float *point_width, *point_height;
  const int32_t *point_start, *point_line;
};

constexpr int kAlignment = 64;
constexpr int kWidestRegister = 16;  // floats
constexpr int kBlock = 8;            // queries whose samples are kept at a time: they stay in the first cache
constexpr int kQueriesAhead = 6;      // how early the backward pass asks for a query
constexpr int kRowsAhead = 8;        // how early a map's rows are asked for
constexpr int64_t kHugePage = 2 << 20;
constexpr int kNormChannels = 2048;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Memory that a thread keeps between calls: fresh pages for every call would cost more than the copy of the map.
class Arena {
 public:
  ~Arena() { std::free(data_); }

  void reserve(int64_t bytes) {
    used_ = 0;
    if (bytes <= size_) return;
    std::free(data_);
    size_ = 0;
    const int64_t size = round_up(bytes, kHugePage);
    data_ = static_cast<char*>(std::aligned_alloc(kHugePage, size));
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    madvise(data_, size, MADV_HUGEPAGE);  // a map spans hundreds of small pages, more than the first table of pages holds
#endif
    size_ = bytes;
  }

  template <class T>
  T* take(int64_t count) {
    T* result = reinterpret_cast<T*>(data_ + used_);
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), kAlignment);
    if (used_ > size_) throw std::bad_alloc();  // scratch_bytes() promised too little
    return result;
  }

 private:
  char* data_ = nullptr;
  int64_t size_ = 0, used_ = 0;
};

thread_local Arena arena_of_thread;

// An upper bound for what one task takes from its arena, for any instruction set.
int64_t scratch_bytes(const Problem& p, bool backward) {
  const int64_t row = round_up(p.channels, kWidestRegister) * 4, points = p.points_padded;
  const int64_t maps = (p.mode == kSeparate ? 2 : 1) * (backward ? 2 : 1);
  const int64_t numbers_per_point = backward ? 4 + 6 + 8 : 3 + kBlock * (1 + 8);  // see what is taken there
  return maps * p.bordered_tokens * row + (3 + (backward ? 3 : kBlock) * points) * row +
         points * numbers_per_point * 4 + 32 * kAlignment;
}

// LITEDETR_ONLY builds one path alone (the number of a LitedetrPath), which takes a fraction of the compiler's time.
#if defined(LITEDETR_ONLY)
#define BUILDS(path) (LITEDETR_ONLY == (path))
#else
#define BUILDS(path) 1
#endif

#if BUILDS(1)
namespace portable {
#define LANES 4
#include "attention_kernel.inc"
#undef LANES
}  // namespace portable
#endif

#if defined(__x86_64__)
#define HAS_X86_PATHS 1

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,prfchw"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,prfchw")
#endif
#if BUILDS(2)
namespace avx2 {
#define LANES 8
#include "attention_kernel.inc"
#undef LANES
}  // namespace avx2
#endif
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,prfchw,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,prfchw,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#if BUILDS(3)
namespace avx512 {
#define LANES 16
#include "attention_kernel.inc"
#undef LANES
}  // namespace avx512
#endif
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__

struct Path {
  void (*forward)(const Problem&, Arena&, int batch, int head, int begin, int end);
  void (*backward)(const Problem&, Arena&, int batch, int head);
  void (*add_norm)(const LitedetrNorm&, int64_t begin, int64_t end);
};

int best_path() {
#if defined(HAS_X86_PATHS)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return has_avx2 ? (has_avx512 ? kAvx512 : kAvx2) : kPortable;
#else
  return kPortable;
#endif
}

bool choose_path(int wanted, Path& path) {
  const int best = best_path();
  if (wanted < 0 || wanted > best) return false;
  switch (wanted ? wanted : best) {
#if defined(HAS_X86_PATHS)
#if BUILDS(3)
    case kAvx512: path = {avx512::forward, avx512::backward, avx512::add_norm}; return true;
#endif
#if BUILDS(2)
    case kAvx2: path = {avx2::forward, avx2::backward, avx2::add_norm}; return true;
#endif
#endif
#if BUILDS(1)
    case kPortable: path = {portable::forward, portable::backward, portable::add_norm}; return true;
#endif
    default: return false;
  }
}

struct Tables {
  std::vector<int32_t> order;
  std::vector<Level> level;
  std::vector<float> width, height;
  std::vector<int32_t> start, line;
};

// Encoder queries are tokens of all levels or of the coarsest ones, row by row. Worked on in that order, the finest level's
// queries would sweep the whole map, then the next level's, and so on; so those of one part of the picture come together
// instead, tile by tile. From the bottom up: of the copy, the last rows are those still in the cache. Any other number of
// queries stays as it is. The order changes where a result is computed first, never the result.
void order_by_place(const LitedetrAttention& call, std::vector<int32_t>& order) {
  constexpr int kTile = 4;  // pixels of the finest level that asks
  int64_t tokens = 0;
  int finest = call.levels;
  while (finest > 0 && tokens < call.queries) {
    finest--;
    tokens += static_cast<int64_t>(call.sizes[2 * finest]) * call.sizes[2 * finest + 1];
  }
  if (!tokens || tokens != call.queries || tokens < 256) return;
  const int down = (call.sizes[2 * finest] + kTile - 1) / kTile, across = (call.sizes[2 * finest + 1] + kTile - 1) / kTile;
  const auto edge = [](int64_t tile, int64_t size, int64_t tiles) { return static_cast<int>(tile * size / tiles); };
  order.reserve(tokens);
  for (int ty = down - 1; ty >= 0; ty--)
    for (int tx = 0; tx < across; tx++)
      for (int l = finest, start = 0; l < call.levels; l++) {
        const int height = call.sizes[2 * l], width = call.sizes[2 * l + 1];
        for (int y = edge(ty, height, down); y < edge(ty + 1, height, down); y++)
          for (int x = edge(tx, width, across); x < edge(tx + 1, width, across); x++) order.push_back(start + y * width + x);
        start += height * width;
      }
}

Problem make_problem(const LitedetrAttention& call, Tables& tables) {
  Problem p;
  static_cast<LitedetrAttention&>(p) = call;
  p.scale = 1.0f / std::sqrt(static_cast<float>(call.channels));
  p.points_total = call.levels * call.points;
  p.points_padded = static_cast<int>(round_up(p.points_total, kWidestRegister));
  p.tokens = 0;
  p.bordered_tokens = 0;
  tables.width.assign(p.points_padded, -1.0f);  // what is no point lies outside of every level
  tables.height.assign(p.points_padded, 0.0f);
  tables.start.assign(p.points_padded, 0);
  tables.line.assign(p.points_padded, 0);
  for (int l = 0; l < call.levels; l++) {
    const int height = call.sizes[2 * l], width = call.sizes[2 * l + 1], line = width + 1;
    const Level level = {height, width, line, p.bordered_tokens + 1 + line};
    tables.level.push_back(level);
    for (int i = l * call.points; i < (l + 1) * call.points; i++) {
      tables.width[i] = static_cast<float>(width);
      tables.height[i] = static_cast<float>(height);
      tables.start[i] = static_cast<int32_t>(level.start);
      tables.line[i] = line;
    }
    p.tokens += height * width;
    p.bordered_tokens += 1 + static_cast<int64_t>(line) * (height + 3);
  }
  p.level = tables.level.data();
  order_by_place(call, tables.order);
  p.order = tables.order.empty() ? nullptr : tables.order.data();
  p.point_width = tables.width.data();
  p.point_height = tables.height.data();
  p.point_start = tables.start.data();
  p.point_line = tables.line.data();
  return p;
}

// All threads or one: waking them costs more than a small call takes, and another number than PyTorch's own would make the
// OpenMP runtime start and stop threads.
int useful_threads(const Problem& p) {
  const double numbers = static_cast<double>(p.batch) * p.heads * p.channels *
                         (p.tokens + static_cast<double>(p.queries) * p.points_total);
  return p.threads > 1 && numbers > 5e5 ? p.threads : 1;
}

// Runs `task(arena, i)` for every i. An exception must not leave a parallel region: it becomes an error code.
template <class Task>
int run_tasks(int64_t count, int threads, int64_t scratch, Task task) {
  int status = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < count; i++) {
    try {
      arena_of_thread.reserve(scratch);
      task(arena_of_thread, i);
    } catch (...) {
#pragma omp atomic write
      status = kLitedetrOutOfMemory;
    }
  }
  return status;
}

int forward_call(const LitedetrAttention& call) {
  Path path;
  if (!choose_path(call.path, path)) return kLitedetrNoSuchPath;
  Tables tables;
  const Problem p = make_problem(call, tables);
  const int threads = useful_threads(p);
  const int64_t heads = static_cast<int64_t>(p.batch) * p.heads;
  if (!heads || !p.queries) return 0;
  // More threads than heads: cut the queries as well; every part copies the head's map for itself.
  int64_t parts = (threads + heads - 1) / heads;
  if (parts > p.queries) parts = p.queries;
  return run_tasks(heads * parts, threads, scratch_bytes(p, false), [&](Arena& arena, int64_t i) {
    const int64_t head = i / parts, part = i % parts;
    path.forward(p, arena, static_cast<int>(head / p.heads), static_cast<int>(head % p.heads),
                 static_cast<int>(part * p.queries / parts), static_cast<int>((part + 1) * p.queries / parts));
  });
}

int backward_call(const LitedetrAttention& call) {
  Path path;
  if (!choose_path(call.path, path)) return kLitedetrNoSuchPath;
  Tables tables;
  const Problem p = make_problem(call, tables);
  const int threads = useful_threads(p);
  return run_tasks(static_cast<int64_t>(p.batch) * p.heads, threads, scratch_bytes(p, true),
                   [&](Arena& arena, int64_t i) {
                     path.backward(p, arena, static_cast<int>(i / p.heads), static_cast<int>(i % p.heads));
                   });
}

}  // namespace

LITEDETR_API int litedetr_attention_forward(const LitedetrAttention* call) {
  try {
    return forward_call(*call);
  } catch (const std::bad_alloc&) {
    return kLitedetrOutOfMemory;
  } catch (...) {
    return kLitedetrFailed;
  }
}

LITEDETR_API int litedetr_attention_backward(const LitedetrAttention* call) {
  try {
    return backward_call(*call);
  } catch (const std::bad_alloc&) {
    return kLitedetrOutOfMemory;
  } catch (...) {
    return kLitedetrFailed;
  }
}

LITEDETR_API int litedetr_add_norm(const LitedetrNorm* call) {
  Path path;
  if (!choose_path(call->path, path)) return kLitedetrNoSuchPath;
  if (call->channels % kWidestRegister || call->channels > kNormChannels) return kLitedetrFailed;
  constexpr int64_t kRows = 64;  // at a time
  const int64_t parts = (call->rows + kRows - 1) / kRows;
  [[maybe_unused]] const int threads = call->threads > 1 && call->rows * call->channels > 500000 ? call->threads : 1;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t part = 0; part < parts; part++)
    path.add_norm(*call, part * kRows, part * kRows + kRows < call->rows ? part * kRows + kRows : call->rows);
  return 0;
}

LITEDETR_API int litedetr_attention_best_path() { return best_path(); }

LITEDETR_API int litedetr_attention_struct_size() { return static_cast<int>(sizeof(LitedetrAttention)); }

LITEDETR_API int litedetr_norm_struct_size() { return static_cast<int>(sizeof(LitedetrNorm)); }
