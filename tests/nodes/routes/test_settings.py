"""Settings in the real ComfyUI, by their routes and in its dialog: they hold for every node, and over a restart."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.paths import ROOT
from pipeline.http.secrets import SERVICES
from pipeline.remote import ui_names
from pipeline.remote.providers import PROVIDERS
from pipeline.serve.settings import ApiSettings
from pipeline.video.provenance import METADATA
from tests.support.canvas import Canvas
from tests.support.comfy_client import Run
from tests.support.comfy_outside import PICTURE, Outside, remote_node
from tests.support.runner import OWN

ROUTES = ("/wan22/settings", "/wan22/cache")
PAGE_HOLDS = """() => JSON.stringify([document.documentElement.outerHTML, {...localStorage}, {...sessionStorage},
    [...document.querySelectorAll('input')].map(input => input.value), window.app.graph.serialize()])"""
CHANGE_AT_ONCE = """changes => changes.forEach(([input, value]) => {
    input.value = value;
    input.dispatchEvent(new Event('input'));
    input.dispatchEvent(new Event('change'));
})"""
ADDED = """([type]) => {
    const node = LiteGraph.createNode(type);
    window.app.graph.add(node);
    return Object.fromEntries(node.widgets.map(widget => [widget.name, widget.value]));
}"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A ComfyUI of these tests' own, which they start anew."""
    outside = Outside(tmp_path_factory.mktemp("settings") / "servers", pace=0.02)
    outside.server.environ["WAN22_MAX_COST"] = "50"
    with outside:
        yield outside
        outside.check()


