"""Draw the README's contact sheet: three held-out pictures under four prompts, made by the real ComfyUI.

usage: contact_sheet.py [--out docs/contact-sheet.jpg]   (needs what requirements.txt beside it names)

Every clip is queued as workflows/api/image-to-video-demo.json, and its frames are read back from the MP4. Each cell
shows the first, the middle and the last frame.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import sys
import tempfile
from pathlib import Path

import av
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from devtools.environment import prepare  # noqa: E402
from devtools.paths import DEMO_WORKFLOW  # noqa: E402
from devtools.server import ComfyServer  # noqa: E402
from devtools.workflow import download_video, run_workflow  # noqa: E402

PROMPTS = ("the camera pans right", "the camera zooms in", "everything turns blue", "the scene fades to black")
CELL, GAP, HEAD = 128, 6, 20


def pictures() -> dict[str, Image.Image]:
    """Two held-out photographs and a drawn one, each square."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    drawn = Image.new("RGB", (256, 256), (70, 130, 180))
    pen = ImageDraw.Draw(drawn)
    pen.rectangle((0, 170, 256, 256), fill=(90, 140, 60))
    pen.ellipse((170, 20, 220, 70), fill=(250, 220, 90))
    pen.polygon([(20, 170), (80, 60), (140, 170)], fill=(120, 110, 110))
    pen.polygon([(90, 170), (160, 90), (230, 170)], fill=(150, 140, 135))
    coffee = Image.fromarray(skimage.data.coffee()).crop((100, 0, 500, 400))
    flower = Image.fromarray(load_sample_image("flower.jpg")).crop((60, 0, 487, 427))
    return {"coffee": coffee, "flower": flower, "drawn": drawn}


def frames_of(mp4: bytes) -> list[Image.Image]:
    with av.open(io.BytesIO(mp4)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "contact-sheet.jpg")
    args = parser.parse_args()
    workflow = json.loads(DEMO_WORKFLOW.read_text("utf-8"))
    found = pictures()
    width = GAP + len(PROMPTS) * (3 * CELL + GAP)
    sheet = Image.new("RGB", (width, HEAD + len(found) * (CELL + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    comfyui = prepare()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        base.mkdir()
        with ComfyServer(comfyui, base, Path(folder, "log")) as server:
            for row, (name, picture) in enumerate(found.items()):
                file = Path(folder, f"{name}.png")
                picture.save(file)
                for column, prompt in enumerate(PROMPTS):
                    graph = copy.deepcopy(workflow)
                    graph["1"]["inputs"]["image"] = server.upload_picture(file)
                    graph["3"]["inputs"]["prompt"] = prompt
                    video = download_video(server, run_workflow(server, graph), ["7"])
                    shown = frames_of(video)
                    left = GAP + column * (3 * CELL + GAP)
                    pen.text((left, 4), prompt, fill="black")
                    for index, frame in enumerate((shown[0], shown[len(shown) // 2], shown[-1])):
                        sheet.paste(frame, (left + index * CELL, HEAD + row * (CELL + GAP)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=88)
    print(args.out)


if __name__ == "__main__":
    main()
