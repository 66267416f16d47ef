// A GPU of one thread, for tests on machines without one: ext/attention.cu compiled as C++, and the few functions of the
// CUDA driver that litedetr calls, so that launching is tested as well. The lanes of a warp are fibers; they change places
// where a GPU's lanes wait for each other, in an order that `emulator_set_order` chooses: what depends on it is a race.
#include <dlfcn.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

// ------------------------------------------------------------------------------------- what CUDA C++ brings with it

#define LITEDETR_HOST
#define DEVICE static inline
#define KERNEL extern "C" void
#define __device__
#define __shared__ static
#define __grid_constant__

struct Index {
  unsigned x, y, z;
};
static Index threadIdx, blockIdx;
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static float2 make_float2(float x, float y) { return {x, y}; }

static unsigned bits_of(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
static float float_of(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

static void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "emulated GPU: %s\n", what);
  std::abort();
}
static void must_align(const void* at, int bytes) { must(reinterpret_cast<uintptr_t>(at) % bytes == 0, "misaligned address"); }

static float exp2_of(float x) { return std::exp2(x); }
static uint4 load_16_bytes(const void* at) {
  must_align(at, 16);
  return *static_cast<const uint4*>(at);
}
static float2 load_once(const float2* at) {
  must_align(at, 8);
  return *at;
}
static float half_to_float(unsigned bits) {
  const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return float_of(sign | 0x7f800000u | fraction << 13);
  const float whole = exponent ? 1024.0f + fraction : fraction;
  const float size = std::ldexp(whole, exponent ? static_cast<int>(exponent) - 25 : -24);
  return sign ? -size : size;
}
static unsigned float_to_half(float x) {
  const unsigned sign = bits_of(x) >> 16 & 0x8000u;
  if (x != x) return 0x7fffu;
  const float size = std::fabs(x);
  if (size >= 65520.0f) return sign | 0x7c00u;
  int exponent = 0;
  std::frexp(size, &exponent);
  const float unit = std::ldexp(1.0f, exponent < -13 ? -24 : exponent - 11);
  const float steps = std::nearbyint(size / unit);  // to even
  const unsigned whole = static_cast<unsigned>(steps);
  return sign | (exponent < -13 ? whole : (static_cast<unsigned>(exponent + 14) << 10) + whole - 1024);
}
static void halves_to_floats(unsigned bits, float& low, float& high) {
  low = half_to_float(bits & 0xffffu);
  high = half_to_float(bits >> 16);
}
static unsigned floats_to_halves(float low, float high) { return float_to_half(low) | float_to_half(high) << 16; }
static void atomicAdd(float* at, float x) { *at += x; }
static void add_4(float* at, float a, float b, float c, float d) {
  must_align(at, 16);
  at[0] += a, at[1] += b, at[2] += c, at[3] += d;
}

// -------------------------------------------------------------------------------------------------- lanes as fibers

constexpr int kLanes = 32;
static ucontext_t scheduler, fibers[kLanes];
static std::vector<char> stacks[kLanes];
static int running, arrivals[kLanes], order = 0;
static bool finished[kLanes];
static float exchanged[2][kLanes];  // of this meeting and of the one before, which some lanes have yet to read

static void meet() {
  arrivals[running]++;
  swapcontext(&fibers[running], &scheduler);
}
static void __syncwarp() { meet(); }
static float exchange(float x, int distance) {
  float* const slots = exchanged[arrivals[running] & 1];
  slots[running] = x;
  meet();
  return slots[running ^ distance];
}

static bool any_lane(bool x) {
  float* const slots = exchanged[arrivals[running] & 1];
  slots[running] = x;
  meet();
  for (int lane = 0; lane < kLanes; lane++)
    if (slots[lane] != 0.0f) return true;
  return false;
}

