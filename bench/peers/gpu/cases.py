"""The cases, most valuable first, and what each operator's call is made of: operands, FLOPs and bytes. The formulas are
those of src/ops/*.ts; test/peers/gpu.test.ts compares them."""
import dataclasses
import math

from .machine import ITEM_BYTES


@dataclasses.dataclass(frozen=True)
class Operand:
    name: str
    shape: tuple
    dtype: str
    written: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """`cold`: operands rotate through copies beyond the last-level cache; `hot`: the same ones every time."""

    name: str
    op: str  # an operator of the library, or `copy` and `read`, which only peers do
    dims: dict
    dtype: str
    cache: str = 'cold'
    args: dict = dataclasses.field(default_factory=dict)
    ceiling: str | None = None  # `flops` or `bandwidth`: its rate is a ceiling that later cases are held against

    @property
    def group(self):
        return 'bandwidth' if self.op in ('copy', 'read') else self.op

    @property
    def ours(self):
        """Whether the library takes part."""
        return self.group != 'bandwidth'

    @property
    def operands(self):
        return OPERANDS[self.op](self)

    @property
    def bytes(self):
        """Of all operands once: what has to move, and what one set of them takes."""
        return int(sum(math.prod(one.shape) * ITEM_BYTES[one.dtype] for one in self.operands))

    @property
    def flops(self):
        return FLOPS[self.op](self.dims, self.args)


def _gemm_operands(case):
    d = case.dims
    return [
        Operand('x', (d['m'], d['k']), case.dtype),
        Operand('w', (d['rowsW'], d['k']), case.dtype),
        Operand('y', (d['m'], d['rowsW']), case.dtype, written=True),
    ]


def _gemm_int4_operands(case):
    d = case.dims
    return [
        Operand('x', (d['m'], d['k']), case.dtype),
        Operand('w', (d['rowsW'], d['k']), 'u4'),
        Operand('scales', (d['groups'], d['rowsW']), case.dtype),
        Operand('y', (d['m'], d['rowsW']), case.dtype, written=True),
    ]


def _attention_operands(case):
    d = case.dims
    return [
        Operand('q', (d['batch'], d['lenQ'], d['headsQ'], d['dim']), case.dtype),
        Operand('k', (d['batch'], d['lenKv'], d['headsKv'], d['dim']), case.dtype),
        Operand('v', (d['batch'], d['lenKv'], d['headsKv'], d['dimV']), case.dtype),
        Operand('y', (d['batch'], d['lenQ'], d['headsQ'], d['dimV']), case.dtype, written=True),
        Operand('lse', (d['batch'], d['headsQ'], d['lenQ']), 'f32', written=True),
    ]


OPERANDS = {
    'gemm': _gemm_operands,
    'gemm_int4': _gemm_int4_operands,
    'attention_gqa': _attention_operands,
    'copy': lambda case: [
        Operand('source', (case.dims['count'],), case.dtype),
        Operand('target', (case.dims['count'],), case.dtype, written=True),
    ],
    'read': lambda case: [Operand('source', (case.dims['count'],), case.dtype)],
}


def _visible_pairs(d, args):
    """Pairs of a query and a key it sees; the last query stands at the last key."""
    if not args['causal']:
        return d['lenQ'] * d['lenKv']
    return d['lenQ'] * (d['lenKv'] - d['lenQ']) + d['lenQ'] * (d['lenQ'] + 1) // 2


FLOPS = {
    'gemm': lambda d, args: 2 * d['m'] * d['rowsW'] * d['k'],
    'gemm_int4': lambda d, args: 2 * d['m'] * d['rowsW'] * d['k'],
    'attention_gqa': lambda d, args: 2 * (d['dim'] + d['dimV']) * d['headsQ'] * d['batch'] * _visible_pairs(d, args),
    'copy': lambda d, args: 0,
    'read': lambda d, args: 0,
}


def gemm(m, rows_w, k, dtype, **more):
    cache = more.get('cache', 'cold')
    name = f'gemm {m}x{rows_w}x{k} {dtype}' + (' hot' if cache == 'hot' else '')
    return Case(name, 'gemm', {'m': m, 'k': k, 'rowsW': rows_w}, dtype, **more)


