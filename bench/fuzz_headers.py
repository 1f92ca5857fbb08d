"""Damaged and hostile .safetensors headers, many, through the header reader and the LoRA probe.

usage: fuzz_headers.py [--count 200000] [--seed 0] [--workers 1] [--no-bombs]

Each input is a real header (LoRAs in every style of names, an expert, a VAE) with a few mutations: bytes changed, cut
or repeated, pieces of another header put in, numbers made extreme, brackets nested, names repeated, the length in
front changed. It goes through `read_remote_header`, one in twenty through `read_header` as a file, and what is accepted
through `probe_lora` and `choose_expert`. Counted: what is accepted and refused, exceptions other than CheckpointError
(none may be), the highest memory of one input (tracemalloc) and the longest time. What is accepted is also given to the
safetensors library, which must accept it too but for dtypes that it does not know.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.checkpoint.errors import CheckpointError  # noqa: E402
from pipeline.checkpoint.safetensors_file import read_header, read_remote_header  # noqa: E402
from pipeline.lora.expert import choose_expert  # noqa: E402
from pipeline.lora.probe import check_fits, probe_lora  # noqa: E402

NUMBERS = (b"0", b"-1", b"1e9", b"18446744073709551616", b"9223372036854775807", b"4294967296", b"NaN", b"Infinity",
           b"true", b"null", b"0.5", b'"8"', b"9" * 500, b"[]", b"{}", b"01", b"-0")
TOKENS = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\xff", b"\0", b" ",
          b"\xf0\x9f\x98\x80", b'"__metadata__":{},', b'"__metadata__":{"a":"b"},', b'"F8_E8M0"', b'"F4"', b'"Q4"',
          b"lora_up", b"high")


HIGHEST, LONGEST = "highest memory of one", "longest time of one"


def written(shapes: dict[str, list[int]], metadata: dict[str, str] | None = None) -> bytes:
    """A header's JSON, of F16 tensors."""
    entries: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for dim in shape:
            size *= dim
        begin, end = end, end + size
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    return json.dumps(entries, separators=(",", ":")).encode()


def seeds() -> list[bytes]:
    """Small headers of what people have: eight wide, so that whole files stay small."""
    found = []
    styles = ("diffusion_model.blocks.{}.self_attn.{}.", "transformer.blocks.{}.attn1.to_{}.",
              "transformer_2.blocks.{}.attn1.to_{}.", "base_model.model.blocks.{}.cross_attn.{}.",
              "lora_unet_blocks_{}_self_attn_{}.", "blocks.{}.cross_attn.{}.")
    metadata = {"modelspec.timestep_range": "0,900", "ss_output_name": "wan22_high", "ss_tag_frequency": '{"a": "\\""}'}
    parts = ({"lora_down.weight": [4, 8], "lora_up.weight": [8, 4], "alpha": []},
             {"lora_A.default.weight": [4, 8], "lora_B.default.weight": [8, 4], "dora_scale": [8, 1]},
             {"hada_w1_a": [8, 2], "hada_w1_b": [2, 8], "hada_w2_a": [8, 2], "hada_w2_b": [2, 8]},
             {"lokr_w1": [2, 2], "lokr_w2_a": [4, 2], "lokr_w2_b": [2, 4], "alpha": []},
             {"diff": [8, 8], "diff_b": [8]})
    for style in styles:
        for part in parts:
            shapes = {style.format(block, module) + name: shape for block in range(2) for module in "qk"
                      for name, shape in part.items()}
            found.append(written(shapes, metadata))
    expert = {"patch_embedding.weight": [8, 36, 1, 2, 2], "head.head.weight": [64, 8], "head.modulation": [1, 2, 8],
              "blocks.0.ffn.0.weight": [16, 8], "blocks.0.self_attn.q.weight": [8, 8]}
    found += [written(expert), written({"decoder.head.0.gamma": [4], "encoder.conv1.weight": [4]}), b"{}"]
    return found


