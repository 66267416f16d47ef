// The kernel itself, for one instruction set.
//
// attention.cpp includes this file once per instruction set, inside a namespace of its own, with LANES (floats per
// vector register: 4, 8 or 16) defined and the compiler's target set. Everything is written with the compiler's vector
// types, so that one text serves all of them. There is no include guard on purpose.
//
// Vocabulary: a *row* is the D channels of one token or query in one head, padded to whole registers; a *corner* is one of
// the four pixels around a sampling point.

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));
typedef uint16_t hvec __attribute__((vector_size(LANES * 2)));
typedef float vec_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t hvec_anywhere __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

// ---------------------------------------------------------------------------------------------- vectors

INLINE vec load(const float* p) { return *reinterpret_cast<const vec_anywhere*>(p); }
INLINE ivec load(const int32_t* p) { return *reinterpret_cast<const ivec_anywhere*>(p); }
INLINE void store(float* p, vec v) { *reinterpret_cast<vec_anywhere*>(p) = v; }
INLINE void store(int32_t* p, ivec v) { *reinterpret_cast<ivec_anywhere*>(p) = v; }
INLINE vec splat(float x) { return x - vec{}; }  // x - 0, not 0 + x: only the former is free of arithmetic

INLINE vec load(const uint16_t* p) {  // bfloat16 is the upper half of a float
  hvec half = *reinterpret_cast<const hvec_anywhere*>(p);
  return (vec)(__builtin_convertvector(half, uvec) << 16);
}

INLINE void store(uint16_t* p, vec v) {  // rounds to nearest even; a NaN stays one
  uvec bits = (uvec)v;
  uvec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  uvec nan = uvec{} + 0x7fc0u;
  rounded = (v != v) ? nan : rounded;
  *reinterpret_cast<hvec_anywhere*>(p) = __builtin_convertvector(rounded, hvec);
}

#if LANES == 16
#define EVEN_LANES 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define ODD_LANES 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#define UNPACK_LOW 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define UNPACK_HIGH 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define PAIRS_LOW 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define PAIRS_HIGH 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define EVEN_ELEMENTS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD_ELEMENTS 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#elif LANES == 8
#define EVEN_LANES 0, 1, 2, 3, 8, 9, 10, 11
#define ODD_LANES 4, 5, 6, 7, 12, 13, 14, 15
#define UNPACK_LOW 0, 8, 1, 9, 4, 12, 5, 13
#define UNPACK_HIGH 2, 10, 3, 11, 6, 14, 7, 15
#define PAIRS_LOW 0, 1, 8, 9, 4, 5, 12, 13
#define PAIRS_HIGH 2, 3, 10, 11, 6, 7, 14, 15
#define EVEN_ELEMENTS 0, 2, 4, 6, 8, 10, 12, 14
#define ODD_ELEMENTS 1, 3, 5, 7, 9, 11, 13, 15
#define ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7
#else
#define UNPACK_LOW 0, 4, 1, 5
#define UNPACK_HIGH 2, 6, 3, 7
#define PAIRS_LOW 0, 1, 4, 5
#define PAIRS_HIGH 2, 3, 6, 7
#define EVEN_ELEMENTS 0, 2, 4, 6
#define ODD_ELEMENTS 1, 3, 5, 7
#define ZIP_LOW 0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#define LANE_NUMBERS 0, 1, 2, 3
#endif

// `combine` over all lanes, the result in every lane. Rotations as constants, because not every compiler shuffles by a
// variable.
#if LANES == 16
#define ACROSS_LANES(v, combine)                                                            \
  v = combine(v, SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));      \
  v = combine(v, SHUFFLE(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));      \
  v = combine(v, SHUFFLE(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));      \
  v = combine(v, SHUFFLE(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14))
#elif LANES == 8
#define ACROSS_LANES(v, combine)                           \
  v = combine(v, SHUFFLE(v, v, 4, 5, 6, 7, 0, 1, 2, 3));   \
  v = combine(v, SHUFFLE(v, v, 2, 3, 0, 1, 6, 7, 4, 5));   \
  v = combine(v, SHUFFLE(v, v, 1, 0, 3, 2, 5, 4, 7, 6))
