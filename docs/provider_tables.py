"""Renew the tables of models in docs/providers.md from the providers' files. Usage: python docs/provider_tables.py"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.remote.model import RemoteModel  # noqa: E402
from pipeline.remote.provider import Provider  # noqa: E402
from pipeline.remote.providers import PROVIDERS  # noqa: E402

PAGE = ROOT / "docs" / "providers.md"
HEAD = ("| Model | its id | sizes | length | LoRAs | last picture | negative prompt | steps, guidance | price |\n"
        "|---|---|---|---|---|---|---|---|---|\n")


def row(model: RemoteModel) -> str:
    """Return a model as a row of the table."""
    length = (f"{model.num_frames[0]} to {model.num_frames[1]} frames" if model.num_frames
              else f"{' or '.join(map(str, model.durations))} s")
    prices = [f"{size} {price}" for size, price in model.prices.items()]
    prices += [f"{size} perhaps {low} to {high}" for size, (low, high) in model.estimates.items()
               if size in model.resolutions]
    steps = ", ".join([f"at most {model.max_steps} steps"] * bool(model.max_steps) + ["guidance"] * model.guidance)
    loras = f"{model.loras}{'' if model.lora_files else ' an expert'}" if model.loras else "-"
    cells = (model.label, f"`{model.id}`", ", ".join(model.resolutions), length, loras,
             "yes" if model.last_image else "-", "yes" if model.negative_prompt else "-", steps or "its own",
             "nothing" if model.free else "; ".join(prices) or "not known")
    return f"| {' | '.join(cells)} |\n"


def table(provider: Provider) -> str:
    """Return the table of a provider's models."""
    return HEAD + "".join(map(row, provider.models))


def renewed(text: str) -> str:
    """Return the page with each table, the first one below a provider's heading, made anew."""
    for provider in PROVIDERS.values():
        pattern = rf"(## {re.escape(provider.title)}\n(?:(?!\n## )[\s\S])*?\n)\| Model \|[\s\S]*?\n(?!\|)"
        text, count = re.subn(pattern, lambda found, p=provider: found[1] + table(p), text)
        if count != 1:
            raise ValueError(f"{PAGE.name} has no table below the heading {provider.title}.")
    return text


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
