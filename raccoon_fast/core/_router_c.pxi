# The compiled form of Router. It is part of _batch_c.pyx; the contract is in _router_py.py.

@cython.final
cdef class Router:
    """Hands each event to the accumulator of its type's lane."""

    cdef dict routes
    cdef object find

    def __init__(self, dict routes not None, find):
        self.routes = routes
        self.find = find

    def emit(self, type, data):
        """Accept one event."""
        return self.accept(type, data, -1)

    def emit_many(self, events):
        """Accept events, each as `emit` does. The first wrong event raises; the events before it stay accepted."""
        cdef dict receipts = {}
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t end
        if PyList_CheckExact(events):
            # Read by index, because the list may change meanwhile. A `for` loop over it would do the same.
            while at < PyList_GET_SIZE(events):
                event = (<list> events)[at]
                if isinstance(event, tuple) and len(<tuple> event) == 2 and PyUnicode_Check((<tuple> event)[0]):
                    type_ = (<tuple> event)[0]
                    data = (<tuple> event)[1]
                else:
                    type_, data = pair_of(at, event)
                type_ = type_ if PyUnicode_CheckExact(type_) else _plain(type_)
                target = self.target(type_)
                if type(target) is Accumulator and (<Accumulator> target).serializer is None:
                    end = (<Accumulator> target).accept_run(
                        <list> events, at, self.end_of_run(<list> events, at, target, type_), receipts
                    )
                    if end > at:
                        at = end
                        continue
                receipts[self.accept(type_, data, at)] = None
                at += 1
        else:
            check_events(events)
            self.accept_some(events, PY_SSIZE_T_MAX, receipts, receipts, 0)  # no `on_full` returns `receipts`
        return list(receipts)

    def emit_some(self, events, Py_ssize_t most, refusal, dict receipts not None, Py_ssize_t first=0):
        """Accept up to `most` of an iterator's remaining events, each as `emit` does."""
        return self.accept_some(events, most, refusal, receipts, first)

    cdef object accept_some(self, object events, Py_ssize_t most, object refusal, dict receipts, Py_ssize_t first):
        cdef Py_ssize_t number = 0
        cdef object receipt
        cdef object last = None
        for event in events:
            type_, data = pair_of(first + number, event)
            receipt = self.accept(type_, data, first + number)
            number += 1
            if receipt is refusal:
                return number, event
            if receipt is not last:
                last = receipt
                receipts[last] = None
            if number >= most:
                break
        return number, None

    cdef Py_ssize_t end_of_run(self, list events, Py_ssize_t at, object target, object type_):
        """Return where the run of events for one target that starts at index `at` ends, as far as types are known."""
        # At most as many events as a batch may have. Later events are checked afterwards.
        cdef Py_ssize_t end = min(PyList_GET_SIZE(events), at + <Py_ssize_t> (<Accumulator> target).max_events)
        cdef PyObject* last = <PyObject*> type_
        cdef PyObject* found
        for at in range(at + 1, end):
            event = events[at]
            if type(event) is not tuple or len(<tuple> event) != 2:
                return at
            name = (<tuple> event)[0]
            if <PyObject*> name == last:
                continue
            if not PyUnicode_CheckExact(name):
                return at
            found = PyDict_GetItem(self.routes, name)
            if found != <PyObject*> target:
                return at
            last = <PyObject*> name
        return end

    cdef inline object target(self, object type_):
        cdef PyObject* found = PyDict_GetItem(self.routes, type_)
        if found is NULL:
            return self.find(type_)
        return <object> found

    cdef inline object accept(self, object type_, object data, Py_ssize_t index):
        if not PyUnicode_CheckExact(type_):
            type_ = _plain(type_)
        target = self.target(type_)
        if type(target) is Accumulator:
            if index < 0:
                return (<Accumulator> target).accept(type_, data)
            return (<Accumulator> target).accept_at(type_, data, index)
        return target(type_, data, index if index >= 0 else None)