def ask(outside: Outside, path: str, body: object = None, method: str = "", **headers: str) -> tuple[int, str]:
    """The status and the text that a route answers."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    method = method or ("GET" if body is None else "POST")
    request = urllib.request.Request(outside.server.url + path, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def settle(outside: Outside, **changes: object) -> dict[str, Any]:
    status, text = ask(outside, "/wan22/settings", changes)
    assert status == 200, text
    return json.loads(text)


def run(outside: Outside, provider: str, seed: int, **inputs: object) -> Run:
    return outside.comfy.run({"picture": PICTURE, "clip": remote_node(provider, seed, **inputs),
                              "report": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}}})


def refusal(outside: Outside, provider: str, seed: int, **inputs: object) -> str:
    """Return the error with which a clip is refused; nothing was bought."""
    server = outside.providers[provider]
    bought = len(server.jobs)
    ended = run(outside, provider, seed, **inputs)
    assert ended.outcome == "execution_error" and len(server.jobs) == bought
    return ended.error["exception_message"]


def keep_key(outside: Outside, provider: str, key: str) -> None:
    assert ask(outside, "/wan22/keys", {"provider": provider, "key": key})[0] == 204


def test_the_dialog_has_the_headings_that_messages_name_and_texts_in_every_language() -> None:
    page = (ROOT / "web" / "js" / "settings.js").read_text("utf-8")
    headings = set(re.findall(r'^    "([^"]+)": ', page, re.M))
    assert {place.removeprefix("Settings > Wan 2.2 > ")
            for place in (ui_names.KEYS, ui_names.BUDGET, ui_names.SENDING)} < headings
    ids = {name.replace(".", "_") for name in re.findall(r'"(Wan22\.\w+\.\w+)"', page)}
    ids |= {name.replace(".", "_") for name in re.findall(
        r'"(Wan22\.\w+\.\w+)"', (ROOT / "web" / "js" / "settings" / "new_mp4.js").read_text("utf-8"))}
    for language in ("en", "zh", "ja"):
        folder = ROOT / "locales" / language
        texts = json.loads((folder / "settings.json").read_text("utf-8"))
        assert set(texts) == ids and all(words["name"] and words["tooltip"] for words in texts.values())
        if language != "en":  # there ComfyUI shows headings and values as they are
            assert set(texts["Wan22_NewMp4_Metadata"]["options"]) == set(METADATA), language
            shown = json.loads((folder / "main.json").read_text("utf-8"))["settingsCategories"]
            assert set(shown) == headings and all(shown.values()), language


def test_no_provider_is_named_in_the_canvas_extension_and_the_locales() -> None:
    """They are one Python file each: their names, titles and variables come from the server."""
    names = {word.lower() for provider in PROVIDERS.values()
             for word in (provider.name, provider.title, *provider.variables)}
    names |= {word.lower() for service in SERVICES for word in (service.key, *service.variables)}
    for path in (*(ROOT / "web" / "js").rglob("*.js"), *(ROOT / "locales").rglob("main.json"),
                 *(ROOT / "locales").rglob("settings.json")):
        found = set(re.findall(r"[a-z0-9_.]+", path.read_text("utf-8").lower())) & names
        assert not found, (path, found)


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"},
    {"Host": "evil.example", "Origin": "http://evil.example"}, {"Host": "evil.example:8188"}])
@pytest.mark.parametrize(("path", "method", "body"), [
    *((path, method, {"max_cost": 9}) for path in ROUTES for method in ("GET", "POST")),
    ("/wan22/cache", "DELETE", {})])
def test_pages_of_others_are_refused(outside: Outside, headers: dict[str, str], path: str, method: str,
                                     body: dict) -> None:
    assert ask(outside, path, None if method == "GET" else body, method, **headers)[0] == 403
    assert not (outside.own / "remote.json").exists()


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_not_valid_is_refused(outside: Outside, path: str) -> None:
    assert ask(outside, path, {"nothing": 1})[0] == 400
    assert ask(outside, path, {"max_cost": 1}, Content_Type="text/plain")[0] == 415
    assert ask(outside, path, {"max_cost": "x" * 2**14})[0] == 413
    name = "remote.json" if path == ROUTES[0] else "downloads.json"
    outside.own.mkdir(exist_ok=True)
    (outside.own / name).write_text("[]")
    for body, status in ((None, 409), ({"max_cost": 1, "cache_gb": 1}, 400)):
        assert ask(outside, path, body)[0] == status
    (outside.own / name).unlink()


def test_of_a_setting_with_entries_only_those_given_change(outside: Outside) -> None:
    settle(outside, own_servers={"default": "http://192.168.1.20:8188"}, concurrent={"fal": 3})
    found = settle(outside, own_servers={"work": "http://192.168.1.21:8188"}, concurrent={"replicate": 7})["settings"]
    assert found["own_servers"]["value"] == {"default": "http://192.168.1.20:8188", "work": "http://192.168.1.21:8188"}
    assert found["concurrent"]["value"] == {"fal": 3, "replicate": 7}
    assert ask(outside, "/wan22/settings", {"own_servers": {"default": None, "work": "gpubox"}})[0] == 400
    found = settle(outside, own_servers={"default": None}, concurrent={"fal": None, "replicate": None})["settings"]
    assert found["own_servers"]["value"] == {"work": "http://192.168.1.21:8188"}
    assert (found["concurrent"]["value"], found["concurrent"]["source"]) == ({}, "default")
    assert settle(outside, own_servers=None)["settings"]["own_servers"]["value"] == {}


def test_the_cache(outside: Outside) -> None:
    cache = outside.server.base / "models" / "wan22_downloads"
    path = cache / "sha256" / "ab" / ("ab" * 32)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(5000))
    os.utime(path, (1.7e9,) * 2)
    status, text = ask(outside, "/wan22/cache", {"cache_gb": 20})
    found = json.loads(text)
    assert status == 200 and found["settings"]["cache_gb"]["value"] == 20.0
    assert (found["files"], found["whole"], found["idle"], found["folder"]) == (1, 5000, 5000, str(cache))
    assert json.loads(ask(outside, "/wan22/cache", None, "DELETE")[1])["files"] == 0 and not path.exists()


def test_the_budget_holds_for_all_nodes_and_over_a_restart(outside: Outside) -> None:
    for name in ("wavespeed", "fal"):
        keep_key(outside, name, outside.providers[name].key)
    assert run(outside, "wavespeed", 1).outcome == "execution_success"
    spent = json.loads(ask(outside, "/wan22/settings")[1])["spent"]
    assert spent > 0
    settle(outside, max_cost_per_day=spent + 0.001)
    assert ui_names.BUDGET in refusal(outside, "fal", 2, max_cost_per_day=1000.0)
    outside.stop()
    outside.start()
    assert ui_names.BUDGET in refusal(outside, "fal", 3)
    found = json.loads(ask(outside, "/wan22/settings")[1])
    assert found["spent"] == spent and found["settings"]["max_cost"]["source"] == "environment"
    status, text = ask(outside, "/wan22/settings", {"max_cost": 100})
    assert status == 400 and "WAN22_MAX_COST" in text
    assert "more than max_cost," in refusal(outside, "fal", 4, max_cost=0.001)
    settle(outside, max_cost_per_day=None)
    assert run(outside, "fal", 5).outcome == "execution_success"
    assert ask(outside, "/wan22/keys", {"provider": "fal"}, "DELETE")[0] == 204


@pytest.fixture(scope="module")
def canvas(browser: Any, outside: Outside) -> Iterator[Canvas]:
    canvas = Canvas(browser, outside.server)
    yield canvas
    canvas.close()


def open_dialog(canvas: Canvas) -> None:
    canvas.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.ShowSettingsDialog')")
    canvas.page.locator("[data-nav-id='root/Wan 2.2']").click()


def row(canvas: Canvas, name: str) -> Any:
    return canvas.page.locator(f"[data-setting-id='Wan22.{name}']")


def line(canvas: Canvas, name: str, words: str) -> None:
    """Wait until a row says so."""
    row(canvas, name).locator(".wan22-settings-line", has_text=words).wait_for()


def test_the_dialog_has_the_rows_of_every_provider_and_service(canvas: Canvas) -> None:
    open_dialog(canvas)
    for provider in PROVIDERS.values():
        for group in ("Keys", "Jobs"):
            assert row(canvas, f"{group}.{provider.name}").inner_text().strip().startswith(provider.title)
        field = row(canvas, f"Jobs.{provider.name}").locator("input")
        assert field.get_attribute("placeholder") == str(provider.concurrent)
    for service in SERVICES:
        assert row(canvas, f"Downloads.{service.key}").inner_text().strip().startswith(f"{service.name} token")
    for name, standard in (("PerMinute", ApiSettings.per_minute), ("Queue", ApiSettings.queue),
                           ("RetentionDays", ApiSettings.retention_days)):
        row(canvas, f"Api.{name}").locator(f"input[placeholder='{standard:g}']").wait_for()
    canvas.page.keyboard.press("Escape")


def test_a_switch_and_the_keyboards_focus_are_seen(canvas: Canvas) -> None:
    """With the colours of any of ComfyUI's frontends."""
    canvas.open()
    open_dialog(canvas)
    row(canvas, "Budget.Day").locator("input").click()
    colours = row(canvas, "Sending.LocalOnly").locator("input").evaluate("""input => {
        const colour = (one, name) => getComputedStyle(one)[name];
        const seen = [colour(input, 'backgroundColor'), '', colour(document.activeElement, 'outlineColor')];
        input.checked = true;
        seen[1] = colour(input, 'backgroundColor');
        input.checked = false;
        return [...seen, colour(document.activeElement, 'outlineStyle')];
    }""")
    assert "rgba(0, 0, 0, 0)" not in colours and colours[0] != colours[1] and colours[3] == "solid", colours
    assert not canvas.errors


