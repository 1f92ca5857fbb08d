"""Mix the weights of runs that began at one place: what each got wrong by chance partly cancels out.

usage: average.py OUT_PT SHARE PT [SHARE PT ...]

PT: what train_experts.py wrote, of one expert. Model soups: arXiv 2203.05482.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from train_experts import read_states


def main() -> None:
    out, *rest = sys.argv[1:]
    runs = [(float(share), read_states([Path(path)])) for share, path in zip(rest[::2], rest[1::2], strict=True)]
    assert abs(sum(share for share, _ in runs) - 1) < 1e-6, "the shares have to add up to 1"
    torch.save({module: {key: sum(share * states[module][key] for share, states in runs) for key in weights}
                for module, weights in runs[0][1].items()}, out)


if __name__ == "__main__":
    main()
