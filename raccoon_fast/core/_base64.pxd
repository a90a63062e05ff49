"""Base64 (RFC 4648, section 4) for the compiled envelope. This code touches no Python object."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <cpuid.h>
    #include <immintrin.h>

    /* Whether the processor has AVX2 and the operating system saves its registers. */
    static inline int has_avx2(void) {
        unsigned a, b, c, d;
        if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
        __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
        if ((a & 6) != 6) return 0;
        return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2) != 0;
    }

    /* Encodes 24 bytes as 32 characters at a time, while at least 28 bytes can be read. Returns the number of encoded
       bytes.

       Method: W. Mula and D. Lemire, Faster Base64 Encoding and Decoding Using AVX2 Instructions, ACM Transactions on
       the Web 12 (3), 2018. */
    __attribute__((target("avx2")))
    static inline Py_ssize_t write_base64_avx2(uint8_t* out, const uint8_t* data, Py_ssize_t size) {
        /* Spreads three bytes a, b, c over 32 bits as b, a, c, b: each group of 6 bits then lies within 16 bits. */
        const __m256i spread = _mm256_setr_epi8(
            1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10,
            1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
        /* The number to add to a group to get its character, for each kind: a-z, each digit, +, /, A-Z. */
        const __m256i shifts = _mm256_setr_epi8(
            71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0,
            71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0);
        Py_ssize_t at = 0;
        for (; size - at >= 28; at += 24, out += 32) {
            __m256i bytes = _mm256_inserti128_si256(
                _mm256_castsi128_si256(_mm_loadu_si128((const __m128i*) (data + at))),
                _mm_loadu_si128((const __m128i*) (data + at + 12)), 1);
            bytes = _mm256_shuffle_epi8(bytes, spread);
            /* Multiplying shifts each 16 bits by a different number of bits. */
            __m256i groups = _mm256_or_si256(
                _mm256_mulhi_epu16(
                    _mm256_and_si256(bytes, _mm256_set1_epi32(0x0FC0FC00)), _mm256_set1_epi32(0x04000040)),
                _mm256_mullo_epi16(
                    _mm256_and_si256(bytes, _mm256_set1_epi32(0x003F03F0)), _mm256_set1_epi32(0x01000010)));
            __m256i kinds = _mm256_subs_epu8(groups, _mm256_set1_epi8(51));
            __m256i is_capital = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), groups);
            kinds = _mm256_or_si256(kinds, _mm256_and_si256(is_capital, _mm256_set1_epi8(13)));
            _mm256_storeu_si256(
                (__m256i*) out, _mm256_add_epi8(groups, _mm256_shuffle_epi8(shifts, kinds)));
        }
        return at;
    }
    #else
    static inline int has_avx2(void) { return 0; }
    static inline Py_ssize_t write_base64_avx2(uint8_t* out, const uint8_t* data, Py_ssize_t size) { return 0; }
    #endif
    """
    bint has_avx2() noexcept nogil
    Py_ssize_t write_base64_avx2(uint8_t* out, const uint8_t* data, Py_ssize_t size) noexcept nogil


cdef inline void fill_base64_pairs(uint8_t* pairs) noexcept nogil:
    """Fill the 8192 bytes at `pairs` with the two base64 characters of each 12-bit number."""
    cdef const char* alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef int i
    for i in range(4096):
        pairs[2 * i] = <uint8_t> alphabet[i >> 6]
        pairs[2 * i + 1] = <uint8_t> alphabet[i & 63]


cdef inline uint8_t* write_base64(
    uint8_t* out, const uint8_t* data, Py_ssize_t size, const uint8_t* pairs, bint by_avx2
) noexcept nogil:
    """Write `data` as padded base64, and return where it ends. `out` must have 4 free bytes for each 3 of `data`."""
    cdef const uint8_t* last = data + size
    cdef uint32_t bits
    cdef Py_ssize_t done
    if by_avx2:
        done = write_base64_avx2(out, data, size)
        data += done
        out += done // 3 * 4
    while last - data >= 3:
        bits = <uint32_t> data[0] << 16 | <uint32_t> data[1] << 8 | data[2]
        memcpy(out, &pairs[(bits >> 12) * 2], 2)
        memcpy(out + 2, &pairs[(bits & 0xFFF) * 2], 2)
        data += 3
        out += 4
    if last - data == 2:
        bits = <uint32_t> data[0] << 16 | <uint32_t> data[1] << 8
        memcpy(out, &pairs[(bits >> 12) * 2], 2)
        out[2] = pairs[(bits & 0xFFF) * 2]
        out[3] = c"="
        out += 4
    elif last - data == 1:
        memcpy(out, &pairs[(<uint32_t> data[0] << 4) * 2], 2)
        out[2] = c"="
        out[3] = c"="
        out += 4
    return out
