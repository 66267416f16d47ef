// Skip and layer norm in one pass, which the layers around the attention want. Part of attention_kernel.h.

template <class T>
INLINE void add_norm_rows(const LitedetrNorm& p, int64_t begin, int64_t end) {
  alignas(64) float row[kNormChannels];
  const float scale = 1.0f / static_cast<float>(p.channels);
  for (int64_t r = begin; r < end; r++) {
    const T *x = static_cast<const T*>(p.x) + r * p.channels, *skip = static_cast<const T*>(p.skip) + r * p.channels;
    vec sum = {};
    for (int i = 0; i < p.channels; i += LANES) {
      const vec both = load(x + i) + load(skip + i);
      store(row + i, both);
      sum += both;
    }
    const float mean = total(sum)[0] * scale;
    vec squares = {};
    for (int i = 0; i < p.channels; i += LANES) {
      const vec distance = load(row + i) - mean;
      store(row + i, distance);
      squares += distance * distance;
    }
    const float factor = 1.0f / std::sqrt(total(squares)[0] * scale + p.eps);
    T* out = static_cast<T*>(p.out) + r * p.channels;
    for (int i = 0; i < p.channels; i += LANES) {
      const vec normed = load(row + i) * factor * load(p.weight + i) + load(p.bias + i);
      store(out + i, normed);
      if (p.shift)
        store(static_cast<T*>(p.shifted) + r * p.channels + i,
              normed + load(static_cast<const T*>(p.shift) + r * p.channels + i));
    }
  }
}

static void add_norm(const LitedetrNorm& p, int64_t begin, int64_t end) {
  if (p.bfloat16) return add_norm_rows<uint16_t>(p, begin, end);
  add_norm_rows<float>(p, begin, end);
}
