"""Part meter: how this GPU's energy counter and power readings behave, which no document says: meter.json, and every
read in meter-rows.csv.

Tick period and quantum, what the counter and the power readings make of the same window (idle, copies, a matrix
product), scopes, GPM, units of the throttle counters, call latency. Reads only: no clock, limit or mode is touched. The
windows shrink with the part's time limit. Every item is a value or a state with its reason.
"""

import ctypes as c
import functools
import glob
import math
import os
import statistics
import subprocess
import sys
import time

import items
import library
import nvml

ENERGY, AVERAGE, INSTANT = 83, 185, 186  # mJ since the driver loaded; mW over a second; mW now
THROTTLE = {74: 'swPowerCap', 75: 'thermal', 76: 'syncBoost', 77: 'boardLimit', 78: 'lowUtilization', 79: 'reliability',
            81: 'baseClocks', 269: 'swThermal', 270: 'hwThermal', 271: 'hwPowerBrake'}
SCOPES = ['gpu', 'module', 'memory', 'gpuBase']
MISSING = 77
DISPUTED = 0.05  # counter and readings that differ by more disagree about the same joules
POLL = 0.0005  # s between reads


def poll(device, seconds):
    """Rows (time, call seconds, energy, average, instant): mJ and mW, None where a read failed."""
    rows, wanted = [], [(ENERGY, 0), (AVERAGE, 0), (INSTANT, 0)]
    end = time.monotonic() + seconds
    while (begin := time.monotonic()) < end:
        values = device.fields(*wanted)
        done = time.monotonic()
        rows.append((begin, done - begin, *(None if value.status else value.number() for value in values)))
        time.sleep(POLL)
    return rows


def keep(name, rows):
    """Every read, for whoever finds a better estimator: meter-rows.csv."""
    with open(os.path.join(os.environ['KW_OUT'], 'meter-rows.csv'), 'a') as file:
        if file.tell() == 0:
            file.write('phase,s,call_s,energy_mJ,average_mW,instant_mW\n')
        for row in rows:
            numbers = ','.join('' if value is None else str(value) for value in row[2:])
            file.write(f'{name},{row[0]:.6f},{row[1]:.6f},{numbers}\n')


def ticks(rows, column):
    """[(time, value)] where a reading changed; the first row is not a change."""
    known = [(row[0], row[column]) for row in rows if row[column] is not None]
    return [now for before, now in zip(known, known[1:]) if now[1] != before[1]]


def tick_facts(changes):
    if len(changes) < 4:
        return None
    spacing = [b[0] - a[0] for a, b in zip(changes, changes[1:])]
    steps = [int(abs(b[1] - a[1])) for a, b in zip(changes, changes[1:])]
    spacing.sort()
    return {
        'periodMs': round(1e3 * statistics.median(spacing), 3),
        'shortestMs': round(1e3 * spacing[0], 3),
        'longestMs': round(1e3 * spacing[-1], 3),
        'quantum': functools.reduce(math.gcd, steps),
        'ticks': len(changes),
    }


def watts(rows):
    """Mean power of one window between the first and the last tick of the counter, by the counter and by each reading."""
    changes = ticks(rows, 2)
    if len(changes) < 3:
        return None
    begin, end = changes[0][0], changes[-1][0]
    by = {'counterW': round((changes[-1][1] - changes[0][1]) / (end - begin) / 1e3, 2)}
    for name, column in (('averageW', 3), ('instantW', 4)):
        inside = [(row[0], row[column]) for row in rows if begin <= row[0] <= end and row[column] is not None]
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(inside, inside[1:]))
        by[name] = round(area / (inside[-1][0] - inside[0][0]) / 1e3, 2) if len(inside) > 1 else None
    others = [by[name] for name in ('averageW', 'instantW') if by[name] is not None]
    apart = max((abs(other / by['counterW'] - 1) for other in others), default=None) if by['counterW'] else None
    judged = {'apart': None, 'disputed': None} if apart is None else {'apart': round(apart, 4), 'disputed': apart > DISPUTED}
    return {**by, 'seconds': round(end - begin, 3), **judged}


