// One call of the attention kernel for `test_arm.py`: sizes and tensors come from standard input, results go to standard output.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../ext/attention.h"

using Numbers = std::vector<float>;

static Numbers numbers(int64_t count, bool read = true) {
  Numbers values(count);
  if (read && std::fread(values.data(), sizeof(float), count, stdin) != static_cast<size_t>(count)) std::exit(9);
  return values;
}

static void give(const Numbers& values) { std::fwrite(values.data(), sizeof(float), values.size(), stdout); }

int main() {
  int32_t head[7];
  if (std::fread(head, sizeof(int32_t), 7, stdin) != 7) return 9;
  LitedetrAttention call = {};
  call.mode = head[0], call.batch = head[1], call.queries = head[2], call.heads = head[3], call.channels = head[4];
  call.levels = head[5], call.points = head[6], call.threads = 1;
  std::vector<int32_t> sizes(2 * call.levels);
  if (std::fread(sizes.data(), sizeof(int32_t), sizes.size(), stdin) != sizes.size()) return 9;
  call.sizes = sizes.data();
  int64_t tokens = 0;
  for (int l = 0; l < call.levels; l++) tokens += sizes[2 * l] * sizes[2 * l + 1];
  const int64_t asked = static_cast<int64_t>(call.batch) * call.queries * call.heads;
  const int64_t kept = tokens * call.batch * call.heads * call.channels, points = asked * call.levels * call.points;
  const bool plain = call.mode == kPlain, separate = call.mode == kSeparate;
  const Numbers value = numbers(kept), locations = numbers(2 * points), weights = numbers(plain ? points : 0);
  const Numbers query = numbers(plain ? 0 : asked * call.channels), key = numbers(separate ? kept : 0);
  const Numbers grad_out = numbers(asked * call.channels);
  Numbers out = numbers(asked * call.channels, false), grad_value = numbers(kept, false);
  Numbers grad_locations = numbers(2 * points, false), grad_weights = numbers(weights.size(), false);
  Numbers grad_query = numbers(query.size(), false), grad_key = numbers(key.size(), false);
  call.value = value.data(), call.locations = locations.data(), call.weights = plain ? weights.data() : nullptr;
  call.query = plain ? nullptr : query.data(), call.key = separate ? key.data() : nullptr;
  call.out = out.data(), call.grad_out = grad_out.data(), call.grad_value = grad_value.data();
  call.grad_locations = grad_locations.data(), call.grad_weights = grad_weights.data();
  call.grad_query = grad_query.data(), call.grad_key = separate ? grad_key.data() : nullptr;
  if (litedetr_attention_forward(&call) || litedetr_attention_backward(&call)) return 1;
  for (const Numbers* part : {&out, &grad_value, &grad_locations, &grad_weights, &grad_query, &grad_key}) give(*part);
  return 0;
}
