// The forward pass of one head. Part of attention_kernel.h.

struct Maps {
  const float *keys, *values;  // bordered copies
};

// One sampling point. Read from `Points` once, because to the compiler every store might change what stands there.
struct Corners {
  int64_t top, bottom;
  float weight[4];
};

INLINE Corners corners_of(const Points& points, int i) {
  return {points.top[i], points.bottom[i],
          {points.weight[0][i], points.weight[1][i], points.weight[2][i], points.weight[3][i]}};
}

// The sampled row, one register of it: `at` is where that lies in a row.
INLINE vec sample_at(const float* map, const Corners& c, int row_size, int at) {
  const float *top = map + c.top + at, *bottom = map + c.bottom + at;
  return c.weight[0] * load(top) + c.weight[1] * load(top + row_size) + c.weight[2] * load(bottom) +
         c.weight[3] * load(bottom + row_size);
}

// N is the number of registers a row takes where the compiler knows it, else 0.
template <Mode kMode, int N>
static void forward_queries(const Problem& p, Arena& arena, const Maps& maps, int batch, int head, int begin, int end) {
  const int n = N ? N : registers_for(p.channels);
  const int row_size = n * LANES, total_points = p.points_total, padded_points = p.points_padded;
  const int groups = (total_points + LANES - 1) / LANES;  // registers of points
  float* const row = arena.take<float>(row_size);
  float* const samples = arena.take<float>(static_cast<int64_t>(kBlock) * padded_points * row_size);
  float* const weights = arena.take<float>(kBlock * padded_points);
  float* const padded = arena.take<float>(3 * padded_points);
  Points* const all_points = arena.take<Points>(kBlock * groups);
  std::memset(padded, 0, 3 * padded_points * sizeof(float));
  const float *const values = maps.values, *const keys = maps.keys;
  const int64_t first_index = static_cast<int64_t>(batch) * p.queries * p.heads + head;
  const auto index_of = [&](int q) { return first_index + static_cast<int64_t>(p.order ? p.order[q] : q) * p.heads; };

  for (int block = begin; block < end; block += kBlock) {
    const int count = end - block < kBlock ? end - block : kBlock;
    int64_t index[kBlock];
    float factors[kBlock];

    for (int b = 0; b < count; b++) {
      index[b] = index_of(block + b);
      const float* locations = locations_of(p, index[b], padded);
      for (int g = 0; g < groups; g++) locate<false>(p, locations, g * LANES, row_size, all_points[b * groups + g]);
      if (kMode != kPlain) continue;
      const float* used = p.weights + index[b] * total_points;
      if (total_points % LANES) {
        std::memcpy(padded + 2 * padded_points, used, total_points * sizeof(float));
        used = padded + 2 * padded_points;
      }
      for (int g = 0; g < groups; g++)
        for (int c = 0; c < 4; c++) {
          float* weight = all_points[b * groups + g].weight[c];
          store(weight, load(weight) * load(used + g * LANES));
        }
    }

    for (int b = 0; b < count; b++) {
      if (block + b + kBlock < end) {
        const int64_t next = index_of(block + b + kBlock);
        prefetch_query(p, kMode, next);
        prefetch_target(p.out, bytes_per_row(p), next);
      }
      const Points* points = all_points + b * groups;
      if (kMode == kPlain) {
        vec sums[N ? N : 1];
        for (int first = 0; first < n; first += N ? N : 1) {
          for (vec& sum : sums) sum = vec{};
          for (int i = 0; i < total_points; i++) {
            const Corners corners = corners_of(points[i / LANES], i % LANES);
            for (int r = 0; r < (N ? N : 1); r++) sums[r] += sample_at(values, corners, row_size, (first + r) * LANES);
          }
          for (int r = 0; r < (N ? N : 1); r++) store(row + (first + r) * LANES, sums[r]);
        }
        write_whole_row<N>(p, p.out, index[b], row);
        continue;
      }
      read_whole_row<N>(p, p.query, index[b], row, p.scale);
      vec query[N ? N : 1];
      for (int r = 0; r < N; r++) query[r] = load(row + r * LANES);
      for (int g = 0; g < groups; g++) {
        vec quads[LANES / 4];
        for (int quad = 0; quad < LANES / 4; quad++) {
          vec products[4];
#pragma GCC unroll 4
          for (int j = 0; j < 4; j++) {
            const int i = quad * 4 + j;
            const Corners corners = corners_of(points[g], i);
            float* sample_row = samples + ((b * groups + g) * LANES + i) * row_size;
            vec product = {};
#pragma GCC unroll 8
            for (int r = 0; r < n; r++) {
              vec sample = sample_at(values, corners, row_size, r * LANES);
              store(sample_row + r * LANES, sample);
              if (kMode == kSeparate) sample = sample_at(keys, corners, row_size, r * LANES);
              product += sample * (N ? query[N ? r : 0] : load(row + r * LANES));
            }
            products[j] = product;
          }
          quads[quad] = sum_quads(products[0], products[1], products[2], products[3]);
        }
        store(weights + b * padded_points + g * LANES, join_quads(quads));
      }
    }
    if (kMode == kPlain) continue;

    softmax_rows(count, total_points, padded_points, weights, factors);
    for (int b = 0; b < count; b++) {
      float* const used = weights + b * padded_points;
      const float* sampled = samples + b * groups * LANES * row_size;
      for (int r = 0; r < n; r += N ? N : 1)
        weighted_sums<N ? N : 1>(total_points, used, sampled + r * LANES, row_size, factors[b], row + r * LANES);
      write_whole_row<N>(p, p.out, index[b], row);
      if (!p.weights_out) continue;
      for (int i = 0; i < total_points; i += LANES) store(used + i, load(used + i) * factors[b]);
      std::memcpy(p.weights_out + index[b] * total_points, used, total_points * sizeof(float));
    }
  }
}

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

// One head of one picture, the queries begin..end of the order.
static void forward(const Problem& p, Arena& arena, int batch, int head, int begin, int end) {
  if (p.mode == kPlain) return forward_mode<kPlain>(p, arena, batch, head, begin, end);
  if (p.mode == kShared) return forward_mode<kShared>(p, arena, batch, head, begin, end);
  return forward_mode<kSeparate>(p, arena, batch, head, begin, end);
}
