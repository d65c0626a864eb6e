"""What a list of timings says, and the order in which they are taken: the estimators of src/measure/stats.ts,
interleave.ts, stop.ts and src/random.ts under the same names. test/peers/gpu.test.ts holds both to the same numbers."""
import math


class Stat(dict):
    """n, min, q1, median, mean, q3, p95, p99, max, sd, mad, ac1, nEffective, ci95Median, ci95Mean; see stats.ts."""


def quantile(ordered, p):
    """Quantile p of ascending values, interpolated linearly between order statistics (Hyndman and Fan's type 7)."""
    if not ordered:
        return math.nan
    at = p * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def median(values):
    return quantile(sorted(values), 0.5)


def mean(values):
    return sum(values) / len(values)


def median_rank(n):
    """Rank k (from 1) such that [x(k), x(n + 1 - k)] covers the median of n samples with at least 95 %; 0 below n =
    6."""
    log_term = -n * math.log(2)
    below = 0.0
    k = 0
    while k < n / 2:
        following = below + math.exp(log_term)
        if following > 0.025:
            break
        below = following
        k += 1
        log_term += math.log((n - k + 1) / k)
    return k


def _autocorrelation(values, lag, center, squares):
    if not squares > 0:
        return 0.0
    return sum((values[i] - center) * (values[i - lag] - center) for i in range(lag, len(values))) / squares


def inefficiency(values):
    """n / inefficiency samples are worth independent ones: 1 + 2 * (sum of the autocorrelations that stand out)."""
    n = len(values)
    if n < 4:
        return 1.0
    center = mean(values)
    squares = sum((value - center) ** 2 for value in values)
    floor = 2 / math.sqrt(n)
    total = 0.0
    lag = 1
    while lag < n / 2:
        r = _autocorrelation(values, lag, center, squares)
        if r < floor:
            break
        total += r
        lag += 1
    return 1 + 2 * total


def student_t95(degrees):
    """Two-sided 95 % quantile of Student's t; Cornish-Fisher expansion, within 0.5 % from 3 degrees of freedom."""
    if degrees < 1.5:
        return 12.706
    if degrees < 2.5:
        return 4.303
    z = 1.959964
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / degrees + g2 / degrees**2 + g3 / degrees**3 + g4 / degrees**4


def median_interval(ordered, n_effective):
    """Order-statistic interval of the median; dependence widens it as if only n_effective samples had been drawn."""
    n = len(ordered)
    exact = median_rank(n)
    if exact == 0:
        return None
    widening = math.sqrt(n / max(1, min(n, n_effective)))
    rank = math.floor((n + 1) / 2 - ((n + 1) / 2 - exact) * widening)
    # With so much dependence that even the extremes cannot carry 95 %, nothing is claimed.
    return None if rank < 1 else [ordered[rank - 1], ordered[n - rank]]


def summarize(samples):
    """Stat of samples in the order they were taken. ValueError on an empty list or a value that is not finite."""
    n = len(samples)
    if n == 0:
        raise ValueError('summarize: samples is empty, expected at least 1')
    for i, value in enumerate(samples):
        if not math.isfinite(value):
            raise ValueError(f'summarize: samples[{i}] is {value}, expected finite')
    ordered = sorted(samples)
    middle = quantile(ordered, 0.5)
    average = mean(samples)
    squares = sum((value - average) ** 2 for value in samples)
    sd = math.sqrt(squares / (n - 1)) if n > 1 else 0.0
    # The median's interval depends on which side of the median each sample fell, so that is what must be independent.
    n_effective = n / inefficiency([(value > middle) - (value < middle) for value in samples])
    n_mean = n / inefficiency(samples)
    half = student_t95(n_mean - 1) * sd / math.sqrt(n_mean) if n_mean > 2 else None
    return Stat(
        n=n,
        min=ordered[0],
        q1=quantile(ordered, 0.25),
        median=middle,
        mean=average,
        q3=quantile(ordered, 0.75),
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
        max=ordered[-1],
        sd=sd,
        mad=median([abs(value - middle) for value in samples]),
        ac1=_autocorrelation(samples, 1, average, squares),
        nEffective=n_effective,
        ci95Median=median_interval(ordered, n_effective),
        ci95Mean=None if half is None else [average - half, average + half],
    )


