"""torch.nn.attention: which backend scaled_dot_product_attention may use. This one has MATH and FLASH_ATTENTION."""
import contextlib
import enum

SDPBackend = enum.Enum('SDPBackend', 'MATH FLASH_ATTENTION EFFICIENT_ATTENTION CUDNN_ATTENTION')
allowed = SDPBackend.MATH


@contextlib.contextmanager
def sdpa_kernel(backend):
    global allowed
    before, allowed = allowed, backend
    try:
        yield
    finally:
        allowed = before
