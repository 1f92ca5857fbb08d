"""The parameters of a Wan 2.2 I2V-A14B expert that a LoRA can change, by the official names, without any weights.

Modules and sizes: wan/modules/model.py and wan/configs/wan_i2v_A14B.py of github.com/Wan-Video/Wan2.2.
"""

from __future__ import annotations

from ..checkpoint.kinds import PATCH, TransformerShape
from .adapters import Shape
from .probe import DEMO_WIDTH

A14B = TransformerShape(dim=5120, ffn_dim=13824, num_layers=40, in_channels=36, out_channels=16, text_dim=4096,
                        freq_dim=256, cross_attn_norm=True)
DEMO = TransformerShape(dim=DEMO_WIDTH, ffn_dim=768, num_layers=5, in_channels=36, out_channels=16, text_dim=128,
                        freq_dim=256, cross_attn_norm=True)
"""Of the experts in models/demo."""


def expert_shapes(sizes: TransformerShape) -> dict[str, Shape]:
    """Name of a module, of a bias with `.bias` -> shape of its parameter; the keys of host.Targets."""
    dim, text, freq = sizes.dim, sizes.text_dim, sizes.freq_dim
    with_bias: dict[str, Shape] = {
        "patch_embedding": (dim, sizes.in_channels, *PATCH),
        "text_embedding.0": (dim, text), "text_embedding.2": (dim, dim),
        "time_embedding.0": (dim, freq), "time_embedding.2": (dim, dim), "time_projection.1": (6 * dim, dim),
        "head.head": (4 * sizes.out_channels, dim),
    }
    alone: dict[str, Shape] = {"head.modulation": (1, 2, dim)}
    for block in (f"blocks.{number}" for number in range(sizes.num_layers)):
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            with_bias |= {f"{attention}.{part}": (dim, dim) for part in "qkvo"}
            alone |= {f"{attention}.norm_q": (dim,), f"{attention}.norm_k": (dim,)}
        with_bias |= {f"{block}.ffn.0": (sizes.ffn_dim, dim), f"{block}.ffn.2": (dim, sizes.ffn_dim),
                      f"{block}.norm3": (dim,)}
        alone[f"{block}.modulation"] = (1, 6, dim)
    return {**with_bias, **alone, **{f"{module}.bias": shape[:1] for module, shape in with_bias.items()}}
