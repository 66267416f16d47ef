// Rows in and out of the tensors, one head's copy of a map, sampling points and their weights. Part of
// attention_kernel.h.

// The number of registers as a template argument, for the usual sizes of a head.
#if LANES == 16
#define FOR_USUAL_REGISTERS(n, call) (n) == 1 ? call(1) : (n) == 2 ? call(2) : call(0)
#define FOR_REGISTERS(n, call) (n) == 4 ? call(4) : FOR_USUAL_REGISTERS(n, call)
#elif LANES == 8
#define FOR_USUAL_REGISTERS(n, call) (n) == 2 ? call(2) : (n) == 4 ? call(4) : call(0)
#define FOR_REGISTERS(n, call) FOR_USUAL_REGISTERS(n, call)
#else
#define FOR_USUAL_REGISTERS(n, call) (n) == 4 ? call(4) : call(0)
#define FOR_REGISTERS(n, call) FOR_USUAL_REGISTERS(n, call)
#endif

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

// N is the number of registers of a row, or 0; where they make up the row exactly, nothing is left to ask.
template <int N>
INLINE void read_whole_row(const Problem& p, const void* tensor, int64_t index, float* row, float scale) {
  if (!N || p.channels != N * LANES) return load_row(p, tensor, index, row, scale);
#pragma GCC unroll 8
  for (int i = 0; i < N * LANES; i += LANES)
    store(row + i, scale * (p.bfloat16 ? load(static_cast<const uint16_t*>(tensor) + index * (N * LANES) + i)
                                       : load(static_cast<const float*>(tensor) + index * (N * LANES) + i)));
}

