# The compiled functions that accept slices. They are part of _batch_c.pyx; the contracts are in _batch_slices_py.py.

from raccoon_fast.core._columns_c cimport Slices


def emit_slices(entry, types, Slices slices not None, Py_ssize_t most, refusal, dict receipts not None):
    """Accept serialized events from index `slices.at` on, each as `emit` does but without the serializer."""
    cdef Accumulator accumulator = None
    cdef Py_ssize_t size = 0
    cdef const uint8_t* raw = NULL
    cdef object type_ = None
    cdef object receipt
    cdef object last = None
    cdef Py_ssize_t end = min(slices.count, slices.at + most)
    cdef bint is_one = PyUnicode_Check(types)
    if is_one:
        type_ = _plain(types)
        accumulator = _target(entry, type_)
    while slices.at < end:
        if not is_one:
            type_ = _plain(types[slices.at])
            accumulator = _target(entry, type_)
        slices.find(slices.at, &raw, &size)
        receipt = accumulator.put(type_, raw, size)
        slices.at += 1
        if receipt is refusal:
            return True
        if receipt is not last:
            last = receipt
            receipts[last] = None
    return False


def add_slices(Batch batch not None, types, Slices slices not None):
    """Append the slices from index `slices.at` on to a batch, each as `add` does."""
    cdef Py_ssize_t size = 0
    cdef const uint8_t* raw = NULL
    cdef bint is_one = PyUnicode_Check(types)
    while slices.at < slices.count:
        slices.find(slices.at, &raw, &size)
        batch.put(_plain(types if is_one else types[slices.at]), raw, size)
        slices.at += 1


cdef inline Accumulator _target(object entry, object type_):
    if type(entry) is Router:
        entry = (<Router> entry).target(type_)
    if type(entry) is not Accumulator:
        raise TypeError(f"slices go to an accumulator, not to {type(entry).__name__}")
    return <Accumulator> entry