#else
#define ACROSS_LANES(v, combine)               \
  v = combine(v, SHUFFLE(v, v, 2, 3, 0, 1));   \
  v = combine(v, SHUFFLE(v, v, 1, 0, 3, 2))
#endif

INLINE vec larger(vec a, vec b) { return (a > b) ? a : b; }
INLINE vec sum(vec a, vec b) { return a + b; }

INLINE vec largest(vec v) {
  ACROSS_LANES(v, larger);
  return v;
}

INLINE vec total(vec v) {
  ACROSS_LANES(v, sum);
  return v;
}

// Four registers -> one: in each group of four lanes, lane i is that group's sum of register i.
INLINE vec sum_quads(vec a, vec b, vec c, vec d) {
  vec ab = SHUFFLE(a, b, UNPACK_LOW) + SHUFFLE(a, b, UNPACK_HIGH);
  vec cd = SHUFFLE(c, d, UNPACK_LOW) + SHUFFLE(c, d, UNPACK_HIGH);
  return SHUFFLE(ab, cd, PAIRS_LOW) + SHUFFLE(ab, cd, PAIRS_HIGH);
}

// LANES registers -> one whose lane i is the sum over register i: about three instructions a register, where summing
// each by itself takes twice to three times as many.
INLINE vec sum_each(const vec* v) {
#if LANES == 16
  vec a = sum_quads(v[0], v[1], v[2], v[3]), b = sum_quads(v[4], v[5], v[6], v[7]);
  vec c = sum_quads(v[8], v[9], v[10], v[11]), d = sum_quads(v[12], v[13], v[14], v[15]);
  vec ab = SHUFFLE(a, b, EVEN_LANES) + SHUFFLE(a, b, ODD_LANES);
  vec cd = SHUFFLE(c, d, EVEN_LANES) + SHUFFLE(c, d, ODD_LANES);
  return SHUFFLE(ab, cd, EVEN_LANES) + SHUFFLE(ab, cd, ODD_LANES);
#elif LANES == 8
  vec a = sum_quads(v[0], v[1], v[2], v[3]), b = sum_quads(v[4], v[5], v[6], v[7]);
  return SHUFFLE(a, b, EVEN_LANES) + SHUFFLE(a, b, ODD_LANES);
#else
  return sum_quads(v[0], v[1], v[2], v[3]);
#endif
}

