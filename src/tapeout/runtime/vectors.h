// The host's vectors: one register of numbers, fused steps, numbers of the chip widened to float32, and transposes.
//
// Registers are as wide as the host features that this is built for have them. Every width gives the same bits.
// Included by native.cpp.

#pragma once

#if defined(__AVX512F__)
#define TAPEOUT_AVX512
constexpr int64_t register_bytes = 64;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define TAPEOUT_AVX2
constexpr int64_t register_bytes = 32;
#else
constexpr int64_t register_bytes = 16;
#endif

template <class T>
constexpr int64_t width = register_bytes / sizeof(T);  // numbers in a register
constexpr int64_t lanes = width<float>;

template <class T, int64_t bytes = register_bytes>
struct Vector {
    typedef T type __attribute__((vector_size(bytes)));
};
template <class T, int64_t bytes = register_bytes>
using VectorOf = typename Vector<T, bytes>::type;

typedef VectorOf<float> Floats;
typedef VectorOf<double> Doubles;
typedef VectorOf<uint32_t> Words;

template <class V>
inline V load_vector(const void* from) {
    V value;
    memcpy(&value, from, sizeof(V));
    return value;
}
template <class V>
inline void store_vector(void* to, V value) {
    memcpy(to, &value, sizeof(V));
}

template <class V, class T>
inline V splat(T number) {
    return number - V{};  // not plus: -0 + 0 is not -0
}

// ----------------------------------------------------------------------------------------- conversions

inline float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

constexpr uint32_t canonical_nan = 0x7fc00000;

inline float bf16_to_float(uint16_t bits) { return float_of_bits(uint32_t(bits) << 16); }

inline uint16_t float_to_bf16(float value) {
    uint32_t bits = bits_of_float(value);
    if (value != value) return 0x7fc0;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A float of `exponent_bits` and `mantissa_bits`; `finite`: no infinities, only all ones is NaN (e4m3).
inline float small_to_float(uint32_t bits, int exponent_bits, int mantissa_bits, bool finite) {
    uint32_t sign = bits >> (exponent_bits + mantissa_bits) << 31;
    uint32_t exponent = bits >> mantissa_bits & ((1u << exponent_bits) - 1);
    uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
    int bias = (1 << (exponent_bits - 1)) - 1;
    uint32_t ones = (1u << exponent_bits) - 1;
    if (exponent == ones && !finite) {
        return float_of_bits(sign | (mantissa ? canonical_nan : 0x7f800000));
    }
    if (exponent == ones && finite && mantissa == (1u << mantissa_bits) - 1) return float_of_bits(sign | canonical_nan);
    float magnitude = exponent ? std::ldexp(float(mantissa | 1u << mantissa_bits), int(exponent) - bias - mantissa_bits)
                               : std::ldexp(float(mantissa), 1 - bias - mantissa_bits);
    return float_of_bits(bits_of_float(magnitude) | sign);
}

inline float f16_to_float(uint16_t bits) {
#if defined(__F16C__)
    return _cvtsh_ss(bits);
#else
    return small_to_float(bits, 5, 10, false);
#endif
}

inline uint16_t float_to_f16(float value) {
    if (value != value) return 0x7e00;
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);
    if (magnitude < 0x38800000) {
        // Subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low mantissa bits.
        float shifted = float_of_bits(magnitude) + 0.5f;
        return uint16_t(sign | (bits_of_float(shifted) - bits_of_float(0.5f)));
    }
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return uint16_t(sign | ((rounded - 0x38000000) >> 13));
}

struct SmallTables {
    float e4m3[256], e5m2[256];
    SmallTables() {
        for (uint32_t i = 0; i < 256; i++) {
            e4m3[i] = small_to_float(i, 4, 3, true);
            e5m2[i] = small_to_float(i, 5, 2, false);
        }
    }
};
const SmallTables small_tables;

inline Floats widen_bf16(const char* from) {
#if defined(TAPEOUT_AVX2)
    return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16);
#else
    return (Floats)(__builtin_convertvector((load_vector<VectorOf<uint16_t, 2 * lanes>>(from)), Words) << 16);
