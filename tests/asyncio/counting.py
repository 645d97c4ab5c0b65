"""Count the loops, tasks and futures that tests make, by type."""

import asyncio
import collections
import ctypes
import functools
import os
from asyncio import base_events, futures

StockTask = asyncio.tasks._CTask

# Where pointers to functions are, in a regular build: a type's tp_new, a method's PyMethodDef,
# and in that the function.
POINTER = ctypes.sizeof(ctypes.c_void_p)
TP_NEW, D_METHOD, ML_METH = 39 * POINTER, 5 * POINTER, 1 * POINTER
NEW = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)
METHOD = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_void_p)


@functools.cache
def kind_and_name(cls):
    """What a class counts as: its kind, and the name of asyncio's class or ours that it is of."""
    kind = (
        "loops"
        if issubclass(cls, asyncio.AbstractEventLoop)
        else "tasks"
        if issubclass(cls, asyncio.tasks._PyTask | StockTask)
        else "futures"
    )
    packages = ("asyncio", "_asyncio", "ouroloop")
    base = next(base for base in cls.__mro__ if base.__module__.partition(".")[0] in packages)
    return kind, f"{base.__module__}.{base.__qualname__}"


class Made:
    """How many objects of each kind ("loops", "tasks", "futures") and type were made.

    Those of a test's own subclass count as of the type that it is derived from.
    `path`: a file that gets a line for each instead, for processes that come to no orderly end.
    """

    def __init__(self, path=None):
        self.counts = collections.Counter()
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND)
        self._hooks = []

    def add(self, cls, number=1):
        kind, name = kind_and_name(cls)
        if self._file is None:
            self.counts[kind, name] += number
        else:
            os.write(self._file, f"{kind} {name}\n".encode())

    def read(self, path):
        """Add what other processes have written."""
        with open(path) as file:
            self.counts.update(tuple(line.split()) for line in file)

    def watch_loops(self):
        """Count every loop that is built on asyncio's BaseEventLoop."""
        original = base_events.BaseEventLoop.__init__

        def __init__(loop, *args, **kwargs):
            original(loop, *args, **kwargs)
            self.add(type(loop))

        base_events.BaseEventLoop.__init__ = __init__

    def watch_python_types(self):
        """Count what is made of asyncio's Future and Task in Python, which its C types replace."""

        # Not __init__(): futures show where they were made.
        def __new__(cls, *args, **kwargs):
            self.add(cls)
            return object.__new__(cls)

        futures._PyFuture.__new__ = __new__

    def watch_calls(self, *types):
        """Count what is made by calling one of these C types, or a subclass made later.

        The slot itself is replaced: a wrapper or a subclass would not be the type under test.
        """
        original = NEW(ctypes.cast(ctypes.pythonapi.PyType_GenericNew, ctypes.c_void_p).value)

        def new(made, args, kwargs):
            self.add(made)
            return original(made, args, kwargs)

        # The same in all: `__new__` of a base type is refused where it seems to skip another.
        hook = NEW(new)
        for cls in types:
            slot = ctypes.c_void_p.from_address(id(cls) + TP_NEW)
            if slot.value != ctypes.cast(original, ctypes.c_void_p).value:
                raise RuntimeError(f"{cls} is not made as expected")
            self._replace(slot, hook)

    def watch_method(self, method):
        """Count what a C method without arguments makes that calls no type for it."""
        definition = ctypes.c_void_p.from_address(id(method) + D_METHOD)
        slot = ctypes.c_void_p.from_address(definition.value + ML_METH)
        original = METHOD(slot.value)

        def call(loop, nothing):
            result = original(loop, nothing)
            self.add(type(result))
            return result

        self._replace(slot, METHOD(call))

    def _replace(self, slot, hook):
        self._hooks.append(hook)
        slot.value = ctypes.cast(hook, ctypes.c_void_p).value
