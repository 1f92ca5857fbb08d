"""Weight files mapped read-only hold what the usual mapping of them holds, and claim no memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from devtools.paths import ROOT
from pipeline.checkpoint.gguf_file import read_gguf
from pipeline.checkpoint.mmap import DTYPES, map_read_only, mapped_tensors
from pipeline.checkpoint.safetensors_file import read_header, read_tensors
from pipeline.models import load as bundled
from pipeline.models.expert import load_expert
from pipeline.models.host import plain_host
from tests.checkpoint.test_layouts import SAFETENSORS, error, velocity
from tests.support import layouts
from tests.support.comfy_in_process import comfy_host, import_comfyui
from tests.support.full_size import write_expert

LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.gguf_file import read_gguf
from pipeline.checkpoint.safetensors_file import read_tensors
read = {".gguf": read_gguf, ".safetensors": read_tensors}
for path in map(Path, sys.argv[2:]):
    read[path.suffix](path)  # imports are paid for
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26,) * 2)
for path in map(Path, sys.argv[2:]):
    try:
        read[path.suffix](path)
    except CheckpointError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(bundled.DEMO_HIGH)


@pytest.fixture(scope="module")
def original() -> torch.Tensor:
    return velocity(load_expert(bundled.DEMO_HIGH, plain_host()))


def same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return (found.dtype, found.shape) == (wanted.dtype, wanted.shape) and torch.equal(
        found.contiguous().flatten().view(torch.uint8), wanted.contiguous().flatten().view(torch.uint8))


def check_same(path: Path) -> None:
    found, wanted = mapped_tensors(read_header(path)), load_file(path)
    assert found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("name", SAFETENSORS)
def test_every_layout_is_read_bit_for_bit(name: str, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    import_comfyui()  # some layouts are written by ComfyUI
    path = tmp_path / ("expert" if "folder" in name else "expert.safetensors")
    SAFETENSORS[name][0](weights, path)
    for file in path.glob("*.safetensors") if path.is_dir() else [path]:
        check_same(file)


def test_every_dtype_empty_tensors_scalars_and_an_odd_begin(tmp_path: Path) -> None:
    tensors = {name: torch.arange(0, 48).to(torch.uint8).view(dtype).reshape(2, -1) if dtype != torch.bool
               else torch.tensor([True, False]) for name, dtype in DTYPES.items()}
    save_file({**tensors, "empty": torch.empty(0, 3, dtype=torch.float8_e4m3fn), "one": torch.tensor(2.5)},
              tmp_path / "a.safetensors")
    check_same(tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    odd = (length + 3).to_bytes(8, "little") + data[8:8 + length] + b"   " + data[8 + length:]
    (tmp_path / "odd.safetensors").write_bytes(odd)
    check_same(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_gguf_is_read_bit_for_bit(kind: str, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    from gguf import GGUFReader

    layouts.gguf_file(kind)(weights, tmp_path / "expert.gguf")
    wanted = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "expert.gguf").tensors}
    found = read_gguf(tmp_path / "expert.gguf")
    assert found.keys() == wanted.keys()
    assert all(found[name].data.numpy().tobytes() == wanted[name].tobytes() for name in wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="makes sparse files as Linux does")
@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_a_file_larger_than_the_memory_is_opened(suffix: str, tmp_path: Path) -> None:
    """A sparse file: its size is all of an expert's, or more, and its disk space none."""
    path, size = tmp_path / f"big{suffix}", 2 * (psutil.virtual_memory().total + psutil.swap_memory().total)
    if suffix == ".gguf":
        layouts.gguf_file("F16")({"blocks.0.ffn.0.bias": torch.ones(8)}, path)
    else:
        head = json.dumps({"a": {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head)
        size += 8 + len(head)
    os.truncate(path, size)
    if suffix == ".gguf":
        assert len(map_read_only(path).data) == size and len(read_gguf(path)) == 1
    else:
        assert read_tensors(path)["a"][-1] == 0


def anonymous_memory() -> int:
    """Bytes of this process that only RAM and swap can hold (Linux, Documentation/filesystems/proc.rst)."""
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(sys.platform != "linux", reason="makes sparse files as Linux does, and reads /proc")
def test_two_experts_of_28_gb_open_in_little_memory(tmp_path: Path) -> None:
    host = comfy_host()
    load_expert(bundled.DEMO_HIGH, host)  # imports are paid for
    before = anonymous_memory()
    pair = [load_expert(write_expert(tmp_path / f"{noise}.safetensors", torch.float16), host)
            for noise in ("high", "low")]
    assert [round(expert.size / 1e9, 1) for expert in pair] == [28.6, 28.6]
    assert anonymous_memory() - before < 300e6


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_scaled legacy", "int8", "nvfp4"])
def test_nothing_writes_to_a_weight(name: str, weights: dict[str, torch.Tensor], original: torch.Tensor,
                                    tmp_path: Path) -> None:
    """It would end the process: pages that are mapped so cannot be written to on any system."""
    write, most, _ = SAFETENSORS[name]
    write(weights, tmp_path / "expert.safetensors")
    assert error(velocity(load_expert(tmp_path / "expert.safetensors", comfy_host())), original) <= most


@pytest.mark.parametrize("kind", ["F16", "Q4_0"])
def test_nothing_writes_to_a_gguf_weight(kind: str, weights: dict[str, torch.Tensor],
                                         original: torch.Tensor, tmp_path: Path) -> None:
    layouts.gguf_file(kind)(weights, tmp_path / "expert.gguf")
    assert error(velocity(load_expert(tmp_path / "expert.gguf", comfy_host())), original) <= 0.15


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_may_be_removed_once_its_tensors_are_gone(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4096)}, tmp_path / "a.safetensors")
    tensors = mapped_tensors(read_header(tmp_path / "a.safetensors"))
    (tmp_path / "a.safetensors").unlink()
    assert tensors.pop("a").sum() == 4096
    assert str(tmp_path) not in Path("/proc/self/maps").read_text("utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_file_that_the_system_does_not_map(tmp_path: Path) -> None:
    big = {"blocks.0.ffn.0.bias": torch.zeros(2**25)}
    save_file(big, tmp_path / "big.safetensors")
    layouts.gguf_file("F16")(big, tmp_path / "big.gguf")
    files = [str(tmp_path / name) for name in ("big.safetensors", "big.gguf")]
    run = subprocess.run([sys.executable, "-c", LIMITED, str(ROOT), *files], capture_output=True, text=True,
                         timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "big.safetensors cannot be mapped into memory", "big.gguf cannot be mapped into memory"]
    assert all(line.endswith("or choose a smaller file, such as fp8 or GGUF.") for line in said)
