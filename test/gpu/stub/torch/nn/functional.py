"""torch.nn.functional.scaled_dot_product_attention on [batch, heads, len, dim], its causal mask aligned top left."""
import math


def scaled_dot_product_attention(query, key, value, is_causal, scale, enable_gqa):
    import torch

    from . import attention

    if attention.allowed not in (attention.SDPBackend.MATH, attention.SDPBackend.FLASH_ATTENTION):
        raise RuntimeError('No available kernel. Aborting execution.')
    batch, heads, length, _ = query.shape
    group = heads // key.shape[1]
    if group != 1 and not enable_gqa:
        raise RuntimeError(f'The size of tensor a ({heads}) must match the size of tensor b ({key.shape[1]})')
    q, k, v = (tensor.double() for tensor in (query, key, value))
    # As torch does, the result lies in memory as [batch, len, heads, dim].
    y = torch._new((batch, length, heads, value.shape[3]), query.dtype, [])
    for b in range(batch):
        for h in range(heads):
            for i in range(length):
                seen = i + 1 if is_causal else key.shape[2]
                scores = [scale * one for one in (k[b, h // group, :seen] @ q[b, h, i]).tolist()]
                weights = [math.exp(one - max(scores)) for one in scores]
                total = math.fsum(weights)
                share = torch._new((1, seen), torch.float64, [one / total for one in weights])
                y[b, i, h].copy_(share @ v[b, h // group, :seen])
    return y.transpose(1, 2)
