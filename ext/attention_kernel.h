// The kernel itself, for one instruction set.
//
// attention.cpp includes this file once per instruction set, inside a namespace of its own, with LANES (floats per
// vector register: 4, 8 or 16) defined and the compiler's target set. Everything is written with the compiler's vector
// types, so that one text serves all of them. There is no include guard on purpose.
//
// Vocabulary: a *row* is the D channels of one token or query in one head, padded to whole registers; a *corner* is one of
// the four pixels around a sampling point.

#include "attention_vectors.h"
#include "attention_sampling.h"
#include "attention_forward.h"
#include "attention_backward.h"
#include "attention_norm.h"

#undef FOR_REGISTERS
#undef FOR_USUAL_REGISTERS
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
#undef ACROSS_LANES
