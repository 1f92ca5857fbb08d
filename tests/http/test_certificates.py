"""Whose certificates are believed: the system's and certifi's authorities, and those of the user's variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.download.fetch import fetch
from pipeline.http.environment import CA_VARIABLES
from pipeline.http.errors import DownloadError
from pipeline.http.secrets import Tokens
from tests.support.hostile_server import File, HostileServer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def get(hostile: HostileServer, folder: Path) -> bytes:
    """Fetch from a server whose authority only a company knows."""
    hostile.routes["/f"] = File(b"weights")
    return fetch("https://a.example/f", folder=folder / "cache", policy=hostile.policy(ca=None),
                 tokens=Tokens({})).read_bytes()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_company_s_authority_in_a_file(hostile: HostileServer, tmp_path: Path, variable: str,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match=r"could not prove who it is .*REQUESTS_CA_BUNDLE or SSL_CERT_FILE"):
        get(hostile, tmp_path)
    assert hostile.seen == []
    monkeypatch.setenv(variable, str(hostile.ca))
    assert get(hostile, tmp_path) == b"weights"


@pytest.mark.parametrize("variable", CA_VARIABLES)
@pytest.mark.parametrize(("content", "why"), [
    (None, "No such file|no such folder"), ("nonsense", "no certificates|no such folder")])
def test_a_variable_that_leads_nowhere_is_named(hostile: HostileServer, tmp_path: Path, variable: str,
                                                content: str | None, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "company.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(DownloadError, match=f"{variable} names {path}, which cannot be used: .*({why})"):
        get(hostile, tmp_path)
    assert hostile.seen == []


def test_a_folder_of_certificates_is_taken(hostile: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           ) -> None:
    """OpenSSL looks certificates up there by their hash, so that an empty folder adds none and spoils nothing."""
    for name in ("SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(hostile.ca))
    assert get(hostile, tmp_path) == b"weights"
