// What the kernels of attention.cu are made of: the machine's own instructions, rows of channels, who does what, and sampling
// points with their corners.
#pragma once

#ifndef LITEDETR_HOST
#define DEVICE static __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE uint4 load_16_bytes(const void* at) {
  uint4 v;
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
  return v;
}
DEVICE float2 load_once(const float2* at) {  // it shall not push the map out of the first cache
  float2 v;
  asm("ld.global.nc.L1::no_allocate.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(at));
  return v;
}
DEVICE void halves_to_floats(unsigned bits, float& low, float& high) {
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(low), "=f"(high) : "r"(bits));
}
DEVICE unsigned floats_to_halves(float low, float high) {
  unsigned bits;
  asm("{.reg .b16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h};}" : "=r"(bits) : "f"(low), "f"(high));
  return bits;
}
DEVICE void add_4(float* at, float a, float b, float c, float d) {  // `at` is a multiple of 16 bytes
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(at), "f"(a), "f"(b), "f"(c), "f"(d) : "memory");
#else
  atomicAdd(at, a), atomicAdd(at + 1, b), atomicAdd(at + 2, c), atomicAdd(at + 3, d);
#endif
}
DEVICE float exchange(float x, int distance) { return __shfl_xor_sync(0xffffffffu, x, distance); }
DEVICE bool any_lane(bool x) { return __any_sync(0xffffffffu, x); }
DEVICE unsigned bits_of(float x) { return __float_as_uint(x); }
DEVICE float float_of(unsigned x) { return __uint_as_float(x); }
#endif

#ifndef THREADS
#define THREADS 256  // of a block, at most
#endif
constexpr int kMaxLevels = 16;
constexpr int kChunk = 4;  // points that are located together
constexpr int kTogether = 2;  // points whose samples are held together; four would take too many registers
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f, kLowest = -3.0e38f;

// Symbols: B batch, S tokens, M heads, D channels of a head, Q queries, L levels, P points per level.
enum Mode { plain, shared, separate };  // plain; key-aware, the key is the value; key-aware with its own key

struct Level {
  int height, width, start;  // start: its first token
};

struct Attention {  // every tensor contiguous, `void` in the kernel's type; litedetr/ops/cuda.py has the same structure
  const void *query, *key, *value;      // (B, Q, M, D), (B, S, M, D), (B, S, M, D)
  const float *locations, *weights;     // (B, Q, M, L, P, 2), (B, Q, M, L, P)
  void* out;                            // (B, Q, M, D)
  float* weights_out;                   // (B, Q, M, L, P), or null
  const void* grad_out;                 // what the backward pass reads and writes besides
  const float* grad_weights_out;        // or null
  void* grad_query;
  float *grad_key, *grad_value;         // float whatever the type, and zero before
  float *grad_locations, *grad_weights;
  int queries, heads, channels, levels, points, tokens;
  // How the work is cut: block (x, y, z) takes 2^tile_x * 2^tile_y queries, tile x of them, and 2^tile_heads heads of picture z.
  // Queries that are the pixels of levels query_level, query_level + 1, ... come in tiles that are neighbours in the picture
  // and find each other's corners in the first cache; if query_level is L they are a mere list.
  int tile_x, tile_y, tile_heads, query_level;
  float scale;  // D^-0.5
  Level level[kMaxLevels];
};

// ------------------------------------------------------------------------------------------------------------- rows

struct f32 {
  typedef float scalar;
  DEVICE void load_8(const float* at, float* v) {
    const uint4 a = load_16_bytes(at), b = load_16_bytes(at + 4);
    v[0] = float_of(a.x), v[1] = float_of(a.y), v[2] = float_of(a.z), v[3] = float_of(a.w);
    v[4] = float_of(b.x), v[5] = float_of(b.y), v[6] = float_of(b.z), v[7] = float_of(b.w);
  }
  DEVICE void store_8(float* at, const float* v) {
    reinterpret_cast<float4*>(at)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(at)[1] = make_float4(v[4], v[5], v[6], v[7]);
  }
  DEVICE float load_1(const float* at) { return *at; }
  DEVICE void store_1(float* at, float x) { *at = x; }
};

