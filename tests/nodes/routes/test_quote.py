"""Prices that providers say before a run: asked with a key alone, of nothing that is the user's own, and not twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.comfy_outside import Outside

ASKED = {"provider": "WaveSpeed", "provider.model": "wavespeed-ai/wan-2.2/i2v-{resolution}-lora"}
LISTED = {"provider": "fal.ai", "provider.model": "fal-ai/wan/v2.2-a14b/image-to-video"}
SECRET = "my secret prompt"


def quoted(outside: Outside, **inputs: object) -> dict[str, Any]:
    return outside.comfy.post("/wan22/quote", {"inputs": {"prompt": SECRET, "negative_prompt": SECRET, **inputs}})


def keep(outside: Outside, name: str, key: str) -> None:
    outside.comfy.post("/wan22/keys", {"profile": "quote", "provider": name, "key": key}, parse=False)


def test_provider_is_asked_with_a_key_once_and_told_no_prompt(outside: Outside) -> None:
    name = "wavespeed"
    server, given = outside.providers[name], {**ASKED, "profile": "quote", "num_frames": 81}
    before = len(server.seen)
    missing = quoted(outside, **given, ask=True)
    assert "no API key" in missing["warnings"][0] and not missing["asked"]
    keep(outside, name, server.key)
    assert not quoted(outside, **given)["asked"] and len(server.seen) == before, "not asked unless the user changes it"
    settings = outside.own / "remote.json"
    settings.write_text('{"local_only": true}')
    try:
        held = quoted(outside, **given, ask=True)
    finally:
        settings.unlink()
    assert "Nothing may leave this machine" in held["warnings"][0] and len(server.seen) == before
    told = quoted(outside, **given, ask=True, max_cost=0.001)
    assert told["asked"] and told["price"] > 0 and "more than max_cost" in told["warnings"][0]
    assert [seen.point for seen in server.seen[before:]] == ["price"]
    assert SECRET not in repr(server.seen[-1].body) + repr(server.seen[-1].query)
    again = quoted(outside, **{**given, "prompt": "another"}, ask=True)
    assert again["price"] == told["price"] and len(server.seen) == before + 1
    assert json.dumps(again) and server.key not in json.dumps([missing, held, told, again])
    keep(outside, name, "")


def test_wrong_key_is_said(outside: Outside) -> None:
    keep(outside, "wavespeed", "no-such-key")
    told = quoted(outside, **ASKED, profile="quote", num_frames=113, ask=True)
    assert any("rejected the API" in said for said in told["warnings"]) and not told["asked"] and told["price"]
    keep(outside, "wavespeed", "")


def test_a_price_that_is_listed_is_not_asked_for(outside: Outside) -> None:
    before = len(outside.providers["fal"].seen)
    keep(outside, "fal", outside.providers["fal"].key)
    told = quoted(outside, **LISTED, profile="quote", num_frames=81, resolution="580p", ask=True)
    keep(outside, "fal", "")
    assert told["price"] == pytest.approx(81 / 16 * 0.06) and not told["asked"]
    assert len(outside.providers["fal"].seen) == before
