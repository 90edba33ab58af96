"""A reusable workflow with the actions, called twice: its jobs have one id, and tell their builds apart by the cell."""

import re
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent / "examples"
DEAD = "http://127.0.0.1:9"
QUICK = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "FEDSTEP_TIMEOUT": "1"}


@pytest.fixture
def services(repository, fedstep):
    """The calling workflow, the called one beside it, and in the repository a service that works and one that fails."""
    for service, claim in (("api", "True"), ("web", "False")):
        (repository / service).mkdir()
        (repository / service / f"test_{service}.py").write_text(f"def test_{service}():\n    assert {claim}\n")
    called = repository / ".github" / "workflows" / "service.yml"
    called.parent.mkdir(parents=True)
    text = (EXAMPLES / "github-service.yml").read_text()
    called.write_text(text.replace("cell:", f"command: {fedstep}\n          cell:"))
    for command in (["add", "-A"], ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "Serve"]):
        subprocess.run(["git", "-C", str(repository), *command], check=True, timeout=20)
    return EXAMPLES / "github-services.yml"


class TestReusableWorkflow:
    @pytest.mark.full
    def test_each_call_has_its_own_history_and_token(self, act, services, tmp_path):
        """Each call of a reusable workflow has its own history and token."""
        flags = ("--var", f"FEDSTEP_AGGREGATOR={DEAD}", "-s", "FEDSTEP_TOKEN=of-the-caller")
        first = act(services, *flags, **QUICK, GITHUB_RUN_ID="1")
        assert first.code == 1, "the failure of one service stands"
        assert "127.0.0.1:9 cannot be reached" in first.log, "the variable arrives"
        assert "of-the-caller" not in first.log
        saved = sorted(path.stem for path in (tmp_path / "cache").glob("*/*/fedstep-v1-*.tar"))
        assert len({name.removesuffix("-1-1") for name in saved}) == 2, saved
        second = act(services, *flags, **QUICK, GITHUB_RUN_ID="2")
        known = re.findall(r"\d+ builds? and \d+ tests? known", second.summary())
        assert set(known) == {"1 build and 1 test known"}, "each knows its own build and no other"
