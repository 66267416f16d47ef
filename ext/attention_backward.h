// The backward pass of one head. Part of attention_kernel.h.

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

  const int64_t first_index = static_cast<int64_t>(batch) * p.queries * p.heads + head;
  const auto index_of = [&](int q) { return first_index + static_cast<int64_t>(p.order ? p.order[q] : q) * p.heads; };

  for (int q = 0; q < p.queries; q++) {
    const int64_t index = index_of(q);
    if (q + kQueriesAhead < p.queries) {
      const int64_t next = index_of(q + kQueriesAhead);
      prefetch_query(p, kMode, next);
      prefetch(p.grad_out, bytes_per_row(p), next);
      prefetch_target(p.grad_locations, p.points_total * 8, next);
      if (kMode != kPlain) prefetch_target(p.grad_query, bytes_per_row(p), next);
    }
    const float* locations = locations_of(p, index, padded);
    read_whole_row<N>(p, p.grad_out, index, grad_out, 1.0f);
    if (kMode == kPlain)
      std::memcpy(weights, p.weights + index * total_points, total_points * sizeof(float));
    else
      read_whole_row<N>(p, p.query, index, query, p.scale);

    for (int first = 0; first < total_points; first += LANES) {
      Points& points = all_points[first / LANES];
      locate<true>(p, locations, first, row_size, points);
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
      float factor;
      softmax_rows(1, total_points, p.points_padded, weights, &factor);
      for (int i = 0; i < total_points; i += LANES) store(weights + i, load(weights + i) * factor);
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
        weighted_sums<1>(total_points, grad_logits, key_samples + r, row_size, p.scale, grad_query + r);
      store_row(p, p.grad_query, index, grad_query);
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
  FOR_USUAL_REGISTERS(n, CALL);
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
