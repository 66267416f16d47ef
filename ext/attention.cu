// Deformable attention on NVIDIA GPUs, plain and key-aware, forward and backward. One file without headers: NVRTC
// compiles it where the program runs, nvcc ahead of time, and a C++ compiler for tests (LITEDETR_HOST), with lanes for threads.
//
// A pair is one query and one head. LANES neighbouring threads share a pair; each holds 8 * VECTORS of its channels. A point's
// corners are worked out once, by one of them, and handed to the others through shared memory, four points at a time.
// Everything is computed and added up in float.
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
DEVICE unsigned bits_of(float x) { return __float_as_uint(x); }
DEVICE float float_of(unsigned x) { return __uint_as_float(x); }
#endif

#ifndef THREADS
#define THREADS 256  // of a block, at most
#endif
constexpr int kMaxLevels = 16;
constexpr int kChunk = 4;  // points that are worked on together
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
  // How the work is cut: a block takes 2^tile_x * 2^tile_y queries and 2^tile_heads heads; `tiles` cover a picture's queries.
  // Queries that are the pixels of levels query_level, query_level + 1, ... come in tiles that are neighbours in the picture
  // and find each other's corners in the first cache; if query_level is L they are a mere list.
  int tile_x, tile_y, tile_heads, tiles, query_level;
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
    const int groups = (p.heads + (1 << p.tile_heads) - 1) >> p.tile_heads;
    int tile = blockIdx.x % p.tiles;
    const int rest = blockIdx.x / p.tiles;
    w.batch = rest / groups;
    w.head = (rest % groups << p.tile_heads) + (w.pair & ((1 << p.tile_heads) - 1));
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
      const int x = (tile % across << p.tile_x) + (index & ((1 << p.tile_x) - 1));
      const int y = (tile / across << p.tile_y) + (index >> p.tile_x);
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
  DEVICE long long map(const Attention& p, const Worker& w) {  // where this head of this picture's map begins
    return (static_cast<long long>(w.batch) * p.tokens * p.heads + w.head) * p.channels;
  }

  // This lane's channels n of the row at `offset` from `base`; zeros where there are none. A negative offset is outside.
  DEVICE void load(const Attention& p, const Worker& w, const scalar* base, int offset, int n, float* v) {
    const int c = channel(w, n);
    const bool any = offset >= 0 && c < p.channels;
    const scalar* at = any ? base + (offset + c) : reinterpret_cast<const scalar*>(zeros);
    if (WHOLE)
      T::load_8(at, v);
    else
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = any && c + i < p.channels ? T::load_1(at + i) : 0.0f;
  }
  DEVICE void load_row(const Attention& p, const Worker& w, const void* rows, float factor, float (*v)[8]) {
    const scalar* base = static_cast<const scalar*>(rows) + row(p, w) * p.channels;
#pragma unroll
    for (int n = 0; n < VECTORS; n++) {
      load(p, w, base, 0, n, v[n]);
#pragma unroll
      for (int i = 0; i < 8; i++) v[n][i] *= factor;
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
  DEVICE void add(const Attention& p, const Worker& w, float* base, int offset, int n, float factor, const float* v) {
    const int c = channel(w, n);
    if (c >= p.channels) return;
    float* at = base + (offset + c);
    if (WHOLE) {
      add_4(at, factor * v[0], factor * v[1], factor * v[2], factor * v[3]);
      add_4(at + 4, factor * v[4], factor * v[5], factor * v[6], factor * v[7]);
    } else
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (c + i < p.channels) atomicAdd(at + i, factor * v[i]);
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
  float left, right, upper, lower;  // weights of columns and rows
  int offset, to_right, to_lower;   // of the corners in a head's map, in numbers; offset is -1 if the point touches no pixel
  float share;                      // plain: its attention weight; backward: its softmax weight
  float slope_left, slope_right, slope_upper, slope_lower;  // derivatives of the weights by the location
  float grad_logit, unused[3];
};

constexpr int kForwardWords = 2, kBackwardWords = 4;  // of 16 bytes: what the two passes hand over of each point

DEVICE Point locate(const Attention& p, int i, float2 location) {
  const Level& level = p.level[i / p.points];
  const float width = level.width, height = level.height;
  const float x = fmaf(location.x, width, -0.5f), y = fmaf(location.y, height, -0.5f);
  Point point = {};
  point.offset = -1;
  if (!(x >= -1.0f && x < width && y >= -1.0f && y < height)) return point;  // nor is it inside if it is no number
  const float across = x - floorf(x), down = y - floorf(y);
  const int column = static_cast<int>(floorf(x)), line = static_cast<int>(floorf(y));
  const bool no_left = column < 0, no_right = column + 1 >= level.width;
  const bool no_upper = line < 0, no_lower = line + 1 >= level.height;
  point.left = no_left ? 0.5f * across : no_right ? 0.5f * (1.0f - across) : 1.0f - across;
  point.right = no_left || no_right ? point.left : across;
  point.upper = no_upper ? 0.5f * down : no_lower ? 0.5f * (1.0f - down) : 1.0f - down;
  point.lower = no_upper || no_lower ? point.upper : down;
  point.slope_left = no_left ? 0.5f * width : no_right ? -0.5f * width : -width;
  point.slope_right = no_left || no_right ? point.slope_left : width;
  point.slope_upper = no_upper ? 0.5f * height : no_lower ? -0.5f * height : -height;
  point.slope_lower = no_upper || no_lower ? point.slope_upper : height;
  const int stride = p.heads * p.channels;
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

// Corner k of 0..3: upper left, upper right, lower left, lower right.
DEVICE int corner_offset(const Point& point, int k) {
  return point.offset + (k & 1 ? point.to_right : 0) + (k & 2 ? point.to_lower : 0);
}
DEVICE float corner_weight(const Point& point, int k) {
  return (k & 1 ? point.right : point.left) * (k & 2 ? point.lower : point.upper);
}

template <class W>
DEVICE void load_corner(const Attention& p, const W& w, const typename W::scalar* map, const Point& point, int k, int n, float* v) {
  W::load(p, w, map, point.offset < 0 ? -1 : corner_offset(point, k), n, v);
}

// sum += factor * the sample
template <class W>
DEVICE void add_sample(const Attention& p, const W& w, const typename W::scalar* map, const Point& point, float factor, int n, float* sum) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    float v[8];
    load_corner(p, w, map, point, k, n, v);
    const float weight = factor * corner_weight(point, k);
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

// Calls visit(j, i, point) for each of the chunk's points that this lane locates: the j-th of the chunk, the i-th of all.
template <int LANES, class Visit>
DEVICE void locate_chunk(const Attention& p, Locations<LANES>& locations, int lane, int first, Visit visit) {
#pragma unroll
  for (int k = 0; k < Locations<LANES>::kMine; k++) {
    const int j = lane + k * LANES, i = first + j;
    if (j >= kChunk) continue;
    Point point = {};
    point.offset = -1;
    const bool real = i < p.levels * p.points;
    if (real) point = locate(p, i, locations.next[k]);
    visit(j, i, point, real);
  }
  locations.fetch(p, locations, lane, first + kChunk);
}

// ---------------------------------------------------------------------------------------------------------- forward

template <Mode MODE, class T, int LANES, int VECTORS, bool WHOLE>
DEVICE void forward(const Attention& p) {
  typedef Worker<T, LANES, VECTORS, WHOLE> W;
  typedef typename T::scalar scalar;
  __shared__ Board<LANES, kForwardWords> board;
  const W w = W::of(p);
  const int total_points = p.levels * p.points;
  const long long row = W::row(p, w);
  const scalar* const values = static_cast<const scalar*>(p.value) + W::map(p, w);
  const scalar* const keys = MODE == separate ? static_cast<const scalar*>(p.key) + W::map(p, w) : values;
  Locations<LANES> locations = {reinterpret_cast<const float2*>(p.locations) + row * total_points};
  locations.fetch(p, locations, w.lane, 0);

  float query[VECTORS][8], out[VECTORS][8] = {};
  if (MODE != plain) W::load_row(p, w, p.query, p.scale * kLog2E, query);  // logits count in powers of two
  float highest = kLowest, sum = 0.0f;

  for (int first = 0; first < total_points; first += kChunk) {
    locate_chunk<LANES>(p, locations, w.lane, first, [&](int j, int i, Point& point, bool real) {
      if (MODE == plain) point.share = real ? p.weights[row * total_points + i] : 0.0f;
      post<kForwardWords>(board, w.pair, j, point);
    });
    __syncwarp();
    if (MODE == plain) {
#pragma unroll
      for (int j = 0; j < kChunk; j++) {
        const Point point = read<kForwardWords>(board, w.pair, j);
#pragma unroll
        for (int n = 0; n < VECTORS; n++) add_sample<W>(p, w, values, point, point.share, n, out[n]);
      }
    } else {
      float logit[kChunk], sample[kChunk][VECTORS][8] = {};
#pragma unroll
      for (int j = 0; j < kChunk; j++) {
        const Point point = read<kForwardWords>(board, w.pair, j);
        logit[j] = 0.0f;
#pragma unroll
        for (int n = 0; n < VECTORS; n++) {
          add_sample<W>(p, w, keys, point, 1.0f, n, sample[j][n]);
          logit[j] = dot(sample[j][n], query[n], logit[j]);
        }
      }
      float before = highest;
#pragma unroll
      for (int j = 0; j < kChunk; j++) {
        logit[j] = first + j < total_points ? sum_over_lanes<LANES>(logit[j]) : kLowest;
        highest = fmaxf(highest, logit[j]);
        if (p.weights_out && w.busy && w.lane == j % LANES && first + j < total_points)
          p.weights_out[row * total_points + first + j] = logit[j];
      }
      const float shrink = exp2_of(before - highest);
      sum *= shrink;
#pragma unroll
      for (int n = 0; n < VECTORS; n++)
#pragma unroll
        for (int i = 0; i < 8; i++) out[n][i] *= shrink;
#pragma unroll
      for (int j = 0; j < kChunk; j++) {
        const float share = exp2_of(logit[j] - highest);
        sum += share;
        const Point point = read<kForwardWords>(board, w.pair, j);
#pragma unroll
        for (int n = 0; n < VECTORS; n++) {
          if (MODE == separate)
            add_sample<W>(p, w, values, point, share, n, out[n]);
          else
#pragma unroll
            for (int i = 0; i < 8; i++) out[n][i] = fmaf(share, sample[j][n][i], out[n][i]);
        }
      }
    }
    __syncwarp();
  }

  const float factor = MODE == plain ? 1.0f : 1.0f / sum;
  W::store_row(p, w, p.out, factor, out);
  if (MODE != plain && p.weights_out && w.busy)  // each lane finishes the logits that it wrote
    for (int i = w.lane; i < total_points; i += LANES < kChunk ? LANES : kChunk)
      if (w.lane < kChunk) {
        float* at = p.weights_out + row * total_points + i;
        *at = exp2_of(*at - highest) * factor;
      }
}

// --------------------------------------------------------------------------------------------------------- backward

// The softmax runs over all points, and each point's gradient needs all of it. So key-aware attention samples twice: first
// for every point's logit and the product of its value with the output's gradient, which wait in grad_locations.
template <Mode MODE, class T, int LANES, int VECTORS, bool WHOLE>
DEVICE void backward(const Attention& p) {
  typedef Worker<T, LANES, VECTORS, WHOLE> W;
  typedef typename T::scalar scalar;
  __shared__ Board<LANES, kBackwardWords> board;
  const W w = W::of(p);
  const int total_points = p.levels * p.points;
  const long long row = W::row(p, w);
  const scalar* const values = static_cast<const scalar*>(p.value) + W::map(p, w);
  const scalar* const keys = MODE == separate ? static_cast<const scalar*>(p.key) + W::map(p, w) : values;
  float* const grad_values = p.grad_value + W::map(p, w);
  float* const grad_keys = MODE == separate ? p.grad_key + W::map(p, w) : grad_values;
  float2* const grad_locations = reinterpret_cast<float2*>(p.grad_locations) + row * total_points;
  Locations<LANES> locations = {reinterpret_cast<const float2*>(p.locations) + row * total_points};

  float query[VECTORS][8], grad_out[VECTORS][8], grad_query[VECTORS][8] = {};
  W::load_row(p, w, p.grad_out, 1.0f, grad_out);
  if (MODE != plain) W::load_row(p, w, p.query, p.scale * kLog2E, query);
  float highest = kLowest, sum = 0.0f, mean = 0.0f;

  if (MODE != plain) {
    locations.fetch(p, locations, w.lane, 0);
    for (int first = 0; first < total_points; first += kChunk) {
      locate_chunk<LANES>(p, locations, w.lane, first, [&](int j, int i, Point& point, bool real) {
        post<kForwardWords>(board, w.pair, j, point);
      });
      __syncwarp();
#pragma unroll
      for (int j = 0; j < kChunk; j++) {
        const Point point = read<kForwardWords>(board, w.pair, j);
        float logit = 0.0f, gain = 0.0f;
#pragma unroll
        for (int n = 0; n < VECTORS; n++) {
          float sample[8] = {};
          add_sample<W>(p, w, keys, point, 1.0f, n, sample);
          logit = dot(sample, query[n], logit);
          if (MODE == separate) {
#pragma unroll
            for (int i = 0; i < 8; i++) sample[i] = 0.0f;
            add_sample<W>(p, w, values, point, 1.0f, n, sample);
          }
          gain = dot(sample, grad_out[n], gain);
        }
        logit = sum_over_lanes<LANES>(logit);
        gain = sum_over_lanes<LANES>(gain);
        const int i = first + j;
        if (w.lane == j % LANES && i < total_points) {  // the lane that will locate this point again
          if (p.grad_weights_out) gain += p.grad_weights_out[row * total_points + i];
          if (w.busy) grad_locations[i] = make_float2(logit, gain);
          const float before = highest;
          highest = fmaxf(highest, logit);
          const float shrink = exp2_of(before - highest), share = exp2_of(logit - highest);
          sum = fmaf(sum, shrink, share);
          mean = fmaf(mean, shrink, share * gain);
        }
      }
      __syncwarp();
    }
#pragma unroll
    for (int distance = 1; distance < LANES; distance *= 2) {
      const float other = exchange(highest, distance), other_sum = exchange(sum, distance), other_mean = exchange(mean, distance);
      const float both = fmaxf(highest, other), mine = exp2_of(highest - both), theirs = exp2_of(other - both);
      sum = sum * mine + other_sum * theirs;
      mean = mean * mine + other_mean * theirs;
      highest = both;
    }
    sum = 1.0f / sum;
    mean *= sum;
  }

  locations.fetch(p, locations, w.lane, 0);
  for (int first = 0; first < total_points; first += kChunk) {
    locate_chunk<LANES>(p, locations, w.lane, first, [&](int j, int i, Point& point, bool real) {
      if (MODE == plain) {
        point.share = real ? p.weights[row * total_points + i] : 0.0f;
      } else if (real && w.busy) {
        const float2 waiting = grad_locations[i];
        point.share = exp2_of(waiting.x - highest) * sum;
        point.grad_logit = point.share * (waiting.y - mean) * kLn2;
      }
      post<kBackwardWords>(board, w.pair, j, point);
    });
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kChunk; j++) {
      const Point point = read<kBackwardWords>(board, w.pair, j);
      const bool touches = w.busy && point.offset >= 0;
      float by_x = 0.0f, by_y = 0.0f, by_weight = 0.0f;
#pragma unroll
      for (int n = 0; n < VECTORS; n++) {
        float by_value[8], by_key[8];  // gradients of the sample
#pragma unroll
        for (int i = 0; i < 8; i++) {
          by_value[i] = point.share * grad_out[n][i];
          by_key[i] = MODE == plain ? 0.0f : point.grad_logit * query[n][i];
          if (MODE == shared) by_value[i] += by_key[i];
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
          const float weight = corner_weight(point, k);
          float v[8];
          load_corner(p, w, values, point, k, n, v);
          float product = dot(v, MODE == plain ? grad_out[n] : by_value, 0.0f);
          if (MODE == plain) {
            by_weight = fmaf(weight, product, by_weight);
            product *= point.share;
          }
          if (touches) W::add(p, w, grad_values, corner_offset(point, k), n, weight, by_value);
          if (MODE == separate) {
            load_corner(p, w, keys, point, k, n, v);
            product = dot(v, by_key, product);
            if (touches) W::add(p, w, grad_keys, corner_offset(point, k), n, weight, by_key);
          }
          if (MODE != plain)
#pragma unroll
            for (int i = 0; i < 8; i++) grad_query[n][i] = fmaf(point.grad_logit * weight, v[i], grad_query[n][i]);
          by_x = fmaf((k & 1 ? point.slope_right : point.slope_left) * (k & 2 ? point.lower : point.upper), product, by_x);
          by_y = fmaf((k & 2 ? point.slope_lower : point.slope_upper) * (k & 1 ? point.right : point.left), product, by_y);
        }
      }
      by_x = sum_over_lanes<LANES>(by_x);
      by_y = sum_over_lanes<LANES>(by_y);
      if (MODE == plain) by_weight = sum_over_lanes<LANES>(by_weight);
      const int i = first + j;
      if (w.busy && w.lane == j % LANES && i < total_points) {
        grad_locations[i] = make_float2(by_x, by_y);
        if (MODE == plain) p.grad_weights[row * total_points + i] = by_weight;
      }
    }
    __syncwarp();
  }
  if (MODE != plain) W::store_row(p, w, p.grad_query, p.scale * kLog2E, grad_query);
}

// --------------------------------------------------------------------------------------------------- entry points

// attention_forward_shared_f16_4_1_true and so on: mode, type, lanes, vectors, whether rows consist of whole eights.
#define NAMED(direction, mode, type, lanes, vectors, whole)                                                              \
  KERNEL attention_##direction##_##mode##_##type##_##lanes##_##vectors##_##whole(const __grid_constant__ Attention p) { \
    direction<mode, type, lanes, vectors, whole>(p);                                                                     \
  }
#define BOTH(mode, type, lanes, vectors, whole)      \
  NAMED(forward, mode, type, lanes, vectors, whole) \
  NAMED(backward, mode, type, lanes, vectors, whole)
#ifdef ONE_MODE  // at run time just what is needed: -DONE_MODE=shared -DONE_TYPE=f16 -DONE_LANES=4 ...
BOTH(ONE_MODE, ONE_TYPE, ONE_LANES, ONE_VECTORS, ONE_WHOLE)
#elif defined(KERNELS)
KERNELS
#else
#define MODES(type, lanes, whole) \
  BOTH(plain, type, lanes, 1, whole) BOTH(shared, type, lanes, 1, whole) BOTH(separate, type, lanes, 1, whole)
#define TYPES(lanes, whole) MODES(f32, lanes, whole) MODES(f16, lanes, whole) MODES(bf16, lanes, whole)
TYPES(2, true)  // heads of 16 channels
TYPES(4, true)  // of 24 and 32
TYPES(8, true)  // up to 64
#endif
