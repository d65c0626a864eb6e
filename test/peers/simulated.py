"""bench/peers/gpu.py's way of a measured case, on an emulated device with a clock that makes its times up: for tests of
records and estimators alone. Writes records to standard output, which is the only place they go.

    python3 test/peers/simulated.py LIBRARY        PYTHONPATH: bench/peers and a torch, test/gpu/stub or a real one
"""
import json
import random
import sys

import torch

from gpu import clock, run
from gpu.abi import Library
from gpu.cases import tiny
from gpu.machine import EmulatedMachine
from gpu.peers import peer

# Seconds of a call, except of cuBLAS, and their noise.
SECONDS, CUBLAS_SECONDS, NOISE = 1e-4, 5e-5, 0.02


class Timed(EmulatedMachine):
    emulated = False


class SimulatedClock:
    """A GraphClock that launches nothing."""

    def __init__(self, machine, calls, sets):
        self._calls, self._random = calls, random.Random(1)
        self.calls_per_sample = [10] * len(calls)

    def _seconds(self, which):
        seconds = CUBLAS_SECONDS if 'cublas' in self._calls[which].__qualname__ else SECONDS
        return seconds * self._random.uniform(1 - NOISE, 1 + NOISE)

    def calibrate(self, which):
        if 'waits' in self._calls[which].__qualname__:
            raise RuntimeError('operation not permitted when stream is capturing')
        return self._seconds(which)

    def round(self, order):
        return [self._seconds(which) for which in order]


@peer('gemm', 'waits', 'nothing')
def waits(torch, case):
    return lambda s: torch.mm(s['x'], s['w'].t(), out=s['y'])


class Still:
    """A meter that always reads the same."""

    reason = None
    driver = '580.0'

    def read(self):
        clocks = {'smClockHz': 1.98e9, 'memoryClockHz': 3.2e9}
        return {**clocks, 'powerW': 500.0, 'temperatureC': 50, 'throttled': ['sw-power-cap']}


def main():
    clock.GraphClock = SimulatedClock
    machine = Timed(torch, Library(sys.argv[1]), 0)
    environment = {
        'device': {
            'name': 'simulated', 'uuid': None, 'computeCapability': '9.0', 'multiprocessors': 1, 'memoryBytes': 1,
            'llcBytes': None, 'driver': None, 'runtime': None, 'emulated': False,
        },
        'library': {'path': sys.argv[1], 'sha256': '0' * 64, 'build': machine.library.build},
        'torch': torch.__version__, 'cuda': None, 'cudnn': None, 'driver': None, 'python': '3',
        'os': {'platform': 'linux', 'kernel': '0'},
    }
    all_of_it = run.Run(machine, Still(), environment, 1, lambda record: print(json.dumps(record, allow_nan=False)))
    for case in tiny():
        all_of_it.case(case, 0.3)


main()
