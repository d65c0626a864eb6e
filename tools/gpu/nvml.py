"""NVML through ctypes, opened at run time. A missing symbol, a refusal and an unsupported query are all NvmlError with a
state; functions that change settings are not bound. KERNWATT_NVML_LIBRARY names another library, for tests."""

import ctypes as c
import os

# nvmlReturn_t -> the state of what was asked; others are "failed".
STATES = {
    2: 'unsupported',
    3: 'unsupported',
    4: 'denied',
    6: 'no data',
    13: 'missing',
    17: 'denied',
    21: 'no data',
    25: 'unsupported',
}
NOT_FOUND_BUFFER = 7  # NVML_ERROR_INSUFFICIENT_SIZE
CANDIDATES = ['libnvidia-ml.so.1', 'libnvidia-ml.so', '/usr/lib/wsl/lib/libnvidia-ml.so.1']
GPM_METRICS = {2: 'SM_UTIL', 3: 'SM_OCCUPANCY', 5: 'ANY_TENSOR', 7: 'HMMA', 9: 'IMMA', 10: 'DRAM_BW', 12: 'FP32'}
GPM_METRICS_MAX = 333  # of the newest header; older libraries read less of the array

Handle = c.c_void_p


class NvmlError(Exception):
    def __init__(self, state, reason):
        super().__init__(reason)
        self.state = state


class Value(c.Union):
    _fields_ = [
        ('d', c.c_double),
        ('u32', c.c_uint32),
        ('u64', c.c_uint64),
        ('i64', c.c_int64),
        ('i32', c.c_int32),
        ('u16', c.c_uint16),
    ]


# nvmlValueType_t -> member of the union.
MEMBERS = ['d', 'u32', 'u64', 'u64', 'i64', 'i32', 'u16']


class FieldValue(c.Structure):
    _fields_ = [
        ('field', c.c_uint32),
        ('scope', c.c_uint32),
        ('timestamp_us', c.c_int64),
        ('latency_us', c.c_int64),
        ('type', c.c_int32),
        ('status', c.c_int32),
        ('value', Value),
    ]

    def number(self):
        return getattr(self.value, MEMBERS[self.type]) if 0 <= self.type < len(MEMBERS) else None


class Sample(c.Structure):
    _fields_ = [('timestamp_us', c.c_uint64), ('value', Value)]


class Process(c.Structure):  # 24 bytes in nvml.h; some drivers of series 535 write more
    _fields_ = [('pid', c.c_uint32), ('memory', c.c_uint64), ('gi', c.c_uint32), ('ci', c.c_uint32)]


class GpmMetric(c.Structure):
    _fields_ = [('id', c.c_uint32), ('status', c.c_int32), ('value', c.c_double), ('info', c.c_char_p * 3)]


class GpmMetrics(c.Structure):
    _fields_ = [
        ('version', c.c_uint32),
        ('count', c.c_uint32),
        ('first', Handle),
        ('second', Handle),
        ('metrics', GpmMetric * GPM_METRICS_MAX),
    ]


class GpmSupport(c.Structure):
    _fields_ = [('version', c.c_uint32), ('supported', c.c_uint32)]


