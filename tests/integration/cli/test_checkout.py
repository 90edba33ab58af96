"""What a checkout may steer: configuration, links, git's own configuration, and committed files of the history."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fedstep.cli.main import iter_commands
from fedstep.config import NOT_IN_FILES
from fedstep.errors import InputError
from fedstep.ingest.git_process import RECEIVE_PACK, _replacements, _steering, run_git, run_remote_git
from fedstep.ingest.mutes import Acknowledgement, add_acknowledgement
from fedstep.server.identity import TokenBook
from tests.helpers.cli import Checkout, aggregator, answering, forty_tests, new_checkout, recording, server

TOKEN = "a-secret-of-sixteen-characters"


@contextmanager
def refusing() -> Iterator[tuple[str, list[bytes]]]:
    """A server that keeps every request that it gets."""
    requests: list[bytes] = []
    with server(recording(requests, answering("401 Unauthorized"))) as url:
        yield url, requests


def fork_of(place: Checkout) -> Checkout:
    """The same checkout, in a job that Jenkins runs for a fork's pull request."""
    variables = {"JENKINS_URL": "http://ci", "JOB_NAME": "a", "BUILD_NUMBER": "1", "CHANGE_ID": "7", "CHANGE_FORK": "x"}
    return place.with_env(**variables)


