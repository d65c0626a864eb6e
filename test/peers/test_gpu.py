"""Pure parts of bench/peers/gpu: layouts, tolerances, the clock and the meter. Run by gpu.test.ts with the stub
torch."""
import ctypes
import math
import types
import unittest

import torch

from gpu import abi, check, clock, telemetry
from gpu.cases import cases, decode, gemm, gemm_int4, prefill, tiny
from gpu.machine import ITEM_BYTES, TORCH_DTYPES, stored
from gpu.peers import Declined, peers_of
from gpu.stats import random_source

HOST = types.SimpleNamespace(torch=torch, dtype=lambda name: getattr(torch, TORCH_DTYPES[name]))


def operands(case):
    made = {}
    for seed, one in enumerate(case.operands):
        generator = torch.Generator(device='cpu')
        generator.manual_seed(seed)
        memory = (ctypes.c_char * int(ITEM_BYTES[one.dtype] * math.prod(one.shape)))()
        tensor = torch.frombuffer(memory, dtype=HOST.dtype(one.dtype)).view(*stored(one.shape, one.dtype))
        fill = tensor.random_ if one.dtype == 'u4' else tensor.normal_
        made[one.name] = tensor.fill_(math.nan) if one.written else fill(generator=generator)
    return made


class Layout(unittest.TestCase):
    def test_a_struct_that_lies_otherwise_is_refused(self):
        described = abi.LAYOUT['structs']['gemm']['members']['alpha']
        described['offset'] += 4
        try:
            with self.assertRaisesRegex(AssertionError, r'gemm.alpha is not at byte \d+'):
                abi.structure('gemm')
        finally:
            described['offset'] -= 4

    def test_a_view_holds_what_it_was_given(self):
        view = abi.view(4096, 'bf16', (3, 5), (8, 1))
        self.assertEqual((view.data, abi.DTYPES[view.dtype], view.rank), (4096, 'bf16', 2))
        self.assertEqual((list(view.shape[:3]), list(view.stride[:3])), ([3, 5, 0], [8, 1, 0]))


class Results(unittest.TestCase):
    def right(self, case, name):
        s = operands(case)
        peer = next(one for one in peers_of(case) if one.name == name)
        return check.Definition(HOST, case, s, 1), peer.make(torch, case)(s)

    def test_every_kind_of_case_passes_and_its_faults_do_not(self):
        for case, name in [
            (gemm(17, 24, 40, 'bf16'), 'cublas'),
            (gemm(5, 9, 16, 'f32'), 'cublas'),
            (gemm_int4(5, 8, 64, 'bf16', group=32), 'cublas_dequantised'),
            (prefill(1, 10, 4, 2, 'bf16', dim=32), 'sdpa_math'),
            (decode(2, 33, 4, 2, 'f16', dim=32), 'sdpa_math'),
        ]:
            definition, y = self.right(case, name)
            good = definition.judge(y)
            self.assertIsNone(check.verdict(good, good, check.between(case, y, y.clone())), case.name)
            self.assertLessEqual(good['worst'], 1)
            place = (0,) * len(y.shape)
            before = y[place].item()
            step = 8 * check.EPS[case.dtype] * max(1, abs(before)) * (64 if case.dtype == 'f32' else 1)
            for wrong in (before + step, math.nan, math.inf):
                y[place].fill_(wrong)
                bad = definition.judge(y)
                self.assertEqual(bad['failed'], 1, (case.name, wrong))
                self.assertIn('outside the tolerance', check.verdict(bad, None, None))
            y[place].fill_(before)

    def test_results_that_nobody_sampled_are_compared_by_norm(self):
        case = gemm(64, 16, 16, 'bf16')
        definition, y = self.right(case, 'cublas')
        other = y.clone()
        row = next(i for i in range(64) if (i,) not in [place for place, _, _ in definition._rows])
        other[row].fill_(0)
        self.assertEqual(definition.judge(other)['failed'], 0)
        self.assertIn('differ by', check.verdict(None, None, check.between(case, other, y)))
        other[row].fill_(math.nan)
        self.assertIn('differ by', check.verdict(None, None, check.between(case, other, y)))

    def test_reads_and_copies(self):
        for case in tiny()[:2]:
            s = operands(case)
            for peer in peers_of(case):
                result = peer.make(torch, case)(s)
                definition = check.Definition(HOST, case, s, 1)
                self.assertEqual(definition.judge(result, peer.name)['failed'], 0, peer.name)
                self.assertEqual(definition.judge(result * 1.01, peer.name)['failed'], result.numel(), peer.name)

    def test_sampled_rows_hold_both_ends(self):
        self.assertEqual(check.sampled(1, 8, 1), [0])
        rows = check.sampled(1000, 8, 1)
        self.assertEqual((rows[0], rows[-1], rows == sorted(set(rows))), (0, 999, True))

    def test_a_mask_that_means_another_thing_is_declined(self):
        case = prefill(1, 16, 2, 2, 'bf16')
        case.dims['lenQ'] = 8
        for peer in peers_of(case):
            with self.assertRaisesRegex(Declined, 'top left'):
                peer.make(torch, case)

    def test_names_are_unique(self):
        for some in (cases(), tiny()):
            self.assertEqual(len({one.name for one in some}), len(some))


