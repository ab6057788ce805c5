"""The scope azure-keyvault: Azure's own library against a TLS server of ours that speaks the two interfaces it calls.

The server is not Azure: what it shows is our use of the library, its challenge and the errors. cases 31 and 38.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.conftest import make_settings

from quayside.dataloader.errors import DriverMissingError
from quayside.dataloader.secrets import open_scope
from quayside.dataloader.sources.fields import Field, resolve_fields
from quayside.foundation.errors import ServiceUnavailableError, SettingsError

pytestmark = pytest.mark.integration

VALUE, CLIENT_SECRET, TOKEN = "pl4nted-vault-value", "pl4nted-client-secret", "t0ken-of-the-vault"


@dataclass
class Vault:
    """Secrets, and what was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    ill: bool = False


def certificate(folder: Path) -> Path:
    """A key and a certificate of 127.0.0.1, signed by itself, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vault of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "vault.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(pem)
    )
    return path


def handler(vault: Vault) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None: ...

        def answer(self, status: int, body: Any, **headers: str) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            vault.asked.append("token")
            if form["client_secret"] != [CLIENT_SECRET]:
                self.answer(401, {"error": "invalid_client", "error_description": "AADSTS7000215: wrong."})
            else:
                self.answer(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": TOKEN})

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.endswith("openid-configuration"):
                base = f"{vault.url}/tenant"
                self.answer(
                    200,
                    {"issuer": f"{base}/v2.0", "token_endpoint": f"{base}/oauth2/v2.0/token", "authorization_endpoint": base},
                )  # fmt: skip
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                # The resource has to be a domain above the vault's.
                resource = vault.url.replace("127.0.0.1", "0.0.1")
                challenge = f'Bearer authorization="{vault.url}/tenant", resource="{resource}"'
                self.answer(401, {}, WWW_Authenticate=challenge)
            else:
                name = path.removeprefix("/secrets/").rstrip("/")
                vault.asked.append(name)
                if vault.ill:
                    self.answer(503, {"error": {"code": "Busy", "message": "busy"}})
                elif name == "forbidden":
                    self.answer(403, {"error": {"code": "Forbidden", "message": "no role"}})
                elif name not in vault.secrets:
                    self.answer(404, {"error": {"code": "SecretNotFound", "message": "none"}})
                else:
                    self.answer(200, {"value": vault.secrets[name], "id": f"{vault.url}/secrets/{name}/1"})

    return Handler


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vault, Path]]:
    pem = certificate(tmp_path_factory.mktemp("vault"))
    vault = Vault("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(vault))
    vault.url = f"https://127.0.0.1:{server.server_port}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield vault, pem
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def vault(running: tuple[Vault, Path], monkeypatch: pytest.MonkeyPatch) -> Vault:
    vault, pem = running
    vault.asked.clear()
    vault.secrets = {"the-password": VALUE}
    vault.ill = False
    for name, value in {
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_CLIENT_SECRET": CLIENT_SECRET,
        "AZURE_AUTHORITY_HOST": vault.url,
        "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
        "REQUESTS_CA_BUNDLE": str(pem),
    }.items():
        monkeypatch.setenv(name, value)
    return vault


def scope_of(vault: Vault) -> Any:
    return open_scope(make_settings(), f"azure-keyvault:{vault.url}")


def test_a_secret_is_asked_for_once_in_a_load(vault: Vault):
    scope = scope_of(vault)
    assert vault.asked == []
    for _ in range(2):
        assert scope.get("the-password").get_secret_value() == VALUE
    assert vault.asked == ["token", "the-password"]
    assert VALUE not in repr(vars(scope))
    # The next load asks again, so that a changed password is found.
    vault.secrets["the-password"] = "changed"
    assert scope_of(vault).get("the-password").get_secret_value() == "changed"


def test_what_cannot_be_had_is_named(vault: Vault):
    vault.secrets["empty"] = ""
    scope = scope_of(vault)
    for name, words in {
        "missing": "Secret missing of the key vault {url} does not exist",
        "forbidden": "Secret forbidden of the key vault {url} may not be read",
        "empty": "Secret empty of the key vault {url} is empty",
        "../keys": "Secret '../keys' is no name that a key vault can hold",
    }.items():
        with pytest.raises(SettingsError) as raised:
            scope.get(name)
        assert str(raised.value).startswith(words.format(url=vault.url))
        assert CLIENT_SECRET not in str(raised.value)


def test_a_wrong_sign_in_is_said(vault: Vault, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "pl4nted-wrong-secret")
    with pytest.raises(SettingsError, match="lets nobody sign in") as raised:
        scope_of(vault).get("the-password")
    assert "pl4nted" not in str(raised.value)
    assert vault.asked == ["token"]


def test_a_vault_that_does_not_answer_may_answer_later(vault: Vault):
    vault.ill = True
    with pytest.raises(
        ServiceUnavailableError, match=r"Secret the-password of the key vault .* cannot be read now"
    ):
        scope_of(vault).get("the-password")
    assert vault.asked.count("the-password") == 3
    nobody = open_scope(make_settings(), "azure-keyvault:https://127.0.0.1:1")
    with pytest.raises(
        ServiceUnavailableError, match=r"Secret the-password .*127.0.0.1:1 .* does not answer"
    ):
        nobody.get("the-password")


FIELDS = (Field("host", required=True, aliases=("server",)), Field("port", default="1"), Field("password"))


def test_one_secret_may_hold_several_fields(vault: Vault):
    """What is of its own goes before the bundle, and the bundle before a default; the rest of it is somebody else's."""
    vault.secrets["bundle"] = json.dumps(
        {"server": "h", "port": 7, "password": "of-the-bundle", "engine": "x"}
    )
    scope = scope_of(vault)
    assert resolve_fields("s", FIELDS, {"secret_bundle": "bundle"}, scope) == {
        "host": "h", "port": "7", "password": "of-the-bundle"
    }  # fmt: skip
    own = {"secret_bundle": "bundle", "password": "the-password", "host": {"value": "mine"}}
    assert resolve_fields("s", FIELDS, own, scope) == {"host": "mine", "port": "7", "password": VALUE}


