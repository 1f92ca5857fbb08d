"""Which steps each expert will take, for settings that are still being chosen on a node."""

from __future__ import annotations

from dataclasses import dataclass

from ..node_inputs import NodeInputs
from ..request import BOTH, Sampling
from .schedule import FEW_STEPS, spans, split_warning, steps_of

INPUTS = {"num_inference_steps": int, "guidance_scale": float, "guidance_scale_2": float, "scheduler": str,
          "shift": float, "boundary": float, "denoise": float, "stage": str}
DECIDING = ("num_inference_steps", "shift", "boundary", "denoise", "stage")
"""What the split depends on."""


@dataclass(frozen=True)
class Outlook:
    """Steps are counted from 1, first and last; None: there are none, or they are not known."""

    high: tuple[int, int] | None = None
    low: tuple[int, int] | None = None
    run: tuple[int, int] | None = None
    """The part that this run takes, where it does not take all."""
    warning: str = ""
    unknown: tuple[str, ...] = ()
    """Inputs that come from other nodes and decide on the split: nothing else is told then."""


def outlook(inputs: NodeInputs) -> Outlook:
    """What a sampler would do with these inputs. Raises RequestError with the sentence that the run would end with."""
    if unknown := tuple(name for name in DECIDING if name in inputs.linked):
        return Outlook(unknown=unknown)
    sampling = Sampling(0, **{**inputs.values, "guidance_scale_2": inputs.values.get("guidance_scale_2") or None})
    sampling.check()
    steps = steps_of(sampling)
    high, low = (_counted(span) for span in spans(sampling))
    # Of a few steps the warning speaks of the guidance, which is not known when it is linked.
    silent = sampling.num_inference_steps <= FEW_STEPS and inputs.linked & {"guidance_scale", "guidance_scale_2"}
    warning = "" if silent else split_warning(sampling)
    return Outlook(high, low, None if sampling.stage == BOTH else _counted(steps), warning)


def _counted(span: range) -> tuple[int, int] | None:
    return (span.start + 1, span.stop) if span else None
