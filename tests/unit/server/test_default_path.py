"""The default aggregator runs without the code of its other modes."""

import subprocess
import sys

from tests.helpers.lifetime import bound

PROGRAM = """
import sys, tempfile, time
from fedstep.federation.client import push
from fedstep.federation.messages import pack_update, shape
from fedstep.federation.transport import RetryPolicy
from fedstep.server import Settings
from fedstep.server.mode import BufferPolicy
from tests.helpers.aggregator import SMALL, InProcess, draw_update

with tempfile.TemporaryDirectory() as folder:
    house = InProcess(Settings(store=f"sqlite:///{folder}/a.db", buffer=BufferPolicy(updates=1)), SMALL)
    try:
        push(pack_update(draw_update(1)), "http://here", house.send, RetryPolicy(5.0, (0.1,)))
        end = time.monotonic() + 20
        while house.pulled(shape(SMALL)).candidate_version < 1:
            assert time.monotonic() < end
            time.sleep(0.05)
        for path in ("/", "/v1/status", "/v1/versions", "/metrics", "/healthz"):
            assert house.send("GET", path, {}, b"", 5.0).status == 200, path
    finally:
        house.close()
others = ("fedstep.server.differential_privacy", "fedstep.server.secagg")
print(*sorted(name for name in sys.modules if name.startswith(others)))
"""


def run_python(*arguments: str) -> str:
    done = subprocess.run(
        bound(sys.executable, *arguments), capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestDefaultPath:
    def test_an_update_is_aggregated_without_other_modes(self):
        """From POST /v1/updates to the next version and every page, no module of another mode is imported."""
        assert run_python("-c", PROGRAM) == ""

    def test_importing_the_package_loads_neither_web_nor_numpy(self):
        program = "import sys, fedstep.server; print(*{'numpy', 'starlette', 'sqlalchemy'} & sys.modules.keys())"
        assert run_python("-c", program) == ""

    def test_the_package_offers_its_application_and_settings(self):
        import fedstep.server

        assert set(fedstep.server.__all__) <= set(dir(fedstep.server))
        assert callable(fedstep.server.create_app)
        assert fedstep.server.Settings().mode is not None
