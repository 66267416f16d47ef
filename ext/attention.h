// Deformable attention on the CPU: the C interface. No PyTorch in here. Everything is contiguous, row-major, and called
// with the shapes below; who calls it has checked them.
#pragma once
#include <cstdint>

#if defined(_WIN32)
#define LITEDETR_API extern "C" __declspec(dllexport)
#else
#define LITEDETR_API extern "C" __attribute__((visibility("default")))
#endif

// Symbols: B batch, S tokens, M heads, D channels of a head, Q queries, L levels, P points per level.
// A pointer to `void` is float, or bfloat16 if `bfloat16` is set; computing and adding up are in float either way.
enum LitedetrMode { kPlain, kShared, kSeparate };  // plain; key-aware, the key is the value; key-aware with its own key
enum LitedetrPath { kBestPath, kPortable, kAvx2, kAvx512 };  // instruction sets; the best that this machine has

struct LitedetrAttention {
  int32_t mode;  // LitedetrMode
  int32_t batch, queries, heads, channels, levels, points;
  int32_t bfloat16;      // 0 or 1
  int32_t threads;       // at most so many
  int32_t path;          // LitedetrPath
  const int32_t* sizes;  // (L, 2): height, width of every level, finest first

  // What goes in: `weights` in plain attention, `query` in key-aware; `key` where it is separate.
  const void *query, *key, *value;  // (B, Q, M, D), (B, S, M, D), (B, S, M, D)
  const float* locations;           // (B, Q, M, L, P, 2): x, y in 0..1
  const float* weights;             // (B, Q, M, L, P)

  // What the forward pass writes.
  void* out;           // (B, Q, M, D)
  float* weights_out;  // (B, Q, M, L, P), key-aware only; null where it is not wanted

  // What the backward pass reads and writes besides, each in the shape of what it is the gradient of.
  const void* grad_out;
  const float* grad_weights_out;  // null: none
  void *grad_query, *grad_key, *grad_value;
  float *grad_locations, *grad_weights;
};

// What surrounds the attention: out = norm(x + skip) * weight + bias over the channels of every row, and shifted = out + shift.
struct LitedetrNorm {
  int64_t rows;
  int32_t channels;  // a multiple of 16, at most 2048
  int32_t bfloat16, threads, path;  // as above
  float eps;
  const void *x, *skip;         // (rows, channels)
  const float *weight, *bias;   // (channels)
  const void* shift;            // (rows, channels), or null
  void *out, *shifted;          // (rows, channels); `out` may be `x` or `skip`
};

// All of these return 0, or one of these.
enum { kLitedetrOutOfMemory = 1, kLitedetrNoSuchPath = 2, kLitedetrFailed = 3 };

LITEDETR_API int litedetr_attention_forward(const LitedetrAttention* call);
LITEDETR_API int litedetr_attention_backward(const LitedetrAttention* call);
LITEDETR_API int litedetr_add_norm(const LitedetrNorm* call);

// The best path of this machine, and the sizes of the structures above for the caller to compare with its own.
LITEDETR_API int litedetr_attention_best_path();
LITEDETR_API int litedetr_attention_struct_size();
LITEDETR_API int litedetr_norm_struct_size();
