"""A stand-in for PyTorch in plain Python: as much of its tensors as bench/peers/gpu.py touches, on host memory, for dry
runs on a machine without it. Put the folder above on PYTHONPATH. Values of 16 bits are rounded to nearest even, sums
are in double."""
import builtins
import ctypes
import itertools
import math
import random
import struct
import types

__version__ = '0+stub'
version = types.SimpleNamespace(cuda=None)
cuda = types.SimpleNamespace(is_available=lambda: False, device_count=lambda: 0)
backends = types.SimpleNamespace(
    cudnn=types.SimpleNamespace(version=lambda: None),
    cuda=types.SimpleNamespace(matmul=types.SimpleNamespace()),
)


def set_float32_matmul_precision(_):
    """Nothing here is less precise than asked."""


class DType:
    def __init__(self, name, size, load, store):
        self.name, self.itemsize, self.load, self.store = name, size, load, store

    def __repr__(self):
        return f'torch.{self.name}'


def _packed(code):
    one = struct.Struct('<' + code)
    return lambda memory, at: one.unpack_from(memory, at)[0], lambda memory, at, value: one.pack_into(memory, at, value)


def _load_bf16(memory, at):
    return struct.unpack('<f', b'\0\0' + bytes(memory[at : at + 2]))[0]


def _store_bf16(memory, at, value):
    (bits,) = struct.unpack('<I', struct.pack('<f', value))
    if value == value:
        bits += 0x7FFF + (bits >> 16 & 1)
    struct.pack_into('<H', memory, at, bits >> 16)


float32 = DType('float32', 4, *_packed('f'))
float64 = DType('float64', 8, *_packed('d'))
float16 = DType('float16', 2, *_packed('e'))
bfloat16 = DType('bfloat16', 2, _load_bf16, _store_bf16)
uint8 = DType('uint8', 1, *_packed('B'))
bool = DType('bool', 1, *_packed('?'))


def _contiguous(shape):
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