def mutated(rng: random.Random, pool: list[bytes]) -> bytes:
    """One header with one to six mutations."""
    text = bytearray(rng.choice(pool))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((1, 2, 8, 60)))
        kind = rng.randrange(8)
        if kind == 0:
            text[at:at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del text[at:end]
        elif kind == 2:
            text[at:at] = text[at:end] * rng.choice((1, 2, 50))
        elif kind == 3:
            other = rng.choice(pool)
            place = rng.randrange(len(other) + 1)
            text[at:at] = other[place:place + rng.choice((4, 40, 400))]
        elif kind == 4:
            digits = [place for place, byte in enumerate(text) if 48 <= byte <= 57]
            if digits:
                place = rng.choice(digits)
                text[place:place + 1] = rng.choice(NUMBERS)
        elif kind == 5:
            text[at:end if rng.random() < 0.3 else at] = rng.choice(TOKENS)
        elif kind == 6:
            text[at:at] = rng.choice((b"[", b'{"a":', b"[[],", b" ", b'"')) * rng.choice((1, 100, 5000))
        else:
            quote = text.find(b'"', at)
            text[quote + 1:quote + 1] = rng.choice((b"a" * 2000, b"\\" * rng.randrange(9), b'\\"' * 3000, b"\xe2\x82"))
    return bytes(text)


def as_file(rng: random.Random, text: bytes) -> bytes:
    """The header with its length in front and zeros for its tensors behind, as many as its entries say if they do."""
    length = len(text) if rng.random() < 0.95 else rng.choice((0, 7, 2**26, 2**63, 10**8, len(text) - 1, len(text) + 1))
    body = 0
    if rng.random() < 0.9:
        try:
            entries = json.loads(text)
            body = max(entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            body = rng.randrange(4)
    small = isinstance(body, int) and 0 <= body < 100_000
    return max(length, 0).to_bytes(8, "little") + text + bytes(body if small else 0)


def attempt(data: bytes, size: int | None, path: Path | None) -> str:
    """Return the reader's objection to the header, "" for none. Raises nothing but what is a fault."""
    def read(offset: int, count: int) -> bytes:
        return data[offset:offset + count]

    try:
        header = read_remote_header("file.safetensors", read, size) if path is None else read_header(path)
    except CheckpointError as error:
        return re.sub(r"[0-9]+", "...", str(error).partition("(")[2])[:70] or "other"
    try:
        facts = probe_lora(header)
        choose_expert(facts, "wan22_low_noise.safetensors", header.metadata)
        check_fits(facts, 8, 2)
    except CheckpointError as error:
        str(error).encode("utf-8")
    return ""


def library_says(data: bytes) -> str:
    """Return the safetensors library's objection to the file, "" for none."""
    try:
        safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        return re.sub(r"`[^`]*`|[0-9]+", "...", str(error))[:70]
    return ""


def bombs(size: int) -> Iterator[tuple[str, bytes]]:
    """Headers of `size` bytes that are made to cost memory or time, by name."""
    def filled(name: str, head: bytes, piece: Callable[[int], bytes], tail: bytes) -> tuple[str, bytes]:
        text = bytearray(head)
        number = 0
        while len(text) < size - 1200:
            text += b"".join(piece(number + i) for i in range(64))
            number += 64
        return name, bytes(text[:size - 1200].rpartition(b"|")[0].replace(b"|", b"") + tail)

    entry = b'{"dtype":"U8","shape":[%s],"data_offsets":[0,0]}'
    empty, last = entry % b"0" + b",", b'"z":' + entry % b"0" + b"}"
    yield filled("empty lists", b'{"a":', lambda _: b"|[],", b"[]}")
    yield "nested lists", b'{"a":' + b"[" * (size - 10)
    yield "nested objects", b'{"a":' * (size // 5)
    yield filled("many tensors", b"{", lambda i: b'|"%d":' % i + empty, last)
    yield filled("many long names", b"{", lambda i: b'|"%0480d":' % i + empty, last)
    big = entry % b",".join([b"0"] + [b"9223372036854775806"] * 15)
    yield filled("many dimensions", b"{", lambda i: b'|"%d":' % i + big + b",", last)
    lora = b'|"blocks.%d.self_attn.q.%0420d.lora_up.weight":'
    yield filled("many LoRA tensors", b"{", lambda i: lora % (i % 9999, i) + empty, last)
    yield filled("many notes", b'{"__metadata__":{', lambda i: b'|"%d":"",' % i, b'"z":""}}')
    smile = "\U0001f600".encode()
    yield filled("a long note of wide characters", b'{"__metadata__":{"a":"', lambda _: b"|" + smile * 8, b'"}}')
    yield filled("notes of 4 MB with a wide character", b'{"__metadata__":{"a":"' + smile,
                 lambda i: b"|" + (b"a" * 64 if i < 62_000 else b'","%d":"' % i), b'"}}')
    yield filled("escaped quotes", b'{"__metadata__":{"a":"', lambda _: b'|\\"', b'"}}')
    yield filled("escapes without end", b'{"__metadata__":{"a":"', lambda _: b"|\\\\", b"")
    yield "a string without end", b'{"' + b"a" * (size - 2)
    yield "white space", b"{" + b" " * (size - 2) + b"}"
    yield "a number without end", b'{"a":{"dtype":"U8","shape":[' + b"9" * (size - 30)
    yield "commas", b"{" + b"," * (size - 1)


def run(seed: int, count: int) -> Counter[str]:
    """One worker's share: how often each thing happened, and under HIGHEST and LONGEST bytes and microseconds."""
    rng = random.Random(seed)
    pool = seeds()
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.safetensors"
        for number in range(count):
            data = as_file(rng, mutated(rng, pool))
            on_disk = number % 20 == 0
            size = None if rng.random() < 0.1 else len(data)
            if on_disk:
                path.write_bytes(data)
            tracemalloc.start()
            began = time.perf_counter()
            try:
                reason = attempt(data, size, path if on_disk else None)
            except BaseException as error:
                told["crashed"] += 1
                print(f"{type(error).__name__}: {error}\n{data!r}"[:2000], flush=True)
                continue
            finally:
                told[LONGEST] = max(told[LONGEST], round((time.perf_counter() - began) * 1e6))
                told[HIGHEST] = max(told[HIGHEST], tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
            told["refused" if reason else "accepted"] += 1
            if on_disk or size is not None:
                said = library_says(data)
                if said and not reason:
                    told[f"accepted, though the library says: {said}"] += 1
                if reason and not said:
                    told[f"refused, though the library accepts it: {reason}"] += 1
    return told


def explode() -> None:
    """A table of what the bombs cost."""
    print("| hostile header, 16 MiB | accepted | seconds | highest memory, MB |\n|---|---|---|---|")
    for name, text in bombs(16 * 2**20):
        data = len(text).to_bytes(8, "little") + text
        tracemalloc.start()
        began = time.perf_counter()
        reason = attempt(data, len(data), None)
        print(f"| {name} | {'no' if reason else 'yes'} | {time.perf_counter() - began:.2f} | "
              f"{tracemalloc.get_traced_memory()[1] / 1e6:.1f} |", flush=True)
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-bombs", dest="bombs", action="store_false")
    options = parser.parse_args()
    if options.bombs:
        explode()
    share = -(-options.count // options.workers)
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(options.workers) as workers:
        tolds = workers.starmap(run, [(options.seed + worker, share) for worker in range(options.workers)])
    total = sum(tolds, Counter())
    print(f"\n{share * options.workers:,} mutated headers in {time.perf_counter() - began:.0f} s")
    for what, times in sorted(total.items()):
        if what not in (HIGHEST, LONGEST):
            print(f"{what}: {times:,}")
    print(f"{HIGHEST}: {max(told[HIGHEST] for told in tolds) / 1e6:.2f} MB")
    print(f"{LONGEST}: {max(told[LONGEST] for told in tolds) / 1e3:.1f} ms")


if __name__ == "__main__":
    main()
