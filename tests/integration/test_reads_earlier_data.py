"""What an earlier version wrote is read: histories, a shared history, stores of aggregators, an exported store.

The data and the expected values are in `tests/data/before_renaming`; its README says how they were made. Only the
command line is used, in processes of its own.
"""

import json
from pathlib import Path

import pytest

from tests.helpers.earlier_data import (
    DATA,
    NOW,
    PEER_TOKEN,
    PRIVACY,
    TOKEN,
    Folder,
    administer,
    ci,
    clone,
    differences,
    figures,
    git_history_output,
    history_output,
    next_report,
    private_output,
    pulled,
    recorded,
    served_output,
    serving,
    store_output,
    unpack,
    wait_for,
)

EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))


def new_folder(path: Path) -> Folder:
    """Make a folder that knows no project."""
    path.mkdir(parents=True)
    return Folder(path)


class TestHistoryFolder:
    """The folder that `fedstep train` keeps, after 65 builds with failures, flakes and a renamed class."""

    def test_every_command_prints_the_same_numbers(self, tmp_path: Path) -> None:
        """Predict, triage, explain, inspect, status and show are compared; then one more build is learned.

        The build after it shows that what was learned, and the examples that wait for a label, were taken over; a
        rebuild that the records were.

        Probabilities, estimates and silver flips are those of today's models and posterior of flips; the pulled model
        and the examples that waited are of an earlier feature schema, so that the starter model answers and fewer
        examples are learned. Builds, tests, runs, failures, outcomes and gold flips are as they were.
        """
        assert differences(EXPECTED["history"], history_output(tmp_path)) == []

    def test_the_outbox_is_sent_or_named_in_a_warning(self, tmp_path: Path) -> None:
        """Three updates wait in the folder. They may be older than the words on the wire, but stop nothing."""
        place = clone(tmp_path / "checkout")
        unpack("history.tar.gz", place.root)
        next_report(place.root / "report.xml")
        server = new_folder(tmp_path / "server")
        with serving(server.root, "--store", "sqlite:///new.sqlite") as url:
            pushed = place.run("push", "--aggregator", url)
            trained = place.run("train", "--junit", "report.xml", "--aggregator", url, env=ci(903))
        assert (pushed.code, trained.code) == (0, 0)
        assert pushed.out.startswith("3 sent") or "fedstep: " in pushed.err, pushed

    def test_a_privacy_budget_is_remembered(self, tmp_path: Path) -> None:
        """`fedstep status` counts the contributions that were made before."""
        place = clone(tmp_path / "checkout")
        unpack("history-private.tar.gz", place.root)
        ended = place.run("status", "--json")
        (budget,) = (check for check in json.loads(ended.out)["checks"] if check["name"] == "Privacy")
        assert "2 of 52" in budget["says"], budget


class TestHistoryRef:
    """The history in a ref of the repository, of which a bundle is kept."""

    def test_every_command_prints_the_same_numbers(self, tmp_path: Path) -> None:
        """Fetch the ref, merge it, and predict, triage and explain with it.

        Probabilities, estimates and silver flips are those of today's models and posterior of flips.
        """
        assert differences(EXPECTED["git history"], git_history_output(tmp_path)) == []

    def test_a_build_is_added_to_the_earlier_ref(self, tmp_path: Path) -> None:
        """Six builds are in the ref; after `fedstep train` there are seven, and a merge finds nothing damaged."""
        place = clone(tmp_path / "checkout")
        place.git("fetch", "-q", "origin", "refs/fedstep/history:refs/fedstep/history")
        place.git("remote", "remove", "origin")  # a bundle cannot be pushed to
        next_report(place.root / "report.xml")
        commit = place.git("rev-parse", "HEAD").strip()
        trained = place.run("train", "--junit", "report.xml", "--history", "git", env=ci(904, commit))
        assert trained.code == 0, trained.err
        shown = place.json("history", "show", "--history", "git", "--format", "json")
        assert isinstance(shown, dict)
        assert (shown["builds"], shown["unlearned"], shown["ref"]["unpublished"]) == (7, 0, 0)


