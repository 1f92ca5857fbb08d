"""The names of WanTransformer3DModel's parameters in the original Wan files."""

from __future__ import annotations

from .names import IN_BLOCKS, OUTSIDE

_OUTSIDE = {theirs: ours for ours, theirs in OUTSIDE.items()}
_IN_BLOCKS = {theirs: ours for ours, theirs in IN_BLOCKS.items()}


def original_name(parameter: str) -> str:
    """diffusers' name of a parameter -> that of wan/modules/model.py.

    Raises KeyError for a parameter that no Wan model has.
    """
    parts = parameter.split(".")
    block = parts[0] == "blocks"
    stem, table = (".".join(parts[2:]), _IN_BLOCKS) if block else (parameter, _OUTSIDE)
    module, _, kind = stem.rpartition(".") if stem not in table else (stem, "", "")
    found = f"{table[module]}.{kind}".rstrip(".")
    return f"blocks.{parts[1]}.{found}" if block else found
