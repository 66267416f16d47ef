// The forward pass of one head. Part of attention_kernel.h.

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
