"""The providers, one file each, in the order in which they are offered."""

from __future__ import annotations

from ..provider import Adapter
from .atlascloud import AtlasCloud
from .fal import Fal
from .replicate import Replicate
from .wavespeed import WaveSpeed

ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (WaveSpeed(), AtlasCloud(), Fal(), Replicate())}
