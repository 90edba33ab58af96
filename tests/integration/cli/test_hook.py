"""Before a push: the hook is written beside others, predicts what is pushed, and never keeps a push from happening."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedstep.cli.hook import NAMED
from fedstep.history.git_ref import folder_name
from fedstep.report.text import prediction_text
from fedstep.results import ModelUsed, Prediction, TestRisk
from fedstep.types import Unavailable
from tests.helpers.cli import Checkout, new_checkout

ROOT = Path(__file__).parents[3]
TELLS = '#!/bin/sh\n{ echo "args $1"; cat; } > "$(dirname "$0")/told"\nexit ${MINE:-0}\n'


def hooks(place: Checkout) -> Path:
    return place.root / ".git" / "hooks"


def write_hook(folder: Path, text: str = TELLS) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "pre-push"
    path.write_text(text)
    path.chmod(0o755)
    return path


def push(place: Checkout, *refs: str) -> subprocess.CompletedProcess[str]:
    command = ("git", "push", "origin", *refs)
    return subprocess.run(command, cwd=place.root, env=dict(place.env), capture_output=True, text=True, timeout=60)


def predicted(ran: subprocess.CompletedProcess[str]) -> bool:
    """Whether the terminal shows all that a person is to see."""
    return all(label in ran.stderr for label in ("Build time", "90 % between", "Failure risk", "Model  "))


@pytest.fixture
def clone(experienced: Checkout, tmp_path: Path) -> Checkout:
    """A clone with a history and a remote that is empty."""
    experienced.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    experienced.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    return experienced


@pytest.fixture
def hooked(clone: Checkout) -> Checkout:
    """The same with the hook."""
    assert clone.run("hook", "install").code == 0
    return clone


class TestPrediction:
    def test_the_first_push_of_a_branch_is_predicted_and_happens(self, hooked: Checkout) -> None:
        ran = push(hooked, "main")
        assert ran.returncode == 0
        assert predicted(ran)
        assert hooked.git("ls-remote", "origin").count("refs/heads/main") == 1

    def test_at_most_three_tests_are_named_with_their_reasons(self, hooked: Checkout) -> None:
        lines = push(hooked, "main").stderr.splitlines()
        start, end = lines.index("Most likely to flake"), lines.index(next(line for line in lines if line[:3] == "  ("))
        named = [line for line in lines[start:end] if "%  shop.test_cart#" in line]
        assert 1 <= len(named) <= 3
        assert sum(line.startswith(("         + ", "         - ")) for line in lines[start:end]) >= len(named)

    def test_of_many_flaky_tests_the_first_three_are_named(self) -> None:
        risks = tuple(TestRisk(f"shop#test_{number}", 0.9 - number / 10) for number in range(5))
        said = prediction_text(Prediction("ok", Unavailable("no"), Unavailable("no"), risks, ModelUsed()), most=NAMED)
        assert [f"test_{number}" in said for number in range(5)] == [True, True, True, False, False]
        assert "and 2 more" in said

    def test_a_detached_head_is_predicted(self, hooked: Checkout) -> None:
        hooked.git("checkout", "-q", "--detach")
        ran = push(hooked, "HEAD:refs/heads/elsewhere")
        assert ran.returncode == 0
        assert predicted(ran)

    def test_a_deletion_and_a_push_of_nothing_say_nothing(self, hooked: Checkout) -> None:
        assert predicted(push(hooked, "main", "main:old"))
        deletion, nothing = push(hooked, ":old"), push(hooked, "main")
        assert deletion.returncode == nothing.returncode == 0
        assert "Build time" not in deletion.stderr + nothing.stderr

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            ("", False),
            ("\n\0\n\udcff \udcfe\na b\n", False),
            (f"(delete) {'0' * 64} refs/heads/a {'1' * 64}\n", False),
            (f"(delete) {'0' * 40} refs/heads/a {'1' * 40}\nrefs/heads/b {'2' * 40} refs/heads/b {'0' * 40}", True),
        ],
    )
    def test_what_git_says_on_stdin_decides_whether_there_is_a_build(
        self, experienced: Checkout, lines: str, said: bool
    ) -> None:
        with experienced.start(
            "hook", "run", "origin", "url", stdin=subprocess.PIPE, errors="surrogateescape"
        ) as process:
            out, err = process.communicate(lines, timeout=60)
        assert process.returncode == 0
        assert ("Build time" in out) == said
        assert "Traceback" not in err

    def test_push_from_a_subfolder_is_about_the_repository(self, hooked: Checkout) -> None:
        """A push from a folder inside is about the whole repository."""
        ran = push(Checkout(hooked.root / "shop", hooked.env), "main")
        assert predicted(ran)
        assert "12 builds" in ran.stderr

    def test_linked_worktree_has_hook_and_history_of_the_main_one(self, hooked: Checkout, tmp_path: Path) -> None:
        """A linked worktree has the hook and the history of the main one."""
        hooked.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
        side = Checkout(tmp_path / "side", hooked.env)
        assert side.run("hook", "status").code == 0
        ran = push(side, "side")
        assert predicted(ran)
        assert "12 builds" in ran.stderr
        assert not side.history.exists()

    def test_a_submodule_has_a_hook_of_its_own(self, hooked: Checkout, tmp_path: Path) -> None:
        library = new_checkout(tmp_path / "library")
        hooked.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library.root), "library")
        inside = Checkout(hooked.root / "library", hooked.env)
        assert inside.run("hook", "status").code == 1
        assert inside.run("hook", "install").code == 0
        assert (hooked.root / ".git/modules/library/hooks/pre-push").exists()
        assert "Build time" in push(inside, "HEAD:refs/heads/other").stderr

    def test_the_part_of_a_monorepo_is_remembered(self, clone: Checkout) -> None:
        part = clone.history / "parts" / folder_name("services/api")
        shutil.copytree(clone.history, part, ignore=shutil.ignore_patterns("parts"))
        for build in list((clone.history / "builds").iterdir())[4:]:
            build.unlink()
        assert clone.run("hook", "install", "--path", "services/api").code == 0
        assert "12 builds" in push(clone, "main").stderr


class TestExistingHooks:
    def test_existing_hook_runs_first_with_same_input(self, clone: Checkout) -> None:
        """A hook that is there runs first, with the same stdin and arguments."""
        write_hook(hooks(clone))
        assert "runs first" in clone.run("hook", "install").out
        ran = push(clone, "main")
        head = clone.git("rev-parse", "HEAD").strip()
        assert (
            hooks(clone) / "told"
        ).read_text() == f"args origin\nrefs/heads/main {head} refs/heads/main {'0' * 40}\n"
        assert predicted(ran)

    def test_a_hook_that_is_there_still_decides(self, clone: Checkout) -> None:
        write_hook(hooks(clone))
        clone.run("hook", "install")
        ran = push(clone.with_env(MINE="7"), "main")
        assert ran.returncode != 0
        assert "Build time" not in ran.stderr
        assert clone.git("ls-remote", "origin") == ""

    def test_a_hook_that_git_would_not_run_is_not_run(self, clone: Checkout) -> None:
        write_hook(hooks(clone)).chmod(0o644)
        clone.run("hook", "install")
        assert push(clone, "main").returncode == 0
        assert not (hooks(clone) / "told").exists()

    def test_uninstall_restores_every_byte_and_the_mode(self, clone: Checkout) -> None:
        path = write_hook(hooks(clone))
        path.chmod(0o750)
        before = (path.read_bytes(), path.stat().st_mode)
        names = sorted(os.listdir(hooks(clone)))
        assert clone.run("hook", "install").code == clone.run("hook", "install").code == 0  # twice is once
        assert path.read_bytes() != before[0]
        assert clone.run("hook", "uninstall").code == 0
        assert (path.read_bytes(), path.stat().st_mode) == before
        assert sorted(os.listdir(hooks(clone))) == names

    def test_uninstall_leaves_what_is_not_ours(self, clone: Checkout) -> None:
        path = write_hook(hooks(clone))
        ran = clone.run("hook", "uninstall")
        assert ran.code == 3
        assert "is not ours" in ran.err
        assert path.read_text() == TELLS

    def test_a_hook_that_replaced_ours_is_not_lost(self, clone: Checkout) -> None:
        write_hook(hooks(clone))
        clone.run("hook", "install")
        write_hook(hooks(clone), "#!/bin/sh\n# another tool\n")
        assert clone.run("hook", "install").code == 0
        assert (hooks(clone) / "pre-push.before-fedstep").read_text() == "#!/bin/sh\n# another tool\n"
        assert (hooks(clone) / "pre-push.before-fedstep.1").read_text() == TELLS
        assert predicted(push(clone, "main"))

    @pytest.mark.parametrize("tool", ["pre-commit", "prek"])
    def test_pre_commit_keeps_running_ours(self, clone: Checkout, tool: str) -> None:
        """pre-commit runs `pre-push.legacy` and overwrites `pre-push`: ours goes where it survives."""
        theirs = f"#!/bin/sh\n# File generated by {tool}: https://example.org\n"
        write_hook(hooks(clone), theirs)
        ran = clone.run("hook", "install")
        assert f"pre-push.legacy is installed; {tool} runs it" in ran.out
        assert (hooks(clone) / "pre-push").read_text() == theirs
        assert clone.run("hook", "status").code == 0
        assert clone.run("hook", "uninstall").code == 0
        assert sorted(path.name for path in hooks(clone).glob("pre-push*") if path.suffix != ".sample") == ["pre-push"]

    def test_a_tool_that_runs_ours_is_not_run_by_it_again(self, clone: Checkout) -> None:
        """Whatever tool moves our hook aside and runs it, which had replaced that tool's: the push ends and happens."""
        theirs = '#!/bin/sh\necho of-theirs >&2\nexec "$(dirname "$0")/pre-push.aside" "$@"\n'
        write_hook(hooks(clone), "#!/bin/sh\n")
        clone.run("hook", "install")
        (hooks(clone) / "pre-push").rename(hooks(clone) / "pre-push.aside")
        write_hook(hooks(clone), theirs)
        shutil.copy(hooks(clone) / "pre-push", hooks(clone) / "pre-push.before-fedstep")
        ran = push(clone, "main")
        assert ran.returncode == 0
        assert ran.stderr.count("of-theirs") == 2
        assert predicted(ran)

    def test_lefthook_is_pointed_out(self, clone: Checkout) -> None:
        write_hook(hooks(clone), '#!/bin/sh\nif [ "$LEFTHOOK" = 0 ]; then exit 0; fi\n')
        assert "pre-push in lefthook.yml" in clone.run("hook", "install").err
        assert predicted(push(clone, "main"))

    def test_hook_is_written_where_core_hookspath_says(self, clone: Checkout) -> None:
        """core.hooksPath is where the hook is written, and no path of this machine with it."""
        clone.git("config", "core.hooksPath", "tools/hooks")
        ran = clone.run("hook", "install")
        script = (clone.root / "tools/hooks/pre-push").read_text()
        assert "tools/hooks/pre-push is installed" in ran.out
        assert "python" not in script
        assert "fedstep hook run" in script
        assert not (hooks(clone) / "pre-push").exists()

    def test_a_hooks_folder_of_several_repositories_is_pointed_out(self, clone: Checkout, tmp_path: Path) -> None:
        clone.git("config", "core.hooksPath", str(tmp_path / "everyones"))
        assert "also runs in other repositories" in clone.run("hook", "install").err

    def test_a_folder_that_husky_writes_is_refused(self, clone: Checkout) -> None:
        clone.git("config", "core.hooksPath", ".husky/_")
        ran = clone.run("hook", "install")
        assert ran.code == 2
        assert "fedstep hook run" in ran.err


