"""Device time. A sample is one launch of a CUDA graph of n calls between two events, divided by n: neither Python nor
the launch of a kernel is in it. The samples of a round are queued together, so the device never waits for this
process."""
import math
import time

from .stats import Interleaved, decide, median, mirrored_blocks, random_source, spread, summarize

SAMPLE_SECONDS = 1e-3
ROUND_SECONDS = 0.1
MOST_CALLS = 4096
WARM_SECONDS = 0.1
METHOD = (
    'median over blocks of the ratio of times within a block (each case twice, in mirrored random order); '
    'order-statistic interval'
)


class GraphClock:
    """Times calls that take an operand set. Every sample visits the sets in order from the first, a whole number of
    times."""

    def __init__(self, machine, calls, sets):
        self._torch, self._machine = machine.torch, machine
        self._calls, self._sets = calls, sets
        self._graphs = [None] * len(calls)
        self.calls_per_sample = [0] * len(calls)

    def _capture(self, which, count):
        torch = self._torch
        self._graphs[which] = None  # gives its memory back before the next one takes some
        graph = torch.cuda.CUDAGraph()
        results = [None] * len(self._sets)  # kept, so that results rotate as operands do
        with torch.cuda.graph(graph, stream=self._machine.lane, capture_error_mode='thread_local'):
            for i in range(count):
                results[i % len(self._sets)] = self._calls[which](self._sets[i % len(self._sets)])
        self._graphs[which] = (graph, results)
        self.calls_per_sample[which] = count

    def calibrate(self, which):
        """Finds how many calls make a sample, and returns seconds of one call. The call has run before."""
        sets = len(self._sets)
        self._capture(which, sets)
        self.round([which])
        per_call = median(self.round([which] * 3))
        passes = max(1, math.ceil(SAMPLE_SECONDS / max(per_call * sets, 1e-9)))
        count = sets * min(passes, max(1, MOST_CALLS // sets))
        if count > sets:
            self._capture(which, count)
            per_call = median(self.round([which] * 3))
        return per_call

    def round(self, order):
        """Seconds per call of each sample, in this order. An untimed launch goes first, so that none starts on an idle
        device."""
        torch = self._torch
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in order]
        with torch.cuda.stream(self._machine.lane):
            self._graphs[order[0]][0].replay()
            for which, (start, end) in zip(order, events):
                start.record(self._machine.lane)
                self._graphs[which][0].replay()
                end.record(self._machine.lane)
        self._machine.lane.synchronize()
        return [
            start.elapsed_time(end) * 1e-3 / self.calls_per_sample[which] for which, (start, end) in zip(order, events)
        ]


def interleave(clock, names, baseline, rule, seed, now=time.perf_counter):
    """Times all in turns until every ratio to `baseline` (an index, or None: the times themselves) is known as well as
    `rule` asks. Gives the samples, a clock record for each (src/schema/measure.json), and what comparison() needs."""
    started = now()
    per_call = [clock.calibrate(i) for i in range(len(names))]
    block_seconds = sum(2 * calls * seconds for calls, seconds in zip(clock.calls_per_sample, per_call))
    while now() - started < WARM_SECONDS:
        clock.round(list(range(len(names))))
    following = random_source(seed)
    seen = Interleaved(len(names))
    judged = [i for i in range(len(names)) if i != baseline] or [0]
    spreads = [[] for _ in judged]
    measured = 0.0
    while True:
        aim = max(ROUND_SECONDS, measured / 8)
        blocks = min(1024, max(1, round(aim / block_seconds)))
        order = mirrored_blocks(len(names), blocks, following)
        seconds = clock.round(order)
        seen.add(order, seconds)
        measured += sum(value * clock.calls_per_sample[which] for which, value in zip(order, seconds))
        elapsed = now() - started
        reasons = []
        for i, widths in zip(judged, spreads):
            alone = baseline is None or i == baseline
            stat = summarize(seen.samples[i] if alone else seen.ratios(i, baseline))
            widths.append(spread(stat))
            reasons.append(decide(stat, measured, elapsed, widths, rule))
        if None in reasons:
            continue
        # The run is as good as its worst ratio.
        fired = next((one for one in ('time', 'noise') if one in reasons), 'precision')
        stop = {
            'rule': fired,
            'converged': fired == 'precision',
            'target': rule['target'],
            'measuredSeconds': measured,
            'elapsedSeconds': elapsed,
        }
        records = [
            {**summarize(samples), 'callsPerSample': calls, 'stop': stop, 'stolenSamples': None}
            for samples, calls in zip(seen.samples, clock.calls_per_sample)
        ]
        return seen, records


def comparison(seen, records, one, baseline, name, seed):
    """Time of `one` over time of `baseline`, which has this name: below 1 is faster."""
    stat = summarize(seen.ratios(one, baseline))
    return {
        'baseline': name,
        'clock': 'device',
        'ratio': stat['median'],
        'ci95': stat['ci95Median'],
        'ratioOfMedians': records[one]['median'] / records[baseline]['median'],
        'blocks': seen.blocks,
        'seed': seed,
        'method': METHOD,
    }
