// Vectors: loads, stores, sums over lanes, exp. Part of attention_kernel.h.

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));
typedef uint16_t hvec __attribute__((vector_size(LANES * 2)));
typedef float vec_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t hvec_anywhere __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

INLINE vec load(const float* p) { return *reinterpret_cast<const vec_anywhere*>(p); }
INLINE ivec load(const int32_t* p) { return *reinterpret_cast<const ivec_anywhere*>(p); }
INLINE void store(float* p, vec v) { *reinterpret_cast<vec_anywhere*>(p) = v; }
INLINE void store(int32_t* p, ivec v) { *reinterpret_cast<ivec_anywhere*>(p) = v; }
INLINE vec splat(float x) { return x - vec{}; }  // x - 0, not 0 + x: only the former is free of arithmetic

INLINE vec load(const uint16_t* p) {  // bfloat16 is the upper half of a float
#if LANES == 16  // one instruction, where some compilers make four of the vector types
  return (vec)((uvec)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))) << 16);
#else
  hvec half = *reinterpret_cast<const hvec_anywhere*>(p);
  return (vec)(__builtin_convertvector(half, uvec) << 16);
#endif
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

// The larger one; if only b is a NaN, b.
INLINE vec larger(vec a, vec b) {
#if LANES == 16
  return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
  return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__aarch64__)
  return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
  return (a > b) ? a : b;
#endif
}

INLINE vec round_down(vec x) {
#if LANES == 16
  return (vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#elif LANES == 8
  return (vec)_mm256_floor_ps((__m256)x);
#elif defined(__aarch64__)
  return (vec)vrndmq_f32((float32x4_t)x);
#else
  const vec whole = __builtin_convertvector(__builtin_convertvector(x, ivec), vec);
  return __builtin_convertvector(__builtin_convertvector(whole, ivec) + (whole > x), vec);  // true is -1
#endif
}

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

// LANES / 4 results of sum_quads -> one register whose lane i is the whole sum over register i.
INLINE vec join_quads(const vec* quads) {
#if LANES == 16
  vec ab = SHUFFLE(quads[0], quads[1], EVEN_LANES) + SHUFFLE(quads[0], quads[1], ODD_LANES);
  vec cd = SHUFFLE(quads[2], quads[3], EVEN_LANES) + SHUFFLE(quads[2], quads[3], ODD_LANES);
  return SHUFFLE(ab, cd, EVEN_LANES) + SHUFFLE(ab, cd, ODD_LANES);
#elif LANES == 8
  return SHUFFLE(quads[0], quads[1], EVEN_LANES) + SHUFFLE(quads[0], quads[1], ODD_LANES);
#else
  return quads[0];
#endif
}

// LANES registers -> one whose lane i is the sum over register i: about three instructions a register, where summing
// each by itself takes twice to three times as many.
INLINE vec sum_each(const vec* v) {
  vec quads[LANES / 4];
#pragma GCC unroll 4
  for (int i = 0; i < LANES / 4; i++) quads[i] = sum_quads(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
  return join_quads(quads);
}

// exp of something not positive, to about one unit in the last place; below -87 it is 0 to within 1e-38.
INLINE vec exp_not_positive(vec x) {
  x = larger(splat(-87.0f), x);  // a NaN passes
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