class Simulated:
    """Calls of the given seconds; `drift` is added with every sample."""

    def __init__(self, seconds, drift=0.0):
        self.seconds, self.drift, self.time = seconds, drift, 0.0
        self.calls_per_sample = [1] * len(seconds)
        self.random = random_source(1)

    def calibrate(self, which):
        self.time += self.seconds[which]
        return self.seconds[which]

    def round(self, order):
        taken = []
        for which in order:
            self.drift_now = self.drift * self.time
            taken.append(self.seconds[which] * (1 + self.drift_now) * (0.99 + 0.02 * self.random()))
            self.time += taken[-1]
        return taken


class Interleaving(unittest.TestCase):
    rule = {'minSamples': 10, 'minSeconds': 0.2, 'target': 0.01, 'maxSeconds': 5}

    def run_(self, simulated, rule=None):
        names = ['kernwatt', 'peer'][: len(simulated.seconds)]
        baseline = 0 if len(names) > 1 else None
        return clock.interleave(simulated, names, baseline, rule or self.rule, 7, now=lambda: simulated.time)

    def test_the_ratio_survives_a_drift_that_medians_do_not(self):
        seen, records = self.run_(Simulated([0.004, 0.002], drift=0.5))
        told = clock.comparison(seen, records, 0, 1, 'peer', 7)
        self.assertLess(told['ci95'][0], 2)
        self.assertGreater(told['ci95'][1], 2)
        self.assertAlmostEqual(told['ratio'], 2, delta=0.02)
        self.assertEqual(len(seen.samples[0]), 2 * told['blocks'])
        self.assertTrue(records[0]['stop']['converged'])

    def test_the_deadline_ends_it_and_says_so(self):
        _, records = self.run_(Simulated([0.004, 0.002]), {**self.rule, 'target': 1e-9, 'maxSeconds': 0.5})
        self.assertEqual((records[0]['stop']['rule'], records[0]['stop']['converged']), ('time', False))

    def test_one_alone_is_timed_too(self):
        seen, records = self.run_(Simulated([0.003]))
        self.assertAlmostEqual(records[0]['median'], 0.003, delta=1e-4)
        self.assertEqual(records[0]['n'], len(seen.samples[0]))


