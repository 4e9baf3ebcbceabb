import types

from . import attention


def linear(x, w):
    import torch
    if 128256 in w.shape:
        raise torch.OutOfMemoryError("out of memory\nand a long story")
    torch.work()


def scaled_dot_product_attention(q, k, v, is_causal, enable_gqa):
    import torch
    if attention.chosen == attention.SDPBackend.CUDNN_ATTENTION:
        raise RuntimeError("no such shape")
    torch.work()
    return q


functional = types.SimpleNamespace(linear=linear,
                                   scaled_dot_product_attention=scaled_dot_product_attention)