template <class Two>  // two 16-bit numbers in an `unsigned`
struct SixteenBits {
  typedef unsigned short scalar;
  DEVICE void load_8(const scalar* at, float* v) {
    const uint4 bits = load_16_bytes(at);
    Two::unpack(bits.x, v[0], v[1]);
    Two::unpack(bits.y, v[2], v[3]);
    Two::unpack(bits.z, v[4], v[5]);
    Two::unpack(bits.w, v[6], v[7]);
  }
  DEVICE void store_8(scalar* at, const float* v) {
    *reinterpret_cast<uint4*>(at) =
        make_uint4(Two::pack(v[0], v[1]), Two::pack(v[2], v[3]), Two::pack(v[4], v[5]), Two::pack(v[6], v[7]));
  }
  DEVICE float load_1(const scalar* at) {
    float low, high;
    Two::unpack(*at, low, high);
    return low;
  }
  DEVICE void store_1(scalar* at, float x) { *at = static_cast<scalar>(Two::pack(x, 0.0f)); }
};

struct TwoHalves {
  DEVICE void unpack(unsigned bits, float& low, float& high) { halves_to_floats(bits, low, high); }
  DEVICE unsigned pack(float low, float high) { return floats_to_halves(low, high); }
};

struct TwoBrains {  // bfloat16
  DEVICE void unpack(unsigned bits, float& low, float& high) {
    low = float_of(bits << 16);
    high = float_of(bits & 0xffff0000u);
  }
  DEVICE unsigned round(float x) {  // to the nearest, ties to even; what is no number stays none
    const unsigned bits = bits_of(x);
    return x == x ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fc0u;
  }
  DEVICE unsigned pack(float low, float high) { return round(low) | round(high) << 16; }
};

typedef SixteenBits<TwoHalves> f16;
typedef SixteenBits<TwoBrains> bf16;

static __device__ const uint4 zeros[2] = {};  // eight channels of nothing, for corners outside the map

// ------------------------------------------------------------------------------------------------------------- work

// Who this thread is. Threads with nothing to do go through the same motions, because lanes wait for each other.
template <class T, int LANES, int VECTORS, bool WHOLE>
struct Worker {
  typedef typename T::scalar scalar;
  int batch, query, head;
  int lane, pair;  // of the pair; of the block
  bool busy;       // this pair exists

  DEVICE Worker of(const Attention& p) {
    Worker w;
    w.lane = threadIdx.x % LANES;
    w.pair = threadIdx.x / LANES;
    int tile = blockIdx.x;
    w.batch = blockIdx.z;
    w.head = (blockIdx.y << p.tile_heads) + (w.pair & ((1 << p.tile_heads) - 1));
    const int index = w.pair >> p.tile_heads;  // of the query in its tile
    if (p.query_level == p.levels) {
      w.query = (tile << (p.tile_x + p.tile_y)) + index;
      w.busy = w.query < p.queries;
    } else {
      int l = p.query_level, across = 0;
      for (; l < p.levels; l++) {
        across = (p.level[l].width + (1 << p.tile_x) - 1) >> p.tile_x;
        const int count = across * ((p.level[l].height + (1 << p.tile_y) - 1) >> p.tile_y);
        if (tile < count) break;
        tile -= count;
      }
      const int line = static_cast<unsigned>(tile) / static_cast<unsigned>(across);
      const int x = (tile - line * across << p.tile_x) + (index & ((1 << p.tile_x) - 1));
      const int y = (line << p.tile_y) + (index >> p.tile_x);
      w.busy = x < p.level[l].width && y < p.level[l].height;
      w.query = p.level[l].start - p.level[p.query_level].start + y * p.level[l].width + x;
    }
    w.busy = w.busy && w.head < p.heads;
    if (!w.busy) w.query = w.head = 0;
    return w;
  }

  DEVICE int channel(const Worker& w, int n) { return (n * LANES + w.lane) * 8; }
  DEVICE long long row(const Attention& p, const Worker& w) {  // which of the (B, Q, M)
    return (static_cast<long long>(w.batch) * p.queries + w.query) * p.heads + w.head;
  }

  // Where this lane's channels n of a head's first token stand in a map of `Number`s. A lane beyond the last channel reads the
  // first ones: its share of query and gradient is 0, and it writes nothing.
  template <class Number>
  DEVICE Number* map(const Attention& p, const Worker& w, Number* maps, int n) {
    const int c = channel(w, n);
    return maps + (static_cast<long long>(w.batch) * p.tokens * p.heads + w.head) * p.channels + (c < p.channels ? c : 0);
  }