@pytest.mark.parametrize(
    "text, words",
    [
        (f'"{VALUE}"', "secret bundle is no JSON object"),
        (f'{{"password": "{VALUE}"', "secret bundle is no JSON object"),
        (
            f'{{"password": ["{VALUE}"], "host": "h"}}',
            "password in secret bundle is neither text nor a number",
        ),
        (f'{{"password": "{VALUE}"}}', "host is missing, in the bundle too"),
        (None, "field secret_bundle: Secret bundle of the key vault .* does not exist"),
    ],
)
def test_a_bundle_that_is_none_is_said_without_its_text(vault: Vault, text: str | None, words: str):
    if text is not None:
        vault.secrets["bundle"] = text
    with pytest.raises(Exception, match=words) as raised:
        resolve_fields("s", FIELDS, {"secret_bundle": "bundle"}, scope_of(vault))
    assert VALUE not in str(raised.value)


def test_a_scope_names_its_vault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AZURE_KEYVAULT_URL", raising=False)
    for wrong in ("azure-keyvault", "azure-keyvault:http://x", "azure-keyvault:a.b"):
        with pytest.raises(SettingsError, match="names no vault: write azure-keyvault:NAME"):
            open_scope(make_settings(), wrong)
    assert "'https://sales.vault.azure.net'" in repr(
        vars(open_scope(make_settings(), "azure-keyvault:sales"))
    )
    monkeypatch.setenv("AZURE_KEYVAULT_URL", "https://other.vault.azure.cn/")
    assert "'https://other.vault.azure.cn'" in repr(vars(open_scope(make_settings(), "azure-keyvault")))


def test_without_the_library_the_extra_is_named(vault: Vault, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(DriverMissingError, match=r"install quayside\[azure\]"):
        scope_of(vault).get("the-password")