#define KERNELS                                                                                     \
  EMULATED(f32, 1, 1, true) EMULATED(f32, 2, 1, true) EMULATED(f32, 4, 1, true)                     \
  EMULATED(f32, 8, 1, true) EMULATED(f32, 1, 1, false) EMULATED(f32, 8, 1, false)                   \
  EMULATED(f32, 32, 2, false) EMULATED(f16, 4, 1, true) EMULATED(bf16, 4, 1, true)                  \
  EMULATED(f16, 1, 1, false) EMULATED(bf16, 1, 1, false)
#define EMULATED(type, lanes, vectors, whole) \
  BOTH(plain, type, lanes, vectors, whole)    \
  BOTH(shared, type, lanes, vectors, whole)   \
  BOTH(separate, type, lanes, vectors, whole)
#include "../../../ext/attention.cu"

static void (*kernel)(Attention);
static const Attention* argument;

static void run_lane() {
  kernel(*argument);
  finished[running] = true;
  swapcontext(&fibers[running], &scheduler);
}

static void run_warp(Index block, unsigned first_thread) {
  blockIdx = block;
  for (int lane = 0; lane < kLanes; lane++) {
    stacks[lane].resize(1 << 16);
    getcontext(&fibers[lane]);
    fibers[lane].uc_stack.ss_sp = stacks[lane].data();
    fibers[lane].uc_stack.ss_size = stacks[lane].size();
    fibers[lane].uc_link = nullptr;
    makecontext(&fibers[lane], run_lane, 0);
    finished[lane] = false;
    arrivals[lane] = 0;
  }
  while (!finished[0]) {
    for (int i = 0; i < kLanes; i++) {
      running = order ? kLanes - 1 - i : i;
      threadIdx = {first_thread + static_cast<unsigned>(running), 0, 0};
      swapcontext(&scheduler, &fibers[running]);
    }
    for (int lane = 1; lane < kLanes; lane++)
      must(finished[lane] == finished[0] && arrivals[lane] == arrivals[0], "lanes of a warp wait at different places");
  }
}

// ------------------------------------------------------------------------------------------------------- the driver

static int current = 0, launches = 0;

extern "C" {
void emulator_set_order(int reversed) { order = reversed; }
int emulator_launches() { return launches; }
int emulator_struct_size() { return sizeof(Attention); }

int cuInit(unsigned) { return 0; }
int cuDeviceGet(int* device, int index) { return *device = index, 0; }
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &current, 0; }
int cuCtxPushCurrent_v2(void* context) { return must(context == &current, "another context"), current++, 0; }
int cuCtxPopCurrent_v2(void** context) { return must(current > 0, "no context to leave"), *context = &current, current--, 0; }
int cuThreadExchangeStreamCaptureMode(int* mode) { return *mode = 0, 0; }
int cuModuleLoadData(void** module, const void* image) {
  must(current > 0, "no context");
  if (std::strncmp(static_cast<const char*>(image), "broken", 6) == 0) return 200;
  return *module = &current, 0;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
  Dl_info self;
  dladdr(reinterpret_cast<void*>(&run_warp), &self);
  *function = dlsym(dlopen(self.dli_fname, RTLD_NOW), name);
  return *function ? 0 : 500;
}
int cuGetErrorString(int error, const char** text) {
  return *text = error == 200 ? "device kernel image is invalid" : "not found", 0;
}
int cuLaunchKernel(void* function, unsigned grid, unsigned grid_y, unsigned grid_z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared_bytes, void*, void** parameters, void**) {
  must(current > 0, "no context");
  must(threads_y == 1 && threads_z == 1 && shared_bytes == 0, "blocks of one dimension are expected");
  must(threads % kLanes == 0 && threads <= THREADS && grid > 0 && grid_y > 0 && grid_y < 65536 && grid_z > 0 && grid_z < 65536, "odd number of threads or blocks");
  kernel = reinterpret_cast<void (*)(Attention)>(function);
  argument = static_cast<const Attention*>(parameters[0]);
  for (unsigned z = 0; z < grid_z; z++)
    for (unsigned y = 0; y < grid_y; y++)
      for (unsigned x = 0; x < grid; x++)
        for (unsigned thread = 0; thread < threads; thread += kLanes) run_warp({x, y, z}, thread);
  launches++;
  return 0;
}
}
