// The kernel itself, for one instruction set.
//
// attention.cpp includes this file once per instruction set, inside a namespace of its own, with LANES (floats per
// vector register: 4, 8 or 16) defined and the compiler's target set. Everything is written with the compiler's vector
// types, so that one text serves all of them. There is no include guard on purpose.
//
// Vocabulary: a *row* is the D channels of one token or query in one head, padded to whole registers; a *corner* is one of
// the four pixels around a sampling point (order: top left, top right, bottom left, bottom right).

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

INLINE vec largest(vec v) {  // in every lane
  float lanes[LANES];
  store(lanes, v);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return splat(lanes[0]);
}

INLINE vec total(vec v) {  // in every lane
  float lanes[LANES];
  store(lanes, v);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return splat(lanes[0]);
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
INLINE void load_row_as(const T* source, int channels, float* row, float scale) {
  int i = 0;
  for (; i + LANES <= channels; i += LANES) store(row + i, load(source + i) * scale);
  if (i < channels) {
    T last[LANES] = {};
    for (int j = 0; i + j < channels; j++) last[j] = source[i + j];
    store(row + i, load(last) * scale);
  }
}

template <class T>
INLINE void store_row_as(T* target, int channels, const float* row, float scale) {
  int i = 0;
  for (; i + LANES <= channels; i += LANES) store(target + i, load(row + i) * scale);
  if (i < channels) {
    T last[LANES];
    store(last, load(row + i) * scale);
    for (int j = 0; i + j < channels; j++) target[i + j] = last[j];
  }
}

INLINE void load_row(const Problem& p, const void* tensor, int64_t index, float* row, float scale = 1.0f) {
  if (p.bfloat16)
    load_row_as(static_cast<const uint16_t*>(tensor) + index * p.channels, p.channels, row, scale);
  else
    load_row_as(static_cast<const float*>(tensor) + index * p.channels, p.channels, row, scale);
}

INLINE void store_row(const Problem& p, void* tensor, int64_t index, const float* row, float scale = 1.0f) {
  if (p.bfloat16)
    store_row_as(static_cast<uint16_t*>(tensor) + index * p.channels, p.channels, row, scale);
  else
    store_row_as(static_cast<float*>(tensor) + index * p.channels, p.channels, row, scale);
}

// One head of a map, copied so that its rows are neighbours (they are M apart in the tensor), with a row of zeros after
// the last: corners outside the map point there. The copy lies in this core's cache when the queries read it.
static void copy_head(const Problem& p, const void* map, int batch, int head, float* rows) {
  const int width = registers_for(p.channels) * LANES;
  int64_t index = static_cast<int64_t>(batch) * p.tokens * p.heads + head;
  for (int s = 0; s < p.tokens; s++, index += p.heads) load_row(p, map, index, rows + static_cast<int64_t>(s) * width);
  std::memset(rows + static_cast<int64_t>(p.tokens) * width, 0, width * sizeof(float));
}

static void write_head(const Problem& p, void* map, int batch, int head, const float* rows) {
  const int width = registers_for(p.channels) * LANES;
  int64_t index = static_cast<int64_t>(batch) * p.tokens * p.heads + head;
  for (int s = 0; s < p.tokens; s++, index += p.heads) store_row(p, map, index, rows + static_cast<int64_t>(s) * width);
}

// -------------------------------------------------------------------------------------- sampling points

struct Corners {        // per sampling point; arrays padded to whole registers
  int32_t* offset[4];   // of the corner's row, in floats
  float* weight[4];     // bilinear
  float *across, *down; // where the point lies between its corners, 0..1 (backward only)
};

static Corners new_corners(Arena& arena, int padded_points) {
  Corners c;
  for (int i = 0; i < 4; i++) {
    c.offset[i] = arena.take<int32_t>(padded_points);
    c.weight[i] = arena.take<float>(padded_points);
  }
  c.across = arena.take<float>(padded_points);
  c.down = arena.take<float>(padded_points);
  return c;
}

INLINE vec clamp(vec x, vec low, vec high) {  // a NaN becomes `low`
  x = (x > low) ? x : low;
  return (x < high) ? x : high;
}

INLINE vec floor_of(vec x, ivec& whole) {
  whole = __builtin_convertvector(x, ivec);
  whole += (__builtin_convertvector(whole, vec) > x);  // true is -1
  return __builtin_convertvector(whole, vec);
}

// From locations (x, y pairs in 0..1) to corners. Far coordinates are clamped to just outside first, which keeps the
// conversion to integers defined. Corners outside get the offset `outside`; in the forward pass also the weight 0.
template <bool kForward>
INLINE void locate(const Problem& p, const float* locations, float* padded, Corners& c, int stride, int outside) {
  const int points = p.points_total;
  if (points % LANES != 0) {
    std::memcpy(padded, locations, 2 * points * sizeof(float));
    locations = padded;
  }
  for (int i = 0; i < points; i += LANES) {
    vec first = load(locations + 2 * i), second = load(locations + 2 * i + LANES);
    vec width = load(p.point_width + i), height = load(p.point_height + i);
    ivec columns = __builtin_convertvector(width, ivec), lines = __builtin_convertvector(height, ivec);
    vec x = SHUFFLE(first, second, EVEN_ELEMENTS) * width - 0.5f;
    vec y = SHUFFLE(first, second, ODD_ELEMENTS) * height - 0.5f;
    ivec left, top;
    x = clamp(x, splat(-2.0f), width + 1.0f);
    y = clamp(y, splat(-2.0f), height + 1.0f);
    vec across = x - floor_of(x, left), down = y - floor_of(y, top);
    ivec in_left = (left >= 0) & (left < columns), in_right = (left >= -1) & (left < columns - 1);
    ivec in_top = (top >= 0) & (top < lines), in_bottom = (top >= -1) & (top < lines - 1);
    ivec offset = (load(p.point_start + i) + top * columns + left) * stride;
    ivec line = columns * stride;
    ivec nowhere = ivec{} + outside;
    ivec inside[4] = {in_top & in_left, in_top & in_right, in_bottom & in_left, in_bottom & in_right};
    ivec offsets[4] = {offset, offset + stride, offset + line, offset + line + stride};
    vec weights[4] = {(1.0f - across) * (1.0f - down), across * (1.0f - down), (1.0f - across) * down, across * down};
    for (int k = 0; k < 4; k++) {
      store(c.offset[k] + i, inside[k] ? offsets[k] : nowhere);
      store(c.weight[k] + i, kForward ? (vec)((ivec)weights[k] & inside[k]) : weights[k]);
    }
    if (!kForward) {
      store(c.across + i, across);
      store(c.down + i, down);
    }
  }
}

// Softmax over all points; `logits` holds one register of products per point and is summed here.
INLINE void softmax(int points, const vec* products, float* weights) {
  const ivec lane = {LANE_NUMBERS};
  vec highest = splat(-INFINITY);
  for (int i = 0; i < points; i += LANES) {
    vec logit = (lane + i < points) ? sum_each(products + i) : splat(-INFINITY);
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
  vec factor = 1.0f / total(sum);
  for (int i = 0; i < points; i += LANES) store(weights + i, load(weights + i) * factor);
}

// ---------------------------------------------------------------------------------------------- forward

struct Maps {
  const float *keys, *values;
  int stride;   // floats between the rows of neighbouring tokens
  int outside;  // offset that a corner outside the map gets
};

// N is the number of registers a row takes where the compiler knows it, else 0.
template <Mode kMode, int N>
static void forward_queries(const Problem& p, Arena& arena, const Maps& maps, int batch, int head, int begin, int end) {
  const int n = N ? N : registers_for(p.channels);
  const int row_size = n * LANES, points = p.points_total, padded_points = p.points_padded;
  float* query = arena.take<float>(row_size);
  float* out = arena.take<float>(row_size);
  float* samples = arena.take<float>(static_cast<int64_t>(padded_points) * row_size);
  float* weights = arena.take<float>(padded_points);
  float* locations = arena.take<float>(2 * padded_points);
  vec* products = reinterpret_cast<vec*>(arena.take<float>(padded_points * LANES));
  Corners c = new_corners(arena, padded_points);
  std::memset(locations, 0, 2 * padded_points * sizeof(float));
  std::memset(products, 0, padded_points * sizeof(vec));

  for (int q = begin; q < end; q++) {
    const int64_t index = (static_cast<int64_t>(batch) * p.queries + q) * p.heads + head;
    locate<true>(p, p.locations + index * 2 * points, locations, c, maps.stride, maps.outside);
    if (kMode == kPlain) {
      std::memcpy(weights, p.weights + index * points, points * sizeof(float));
    } else {
      load_row(p, p.query, index, query, p.scale);
    }
    for (int i = 0; i < points; i++) {
      const int o0 = c.offset[0][i], o1 = c.offset[1][i], o2 = c.offset[2][i], o3 = c.offset[3][i];
      const float w0 = c.weight[0][i], w1 = c.weight[1][i], w2 = c.weight[2][i], w3 = c.weight[3][i];
      vec product = {};
#pragma GCC unroll 4
      for (int r = 0; r < n; r++) {
        const float* v = maps.values + r * LANES;
        vec sample = w0 * load(v + o0) + w1 * load(v + o1) + w2 * load(v + o2) + w3 * load(v + o3);
        store(samples + i * row_size + r * LANES, sample);
        if (kMode == kSeparate) {
          const float* k = maps.keys + r * LANES;
          sample = w0 * load(k + o0) + w1 * load(k + o1) + w2 * load(k + o2) + w3 * load(k + o3);
        }
        if (kMode != kPlain) product += sample * load(query + r * LANES);
      }
      products[i] = product;
    }
    if (kMode != kPlain) softmax(points, products, weights);
#pragma GCC unroll 4
    for (int r = 0; r < n; r++) {
      vec even = {}, odd = {};
      int i = 0;
      for (; i + 1 < points; i += 2) {
        even += weights[i] * load(samples + i * row_size + r * LANES);
        odd += weights[i + 1] * load(samples + (i + 1) * row_size + r * LANES);
      }
      if (i < points) even += weights[i] * load(samples + i * row_size + r * LANES);
      store(out + r * LANES, even + odd);
    }
    store_row(p, p.out, index, out);
    if (kMode != kPlain && p.weights_out) std::memcpy(p.weights_out + index * points, weights, points * sizeof(float));
  }
}

template <Mode kMode>
static void forward_mode(const Problem& p, Arena& arena, int batch, int head, int begin, int end) {
  const int n = registers_for(p.channels), row_size = n * LANES;
  const int64_t map_size = static_cast<int64_t>(p.tokens + 1) * row_size;
  Maps maps;
  // Copying the map pays unless the queries touch few of its rows.
  const bool few = static_cast<int64_t>(end - begin) * p.points_total * 4 < p.tokens;
  if (few && !p.bfloat16 && p.channels == row_size) {
    const int64_t first = (static_cast<int64_t>(batch) * p.tokens * p.heads + head) * p.channels;
    maps.values = static_cast<const float*>(p.value) + first;
    maps.keys = kMode == kSeparate ? static_cast<const float*>(p.key) + first : maps.values;
    maps.stride = p.heads * p.channels;
    maps.outside = 0;  // its weight is 0
  } else {
    float* values = arena.take<float>(map_size);
    copy_head(p, p.value, batch, head, values);
    float* keys = values;
    if (kMode == kSeparate) {
      keys = arena.take<float>(map_size);
      copy_head(p, p.key, batch, head, keys);
    }
    maps = {keys, values, row_size, p.tokens * row_size};
  }
  switch (n) {
    case 1: return forward_queries<kMode, 1>(p, arena, maps, batch, head, begin, end);
    case 2: return forward_queries<kMode, 2>(p, arena, maps, batch, head, begin, end);
    case 4: return forward_queries<kMode, 4>(p, arena, maps, batch, head, begin, end);
    default: return forward_queries<kMode, 0>(p, arena, maps, batch, head, begin, end);
  }
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

INLINE Sample sample_with_slopes(const float* map, const int32_t (&o)[4], float across, float down) {
  vec top_left = load(map + o[0]), bottom_left = load(map + o[2]);
  vec top_slope = load(map + o[1]) - top_left, bottom_slope = load(map + o[3]) - bottom_left;
  vec top = top_left + across * top_slope, bottom = bottom_left + across * bottom_slope;
  Sample s;
  s.by_y = bottom - top;
  s.value = top + down * s.by_y;
  s.by_x = top_slope + down * (bottom_slope - top_slope);
  return s;
}

INLINE void scatter(float* map, const int32_t (&o)[4], const float (&w)[4], vec gradient) {
  for (int k = 0; k < 4; k++) store(map + o[k], load(map + o[k]) + w[k] * gradient);  // corners may coincide: in turn
}

struct MapGradients {
  float *keys, *values;
};

template <Mode kMode, int N>
static void backward_queries(const Problem& p, Arena& arena, const Maps& maps, const MapGradients& grads, int batch,
                             int head) {
  const int n = N ? N : registers_for(p.channels);
  const int row_size = n * LANES, points = p.points_total, padded_points = p.points_padded;
  float* query = arena.take<float>(row_size);
  float* grad_out = arena.take<float>(row_size);
  float* grad_query = arena.take<float>(row_size);
  float* samples = arena.take<float>(static_cast<int64_t>(padded_points) * row_size);
  float* weights = arena.take<float>(padded_points);
  float* grad_logits = arena.take<float>(padded_points);
  float* locations = arena.take<float>(2 * padded_points);
  // One register per point each, summed over its lanes later: <key, query>, <value, grad_out>, and the two slopes of
  // each of these.
  vec* products[6];
  for (int k = 0; k < 6; k++) {
    products[k] = reinterpret_cast<vec*>(arena.take<float>(padded_points * LANES));
    std::memset(products[k], 0, padded_points * sizeof(vec));
  }
  Corners c = new_corners(arena, padded_points);
  std::memset(locations, 0, 2 * padded_points * sizeof(float));
  std::memset(weights, 0, padded_points * sizeof(float));

  for (int q = 0; q < p.queries; q++) {
    const int64_t index = (static_cast<int64_t>(batch) * p.queries + q) * p.heads + head;
    locate<false>(p, p.locations + index * 2 * points, locations, c, maps.stride, maps.outside);
    load_row(p, p.grad_out, index, grad_out);
    if (kMode == kPlain)
      std::memcpy(weights, p.weights + index * points, points * sizeof(float));
    else
      load_row(p, p.query, index, query, p.scale);

    for (int i = 0; i < points; i++) {
      const int32_t o[4] = {c.offset[0][i], c.offset[1][i], c.offset[2][i], c.offset[3][i]};
      const float w[4] = {c.weight[0][i], c.weight[1][i], c.weight[2][i], c.weight[3][i]};
      const float across = c.across[i], down = c.down[i];
      vec sums[6] = {};
#pragma GCC unroll 4
      for (int r = 0; r < n; r++) {
        const int at = r * LANES;
        const vec g = load(grad_out + at);
        Sample s = sample_with_slopes(maps.values + at, o, across, down);
        sums[1] += s.value * g;
        sums[2] += s.by_x * g;
        sums[3] += s.by_y * g;
        if (kMode == kPlain) {
          scatter(grads.values + at, o, w, weights[i] * g);
        } else {
          const vec of_query = load(query + at);
          if (kMode == kSeparate) s = sample_with_slopes(maps.keys + at, o, across, down);
          store(samples + i * row_size + at, s.value);
          sums[0] += s.value * of_query;
          sums[4] += s.by_x * of_query;
          sums[5] += s.by_y * of_query;
        }
      }
      for (int k = 0; k < 6; k++)
        if (kMode != kPlain || (k >= 1 && k <= 3)) products[k][i] = sums[k];
    }

    if (kMode != kPlain) {
      softmax(points, products[0], weights);
      vec mean = {};
      for (int i = 0; i < points; i += LANES) {
        vec by_weight = sum_each(products[1] + i);
        if (p.grad_weights_out) {
          float extra[LANES] = {};
          for (int j = 0; j < LANES && i + j < points; j++) extra[j] = p.grad_weights_out[index * points + i + j];
          by_weight += load(extra);
        }
        store(grad_logits + i, by_weight);
        mean += by_weight * load(weights + i);
      }
      mean = total(mean);
      for (int i = 0; i < points; i += LANES)
        store(grad_logits + i, load(weights + i) * (load(grad_logits + i) - mean));

      for (int r = 0; r < n; r++) store(grad_query + r * LANES, vec{});
      for (int i = 0; i < points; i++) {
        const int32_t o[4] = {c.offset[0][i], c.offset[1][i], c.offset[2][i], c.offset[3][i]};
        const float w[4] = {c.weight[0][i], c.weight[1][i], c.weight[2][i], c.weight[3][i]};
        const float weight = weights[i], grad_logit = grad_logits[i];
#pragma GCC unroll 4
        for (int r = 0; r < n; r++) {
          const int at = r * LANES;
          vec by_value = weight * load(grad_out + at), by_key = grad_logit * load(query + at);
          if (kMode == kShared) {
            scatter(grads.values + at, o, w, by_value + by_key);
          } else {
            scatter(grads.values + at, o, w, by_value);
            scatter(grads.keys + at, o, w, by_key);
          }
          store(grad_query + at, load(grad_query + at) + grad_logit * load(samples + i * row_size + at));
        }
      }
      store_row(p, p.grad_query, index, grad_query, p.scale);
    }

    for (int i = 0; i < points; i += LANES) {
      vec weight = load(weights + i);
      vec by_x = weight * sum_each(products[2] + i), by_y = weight * sum_each(products[3] + i);
      if (kMode == kPlain) {
        store(grad_logits + i, sum_each(products[1] + i));
      } else {
        vec grad_logit = load(grad_logits + i);
        by_x += grad_logit * sum_each(products[4] + i);
        by_y += grad_logit * sum_each(products[5] + i);
      }
      by_x *= load(p.point_width + i);
      by_y *= load(p.point_height + i);
      float pairs[2 * LANES];
      store(pairs, SHUFFLE(by_x, by_y, ZIP_LOW));
      store(pairs + LANES, SHUFFLE(by_x, by_y, ZIP_HIGH));
      const int count = points - i < LANES ? points - i : LANES;
      std::memcpy(p.grad_locations + (index * points + i) * 2, pairs, 2 * count * sizeof(float));
    }
    if (kMode == kPlain) std::memcpy(p.grad_weights + index * points, grad_logits, points * sizeof(float));
  }
}

template <Mode kMode>
static void backward_mode(const Problem& p, Arena& arena, int batch, int head) {
  const int n = registers_for(p.channels), row_size = n * LANES;
  const int64_t map_size = static_cast<int64_t>(p.tokens + 1) * row_size;
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
  const Maps maps = {keys, values, row_size, p.tokens * row_size};
  const MapGradients grads = {grad_keys, grad_values};
  switch (n) {
    case 1: backward_queries<kMode, 1>(p, arena, maps, grads, batch, head); break;
    case 2: backward_queries<kMode, 2>(p, arena, maps, grads, batch, head); break;
    case 4: backward_queries<kMode, 4>(p, arena, maps, grads, batch, head); break;
    default: backward_queries<kMode, 0>(p, arena, maps, grads, batch, head); break;
  }
  write_head(p, p.grad_value, batch, head, grad_values);
  if (kMode == kSeparate) write_head(p, p.grad_key, batch, head, grad_keys);
}

// One head of one picture: nobody else writes to its gradients.
static void backward(const Problem& p, Arena& arena, int batch, int head) {
  if (p.mode == kPlain) return backward_mode<kPlain>(p, arena, batch, head);
  if (p.mode == kShared) return backward_mode<kShared>(p, arena, batch, head);
  return backward_mode<kSeparate>(p, arena, batch, head);
}

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
