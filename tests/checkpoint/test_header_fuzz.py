"""Hostile .safetensors headers: each kind of fault has its sentence, and nothing costs more memory than it may."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.header import FileHeader
from pipeline.checkpoint.safetensors_file import (
    MAX_REMOTE_HEADER,
    MAX_TENSORS,
    read_header,
    read_remote_header,
    read_tensors,
)
from pipeline.lora.expert import choose_expert
from pipeline.lora.probe import probe_lora

LIMIT = 64_000_000
"""Bytes."""
NAME = "lora.safetensors"


def file_of(text: bytes, body: int = 0) -> bytes:
    return len(text).to_bytes(8, "little") + text + bytes(body)


def remote(data: bytes, size: int | None = None) -> FileHeader:
    """The header as a server's ranges give it; what is read beyond the header is a fault."""
    end = 8 + int.from_bytes(data[:8], "little")

    def read(offset: int, count: int) -> bytes:
        assert offset + count <= max(end, 64)
        return data[offset:offset + count]

    return read_remote_header(NAME, read, size)


def entry(dtype: str = "F16", shape: object = (2, 3), offsets: object = (0, 12)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def said_of(text: bytes | dict[str, object], body: int = 12) -> str:
    """What is said of a header, which is the same from a server as from a file."""
    data = file_of(text if isinstance(text, bytes) else json.dumps(text).encode(), body)
    with pytest.raises(CheckpointError, match=f"^{NAME} is ") as error:
        remote(data, len(data))
    return str(error.value)


def test_a_file_and_a_server_tell_the_same(tmp_path: Path) -> None:
    text = json.dumps({"__metadata__": {"a": "\u00e9\\\"", "b": ""}, "y": entry(shape=[], offsets=[12, 14]),
                       "x": entry(), "é": entry("F4", [3, 4], [14, 20])}).encode()
    path = tmp_path / NAME
    path.write_bytes(file_of(text, 20))
    local = read_header(path)
    told = remote(path.read_bytes(), 8 + len(text) + 20)
    assert told == remote(path.read_bytes(), None)
    assert local == FileHeader(path, told.dtypes, told.shapes, told.metadata, told.offsets, told.whole)
    assert local.metadata == {"a": "é\\\"", "b": ""} and local.shapes == {"x": (2, 3), "y": (), "é": (3, 4)}
    assert local.offsets["y"] == 8 + len(text) + 12 and local.whole == path.stat().st_size


@pytest.mark.parametrize(("header", "said"), [
    ({"x": entry(offsets=[0, 11])}, r"x of F16 [2, 3] cannot be of 11 bytes"),
    ({"x": entry(offsets=[1, 13])}, "x is at bytes 1 to 13, where 0 is next"),
    ({"x": entry(), "y": entry(offsets=[11, 23])}, "y is at bytes 11 to 23, where 12 is next"),
    ({"x": entry(), "y": entry(offsets=[13, 25])}, "y is at bytes 13 to 25, where 12 is next"),
    ({"x": entry(offsets=[12, 0])}, "x is at bytes 12 to 0"),
    ({"x": entry("F4", [3], [0, 2])}, "x of F4 [3] cannot be of 2 bytes"),
    ({"x": entry(shape=[2**62, 2**62])}, "x is larger than any file"),
    ({"x": entry(shape=[2**64])}, "not a whole number from 0 on"),
    ({"x": entry(shape=[-2, -3])}, "not a whole number from 0 on"),
    ({"x": entry(shape=[2.0, 3])}, "not a whole number from 0 on"),
    ({"x": entry(shape=[True, 6])}, "not a whole number from 0 on"),
    ({"x": entry(shape=["2", 3])}, "not a whole number from 0 on"),
    ({"x": entry(shape=[float("nan")])}, "not a whole number from 0 on"),
    ({"x": entry(offsets=[0, float("inf")])}, "not a whole number from 0 on"),
    ({"x": entry(offsets=[0, 12, 12])}, "3 offsets"),
    ({"x": entry(shape=[1] * 17)}, "17 dimensions"),
    ({"x": entry(shape=None)}, "not of dtype, shape and data_offsets"),
    ({"x": entry(dtype="f 16")}, "not of dtype, shape and data_offsets"),
    ({"x": entry() | {"more": 1}}, "not of dtype, shape and data_offsets"),
    ({"x": {"dtype": "F16", "shape": [6]}}, "not of dtype, shape and data_offsets"),
    ({"x": []}, "'{' expected"),
    ({"x" * 2000: entry()}, "name is too long"),
    (b'{"__metadata__":{"a":1]}}', "expected at byte"),
    (b'{"__metadata__":{"a":nul}}', "a value expected at byte"),
    (b'{"__metadata__":{"a":[[1}}', "expected at byte"),
    (b'{"__metadata__":{"a":[' + b"1," * 300_000 + b"1]}}", "more than 500,000 bytes of other values"),
    (b'{"__metadata__":}', "a value expected at byte"),
    (b"[]", "'{' expected"),
    (b"null", "'{' expected"),
    (b"", "'{' expected"),
    (b'{"x', "does not end"),
    (b'{"x":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', "not a whole number from 0 on"),
    (b"{} x", "goes on after its end"),
    (b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', "surrogates not allowed"),
    (b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', "can't decode byte"),
    (b'{"x":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}', "not of dtype, shape and data_offsets"),
    (b'{"x":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,0]}}', "an entry does not end"),
    (b'{"x":{"dtype":' + b"[" * 980 + b"]" * 980 + b"}}", "an entry does not end"),
    (b'{"x":{"dtype":' + b"[" * 980 + b"}}", "cannot be read"),
])
def test_faults_have_a_sentence(header: bytes | dict[str, object], said: str) -> None:
    told = said_of(header)
    assert said in told and len(told) < 400


@pytest.mark.parametrize(("text", "found"), [
    ("null", {}), ("[]", {}), ("3", {}), ('"x"', {}), ("{}", {}), ('{"a": "b", "c": null}', {"a": "b", "c": "null"}),
    ('{"r": 4, "x": -1.5e3, "y": true, "n": NaN}', {"r": "4", "x": "-1.5e3", "y": "true", "n": "NaN"}),
    ('{"o": {"a": [1, {"}": "]"}]} , "b": "c"}', {"o": '{"a": [1, {"}": "]"}]}', "b": "c"}),
])
def test_metadata_of_other_values_than_strings_is_no_damage(text: str, found: dict[str, str], tmp_path: Path) -> None:
    """safetensors' own reader refuses all of them but null."""
    path = tmp_path / NAME
    path.write_bytes(file_of(b'{"__metadata__": %s, "x": %s}' % (text.encode(), json.dumps(entry()).encode()), 12))
    assert read_header(path).metadata == found
    assert read_tensors(path)["x"].shape == (2, 3)


@pytest.mark.parametrize("names", [b'"x":%s,"x":%s', b'"x":%s,"\\u0078":%s'])
def test_a_name_that_comes_twice(names: bytes) -> None:
    empty = json.dumps(entry(shape=[0], offsets=[0, 0])).encode()
    assert "comes twice" in said_of(b"{" + names % (empty, empty) + b"}", 0)


def test_sizes_that_do_not_agree() -> None:
    data = file_of(json.dumps({"x": entry()}).encode(), 12)
    assert remote(data, len(data)).whole == len(data)
    with pytest.raises(CheckpointError, match="cut short: it should hold"):
        remote(data, len(data) - 1)
    with pytest.raises(CheckpointError, match="damaged: it should hold"):
        remote(data, len(data) + 1)
    with pytest.raises(CheckpointError, match=r"cut short: .* header were asked for"):
        remote(data[:20], None)
    for length in (10**8 + 1, 2**63, len(data)):
        with pytest.raises(CheckpointError, match=r"not a safetensors file, or it is cut short"):
            remote(length.to_bytes(8, "little") + data[8:], len(data))
    with pytest.raises(CheckpointError, match="is the most that is read from a server"):
        remote((MAX_REMOTE_HEADER + 1).to_bytes(8, "little") + data[8:], None)
    with pytest.raises(CheckpointError, match=r"the most that is read from a server|not a safetensors file"):
        remote((10**8 + 1).to_bytes(8, "little") + data[8:], None)


def test_dtypes_of_the_format_and_one_newer() -> None:
    for dtype, size in (("BOOL", 6), ("F4", 3), ("F8_E8M0", 6), ("F8_E4M3FNUZ", 6), ("BF16", 12), ("C64", 48)):
        data = file_of(json.dumps({"x": entry(dtype, [2, 3], [0, size])}).encode(), size)
        assert remote(data, len(data)).dtypes == {"x": dtype}
        safetensors.deserialize(data)
    assert remote(file_of(json.dumps({"x": entry("F2_NEW", [2, 3], [0, 5])}).encode()), None).dtypes == {"x": "F2_NEW"}


@pytest.mark.parametrize(("start", "said"), [
    (b"", "is empty"),
    (b"<!DOCTYPE html>", "is a web page"),
    (b'{"error":"Sign in"}', "is a server's answer in JSON"),
    (b"version https://git-lfs", "is a Git LFS pointer"),
    (b"PK\x03\x04....", "is a PyTorch pickle"),
    (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}", "is a PyTorch pickle"),
    (b"\x80\x02\x8a\nl\xfc\x9c\x46", "is a PyTorch pickle"),
    (b"GGUF\x03\0\0\0", "is not a safetensors file"),
    (b"\x02\0\0", "is not a safetensors file"),
])
def test_what_is_no_safetensors_at_all(start: bytes, said: str) -> None:
    with pytest.raises(CheckpointError, match=f"{NAME} {said}"):
        read_remote_header(NAME, lambda offset, count: start[offset:offset + count], None)


# ---- memory -------------------------------------------------------------------------------------------------------

EMPTY = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
SIZE = 15 * 2**20
BOMBS = {
    "lists": b'{"a":' + b"[]," * (SIZE // 3),
    "nesting": b'{"a":' + b"[" * SIZE,
    "notes": b'{"__metadata__":{' + b'"":"",' * (SIZE // 6),
    "wide note": b'{"__metadata__":{"a":"' + b"a" * 3_900_000 + "\U0001f600".encode() * (SIZE // 4 - 975_100) + b'"}}',
    "kept wide note": b'{"__metadata__":{"a":"' + "\U0001f600".encode() + b"a" * 3_900_000 + b'","b":"' + b"b"
                      * (SIZE - 3_900_100) + b'"}}',
    "nested notes": b'{"__metadata__":{"a":' + b"[" * SIZE,
    "adapter settings": b'{"__metadata__":{"lora_adapter_metadata":[' + b"[]," * 160_000 + b"[]]},"
                        b'"blocks.0.self_attn.q.diff":%s}' % EMPTY,
    "long names": b"{" + b",".join(b'"blocks.0.self_attn.q.%0420d.lora_up.weight":%s' % (number, EMPTY)
                                   for number in range(MAX_TENSORS - 1)) + b"}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_header_takes_much_memory(bomb: str) -> None:
    data = file_of(BOMBS[bomb])
    tracemalloc.start()
    try:
        probe_lora(remote(data, len(data)))
    except CheckpointError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < LIMIT, f"{peak:,} bytes"


# ---- anything at all ------------------------------------------------------------------------------------------------

PREFIXES = st.sampled_from(["diffusion_model.blocks.0.self_attn.q.", "transformer_2.blocks.1.attn1.to_q.", "",
                            "lora_unet_blocks_0_ffn_0.", "vace_blocks.0.cross_attn.k.", "double_blocks.0.x.",
                            "lora_te1_x."])
PARTS = st.sampled_from(["lora_down.weight", "lora_up.weight", "lora_A.weight", "lora_B.default.weight", "alpha",
                         "hada_w1_a", "hada_w1_b", "lokr_w1", "lokr_w2_b", "dora_scale", "weight", "diff"])
ODD = st.sampled_from([-1, 0, 1, 8, 2**31, 2**63, 2**64, 10**400, 1.5, float("nan"), None, True, "8", [], {}])
NUMBERS = st.integers(0, 64) | ODD
ENTRIES = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F16", "F4", "U8", "Q9", "", 3]), "shape": st.lists(NUMBERS, max_size=4) | ODD,
     "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2) | ODD}) | ODD
HEADERS = st.dictionaries(st.builds(str.__add__, PREFIXES, PARTS) | st.text(max_size=8), ENTRIES, max_size=6)


@st.composite
def whole_headers(draw: st.DrawFn) -> dict[str, object]:
    """Headers that are right but for what their tensors are called and shaped."""
    header: dict[str, object] = {}
    end = 0
    for name in draw(st.lists(st.builds(str.__add__, PREFIXES, PARTS), unique=True, max_size=12)):
        shape = draw(st.lists(st.integers(0, 8), max_size=4))
        size = 1
        for dim in shape:
            size *= dim
        begin, end = end, end + size
        header[name] = entry("U8", shape, [begin, end])
    header["__metadata__"] = draw(st.dictionaries(st.sampled_from(["modelspec.timestep_range", "ss_output_name", "x"]),
                                                  st.text(max_size=30)))
    return header


FLIPS = st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3)), max_size=3)


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(header=HEADERS | whole_headers(), flips=FLIPS, known=st.booleans(), file_name=st.text(max_size=40))
def test_any_header_is_read_or_refused(header: dict[str, object], flips: list[tuple[int, bytes]], known: bool,
                                       file_name: str) -> None:
    text = bytearray(json.dumps(header).encode())
    for at, instead in flips:
        text[at:at + 1] = instead
    data = file_of(bytes(text))
    try:
        told = remote(data, len(data) if known else None)
        choose_expert(probe_lora(told), file_name, told.metadata)
    except CheckpointError as error:
        assert NAME in str(error) and str(error).encode()