class TestFailures:
    def test_push_happens_without_fedstep(self, hooked: Checkout) -> None:
        """Without fedstep the push happens, and one line says why there is no prediction."""
        path = hooks(hooked) / "pre-push"
        path.write_text(path.read_text().replace(sys.executable, "/nowhere/python"))
        ran = push(hooked, "main")
        assert ran.returncode == 0
        assert ran.stderr.count("fedstep is not installed any more") == 1

    def test_broken_configuration_does_not_prevent_a_push(self, hooked: Checkout) -> None:
        """A broken configuration does not keep a push from happening."""
        (hooked.root / ".fedstep.toml").write_text("histroy = 'x'\n")
        ran = push(hooked, "main")
        assert ran.returncode == 0
        assert "`histroy` is no option" in ran.stderr

    def test_the_documented_lines_let_every_push_pass(self, clone: Checkout, tmp_path: Path) -> None:
        """A teammate without fedstep, and one with a wrong key in the configuration, can push: `sh -e` as Husky."""
        page = (ROOT / "docs/how-to/local.md").read_text()
        line = next(line for line in page.splitlines() if line.startswith("fedstep hook run"))
        (clone.root / ".fedstep.toml").write_text("histroy = 'x'\n")
        (tmp_path / "bin").mkdir()
        for path in (str(tmp_path / "bin"), str(clone.env["PATH"])):
            ran = subprocess.run(
                ("/bin/sh", "-e", "-c", line), cwd=clone.root, env={**clone.env, "PATH": path}, stdin=subprocess.DEVNULL
            )
            assert ran.returncode == 0
        assert clone.run("hook", "run").code == 0

    def test_with_strict_what_fails_stops_the_push(self, clone: Checkout) -> None:
        assert clone.run("hook", "install", "--strict").code == 0
        assert push(clone, "main:good").returncode == 0
        shutil.rmtree(clone.history)
        assert push(clone, "main:first").returncode == 0, "a history that does not exist yet is no fault"
        clone.history.write_text("a file where the folder should be")
        ran = push(clone, "main:bad")
        assert ran.returncode != 0
        assert ".fedstep/" in ran.stderr

    def test_strict_in_a_file_is_meant_for_the_ci_and_stops_no_push(self, clone: Checkout) -> None:
        (clone.root / ".fedstep.toml").write_text("strict = true\n")
        clone.run("hook", "install")
        shutil.rmtree(clone.history)
        ran = push(clone, "main")
        assert ran.returncode == 0
        assert "no build of this project is known" in ran.stderr

    def test_a_module_of_the_repository_is_not_taken_for_ours(self, hooked: Checkout) -> None:
        (hooked.root / "fedstep.py").write_text("raise SystemExit('taken')\n")
        (hooked.root / "click.py").write_text("raise SystemExit('taken')\n")
        assert predicted(push(hooked, "main"))

    def test_a_prediction_that_takes_too_long_is_left(self, experienced: Checkout, tmp_path: Path) -> None:
        slow = tmp_path / "bin"
        slow.mkdir()
        (slow / "git").write_text("#!/bin/sh\nexec sleep 30\n")
        (slow / "git").chmod(0o755)
        waiting = experienced.with_env(PATH=f"{slow}:{experienced.env['PATH']}")
        ran, strict = (waiting.run("hook", "run", "--within", "0.4", *more) for more in ((), ("--strict",)))
        assert "no prediction within 0.4 s" in ran.err
        assert (ran.code, strict.code) == (0, 3)
        assert ran.out == strict.out == ""

    def test_outside_a_repository_it_says_so(self, tmp_path: Path, experienced: Checkout) -> None:
        (tmp_path / "empty").mkdir()
        ran = Checkout(tmp_path / "empty", experienced.env).run("hook", "install")
        assert ran.code == 3
        assert "no git repository" in ran.err


class TestPreCommit:
    def test_published_hook_predicts_and_lets_every_push_pass(self, experienced: Checkout, tmp_path: Path) -> None:
        """The hook of pre-commit predicts and lets every push pass."""
        definition = (ROOT / ".pre-commit-hooks.yaml").read_text()
        entry = next(line.split("entry: ")[1] for line in definition.splitlines() if "entry: " in line)
        binary = tmp_path / "bin"
        binary.mkdir()
        (binary / "fedstep").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m fedstep "$@"\n')
        (binary / "fedstep").chmod(0o755)
        env = {**experienced.env, "PATH": f"{binary}:{experienced.env['PATH']}"}

        def run(*more: str) -> subprocess.CompletedProcess[str]:
            command = ["sh", "-c", f"{entry} {' '.join(more)}"]
            return subprocess.run(
                command,
                cwd=experienced.root,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        assert "Build time" in run().stdout
        broken = run("--no-such-option")
        assert broken.returncode == 0
        assert "no-such-option" in broken.stderr
