"""The table of peers. A peer is one function of torch and a case; it gives the call to be timed, which takes a set of
operands (tensors by name, in the library's layout) and returns its result in the shape of `y`:

    @peer('gemm', 'my_gemm', 'my_package.gemm')
    def my_gemm(torch, case):
        import my_package                        # ImportError, Declined, RuntimeError: declined, with the text
        return lambda s: my_package.gemm(s['x'], s['w'])

It is called on the run's stream, once for every set and then captured into a CUDA graph, so it must not synchronise. Its
result is compared with ours and with float64 before anything is timed.
"""
import dataclasses
from typing import Callable

from .check import weights
from .machine import ITEM_BYTES

MOST_SCORE_BYTES = 4 * 2**30


class Declined(Exception):
    """This peer does not do this case; the text says why."""


@dataclasses.dataclass(frozen=True)
class Peer:
    op: str
    name: str
    call: str  # what it calls, as its users write it
    make: Callable


PEERS = []


def peer(op, name, call):
    def add(make):
        PEERS.append(Peer(op, name, call, make))
        return make

    return add


def peers_of(case):
    return [one for one in PEERS if one.op == case.op]


@peer('gemm', 'cublas', 'torch.mm')
def cublas(torch, case):
    """Sums in f32 as ours: no TF32, no partial sums in 16 bits."""
    torch.set_float32_matmul_precision('highest')
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    return lambda s: torch.mm(s['x'], s['w'].t(), out=s['y'])


def _prepared(prepare):
    """Weights in a peer's own format, made once for each set of operands: its users do that when they load a model."""
    ready = {}

    def of(s):
        at = s['w'].data_ptr()
        if at not in ready:
            ready[at] = prepare(s)
        return ready[at]

    return of


@peer('gemm_int4', 'cublas_dequantised', 'torch.mm of 16-bit weights')
def cublas_dequantised(torch, case):
    """What four bits are to beat: the same product from weights that were never quantised."""
    wide = _prepared(lambda s: weights(torch, s).to(s['x'].dtype))
    multiply = cublas(torch, case)
    return lambda s: multiply({**s, 'w': wide(s)})


@peer('gemm_int4', 'tinygemm', 'torch._weight_int4pack_mm')
def tinygemm(torch, case):
    if not hasattr(torch, '_weight_int4pack_mm'):
        raise Declined('this torch has no _weight_int4pack_mm')
    if case.dtype != 'bf16':
        raise Declined(f'x is {case.dtype}, expected bf16')
    group = case.dims['k'] // case.dims['groups']
    if group not in (32, 64, 128, 256):
        raise Declined(f'groups are of {group}, expected 32, 64, 128 or 256')

    def pack(s):  # it takes the even element high, and (q - 8) scale + zero
        swapped = (s['w'] >> 4) | (s['w'] << 4)
        both = torch.stack((s['scales'], torch.zeros_like(s['scales'])), dim=2).contiguous()
        return torch._convert_weight_to_int4pack(swapped, 8), both

    packed = _prepared(pack)

    def call(s):
        w, scales_and_zeros = packed(s)
        return torch._weight_int4pack_mm(s['x'], w, group, scales_and_zeros)

    return call


def _sdpa(torch, case, backend):
    """scaled_dot_product_attention with one backend allowed. Its causal mask begins at the top left, ours ends at the
    bottom right; a single query sees every key, and with as many queries as keys they are the same."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    d, args = case.dims, case.args
    if args['causal'] and d['lenQ'] not in (1, d['lenKv']):
        sizes = f'lenQ {d["lenQ"]} with lenKv {d["lenKv"]}'
        raise Declined(f'its causal mask is aligned top left, so {sizes} means another thing')
    options = {
        'is_causal': args['causal'] and d['lenQ'] > 1,
        'scale': args['scale'],
        'enable_gqa': d['headsQ'] != d['headsKv'],
    }
    allowed = getattr(SDPBackend, backend)

    def call(s):
        with sdpa_kernel(allowed):
            y = torch.nn.functional.scaled_dot_product_attention(
                *(s[name].transpose(1, 2) for name in 'qkv'), **options
            )
        return y.transpose(1, 2)

    return call


@peer('attention_gqa', 'sdpa_cudnn', 'scaled_dot_product_attention, CUDNN_ATTENTION')
def sdpa_cudnn(torch, case):
    return _sdpa(torch, case, 'CUDNN_ATTENTION')


@peer('attention_gqa', 'sdpa_flash', 'scaled_dot_product_attention, FLASH_ATTENTION')
def sdpa_flash(torch, case):
    return _sdpa(torch, case, 'FLASH_ATTENTION')


@peer('attention_gqa', 'sdpa_efficient', 'scaled_dot_product_attention, EFFICIENT_ATTENTION')
def sdpa_efficient(torch, case):
    return _sdpa(torch, case, 'EFFICIENT_ATTENTION')


@peer('attention_gqa', 'sdpa_math', 'scaled_dot_product_attention, MATH')
def sdpa_math(torch, case):
    d = case.dims
    scores = d['batch'] * d['headsQ'] * d['lenQ'] * d['lenKv'] * ITEM_BYTES[case.dtype]
    if scores > MOST_SCORE_BYTES:
        raise Declined(f'it would keep {scores} bytes of scores, expected at most {MOST_SCORE_BYTES}')
    return _sdpa(torch, case, 'MATH')


@peer('copy', 'copy_', 'Tensor.copy_')
def copy_(torch, case):
    return lambda s: s['target'].copy_(s['source'])


@peer('read', 'amax', 'torch.amax')
def read_amax(torch, case):
    return lambda s: torch.amax(s['source'])


@peer('read', 'sum', 'torch.sum')
def read_sum(torch, case):
    return lambda s: torch.sum(s['source'])