class TestStore:
    """The store of an aggregator: promoted, rejected and rolled back versions, trials, tokens, waiting updates."""

    def test_its_figures_are_the_same(self, tmp_path: Path) -> None:
        """Status, versions with every verdict, and tokens, though they are of an earlier feature schema."""
        assert differences(EXPECTED["store"], store_output(tmp_path, "store.sqlite")) == []

    def test_the_same_models_are_served_and_moved_on(self, tmp_path: Path) -> None:
        """A client predicts the same with the production that is served.

        The feature schema is a later one: version 22 starts with what production 21 had for the features that remain.
        The six updates that waited are of the earlier one and go into no model.
        """
        assert differences(EXPECTED["served"], served_output(tmp_path)) == []

    def test_an_earlier_token_still_sends_updates(self, tmp_path: Path) -> None:
        """A project with a token of the store learns eight builds; its update waits.

        The six that waited before are of an earlier feature schema, whose buffer is not this one's.
        """
        folder = unpack("stores.tar.gz", tmp_path / "stores")
        place = new_folder(tmp_path / "project")
        before = figures(administer(folder, "store.sqlite", "status"))
        options = ("--store", "sqlite:///store.sqlite", "--buffer-size", "100", "--max-wait", "100000")
        with serving(folder, *options, now=NOW) as url:
            assert place.run("pull", "--aggregator", url).code == 0
            learned = place.run("backfill", recorded(tmp_path / "recorded", 90, range(8)), "--jobs", "1")
            assert learned.code == 0, learned.err
            refused = place.run("push", "--aggregator", url, env={"FEDSTEP_TOKEN": "fedstep_unknown"})
            assert refused.out == "0 sent, 0 refused, 1 waiting\n", refused
            sent = place.run("push", "--aggregator", url, env={"FEDSTEP_TOKEN": TOKEN})
            assert sent.out == "1 sent, 0 refused, 0 waiting\n", sent
        after = figures(administer(folder, "store.sqlite", "status"))
        assert ["6", "3"] in before
        assert ["1", "1"] in after, after

    def test_an_earlier_export_fills_a_new_store(self, tmp_path: Path) -> None:
        """`export.jsonl.gz` is of the store with a privacy budget, whose own figures are compared, too."""
        assert differences(EXPECTED["private"], private_output(tmp_path)) == []

    def test_a_promise_of_privacy_is_still_kept(self, tmp_path: Path) -> None:
        """Without its terms the store is not served; with them it is."""
        folder = unpack("stores.tar.gz", tmp_path / "stores")
        store = ("--store", "sqlite:///private.sqlite")
        refused = Folder(folder).run("serve", "--port", "0", *store)
        assert refused.code == 2
        assert "--privacy-epsilon" in refused.err
        place = new_folder(tmp_path / "project")
        with serving(folder, *store, *PRIVACY) as url:
            assert place.run("pull", "--aggregator", url).code == 0