  DEVICE void load(const Attention& p, const Worker& w, const scalar* at, int n, float* v) {
    if (WHOLE)
      T::load_8(at, v);
    else
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = channel(w, n) + i < p.channels ? T::load_1(at + i) : 0.0f;
  }
  DEVICE void load_row(const Attention& p, const Worker& w, const void* rows, float factor, float (*v)[8]) {
    const scalar* base = static_cast<const scalar*>(rows) + row(p, w) * p.channels;
#pragma unroll
    for (int n = 0; n < VECTORS; n++) {
      const bool any = channel(w, n) < p.channels;
      load(p, w, any ? base + channel(w, n) : base, n, v[n]);
#pragma unroll
      for (int i = 0; i < 8; i++) v[n][i] = any ? v[n][i] * factor : 0.0f;
    }
  }
  DEVICE void store_row(const Attention& p, const Worker& w, void* rows, float factor, float (*v)[8]) {
    scalar* base = static_cast<scalar*>(rows) + row(p, w) * p.channels;
#pragma unroll
    for (int n = 0; n < VECTORS; n++) {
      const int c = channel(w, n);
      if (!w.busy || c >= p.channels) continue;
#pragma unroll
      for (int i = 0; i < 8; i++) v[n][i] *= factor;
      if (WHOLE)
        T::store_8(base + c, v[n]);
      else
#pragma unroll
        for (int i = 0; i < 8; i++)
          if (c + i < p.channels) T::store_1(base + c + i, v[n][i]);
    }
  }
  DEVICE void add(const Attention& p, const Worker& w, float* at, int n, float factor, const float* v) {
    if (WHOLE) {
      add_4(at, factor * v[0], factor * v[1], factor * v[2], factor * v[3]);
      add_4(at + 4, factor * v[4], factor * v[5], factor * v[6], factor * v[7]);
    } else
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (channel(w, n) + i < p.channels) atomicAdd(at + i, factor * v[i]);
  }
};

template <int LANES>
DEVICE float sum_over_lanes(float x) {
#pragma unroll
  for (int distance = 1; distance < LANES; distance *= 2) x += exchange(x, distance);
  return x;
}

// A sampling point's four corners. Where one column (or row) of them is outside, both columns read the one inside, each with
// half its weight: no test when reading, no product of 0 and whatever stands elsewhere.
struct alignas(16) Point {
  float left, right, upper, lower;  // weights of columns and rows; once `multiply_weights` has been called, of the corners
  int offset, to_right, to_lower;   // of the corners in a head's map, in bytes; offset is -1 if the point touches no pixel
  float share;                      // plain: its attention weight; backward: its softmax weight
  float slope_left, slope_right, slope_upper, slope_lower;  // derivatives of the weights by the location
  float grad_logit, unused[3];
};

constexpr int kForwardWords = 2, kBackwardWords = 4;  // of 16 bytes: what the two passes hand over of each point

DEVICE Point locate(const Attention& p, int i, float2 location, int bytes) {
  const Level& level = p.level[p.points == kChunk ? i / kChunk : i / p.points];
  const float width = level.width, height = level.height;
  const float x = fmaf(location.x, width, -0.5f), y = fmaf(location.y, height, -0.5f);
  Point point = {};
  point.offset = -1;
  if (!(x >= -1.0f && x < width && y >= -1.0f && y < height)) return point;  // nor is it inside if it is no number
  const float across = x - floorf(x), down = y - floorf(y);
  const int column = static_cast<int>(floorf(x)), line = static_cast<int>(floorf(y));
  const bool no_left = column < 0, no_right = column + 1 >= level.width;
  const bool no_upper = line < 0, no_lower = line + 1 >= level.height;
  const float halved_x = no_left || no_right ? 0.5f : 1.0f, halved_y = no_upper || no_lower ? 0.5f : 1.0f;
  point.left = halved_x * (no_left ? across : 1.0f - across);
  point.right = halved_x * (no_right ? 1.0f - across : across);
  point.upper = halved_y * (no_upper ? down : 1.0f - down);
  point.lower = halved_y * (no_lower ? 1.0f - down : down);
  point.slope_left = halved_x * (no_left ? width : -width);
  point.slope_right = halved_x * (no_right ? -width : width);
  point.slope_upper = halved_y * (no_upper ? height : -height);
  point.slope_lower = halved_y * (no_lower ? -height : height);
  const int stride = p.heads * p.channels * bytes;
  point.offset = (level.start + (no_upper ? 0 : line) * level.width + (no_left ? 0 : column)) * stride;
  point.to_right = no_left || no_right ? 0 : stride;
  point.to_lower = no_upper || no_lower ? 0 : level.width * stride;
  return point;
}

// Points on their way from the lane that located them to the others of its pair; a spare word keeps pairs off each other's banks.
template <int LANES, int WORDS>
struct Board {
  uint4 word[THREADS / LANES][kChunk * WORDS + 1];
};

template <int WORDS, class BoardType>
DEVICE void post(BoardType& board, int pair, int j, const Point& point) {
#pragma unroll
  for (int k = 0; k < WORDS; k++) board.word[pair][j * WORDS + k] = reinterpret_cast<const uint4*>(&point)[k];
}