def test_a_key_goes_in_by_the_dialog_works_and_is_seen_nowhere(canvas: Canvas, outside: Outside) -> None:
    answers: list[str] = []
    canvas.page.on("requestfinished", lambda request: answers.append(request.response().text())
                   if "/wan22/" in request.url or "/settings" in request.url else None)
    key = outside.providers["fal"].key
    message = refusal(outside, "fal", 20)
    assert ui_names.KEYS in message and "FAL_KEY" in message
    open_dialog(canvas)
    line(canvas, "Keys.fal", "Not set")
    field = row(canvas, "Keys.fal").locator("input")
    assert (field.get_attribute("type"), field.get_attribute("autocomplete")) == ("password", "off")
    field.fill("two words")
    field.press("Enter")
    line(canvas, "Keys.fal", "holds a space")
    field.fill(key)
    row(canvas, "Keys.fal").get_by_text("Save", exact=True).click()
    line(canvas, "Keys.fal", "Saved")
    assert field.input_value() == ""
    assert row(canvas, "Keys.Callback").locator("input").is_disabled()
    line(canvas, "Keys.Callback", "Set by WAN22_CALLBACK_SECRET")
    row(canvas, "Keys.Profile").locator("select").select_option("")
    row(canvas, "Keys.Profile").locator("input").fill("work")
    row(canvas, "Keys.Profile").locator("input").press("Enter")
    line(canvas, "Keys.fal", "Not set")
    ended = run(outside, "fal", 21)
    assert ended.outcome == "execution_success", ended.error
    seen = [canvas.page.evaluate(PAGE_HOLDS)]
    canvas.open()
    open_dialog(canvas)
    line(canvas, "Keys.fal", "Saved")
    seen += [canvas.page.evaluate(PAGE_HOLDS), *answers, Path(outside.server.log).read_text("utf-8")]
    seen += [json.dumps(outside.comfy.get(path)) for path in ("/settings", "/history", "/internal/logs/raw", "/queue")]
    assert any('"profiles"' in text for text in answers) and "Wan22.Keys.fal" in seen[0]
    assert not [text for text in seen if key in text]
    remove = row(canvas, "Keys.fal").locator("button").last
    remove.click()
    assert remove.inner_text() == "Really?"
    remove.click()
    line(canvas, "Keys.fal", "Not set")
    assert ui_names.KEYS in refusal(outside, "fal", 22)
    assert canvas.errors.pop().startswith("Failed to load resource: the server responded with a status of 400")
    assert not canvas.errors


