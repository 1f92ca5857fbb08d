"""The thumbnails of the shipped workflows: frames of clips that the bundled model makes of the sample pictures.

    python3 dev.py thumbnails

Each is three clips below each other: the first, a middle and the last frame, at the size the model makes them.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import tempfile
from pathlib import Path

from .paths import CACHE, DEMO_WORKFLOW, ROOT, SAMPLE_PICTURES
from .server import ComfyServer
from .terminal import say
from .workflow import Workflow, download_video, nodes_of_class, run_workflow

COFFEE, CAT, ROCKET = "wan22_coffee.png", "wan22_cat.jpg", "wan22_rocket.jpg"
Clip = tuple[str, str, float]
"""Picture, prompt and the scale of the bundled LoRA."""
CLIPS: dict[str, tuple[Clip, Clip, Clip]] = {
    "image-to-video-demo": ((COFFEE, "everything turns blue", 0), (COFFEE, "the camera zooms in", 0),
                            (COFFEE, "the scene fades to black", 0)),
    "image-to-video": ((CAT, "the camera zooms in", 0), (COFFEE, "the camera pans right", 0),
                       (ROCKET, "everything turns red", 0)),
    "image-to-video-4-steps": ((ROCKET, "the camera zooms in", 0), (ROCKET, "everything turns red", 0),
                               (ROCKET, "the scene fades to black", 0)),
    "loras-by-link": tuple((CAT, "nothing moves", scale) for scale in (0, 0.5, 1)),
    "batch-of-pictures": tuple((name, "the camera zooms in slowly", 1) for name in (COFFEE, CAT, ROCKET)),
    "core-loaders-bridge": ((CAT, "the camera pans left", 0), (CAT, "everything turns blue", 0),
                            (CAT, "the camera zooms out", 0)),
    "remote-image-to-video": ((ROCKET, "the camera pans up", 0), (ROCKET, "everything turns blue", 0),
                              (ROCKET, "the camera zooms out", 0)),
    "remote-fallback-price-limit": ((CAT, "everything turns red", 0), (COFFEE, "the camera zooms out", 0),
                                    (ROCKET, "the camera pans left", 0)),
}
SIDE = 128
"""Pixels of a frame's sides."""


def graph_of(clip: Clip) -> Workflow:
    """The shipped graph for one clip."""
    picture, prompt, scale = clip
    graph: Workflow = copy.deepcopy(json.loads(DEMO_WORKFLOW.read_text("utf-8")))
    changes = {"LoadImage": {"image": picture}, "Wan22EncodePrompt": {"prompt": prompt}}
    if scale:
        changes["Wan22Sampler"] = {"loras": ["lora", 0]}
        pair = [f"wan2.2_i2v_demo_drain_colours_{noise}_noise.safetensors" for noise in ("high", "low")]
        graph["lora"] = {"class_type": "Wan22Lora", "inputs": {
            "source": pair[0], "source_low": pair[1], "scale": scale, "expert": "auto"}}
    for class_type, values in changes.items():
        for node_id in nodes_of_class(graph, class_type):
            graph[node_id]["inputs"].update(values)
    return graph


def main() -> None:
    import av
    from PIL import Image

    with (
        tempfile.TemporaryDirectory(prefix="wan22-", ignore_cleanup_errors=True) as base,
        ComfyServer(Path(os.environ["COMFYUI_PATH"]), Path(base), CACHE / "thumbnails.log") as server,
    ):

        @functools.cache
        def frames_of(clip: Clip) -> list[Image.Image]:
            graph = graph_of(clip)
            video = download_video(server, run_workflow(server, graph), nodes_of_class(graph, "Wan22SaveMP4"))
            with av.open(io.BytesIO(video)) as container:
                frames = [frame.to_image() for frame in container.decode(video=0)]
            return [frames[0], frames[len(frames) // 2], frames[-1]]

        for name, clips in CLIPS.items():
            sheet = Image.new("RGB", (3 * SIDE, 3 * SIDE))
            for row, clip in enumerate(clips):
                for column, frame in enumerate(frames_of(clip)):
                    sheet.paste(frame, (column * SIDE, row * SIDE))
            path = SAMPLE_PICTURES.parent / f"{name}.jpg"
            sheet.save(path, quality=88)
            say(str(path.relative_to(ROOT)))


if __name__ == "__main__":
    main()