template <int WORDS, class BoardType>
DEVICE Point read(const BoardType& board, int pair, int j) {
  Point point;
#pragma unroll
  for (int k = 0; k < WORDS; k++) reinterpret_cast<uint4*>(&point)[k] = board.word[pair][j * WORDS + k];
  return point;
}

// The weight of corner k of 0..3: upper left, upper right, lower left, lower right.
DEVICE float corner_weight(const Point& point, int k) {
  return (k & 1 ? point.right : point.left) * (k & 2 ? point.lower : point.upper);
}
DEVICE void multiply_weights(Point& point, float factor) {
  const float upper = factor * point.upper, lower = factor * point.lower, left = point.left, right = point.right;
  point.left = left * upper, point.right = right * upper, point.upper = left * lower, point.lower = right * lower;
}
DEVICE float multiplied_weight(const Point& point, int k) {
  return k == 0 ? point.left : k == 1 ? point.right : k == 2 ? point.upper : point.lower;
}

// Where they stand; those of a point outside are zeros.
template <class Number>
struct Corners {
  const Number* at[4];

  DEVICE Corners of(const Number* map, const Point& point) {
    Corners c;
    const char* first = reinterpret_cast<const char*>(map) + static_cast<unsigned>(point.offset);
    if (point.offset < 0) first = reinterpret_cast<const char*>(zeros);
    const char* second = first + static_cast<unsigned>(point.to_right);
    c.at[0] = reinterpret_cast<const Number*>(first);
    c.at[1] = reinterpret_cast<const Number*>(second);
    c.at[2] = reinterpret_cast<const Number*>(first + static_cast<unsigned>(point.to_lower));
    c.at[3] = reinterpret_cast<const Number*>(second + static_cast<unsigned>(point.to_lower));
    return c;
  }
};

// Each corner's share of a sample's gradient, to a map of floats; the point is not outside.
template <class W>
DEVICE void add_to_corners(const Attention& p, const W& w, float* map, const Point& point, int n, const float* gradient) {
  constexpr unsigned kWider = sizeof(float) / sizeof(typename W::scalar);
#pragma unroll
  for (int line = 0; line < 2; line++) {
    char* at = reinterpret_cast<char*>(map) + point.offset * kWider + (line ? point.to_lower * kWider : 0u);
    W::add(p, w, reinterpret_cast<float*>(at), n, corner_weight(point, 2 * line), gradient);
    at += point.to_right * kWider;
    W::add(p, w, reinterpret_cast<float*>(at), n, corner_weight(point, 2 * line + 1), gradient);
  }
}

// sum += factor * the sample, of a point with multiplied weights
template <class W>
DEVICE void add_sample(const Attention& p, const W& w, const typename W::scalar* map, const Point& point, float factor, int n,
                       float* sum) {
  const auto corners = Corners<typename W::scalar>::of(map, point);
#pragma unroll
  for (int k = 0; k < 4; k++) {
    float v[8];
    W::load(p, w, corners.at[k], n, v);
    const float weight = factor * multiplied_weight(point, k);
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] = fmaf(weight, v[i], sum[i]);
  }
}

DEVICE float dot(const float* a, const float* b, float sum) {
#pragma unroll
  for (int i = 0; i < 8; i++) sum = fmaf(a[i], b[i], sum);
  return sum;
}

// The locations of this lane's points of a chunk, asked for one chunk early: the corners' addresses wait for them.
template <int LANES>
struct Locations {
  static constexpr int kMine = LANES < kChunk ? kChunk / LANES : 1;  // points of a chunk that one lane locates
  const float2* all;                                                // of the pair
  float2 next[kMine];

  DEVICE void fetch(const Attention& p, Locations& l, int lane, int first) {
#pragma unroll
    for (int k = 0; k < kMine; k++) {
      const int i = first + lane + k * LANES;
      if (lane < kChunk && i < p.levels * p.points) l.next[k] = load_once(l.all + i);
    }
  }
};

// Calls visit(j, i, point, real) for each of the chunk's points that this lane locates: the j-th of the chunk, the i-th of all.
template <class scalar, int LANES, class Visit>
DEVICE void locate_chunk(const Attention& p, Locations<LANES>& locations, int lane, int first, Visit visit) {
#pragma unroll
  for (int k = 0; k < Locations<LANES>::kMine; k++) {
    const int j = lane + k * LANES, i = first + j;
    if (j >= kChunk) continue;
    Point point = {};
    point.offset = -1;
    const bool real = i < p.levels * p.points;
    if (real) point = locate(p, i, locations.next[k], sizeof(scalar));
    visit(j, i, point, real);
  }
  locations.fetch(p, locations, lane, first + kChunk);
}
