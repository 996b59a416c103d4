"""The place of a zygote's objects in memory: in one piece in gVisor, which copies and maps each piece by itself.

Python takes its memory in pieces of 1 MB, and the C library in even smaller ones. In gVisor a fork copies 2 MB at once,
but never more than such a piece, and each copy is a fault that costs a fifth of a millisecond. Must not import Airflow.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping

from modalflow.worker.gvisor.sandbox import is_in_gvisor

#: The parameters of mallopt(3), and their values. The heap grows by two of the parts that gVisor copies at once.
_TOP_PAD, _TRIM_THRESHOLD, _MMAP_THRESHOLD = -2, -1, -3
_GROWTH = 4 << 20
#: A large block has a mapping of its own. The C library would adapt its limit, but not if another parameter is set.
_LARGE = 4 << 20

_PAGE = 4096

#: Python's name for the domain of the C library's allocator (``PYMEM_DOMAIN_RAW``).
_RAW = 0


class _Arenas(ctypes.Structure):
    """Python's ``PyObjectArenaAllocator``."""

    _fields_ = (("context", ctypes.c_void_p), ("alloc", ctypes.c_void_p), ("free", ctypes.c_void_p))


class _Allocator(ctypes.Structure):
    """Python's ``PyMemAllocatorEx``."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free"))


def variables() -> Mapping[str, str]:
    """Return the variables with which a new process has a heap that grows in large steps from its start on."""
    return {"MALLOC_TOP_PAD_": str(_GROWTH)} if is_in_gvisor() else {}


@contextlib.contextmanager
def in_one_piece() -> Iterator[None]:
    """Place all allocations within this context in the C library's heap, which grows in large steps.

    Python takes its later memory as usual. Outside gVisor, and with a C library without the means, nothing changes.
    """
    if not is_in_gvisor():
        yield
        return
    libc = ctypes.CDLL(None)
    try:
        set_option, alloc = libc.mallopt, ctypes.cast(libc.aligned_alloc, ctypes.c_void_p)
    except AttributeError:
        yield
        return
    usual, raw = _Arenas(), _Allocator()
    python = ctypes.pythonapi
    python.PyMem_GetAllocator(_RAW, ctypes.byref(raw))
    if raw.context:
        # With PYTHONMALLOC=debug or PYTHONTRACEMALLOC, its functions need their own context and count each block.
        yield
        return
    if not all(set_option(*each) for each in ((_TOP_PAD, _GROWTH), (_TRIM_THRESHOLD, 2 * _GROWTH))):
        yield
        return
    set_option(_MMAP_THRESHOLD, _LARGE)
    python.PyObject_GetArenaAllocator(ctypes.byref(usual))
    # Both functions get a context first: for this one it is the alignment, and Python's own passes the rest to free(3).
    python.PyObject_SetArenaAllocator(ctypes.byref(_Arenas(_PAGE, alloc, raw.free)))
    try:
        yield
    finally:
        # If one of these pieces is unused later, Python unmaps its pages in the midst of the heap, which never sees it.
        python.PyObject_SetArenaAllocator(ctypes.byref(usual))
