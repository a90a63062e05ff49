"""Memory for the blocks of the compiled envelopes, and how the C library's unused memory is given back.

The C library keeps freed memory for later, split as it was used: one block in use keeps all that lies below it. So
after a change of load, memory for blocks of another size would come on top of it. Two things prevent that:

- On Linux, a large block is a mapping of its own. Its memory goes back to the system at once.
- `surplus` says how much memory of other blocks was freed. When it comes on top of what a buffer may use,
  `give_back` returns it to the system (glibc only; other C libraries return it themselves or never).

Any thread may call these functions at any time, except where they say that they need the GIL.
"""

from libc.stdint cimport int64_t, uint8_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    #if defined(__GLIBC__)
    #include <malloc.h>
    #endif

    /* From here on, a block is a mapping. Smaller ones would cost too many system calls and page faults. */
    #define RF_MAPPED_BYTES (320 << 10)
    /* Up to here, Python's own allocator serves a block. */
    #define RF_SMALL_BYTES 512

    #if defined(__GLIBC__)
    /* Bytes of the blocks that malloc serves, and the most of them since the last `rf_give_back`. */
    static int64_t rf_used = 0;
    static int64_t rf_most_used = 0;

    static void rf_count(int64_t nbytes) {
        int64_t used = __atomic_add_fetch(&rf_used, nbytes, __ATOMIC_RELAXED);
        int64_t most = __atomic_load_n(&rf_most_used, __ATOMIC_RELAXED);
        while (used > most
               && !__atomic_compare_exchange_n(&rf_most_used, &most, used, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    }

    static int64_t rf_surplus(void) {
        return __atomic_load_n(&rf_most_used, __ATOMIC_RELAXED) - __atomic_load_n(&rf_used, __ATOMIC_RELAXED);
    }

    static void rf_give_back(void) {
        __atomic_store_n(&rf_most_used, __atomic_load_n(&rf_used, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
        malloc_trim(0);
    }
    #else
    static void rf_count(int64_t nbytes) { (void) nbytes; }
    static int64_t rf_surplus(void) { return 0; }
    static void rf_give_back(void) {}
    #endif

    static void rf_count_block(Py_ssize_t size, int sign) {
        if (size > RF_SMALL_BYTES) rf_count(sign * (int64_t) size);
    }

    /* Returns NULL if there is no memory. Sets whether the block is a mapping. Needs the GIL, as do the next two. */
    static uint8_t* rf_new_block(Py_ssize_t size, int* mapped) {
        uint8_t* data;
        *mapped = 0;
    #if defined(__linux__)
        if (size >= RF_MAPPED_BYTES) {
            void* pages = mmap(NULL, (size_t) size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (pages != MAP_FAILED) {
                *mapped = 1;
                return (uint8_t*) pages;
            }
        }
    #endif
        data = (uint8_t*) PyMem_Malloc((size_t) size);
        if (data != NULL) rf_count_block(size, 1);
        return data;
    }

    static void rf_free_block(uint8_t* data, Py_ssize_t size, int mapped) {
        if (data == NULL) return;
    #if defined(__linux__)
        if (mapped) {
            /* It fails if the process has too many mappings, and this one is in the middle of one. */
            if (munmap(data, (size_t) size) != 0) madvise(data, (size_t) size, MADV_DONTNEED);
            return;
        }
    #endif
        (void) mapped;
        PyMem_Free(data);
        rf_count_block(size, -1);
    }

    /* Returns the block with its content, maybe elsewhere; or NULL if there is no memory, and the block stays. */
    static uint8_t* rf_resize_block(uint8_t* data, Py_ssize_t old_size, Py_ssize_t size, int* mapped) {
        uint8_t* moved;
        int moved_mapped;
    #if defined(__linux__)
        if (*mapped && size >= RF_MAPPED_BYTES) {
            void* pages = mremap(data, (size_t) old_size, (size_t) size, MREMAP_MAYMOVE);
            return pages == MAP_FAILED ? NULL : (uint8_t*) pages;
        }
        if (*mapped || size >= RF_MAPPED_BYTES) {
            moved = rf_new_block(size, &moved_mapped);
            if (moved == NULL) return NULL;
            memcpy(moved, data, (size_t) (old_size < size ? old_size : size));
            rf_free_block(data, old_size, *mapped);
            *mapped = moved_mapped;
            return moved;
        }
    #else
        (void) moved_mapped;
    #endif
        moved = (uint8_t*) PyMem_Realloc(data, (size_t) size);
        if (moved != NULL) {
            rf_count_block(old_size, -1);
            rf_count_block(size, 1);
        }
        return moved;
    }
    """
    uint8_t* new_block "rf_new_block" (Py_ssize_t size, int* mapped)
    void free_block "rf_free_block" (uint8_t* data, Py_ssize_t size, int mapped)
    uint8_t* resize_block "rf_resize_block" (uint8_t* data, Py_ssize_t old_size, Py_ssize_t size, int* mapped)
    # Bytes that were freed since the last `give_back` and not used again.
    int64_t _surplus "rf_surplus" () nogil
    # Takes up to some milliseconds.
    void _give_back "rf_give_back" () nogil