class TestSecrets:
    @pytest.mark.parametrize("command", ["pull", "push", "train", "doctor", "forget"])
    def test_no_token_for_an_address_of_the_repository(self, command: str, tmp_path: Path, learned_history: Path):
        """A static token is not sent where only `.fedstep.toml` says so, and one line names the remedy."""
        place = new_checkout(tmp_path / "repo", learned_history).with_env(FEDSTEP_TOKEN=TOKEN)
        report = place.report(forty_tests(1))
        with refusing() as (url, requests):
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\nhelper = "http://127.0.0.1:9"\n')
            more = {"train": ("--junit", report), "forget": ("--yes",)}.get(command, ())
            ran = place.run(command, *more)
            assert TOKEN.encode() not in b"".join(requests)
            assert f"no token is sent to {url}" in ran.err
            assert f"fedstep trust {url}" in ran.err

    @pytest.mark.parametrize("options", [(), ("--private-model",)], ids=["public", "private"])
    def test_refusal_names_what_lets_a_withheld_token_go(self, options, tmp_path: Path, learned_history: Path):
        """A second line said to set the token that was set, and `doctor` that none is configured."""
        with closing(TokenBook(f"sqlite:///{tmp_path / 'aggregator.db'}")) as book:
            token = book.create("acme", 0.0)
        place = new_checkout(tmp_path / "repo", learned_history).with_env(FEDSTEP_TOKEN=token)
        with aggregator(tmp_path, *options) as url:
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\n')
            remedy, refused = f"Name it in FEDSTEP_AGGREGATOR, or run: fedstep trust {url}", f"{url} answered 401"
            for command in (("train", "--junit", place.report(forty_tests(1))), ("pull",) if options else ("push",)):
                ran = place.run(*command)
                assert ran.err.count(f"{refused}: it wants a token that it knows. {remedy}") == 1, ran.err
                assert "Set FEDSTEP_TOKEN" not in ran.err
            checks = json.loads(place.run("doctor", "--json").out)["checks"]
            found = {check["name"]: (check["state"], check["fix"]) for check in checks}
            assert found["Token"] == ("warning", remedy)
            assert found["Aggregator" if options else "Welcome"] == ("problem", remedy)
            foreign = place.with_env(FEDSTEP_TOKEN=f"https://other.example {token}")
            assert f"it knows. Set FEDSTEP_TOKEN to `{url} TOKEN`" in foreign.run(command[0]).err
            place.run("trust", url)
            assert place.run(command[0]).err == ""

    def test_token_goes_where_the_user_confirmed(self, tmp_path: Path, learned_history: Path):
        place = new_checkout(tmp_path / "repo", learned_history).with_env(FEDSTEP_TOKEN=TOKEN)
        with refusing() as (url, requests):
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\n')
            assert place.run("trust", url).code == 0
            ran = place.run("pull")
            assert "no token is sent" not in ran.err
            assert f"Bearer {TOKEN}".encode() in b"".join(requests)

    def test_pinned_token_stays_with_its_address(self, tmp_path: Path, learned_history: Path):
        place = new_checkout(tmp_path / "repo", learned_history)
        with refusing() as (url, requests), refusing() as (other, others):
            place = place.with_env(FEDSTEP_TOKEN=f"{url} {TOKEN}")
            place.run("pull", "--aggregator", other)
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\n')
            place.run("pull")
            assert TOKEN.encode() not in b"".join(others)
            assert f"Bearer {TOKEN}".encode() in b"".join(requests)

    def test_no_job_token_is_asked_for_such_an_address(self, tmp_path: Path, learned_history: Path):
        """On GitHub Actions, whose token would say which repository asks."""
        with refusing() as (github, asked), refusing() as (url, _):
            place = new_checkout(tmp_path / "repo", learned_history).with_env(
                GITHUB_ACTIONS="true",
                GITHUB_EVENT_NAME="push",
                ACTIONS_ID_TOKEN_REQUEST_URL=f"{github}/?a=b",
                ACTIONS_ID_TOKEN_REQUEST_TOKEN="request",
            )
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\n')
            ran = place.run("pull")
            assert "no token is sent" in ran.err
            assert asked == []
            place.run("pull", "--aggregator", url)
            assert asked

    @pytest.mark.parametrize("command", ["pull", "push", "train", "doctor", "forget"])
    def test_address_is_read_as_it_is_asked(self, command: str, tmp_path: Path, learned_history: Path):
        r"""`http://evil\@confirmed/` is on the confirmed host for one library, and on the other for the next."""
        place = new_checkout(tmp_path / "repo", learned_history)
        with refusing() as (url, _), refusing() as (evil, requests):
            place.run("trust", url)
            confirmed = url.removeprefix("http://")
            (place.root / ".fedstep.toml").write_text(f"aggregator = '{evil}\\@{confirmed}'\n")
            more = {"train": ("--junit", place.report(forty_tests(1))), "forget": ("--yes",)}.get(command, ())
            for token in (TOKEN, f"{url} {TOKEN}"):
                ran = place.with_env(FEDSTEP_TOKEN=token).run(command, *more)
                assert requests == []
                assert "no URL" in ran.err or "not a URL" in ran.err or "no token is sent" in ran.err

    def test_password_of_an_address_is_told_nowhere(self, tmp_path: Path, learned_history: Path):
        """Neither in the summary, which everyone reads, nor in JSON, messages, or the history that a cache keeps."""
        place = new_checkout(tmp_path / "repo", learned_history)
        told = tmp_path / "told"
        place = place.with_env(GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(told), GITHUB_OUTPUT=str(told))
        said = ""
        with aggregator(tmp_path) as url:
            address = url.replace("://", f"://me:{TOKEN}@")
            report = ("--junit", place.report(forty_tests(1)))
            unescaped = address.replace("//me:", "//me:#/")
            for named in (address, address.removeprefix("http://"), unescaped, f"{address}?key={TOKEN}"):
                commands = ("pull",), ("train", *report, "--format", "json"), ("triage", *report), ("trust", named)
                for command in commands:
                    ran = place.with_env(FEDSTEP_AGGREGATOR=named).run(*command)
                    said += ran.out + ran.err
                    files = [file for file in (told, *place.history.rglob("*")) if file.is_file()]
                    assert [file for file in files if TOKEN.encode() in file.read_bytes()] == []
        assert TOKEN not in said
        assert f'"url": "{url}"' in said

    def test_file_names_no_service_for_its_token(self, tmp_path: Path, learned_history: Path):
        """`backfill` sends a token of GitHub or GitLab to the address of the API."""
        place = new_checkout(tmp_path / "repo", learned_history).with_env(GITHUB_TOKEN=TOKEN, GITLAB_TOKEN=TOKEN)
        with refusing() as (url, requests):
            (place.root / ".fedstep.toml").write_text(f'api = "{url}"\n')
            for service in ("--github", "--gitlab"):
                ran = place.run("backfill", service, "acme/web")
                assert (ran.code, requests) == (2, [])
                assert "`api` is not set by a file of the repository" in ran.err
                assert "FEDSTEP_API" in ran.err
            place.run("backfill", "--github", "acme/web", "--api", url)
            assert ran.code == 2


