// Matrix products: sums run over k in ascending order, one fused step each, whatever the blocking.
// Included by native.cpp.

#pragma once

#include "analogue.h"

// A block of outputs that is kept in registers: micro_rows x micro_vectors of them, so that there is room for a row of the
// right operand and an element of the left one.
#if defined(TAPEOUT_AVX512) || defined(__aarch64__)
constexpr int64_t micro_rows = 8;
#elif defined(TAPEOUT_AVX2)
constexpr int64_t micro_rows = 6;
#else
constexpr int64_t micro_rows = 4;
#endif
constexpr int64_t micro_vectors = 2;

template <class T>
constexpr int64_t panel_columns = micro_vectors * width<T>;

// How much of k at once, so that a panel of the right operand stays in the first cache. Sums are kept in the accumulator in
// between, as they are. Also few enough products of bytes to be exact as sums of floats.
constexpr int64_t panel_rows = 256;
static_assert(panel_rows <= 1024);

// Asks for the lines of a panel, row by row, before they are needed: short rows far apart are beyond what the hardware
// foresees.
inline void prefetch_panel(const char* from, int64_t k, int64_t columns, int64_t k_stride, int64_t n_stride, int64_t size) {
    bool by_column = k_stride == size;
    int64_t rows = by_column ? columns : k, row_stride = by_column ? n_stride : k_stride;
    int64_t row_bytes = (by_column ? k : columns) * size;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < row_bytes; j += cache_line) __builtin_prefetch(from + i * row_stride + j);
    }
}

// Elements of a matrix (strides in bytes) as rows of numbers, `target_stride` apart. There must be room for whole vectors.
template <class E>
void pack(const char* from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
          typename E::type* target, int64_t target_stride) {
    typedef typename E::type T;
    typedef VectorOf<T> V;
    constexpr int64_t n = width<T>;
    int64_t r0 = 0;
    if (row_stride == E::size && column_stride != E::size) {
        for (; r0 + n <= rows; r0 += n) {
            for (int64_t c0 = 0; c0 < columns; c0 += n) {
                const char* source = from + r0 * E::size + c0 * column_stride;
                V block[n];
                if (c0 + n <= columns) {
#pragma GCC unroll 16
                    for (int64_t c = 0; c < n; c++) block[c] = E::many(source + c * column_stride);
                } else {
                    for (int64_t c = 0; c < n; c++) block[c] = c0 + c < columns ? E::many(source + c * column_stride) : V{};
                }
                transpose_registers<VectorOf<std::conditional_t<sizeof(T) == 8, int64_t, int32_t>>, n / 2>(block);
#pragma GCC unroll 16
                for (int64_t r = 0; r < n; r++) store_vector(target + (r0 + r) * target_stride + c0, block[r]);
            }
        }
    }
    for (int64_t r = r0; r < rows; r++) {
        const char* source = from + r * row_stride;
        T* row = target + r * target_stride;
        int64_t c = 0;
        if (column_stride == E::size) {
            for (; c + n <= columns; c += n) store_vector(row + c, E::many(source + c * E::size));
        }
        for (; c < columns; c++) row[c] = E::one(source + c * column_stride);
    }
}

template <class V, class T>
inline V canonical(V value, T nan) {
    return value != value ? splat<V>(nan) : value;
}

// `rows` x panel_columns outputs.
template <class T, int rows, bool accumulate>
void micro(const T* a, int64_t a_row, const T* b, int64_t b_row, int64_t k, T* c, int64_t c_row) {
    typedef VectorOf<T> V;
    constexpr int64_t n = width<T>;
    V sum[rows][micro_vectors];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 16
        for (int v = 0; v < micro_vectors; v++) sum[r][v] = accumulate ? load_vector<V>(c + r * c_row + n * v) : V{};
    }
    for (int64_t i = 0; i < k; i++) {
        V right[micro_vectors];
#pragma GCC unroll 16
        for (int v = 0; v < micro_vectors; v++) right[v] = load_vector<V>(b + i * b_row + n * v);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            V left = splat<V>(a[r * a_row + i]);
#pragma GCC unroll 16
            for (int v = 0; v < micro_vectors; v++) sum[r][v] = fused(left, right[v], sum[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 16
        for (int v = 0; v < micro_vectors; v++) store_vector(c + r * c_row + n * v, canonical(sum[r][v], T(NAN)));
    }
}

template <class T>
using Micro = void (*)(const T*, int64_t, const T*, int64_t, int64_t, T*, int64_t);

template <class T, bool accumulate, int... rows>
constexpr std::array<Micro<T>, micro_rows + 1> micros(std::integer_sequence<int, rows...>) {
    return {nullptr, micro<T, rows + 1, accumulate>...};
}
template <class T, bool accumulate>
constexpr std::array<Micro<T>, micro_rows + 1> micro_of_rows =
    micros<T, accumulate>(std::make_integer_sequence<int, micro_rows>{});

// Rows of the next block: the last two share what is left, since few rows do not keep the host busy.
inline int64_t rows_of_block(int64_t left) {
    if (left <= micro_rows || left >= micro_rows + micro_rows / 2) return std::min(left, micro_rows);
    return (left + 1) / 2;
}

// Growing room of a host thread for packed operands.
template <class T>
T* packing_room(int slot, int64_t count) {
    static thread_local std::vector<char> room[2];
    int64_t bytes = count * sizeof(T) + cache_line;
    if (int64_t(room[slot].size()) < bytes) room[slot].resize(bytes);
    uintptr_t start = reinterpret_cast<uintptr_t>(room[slot].data());
    return reinterpret_cast<T*>((start + cache_line - 1) / cache_line * cache_line);
}

// Adds a corner of products to the accumulator, which may have any strides. Sums of numbers began with what was there;
// products of bytes are added to it now.
template <class A, class T>
void put_corner(const T* corner, char* c, int64_t rows, int64_t columns, const int64_t* cs, bool accumulate) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            A* place = (A*)(c + i * cs[1] + j * cs[2]);
            A product = A(corner[i * panel_columns<T> + j]);
            if constexpr (std::is_same_v<A, int32_t>) {
                *place = accumulate ? A(*place + product) : product;
            } else {
                *place = product;
            }
        }
    }
}

