"""kernwatt beside PyTorch's kernels on a GPU: the same buffers, the same stream, alternating order, device time.

    python3 bench/peers/gpu.py --library .build/cuda/lib/libkernwatt_cuda.so --out peers.jsonl [--seconds 80] [--only gemm]
    python3 bench/peers/gpu.py --list                cases and peers, most valuable first; needs neither torch nor a GPU

Needs Python 3.10, torch with CUDA, and the library alone. Writes one line of JSON (gpu/schema.json) for each case and
peer as soon as it is known; what the deadline leaves out is named at the end, in the file too. `comparison.ratio` is
our time over the peer's: below 1 is faster. No time is written for a result that disagrees with float64 or with the
other side, nor on an emulated device. A new peer is one function in gpu/peers.py, a new case one line in gpu/cases.py.

Exit: 0 everything was measured or declined with a reason, 1 something failed, 2 bad input, 77 no device, 124 the
deadline or a signal left cases out. Bad input writes nothing.
"""
import argparse
import hashlib
import json
import os
import pathlib
import platform
import re
import signal
import sys
import time

from gpu.abi import Library, LibraryError
from gpu.cases import cases, tiny
from gpu.machine import CudaMachine, EmulatedMachine
from gpu.peers import peers_of
from gpu.run import DeviceLost, Run, first_line
from gpu.telemetry import Meter

LEAST_SECONDS = 2.5  # of a case; with less left it is not begun
CASE_SECONDS = 4.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Refused(Exception):
    """Bad input: one line, and the exit status."""

    def __init__(self, message, status=2):
        super().__init__(message)
        self.status = status


class Interrupted(BaseException):
    """A signal to end; what is done is kept."""


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--library', default='.build/cuda/lib/libkernwatt_cuda.so', help='library of kernels')
    parser.add_argument('--out', help='file of JSON lines to write')
    parser.add_argument('--seconds', type=float, default=80, help='wall time; no case begins that cannot end within it')
    parser.add_argument('--only', nargs='+', default=[], metavar='TEXT', help='operators, bandwidth, parts of names')
    parser.add_argument('--device', type=int, default=0)
    parser.add_argument('--seed', type=int, default=1, help='of inputs, sampled rows and order')
    parser.add_argument('--tiny', action='store_true', help='cases small enough for an emulated device')
    parser.add_argument('--list', action='store_true', help='print the cases and their peers as JSON lines')
    return parser.parse_args()


def chosen(options):
    found = [
        case
        for case in (tiny() if options.tiny else cases())
        if not options.only or any(text == case.group or text in case.name for text in options.only)
    ]
    if not found:
        raise Refused(f'--only is {" ".join(options.only)}, expected an operator or a part of a case name; see --list')
    return found


def import_torch():
    try:
        import torch
    except ImportError as error:
        raise Refused(f'torch: {first_line(error)}; the peers need PyTorch with CUDA in {sys.executable}') from None
    return torch


def open_machine(options):
    try:
        library = Library(options.library)
        count, reason = library.device_count()
    except LibraryError as error:
        raise Refused(first_line(error)) from None
    if count == 0:
        raise Refused(f'no device: {reason}', 77)
    if not 0 <= options.device < count:
        raise Refused(f'--device is {options.device}, expected 0 to {count - 1}')
    torch = import_torch()
    try:
        info = library.device_info(options.device)
        if info.emulated:
            return EmulatedMachine(torch, library, options.device)
        if not torch.cuda.is_available():
            raise Refused(f'torch: {torch.__version__} finds no CUDA device, but the library does')
        ours = info.uuid.decode()
        theirs = str(getattr(torch.cuda.get_device_properties(options.device), 'uuid', ''))
        digits = [re.sub('[^0-9a-f]', '', one.lower()) for one in (ours, theirs)]
        if len(digits[0]) == len(digits[1]) and digits[0] != digits[1]:
            raise Refused(f'torch: cuda:{options.device} is {theirs}, but the library has {ours} there')
        return CudaMachine(torch, library, options.device)
    except LibraryError as error:
        raise Refused(first_line(error)) from None


