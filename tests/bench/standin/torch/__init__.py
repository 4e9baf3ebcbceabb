"""A stand-in for PyTorch, as much of it as gpu_torch.py calls, for its test: every call takes 1 ms;
a product with a side of 128256 finds no memory, and only one back end knows attention."""
import contextlib
import types

__version__ = "stand-in"
bfloat16 = uint8 = None
elapsed = 0.0


class Tensor:
    def __init__(self, *shape):
        self.shape = shape

    def __mul__(self, factor):
        return self

    def __matmul__(self, other):
        work()
        return self

    def random_(self):
        return self

    def copy_(self, other):
        work()

    def numel(self):
        return self.shape[0]


def work():
    global elapsed
    elapsed += 1.0


def randn(*shape, **_):
    return Tensor(*shape)


empty = randn


def empty_like(x):
    return x


randn_like = empty_like


def manual_seed(seed):
    pass


class Event:
    def __init__(self, enable_timing):
        self.at = None

    def record(self):
        self.at = elapsed

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return other.at - self.at


class CUDAGraph:
    def replay(self):
        work()


class OutOfMemoryError(RuntimeError):
    pass


@contextlib.contextmanager
def graph(_):
    yield


def nothing(*_):
    pass


def grad(*_, **__):
    work()


cuda = types.SimpleNamespace(Event=Event, CUDAGraph=CUDAGraph, graph=graph, synchronize=nothing,
                             empty_cache=nothing, OutOfMemoryError=OutOfMemoryError)
autograd = types.SimpleNamespace(grad=grad)
from . import nn  # noqa: E402  (needs the names above)