// `A` is the type of the accumulator: that of the sums, or int32_t for bytes, whose sums are kept as floats too.
template <class L, class R, class A>
void multiply(const MatrixFacts* facts, char* accumulator, const char* lhs, const int64_t* ls, const char* rhs,
              const int64_t* rs, int64_t k, bool accumulate) {
    typedef typename L::type T;
    constexpr bool integers = std::is_same_v<A, int32_t>;
    constexpr int64_t wide = panel_columns<T>;
    int64_t m = facts->extent[1], n = facts->extent[2];
    const int64_t* cs = facts->accumulator_stride;
    const auto& micro_of = accumulate && !integers ? micro_of_rows<T, true> : micro_of_rows<T, false>;
    const T* left = (const T*)lhs;
    int64_t left_row = ls[1] / int64_t(sizeof(T));
    if (L::size != sizeof(T) || ls[3] != sizeof(T)) {
        left_row = (k + width<T> - 1) / width<T> * width<T>;
        T* room = packing_room<T>(0, m * left_row);
        pack<L>(lhs, m, k, ls[1], ls[3], room, left_row);
        left = room;
    }
    T* panel = packing_room<T>(1, panel_rows * wide);
    for (int64_t n0 = 0; n0 < n; n0 += wide) {
        int64_t columns = std::min(wide, n - n0);
        const T* right = panel;
        int64_t right_row = wide;
        if (R::size == sizeof(T) && rs[2] == sizeof(T) && columns == wide && m <= micro_rows) {
            right = (const T*)(rhs + n0 * sizeof(T));
            right_row = rs[3] / int64_t(sizeof(T));
        } else {
            if (n0 == 0) prefetch_panel(rhs, k, columns, rs[3], rs[2], R::size);
            if (columns < wide) std::fill(panel, panel + k * wide, T(0));
            pack<R>(rhs + n0 * rs[2], k, columns, rs[3], rs[2], panel, wide);
        }
        int64_t next = n0 + wide;
        if (next < n) prefetch_panel(rhs + next * rs[2], k, std::min(wide, n - next), rs[3], rs[2], R::size);
        for (int64_t m0 = 0, rows; m0 < m; m0 += rows) {
            rows = rows_of_block(m - m0);
            const T* a = left + m0 * left_row;
            char* c = accumulator + m0 * cs[1] + n0 * cs[2];
            if (columns == wide && cs[2] == sizeof(A) && !integers) {
                micro_of[rows](a, left_row, right, right_row, k, (T*)c, cs[1] / int64_t(sizeof(A)));
                continue;
            }
            T corner[micro_rows * wide] = {};
            for (int64_t i = 0; i < rows && accumulate && !integers; i++) {
                for (int64_t j = 0; j < columns; j++) corner[i * wide + j] = *(const T*)(c + i * cs[1] + j * cs[2]);
            }
            micro_of[rows](a, left_row, right, right_row, k, corner, wide);
            put_corner<A>(corner, c, rows, columns, cs, accumulate);
        }
    }
}

template <class L, class R, class A = typename L::type>
void multiply_all(const MatrixFacts* facts, char* accumulator, const char* lhs, const int64_t* ls, const char* rhs,
                  const int64_t* rs) {
    if constexpr (!std::is_same_v<A, double>) {
        if (facts->operand_limit) return analogue::multiply<L, R, A>(facts, accumulator, lhs, ls, rhs, rs);
    }
    const int64_t* cs = facts->accumulator_stride;
    int64_t k = facts->extent[3];
    for (int64_t batch = 0; batch < facts->extent[0]; batch++, accumulator += cs[0], lhs += ls[0], rhs += rs[0]) {
        for (int64_t k0 = 0; k0 < k; k0 += panel_rows) {
            multiply<L, R, A>(facts, accumulator, lhs + k0 * ls[3], ls, rhs + k0 * rs[3], rs, std::min(panel_rows, k - k0),
                              facts->accumulate || k0);
        }
    }
}

void matrix_multiply(const MatrixFacts* facts, char* accumulator, const char* lhs, const int64_t* lhs_stride,
                     const char* rhs, const int64_t* rhs_stride) {
#define MULTIPLY(L, R, ...) \
    multiply_all<Element<L>, Element<R>, ##__VA_ARGS__>(facts, accumulator, lhs, lhs_stride, rhs, rhs_stride)
    switch (facts->lhs_dtype) {
        case F32: return MULTIPLY(F32, F32);
        case BF16: return MULTIPLY(BF16, BF16);
        case F16: return MULTIPLY(F16, F16);
        case F8E4M3: return facts->rhs_dtype == F8E4M3 ? MULTIPLY(F8E4M3, F8E4M3) : MULTIPLY(F8E4M3, F8E5M2);
        case F8E5M2: return facts->rhs_dtype == F8E4M3 ? MULTIPLY(F8E5M2, F8E4M3) : MULTIPLY(F8E5M2, F8E5M2);
        case F64: return MULTIPLY(F64, F64);
        default: return MULTIPLY(I8, I8, int32_t);
    }
#undef MULTIPLY
}