#endif
}

inline Floats widen_f16(const char* from) {
#if defined(TAPEOUT_AVX512)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(TAPEOUT_AVX2)
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#else
    // Exponent and mantissa where a float has them are the value times 2^(15 - 127), subnormals included.
    Words bits = __builtin_convertvector((load_vector<VectorOf<uint16_t, 2 * lanes>>(from)), Words);
    Words magnitude = (bits & 0x7fff) << 13;
    Words value = (Words)((Floats)magnitude * 0x1p112f);
    return (Floats)((magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : value) | (bits & 0x8000) << 16);
#endif
}

// A type of numbers in memory: `one` of them, and as many as there are lanes, as the type that products sum in.
template <int dtype>
struct Element;
template <>
struct Element<F32> {
    typedef float type;
    static constexpr int64_t size = 4;
    static float one(const char* p) { return load_vector<float>(p); }
    static Floats many(const char* p) { return load_vector<Floats>(p); }
};
template <>
struct Element<F64> {
    typedef double type;
    static constexpr int64_t size = 8;
    static double one(const char* p) { return load_vector<double>(p); }
    static Doubles many(const char* p) { return load_vector<Doubles>(p); }
};
template <>
struct Element<BF16> {
    typedef float type;
    static constexpr int64_t size = 2;
    static float one(const char* p) { return bf16_to_float(load_vector<uint16_t>(p)); }
    static Floats many(const char* p) { return widen_bf16(p); }
};
template <>
struct Element<F16> {
    typedef float type;
    static constexpr int64_t size = 2;
    static float one(const char* p) { return f16_to_float(load_vector<uint16_t>(p)); }
    static Floats many(const char* p) { return widen_f16(p); }
};
template <>
struct Element<F8E4M3> {
    typedef float type;
    static constexpr int64_t size = 1;
    static float one(const char* p) { return small_tables.e4m3[uint8_t(*p)]; }
    static Floats many(const char* p) {
        // Exponent and mantissa where a float has them are the value times 2^(7 - 127), subnormals included.
        Words bits = __builtin_convertvector((load_vector<VectorOf<uint8_t, lanes>>(p)), Words), magnitude = bits & 0x7f;
        Words value = (Words)((Floats)(magnitude << 20) * 0x1p120f);
        return (Floats)((magnitude == 0x7f ? Words{} + canonical_nan : value) | (bits & 0x80) << 24);
    }
};
template <>
struct Element<F8E5M2> {
    typedef float type;
    static constexpr int64_t size = 1;
    static float one(const char* p) { return small_tables.e5m2[uint8_t(*p)]; }
    static Floats many(const char* p) {
        typedef VectorOf<uint16_t, 2 * lanes> Halves;
        Halves halves = __builtin_convertvector((load_vector<VectorOf<uint8_t, lanes>>(p)), Halves) << 8;
        return widen_f16((const char*)&halves);  // the lower byte of each is zero
    }
};
template <>
struct Element<I8> {
    typedef float type;
    static constexpr int64_t size = 1;
    static float one(const char* p) { return float(int8_t(*p)); }
    static Floats many(const char* p) {
        typedef VectorOf<int32_t> Integers;
        return __builtin_convertvector(__builtin_convertvector((load_vector<VectorOf<int8_t, lanes>>(p)), Integers), Floats);
    }
};

// ---------------------------------------------------------------------------------------- fused steps

#if !defined(TAPEOUT_AVX512) && !defined(TAPEOUT_AVX2) && !defined(__aarch64__)
// a * b + c rounded once, without the host's help: products of floats are exact as doubles, and a sum of doubles that is
// rounded to odd rounds to float as if it had not been rounded before.
inline Floats fused_in_doubles(Floats a, Floats b, Floats c) {
    typedef VectorOf<double, 8 * lanes> Wide;
    typedef VectorOf<int64_t, 8 * lanes> Bits;
    Wide product = __builtin_convertvector(a, Wide) * __builtin_convertvector(b, Wide), added = __builtin_convertvector(c, Wide);
    Wide sum = product + added, rest = sum - product;
    Wide error = (product - (sum - rest)) + (added - rest);
    Bits inexact = (error < 0) | (error > 0), even = ((Bits)sum & 1) - 1, opposite = (Bits)error >> 63 ^ (Bits)sum >> 63;
    Bits odd = (Bits)sum + (inexact & even & (opposite | 1));
    return __builtin_convertvector((Wide)odd, Floats);
}
#endif

inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(TAPEOUT_AVX512)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(TAPEOUT_AVX2)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return fused_in_doubles(a, b, c);
#endif
}

inline Doubles fused(Doubles a, Doubles b, Doubles c) {
#if defined(TAPEOUT_AVX512)
    return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(TAPEOUT_AVX2)
    return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
    return (Doubles)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    for (int i = 0; i < width<double>; i++) c[i] = __builtin_fma(a[i], b[i], c[i]);
    return c;
#endif
}

// ----------------------------------------------------------------------------------------- transposes

// Of two vectors of n elements that are rows r and r + d of a square: what they are when off-diagonal blocks of d x d have
// changed places.
template <class I, int n, int d, bool upper, int... l>
constexpr I exchanged(std::integer_sequence<int, l...>) {
    return I{(l & d ? (upper ? n + l : n + l - d) : (upper ? l + d : l))...};
}

// Transposes n vectors of n elements in registers: halves, quarters, ... single elements change places. `I`: a vector of
// integers of the same size.
template <class I, int d, class V, size_t n>
inline void transpose_registers(V (&r)[n]) {
    constexpr I lower = exchanged<I, n, d, false>(std::make_integer_sequence<int, n>{});
    constexpr I upper = exchanged<I, n, d, true>(std::make_integer_sequence<int, n>{});
#pragma GCC unroll 16
    for (size_t i = 0; i < n; i++) {
        if (i & d) continue;
        V a = r[i], b = r[i + d];
        r[i] = __builtin_shuffle(a, b, lower);
        r[i + d] = __builtin_shuffle(a, b, upper);
    }
    if constexpr (d > 1) transpose_registers<I, d / 2>(r);
}

// Rows of a square of elements of T that turns in registers: it fills them, or is 16 bytes wide.
template <class T>
constexpr int64_t square = std::min<int64_t>(16, std::max<int64_t>(lanes, 16 / sizeof(T)) * 4 / std::max<size_t>(4, sizeof(T)));

// The destination runs along the inner loop, the source along the outer one: blocks keep both in the cache, and squares of
// neighbouring bytes on both sides turn in registers.
template <class T>
void transpose(char* to, const char* from, int64_t outer, int64_t inner, int64_t to_outer, int64_t from_outer,
               int64_t from_inner) {
    constexpr int64_t block = 16, n = square<T>;
    typedef VectorOf<T, n * sizeof(T)> V;
    auto turn = [&](char* t, const char* f) {
        V r[n];
#pragma GCC unroll 16
        for (int64_t j = 0; j < n; j++) r[j] = load_vector<V>(f + j * from_inner);
        transpose_registers<V, n / 2>(r);
#pragma GCC unroll 16
        for (int64_t i = 0; i < n; i++) store_vector(t + i * to_outer, r[i]);
    };
    for (int64_t i0 = 0; i0 < outer; i0 += block) {
        int64_t i_end = std::min(i0 + block, outer);
        for (int64_t j0 = 0; j0 < inner; j0 += n) {
            int64_t j_end = std::min(j0 + n, inner);
            for (int64_t i1 = i0; i1 < i_end; i1 += n) {
                char* t = to + i1 * to_outer + j0 * sizeof(T);
                const char* f = from + i1 * from_outer + j0 * from_inner;
                int64_t rows = std::min(n, i_end - i1), columns = j_end - j0;
                if (rows == n && columns == n && from_outer == sizeof(T)) {
                    turn(t, f);
                    continue;
                }
                for (int64_t i = 0; i < rows; i++) {
                    for (int64_t j = 0; j < columns; j++) {
                        memcpy(t + i * to_outer + j * sizeof(T), f + i * from_outer + j * from_inner, sizeof(T));
                    }
                }
            }
        }
    }
}