class Tensor:
    """A strided view of memory; offset and strides in elements."""

    def __init__(self, memory, dtype, shape, stride=None, offset=0):
        self._memory, self.dtype, self.shape, self._offset = memory, dtype, tuple(shape), offset
        self._stride = _contiguous(self.shape) if stride is None else tuple(stride)

    def _places(self):
        for index in itertools.product(*map(range, self.shape)):
            yield self.dtype.itemsize * (self._offset + builtins.sum(i * s for i, s in zip(index, self._stride)))

    def _values(self):
        return [self.dtype.load(self._memory, at) for at in self._places()]

    def _fill(self, values):
        for at, value in zip(self._places(), values):
            self.dtype.store(self._memory, at, value)
        return self

    def stride(self):
        return self._stride

    def numel(self):
        return math.prod(self.shape)

    def data_ptr(self):
        return ctypes.addressof(self._memory) + self.dtype.itemsize * self._offset

    def item(self):
        (value,) = self._values()
        return value

    def tolist(self):
        return self._values()

    def view(self, *shape):
        return Tensor(self._memory, self.dtype, shape, None, self._offset)

    def transpose(self, a, b):
        order = list(range(len(self.shape)))
        order[a], order[b] = b, a
        shape, stride = ([of[i] for i in order] for of in (self.shape, self._stride))
        return Tensor(self._memory, self.dtype, shape, stride, self._offset)

    def t(self):
        return self.transpose(0, 1)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        offset, shape, stride = self._offset, [], []
        for at, (size, step) in enumerate(zip(self.shape, self._stride)):
            one = index[at] if at < len(index) else slice(None)
            if isinstance(one, int):
                offset += one * step
            else:
                first, last, jump = one.indices(size)
                offset += first * step
                shape.append(len(range(first, last, jump)))
                stride.append(step * jump)
        return Tensor(self._memory, self.dtype, shape, stride, offset)

    def to(self, dtype):
        return _new(self.shape, dtype, self._values())

    def double(self):
        return self.to(float64)

    def clone(self):
        return self.to(self.dtype)

    def fill_(self, value):
        return self._fill([value] * self.numel())

    def copy_(self, other):
        return self._fill(other._values())

    def normal_(self, generator):
        return self._fill([generator.gauss(0, 1) for _ in range(self.numel())])

    def random_(self, generator):
        assert self.dtype is uint8, 'random_: of uint8 alone'
        return self._fill([generator.randrange(256) for _ in range(self.numel())])

    def _each(self, function):
        return _new(self.shape, self.dtype, [function(value) for value in self._values()])

    def _with(self, other, function, dtype=None):
        """Element by element; a tensor without dimensions, and one of a row, go with every row."""
        theirs = other._values() if isinstance(other, Tensor) else [other]
        shape = self.shape if not isinstance(other, Tensor) or len(self.shape) >= len(other.shape) else other.shape
        mine, count = self._values(), math.prod(shape)
        pairs = zip(itertools.islice(itertools.cycle(mine), count), itertools.islice(itertools.cycle(theirs), count))
        return _new(shape, dtype or self.dtype, [function(a, b) for a, b in pairs])

    def __add__(self, other):
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other):
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other):
        return self._with(other, lambda a, b: a * b)

    def __and__(self, other):
        return self._with(other, lambda a, b: a & b)

    def __rshift__(self, other):
        return self._with(other, lambda a, b: a >> b)

    def __truediv__(self, other):
        return self._with(other, lambda a, b: a / b)

    def __le__(self, other):
        return self._with(other, lambda a, b: a <= b, bool)

    __radd__, __rmul__ = __add__, __mul__

    def repeat_interleave(self, times, dim):
        assert dim == 1 and len(self.shape) == 2, 'repeat_interleave: the last of two dimensions alone'
        values = [value for value in self._values() for _ in range(times)]
        return _new((self.shape[0], self.shape[1] * times), self.dtype, values)

    def abs(self):
        return self._each(abs)

    def exp(self):
        return self._each(math.exp)

    def sqrt(self):
        return self._each(math.sqrt)

    def clamp(self, min):
        return self._each(lambda value: value if value > min else min)

    def sum(self):
        return _new((), float64 if self.dtype is bool else self.dtype, [math.fsum(self._values())])

    def norm(self):
        return _new((), self.dtype, [math.sqrt(math.fsum(value * value for value in self._values()))])

    def amax(self, dim=None):
        values = self._values()
        largest = lambda some: math.nan if any(one != one for one in some) else max(some)
        if dim is None:
            return _new((), self.dtype, [largest(values)])
        assert dim == 1 and len(self.shape) == 2, 'amax: the last of two dimensions alone'
        width = self.shape[1]
        return _new(self.shape[:1], self.dtype, [largest(values[i : i + width]) for i in range(0, len(values), width)])

    def __matmul__(self, other):
        a = self if len(self.shape) == 2 else self.view(1, *self.shape)
        b = other if len(other.shape) == 2 else other.view(*other.shape, 1)
        rows, columns = [a[i]._values() for i in range(a.shape[0])], [b.t()[j]._values() for j in range(b.shape[1])]
        shape = [n for n, tensor, dims in ((len(rows), self, 2), (len(columns), other, 2)) if len(tensor.shape) == dims]
        return _new(shape, self.dtype, [math.fsum(map(_product, row, column)) for row in rows for column in columns])


def _product(a, b):
    return a * b


def _new(shape, dtype, values):
    memory = (ctypes.c_char * max(1, dtype.itemsize * math.prod(shape)))()
    return Tensor(memory, dtype, shape)._fill(values)


class Generator(random.Random):
    def __init__(self, device):
        super().__init__(0)

    def manual_seed(self, seed):
        self.seed(seed)


def frombuffer(memory, dtype):
    return Tensor(memory, dtype, (len(memory) // dtype.itemsize,))


def stack(tensors, dim):
    assert dim == len(tensors[0].shape), 'stack: along a new last dimension alone'
    values = [value for together in zip(*(one._values() for one in tensors)) for value in together]
    return _new((*tensors[0].shape, len(tensors)), tensors[0].dtype, values)


def amax(tensor):
    return tensor.amax()


def sum(tensor):
    return tensor.sum()


def equal(a, b):
    return a.shape == b.shape and a._values() == b._values()


def mm(a, b, out):
    return out.copy_(a.double() @ b.double())


from . import nn  # noqa: E402
