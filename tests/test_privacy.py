"""Nothing private leaves: the bodies and headers of real requests to a real aggregator, searched for names."""

from collections.abc import Mapping
from pathlib import Path

from fedstep.federation.exchange import Aggregator
from fedstep.federation.gzipped import inflate
from fedstep.federation.patience import Patience
from fedstep.federation.transport import Answer, requests_send
from fedstep.federation.wire import LARGEST
from fedstep.history.home import Home
from fedstep.training import train
from tests.benchmarks.project import drawn_builds
from tests.benchmarks.server import aggregator


def test_no_name_branch_author_commit_or_path_is_in_what_is_sent(tmp_path: Path) -> None:
    home, seen, updates = Home(str(tmp_path / "history")), [], 0
    home.prepare()
    with aggregator(tmp_path) as url:
        real = requests_send(url)

        def send(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
            nonlocal updates
            plain = inflate(body, LARGEST) if headers.get("Content-Encoding") == "gzip" else body
            seen.append(f"{method} {path} {dict(headers)}".encode() + plain)
            updates += method == "POST"
            return real(method, path, headers, body, timeout)

        builds = list(drawn_builds(120, 25))
        for evidence in builds:
            train(home, evidence, lambda _runs: {}, Aggregator(url, send, Patience()), evidence.finished_at, 500)
    assert updates > 1
    secrets = {"a@example.org", "src/org/acme", "org.acme", builds[-1].situation.change.commit, home.key().hex()}
    for run in builds[0].reports.tests:
        secrets |= {run.test, run.test.partition("#")[2]}
    assert [word for word in secrets for body in seen if word.encode() in body] == []