class FakeCuda:
    """torch.cuda as far as graphs go: time passes as calls are replayed, a millisecond each."""

    def __init__(self):
        fake, self.now, self.recording, self.log = self, 0.0, None, []

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self, lane):
                fake.log.append('event')
                self.at = fake.now

            def elapsed_time(self, end):
                assert fake.log[-1] == 'synchronize'
                return end.at - self.at

        class CUDAGraph:
            def __init__(self):
                self.count = 0

            def replay(self):
                fake.log.append(('replay', self.count))
                fake.now += self.count * 1.0

        class graph:
            def __init__(self, made, stream, capture_error_mode):
                assert capture_error_mode == 'thread_local'
                self.made = made

            def __enter__(self):
                fake.recording = self.made

            def __exit__(self, *_):
                fake.recording = None

        self.Event, self.CUDAGraph, self.graph = Event, CUDAGraph, graph
        self.stream = lambda lane: __import__('contextlib').nullcontext()


class Graphs(unittest.TestCase):
    def test_a_sample_is_a_graph_of_whole_rotations(self):
        fake = FakeCuda()
        lane = types.SimpleNamespace(synchronize=lambda: fake.log.append('synchronize'))
        machine = types.SimpleNamespace(torch=types.SimpleNamespace(cuda=fake), lane=lane)
        visited = []

        def call(one):
            visited.append(one)
            fake.recording.count += 1

        timed = clock.GraphClock(machine, [call], ['a', 'b', 'c'])
        self.assertAlmostEqual(timed.calibrate(0), 1e-3)
        self.assertEqual(timed.calls_per_sample, [3])
        self.assertEqual(visited, ['a', 'b', 'c'])
        clock.SAMPLE_SECONDS, before = 7e-3, clock.SAMPLE_SECONDS
        try:
            timed.calibrate(0)
        finally:
            clock.SAMPLE_SECONDS = before
        self.assertEqual(timed.calls_per_sample, [9])
        fake.log.clear()
        self.assertEqual([round(one, 9) for one in timed.round([0, 0])], [1e-3, 1e-3])
        replay = ('replay', 9)
        self.assertEqual(fake.log, [replay, 'event', replay, 'event', 'event', replay, 'event', 'synchronize'])


class FakeNvml:
    class NvmlError(Exception):
        pass

    def __init__(self, **numbers):
        self.numbers = numbers
        self.Nvml = lambda uuid: self.opened(uuid)

    def opened(self, uuid):
        if uuid != 'GPU-1':
            raise self.NvmlError(f'no {uuid}')
        return self

    def string(self, name, device):
        return '580.1'

    def number(self, name, *taken, kind):
        if name not in self.numbers:
            raise self.NvmlError(name)
        return self.numbers[name]


class Telemetry(unittest.TestCase):
    def test_readings_are_in_si_units_and_what_is_missing_is_none(self):
        nvml = FakeNvml(nvmlDeviceGetClockInfo=1980, nvmlDeviceGetPowerUsage=650000,
                        nvmlDeviceGetCurrentClocksThrottleReasons=0x5)
        meter = telemetry.Meter('GPU-1', nvml)
        expected = {'smClockHz': 1980e6, 'memoryClockHz': 1980e6, 'powerW': 650.0, 'temperatureC': None,
                    'throttled': ['sw-power-cap']}
        self.assertEqual(meter.read(), expected)
        with telemetry.Watch(meter) as watch:
            watch._ended.wait(4 * telemetry.PERIOD_SECONDS)
        told = watch.summary()
        self.assertEqual((told['before'], told['after'], told['source']), (expected, expected, 'nvml'))
        self.assertGreaterEqual(told['during']['n'], 1)
        self.assertEqual(told['during']['powerW'], {'min': 650.0, 'median': 650.0, 'max': 650.0})
        self.assertEqual((told['during']['temperatureC'], told['during']['throttled']), (None, ['sw-power-cap']))

    def test_no_meter_says_why(self):
        with telemetry.Watch(telemetry.Meter('GPU-2', FakeNvml())) as watch:
            pass
        expected = {'source': None, 'reason': 'no GPU-2', 'before': None, 'during': None, 'after': None}
        self.assertEqual(watch.summary(), expected)


if __name__ == '__main__':
    unittest.main()