// exp of something not positive, to about one unit in the last place; below -87 it is 0 to within 1e-38.
INLINE vec exp_not_positive(vec x) {
  vec lowest = splat(-87.0f);
  x = (x < lowest) ? lowest : x;  // a NaN passes
  ivec n = __builtin_convertvector(x * 1.44269504088896f - 0.5f, ivec);  // truncation of a negative = round to nearest
  vec whole = __builtin_convertvector(n, vec);
  vec r = x - whole * 0.693359375f + whole * 2.12194440e-4f;  // ln 2 in two parts
  vec y = splat(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  return y * (vec)((n + 127) << 23);
}

// ------------------------------------------------------------------------------------------------- rows

INLINE int registers_for(int channels) { return (channels + LANES - 1) / LANES; }

template <class T>
OUT_OF_LINE void load_last(const T* source, int count, float* row, float scale) {
  T last[LANES] = {};
  for (int j = 0; j < count; j++) last[j] = source[j];
  store(row, load(last) * scale);
}

template <class T>
OUT_OF_LINE void store_last(T* target, int count, const float* row, float scale) {
  T last[LANES];
  store(last, load(row) * scale);
  for (int j = 0; j < count; j++) target[j] = last[j];
}

template <class T>
INLINE void load_row_as(const T* source, int channels, float* row, float scale) {
  int i = 0;
  for (; i + LANES <= channels; i += LANES) store(row + i, load(source + i) * scale);
  if (i < channels) load_last(source + i, channels - i, row + i, scale);
}

template <class T>
INLINE void store_row_as(T* target, int channels, const float* row, float scale) {
  int i = 0;
  for (; i + LANES <= channels; i += LANES) store(target + i, load(row + i) * scale);
  if (i < channels) store_last(target + i, channels - i, row + i, scale);
}

INLINE void copy_row(const Problem& p, const void* tensor, int64_t index, float* row, float scale = 1.0f) {
  if (p.bfloat16)
    load_row_as(static_cast<const uint16_t*>(tensor) + index * p.channels, p.channels, row, scale);
  else
    load_row_as(static_cast<const float*>(tensor) + index * p.channels, p.channels, row, scale);
}

INLINE void write_row(const Problem& p, void* tensor, int64_t index, const float* row, float scale = 1.0f) {
  if (p.bfloat16)
    store_row_as(static_cast<uint16_t*>(tensor) + index * p.channels, p.channels, row, scale);
  else
    store_row_as(static_cast<float*>(tensor) + index * p.channels, p.channels, row, scale);
}

// The same, once per query: out of line, which halves the time the compiler takes.
OUT_OF_LINE void load_row(const Problem& p, const void* tensor, int64_t index, float* row, float scale = 1.0f) {
  copy_row(p, tensor, index, row, scale);
}

OUT_OF_LINE void store_row(const Problem& p, void* tensor, int64_t index, const float* row, float scale = 1.0f) {
  write_row(p, tensor, index, row, scale);
}

// One head's rows are M apart in the tensors, and the hardware does not guess strides that long: what comes next is asked for
// early, also where it is only written, because a store that waits for its line holds up all later ones.
INLINE void prefetch(const void* tensor, int64_t bytes_per_row, int64_t row) {
  const char* first = static_cast<const char*>(tensor) + bytes_per_row * row;
  for (int64_t i = 0; i < bytes_per_row; i += 64) __builtin_prefetch(first + i);
}

INLINE void prefetch_target(void* tensor, int64_t bytes_per_row, int64_t row) {
  char* first = static_cast<char*>(tensor) + bytes_per_row * row;
  for (int64_t i = 0; i < bytes_per_row; i += 64) __builtin_prefetch(first + i, 1);
}

INLINE int64_t bytes_per_row(const Problem& p) { return p.channels * (p.bfloat16 ? 2 : 4); }

// One head of a map, copied so that its rows are neighbours (in the tensor they are M apart) and every level has its
// border of zeros; see `Level`. The copy lies in this core's cache when the queries read it.
static void copy_head(const Problem& p, const void* map, int batch, int head, float* rows) {
  const int width = registers_for(p.channels) * LANES;
  int64_t index = static_cast<int64_t>(batch) * p.tokens * p.heads + head;
  int64_t filled = 0;  // pixels of the copy
  for (int l = 0; l < p.levels; l++) {
    const Level& level = p.level[l];
    for (int y = 0; y < level.height; y++) {
      const int64_t first = level.start + static_cast<int64_t>(y) * level.line;
      std::memset(rows + filled * width, 0, (first - filled) * width * sizeof(float));
      for (int x = 0; x < level.width; x++, index += p.heads) {
        prefetch(map, bytes_per_row(p), index + kRowsAhead * p.heads);
        copy_row(p, map, index, rows + (first + x) * width);
      }
      filled = first + level.width;
    }
  }
  std::memset(rows + filled * width, 0, (p.bordered_tokens - filled) * width * sizeof(float));
}

// The way back. What has gathered in the borders is dropped.
static void write_head(const Problem& p, void* map, int batch, int head, const float* rows) {
  const int width = registers_for(p.channels) * LANES;
  int64_t index = static_cast<int64_t>(batch) * p.tokens * p.heads + head;
  for (int l = 0; l < p.levels; l++) {
    const Level& level = p.level[l];
    for (int y = 0; y < level.height; y++)
      for (int x = 0; x < level.width; x++, index += p.heads) {
        prefetch_target(map, bytes_per_row(p), index + kRowsAhead * p.heads);
        write_row(p, map, index, rows + (level.start + static_cast<int64_t>(y) * level.line + x) * width);
      }
  }
}

// -------------------------------------------------------------------------------------- sampling points

struct Points {            // one register's worth of sampling points
  int32_t top[LANES];      // offset, in floats, of the top left corner's row in the bordered copy; the right one follows
  int32_t bottom[LANES];   // of the bottom left one
  float weight[4][LANES];  // bilinear
  float across[LANES], down[LANES];  // where the point lies between its corners, 0..1
};

INLINE vec floor_of(vec x, ivec& whole) {
  whole = __builtin_convertvector(x, ivec);
  whole += (__builtin_convertvector(whole, vec) > x);  // true is -1
  return __builtin_convertvector(whole, vec);
}

// From the locations (x, y pairs in 0..1) of the points first .. first + LANES to their corners. A point that touches no
// pixel is sent below its level's last line, where there is nothing but zeros: it needs no case of its own after that.
INLINE void locate(const Problem& p, const float* locations, int first, int row_size, Points& points) {
  const vec low = load(locations + 2 * first), high = load(locations + 2 * first + LANES);
  const vec width = load(p.point_width + first), height = load(p.point_height + first);
  vec x = SHUFFLE(low, high, EVEN_ELEMENTS) * width - 0.5f;
  vec y = SHUFFLE(low, high, ODD_ELEMENTS) * height - 0.5f;
  const ivec inside = (x >= -1.0f) & (x < width) & (y >= -1.0f) & (y < height);  // false for NaN
  x = inside ? x : vec{};
  y = inside ? y : height;
  ivec left, line;
  const vec across = x - floor_of(x, left), down = y - floor_of(y, line);
  const ivec pitch = load(p.point_line + first);
  const ivec top = load(p.point_start + first) + line * pitch + left;
  store(points.top, top * row_size);
  store(points.bottom, (top + pitch) * row_size);
  store(points.across, across);
  store(points.down, down);
  store(points.weight[0], (1.0f - across) * (1.0f - down));
  store(points.weight[1], across * (1.0f - down));
  store(points.weight[2], (1.0f - across) * down);
  store(points.weight[3], across * down);
}

// The locations of one query and head. Where they do not fill whole registers they go through `padded`.
INLINE const float* locations_of(const Problem& p, int64_t index, float* padded) {
  const float* locations = p.locations + index * 2 * p.points_total;
  if (p.points_total % LANES == 0) return locations;
  std::memcpy(padded, locations, 2 * p.points_total * sizeof(float));
  return padded;
}

INLINE void prefetch_query(const Problem& p, Mode mode, int64_t index) {
  const int64_t row = index + kQueriesAhead * p.heads;
  prefetch(p.locations, p.points_total * 8, row);
  if (mode == kPlain)
    prefetch(p.weights, p.points_total * 4, row);
  else
    prefetch(p.query, bytes_per_row(p), row);
}

// Logits to weights, in place: softmax over all points.
OUT_OF_LINE void softmax(int points, float* weights) {
  const ivec lane = {LANE_NUMBERS};
  vec highest = splat(-INFINITY);
  for (int i = 0; i < points; i += LANES) {
    vec logit = (lane + i < points) ? load(weights + i) : splat(-INFINITY);
    store(weights + i, logit);
    highest = (logit > highest) ? logit : highest;
  }
  highest = largest(highest);
  vec sum = {};
  for (int i = 0; i < points; i += LANES) {
    vec e = exp_not_positive(load(weights + i) - highest);
    e = (lane + i < points) ? e : vec{};
    store(weights + i, e);
    sum += e;
  }
  const vec factor = 1.0f / total(sum);
  for (int i = 0; i < points; i += LANES) store(weights + i, load(weights + i) * factor);
}

// sum over points of weight * row, for one register of the rows
INLINE vec weighted_sum(int points, const float* weights, const float* rows, int row_size) {
  vec even = {}, odd = {};
  int i = 0;
  for (; i + 1 < points; i += 2) {
    even += weights[i] * load(rows + i * row_size);
    odd += weights[i + 1] * load(rows + (i + 1) * row_size);
  }
  if (i < points) even += weights[i] * load(rows + i * row_size);
  return even + odd;
}

// ---------------------------------------------------------------------------------------------- forward

struct Maps {
  const float *keys, *values;  // bordered copies
};

// N is the number of registers a row takes where the compiler knows it, else 0.
template <Mode kMode, int N>
static void forward_queries(const Problem& p, Arena& arena, const Maps& maps, int batch, int head, int begin, int end) {
  const int n = N ? N : registers_for(p.channels);
  const int row_size = n * LANES, total_points = p.points_total;
  float* const query = arena.take<float>(row_size);
  float* const out = arena.take<float>(row_size);
  float* const samples = arena.take<float>(static_cast<int64_t>(p.points_padded) * row_size);
  float* const weights = arena.take<float>(p.points_padded);
  float* const padded = arena.take<float>(2 * p.points_padded);
  std::memset(padded, 0, 2 * p.points_padded * sizeof(float));
  const float *const values = maps.values, *const keys = maps.keys;
  vec products[LANES] = {};
  Points points;

  for (int q = begin; q < end; q++) {
    const int64_t index = (static_cast<int64_t>(batch) * p.queries + q) * p.heads + head;
    prefetch_query(p, kMode, index);
    prefetch_target(p.out, bytes_per_row(p), index + kQueriesAhead * p.heads);
    const float* locations = locations_of(p, index, padded);
    if (kMode != kPlain) load_row(p, p.query, index, query, p.scale);
    for (int first = 0; first < total_points; first += LANES) {
      locate(p, locations, first, row_size, points);
      const int count = total_points - first < LANES ? total_points - first : LANES;
      float* sample_row = samples + first * row_size;
      for (int i = 0; i < count; i++) {
        const int64_t top = points.top[i], bottom = points.bottom[i];
        const float w0 = points.weight[0][i], w1 = points.weight[1][i];
        const float w2 = points.weight[2][i], w3 = points.weight[3][i];
        vec product = {};
        for (int r = 0; r < row_size; r += LANES) {
          const float *v = values + top + r, *below = values + bottom + r;
          vec sample = w0 * load(v) + w1 * load(v + row_size) + w2 * load(below) + w3 * load(below + row_size);
          store(sample_row + r, sample);
          if (kMode == kSeparate) {
            const float *k = keys + top + r, *under = keys + bottom + r;
            sample = w0 * load(k) + w1 * load(k + row_size) + w2 * load(under) + w3 * load(under + row_size);
          }
          if (kMode != kPlain) product += sample * load(query + r);
        }
        sample_row += row_size;
        if (kMode != kPlain) products[i] = product;
      }
      if (kMode != kPlain) store(weights + first, sum_each(products));
    }
    if (kMode != kPlain) softmax(total_points, weights);
    const float* used = kMode == kPlain ? p.weights + index * total_points : weights;
    for (int r = 0; r < row_size; r += LANES) store(out + r, weighted_sum(total_points, used, samples + r, row_size));
    store_row(p, p.out, index, out);
    if (kMode != kPlain && p.weights_out)
      std::memcpy(p.weights_out + index * total_points, weights, total_points * sizeof(float));
  }
}

// The number of registers as a template argument, for the usual sizes of a head.
#if LANES == 16
#define FOR_REGISTERS(n, call) (n) == 1 ? call(1) : (n) == 2 ? call(2) : call(0)
#elif LANES == 8
#define FOR_REGISTERS(n, call) (n) == 2 ? call(2) : (n) == 4 ? call(4) : call(0)
#else
#define FOR_REGISTERS(n, call) (n) == 4 ? call(4) : call(0)
#endif

template <Mode kMode>
static void forward_mode(const Problem& p, Arena& arena, int batch, int head, int begin, int end) {
  const int n = registers_for(p.channels);
  const int64_t map_size = p.bordered_tokens * n * LANES;
  float* values = arena.take<float>(map_size);
  copy_head(p, p.value, batch, head, values);
  float* keys = values;
  if (kMode == kSeparate) {
    keys = arena.take<float>(map_size);
    copy_head(p, p.key, batch, head, keys);
  }
  const Maps maps = {keys, values};
#define CALL(N) forward_queries<kMode, N>(p, arena, maps, batch, head, begin, end)
  FOR_REGISTERS(n, CALL);
#undef CALL
}

// One head of one picture, queries begin..end.
static void forward(const Problem& p, Arena& arena, int batch, int head, int begin, int end) {
  if (p.mode == kPlain) return forward_mode<kPlain>(p, arena, batch, head, begin, end);
  if (p.mode == kShared) return forward_mode<kShared>(p, arena, batch, head, begin, end);
  return forward_mode<kSeparate>(p, arena, batch, head, begin, end);
}

// --------------------------------------------------------------------------------------------- backward

struct Sample {
  vec value, by_x, by_y;  // the sampled row and its derivatives by the point's pixel coordinates
};

INLINE Sample sample_with_slopes(const float* top, const float* bottom, int row_size, float across, float down) {
  const vec top_left = load(top), bottom_left = load(bottom);
  const vec top_slope = load(top + row_size) - top_left, bottom_slope = load(bottom + row_size) - bottom_left;
  const vec upper = top_left + across * top_slope, lower = bottom_left + across * bottom_slope;
  Sample s;
  s.by_y = lower - upper;
  s.value = upper + down * s.by_y;
  s.by_x = top_slope + down * (bottom_slope - top_slope);
  return s;
}

INLINE void add(float* row, vec v) { store(row, load(row) + v); }

INLINE void scatter(float* map, const Points& points, int i, int row_size, vec gradient) {
  float *top = map + points.top[i], *bottom = map + points.bottom[i];
  add(top, points.weight[0][i] * gradient);
  add(top + row_size, points.weight[1][i] * gradient);
  add(bottom, points.weight[2][i] * gradient);
  add(bottom + row_size, points.weight[3][i] * gradient);
}

struct MapGradients {
  float *keys, *values;
};

// Sums over channels that the backward pass needs of each point: of the sampled key and the sampled value, and of their
// slopes, with the query (scaled as in the logits) and with the output's gradient. Where the key is the value, the slopes
// wait for the gradient of the sample instead, which makes two sums out of four.
enum Product { kKeyQuery, kValueGrad, kValueXGrad, kValueYGrad, kKeyXQuery, kKeyYQuery, kProducts };

constexpr bool has_product(Mode mode, int product) {
  return mode == kSeparate || (mode == kShared ? product <= kValueGrad
                                               : product >= kValueGrad && product <= kValueYGrad);
}

template <Mode kMode, int N>
static void backward_queries(const Problem& p, Arena& arena, const Maps& maps, const MapGradients& grads, int batch,
                             int head) {
  const int n = N ? N : registers_for(p.channels);
  const int row_size = n * LANES, total_points = p.points_total;
  float* const query = arena.take<float>(row_size);
  float* const grad_out = arena.take<float>(row_size);
  float* const grad_query = arena.take<float>(row_size);
  const int64_t sample_size = static_cast<int64_t>(p.points_padded) * row_size;
  float* const key_samples = arena.take<float>(sample_size);
  float* const slopes_x = arena.take<float>(kMode == kShared ? sample_size : 0);
  float* const slopes_y = arena.take<float>(kMode == kShared ? sample_size : 0);
  float* const weights = arena.take<float>(p.points_padded);
  float* const grad_logits = arena.take<float>(p.points_padded);
  float* const padded = arena.take<float>(2 * p.points_padded);
  float* const sums = arena.take<float>(static_cast<int64_t>(kProducts) * p.points_padded);
  Points* const all_points = reinterpret_cast<Points*>(
      arena.take<char>(static_cast<int64_t>(sizeof(Points)) * (p.points_padded / LANES)));
  std::memset(padded, 0, 2 * p.points_padded * sizeof(float));
  std::memset(weights, 0, p.points_padded * sizeof(float));
  const float *const values = maps.values, *const keys = maps.keys;
  vec products[kProducts][LANES] = {};

  for (int q = 0; q < p.queries; q++) {
    const int64_t index = (static_cast<int64_t>(batch) * p.queries + q) * p.heads + head;
    prefetch_query(p, kMode, index);
    prefetch(p.grad_out, bytes_per_row(p), index + kQueriesAhead * p.heads);
    prefetch_target(p.grad_locations, p.points_total * 8, index + kQueriesAhead * p.heads);
    if (kMode != kPlain) prefetch_target(p.grad_query, bytes_per_row(p), index + kQueriesAhead * p.heads);
    const float* locations = locations_of(p, index, padded);
    load_row(p, p.grad_out, index, grad_out);
    if (kMode == kPlain)
      std::memcpy(weights, p.weights + index * total_points, total_points * sizeof(float));
    else
      load_row(p, p.query, index, query, p.scale);

    for (int first = 0; first < total_points; first += LANES) {
      Points& points = all_points[first / LANES];
      locate(p, locations, first, row_size, points);
      const int count = total_points - first < LANES ? total_points - first : LANES;
      for (int i = 0; i < count; i++) {
        const int64_t top = points.top[i], bottom = points.bottom[i];
        const float across = points.across[i], down = points.down[i];
        vec sum[kProducts] = {};
        for (int r = 0; r < row_size; r += LANES) {
          const vec g = load(grad_out + r);
          Sample s = sample_with_slopes(values + top + r, values + bottom + r, row_size, across, down);
          sum[kValueGrad] += s.value * g;
          if (kMode != kShared) {
            sum[kValueXGrad] += s.by_x * g;
            sum[kValueYGrad] += s.by_y * g;
          }
          if (kMode == kPlain) {
            scatter(grads.values + r, points, i, row_size, weights[first + i] * g);
          } else {
            if (kMode == kSeparate)
              s = sample_with_slopes(keys + top + r, keys + bottom + r, row_size, across, down);
            const vec of_query = load(query + r);
            const int at = (first + i) * row_size + r;
            store(key_samples + at, s.value);
            sum[kKeyQuery] += s.value * of_query;
            if (kMode == kShared) {
              store(slopes_x + at, s.by_x);
              store(slopes_y + at, s.by_y);
            } else {
              sum[kKeyXQuery] += s.by_x * of_query;
              sum[kKeyYQuery] += s.by_y * of_query;
            }
          }
        }
#pragma GCC unroll 6
        for (int k = 0; k < kProducts; k++)
          if (has_product(kMode, k)) products[k][i] = sum[k];
      }
#pragma GCC unroll 6
      for (int k = 0; k < kProducts; k++)
        if (has_product(kMode, k)) store(sums + k * p.points_padded + first, sum_each(products[k]));
    }

    if (kMode == kPlain) {
      std::memcpy(p.grad_weights + index * total_points, sums + kValueGrad * p.points_padded,
                  total_points * sizeof(float));
    } else {
      std::memcpy(weights, sums, p.points_padded * sizeof(float));
      softmax(total_points, weights);
      float* const grad_weights = sums + kValueGrad * p.points_padded;
      if (p.grad_weights_out)
        for (int i = 0; i < total_points; i++) grad_weights[i] += p.grad_weights_out[index * total_points + i];
      vec mean = {};
      for (int i = 0; i < total_points; i += LANES) mean += load(grad_weights + i) * load(weights + i);
      mean = total(mean);
      for (int i = 0; i < total_points; i += LANES)
        store(grad_logits + i, load(weights + i) * (load(grad_weights + i) - mean));

      for (int first = 0; first < total_points; first += LANES) {
        const Points& points = all_points[first / LANES];
        const int count = total_points - first < LANES ? total_points - first : LANES;
        for (int i = 0; i < count; i++) {
          const float weight = weights[first + i], grad_logit = grad_logits[first + i];
          vec by_x = {}, by_y = {};
          for (int r = 0; r < row_size; r += LANES) {
            const vec by_value = weight * load(grad_out + r), by_key = grad_logit * load(query + r);
            if (kMode == kShared) {
              const int at = (first + i) * row_size + r;
              by_x += (by_value + by_key) * load(slopes_x + at);
              by_y += (by_value + by_key) * load(slopes_y + at);
              scatter(grads.values + r, points, i, row_size, by_value + by_key);
            } else {
              scatter(grads.values + r, points, i, row_size, by_value);
              scatter(grads.keys + r, points, i, row_size, by_key);
            }
          }
          if (kMode == kShared) {
            products[kValueXGrad][i] = by_x;
            products[kValueYGrad][i] = by_y;
          }
        }
        if (kMode == kShared) {
          store(sums + kValueXGrad * p.points_padded + first, sum_each(products[kValueXGrad]));
          store(sums + kValueYGrad * p.points_padded + first, sum_each(products[kValueYGrad]));
        }
      }
      for (int r = 0; r < row_size; r += LANES)
        store(grad_query + r, weighted_sum(total_points, grad_logits, key_samples + r, row_size));
      store_row(p, p.grad_query, index, grad_query, p.scale);
    }

    for (int i = 0; i < total_points; i += LANES) {
      vec by_x = load(sums + kValueXGrad * p.points_padded + i);
      vec by_y = load(sums + kValueYGrad * p.points_padded + i);
      if (kMode != kShared) {
        by_x *= load(weights + i);
        by_y *= load(weights + i);
      }
      if (kMode == kSeparate) {
        by_x += load(grad_logits + i) * load(sums + kKeyXQuery * p.points_padded + i);
        by_y += load(grad_logits + i) * load(sums + kKeyYQuery * p.points_padded + i);
      }
      by_x *= load(p.point_width + i);
      by_y *= load(p.point_height + i);
      float* target = p.grad_locations + (index * total_points + i) * 2;
      float pairs[2 * LANES];
      const bool whole = total_points - i >= LANES;
      float* const to = whole ? target : pairs;
      store(to, SHUFFLE(by_x, by_y, ZIP_LOW));
      store(to + LANES, SHUFFLE(by_x, by_y, ZIP_HIGH));
      if (!whole) std::memcpy(target, pairs, 2 * (total_points - i) * sizeof(float));
    }
  }
}

template <Mode kMode>
static void backward_mode(const Problem& p, Arena& arena, int batch, int head) {
  const int n = registers_for(p.channels);
  const int64_t map_size = p.bordered_tokens * n * LANES;
  float* values = arena.take<float>(map_size);
  float* grad_values = arena.take<float>(map_size);
  copy_head(p, p.value, batch, head, values);
  std::memset(grad_values, 0, map_size * sizeof(float));
  float *keys = values, *grad_keys = grad_values;
  if (kMode == kSeparate) {
    keys = arena.take<float>(map_size);
    grad_keys = arena.take<float>(map_size);
    copy_head(p, p.key, batch, head, keys);
    std::memset(grad_keys, 0, map_size * sizeof(float));
  }
  const Maps maps = {keys, values};
  const MapGradients grads = {grad_keys, grad_values};
#define CALL(N) backward_queries<kMode, N>(p, arena, maps, grads, batch, head)
  FOR_REGISTERS(n, CALL);
#undef CALL
  write_head(p, p.grad_value, batch, head, grad_values);
  if (kMode == kSeparate) write_head(p, p.grad_key, batch, head, grad_keys);
}

// One head of one picture: nobody else writes to its gradients.
static void backward(const Problem& p, Arena& arena, int batch, int head) {
  if (p.mode == kPlain) return backward_mode<kPlain>(p, arena, batch, head);
  if (p.mode == kShared) return backward_mode<kShared>(p, arena, batch, head);
  return backward_mode<kSeparate>(p, arena, batch, head);
}

#undef FOR_REGISTERS
#undef EVEN_LANES
#undef ODD_LANES
#undef UNPACK_LOW
#undef UNPACK_HIGH
#undef PAIRS_LOW
#undef PAIRS_HIGH
#undef EVEN_ELEMENTS
#undef ODD_ELEMENTS
#undef ZIP_LOW
#undef ZIP_HIGH
#undef LANE_NUMBERS
#undef ACROSS_LANES
