"""The C interface of a library of kernels (kernels/core/abi.h) through ctypes. Every struct and every signature comes
from layout.json, which layout.cc prints from the headers; nothing about them is written down here."""
import ctypes
import json
import pathlib
import re

LAYOUT = json.loads(pathlib.Path(__file__).with_name('layout.json').read_text())
DTYPES = LAYOUT['dtypes'].split()
CODES = LAYOUT['codes'].split()

_PLAIN = {
    'void': None,
    'bool': ctypes.c_bool,
    'f32': ctypes.c_float,
    'f64': ctypes.c_double,
    'i32': ctypes.c_int32,
    'i64': ctypes.c_int64,
    'u64': ctypes.c_uint64,
    'ptr': ctypes.c_void_p,
    'text': ctypes.c_char_p,
    'char': ctypes.c_char,
}


class LibraryError(Exception):
    """A library that cannot be used, or a call of it that failed; `code` is the name of its status."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def _type(kind):
    if kind == 'tensor':
        return TensorView
    called = re.fullmatch(r'(\w+)\((.*)\)', kind)
    if called:
        taken = [_PLAIN[one] for one in called[2].split(',') if one]
        return ctypes.CFUNCTYPE(_PLAIN[called[1]], *taken)
    element, _, count = kind.partition('*')
    return _PLAIN[element] * int(count) if count else _PLAIN[element]


def structure(name):
    """The ctypes struct that layout.json describes under this name; AssertionError where this machine lays it out
    otherwise."""
    described = LAYOUT['structs'][name]
    made = type(name, (ctypes.Structure,), {
        '_fields_': [(field, _type(it['kind'])) for field, it in described['members'].items()]
    })
    for field, it in described['members'].items():
        assert getattr(made, field).offset == it['offset'], f'{name}.{field} is not at byte {it["offset"]}'
    assert ctypes.sizeof(made) == described['bytes'], f'{name} has {ctypes.sizeof(made)} bytes'
    return made


TensorView = structure('TensorView')
DeviceInfo = structure('kw_device_info')
_Op = structure('kw_op')
_Table = structure('kw_table')


def view(address, dtype, shape, stride):
    """What a kernel sees of a tensor; strides in elements."""
    it = TensorView(data=address, dtype=DTYPES.index(dtype), rank=len(shape))
    it.shape[: len(shape)] = shape
    it.stride[: len(stride)] = stride
    return it


class Library:
    """A library of kernels. LibraryError says in one line why a file is none, or none of this build."""

    def __init__(self, path):
        self.path = str(path)
        try:
            self._library = ctypes.CDLL(self.path)
        except OSError as error:
            raise LibraryError('LIBRARY', f'library: {self.path} does not load: {error}') from None
        try:
            entry = self._library.kw_cuda_table
        except AttributeError:
            raise LibraryError('LIBRARY', f'library: {self.path} has no function kw_cuda_table') from None
        entry.restype, entry.argtypes = ctypes.c_void_p, [ctypes.c_int32]
        address = entry(LAYOUT['abi'])
        if not address:
            raise LibraryError('LIBRARY', f'library: {self.path} does not speak abi {LAYOUT["abi"]}')
        self.table = ctypes.cast(address, ctypes.POINTER(_Table)).contents
        if self.table.abi != LAYOUT['abi']:
            raise LibraryError('LIBRARY', f'library: {self.path} speaks abi {self.table.abi}, expected {LAYOUT["abi"]}')
        if self.table.size < ctypes.sizeof(_Table):
            sizes = f'{self.table.size} bytes, expected {ctypes.sizeof(_Table)}'
            raise LibraryError('LIBRARY', f'library: the table of {self.path} has {sizes}')
        self.build = self.table.build.decode()
        pointers = ctypes.cast(self.table.ops, ctypes.POINTER(ctypes.POINTER(_Op)))
        self._ops = {}
        for i in range(self.table.op_count):
            op = pointers[i].contents
            self._ops[op.name.decode()] = op

    def last_error(self):
        return self.table.last_error().decode(errors='replace')

    def must(self, status, where):
        if status != 0:
            raise LibraryError(CODES[status] if status < len(CODES) else str(status), f'{where}: {self.last_error()}')

    def device_count(self):
        """Devices, and why there are none."""
        count = ctypes.c_int32()
        self.must(self.table.device_count(ctypes.byref(count)), 'device_count')
        return count.value, '' if count.value else self.last_error()

    def device_info(self, device):
        info = DeviceInfo()
        self.must(self.table.device_info(device, ctypes.byref(info)), 'device_info')
        return info

    def op(self, name):
        """The operator and the struct of its arguments."""
        if name not in self._ops:
            raise LibraryError('LIBRARY', f'library: {self.path} has no operator {name}')
        op, arguments = self._ops[name], structure(name)
        if op.args_size != ctypes.sizeof(arguments):
            raise LibraryError(
                'LIBRARY',
                f'library: arguments of {name} have {op.args_size} bytes, expected {ctypes.sizeof(arguments)}',
            )
        return op, arguments

    def arguments(self, name, given):
        """An Args struct with its defaults and what is given: TensorViews and numbers by field."""
        _, made = self.op(name)
        it = made()
        for field, described in LAYOUT['structs'][name]['members'].items():
            if 'default' in described:
                setattr(it, field, described['default'])
        for field, value in given.items():
            if field not in LAYOUT['structs'][name]['members']:
                raise LibraryError('ARGUMENT', f'{name}: {field} is not an argument')
            setattr(it, field, value)
        return it

    def pointer(self, call, *taken):
        """What a function of the table writes through its last argument, a pointer."""
        made = ctypes.c_void_p()
        self.must(getattr(self.table, call)(*taken, ctypes.byref(made)), call)
        return made.value

    def trace(self, call):
        """The mangled names of the kernels that call() launches; none on an emulated device."""
        self.table.trace(1)
        try:
            call()
        finally:
            names = self.table.trace(0)
        return names.decode().split()


class Plan:
    """A bound call of an operator. `memory(bytes)` gives its workspace an address and keeps it."""

    def __init__(self, library, info, name, arguments, memory):
        self._library, self._name = library, name
        self._op, _ = library.op(name)
        self._plan = ctypes.c_void_p()
        at = ctypes.byref(info), ctypes.byref(arguments)
        library.must(self._op.supports(*at), name)
        library.must(self._op.plan_create(*at, ctypes.byref(self._plan)), name)
        self.workspace_bytes = self._op.plan_workspace(self._plan)
        workspace = memory(self.workspace_bytes) if self.workspace_bytes else None
        library.must(self._op.plan_rebind(self._plan, ctypes.byref(arguments), workspace), name)

    def enqueue(self, stream):
        self._library.must(self._op.plan_enqueue(self._plan, stream), self._name)

    def explain(self):
        return json.loads(self._op.plan_explain(self._plan).decode())

    def close(self):
        if self._plan:
            self._op.plan_destroy(self._plan)
            self._plan = None