def relative_half_width(interval, center):
    """Half width of an interval over its centre; infinite without an interval or with a centre of 0."""
    return math.inf if interval is None or not center > 0 else (interval[1] - interval[0]) / 2 / center


def random_source(seed):
    """Numbers in [0, 1), the same as those of src/random.ts (mulberry32)."""
    state = (seed ^ (seed >> 32)) & 0xFFFFFFFF

    def following():
        nonlocal state
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        t = ((state ^ (state >> 15)) * (state | 1)) & 0xFFFFFFFF
        t ^= (t + (((t ^ (t >> 7)) * (t | 61)) & 0xFFFFFFFF)) & 0xFFFFFFFF
        return (t ^ (t >> 14)) / 2**32

    return following


def mirrored_blocks(cases, blocks, following):
    """Order of samples: each block is a random permutation of the cases and its mirror image (A B B A), so that within
    a block every case has the same mean position and a linear drift cancels."""
    order = []
    for _ in range(blocks):
        forward = list(range(cases))
        for i in range(cases - 1, 0, -1):
            j = math.floor(following() * (i + 1))
            forward[i], forward[j] = forward[j], forward[i]
        order += forward + forward[::-1]
    return order


class Interleaved:
    """Samples by case, and for each block the mean of a case's two samples."""

    def __init__(self, cases):
        self.cases = cases
        self.samples = [[] for _ in range(cases)]
        self._blocks = [[] for _ in range(cases)]

    def add(self, order, seconds):
        """Adds whole blocks: seconds[i] belongs to case order[i]."""
        size = 2 * self.cases
        for start in range(0, len(order), size):
            pairs = [[] for _ in range(self.cases)]
            for i in range(start, start + size):
                pairs[order[i]].append(seconds[i])
                self.samples[order[i]].append(seconds[i])
            for case, pair in enumerate(pairs):
                self._blocks[case].append(mean(pair))

    @property
    def blocks(self):
        return len(self._blocks[0])

    def ratios(self, one, baseline):
        """For each block, the time of `one` over the time of `baseline`."""
        return [a / b for a, b in zip(self._blocks[one], self._blocks[baseline])]


NOISE_ROUNDS = 8
NOISE_TOLERANCE = 0.05


def spread(stat):
    """Interquartile range over the median: a spread that one stray sample cannot move."""
    return (stat['q3'] - stat['q1']) / stat['median'] if stat['median'] > 0 else 0.0


def settled(spreads):
    """Whether the last rounds' spreads differ by less than 5 % of their middle value."""
    if len(spreads) < NOISE_ROUNDS:
        return False
    recent = sorted(spreads[-NOISE_ROUNDS:])
    return recent[-1] - recent[0] <= NOISE_TOLERANCE * quantile(recent, 0.5)


def decide(stat, measured_seconds, elapsed_seconds, spreads, rule):
    """The rule that ends the measurement now ('precision', 'noise', 'time'), or None to go on. rule: minSamples,
    minSeconds, target, maxSeconds as in stop.ts."""
    if stat is not None and stat['n'] >= rule['minSamples'] and measured_seconds >= rule['minSeconds']:
        width = relative_half_width(stat['ci95Median'], stat['median'])
        if width <= rule['target']:
            return 'precision'
        # The interval narrows as 1 / sqrt(time): what would be reached if every remaining second were spent.
        best = width * math.sqrt(elapsed_seconds / rule['maxSeconds'])
        if best > rule['target'] and settled(spreads):
            return 'noise'
    return 'time' if elapsed_seconds >= rule['maxSeconds'] else None