class Nvml:
    """One GPU, found by UUID, or the first where `uuid` is None."""

    def __init__(self, uuid=None):
        given = os.environ.get('KERNWATT_NVML_LIBRARY')
        self.library = None
        reasons = []
        for path in [given] if given else CANDIDATES:
            try:
                self.library, self.path = c.CDLL(path), path
                break
            except OSError as error:
                reasons.append(str(error))
        if self.library is None:
            raise NvmlError('missing', f"NVML cannot be opened: {'; '.join(reasons)}")
        self.call('nvmlInit_v2')
        self.device = Handle()
        if uuid:
            self.call('nvmlDeviceGetHandleByUUID', c.c_char_p(uuid.encode()), c.byref(self.device))
        else:
            self.call('nvmlDeviceGetHandleByIndex_v2', c.c_uint(0), c.byref(self.device))

    def call(self, name, *arguments):
        status = self.status(name, *arguments)
        if status:
            raise NvmlError(STATES.get(status, 'failed'), f'{name}: {self.text(status)}')

    def status(self, name, *arguments):
        try:
            function = getattr(self.library, name)
        except AttributeError:
            raise NvmlError('missing', f"{name}: this driver's NVML has no such function") from None
        return function(*arguments)

    def text(self, status):
        try:
            say = self.library.nvmlErrorString
        except AttributeError:
            return f'error {status}'
        say.restype = c.c_char_p
        return f"{say(status).decode(errors='replace')} ({status})"

    def string(self, name, size=96, device=True):
        buffer = c.create_string_buffer(size)
        self.call(name, *([self.device] if device else []), buffer, c.c_uint(size))
        return buffer.value.decode(errors='replace')

    def number(self, name, *arguments, kind=c.c_uint):
        value = kind()
        self.call(name, self.device, *arguments, c.byref(value))
        return value.value

    def fields(self, *wanted):
        """FieldValue of each (field, scope), by one call. Each has a status of its own."""
        values = (FieldValue * len(wanted))()
        for value, (field, scope) in zip(values, wanted):
            value.field, value.scope = field, scope
        self.call('nvmlDeviceGetFieldValues', self.device, c.c_int(len(wanted)), values)
        return values

    def field(self, field, scope=0):
        """(value, valueType) of one field; NvmlError with its own state where there is none."""
        (value,) = self.fields((field, scope))
        if value.status:
            reason = f'field {field} scope {scope}: {self.text(value.status)}'
            raise NvmlError(STATES.get(value.status, 'failed'), reason)
        return value.number(), value.type

    def samples(self, kind):
        """(valueType, [(timestamp in us, value)]) of the driver's own buffer."""
        count, value_type = c.c_uint(), c.c_int()
        which = self.device, c.c_int(kind), c.c_ulonglong(0), c.byref(value_type), c.byref(count)
        self.call('nvmlDeviceGetSamples', *which, None)
        buffer = (Sample * max(count.value, 1))()
        self.call('nvmlDeviceGetSamples', *which, buffer)
        member = MEMBERS[value_type.value]
        return value_type.value, [(one.timestamp_us, getattr(one.value, member)) for one in buffer[: count.value]]

    def processes(self):
        name, count = 'nvmlDeviceGetComputeRunningProcesses_v3', c.c_uint(0)
        status = self.status(name, self.device, c.byref(count), None)
        if status not in (0, NOT_FOUND_BUFFER):
            self.call(name, self.device, c.byref(count), None)
        room = count.value + 8
        buffer = c.create_string_buffer(64 * room)
        count.value = room
        self.call(name, self.device, c.byref(count), buffer)
        entries = c.cast(buffer, c.POINTER(Process))
        return [entries[i].pid for i in range(count.value)]

    def gpm_supported(self):
        support = GpmSupport(version=1)
        self.call('nvmlGpmQueryDeviceSupport', self.device, c.byref(support))
        return bool(support.supported)

    def gpm_sample(self):
        sample = Handle()
        self.call('nvmlGpmSampleAlloc', c.byref(sample))
        self.call('nvmlGpmSampleGet', self.device, sample)
        return sample

    def gpm_between(self, first, second):
        """Percentages between two samples: { NAME: value, or the error's text }."""
        request = GpmMetrics(version=1, count=len(GPM_METRICS), first=first, second=second)
        for metric, number in zip(request.metrics, GPM_METRICS):
            metric.id = number
        self.call('nvmlGpmMetricsGet', c.byref(request))
        found = zip(request.metrics, GPM_METRICS.values())
        return {name: metric.value if metric.status == 0 else self.text(metric.status) for metric, name in found}

    def gpm_free(self, sample):
        self.call('nvmlGpmSampleFree', sample)
