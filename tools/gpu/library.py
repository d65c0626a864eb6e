"""What a kernel library says of itself and its device, and a load for the meter, over the binding of bench/peers/gpu.

python3 library.py LIBRARY    prints device 0 as JSON.
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../bench/peers'))
from gpu import abi
from gpu.abi import LibraryError

TO_DEVICE, ON_DEVICE = 1, 3  # kw_copy_kind


class Library(abi.Library):
    """An open library, and the few calls of device 0 that a load consists of."""

    def __init__(self, path):
        super().__init__(path)
        count, reason = self.device_count()
        if not count:
            raise LibraryError('LIBRARY', reason or 'no device found')
        self.info = self.device_info(0)

    def call(self, name, *arguments):
        self.must(getattr(self.table, name)(*arguments), name)

    def alloc(self, count):
        return self.pointer('alloc', 0, count)

    def copy(self, target, source, count, kind, stream):
        self.call('copy', 0, target, source, count, kind, stream)

    def mark(self, stream):
        """An event that the stream reaches after what is queued on it now; to be given to wait()."""
        event = self.pointer('event_create', 0, 0)
        self.call('event_record', event, stream)
        return event

    def wait(self, event):
        self.call('event_wait', event)
        self.call('event_destroy', event)

    def gemm(self, x, w, y, n):
        """A plan of y = x wᵀ over square bf16 matrices [n, n]."""
        given = {name: abi.view(at, 'bf16', [n, n], [n, 1]) for name, at in (('x', x), ('w', w), ('y', y))}
        return abi.Plan(self, self.info, 'gemm', self.arguments('gemm', given), self.alloc)


def describe(path):
    """Device 0 and the library's build line, as plain values; None for what the library does not know."""
    library = Library(path)
    info = library.info

    def version(number):
        return f'{number // 1000}.{number % 1000 // 10}' if number else None

    return {
        'name': info.name.decode(errors='replace'),
        'uuid': info.uuid.decode() or None,
        'cc': f'{info.cc_major}.{info.cc_minor}',
        'driver': version(info.driver_version),
        'runtime': version(info.runtime_version),
        'emulated': bool(info.emulated),
        'pci': info.pci.decode() or None,
        'sms': info.sm_count,
        'memory': info.total_bytes,
        'smem': info.smem_bytes,
        'llc': info.llc_bytes or None,
        'clockKhz': info.clock_khz or None,
        'memoryClockKhz': info.memory_clock_khz or None,
        'memoryBusBits': info.memory_bus_bits or None,
        'build': library.build,
    }


if __name__ == '__main__':
    try:
        print(json.dumps(describe(sys.argv[1])))
    except LibraryError as error:
        sys.exit(str(error))