def test_what_is_settled_in_the_dialog_holds_and_is_there_after_a_reload(canvas: Canvas, outside: Outside) -> None:
    keep_key(outside, "wavespeed", outside.providers["wavespeed"].key)
    canvas.open()
    open_dialog(canvas)
    line(canvas, "Budget.Clip", "Set by WAN22_MAX_COST")
    assert row(canvas, "Budget.Clip").locator("input").is_disabled()
    day = row(canvas, "Budget.Day").locator("input")
    line(canvas, "Budget.Day", "spent in the last 24 hours")
    for typed, said in (("0,5", "takes a number of US dollars"), ("0.001", "Saved")):
        day.fill(typed)
        day.press("Enter")
        line(canvas, "Budget.Day", said)
    assert ui_names.BUDGET in refusal(outside, "wavespeed", 31)
    row(canvas, "Sending.LocalOnly").locator("input").check()
    line(canvas, "Sending.LocalOnly", "Saved")
    assert ui_names.SENDING in refusal(outside, "wavespeed", 32)
    jobs = row(canvas, "Jobs.fal").locator("input")
    canvas.page.evaluate(CHANGE_AT_ONCE, [[jobs.element_handle(), "20"],
                                          [row(canvas, "Jobs.replicate").locator("input").element_handle(), "7"]])
    line(canvas, "Jobs.fal", "Saved")
    line(canvas, "Jobs.replicate", "Saved")
    settle(outside, concurrent={"wavespeed": 4})  # as another tab does; this page does not know of it
    jobs.fill("21")
    jobs.press("Enter")
    canvas.page.wait_for_function("input => input.value === '4'",
                                  arg=row(canvas, "Jobs.wavespeed").locator("input").element_handle())
    settle(outside, concurrent={"wavespeed": None})
    canvas.open()
    open_dialog(canvas)
    line(canvas, "Budget.Day", "spent in the last 24 hours")
    assert (day.input_value(), jobs.input_value()) == ("0.001", "21")
    assert row(canvas, "Jobs.wavespeed").locator("input").input_value() == ""
    assert row(canvas, "Sending.LocalOnly").locator("input").is_checked()
    stored = json.loads((outside.own / "remote.json").read_text())
    assert stored == {"max_cost_per_day": 0.001, "local_only": True, "concurrent": {"fal": 21, "replicate": 7}}
    assert not [name for name in outside.comfy.get("/settings") if name.startswith("Wan22.")]
    row(canvas, "Sending.LocalOnly").locator("input").uncheck()
    line(canvas, "Sending.LocalOnly", "Saved")
    day.fill("")
    day.press("Enter")
    line(canvas, "Budget.Day", "Saved")
    assert run(outside, "wavespeed", 33).outcome == "execution_success"
    assert canvas.errors.pop().startswith("Failed to load resource: the server responded with a status of 400")
    assert not canvas.errors


