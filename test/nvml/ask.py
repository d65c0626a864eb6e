"""Calls an NVML through ctypes, for tests: each line of standard input is JSON [function, arguments...], each line of output its
answer, or {state, reason}. Functions are those below and the methods of tools/gpu/nvml.py."""

import ctypes as c
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tools/gpu'))
import nvml  # noqa: E402


class MemoryV2(c.Structure):
    _fields_ = [('version', c.c_uint32), *((name, c.c_uint64) for name in ('total', 'reserved', 'free', 'used'))]


def memory(device, version=0x02000028):
    out = MemoryV2(version=version)
    device.call('nvmlDeviceGetMemoryInfo_v2', device.device, c.byref(out))
    return {name: getattr(out, name) for name in ('total', 'reserved', 'free', 'used')}


def processes(device):
    count, buffer = c.c_uint(16), (nvml.Process * 16)()
    device.call('nvmlDeviceGetComputeRunningProcesses_v3', device.device, c.byref(count), buffer)
    return [[one.pid, one.memory] for one in buffer[: count.value]]


def gpm(device, first, second):
    return device.gpm_between(samples[first], samples[second])


def sample(device):
    samples.append(device.gpm_sample())
    return len(samples) - 1


def select(device, name, key):
    """Makes another device the one that is asked."""
    given = c.c_uint(key) if isinstance(key, int) else c.c_char_p(key.encode())
    device.call(name, given, c.byref(device.device))


samples = []
mine = {'memory': memory, 'processes': processes, 'gpm': gpm, 'sample': sample, 'select': select}
device = nvml.Nvml()
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        answer = mine[name](device, *arguments) if name in mine else getattr(device, name)(*arguments)
    except nvml.NvmlError as error:
        answer = {'state': error.state, 'reason': str(error)}
    print(json.dumps(answer), flush=True)
