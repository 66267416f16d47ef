// Deformable attention on NVIDIA GPUs, plain and key-aware, forward and backward. Without headers of anybody else: NVRTC
// compiles it where the program runs, nvcc ahead of time, and a C++ compiler for tests (LITEDETR_HOST), with fibers for threads.
//
// A pair is one query and one head. LANES neighbouring threads share a pair; each holds 8 * VECTORS of its channels. A point's
// corners are worked out once, by one of them, and handed to the others through shared memory, four points at a time.
// Everything is computed and added up in float.
#include "attention_points.cuh"

// ---------------------------------------------------------------------------------------------------------- forward

template <Mode MODE, class T, int LANES, int VECTORS, bool WHOLE>
DEVICE void forward(const Attention& p) {
  typedef Worker<T, LANES, VECTORS, WHOLE> W;
  typedef typename T::scalar scalar;
  __shared__ Board<LANES, kForwardWords> board;
  const W w = W::of(p);
  if (!any_lane(w.busy)) return;  // the whole warp lies beyond its level's last line
  const int total_points = p.levels * p.points;
  const long long row = W::row(p, w);
  const scalar *values[VECTORS], *keys[VECTORS];
#pragma unroll
  for (int n = 0; n < VECTORS; n++) {
    values[n] = W::map(p, w, static_cast<const scalar*>(p.value), n);
    keys[n] = MODE == separate ? W::map(p, w, static_cast<const scalar*>(p.key), n) : values[n];
  }
  float* const weights_out = p.weights_out ? p.weights_out + row * total_points : nullptr;
  Locations<LANES> locations = {reinterpret_cast<const float2*>(p.locations) + row * total_points};
  locations.fetch(p, locations, w.lane, 0);

  float query[VECTORS][8], out[VECTORS][8] = {};
  if (MODE != plain) W::load_row(p, w, p.query, p.scale * kLog2E, query);  // logits count in powers of two
  float highest = kLowest, sum = 0.0f;

  for (int first = 0; first < total_points; first += kChunk) {
    locate_chunk<scalar>(p, locations, w.lane, first, [&](int j, int i, Point& point, bool real) {
      multiply_weights(point, MODE != plain ? 1.0f : real ? p.weights[row * total_points + i] : 0.0f);
      post<kForwardWords>(board, w.pair, j, point);
    });
    __syncwarp();
    if (MODE == plain) {
#pragma unroll
      for (int j = 0; j < kChunk; j++) {
        const Point point = read<kForwardWords>(board, w.pair, j);
#pragma unroll
        for (int n = 0; n < VECTORS; n++) add_sample<W>(p, w, values[n], point, 1.0f, n, out[n]);
      }
    } else {
#pragma unroll
      for (int half = 0; half < kChunk; half += kTogether) {
        float logit[kTogether], sample[kTogether][VECTORS][8] = {};
#pragma unroll
        for (int j = 0; j < kTogether; j++) {
          const Point point = read<kForwardWords>(board, w.pair, half + j);
          logit[j] = 0.0f;
#pragma unroll
          for (int n = 0; n < VECTORS; n++) {
            add_sample<W>(p, w, keys[n], point, 1.0f, n, sample[j][n]);
            logit[j] = dot(sample[j][n], query[n], logit[j]);
          }
        }
        const float before = highest;
#pragma unroll
        for (int j = 0; j < kTogether; j++) {
          logit[j] = first + half + j < total_points ? sum_over_lanes<LANES>(logit[j]) : kLowest;
          highest = fmaxf(highest, logit[j]);
        }
        if (weights_out) {
#pragma unroll
          for (int j = 0; j < kTogether; j++)
            if (w.busy && w.lane == (half + j) % LANES && first + half + j < total_points)
              weights_out[first + half + j] = logit[j];
        }
        const float shrink = exp2_of(before - highest);
        sum *= shrink;
#pragma unroll
        for (int n = 0; n < VECTORS; n++)
#pragma unroll
          for (int i = 0; i < 8; i++) out[n][i] *= shrink;
#pragma unroll
        for (int j = 0; j < kTogether; j++) {
          const float share = exp2_of(logit[j] - highest);
          sum += share;
          const Point point = read<kForwardWords>(board, w.pair, half + j);
#pragma unroll
          for (int n = 0; n < VECTORS; n++) {
            if (MODE == separate)
              add_sample<W>(p, w, values[n], point, share, n, out[n]);
            else
#pragma unroll
              for (int i = 0; i < 8; i++) out[n][i] = fmaf(share, sample[j][n][i], out[n][i]);
          }
        }
      }
    }
    __syncwarp();
  }

  const float factor = MODE == plain ? 1.0f : 1.0f / sum;
  W::store_row(p, w, p.out, factor, out);
  if (MODE != plain && weights_out && w.busy && w.lane < kChunk)  // each lane finishes the logits that it wrote
    for (int i = w.lane; i < total_points; i += LANES < kChunk ? LANES : kChunk)
      weights_out[i] = exp2_of(weights_out[i] - highest) * factor;
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
  if (!any_lane(w.busy)) return;  // the whole warp lies beyond its level's last line
  const int total_points = p.levels * p.points;
  const long long row = W::row(p, w);
  const scalar *values[VECTORS], *keys[VECTORS];
  float *grad_values[VECTORS], *grad_keys[VECTORS];
#pragma unroll
  for (int n = 0; n < VECTORS; n++) {
    values[n] = W::map(p, w, static_cast<const scalar*>(p.value), n);
    keys[n] = MODE == separate ? W::map(p, w, static_cast<const scalar*>(p.key), n) : values[n];
    grad_values[n] = W::map(p, w, p.grad_value, n);
    grad_keys[n] = MODE == separate ? W::map(p, w, p.grad_key, n) : grad_values[n];
  }
  float2* const grad_locations = reinterpret_cast<float2*>(p.grad_locations) + row * total_points;
  Locations<LANES> locations = {reinterpret_cast<const float2*>(p.locations) + row * total_points};

  float query[VECTORS][8], grad_out[VECTORS][8], grad_query[VECTORS][8] = {};
  W::load_row(p, w, p.grad_out, 1.0f, grad_out);
  if (MODE != plain) W::load_row(p, w, p.query, p.scale * kLog2E, query);
  float highest = kLowest, sum = 0.0f, mean = 0.0f;

  if (MODE != plain) {
    locations.fetch(p, locations, w.lane, 0);
    for (int first = 0; first < total_points; first += kChunk) {
      locate_chunk<scalar>(p, locations, w.lane, first, [&](int j, int i, Point& point, bool real) {
        multiply_weights(point, 1.0f);
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
          add_sample<W>(p, w, keys[n], point, 1.0f, n, sample);
          logit = dot(sample, query[n], logit);
          if (MODE == separate) {
#pragma unroll
            for (int i = 0; i < 8; i++) sample[i] = 0.0f;
            add_sample<W>(p, w, values[n], point, 1.0f, n, sample);
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
    locate_chunk<scalar>(p, locations, w.lane, first, [&](int j, int i, Point& point, bool real) {
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
        const auto corners = Corners<scalar>::of(values[n], point);
        const auto key_corners = Corners<scalar>::of(keys[n], point);
#pragma unroll
        for (int k = 0; k < 4; k++) {
          const float weight = corner_weight(point, k);
          float v[8];
          W::load(p, w, corners.at[k], n, v);
          float product = dot(v, MODE == plain ? grad_out[n] : by_value, 0.0f);
          if (MODE == plain) {
            by_weight = fmaf(weight, product, by_weight);
            product *= point.share;
          }
          if (MODE == separate) {
            W::load(p, w, key_corners.at[k], n, v);
            product = dot(v, by_key, product);
          }
          if (MODE != plain)
#pragma unroll
            for (int i = 0; i < 8; i++) grad_query[n][i] = fmaf(point.grad_logit * weight, v[i], grad_query[n][i]);
          by_x = fmaf((k & 1 ? point.slope_right : point.slope_left) * (k & 2 ? point.lower : point.upper), product, by_x);
          by_y = fmaf((k & 2 ? point.slope_lower : point.slope_upper) * (k & 1 ? point.right : point.left), product, by_y);
        }
        if (w.busy && point.offset >= 0 && W::channel(w, n) < p.channels) {
          add_to_corners(p, w, grad_values[n], point, n, by_value);
          if (MODE == separate) add_to_corners(p, w, grad_keys[n], point, n, by_key);
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