def environment(machine, meter):
    torch, info = machine.torch, machine.info
    cudnn = torch.backends.cudnn.version()
    version = lambda number: None if number == 0 else f'{number // 1000}.{number % 1000 // 10}'
    return {
        'device': {
            'name': machine.name,
            'uuid': info.uuid.decode() or None,
            'computeCapability': f'{info.cc_major}.{info.cc_minor}',
            'multiprocessors': info.sm_count,
            'memoryBytes': info.total_bytes,
            'llcBytes': info.llc_bytes or None,
            'driver': version(info.driver_version),
            'runtime': version(info.runtime_version),
            'emulated': bool(info.emulated),
        },
        'library': {
            'path': machine.library.path,
            'sha256': hashlib.sha256(pathlib.Path(machine.library.path).read_bytes()).hexdigest(),
            'build': machine.library.build,
        },
        'torch': torch.__version__,
        'cuda': torch.version.cuda,
        'cudnn': None if cudnn is None else str(cudnn),
        'driver': meter.driver,
        'python': platform.python_version(),
        'os': {'platform': sys.platform, 'kernel': platform.release()},
    }


def describe(record):
    """A line for people about one record."""
    name = f'{record["case"]["name"]}, {record["peer"]["name"]}'
    if record['state'] != 'measured':
        return f'{record["state"]:9} {name}: {record["reason"]}'
    work, unit = ('flopsPerSecond', 'GFLOP/s') if record['work']['flops'] else ('bytesPerSecond', 'GB/s')
    rates = [
        f'{who} {record["time"][who]["median"] * 1e6:.1f} us {record["rate"][who][work] / 1e9:.0f} {unit}'
        for who in ('ours', 'peer')
        if record['time'][who]
    ]
    ratio = record['comparison']
    if ratio:
        interval = ratio['ci95']
        rates.append(f'ratio {ratio["ratio"]:.3f}' + (f' [{interval[0]:.3f}, {interval[1]:.3f}]' if interval else ''))
    return f'{"measured":9} {name}, {record["time"]["cache"]}: {", ".join([*rates, *record["flags"]])}'


def measure(run, wanted, deadline):
    """Every case in turn; gives the reason why the last ones were left out, if any were."""
    reason = None
    try:
        for case in wanted:
            left = deadline - time.monotonic()
            if left < LEAST_SECONDS:
                reason = f'{max(0.0, left):.1f} s are left, expected {LEAST_SECONDS} s for a case'
                break
            run.case(case, min(CASE_SECONDS, left - LEAST_SECONDS + 1))
    except DeviceLost as lost:
        reason = f'the device answers no more: {first_line(lost)}'
    except Interrupted as ended:
        reason = f'interrupted by {ended}'
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    if reason is not None:
        for case in wanted:
            run.without_times(case, 'left-out', reason)
    return reason


def main():
    begun = time.monotonic()
    options = parse()
    wanted = chosen(options)
    if options.list:
        for case in wanted:
            print(json.dumps({
                'name': case.name, 'op': case.op, 'cache': case.cache, 'shape': case.dims, 'dtype': case.dtype,
                'args': case.args, 'flops': case.flops, 'minBytes': case.bytes,
                'peers': [one.name for one in peers_of(case)],
            }))
        return 0
    if not options.out:
        raise Refused('--out is missing, expected the file to write')
    if not options.seconds > 0:
        raise Refused(f'--seconds is {options.seconds}, expected a number above 0')
    machine = open_machine(options)
    if machine.emulated and not options.tiny:
        raise Refused(f'--library is {options.library}, an emulated device, expected with --tiny')
    try:
        out = open(options.out, 'w', encoding='utf8')
    except OSError as error:
        raise Refused(f'--out is {options.out}: {error.strerror}') from None

    def write(record):
        out.write(json.dumps(record, allow_nan=False) + '\n')
        out.flush()
        os.fsync(out.fileno())
        print(describe(record), flush=True)

    def end(number, _):
        raise Interrupted(signal.Signals(number).name)

    for number in SIGNALS:
        signal.signal(number, end)
    with out:
        meter = Meter(machine.info.uuid.decode())
        run = Run(machine, meter, environment(machine, meter), options.seed, write)
        left_out = measure(run, wanted, begun + options.seconds)
    states = ('measured', 'emulated', 'failed', 'declined', 'left-out')
    shown = [state for state in states if state in run.counts or state != 'emulated']
    print(', '.join(f'{run.counts.get(state, 0)} {state}' for state in shown))
    return 1 if run.counts.get('failed') else 124 if left_out else 0


if __name__ == '__main__':
    try:
        status = main()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing more to say to it
        status = 2
    except Refused as refused:
        print(f'gpu.py: {refused}', file=sys.stderr)
        status = refused.status
    sys.exit(status)
