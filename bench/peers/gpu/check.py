"""Whether results are right, before anything is timed: sampled rows against the definition in float64, within the
tolerance that the operator's header states, and all of ours against all of the peer's by the norm of the difference.

The header allows |y - ref| <= 2 |plain - ref| + 1 ulp + slack, where plain is rounded on the way. Here plain is the
reference rounded once, and an ulp is at most eps |ref|."""
import math

from .stats import random_source

U = 2.0**-24
EPS = {'f32': 2.0**-23, 'f16': 2.0**-10, 'bf16': 2.0**-7}
SMALLEST = {'f32': 2.0**-149, 'f16': 2.0**-24, 'bf16': 2.0**-133}
# No peer promises our tolerance. Four times as much still tells a wrong result from another order of summation.
PEER_FACTOR = 4


def sampled(count, wanted, seed):
    """Up to `wanted` of count indices: both ends and random ones between."""
    following = random_source(seed)
    chosen = {0, count - 1} | {math.floor(following() * count) for _ in range(wanted - 2)}
    return sorted(chosen)


def _tolerance(machine, case, value, slack):
    rounded = value.to(machine.dtype(case.dtype)).double()
    return 2 * (rounded - value).abs() + EPS[case.dtype] * value.abs() + slack + SMALLEST[case.dtype]


def _gemm_rows(machine, case, s, seed):
    """For sampled rows: the exact row, what each element may deviate, and where it lies in y."""
    w = s['w'].double()
    largest = w.abs().amax()
    for i in sampled(case.dims['m'], 8, seed):
        x = s['x'][i].double()
        value = w @ x
        slack = 16 * math.sqrt(case.dims['k']) * U * x.abs().amax() * largest
        yield (i,), value, _tolerance(machine, case, value, slack)


def weights(torch, s):
    """ŵ of a set of gemm_int4 in float64: codes less 8, times the scale of their group."""
    rows, half = s['w'].shape
    codes = torch.stack((s['w'] & 15, s['w'] >> 4), dim=2).view(rows, 2 * half).double()
    return (codes - 8) * s['scales'].t().double().repeat_interleave(2 * half // s['scales'].shape[0], dim=1)


def _gemm_int4_rows(machine, case, s, seed):
    """As of gemm; plain rounds ŵ to the dtype of x."""
    w = weights(machine.torch, s)
    rounded = w.to(machine.dtype(case.dtype)).double()
    largest = w.abs().amax()
    for i in sampled(case.dims['m'], 8, seed):
        x = s['x'][i].double()
        value = w @ x
        slack = 16 * math.sqrt(case.dims['k']) * U * x.abs().amax() * largest + 2 * (rounded @ x - value).abs()
        yield (i,), value, _tolerance(machine, case, value, slack)


def _attention_rows(machine, case, s, seed):
    d, scale = case.dims, case.args['scale']
    group = d['headsQ'] // d['headsKv']
    for flat in sampled(d['batch'] * d['lenQ'] * d['headsQ'], 16, seed):
        h = flat % d['headsQ']
        i = flat // d['headsQ'] % d['lenQ']
        b = flat // d['headsQ'] // d['lenQ']
        n = d['lenKv'] - d['lenQ'] + i + 1 if case.args['causal'] else d['lenKv']
        q = s['q'][b, i, h].double()
        k, v = s['k'][b, :n, h // group].double(), s['v'][b, :n, h // group].double()
        t = scale * (k @ q)
        largest = t.amax()
        p = (t - largest).exp()
        total = p.sum()
        w = p / total
        value = w @ v
        e = 4 * U * (math.sqrt(d['dim']) * scale * (k * q).abs().amax(dim=1) + t.abs() + (t - largest).abs() + 1)
        slack = 4 * U * math.sqrt(n) * v.abs().amax() + (w * e) @ (v - value).abs()
        if case.dtype != 'f32':
            r = w * 2.0**-9 if case.dtype == 'bf16' else (w * 2.0**-12).clamp(min=2.0**-25 / total.item())
            slack = slack + 4 * ((r * r) @ (v * v)).sqrt()
        yield (b, i, h), value, _tolerance(machine, case, value, slack)


def _copied(machine, case, s, seed):
    source = s['source'].double()
    yield (), source, source.abs() * 0 + SMALLEST['f32']


def _read(machine, case, s, seed):
    """Of the two ways to read, amax is exact; the sum may deviate as sums of `count` terms do."""
    source = s['source'].double()
    yield (), source.amax(), source.amax().abs() * 0 + SMALLEST['f32']
    yield (), source.sum(), 16 * math.sqrt(case.dims['count']) * U * source.abs().amax()


ROWS = {
    'gemm': _gemm_rows,
    'gemm_int4': _gemm_int4_rows,
    'attention_gqa': _attention_rows,
    'copy': _copied,
    'read': _read,
}
# Terms of each sum.
TERMS = {'gemm': 'k', 'gemm_int4': 'k', 'attention_gqa': 'lenKv'}


class Definition:
    """The sampled rows of one case, computed once."""

    def __init__(self, machine, case, operands, seed):
        self._case = case
        self._rows = list(ROWS[case.op](machine, case, operands, seed))
        self.seed = seed

    def judge(self, result, peer_name=None):
        """rows, elements, how many of them failed, the worst deviation over its tolerance, the largest deviation."""
        rows = self._rows
        if self._case.op == 'read':
            rows = [rows[peer_name == 'sum']]
        elements, failed, worst, largest = 0, 0, 0.0, 0.0
        for place, value, tolerance in rows:
            deviation = ((result[place] if place else result).double() - value).abs()
            share = (deviation / tolerance).amax().item()
            # A NaN compares as neither within nor beyond, so what is not within has failed.
            failed += value.numel() - int((deviation <= tolerance * (PEER_FACTOR if peer_name else 1)).sum().item())
            elements += value.numel()
            worst = max(worst, share) if share == share else math.inf
            largest = max(largest, deviation.amax().item())
        finite = math.isfinite(worst) and math.isfinite(largest)
        return {
            'rows': len(rows),
            'elements': elements,
            'failed': failed,
            'worst': worst if finite else None,
            'maxAbs': largest if finite else None,
        }


def between(case, ours, theirs):
    """The norm of the difference over the norm of the peer's result, and what it may be."""
    ours, theirs = ours.double(), theirs.double()
    relative = ((ours - theirs).norm() / theirs.norm()).item()
    bound = EPS[case.dtype] + 2 * math.sqrt(case.dims[TERMS[case.op]]) * U
    return {'relative': relative if math.isfinite(relative) else None, 'bound': bound}


def verdict(ours, peer, difference):
    """Why they disagree, or None."""
    for who, judged in (('kernwatt', ours), ('the peer', peer)):
        if judged is not None and judged['failed']:
            by = 'no finite factor' if judged['worst'] is None else format(judged['worst'], '.3g')
            some = f'{judged["failed"]} of {judged["elements"]} sampled elements'
            return f'{who}: {some} are outside the tolerance of float64, the worst by {by}'
    if difference is not None and (difference['relative'] is None or difference['relative'] > difference['bound']):
        return f'results differ by {difference["relative"]} of their norm, expected at most {difference["bound"]:.3g}'
    return None