def gemm_int4(m, rows_w, k, dtype, group=128):
    name = f'gemm_int4 {m}x{rows_w}x{k} {dtype}, groups of {group}'
    return Case(name, 'gemm_int4', {'m': m, 'k': k, 'rowsW': rows_w, 'groups': k // group}, dtype)


def attention(kind, batch, len_q, len_kv, heads_q, heads_kv, dim, dtype, cache='cold', ceiling=None):
    dims = {
        'batch': batch, 'lenQ': len_q, 'lenKv': len_kv, 'headsQ': heads_q, 'headsKv': heads_kv, 'dim': dim, 'dimV': dim
    }
    name = f'{kind} {len_kv} of {batch}, {heads_q}/{heads_kv} heads of {dim} {dtype}'
    name += ' hot' if cache == 'hot' else ''
    return Case(name, 'attention_gqa', dims, dtype, cache, {'scale': 1 / math.sqrt(dim), 'causal': True}, ceiling)


def prefill(batch, length, heads_q, heads_kv, dtype, dim=128):
    return attention('prefill', batch, length, length, heads_q, heads_kv, dim, dtype)


def decode(batch, length, heads_q, heads_kv, dtype, dim=128, **more):
    return attention('decode', batch, 1, length, heads_q, heads_kv, dim, dtype, **more)


def bandwidth(op, count):
    return Case(f'{op} {count * 4} bytes', op, {'count': count}, 'f32', ceiling='bandwidth')


def cases():
    """Ceilings and speed targets first, then what surrounds them. What only reads is a ceiling of bandwidth too."""
    return [
        bandwidth('read', 2**29),
        bandwidth('copy', 2**29),
        gemm(8192, 8192, 8192, 'bf16', ceiling='flops'),
        gemm(4096, 4096, 4096, 'bf16'),
        prefill(1, 8192, 64, 8, 'bf16'),
        decode(32, 4096, 32, 8, 'bf16', ceiling='bandwidth'),
        gemm(1, 8192, 8192, 'bf16', ceiling='bandwidth'),
        gemm_int4(1, 8192, 8192, 'bf16'),
        gemm_int4(16, 8192, 8192, 'bf16'),
        gemm_int4(16, 28672, 8192, 'bf16'),
        prefill(1, 16384, 64, 8, 'bf16'),
        decode(8, 4096, 32, 8, 'bf16'),
        gemm(16, 8192, 8192, 'bf16'),
        decode(1, 4096, 32, 8, 'bf16'),
        gemm(128, 8192, 8192, 'bf16'),
        gemm_int4(64, 8192, 8192, 'bf16'),
        gemm_int4(1024, 8192, 8192, 'bf16'),
        gemm(8192, 8192, 8192, 'f16', ceiling='flops'),
        gemm(4096, 4096, 4096, 'f16'),
        gemm(4096, 4096, 4096, 'f32', ceiling='flops'),
        decode(1, 32768, 32, 8, 'bf16'),
        prefill(1, 8192, 64, 8, 'f16'),
        decode(8, 16384, 32, 8, 'bf16'),
        decode(1, 4096, 32, 8, 'bf16', cache='hot'),
        gemm(1, 4096, 4096, 'bf16', cache='hot'),
        prefill(4, 2048, 32, 8, 'bf16'),
    ]


def tiny():
    """The same kinds of case, small enough for an emulated device and a torch that is none."""
    return [
        bandwidth('read', 64),
        bandwidth('copy', 64),
        gemm(17, 24, 40, 'bf16', ceiling='flops'),
        gemm(1, 24, 40, 'f16', cache='hot'),
        gemm(5, 9, 16, 'f32'),
        gemm_int4(5, 24, 64, 'bf16', group=32),
        prefill(1, 10, 4, 2, 'bf16', dim=32),
        decode(2, 33, 4, 2, 'f16', dim=32),
        decode(1, 8, 2, 2, 'f32', dim=32, cache='hot'),
    ]