class TestSharedStores:
    """The stores of a leader and its helper, which each hold half of every update."""

    @pytest.mark.parametrize("role", ["leader", "helper"])
    def test_their_figures_are_the_same(self, tmp_path: Path, role: str) -> None:
        """Status and versions."""
        assert differences(EXPECTED[role], store_output(tmp_path, f"{role}.sqlite")) == []

    def test_both_go_on_with_each_other(self, tmp_path: Path) -> None:
        """They serve the model they had, and five more projects make the next version with them.

        Five, because a sum has at least five projects. What waited in the stores is of an earlier feature schema:
        version 9 starts with what remains of its model, and the sum makes version 10.
        """
        folder = unpack("stores.tar.gz", tmp_path / "stores")
        peer = ("--peer-token", PEER_TOKEN)
        with serving(folder, "--role", "helper", *peer, "--store", "sqlite:///helper.sqlite") as helper:
            leader = ("--role", "leader", "--peer", helper, *peer, "--store", "sqlite:///leader.sqlite")
            with serving(folder, *leader, "--max-wait", "1") as url:
                places = [new_folder(tmp_path / f"project{number}") for number in range(5)]
                assert differences(EXPECTED["leader model"], pulled(places[0], url)) == []
                for number, place in enumerate(places):
                    assert place.run("pull", "--aggregator", url).code == 0
                    builds = recorded(tmp_path / f"recorded{number}", 70 + number, range(8))
                    assert place.run("backfill", builds, "--jobs", "1").code == 0
                for place in places:
                    pushed = place.run("push", "--aggregator", url, "--helper", helper)
                    assert pushed.out == "1 sent, 0 refused, 0 waiting\n", pushed
                wait_for(lambda: "10" in {line[0] for line in figures(administer(folder, "leader.sqlite", "versions"))})

    def test_a_half_sent_update_is_sent_or_named(self, tmp_path: Path) -> None:
        """The leader had its half before, and the helper gets the other one, split by the secret in the outbox."""
        folder = unpack("stores.tar.gz", tmp_path / "stores")
        place = new_folder(tmp_path / "project")
        unpack("history-shares.tar.gz", place.root)
        peer = ("--peer-token", PEER_TOKEN)
        with serving(folder, "--role", "helper", *peer, "--store", "sqlite:///helper.sqlite") as helper:
            leader = ("--role", "leader", "--peer", helper, *peer, "--store", "sqlite:///leader.sqlite")
            with serving(folder, *leader, "--max-wait", "100000", "--buffer-size", "1000") as url:
                assert place.run("pull", "--aggregator", url).code == 0
                pushed = place.run("push", "--aggregator", url, "--helper", helper)
        assert pushed.code == 0, pushed.err
        assert pushed.out == "2 sent, 0 refused, 0 waiting\n" or "fedstep: " in pushed.err, pushed


class TestComparison:
    """The comparison itself: damaged data and another number are seen."""

    def test_another_number_is_seen(self) -> None:
        """One number of the history's expected values is changed by a hundred-thousandth."""
        changed = json.loads(json.dumps(EXPECTED["history"]))
        changed["predict"]["duration"]["seconds"] *= 1.00001
        (found,) = differences(EXPECTED["history"], changed)
        assert found.startswith("/predict/duration/seconds: ")

    def test_a_missing_record_is_seen(self, tmp_path: Path) -> None:
        """The newest record is deleted, and the commands that are compared print something else."""
        place = clone(tmp_path / "checkout")
        unpack("history.tar.gz", place.root)
        sorted((place.root / ".fedstep" / "builds").iterdir())[-1].unlink()
        shown = place.json("history", "show", "--format", "json")
        assert any(found.startswith("/builds: 65") for found in differences(EXPECTED["history"]["history show"], shown))

    def test_a_damaged_model_is_seen(self, tmp_path: Path) -> None:
        """Half of the pulled model is missing: another problem than that it is of an earlier feature schema."""
        place = clone(tmp_path / "checkout")
        unpack("history.tar.gz", place.root)
        path = place.root / ".fedstep" / "model.safetensors"
        content = path.read_bytes()
        whole = place.run("predict").err
        path.write_bytes(content[: len(content) // 2])
        damaged = place.run("predict").err
        assert "feature schema" in whole
        assert "the starter model answers" in damaged
        assert "feature schema" not in damaged

    def test_a_damaged_store_is_seen(self, tmp_path: Path) -> None:
        """Pages in the middle of the file are zeros: a command fails, or prints something else."""
        folder = unpack("stores.tar.gz", tmp_path / "stores")
        path = folder / "store.sqlite"
        content = bytearray(path.read_bytes())
        content[8192 : len(content) // 2] = bytes(len(content) // 2 - 8192)
        path.write_bytes(content)
        ended = Folder(folder).run("server", "versions", "--most", "100", "--store", "sqlite:///store.sqlite")
        assert ended.code != 0 or figures(ended.out) != EXPECTED["store"]["versions"]
