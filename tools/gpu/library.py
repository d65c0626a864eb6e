"""The C interface of a kernel library (kernels/core/abi.h) through ctypes: enough to name the device and to load it with work.

python3 library.py LIBRARY    prints device 0 as JSON.
"""

import ctypes as c
import json
import sys

ABI = 1
TO_DEVICE, ON_DEVICE = 1, 3  # kw_copy_kind
MAX_RANK = 8
BF16 = 2  # kw::DType

Handle = c.c_void_p


class DeviceInfo(c.Structure):
    _fields_ = [
        ("size", c.c_uint64),
        ("name", c.c_char * 128),
        ("uuid", c.c_char * 48),
        ("pci", c.c_char * 32),
        ("cc_major", c.c_int32),
        ("cc_minor", c.c_int32),
        ("sm_count", c.c_int32),
        ("emulated", c.c_int32),
        ("total_bytes", c.c_uint64),
        ("smem_bytes", c.c_uint64),
        ("llc_bytes", c.c_uint64),
        ("driver_version", c.c_int32),
        ("runtime_version", c.c_int32),
        ("clock_khz", c.c_int32),
        ("memory_clock_khz", c.c_int32),
        ("memory_bus_bits", c.c_int32),
        ("isa", c.c_int32),
    ]


class Tensor(c.Structure):  # kw::TensorView; all zero bytes: absent
    _fields_ = [
        ("data", Handle),
        ("dtype", c.c_int32),
        ("rank", c.c_int32),
        ("shape", c.c_int64 * MAX_RANK),
        ("stride", c.c_int64 * MAX_RANK),
    ]


class GemmArgs(c.Structure):
    _fields_ = [
        ("size", c.c_uint64),
        ("x", Tensor),
        ("w", Tensor),
        ("c", Tensor),
        ("bias", Tensor),
        ("residual", Tensor),
        ("y", Tensor),
        ("alpha", c.c_float),
        ("beta", c.c_float),
        ("activation", c.c_int32),
        ("trans_x", c.c_bool),
        ("trans_w", c.c_bool),
    ]


class Op(c.Structure):
    _fields_ = [
        ("size", c.c_uint64),
        ("name", c.c_char_p),
        ("args_size", c.c_uint64),
        ("supports", c.CFUNCTYPE(c.c_int32, c.POINTER(DeviceInfo), Handle)),
        ("plan_create", c.CFUNCTYPE(c.c_int32, c.POINTER(DeviceInfo), Handle, c.POINTER(Handle))),
        ("plan_workspace", c.CFUNCTYPE(c.c_uint64, Handle)),
        ("plan_rebind", c.CFUNCTYPE(c.c_int32, Handle, Handle, Handle)),
        ("plan_enqueue", c.CFUNCTYPE(c.c_int32, Handle, Handle)),
    ]


# The members of kw_table up to its operators, after size, abi and build: name and argument types. All return a status.
_CALLS = [
    ("device_count", c.POINTER(c.c_int32)),
    ("device_info", c.c_int32, c.POINTER(DeviceInfo)),
    ("memory_info", c.c_int32, c.POINTER(c.c_uint64), c.POINTER(c.c_uint64)),
    ("alloc", c.c_int32, c.c_uint64, c.POINTER(Handle)),
    ("free", c.c_int32, Handle),
    ("host_alloc", c.c_uint64, c.POINTER(Handle)),
    ("host_free", Handle),
    ("stream_create", c.c_int32, c.POINTER(Handle)),
    ("stream_destroy", Handle),
    ("copy", c.c_int32, Handle, Handle, c.c_uint64, c.c_int32, Handle),
    ("event_create", c.c_int32, c.c_int32, c.POINTER(Handle)),
    ("event_destroy", Handle),
    ("event_record", Handle, Handle),
    ("event_wait", Handle),
    ("event_seconds", Handle, Handle, c.POINTER(c.c_double)),
    ("graph_begin", Handle),
    ("graph_end", Handle, c.POINTER(Handle)),
    ("graph_launch", Handle, Handle),
    ("graph_destroy", Handle),
]


