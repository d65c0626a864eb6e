"""One case from buffers to records: allocate, bind, compare results, time, write. A record (schema.json) is one case
with one peer, timed or with the reason why not."""
import contextlib
import datetime
import gc
import math
import uuid
import warnings

from . import clock
from .abi import LibraryError, Plan, view
from .check import Definition, between, verdict
from .machine import strides
from .peers import Declined, peers_of
from .telemetry import Watch

SCHEMA = 'kernwatt.peers-gpu/0'
# Copies should span this many times the last-level cache; from the second figure on they count as cold
# (src/measure/rotation.ts).
WANTED_FACTOR, COLD_FACTOR = 5, 2
ABOVE_PEAK = 1.05
RULE = {'minSamples': 10, 'minSeconds': 0.2, 'target': 0.01}


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class DeviceLost(Exception):
    """The device answers no more, so that nothing further can be measured in this process."""


class Run:
    """What the cases of one run share: the machine, what is known of it, the ceilings found so far, and where lines
    go."""

    def __init__(self, machine, meter, environment, seed, write):
        self.machine, self.meter, self.environment, self.seed, self.write = machine, meter, environment, seed, write
        self.id = str(uuid.uuid4())
        self.ceilings = []
        self.counts = {}
        self._told = set()

    def emit(self, case, state, reason, peer, flags=(), **known):
        """Writes a record. What is not known stays null."""
        record = {
            'schema': SCHEMA,
            'id': str(uuid.uuid4()),
            'runId': self.id,
            'createdAt': datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%dT%H:%M:%S.%f')[:-3] + 'Z',
            'state': state,
            'reason': reason,
            'flags': sorted(flags),
            'case': {
                'name': case.name,
                'op': case.op,
                'cache': case.cache,
                'shape': case.dims,
                'dtype': {one.name: one.dtype for one in case.operands},
                'args': case.args,
                'inputs': {one.name: {'distribution': 'uniform' if one.dtype == 'u4' else 'normal', 'seed': self.seed + i}
                           for i, one in enumerate(case.operands) if not one.written},
            },
            'work': {'flops': case.flops, 'minBytes': case.bytes},
            'peer': {'name': peer.name, 'call': peer.call},
            **{name: known.get(name) for name in (
                'kernel', 'correctness', 'time', 'samples', 'comparison', 'rate', 'utilisation', 'telemetry'
            )},
            'env': self.environment,
        }
        self.write(record)
        self.counts[state] = self.counts.get(state, 0) + 1
        self._told.add((case.name, peer.name))

    def without_times(self, case, state, reason, **known):
        """The same for every peer of a case that has no record yet."""
        for peer in peers_of(case):
            if (case.name, peer.name) not in self._told:
                self.emit(case, state, reason, peer, **known)

    def case(self, case, seconds):
        """Does one case within about `seconds`. DeviceLost when nothing further can be done."""
        try:
            with contextlib.ExitStack() as stack:
                Trial(self, case, stack).run(seconds)
        except LibraryError as error:
            state = 'declined' if error.code in ('UNSUPPORTED', 'OUT_OF_MEMORY') else 'failed'
            self.without_times(case, state, first_line(error))
        except DeviceLost:
            raise
        except Exception as error:
            state = 'declined' if type(error).__name__ == 'OutOfMemoryError' else 'failed'
            self.without_times(case, state, f'{type(error).__name__}: {first_line(error)}')
        finally:
            gc.collect()
        try:
            self.machine.synchronize()
            self.machine.release()
        except Exception as error:
            raise DeviceLost(first_line(error)) from None


