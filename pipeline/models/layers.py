"""Layers that keep their weights as stored: the host's linear ones in a module, and an embedding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from ..checkpoint.quantised import FP8_FORMATS, GGUF, QuantisedWeight, Weight, dequantise
from .host import HostLinear


def linear_names(model: nn.Module, *without: str) -> list[str]:
    """Return the names of a module's linear layers but those in `without`."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and name not in without]


def replace_linear(model: nn.Module, name: str, weights: Mapping[str, Weight],
                   linear: Callable[..., HostLinear]) -> None:
    """Replace one linear layer by the host's, with the stored weight and bias of that name."""
    layer = model.get_submodule(name)
    with torch.device("meta"):
        new = linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    new.assign_weight(weights[f"{name}.weight"], weights.get(f"{name}.bias"))
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and tensors that a model is made of, as they are stored: of a quantised matrix its data and its
    scales, whether it is one of this pack's or of the host's."""
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        inner = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
        yield from [(f"{name}.{part}", getattr(tensor, part)) for part in inner] or [(name, tensor)]
    for name, layer in model.named_modules():
        for value in vars(layer).values():
            if isinstance(value, QuantisedWeight):
                yield from [(name, value.data), *((f"{name}.{part}", scale) for part, scale in value.scales.items())]
            elif isinstance(value, torch.Tensor):
                yield name, value


class StoredEmbedding(nn.Module):
    """Embeddings (rows, width) that stay as stored, on the CPU: of UMT5's 256,384 rows a prompt uses at most 512."""

    def __init__(self, weight: Weight, dtype: torch.dtype) -> None:
        super().__init__()
        if isinstance(weight, QuantisedWeight) and weight.format not in (GGUF, *FP8_FORMATS):
            weight = dequantise(weight, dtype)  # its scales go by the row
        self.stored, self.dtype = weight, dtype

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of the ids, of any shape, on the ids' device."""
        wanted = ids.flatten().cpu()
        if isinstance(self.stored, QuantisedWeight):
            data = self.stored.data.view(torch.uint8)[wanted].view(self.stored.data.dtype)
            rows = replace(self.stored, data=data, shape=(len(wanted), self.stored.shape[1]))
        else:
            rows = self.stored.view(torch.uint8)[wanted].view(self.stored.dtype)
        return dequantise(rows, self.dtype).view(*ids.shape, -1).to(ids.device)
