"""ComfyUI's attention for the experts: the one it was started with, one of its registry, and overrides of other nodes.

An override is a function that a node puts on a MODEL, in its `transformer_options`, and that ComfyUI calls in place of
the attention: override(attention, query, key, value, heads, ...) (comfy/ldm/modules/attention.py, wrap_attn).

Imports nothing heavy: a schema lists the names at start-up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..request import RequestError

if TYPE_CHECKING:
    from ..models.attention import Attend
    from ..models.load import Wan22Model

AUTOMATIC = "automatic"
OVERRIDE = "optimized_attention_override"
"""ComfyUI's name of an override in the transformer_options."""


def attention_names() -> list[str]:
    """Return AUTOMATIC and the names in ComfyUI's registry, to which other nodes may add theirs.

    ComfyUI has imported the module before it loads any nodes; importing it here would make start-up without it slow.
    """
    module = sys.modules.get("comfy.ldm.modules.attention")
    return [AUTOMATIC, *sorted({} if module is None else module.REGISTERED_ATTENTION_FUNCTIONS)]


def usual_attention() -> Attend | None:
    """Return ComfyUI's attention unless it is PyTorch's scaled_dot_product_attention, which diffusers uses; else None.

    It is another one by ComfyUI's flags (--use-sage-attention and the like), or on GPUs whose
    scaled_dot_product_attention holds the whole matrix at once (Apple's, some of AMD's).
    """
    import comfy.model_management
    from comfy.cli_args import args
    from comfy.ldm.modules import attention

    chosen = attention.optimized_attention
    asked_for = args.use_split_cross_attention or args.use_quad_cross_attention
    on_cpu = comfy.model_management.is_device_cpu(comfy.model_management.get_torch_device())
    if chosen is attention.attention_pytorch or (on_cpu and not asked_for):
        return None
    return _attend(chosen)


def model_with_attention(model: Wan22Model, name: str, override_from: Any = None) -> Wan22Model:
    """Return the model with another attention in both experts; the one given stays as it is.

    `name` is one of `attention_names()`; `override_from`: a MODEL whose override is called, or None. Raises
    RequestError for a name that is not registered, and for a MODEL without an override.
    """
    from comfy.ldm.modules import attention

    from ..models.load import Wan22Model

    if name not in attention_names():
        raise RequestError(f"attention is {name!r}, which this ComfyUI does not have. Choose one of "
                           f"{', '.join(attention_names())}.")
    override = None if override_from is None else _override_of(override_from)
    if name == AUTOMATIC and override is None:
        attend = usual_attention()
    else:
        chosen = attention.optimized_attention if name == AUTOMATIC else attention.get_attention_function(name)
        attend = _attend(chosen, override)
    return Wan22Model(*(replace(expert, attend=attend) for expert in model.experts.values()))


def _override_of(model: Any) -> Callable[..., Any]:
    """Return the override on a MODEL. Raises RequestError when it has none."""
    found = model.model_options.get("transformer_options", {}).get(OVERRIDE)
    if found is None:
        raise RequestError("The MODEL at override_from has no attention override. Put the node that changes its "
                           "attention before this one, or disconnect override_from.")
    return found


def _attend(chosen: Callable[..., Any], override: Callable[..., Any] | None = None) -> Attend:
    """Return an attention of ComfyUI's as an Attend, or an override of it."""
    def attend(query: Any, key: Any, value: Any, heads: int, mask: Any, options: dict[str, Any]) -> Any:
        if override is not None:
            options[OVERRIDE] = override
        return chosen(query, key, value, heads=heads, mask=mask, transformer_options=options)

    return attend
