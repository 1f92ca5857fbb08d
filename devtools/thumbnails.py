"""Make the thumbnails of the shipped workflows, of clips that the bundled model makes of the sample pictures.

    python3 dev.py thumbnails

A clip is shown in one picture, its first frame at the left edge and its last at the right: each column of pixels is of
the frame whose time has come there. Of several clips each has a band.
"""

from __future__ import annotations

import functools
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .environment import local_comfyui
from .paths import CACHE, CAMERA_WORKFLOW, DEMO_WORKFLOW, ROOT, SAMPLE_PICTURES
from .server import ComfyServer
from .terminal import say
from .workflow import Workflow, download_video, nodes_of_class, run_workflow

if TYPE_CHECKING:
    import numpy as np

COFFEE, CAT, ROCKET = "wan22_coffee.png", "wan22_cat.jpg", "wan22_rocket.jpg"
BLUE, RED, BLACK, STILL = "everything turns blue", "everything turns red", "the scene fades to black", "nothing moves"
LEFT = "the camera pans left"
Clip = tuple[str, str, bool]
"""Picture, prompt, and whether the bundled LoRA, which drains the colours, takes part."""
CLIPS: dict[str, tuple[Clip, ...]] = {
    "image-to-video-demo": ((COFFEE, BLUE, False),),
    "camera-path": ((CAT, STILL, False),),
    "long-clip": ((COFFEE, LEFT, False),),
    "extend-clip": ((ROCKET, LEFT, False),),
    "image-to-video": ((ROCKET, RED, False),),
    "image-to-video-4-steps": ((COFFEE, BLACK, False),),
    "loras-by-link": ((CAT, STILL, True),),
    "batch-of-pictures": ((COFFEE, STILL, True), (CAT, STILL, True), (ROCKET, STILL, True)),
    "core-loaders-bridge": ((CAT, BLUE, False),),
    "remote-image-to-video": ((ROCKET, BLACK, False),),
    "remote-fallback-price-limit": ((CAT, RED, False),),
}
SIDE = 384
"""Pixels of a thumbnail's sides, three times those of a frame."""


def graph_of(name: str, clip: Clip) -> Workflow:
    """Return the shipped graph for one clip of a workflow's thumbnail."""
    picture, prompt, drained = clip
    file = CAMERA_WORKFLOW if name == CAMERA_WORKFLOW.stem else DEMO_WORKFLOW
    graph: Workflow = json.loads(file.read_text("utf-8"))
    changes = {"LoadImage": {"image": picture}, "Wan22EncodePrompt": {"prompt": prompt}}
    if drained:
        changes["Wan22Sampler"] = {"loras": ["lora", 0]}
        high, low = (f"wan2.2_i2v_demo_drain_colours_{noise}_noise.safetensors" for noise in ("high", "low"))
        graph["lora"] = {"class_type": "Wan22Lora",
                         "inputs": {"source": high, "source_low": low, "scale": 1.0, "expert": "auto"}}
    for class_type, values in changes.items():
        for node_id in nodes_of_class(graph, class_type):
            graph[node_id]["inputs"].update(values)
    return graph


def in_one_picture(mp4: bytes) -> np.ndarray:
    """Return (H, W, 3) uint8: column x of the frame at the share x / W of the clip."""
    import av
    import numpy as np

    with av.open(io.BytesIO(mp4)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    columns = np.arange(frames.shape[2])
    return frames[columns * len(frames) // len(columns), :, columns].swapaxes(0, 1)


def main() -> None:
    import numpy as np
    from PIL import Image

    with (
        tempfile.TemporaryDirectory(prefix="wan22-", ignore_cleanup_errors=True) as base,
        ComfyServer(local_comfyui(), Path(base), CACHE / "thumbnails.log") as server,
    ):

        @functools.cache
        def picture_of(name: str, clip: Clip) -> np.ndarray:
            graph = graph_of(name, clip)
            return in_one_picture(download_video(server, run_workflow(server, graph),
                                                 nodes_of_class(graph, "Wan22SaveMP4")))

        for name, clips in CLIPS.items():
            bands = np.stack([picture_of(name, clip) for clip in clips])
            rows = np.arange(bands.shape[1])
            sheet = Image.fromarray(bands[rows * len(clips) // len(rows), rows])
            path = SAMPLE_PICTURES.parent / f"{name}.jpg"
            sheet.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(path, quality=90)
            say(str(path.relative_to(ROOT)))


if __name__ == "__main__":
    main()
