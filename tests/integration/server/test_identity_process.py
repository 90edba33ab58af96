"""The real process: TLS, proxies, SIGTERM, and the log on standard error."""

import datetime
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedstep.cli.main import main
from fedstep.errors import UsageError
from fedstep.server.listener import check_tls
from fedstep.server.settings import Tls
from tests.helpers.lifetime import bound, url_of

TOKEN = "correct-horse-battery-staple"


@contextmanager
def serving(folder: Path, *options: str, token: str = TOKEN) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """The URL, the process and the log of `fedstep serve`, which is stopped by its pid."""
    log = folder / "log"
    env = {**os.environ, "FEDSTEP_TOKENS": token, "PYTHONSAFEPATH": "1"}
    words = bound(sys.executable, "-m", "fedstep", "serve", "--port", "0", "--from-zero", *options)
    with log.open("wb") as file, subprocess.Popen(words, stderr=file, stdout=file, cwd=folder, env=env) as server:
        try:
            yield url_of(server, log), server, log
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
            server.wait(20)


@pytest.fixture
def certificate(tmp_path: Path) -> Tls:
    """A certificate for this machine that vouches for itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return Tls(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))


class TestListening:
    def test_with_a_certificate_it_speaks_https_and_nothing_else(self, tmp_path, certificate):
        options = ("--tls-cert", certificate.certificate, "--tls-key", certificate.key, "--host", "localhost")
        with serving(tmp_path, *options) as (url, _, _log):
            assert url.startswith("https://localhost:")
            assert requests.get(f"{url}/healthz", verify=certificate.certificate, timeout=10).status_code == 200
            with pytest.raises(requests.exceptions.ConnectionError):
                requests.get(url.replace("https", "http") + "/healthz", timeout=10)

    def test_invalid_certificate_files_are_reported_at_the_start(self, tmp_path, certificate):
        """Files that are no certificate and key are reported before anything listens."""
        check_tls(certificate)
        empty = tmp_path / "empty.pem"
        empty.write_text("")
        for wrong in (Tls(certificate.key, certificate.certificate), Tls(str(empty), str(empty)), Tls("none", "none")):
            with pytest.raises(UsageError, match="cannot be used for TLS"):
                check_tls(wrong)


class TestProxies:
    def test_log_is_json_lines_with_addresses_of_trusted_proxies(self, tmp_path):
        """The log is JSON lines, and a trusted proxy says who asked."""
        with serving(tmp_path, "--log-format", "json", "--proxy-headers", "127.0.0.1") as (url, _, log):
            signed = {"X-Forwarded-For": "192.0.2.7", "Authorization": "Bearer a-guess-of-sixteen-letters"}
            assert requests.post(f"{url}/v1/updates", headers=signed, timeout=10).status_code == 401
        text = log.read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        (refused,) = [line for line in lines if line.get("problem") == "unknown-sender"]
        assert (refused["status"], refused["peer"]) == (401, "192.0.2.7")
        assert len(lines) == len(text.splitlines()) - 1, text
        assert TOKEN not in text
        assert "a-guess" not in text

    def test_without_trust_a_forwarded_address_is_not_believed(self, tmp_path):
        with serving(tmp_path, "--log-format", "json") as (url, _, log):
            requests.post(f"{url}/v1/updates", headers={"X-Forwarded-For": "192.0.2.7"}, timeout=10)
        assert "192.0.2.7" not in log.read_text()


class TestProcess:
    def test_sigterm_finishes_the_request_under_way(self, tmp_path):
        """From SIGTERM on, a request under way is finished and the process ends without an error."""
        with serving(tmp_path) as (url, server, log):
            host, port = url.removeprefix("http://").split(":")
            slow = socket.create_connection((host, int(port)), timeout=10)
            task = f"POST /v1/updates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 5\r\n\r\n"
            slow.sendall(task.encode())
            until_read = requests.get(f"{url}/readyz", timeout=10)
            assert until_read.status_code == 200
            server.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            slow.sendall(b"12345")
            answer = http.client.HTTPResponse(slow)
            answer.begin()
            assert answer.status == 400
            slow.close()
            assert server.wait(20) == 0
        assert "Traceback" not in log.read_text()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--tls-cert", "a.pem"), "need each other"),
            (("--oidc", "github", "--allow", "*"), "--audience"),
            (("--audience", "https://here"), "--oidc"),
            (("--proxy-headers", "everywhere"), "no address"),
            (("--host", "0.0.0.0"), "without a token"),
            (("--proxy-headers", "127.0.0.1"), "without a token"),
        ],
    )
    def test_options_that_cannot_work_are_said_with_their_remedy(self, tmp_path, monkeypatch, capsys, options, said):
        """Options that cannot work are reported with their remedy; this process leaves before anything listens."""
        for name in [name for name in os.environ if name.startswith("FEDSTEP_")]:
            monkeypatch.delenv(name)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit, match=r"^2$"):
            main(("serve", "--port", "0", *options))
        assert said in capsys.readouterr().err