def test_the_address_of_ones_own_comfyui_goes_in_by_the_dialog_and_its_key_with_it(canvas: Canvas, outside: Outside,
                                                                                  ) -> None:
    there = outside.providers[OWN]
    canvas.open()
    open_dialog(canvas)
    address, key = (row(canvas, f"{group}.{OWN}").locator("input") for group in ("Servers", "Keys"))
    for typed, said in (("gpubox", "is not an address"), ("http://169.254.169.254", "no server of your network"),
                        ("http://8.8.8.8:8188", "Use https"), (there.address, "Saved")):
        address.fill(typed)
        address.press("Enter")
        line(canvas, f"Servers.{OWN}", said)
    key.fill(there.key)
    key.press("Enter")
    line(canvas, f"Keys.{OWN}", "Saved")
    ended = run(outside, OWN, 41)
    assert ended.outcome == "execution_success", ended.error
    address.fill("http://192.168.1.20:8188")
    address.press("Enter")
    line(canvas, f"Keys.{OWN}", "Not set")
    address.fill("")
    address.press("Enter")
    line(canvas, f"Servers.{OWN}", "Saved")
    assert "There is no address of" in refusal(outside, OWN, 42)
    assert all(error.startswith("Failed to load resource: the server responded with a status of 400")
               for error in canvas.errors) and len(canvas.errors) == 3
    canvas.errors.clear()


def test_an_address_is_for_the_profile_in_which_it_was_typed(canvas: Canvas, outside: Outside) -> None:
    body = {"profile": "work", "provider": OWN, "key": "wan22_0123456789"}
    assert ask(outside, "/wan22/keys", body)[0] == 204
    settle(outside, own_servers={"work": "http://192.168.1.21:8188"})
    canvas.open()
    open_dialog(canvas)
    address, profile = row(canvas, f"Servers.{OWN}").locator("input"), row(canvas, "Keys.Profile").locator("select")
    profile.get_by_text("work").wait_for(state="attached")
    for typed, said in (("gpubox", "is not an address"), ("http://192.168.1.22:8188", "Saved")):
        canvas.page.evaluate(CHANGE_AT_ONCE, [[address.element_handle(), typed], [profile.element_handle(), "work"]])
        line(canvas, f"Servers.{OWN}", said)
        assert address.input_value() == "http://192.168.1.21:8188"
        profile.select_option("default")
    found = json.loads(ask(outside, "/wan22/settings")[1])["settings"]["own_servers"]["value"]
    assert found == {"work": "http://192.168.1.21:8188", "default": "http://192.168.1.22:8188"}
    assert address.input_value() == "http://192.168.1.22:8188"
    settle(outside, own_servers=None)
    assert ask(outside, "/wan22/keys", {"profile": "work", "provider": OWN}, "DELETE")[0] == 204
    assert canvas.errors.pop().startswith("Failed to load resource: the server responded with a status of 400")
    assert not canvas.errors


def test_a_key_of_the_api_is_made_in_the_dialog_and_shown_once(canvas: Canvas, outside: Outside) -> None:
    canvas.load(json.loads((ROOT / "workflows" / "image-to-video-demo.json").read_text("utf-8")))
    open_dialog(canvas)
    line(canvas, "Api.Keys", "No key yet")
    row(canvas, "Api.On").locator("input").check()
    line(canvas, "Api.On", "Saved")
    field = row(canvas, "Api.Keys").locator("input").first
    field.fill("shop")
    field.press("Enter")
    line(canvas, "Api.Keys", "Keys: 1")
    key, secret = (shown.input_value() for shown in row(canvas, "Api.Keys").locator(".wan22-settings-made input").all())
    assert key.startswith("wan22_") and secret.startswith("whsec_")
    field = row(canvas, "Api.SavedModels").locator("input")
    field.fill("mine")
    field.press("Enter")
    row(canvas, "Api.SavedModels").locator("select").get_by_text("mine").wait_for(state="attached")
    row(canvas, "Api.Model").locator("select").select_option("mine")
    line(canvas, "Api.Model", "Saved")
    status, text = ask(outside, "/wan22/api/v1/models", Authorization=f"Bearer {key}")
    assert status == 200 and json.loads(text)["models"][0]["id"] == "mine"
    canvas.open()
    open_dialog(canvas)
    line(canvas, "Api.Keys", "Keys: 1")
    held = canvas.page.evaluate(PAGE_HOLDS)
    assert row(canvas, "Api.On").locator("input").is_checked() and key not in held and secret not in held
    revoke = row(canvas, "Api.Keys").locator("button").last
    revoke.click()
    revoke.click()
    line(canvas, "Api.Keys", "No key yet")
    assert ask(outside, "/wan22/api/v1/models", Authorization=f"Bearer {key}")[0] == 401
    assert not canvas.errors


