"""A clip's quality gate: all measures, their limits, one verdict."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ..models.condition import fit
from . import light, motion
from .change import Change, change
from .facts import SIDE, ClipFacts, gather, smaller
from .finding import Finding

LIMITS: dict[str, float] = {
    "broken": 0.5, "flash": 0.04, "flicker": 0.006, "frozen": 5.5, "cut": 2.5, "seam": 3.0, "order": 1.15,
    "jerk": 0.04, "runs_back": 0.75, "drift": 9.0, "saturation": 0.45, "blur": 2.0, "start": 1 / 20,
}
"""Measure -> the value above which a clip fails. bench/clip_check.py shows what they separate, and how well."""
SAID = {
    "broken": "broken, black or empty frames", "flash": "a flash", "flicker": "flicker",
    "frozen": "frames that stand still", "cut": "a cut", "seam": "a visible joint", "order": "a frame out of order",
    "jerk": "a jump of the picture", "runs_back": "it runs back to the start", "drift": "the colours drift",
    "saturation": "the colours fade or grow", "blur": "detail is lost", "start": "the first frame is not the picture",
}
"""Measure -> what a value above its limit means."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a clip."""

    findings: dict[str, Finding]
    change: Change
    frames: int
    width: int
    smoothness: float
    """0..1, of motion.smoothness; it has no limit, for grain lowers it too."""

    @property
    def failed(self) -> list[str]:
        """Return the measures that are above their limits."""
        return [name for name, finding in self.findings.items() if finding.value > LIMITS[name]]

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def score(self) -> float:
        """Return 1 for a clip without any fault, 0.5 for one at a limit, towards 0 for worse ones."""
        worst = max((finding.value / LIMITS[name] for name, finding in self.findings.items()), default=0.0)
        return 1 / (1 + max(0.0, worst) ** 2)

    @property
    def failing_frames(self) -> list[int]:
        """Return the indices of the frames that failed, each once, in order."""
        return sorted({index for name in self.failed for index in self.findings[name].frames})

    def described(self) -> str:
        """Say the verdict in a few lines."""
        lines = [f"{'pass' if self.passed else 'fail'}, score {self.score:.2f}"]
        for name in self.failed:
            finding = self.findings[name]
            at = f" at frame {finding.frames[0] + 1}" if finding.frames else ""
            lines.append(f"⚠ {SAID[name]}{at}: {finding.value:.3g} (limit {LIMITS[name]:.3g})")
        return "\n".join(lines)

    def report(self, fps: float) -> dict[str, Any]:
        """Return the verdict as JSON holds it; camera is where the content goes, in pixels a second of the clip."""
        seconds = max(self.change.steps, 1) / fps
        measures = {name: {"value": round(finding.value, 4), "limit": round(LIMITS[name], 4),
                           "frames": list(finding.frames[:16])} for name, finding in self.findings.items()}
        camera = {"right": round(self.change.camera.x * self.width / seconds, 2),
                  "down": round(self.change.camera.y * self.width / seconds, 2),
                  "zoom": round(self.change.camera.scale, 4),
                  "roll": round(math.degrees(self.change.camera.turn), 2)}
        return {"pass": self.passed, "score": round(self.score, 4), "failed": self.failed, "frames": self.frames,
                "smoothness": round(self.smoothness, 4), "measures": measures, "content_moves": camera}


def check_clip(frames: Iterable[torch.Tensor], picture: torch.Tensor | None = None, *,
               colours_may_change: bool = False) -> Verdict:
    """Judge frames (H, W, 3), float 0..1, in one pass; at least one.

    picture: IMAGE (1, H, W, 3) that the clip began from. colours_may_change: leave drift and saturation out, for
    prompts such as "everything turns red".
    """
    facts = gather(frames)
    return judge(facts, picture, colours_may_change=colours_may_change)


def judge(facts: ClipFacts, picture: torch.Tensor | None = None, *, colours_may_change: bool = False) -> Verdict:
    """Judge a clip by its facts.

    A fault explains others: frames that are broken, or flash, count in no measure of motion, and what changes over the
    clip is measured up to the first of them, or the first cut.
    """
    broken = light.broken(facts)
    skipped = frozenset(broken.frames)
    flash = light.flash(facts, skipped)
    if flash.value > LIMITS["flash"]:
        skipped |= set(flash.frames)
    cut = motion.cut(facts, skipped)
    cuts = cut.frames if cut.value > LIMITS["cut"] else ()
    last = min(cuts, default=len(facts)) - 1
    shot = _first_run(last + 1, skipped)
    around = skipped | set(cuts)
    whole, end = change(facts, shot), tuple(shot[-1:])
    findings = {
        "broken": broken, "flash": flash, "flicker": light.flicker(facts), "frozen": motion.frozen(facts), "cut": cut,
        "seam": motion.seam(facts, around), "order": motion.order(facts, around), "jerk": motion.jerk(facts, around),
        "runs_back": motion.runs_back(facts, frozenset(range(last + 1, len(facts))) | skipped),
        "blur": Finding(whole.blur, end),
    }
    if not colours_may_change:
        findings["drift"] = Finding(whole.drift, end)
        findings["saturation"] = Finding(abs(whole.saturation), end)
    if picture is not None and facts.first is not None:
        findings["start"] = Finding(_unlike(facts.first, picture), (0,))
    return Verdict(findings, whole, len(facts), facts.width, motion.smoothness(facts))


def _first_run(end: int, skipped: Collection[int]) -> range:
    """Return the first frames before `end` that follow one another and are not skipped."""
    first = next((index for index in range(end) if index not in skipped), end)
    return range(first, next((index for index in range(first, end) if index in skipped), end))


def _unlike(first: torch.Tensor, picture: torch.Tensor) -> float:
    """Return 1 / PSNR of the first frame (h, w, 3) against the picture, cut to its shape."""
    height, width = first.shape[:2]
    wanted = smaller(fit(picture[..., :3].float().cpu(), width, height)[0], SIDE)
    error = float((first - wanted).square().mean())
    return 1 / max(1.0, -10 * math.log10(max(error, 1e-9)))