def quantile(values, q):
    values = sorted(values)
    return values[min(int(q * len(values)), len(values) - 1)]


def attempt(out, name, ask, unit=None):
    """Records what `ask` returns, or why it cannot."""
    try:
        out.ok(name, ask(), unit)
    except (nvml.NvmlError, library.LibraryError) as error:
        out.no(name, getattr(error, 'state', 'failed'), error)


class Load:
    """load.py as a process of its own, so that it does not disturb the clock of the polling."""

    def __init__(self):
        here = os.path.dirname(os.path.abspath(__file__))
        command = [sys.executable, os.path.join(here, 'load.py'), os.environ['KW_LIBRARY'], os.environ['KW_EMULATED']]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def switch(self, kind):
        """What runs now, or NvmlError with the reason why nothing does."""
        try:
            self.process.stdin.write(kind + '\n')
            self.process.stdin.flush()
            said = self.process.stdout.readline().strip()
        except OSError as error:
            said = f'no {error}'
        if not said.startswith('ok '):
            raise nvml.NvmlError('missing', f"no load: {said[3:] or 'load.py ended'}")
        return said[3:]

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(timeout=3)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()


def gpm(device, out):
    """Two samples at each spacing under load: percentages, or the error."""
    attempt(out, 'gpm.supported', device.gpm_supported)
    for spacing in (0.02, 0.1, 0.25):
        def between(spacing=spacing):
            first = device.gpm_sample()
            time.sleep(spacing)
            second = device.gpm_sample()
            try:
                return device.gpm_between(first, second)
            finally:
                device.gpm_free(first)
                device.gpm_free(second)

        attempt(out, f'gpm.after{round(1e3 * spacing)}ms', between, '%')


def throttle(device):
    """{ field: (value, type) or the error } of all throttle counters, and when."""
    found = {}
    for field in THROTTLE:
        try:
            found[field] = device.field(field)
        except nvml.NvmlError as error:
            found[field] = error
    return time.monotonic(), found


def throttle_units(out, before, after):
    """The unit follows from a counter that grew: no more of it than the time between."""
    seconds = after[0] - before[0]
    for field, name in THROTTLE.items():
        key, old, new = f'throttle.{field}.{name}', before[1][field], after[1][field]
        if isinstance(new, nvml.NvmlError) or isinstance(old, nvml.NvmlError):
            out.no(key, new.state if isinstance(new, nvml.NvmlError) else old.state, new)
            continue
        grown = new[0] - old[0]
        value = {'value': new[0], 'grown': grown, 'seconds': round(seconds, 3), 'valueType': new[1]}
        units = (('ns', 1e9), ('us', 1e6), ('ms', 1e3))
        fits = [unit for unit, scale in units if 0.001 < grown / seconds / scale <= 1.05]
        out.ok(key, value, note=f'its growth fits {fits[0]}' if fits else 'its growth tells no unit')


def powercap():
    zones = {}
    for path in sorted(glob.glob('/sys/class/powercap/*/energy_uj')):
        folder = os.path.dirname(path)
        zone = os.path.basename(folder)
        try:
            with open(path) as energy, open(os.path.join(folder, 'name')) as name:
                zones[zone] = {'name': name.read().strip(), 'microjoules': int(energy.read())}
        except (OSError, ValueError) as error:
            zones[zone] = {'error': str(error)}
    if not zones:
        raise nvml.NvmlError('missing', '/sys/class/powercap holds no zone with an energy counter')
    return zones