def test_the_key_that_is_revoked_is_the_one_that_was_asked_about(canvas: Canvas, outside: Outside) -> None:
    for name in ("one", "two", "three"):
        assert ask(outside, "/wan22/serving/keys", {"name": name})[0] == 200
    canvas.open()
    open_dialog(canvas)
    line(canvas, "Api.Keys", "Keys: 3")
    chosen, revoke = row(canvas, "Api.Keys").locator("select"), row(canvas, "Api.Keys").locator("button").last
    first, second, third = (option.inner_text() for option in chosen.locator("option").all())

    def refresh(number: str) -> None:
        """Let the page show the server's state anew, with the focus where it is."""
        field = row(canvas, "Api.PerMinute").locator("input")
        canvas.page.evaluate(CHANGE_AT_ONCE, [[field.element_handle(), number]])
        canvas.page.wait_for_function("([row, number]) => row.querySelector('input').value === number"
                                      " && row.textContent.includes('Saved')",
                                      arg=[row(canvas, "Api.PerMinute").element_handle(), number])

    chosen.select_option(third)
    revoke.click()
    refresh("31")
    assert (chosen.input_value(), revoke.inner_text()) == (third, "Really?")
    revoke.click()
    line(canvas, "Api.Keys", "Keys: 2")
    chosen.select_option(second)
    revoke.click()
    assert ask(outside, "/wan22/serving/keys", {"name": second}, "DELETE")[0] == 200
    refresh("32")
    line(canvas, "Api.Keys", "Keys: 1")
    assert (chosen.input_value(), revoke.inner_text()) == (first, "Revoke")
    assert ask(outside, "/wan22/serving/keys", {"name": first}, "DELETE")[0] == 200
    assert ask(outside, "/wan22/serving", {"per_minute": None})[0] == 200
    assert not canvas.errors


def test_new_mp4_nodes_start_as_settled_and_loaded_ones_do_not(canvas: Canvas) -> None:
    page = canvas.page
    start = page.evaluate(ADDED, ["Wan22SaveMP4"])
    page.evaluate("""async () => {
        const setting = window.app.extensionManager.setting;
        await setting.set('Wan22.NewMp4.Quality', 23);
        await setting.set('Wan22.NewMp4.Metadata', 'none');
        await setting.set('Wan22.NewMp4.Mark', false);
    }""")
    settled = {"crf": 23, "metadata": "none", "mark_ai_generated": False}
    for node in ("Wan22SaveMP4", "Wan22DecodeToMP4"):
        added = page.evaluate(ADDED, [node])
        assert {name: added[name] for name in settled} == settled and added["preset"] == start["preset"]
    canvas.load(json.loads((ROOT / "workflows" / "image-to-video-demo.json").read_text("utf-8")))
    drawn = next(node for node in canvas.prompt().values() if node["class_type"] == "Wan22SaveMP4")
    page.evaluate("prompt => window.app.loadApiJson(prompt, 'loaded')",
                  {"1": {"class_type": "Wan22SaveMP4", "inputs": {"filename_prefix": "a", "fps": 16.0}}})
    sent = canvas.prompt()["1"]
    for node in (drawn, sent):
        assert {name: node["inputs"][name] for name in settled} == {name: start[name] for name in settled}
    page.evaluate("async () => { try { await window.app.loadApiJson(null, 'broken') } catch {} }")
    added = page.evaluate(ADDED, ["Wan22SaveMP4"])
    assert {name: added[name] for name in settled} == settled
    assert not canvas.errors