class TestOptions:
    def test_file_neither_writes_nor_deletes(self, tmp_path: Path, learned_history: Path):
        """What is written, and whether a deletion is asked about, is said by a person."""
        victim = tmp_path / "victim"
        victim.write_text("mine\n")
        place = new_checkout(tmp_path / "repo", learned_history)
        for line, command in (
            (f'html = "{victim}"', ("report",)),
            (f'html = "{victim}"', ("explain", "cart")),
            ("yes = true", ("forget",)),
            ("remote = true", ("forget", "--history", "git", "--yes")),
            (f'pseudonym = "{"0" * 32}"', ("forget", "--yes")),
            ('backend = "dask"', ("backfill", ".")),
            ('scheduler = "tcp://127.0.0.1:9"', ("backfill", ".", "--backend", "dask")),
            (f'output = "{victim}"', ("demo",)),
            ("serve = true", ("report",)),
        ):
            (place.root / ".fedstep.toml").write_text(f"{line}\n")
            ran = place.run(*command)
            assert ran.code == 2, (line, ran.err)
            assert "is not set by a file of the repository" in ran.err, line
        assert victim.read_text() == "mine\n"
        assert (place.history / "key").exists()

    def test_proposed_file_does_not_break_a_build(self, tmp_path: Path, learned_history: Path):
        place = new_checkout(tmp_path / "repo", learned_history).with_env(CI="true")
        (place.root / ".fedstep.toml").write_text("yes = true\n")
        ran = place.run("predict")
        assert ran.code == 0
        assert "The defaults are used" in ran.err

    def test_every_option_is_one_of_a_file_or_not(self):
        """A new option is classified before it can be set by whoever changes the repository."""
        of_files = set(
            re.findall(
                r"\S+",
                "aggregator all allow-stale artifact audit budget cold-start confidence days dry-run exit-code explore "
                "fail-on figures for forgive-above format github gitlab helper helper-token history hold-out index "
                "jenkins-estimate job jobs json junit keep last limit log max-quarantined mode names new-flakes note "
                "outcome owner path plan port reason rerun-list seed shadow share since strict task time timeout "
                "token total unit value within against",
            )
        )
        server = ("serve", "server")  # these commands read the file of the operator's own folder
        named = {
            name
            for path, command in iter_commands()
            if path[0] not in server
            for parameter in command.params
            for name in (parameter.opts[0].removeprefix("--"),)
            if parameter.opts[0].startswith("--")
        }
        assert named - of_files == NOT_IN_FILES


class TestForks:
    @pytest.mark.parametrize("command", ["pull", "push", "doctor"])
    def test_a_fork_asks_no_aggregator(self, command: str, tmp_path: Path, learned_history: Path):
        place = fork_of(new_checkout(tmp_path / "repo", learned_history)).with_env(FEDSTEP_TOKEN=TOKEN)
        with refusing() as (url, requests):
            ran = place.run(command, "--aggregator", url)
            assert requests == []
            assert "fork" in ran.err + ran.out

    def test_pull_request_target_is_a_fork(self, tmp_path: Path, learned_history: Path):
        """It has the target's secrets, and often the files of the pull request, also of the same repository."""
        event = tmp_path / "event.json"
        same = {"repo": {"full_name": "acme/web"}}
        event.write_text(json.dumps({"pull_request": {"head": same, "base": same}}))
        place = new_checkout(tmp_path / "repo", learned_history).with_env(
            GITHUB_ACTIONS="true", GITHUB_EVENT_NAME="pull_request_target", GITHUB_EVENT_PATH=str(event)
        )
        with refusing() as (url, requests):
            place.run("pull", "--aggregator", url)
            assert requests == []