class Trial:
    """One case on its way through."""

    def __init__(self, run, case, stack):
        self.run_, self.case, self.machine = run, case, run.machine
        machine = run.machine
        llc = machine.info.llc_bytes or None
        copies = 1
        if case.cache == 'cold':
            # Two where no cache is known, so that an emulated device rotates too.
            wanted = math.ceil(WANTED_FACTOR * llc / case.bytes) + 1 if llc else 2
            copies = max(1, min(wanted, machine.free_bytes() // 4 // case.bytes))
        self.sets = [self._operands(copy) for copy in range(copies)]
        cold = llc is not None and copies * case.bytes >= COLD_FACTOR * llc
        self.cache = {
            'cache': 'hot' if case.cache == 'hot' else 'cold' if cold else 'warm',
            'coldBytes': copies * case.bytes if case.cache == 'cold' else None,
            'copies': copies,
            'llcBytes': llc,
        }
        self.plans, self.kernel, self._workspaces = [], None, []
        self._last = None  # our result for the last set, where there are several
        if case.ours:
            for operands in self.sets:
                plan = Plan(machine.library, machine.info, case.op, self._arguments(operands), self._workspace)
                stack.callback(plan.close)
                self.plans.append(plan)
        stack.callback(machine.synchronize)

    def _operands(self, copy):
        """One set: the same distributions, other values in each copy."""
        made = {}
        for i, one in enumerate(self.case.operands):
            if one.written:
                made[one.name] = self.machine.empty(one.shape, one.dtype)
            else:
                made[one.name] = self.machine.random(one.shape, one.dtype, self.run_.seed + i + 1000 * copy)
        return made

    def _arguments(self, operands):
        views = {
            one.name: view(operands[one.name].data_ptr(), one.dtype, one.shape, strides(one.shape))
            for one in self.case.operands
        }
        return self.machine.library.arguments(self.case.op, {**views, **self.case.args})

    def _workspace(self, count):
        """Bytes that live as long as the trial."""
        self._workspaces.append(self.machine.empty((math.ceil(count / 4),), 'f32'))
        return self._workspaces[-1].data_ptr()

    def _ours(self, operands):
        self.plans[next(i for i, one in enumerate(self.sets) if one is operands)].enqueue(self.machine.stream)
        return operands['y']

    def _result(self, call, operands):
        """What a call gives, in memory that was NaN before, so that an element nobody wrote shows."""
        for one in self.case.operands:
            if one.written:
                operands[one.name].fill_(math.nan)
        self.machine.synchronize()
        result = call(operands)
        self.machine.synchronize()
        return result

    def run(self, seconds):
        run, case, operands = self.run_, self.case, self.sets[0]
        definition = Definition(self.machine, case, operands, run.seed)
        ours, judged = None, None
        if case.ours:
            ours, broke = self._trace()
            judged = None if broke else definition.judge(ours)
            reason = f'kernwatt: {broke}' if broke else verdict(judged, None, None)
            if reason is not None:
                correctness = None if broke else self._correctness(definition, reason, judged, None, None)
                return run.without_times(case, 'failed', reason, kernel=self.kernel, correctness=correctness)
            if len(self.sets) > 1:
                self._last = self._result(self._ours, self.sets[-1]).clone()
        right = []
        for peer in peers_of(case):
            call, correctness = self._compare(peer, definition, operands, ours, judged)
            if call is None:
                continue
            if self.machine.emulated:
                run.emit(case, 'emulated', 'an emulated device is never timed', peer,
                         kernel=self.kernel, correctness=correctness)
            else:
                right.append((peer, call, correctness))
        if right:
            self._time(right, ours, seconds)

    def _trace(self):
        """Our result, or why there is none, and on the way which kernels it takes."""
        results, broke = [], []

        def attempt():
            try:
                results.append(self._result(self._ours, self.sets[0]).clone())
            except Exception as error:
                broke.append(first_line(error))

        symbols = self.machine.library.trace(attempt)
        self.kernel = {
            'explain': self.plans[0].explain(),
            'workspaceBytes': self.plans[0].workspace_bytes,
            'symbols': symbols,
        }
        return (None, broke[0]) if broke else (results[0], None)

    def _correctness(self, definition, reason, ours, peer, difference):
        return {
            'state': 'passed' if reason is None else 'failed',
            'reason': reason,
            'seed': definition.seed,
            'ours': ours,
            'peer': peer,
            'between': difference,
        }

    def _compare(self, peer, definition, operands, ours, judged):
        """The peer's call and that it is right; a record and None when it declines or is wrong."""
        run, case = self.run_, self.case
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            try:
                call = peer.make(self.machine.torch, case)
                result = self._result(call, operands)
                for one in self.sets[1:-1]:  # what a peer prepares for each set must be there before a graph captures
                    call(one)
                last = None if self._last is None else self._result(call, self.sets[-1])
            except (Declined, ImportError, NotImplementedError, RuntimeError) as error:
                why = '; '.join(dict.fromkeys([first_line(error), *(first_line(one.message) for one in said)]))
                self._decline(peer, why)
                return None, None
        theirs = definition.judge(result, peer.name)
        difference = None if ours is None else between(case, ours, result)
        if last is not None:
            worse = lambda one: math.inf if one['relative'] is None else one['relative']
            difference = max(difference, between(case, self._last, last), key=worse)
        reason = verdict(judged, theirs, difference)
        correctness = self._correctness(definition, reason, judged, theirs, difference)
        if reason is not None:
            run.emit(case, 'failed', f'{peer.name}: {reason}', peer, kernel=self.kernel, correctness=correctness)
            return None, None
        if not self.machine.emulated:
            try:  # alone, so that one that no graph takes does not end the measurement of the others
                clock.GraphClock(self.machine, [call], self.sets).calibrate(0)
            except RuntimeError as error:
                self._decline(peer, f'no CUDA graph takes it: {first_line(error)}')
                return None, None
        return call, correctness

    def _decline(self, peer, why):
        """Writes that a peer does not do this case; DeviceLost if it took the device with it."""
        try:
            self.machine.synchronize()
        except Exception as lost:
            self.run_.emit(self.case, 'failed', f'{peer.name}: {first_line(lost)}', peer, kernel=self.kernel)
            raise DeviceLost(first_line(lost)) from None
        self.run_.emit(self.case, 'declined', f'{peer.name}: {why}', peer, kernel=self.kernel)

    def _time(self, right, ours, seconds):
        run, case = self.run_, self.case
        calls = ([self._ours] if case.ours else []) + [call for _, call, _ in right]
        names = (['kernwatt'] if case.ours else []) + [peer.name for peer, _, _ in right]
        baseline = 0 if case.ours else None
        with Watch(run.meter) as watch:
            graphs = clock.GraphClock(self.machine, calls, self.sets)
            seen, records = clock.interleave(graphs, names, baseline, {**RULE, 'maxSeconds': seconds}, run.seed)
        telemetry = watch.summary()
        if case.ours:
            again = self._result(self._ours, self.sets[0])
            if not self.machine.torch.equal(again, ours):
                reason = 'kernwatt: y after the measurement differs from y before'
                for peer, _, correctness in right:
                    run.emit(case, 'failed', reason, peer, kernel=self.kernel, telemetry=telemetry,
                             correctness={**correctness, 'state': 'failed', 'reason': reason})
                return
        self._find_ceilings(names, records)
        for at, (peer, _, correctness) in enumerate(right, 1 if case.ours else 0):
            lanes = {'ours': 0 if case.ours else None, 'peer': at}
            times = {who: None if lane is None else records[lane] for who, lane in lanes.items()}
            utilisation = {who: time and self._utilisation(time['median']) for who, time in times.items()}
            flags = {
                *([] if records[at]['stop']['converged'] else ['not-converged']),
                *(['cold-not-reached'] if self.cache['cache'] == 'warm' else []),
                *(['throttled'] if telemetry['during'] and telemetry['during']['throttled'] else []),
                *(['above-peak'] if any(
                    one and (one[kind]['value'] or 0) > ABOVE_PEAK
                    for one in utilisation.values() for kind in ('ofPeakFlops', 'ofPeakBandwidth')
                ) else []),
            }
            run.emit(
                case, 'measured', None, peer, flags, kernel=self.kernel, correctness=correctness,
                time={**self.cache, **times},
                samples={who: None if lane is None else seen.samples[lane] for who, lane in lanes.items()},
                comparison=clock.comparison(seen, records, 0, at, peer.name, run.seed) if case.ours else None,
                rate={who: time and self._rate(time['median']) for who, time in times.items()},
                utilisation={'peaks': list(run.ceilings), **utilisation},
                telemetry=telemetry,
            )

    def _rate(self, seconds):
        return {'flopsPerSecond': self.case.flops / seconds, 'bytesPerSecond': self.case.bytes / seconds}

    def _find_ceilings(self, names, records):
        """A ceiling is the median rate of the fastest here; later cases are held against the largest of its kind."""
        case = self.case
        if case.ceiling is None:
            return
        name, median = min(zip(names, (one['median'] for one in records)), key=lambda one: one[1])
        rate = self._rate(median)
        flops = case.ceiling == 'flops'
        self.run_.ceilings.append({
            'kind': case.ceiling,
            'name': f'{case.op}_{case.dtype}' if flops else case.op,
            'value': rate['flopsPerSecond' if flops else 'bytesPerSecond'],
            'unit': 'FLOP/s' if flops else 'B/s',
            'source': 'empirical',
            'provenance': f'{name}, {case.name}, median of this run',
        })

    def _utilisation(self, seconds):
        """Shares of the ceilings of this run: of what is computed with this dtype, and of memory."""
        rate = self._rate(seconds)
        shares = {}
        for share, kind, of, what in (
            ('ofPeakFlops', 'flops', 'flopsPerSecond', f'gemm_{self.case.dtype}'),
            ('ofPeakBandwidth', 'bandwidth', 'bytesPerSecond', None),
        ):
            known = [one for one in self.run_.ceilings if one['kind'] == kind and what in (None, one['name'])]
            best = max(known, key=lambda one: one['value'], default=None)
            if best is None or rate[of] == 0:
                none = f'no {what or kind} ceiling was measured before it'
                reason = 'this case computes nothing' if rate[of] == 0 else none
                shares[share] = {'value': None, 'unit': '1', 'state': 'unavailable', 'reason': reason}
            else:
                basis = f'{best["name"]}: {best["provenance"]}'
                shares[share] = {'value': rate[of] / best['value'], 'unit': '1', 'state': 'ok', 'basis': basis}
        return shares