def static(device, out, uuid):
    """What does not depend on a load."""
    attempt(out, 'library', lambda: library.describe(os.environ['KW_LIBRARY']))
    for name, kind in (('graphics', c.c_int(0)), ('sm', c.c_int(1)), ('memory', c.c_int(2))):
        attempt(out, f'clock.{name}.max', lambda kind=kind: device.number('nvmlDeviceGetMaxClockInfo', kind), 'MHz')
    attempt(out, 'memoryBus', lambda: device.number('nvmlDeviceGetMemoryBusWidth'), 'bit')
    for field, name in ((ENERGY, 'energy'), (AVERAGE, 'averagePower'), (INSTANT, 'instantPower')):
        unit = 'mJ' if field == ENERGY else 'mW'
        for scope, text in enumerate(SCOPES):
            attempt(out, f'scope.{name}.{text}', lambda f=field, s=scope: device.field(f, s)[0], unit)

    def buffered():
        kind, samples = device.samples(0)
        spacing = [b[0] - a[0] for a, b in zip(samples, samples[1:])]
        return {
            'samples': len(samples),
            'valueType': kind,
            'spacingMs': statistics.median(spacing) / 1e3 if spacing else None,
            'seconds': (samples[-1][0] - samples[0][0]) / 1e6 if samples else None,
        }

    attempt(out, 'powerSamples', buffered)
    attempt(out, 'powercap', powercap)
    out.no('clockLock', 'not tried', "a run never changes the card's settings")
    if uuid is None:
        out.no('deviceMatch', 'unknown', "the library gave no UUID, so this is NVML's first GPU")


def phase(out, device, load, name, kind, window, settle):
    """One load, one window; returns its rows, or [] where it could not be."""
    try:
        what = load.switch(kind) if kind else 'no context of ours'
        time.sleep(settle)
        rows = poll(device, window)
        keep(name, rows)
    except nvml.NvmlError as error:
        out.no(f'power.{name}', error.state, error)
        return []
    found = watts(rows)
    if found:
        out.ok(f'power.{name}', found, note=what)
    else:
        out.no(f'power.{name}', 'no data', f'the energy counter moved fewer than 3 times in {window:.1f} s')
    latency = [row[1] for row in rows]
    if latency:
        found = {f'p{percent}': round(1e6 * quantile(latency, percent / 100), 1) for percent in (50, 99)}
        out.ok(f'latency.{name}', found, 'us')
    return rows


def main():
    out = items.Items(os.path.join(os.environ['KW_OUT'], 'meter.json'), 'kernwatt.gpu.meter/0')
    try:
        info = library.describe(os.environ['KW_LIBRARY'])
        uuid = None if info['emulated'] else info['uuid']
    except library.LibraryError:
        uuid = None
    load = Load()
    try:
        device = nvml.Nvml(uuid)
    except nvml.NvmlError as error:
        load.close()
        print(error)
        return MISSING
    # Five windows, each after a settling time that outlasts the one-second average; a load takes seconds to start.
    share = max(int(os.environ['KW_LIMIT']) - 10, 1) / 5
    window, settle = min(0.65 * share, 2.5), min(0.3 * share, 1.2)
    out.ok('nvml', device.path)
    rows = phase(out, device, load, 'idle', None, window, settle)
    static(device, out, uuid)
    phase(out, device, load, 'activeIdle', 'none', window, settle)
    attempt(out, 'processes', lambda: {'pids': device.processes(), 'ours': load.process.pid})
    phase(out, device, load, 'copy', 'copy', window, settle)
    before = throttle(device)
    busy = phase(out, device, load, 'gemm', 'gemm', window, settle)
    throttle_units(out, before, throttle(device))
    gpm(device, out)
    phase(out, device, load, 'gemmOfZeros', 'zeros', window, settle)
    load.close()
    for name, column in (('energy', 2), ('averagePower', 3), ('instantPower', 4)):
        for state, taken in (('idle', rows), ('gemm', busy)):
            facts = tick_facts(ticks(taken, column))
            if facts:
                out.ok(f'ticks.{name}.{state}', facts, 'quantum in mJ' if column == 2 else 'quantum in mW')
            else:
                out.no(f'ticks.{name}.{state}', 'no data', 'it changed fewer than 4 times')
    powers = {name: item['value'] for name, item in out.items.items() if name.startswith('power.') and item['value']}
    disputed = [name for name, value in powers.items() if value['disputed']]
    print(out.summary() + (f"; counter and readings disagree in {', '.join(disputed)}" if disputed else ''))
    return 0


sys.exit(main())