class TestPlanted:
    def test_committed_outbox_is_not_sent(self, tmp_path: Path, learned_history: Path):
        """Neither by `push` nor by `train`; both say how to mend it."""
        place = new_checkout(tmp_path / "repo", learned_history)
        place.git("add", "-f", ".fedstep")
        place.git("commit", "-q", "-m", "plant")
        report = place.report(forty_tests(2))
        with refusing() as (url, requests):
            for command in (("push",), ("train", "--junit", report)):
                ran = place.run(*command, "--aggregator", url)
                assert requests == []
                assert "git rm -r --cached .fedstep" in ran.err

    def test_committed_outbox_of_another_users_clone_is_not_sent(self, tmp_path: Path, learned_history: Path):
        """As in many containers: git refused to list the files of such a clone, and the outbox was sent."""
        place = new_checkout(tmp_path / "repo", learned_history)
        place.git("add", "-f", ".fedstep")
        with refusing() as (url, requests):
            ran = place.with_env(GIT_TEST_ASSUME_DIFFERENT_OWNER="1").run("push", "--aggregator", url)
            assert "are committed" in ran.err
            assert requests == []

    def test_outbox_of_a_submodule_is_not_sent(self, tmp_path: Path, learned_history: Path):
        """Its files are not those of the repository for git, and come with the checkout nevertheless."""
        place = new_checkout(tmp_path / "repo")
        inner = place.root / "cache"
        shutil.copytree(learned_history, inner / "fedstep")
        for folder in (inner, place.root):
            place.git("-C", str(folder), "init", "-q")
            place.git("-C", str(folder), "add", "-f", ".")
            place.git("-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "plant")
        (place.root / ".fedstep.toml").write_text('history = "cache/fedstep"\n')
        with refusing() as (url, requests):
            assert "are committed" in place.run("push", "--aggregator", url).err
            assert requests == []

    def test_committed_outbox_in_other_letters_is_not_sent(self, tmp_path: Path, learned_history: Path):
        """Where file names have no case, `.Fedstep` of a commit is the folder `.fedstep`."""
        place = new_checkout(tmp_path / "repo", learned_history)
        (place.root / ".Fedstep").mkdir()
        (place.root / ".Fedstep/key").write_text("x")
        place.git("add", "-f", ".Fedstep")
        with refusing() as (url, requests):
            assert "are committed" in place.run("push", "--aggregator", url).err
            assert requests == []

    def test_ordinary_history_is_sent(self, tmp_path: Path, learned_history: Path):
        place = new_checkout(tmp_path / "repo", learned_history)
        with refusing() as (url, requests):
            place.run("train", "--junit", place.report(forty_tests(2)), "--aggregator", url)
            assert requests


class TestHistoryFolder:
    def test_file_of_the_repository_names_no_folder_outside(self, tmp_path: Path, learned_history: Path):
        """`forget` would delete it."""
        elsewhere = tmp_path / "elsewhere"
        shutil.copytree(learned_history, elsewhere)
        place = new_checkout(tmp_path / "repo")
        for folder in (str(elsewhere), "../elsewhere", "~/elsewhere", "a/../../elsewhere"):
            (place.root / ".fedstep.toml").write_text(f'history = "{folder}"\n')
            for command in (("forget", "--yes"), ("status",), ("predict",)):
                assert place.run(*command).code == 2
        assert (elsewhere / "key").exists()
        assert place.run("status", "--history", str(elsewhere)).code == 2  # the file is still wrong
        (place.root / ".fedstep.toml").unlink()
        assert place.run("status", "--history", str(elsewhere)).code == 0

    @pytest.mark.parametrize("link", [".fedstep", ".fedstep/builds", ".fedstep/outbox", "cache/fedstep"])
    def test_link_does_not_lead_the_history_elsewhere(self, link: str, tmp_path: Path, learned_history: Path):
        elsewhere = tmp_path / "elsewhere"
        shutil.copytree(learned_history, elsewhere)
        before = sorted(elsewhere.rglob("*"))
        place = new_checkout(tmp_path / "repo")
        path = place.root / link
        path.parent.mkdir(exist_ok=True)
        os.symlink(elsewhere if path.name != "builds" else elsewhere / "builds", path)
        history = link if link.startswith("cache") else ".fedstep"
        for command in (("forget", "--yes"), ("train", "--junit", place.report(forty_tests(1)))):
            ran = place.run(*command, "--history", history)
            assert ran.code == 4
            assert "link" in ran.err
        output = tmp_path / "output"
        build = place.with_env(CI="true", GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(output))
        ran = build.run("train", "--junit", place.report(forty_tests(1)), "--history", history)
        assert (ran.code, output.read_text()) == (0, "status=degraded\n"), "a proposed link must not break the build"
        assert "link" in ran.err
        assert build.run("train", "--junit", "*.xml", "--history", history, "--strict").code == 4
        assert sorted(elsewhere.rglob("*")) == before


class TestGitConfiguration:
    @pytest.fixture
    def place(self, tmp_path: Path, learned_history: Path) -> Checkout:
        """A clone whose configuration names a program that writes its environment to a file."""
        place = new_checkout(tmp_path / "repo", learned_history)
        spy = tmp_path / "spy.sh"
        spy.write_text(f'#!/bin/sh\nenv >>"{tmp_path}/seen"\nexec cat\n')
        spy.chmod(0o755)
        (place.root / ".gitattributes").write_text("* filter=a.b=c\n")
        for key in ("clean", "process", "smudge"):
            place.git("config", f"filter.a.b=c.{key}", str(spy))
        place.git("config", "remote.origin.url", f"ext::{spy} %S")
        place.git("config", "protocol.ext.allow", "always")
        (place.root / "shop/cart.py").write_text("total = 2\n")
        return place.with_env(FEDSTEP_TOKEN=TOKEN)

    @pytest.mark.parametrize("command", ["predict", "train", "triage"])
    def test_no_filter_runs(self, command: str, place: Checkout, tmp_path: Path):
        place.run(command, "--junit", place.report(forty_tests(1)))
        assert not (tmp_path / "seen").exists()

    @pytest.mark.parametrize("command", [("history", "merge"), ("train", "--history", "git")])
    def test_no_program_stands_in_for_a_remote(self, command: tuple[str, ...], place: Checkout, tmp_path: Path):
        more = ("--junit", place.report(forty_tests(1))) if command[0] == "train" else ("--history", "git")
        place.run(*command, *more)
        assert not (tmp_path / "seen").exists()

    def test_filter_of_git_lfs_stays(self, place: Checkout):
        """Without it git would call each of its files changed."""
        _steering.cache_clear()
        for key, words in (("clean", "clean -- %f"), ("smudge", "smudge -- %f"), ("process", "filter-process")):
            place.git("config", f"filter.lfs.{key}", f"git-lfs {words}")
        assert {key.rpartition(".")[0] for key, _ in _replacements(str(place.root))} == {"filter.a.b=c"}

    def test_long_configuration_is_read_whole(self, place: Checkout, tmp_path: Path):
        """A filter behind 300 kB of comments is turned off, too."""
        config = place.root / ".git/config"
        config.write_text(f"# {'x' * 98}\n" * 4000 + config.read_text())
        place.run("predict")
        assert not (tmp_path / "seen").exists()

    def test_folder_above_is_no_repository_of_ours(self, place: Checkout, tmp_path: Path):
        """Where `.git` is damaged, git would use the configuration of a repository above."""
        inner = place.root / "shop"
        (inner / ".git").mkdir()
        for command in ("predict", "triage"):
            Checkout(inner, place.env).run(command, "--junit", "*.xml")
        assert not (tmp_path / "seen").exists()

    def test_name_of_git_folder_may_have_a_line_break(self, place: Checkout, tmp_path: Path):
        (place.root / ".git").rename(place.root / "clean\ndirty")
        (place.root / ".git").write_text("gitdir: clean\ndirty\n")
        place.run("predict")
        assert not (tmp_path / "seen").exists()

    def test_no_signature_is_checked(self, place: Checkout, tmp_path: Path):
        """`git log`, which tells who changed a file last, would start `gpg.program`."""
        place.git("config", "log.showSignature", "true")
        place.git("config", "gpg.program", str(tmp_path / "spy.sh"))
        place.git("config", "--remove-section", "filter.a.b=c")
        place.git("add", "shop/cart.py")
        person = "n <a@example.org> 1700000000 +0000"
        signed = (
            f"tree {place.git('write-tree').strip()}\nparent {place.git('rev-parse', 'HEAD').strip()}\n"
            f"author {person}\ncommitter {person}\n"
            "gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n\nx\n"
        )
        (tmp_path / "commit").write_text(signed)
        place.git("reset", "--soft", place.git("hash-object", "-t", "commit", "-w", str(tmp_path / "commit")).strip())
        (tmp_path / "seen").unlink(missing_ok=True)
        (place.root / "report.xml").write_text(
            '<testsuite name="s"><testcase classname="shop.cart" name="test_a" file="shop/cart.py">'
            '<failure message="boom"/></testcase></testsuite>'
        )
        ran = place.run("triage", "--junit", "report.xml", "--format", "json")
        assert '"last_touched":"n, ' in ran.out.replace(": ", ":")
        assert not (tmp_path / "seen").exists()

    @pytest.mark.parametrize("key", ["uploadpack", "receivepack"])
    def test_no_program_serves_a_remote(self, key: str, place: Checkout, tmp_path: Path):
        """git runs it on this machine for a remote that is a folder; one sentence says why nothing is asked."""
        place.git("init", "-q", "--bare", str(tmp_path / "remote"))
        place.git("config", "remote.origin.url", str(tmp_path / "remote"))
        place.git("config", f"remote.origin.{key}", str(tmp_path / "spy.sh"))
        for command in (("train", "--junit", place.report(forty_tests(1))), ("forget", "--remote", "--yes")):
            ran = place.run(*command, "--history", "git")
            assert not (tmp_path / "seen").exists()
            assert f"remote.origin.{key} in .git/config names a program" in ran.err

    def test_no_hook_of_a_remote_folder_runs(self, place: Checkout, tmp_path: Path):
        """A repository may be beside its remote in one archive."""
        place.git("init", "-q", "--bare", str(tmp_path / "remote"))
        place.git("config", "remote.origin.url", str(tmp_path / "remote"))
        spy = tmp_path / "spy.sh"
        for hook in ("pre-receive", "update", "post-receive", "reference-transaction"):
            shutil.copy(spy, tmp_path / "remote/hooks" / hook)
        place.git("clone", "-q", str(tmp_path / "remote"), str(tmp_path / "other"))
        (tmp_path / "remote/objects/info/alternates").write_text(f"{tmp_path}/other/.git/objects\n")
        place.git("-C", str(tmp_path / "remote"), "config", "core.alternateRefsCommand", str(spy))
        assert place.run("train", "--junit", place.report(forty_tests(1)), "--history", "git").code == 0
        assert place.git("ls-remote", str(tmp_path / "remote")), "the history was pushed"
        assert place.run("forget", "--remote", "--yes", "--history", "git").code == 0
        assert not place.git("ls-remote", str(tmp_path / "remote"))
        assert not (tmp_path / "seen").exists()

    def test_no_hook_of_the_configuration_runs(self, place: Checkout, tmp_path: Path):
        """From git 2.54 on a hook may be named there, and from 2.55 on all hooks of an event can be turned off."""
        root = str(place.root)
        place.git("config", "remote.origin.url", str(tmp_path / "remote"))
        place.git("init", "-q", "--bare", str(tmp_path / "remote"))
        for event in ("reference-transaction", "pre-push", "pre-receive", "post-update"):
            for folder in (root, str(tmp_path / "remote")):
                place.git("-C", folder, "config", f"hook.a.b={event}.event", event)
                place.git("-C", folder, "config", f"hook.a.b={event}.command", str(tmp_path / "spy.sh"))
            _steering.cache_clear()
            assert run_git(root, ("config", "--bool", f"hook.a.b={event}.enabled"))().out == b"false\n"
            assert run_git(root, ("config", "--bool", f"hook.{event}.enabled"))().out == b"false\n"
            assert f"-c hook.{event}.enabled=false" in RECEIVE_PACK
        assert place.run("train", "--junit", place.report(forty_tests(1)), "--history", "git").code == 0
        assert place.git("ls-remote", str(tmp_path / "remote")), "the history was pushed"
        assert not (tmp_path / "seen").exists()

    def test_nothing_is_checked_out_in_a_remote_folder(self, place: Checkout, tmp_path: Path):
        """There, git would write the files of our ref as those of its branch, through a filter."""
        remote = tmp_path / "remote"
        place.git("init", "-q", str(remote))
        place.git("config", "remote.origin.url", str(remote))
        place.git("-C", str(remote), "config", "filter.x.process", str(tmp_path / "spy.sh"))
        place.git("-C", str(remote), "config", "receive.denyCurrentBranch", "updateInstead")
        (remote / ".git/info/attributes").write_text("* filter=x\n")
        (remote / ".git/HEAD").write_text("ref: refs/fedstep/history\n")
        assert place.run("train", "--junit", place.report(forty_tests(1)), "--history", "git").code == 0
        assert place.git("ls-remote", str(remote)), "the history was pushed"
        assert place.run("forget", "--remote", "--yes", "--history", "git").code == 0
        assert not (tmp_path / "seen").exists()

    def test_folder_of_this_machine_gets_no_token(self, place: Checkout, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        tell = ("-c", "alias.tell=!env", "tell")
        assert TOKEN.encode() in run_remote_git(str(place.root), tell, 5.0).out
        assert TOKEN.encode() not in run_remote_git(str(place.root), tell, 5.0, is_local=True).out

    def test_no_program_tells_refs_of_alternates(self, place: Checkout, tmp_path: Path):
        place.git("init", "-q", "--bare", str(tmp_path / "remote"))
        place.git("config", "remote.origin.url", str(tmp_path / "remote"))
        place.run("train", "--junit", place.report(forty_tests(1)), "--history", "git")
        place.git("clone", "-q", str(tmp_path / "remote"), str(tmp_path / "other"))
        (place.root / ".git/objects/info").mkdir(exist_ok=True)
        (place.root / ".git/objects/info/alternates").write_text(f"{tmp_path}/other/.git/objects\n")
        place.git("config", "core.alternateRefsCommand", str(tmp_path / "spy.sh"))
        place.git("update-ref", "-d", "refs/fedstep/history")
        place.run("history", "merge", "--history", "git")
        assert not (tmp_path / "seen").exists()

    def test_no_program_connects_or_asks(self, place: Checkout, tmp_path: Path):
        """Neither a proxy of git's own protocol nor one that asks for a password; and no file gets cookies."""
        requests: list[bytes] = []
        asking = b"401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nSet-Cookie: a=b; Max-Age=999"
        with server(recording(requests, answering(asking.decode()))) as url:
            for key, value in (
                ("core.gitProxy", str(tmp_path / "spy.sh")),
                ("core.askPass", str(tmp_path / "spy.sh")),
                ("http.cookieFile", str(tmp_path / "seen")),
                (f"http.{url}.saveCookies", "true"),
            ):
                place.git("config", key, value)
            for remote in (url, "git://127.0.0.1:9/x"):
                place.git("config", "remote.origin.url", remote)
                place.run("history", "merge", "--history", "git")
        assert requests
        assert not (tmp_path / "seen").exists()

    def test_git_gets_none_of_our_tokens(self, place: Checkout, tmp_path: Path):
        """A program for the remote that the user allowed is started without them."""
        place.git("config", "remote.origin.url", f"ssh://nobody@127.0.0.1:9/{tmp_path}")
        place.git("config", "core.sshCommand", f"env >{tmp_path}/seen; false")
        place.run("history", "merge", "--history", "git")
        assert TOKEN not in (tmp_path / "seen").read_text()


class TestDevices:
    @pytest.mark.slow
    def test_pipes_in_the_folder_of_git_end(self, tmp_path: Path, learned_history: Path):
        """An archive of a clone can have one, and reading it would never end; each waits for the limit of git."""
        names = ("HEAD", "config", "packed-refs", "refs/fedstep/history", "commondir")
        places = {name: new_checkout(tmp_path / str(number), learned_history) for number, name in enumerate(names)}
        for name, place in places.items():
            path = place.root / ".git" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        with ThreadPoolExecutor() as threads:
            codes = threads.map(lambda place: place.run("predict", "--history", "git").code, places.values())
        assert dict(zip(places, codes, strict=True)) == dict.fromkeys(places, 0)

    @pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
    def test_log_that_is_no_file_ends(self, target: str, tmp_path: Path, learned_history: Path):
        place = new_checkout(tmp_path / "repo", learned_history)
        os.mkfifo(place.root / "pipe")
        os.symlink(target, place.root / "job.log")
        (place.root / ".fedstep.toml").write_text('log = "job.log"\n')
        ran = place.run("triage", "--junit", place.report(forty_tests(1)))
        assert "job.log: cannot be read: it is not a regular file" in ran.err

    @pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
    def test_list_that_is_no_file_ends(self, target: str, tmp_path: Path, learned_history: Path):
        """A plan, or names of tests, that a file of the repository names."""
        place = new_checkout(tmp_path / "repo", learned_history)
        os.mkfifo(place.root / "pipe")
        os.symlink(target, place.root / "list")
        for line, command in (('plan = "@list"', ("shard", "--index", "1")), ('names = "list"', ("order",))):
            (place.root / ".fedstep.toml").write_text(f"{line}\n")
            assert "list cannot be read: it is not a regular file" in place.run(*command).err

    def test_endless_times_of_a_file_are_finite(self, tmp_path: Path, learned_history: Path):
        """Neither a socket nor a process can be waited for that long."""
        place = new_checkout(tmp_path / "repo", learned_history)
        place.git("init", "-q", "--bare", str(tmp_path / "remote"))
        place.git("config", "remote.origin.url", str(tmp_path / "remote"))
        for value in ("inf", "1e308"):
            (place.root / ".fedstep.toml").write_text(f"budget = {value}\ntimeout = {value}\n")
            with refusing() as (url, requests):
                assert place.run("pull", "--aggregator", url, "--strict").code == 5
                assert requests
            report = place.report(forty_tests(1))
            assert place.run("train", "--junit", report, "--history", "git", "--strict").code == 0

    @pytest.mark.parametrize("name", [".fedstep-mutes.toml", ".fedstep-acks.toml"])
    def test_lists_of_the_repository_are_no_links(self, name: str, tmp_path: Path, learned_history: Path):
        """What is added to one would be written to another file."""
        victim = tmp_path / "victim"
        victim.write_text("# mine\n")
        place = new_checkout(tmp_path / "repo", learned_history)
        os.symlink(victim, place.root / name)
        if "mutes" in name:
            ran = place.run("quarantine", "add", "a#b", "--reason", "r", "--owner", "o", "--days", "3")
            assert "is a link or no regular file" in ran.err
        else:
            with pytest.raises(InputError, match="is a link or no regular file"):
                add_acknowledgement(str(place.root), Acknowledgement("a#b", "2030-12-31"))
        assert victim.read_text() == "# mine\n"
        (place.root / name).unlink()
        os.symlink("/dev/zero", place.root / name)
        assert "cannot be read" in place.run("triage" if "mutes" in name else "digest").err