class Table(c.Structure):
    _fields_ = [
        ("size", c.c_uint64),
        ("abi", c.c_int32),
        ("build", c.c_char_p),
        ("last_error", c.CFUNCTYPE(c.c_char_p)),
        *[(name, c.CFUNCTYPE(c.c_int32, *arguments)) for name, *arguments in _CALLS],
        ("op_count", c.c_uint64),
        ("ops", c.POINTER(c.POINTER(Op))),
    ]


class LibraryError(Exception):
    pass


class Library:
    """An open library; every call that fails raises LibraryError with the library's own words."""

    def __init__(self, path):
        try:
            entry = c.CDLL(path).kw_cuda_table
        except (OSError, AttributeError) as error:
            raise LibraryError(f"{path}: {error}") from None
        entry.restype, entry.argtypes = c.POINTER(Table), [c.c_int32]
        table = entry(ABI)
        if not table:
            raise LibraryError(f"{path}: does not speak abi {ABI}")
        self.table = table.contents

    def call(self, name, *arguments):
        self._check(name, getattr(self.table, name)(*arguments))

    def _check(self, name, status):
        if status:
            raise LibraryError(f"{name}: {(self.table.last_error() or b'').decode(errors='replace')}")

    def device(self, number=0):
        """kw_device_info of a device, as the library's structure."""
        count = c.c_int32()
        self.call("device_count", count)
        if count.value <= number:
            raise LibraryError((self.table.last_error() or b"no device").decode(errors="replace"))
        info = DeviceInfo(size=c.sizeof(DeviceInfo))
        self.call("device_info", number, info)
        return info

    def alloc(self, count):
        pointer = Handle()
        self.call("alloc", 0, count, pointer)
        return pointer

    def stream(self):
        stream = Handle()
        self.call("stream_create", 0, stream)
        return stream

    def event(self):
        event = Handle()
        self.call("event_create", 0, 0, event)
        return event

    def gemm(self, x, w, y, n):
        """A plan of y = x wᵀ over square bf16 matrices [n, n], as a function of the stream that it queues on."""
        op = next((self.table.ops[i].contents for i in range(self.table.op_count) if self.table.ops[i].contents.name == b"gemm"), None)
        if op is None or op.args_size != c.sizeof(GemmArgs):
            raise LibraryError("gemm: the library's arguments are not those of library.py")

        def matrix(pointer):
            view = Tensor(data=pointer, dtype=BF16, rank=2)
            view.shape[:2], view.stride[:2] = (n, n), (n, 1)
            return view

        args = GemmArgs(size=c.sizeof(GemmArgs), x=matrix(x), w=matrix(w), y=matrix(y), alpha=1, beta=0)
        plan = Handle()
        self._check("gemm", op.plan_create(self.device(), c.addressof(args), plan))
        workspace = op.plan_workspace(plan)
        self._check("gemm", op.plan_rebind(plan, c.addressof(args), self.alloc(workspace) if workspace else None))
        return lambda stream: self._check("gemm", op.plan_enqueue(plan, stream))


def describe(path):
    """Device 0 and the library's build line, as plain values."""
    library = Library(path)
    info = library.device()

    def version(number):
        return f"{number // 1000}.{number % 1000 // 10}" if number else None

    return {
        "name": info.name.decode(errors="replace"),
        "uuid": info.uuid.decode() or None,
        "cc": f"{info.cc_major}.{info.cc_minor}",
        "driver": version(info.driver_version),
        "runtime": version(info.runtime_version),
        "emulated": bool(info.emulated),
        "pci": info.pci.decode() or None,
        "sms": info.sm_count,
        "memory": info.total_bytes,
        "smem": info.smem_bytes,
        "llc": info.llc_bytes or None,
        "clockKhz": info.clock_khz or None,
        "memoryClockKhz": info.memory_clock_khz or None,
        "memoryBusBits": info.memory_bus_bits or None,
        "build": (library.table.build or b"").decode(errors="replace"),
    }


if __name__ == "__main__":
    try:
        print(json.dumps(describe(sys.argv[1])))
    except LibraryError as error:
        sys.exit(f"library: {error}")
