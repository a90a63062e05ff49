"""Memory for the blocks of the compiled envelopes, and how unused memory is given back to the system.

The C library keeps freed memory for later, split as it was used: one block in use keeps all that lies below it, and
each thread has memory of its own. So after a change of load, memory for blocks of another size would come on top of it.
Three things prevent that:

- On Linux, a large block is a mapping of its own. Any other block can be freed without it.
- Freed mappings are kept for the next blocks of about their size, because new memory costs a page fault per 4 kB. Their
  bytes are known, and each can be returned by itself.
- `surplus` says how much memory was freed and not used again, in kept mappings or by the C library. If it comes on top
  of what a buffer may use, `give_back` returns it to the system (of the C libraries, only glibc can be asked to).

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

    /* From here on, a block is a mapping. Smaller ones would cost too many system calls. */
    #define RF_MAPPED_SHIFT 16
    #define RF_MAPPED_BYTES (1 << RF_MAPPED_SHIFT)
    /* Up to here, Python's own allocator serves a block. */
    #define RF_SMALL_BYTES 512
    /* Mappings are kept by size, four kinds for each power of two, up to 128 MiB. */
    #define RF_KINDS (4 * (27 - RF_MAPPED_SHIFT))
    #define RF_PAGE 4096
    /* malloc is not trimmed for less. */
    #define RF_WORTH_TRIMMING (2 << 20)

    /* A free-threaded Python serves PyMem_Malloc from mimalloc, which `rf_give_back` does not reach. */
    #if defined(Py_GIL_DISABLED)
    #define RF_MALLOC PyMem_RawMalloc
    #define RF_REALLOC PyMem_RawRealloc
    #define RF_FREE PyMem_RawFree
    #else
    #define RF_MALLOC PyMem_Malloc
    #define RF_REALLOC PyMem_Realloc
    #define RF_FREE PyMem_Free
    #endif

    #if defined(__GLIBC__)
    /* malloc gives a thread only what was freed of that thread's own blocks. So what was freed, and not used again
       since malloc was trimmed, is counted per thread. If there are more threads than counts, some share one. */
    #define RF_OWNERS 64
    static int64_t rf_unused_of[RF_OWNERS];
    /* The sum of these. */
    static int64_t rf_all_unused = 0;
    /* How many threads have a count. */
    static unsigned int rf_owners = 0;
    static __thread int rf_owner = -1;

    static int rf_this_owner(void) {
        if (rf_owner < 0) rf_owner = (int) (__atomic_fetch_add(&rf_owners, 1, __ATOMIC_RELAXED) % RF_OWNERS);
        return rf_owner;
    }

    static void rf_count_used(int owner, Py_ssize_t size) {
        int64_t unused = __atomic_load_n(&rf_unused_of[owner], __ATOMIC_RELAXED);
        int64_t reused;
        if (size <= RF_SMALL_BYTES) return;
        do {
            reused = unused < size ? unused : size;
            if (!reused) return;
        } while (!__atomic_compare_exchange_n(
            &rf_unused_of[owner], &unused, unused - reused, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
        __atomic_sub_fetch(&rf_all_unused, reused, __ATOMIC_RELAXED);
    }

    static void rf_count_freed(int owner, Py_ssize_t size) {
        if (size <= RF_SMALL_BYTES) return;
        __atomic_add_fetch(&rf_unused_of[owner], (int64_t) size, __ATOMIC_RELAXED);
        __atomic_add_fetch(&rf_all_unused, (int64_t) size, __ATOMIC_RELAXED);
    }

    static int64_t rf_unused(void) { return __atomic_load_n(&rf_all_unused, __ATOMIC_RELAXED); }

    static void rf_trim(void) {
        int owner;
        for (owner = 0; owner < RF_OWNERS; owner++) {
            int64_t unused = __atomic_exchange_n(&rf_unused_of[owner], 0, __ATOMIC_RELAXED);
            __atomic_sub_fetch(&rf_all_unused, unused, __ATOMIC_RELAXED);
        }
        malloc_trim(0);
    }
    #else
    static int rf_this_owner(void) { return 0; }
    static void rf_count_used(int owner, Py_ssize_t size) { (void) owner; (void) size; }
    static void rf_count_freed(int owner, Py_ssize_t size) { (void) owner; (void) size; }
    static int64_t rf_unused(void) { return 0; }
    static void rf_trim(void) {}
    #endif

    /* For a block that is no mapping, `touched` says which thread's memory it is in. */
    static Py_ssize_t rf_owned(int owner) { return -1 - owner; }
    static int rf_owner_of(Py_ssize_t touched) { return (int) (-1 - touched); }

    #if defined(__linux__)
    /* Returns the size of the mapping for such a block, or 0 if the block is none. */
    static size_t rf_mapping_size(Py_ssize_t size) {
        if (size < RF_MAPPED_BYTES || size > PY_SSIZE_T_MAX - RF_PAGE) return 0;
        return ((size_t) size + RF_PAGE - 1) & ~(size_t) (RF_PAGE - 1);
    }

    /* A kept mapping, in its first bytes. Pages after `touched` bytes were never used, so they take no memory. */
    typedef struct rf_kept { struct rf_kept* next; size_t size; size_t touched; } rf_kept;

    static rf_kept* rf_kept_of[RF_KINDS];
    static int64_t rf_kept_bytes_of[RF_KINDS];
    static int64_t rf_kept_bytes = 0;
    static int64_t rf_most_kept = 8 << 20;
    /* Guards the above; the sums are also read without it. Who does not get it does without kept mappings: nobody
       waits, not even a child that was forked while another thread had it. */
    static char rf_is_busy = 0;

    static int rf_begin(void) { return !__atomic_exchange_n(&rf_is_busy, 1, __ATOMIC_ACQUIRE); }
    static void rf_end(void) { __atomic_store_n(&rf_is_busy, 0, __ATOMIC_RELEASE); }

    static int rf_kind(size_t size) {
        int shift = 63 - __builtin_clzll((unsigned long long) size);
        return 4 * (shift - RF_MAPPED_SHIFT) + (int) (size >> (shift - 2) & 3);
    }

    static void rf_count_kept(int kind, int64_t nbytes) {
        rf_kept_bytes_of[kind] += nbytes;
        __atomic_add_fetch(&rf_kept_bytes, nbytes, __ATOMIC_RELAXED);
    }

    /* Returns a kept mapping of at least `size` bytes, and not of twice as many, or NULL. */
    static rf_kept* rf_take(size_t size) {
        int kind = rf_kind(size);
        int last = kind + 2 < RF_KINDS ? kind + 2 : RF_KINDS - 1;
        int looks = 4;
        rf_kept** at;
        rf_kept* found = NULL;
        if (!__atomic_load_n(&rf_kept_bytes, __ATOMIC_RELAXED) || !rf_begin()) return NULL;
        for (; kind <= last && found == NULL; kind++) {
            for (at = &rf_kept_of[kind]; *at != NULL && looks; at = &(*at)->next, looks--) {
                if ((*at)->size < size) continue;
                found = *at;
                *at = found->next;
                rf_count_kept(kind, -(int64_t) found->size);
                break;
            }
            looks = looks ? looks : 1;
        }
        rf_end();
        return found;
    }

    /* Returns whether it keeps the mapping. */
    static int rf_keep(void* pages, size_t size, size_t touched) {
        rf_kept* kept = (rf_kept*) pages;
        int kind = rf_kind(size);
        int keeps;
        if (kind >= RF_KINDS || !rf_begin()) return 0;
        keeps = rf_kept_bytes + (int64_t) size <= rf_most_kept;
        if (keeps) {
            kept->size = size;
            kept->touched = touched;
            kept->next = rf_kept_of[kind];
            rf_kept_of[kind] = kept;
            rf_count_kept(kind, (int64_t) size);
        }
        rf_end();
        return keeps;
    }

    static void rf_unmap(void* pages, size_t size) {
        /* It fails if the process has too many mappings, and this one is in the middle of one. */
        if (munmap(pages, size) != 0) madvise(pages, size, MADV_DONTNEED);
    }

    /* Returns kept mappings to the system until these were `nbytes`, first of the kind of which most is kept. */
    static void rf_drop(int64_t nbytes) {
        rf_kept* dropped = NULL;
        rf_kept* one;
        int kind;
        int most = 0;
        if (!rf_begin()) return;
        while (nbytes > 0) {
            for (kind = 0; kind < RF_KINDS; kind++) if (rf_kept_bytes_of[kind] > rf_kept_bytes_of[most]) most = kind;
            one = rf_kept_of[most];
            if (one == NULL) break;
            rf_kept_of[most] = one->next;
            rf_count_kept(most, -(int64_t) one->size);
            nbytes -= (int64_t) one->size;
            one->next = dropped;
            dropped = one;
        }
        rf_end();
        while ((one = dropped) != NULL) {
            dropped = one->next;
            rf_unmap(one, one->size);
        }
    }

    static void rf_keep_up_to(int64_t nbytes) {
        if (!rf_begin()) return;
        if (nbytes > rf_most_kept) rf_most_kept = nbytes;
        rf_end();
    }
    #else
    static int64_t rf_kept_bytes = 0;
    static void rf_drop(int64_t nbytes) { (void) nbytes; }
    static void rf_keep_up_to(int64_t nbytes) { (void) nbytes; }
    #endif

    static int64_t rf_surplus(void) { return rf_unused() + __atomic_load_n(&rf_kept_bytes, __ATOMIC_RELAXED); }

    static void rf_give_back(int64_t nbytes) {
        int64_t unused = rf_unused();
        int64_t kept = __atomic_load_n(&rf_kept_bytes, __ATOMIC_RELAXED);
        if (kept >= unused) rf_drop(nbytes);
        /* It cannot be trimmed by some bytes. */
        if (kept < unused || (kept < nbytes && unused >= RF_WORTH_TRIMMING)) rf_trim();
    }

    /* Returns NULL if there is no memory. May make the block larger. Sets how many of its bytes may have been used
       before if it is a mapping, otherwise a negative number. Needs the GIL, as do the next two. */
    static uint8_t* rf_new_block(Py_ssize_t* size, Py_ssize_t* touched) {
        uint8_t* data;
        *touched = rf_owned(rf_this_owner());
    #if defined(__linux__)
        size_t whole = rf_mapping_size(*size);
        if (whole) {
            rf_kept* kept = rf_take(whole);
            void* pages = kept;
            size_t before = 0;
            if (kept != NULL) {
                whole = kept->size;
                before = kept->touched;
            }
            else pages = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (pages != MAP_FAILED) {
                *touched = (Py_ssize_t) before;
                *size = (Py_ssize_t) whole;
                return (uint8_t*) pages;
            }
        }
    #endif
        data = (uint8_t*) RF_MALLOC((size_t) *size);
        if (data != NULL) rf_count_used(rf_owner_of(*touched), *size);
        return data;
    }

    /* Returns the memory of the pages after `size` bytes of a mapping, and how many of its bytes still take memory. */
    static Py_ssize_t rf_discard(uint8_t* data, Py_ssize_t size, Py_ssize_t touched) {
    #if defined(__linux__)
        size_t used = rf_mapping_size(size);
        if (!used || (Py_ssize_t) used >= touched) return touched;
        if (madvise(data + used, (size_t) touched - used, MADV_DONTNEED) != 0) return touched;
        return (Py_ssize_t) used;
    #else
        (void) data;
        (void) size;
        return touched;
    #endif
    }

    static void rf_free_block(uint8_t* data, Py_ssize_t size, Py_ssize_t touched) {
        if (data == NULL) return;
    #if defined(__linux__)
        if (touched >= 0) {
            if (!rf_keep(data, (size_t) size, (size_t) touched)) rf_unmap(data, (size_t) size);
            return;
        }
    #endif
        RF_FREE(data);
        rf_count_freed(rf_owner_of(touched), size);
    }

    /* Returns the block with its content, maybe elsewhere; or NULL if there is no memory, and the block stays. */
    static uint8_t* rf_resize_block(uint8_t* data, Py_ssize_t old_size, Py_ssize_t* size, Py_ssize_t* touched) {
        uint8_t* moved;
        Py_ssize_t moved_touched;
    #if defined(__linux__)
        size_t whole = rf_mapping_size(*size);
        if (*touched >= 0 && whole) {
            void* pages = whole > (size_t) old_size ? rf_take(whole) : NULL;
            if (pages != NULL) {
                /* Copying is faster than new memory. */
                whole = ((rf_kept*) pages)->size;
                moved_touched = (Py_ssize_t) ((rf_kept*) pages)->touched;
                memcpy(pages, data, (size_t) old_size);
                rf_free_block(data, old_size, old_size);
                *touched = moved_touched > old_size ? moved_touched : old_size;
            }
            else {
                pages = mremap(data, (size_t) old_size, whole, MREMAP_MAYMOVE);
                if (pages == MAP_FAILED) return NULL;
                if (*touched > (Py_ssize_t) whole) *touched = (Py_ssize_t) whole;
            }
            *size = (Py_ssize_t) whole;
            return (uint8_t*) pages;
        }
        if (*touched >= 0 || *size >= RF_MAPPED_BYTES) {
            moved = rf_new_block(size, &moved_touched);
            if (moved == NULL) return NULL;
            memcpy(moved, data, (size_t) (old_size < *size ? old_size : *size));
            rf_free_block(data, old_size, *touched >= 0 ? old_size : *touched);
            *touched = moved_touched;
            return moved;
        }
    #else
        (void) moved_touched;
    #endif
        moved = (uint8_t*) RF_REALLOC(data, (size_t) *size);
        if (moved != NULL) {
            rf_count_freed(rf_owner_of(*touched), old_size);
            /* Only then does it move into the memory of this thread. */
            if (old_size <= RF_SMALL_BYTES) *touched = rf_owned(rf_this_owner());
            rf_count_used(rf_owner_of(*touched), *size);
        }
        return moved;
    }
    """
    # The bytes of a page.
    const Py_ssize_t PAGE "RF_PAGE"
    # `touched` is negative, or for a mapping the bytes that may have been used and so take memory. The first two set it
    # to what it was before this use. They may make the block larger than `size`, and then change `size`.
    uint8_t* new_block "rf_new_block" (Py_ssize_t* size, Py_ssize_t* touched)
    uint8_t* resize_block "rf_resize_block" (uint8_t* data, Py_ssize_t old_size, Py_ssize_t* size, Py_ssize_t* touched)
    void free_block "rf_free_block" (uint8_t* data, Py_ssize_t size, Py_ssize_t touched)
    # Gives back what a mapping has after `size` bytes, but keeps its addresses. Returns the new value of `touched`.
    Py_ssize_t discard "rf_discard" (uint8_t* data, Py_ssize_t size, Py_ssize_t touched) noexcept
    # Bytes that were freed, not used again and not given back.
    int64_t _surplus "rf_surplus" () nogil
    # Gives back so many bytes, or more. Takes up to some milliseconds.
    void _give_back "rf_give_back" (int64_t nbytes) nogil
    # Keep freed mappings of up to so many bytes, if that is more than before.
    void _keep_up_to "rf_keep_up_to" (int64_t nbytes) nogil