template <int N>
INLINE void write_whole_row(const Problem& p, void* tensor, int64_t index, const float* row) {
  if (!N || p.channels != N * LANES) return store_row(p, tensor, index, row);
#pragma GCC unroll 8
  for (int i = 0; i < N * LANES; i += LANES) {
    if (p.bfloat16)
      store(static_cast<uint16_t*>(tensor) + index * (N * LANES) + i, load(row + i));
    else
      store(static_cast<float*>(tensor) + index * (N * LANES) + i, load(row + i));
  }
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
// border of zeros; see `Level`. The copy lies in this core's cache when the queries read it. N is the number of registers
// that exactly make up a row, or 0.
template <int N, class T>
static void copy_head_as(const Problem& p, const T* map, int batch, int head, float* rows) {
  const int width = N ? N * LANES : registers_for(p.channels) * LANES;
  const int64_t step = static_cast<int64_t>(p.heads) * p.channels;
  const T* source = map + (static_cast<int64_t>(batch) * p.tokens * p.heads + head) * p.channels;
  int64_t filled = 0;  // pixels of the copy
  for (int l = 0; l < p.levels; l++) {
    const Level& level = p.level[l];
    for (int y = 0; y < level.height; y++) {
      const int64_t first = level.start + static_cast<int64_t>(y) * level.line;
      std::memset(rows + filled * width, 0, (first - filled) * width * sizeof(float));
      float* row = rows + first * width;
      for (int x = 0; x < level.width; x++, source += step, row += width) {
        if (N) {
          for (int i = 0; i < N * LANES; i += 64 / static_cast<int>(sizeof(T)))
            __builtin_prefetch(source + kRowsAhead * step + i);
#pragma GCC unroll 8
          for (int i = 0; i < N * LANES; i += LANES) store(row + i, load(source + i));
        } else {
          load_row_as(source, p.channels, row, 1.0f);
        }
      }
      filled = first + level.width;
    }
  }
  std::memset(rows + filled * width, 0, (p.bordered_tokens - filled) * width * sizeof(float));
}

static void copy_head(const Problem& p, const void* map, int batch, int head, float* rows) {
  const int n = p.channels % LANES == 0 ? p.channels / LANES : 0;
#define COPY(N)                                                                           \
  (p.bfloat16 ? copy_head_as<N>(p, static_cast<const uint16_t*>(map), batch, head, rows) \
              : copy_head_as<N>(p, static_cast<const float*>(map), batch, head, rows))
  FOR_REGISTERS(n, COPY);
#undef COPY
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

struct Points {            // one register's worth of sampling points
  int32_t top[LANES];      // offset, in floats, of the top left corner's row in the bordered copy; the right one follows
  int32_t bottom[LANES];   // of the bottom left one
  float weight[4][LANES];  // bilinear
  float across[LANES], down[LANES];  // where the point lies between its corners, 0..1
};

// From the locations (x, y pairs in 0..1) of the points first .. first + LANES to their corners. A point that touches no
// pixel is sent below its level's last line, where there is nothing but zeros: it needs no case of its own after that.
template <bool kSlopes>
INLINE void locate(const Problem& p, const float* locations, int first, int row_size, Points& points) {
  const vec low = load(locations + 2 * first), high = load(locations + 2 * first + LANES);
  const vec width = load(p.point_width + first), height = load(p.point_height + first);
  vec x = SHUFFLE(low, high, EVEN_ELEMENTS) * width - 0.5f;
  vec y = SHUFFLE(low, high, ODD_ELEMENTS) * height - 0.5f;
  const ivec inside = (x >= -1.0f) & (x < width) & (y >= -1.0f) & (y < height);  // false for NaN
  x = inside ? x : vec{};
  y = inside ? y : height;
  const vec left = round_down(x), line = round_down(y);
  const vec across = x - left, down = y - line;
  const ivec pitch = load(p.point_line + first);
  const ivec top =
      load(p.point_start + first) + __builtin_convertvector(line, ivec) * pitch + __builtin_convertvector(left, ivec);
  store(points.top, top * row_size);
  store(points.bottom, (top + pitch) * row_size);
  if (kSlopes) {
    store(points.across, across);
    store(points.down, down);
  }
  const vec both = across * down, above = 1.0f - down;
  store(points.weight[0], above - across * above);
  store(points.weight[1], across * above);
  store(points.weight[2], down - both);
  store(points.weight[3], both);
}

// The locations of one query and head. Where they do not fill whole registers they go through `padded`.
INLINE const float* locations_of(const Problem& p, int64_t index, float* padded) {
  const float* locations = p.locations + index * 2 * p.points_total;
  if (p.points_total % LANES == 0) return locations;
  std::memcpy(padded, locations, 2 * p.points_total * sizeof(float));
  return padded;
}

// What the query at `row` of the tensors is going to read.
INLINE void prefetch_query(const Problem& p, Mode mode, int64_t row) {
  prefetch(p.locations, p.points_total * 8, row);
  if (mode == kPlain)
    prefetch(p.weights, p.points_total * 4, row);
  else
    prefetch(p.query, bytes_per_row(p), row);
}

// Softmax over the points of several queries, each with `stride` logits of which `points` count; what is left there are the
// exponentials, and in `factors` what each query's are to be multiplied by. The queries' chains of dependent instructions
// overlap; hence all of them here and not each after its samples.
INLINE void softmax_rows(int rows, int points, int stride, float* logits, float* factors) {
  const ivec lane = {LANE_NUMBERS};
  for (int row = 0; row < rows; row++, logits += stride) {
    vec highest = splat(-INFINITY), sum = {};
    for (int i = 0; i < points; i += LANES) {
      vec logit = load(logits + i);
      if (points - i < LANES) store(logits + i, logit = (lane + i < points) ? logit : splat(-INFINITY));
      highest = i ? larger(highest, logit) : logit;
    }
    highest = largest(highest);
    for (int i = 0; i < points; i += LANES) {
      vec e = exp_not_positive(load(logits + i) - highest);
      if (points - i < LANES) e = (lane + i < points) ? e : vec{};
      store(logits + i, e);
      sum += e;
    }
    factors[row] = 1.0f / total(sum)[0];
  }
}

// factor * sum over points of weight * row, for K registers of the rows.
template <int K>
INLINE void weighted_sums(int points, const float* weights, const float* rows, int row_size, float factor, float* result) {
  vec even[K] = {}, odd[K] = {};
  int i = 0;
  for (; i + 1 < points; i += 2, rows += 2 * row_size) {
#pragma GCC unroll 8
    for (int r = 0; r < K; r++) {
      even[r] += weights[i] * load(rows + r * LANES);
      odd[r] += weights[i + 1] * load(rows + row_size + r * LANES);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < K; r++) {
    if (i < points) even[r] += weights[i] * load(rows + r * LANES);
    store(result + r * LANES, (even[r] + odd[r]) * factor);
  }
}
