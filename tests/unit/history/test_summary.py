"""Facts about the summary: it is a cache of the log and can always be made again."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.errors import HistoryError
from fedstep.history.project_store import ProjectStore
from fedstep.history.records import BuildRecord, decode_record, encode_record, make_record
from fedstep.history.summary import (
    FORGET_AFTER,
    MAXIMUM_BUILDS,
    PlannedBuild,
    Summary,
    apply_record,
    cache_key,
    decode_summary,
    encode_summary,
    forget_pruned,
    load_summary,
    past_build,
    plan_build,
    save_summary,
    unprocessed_records,
)
from fedstep.history.test_table import name_words, read_coordinates
from fedstep.types import (
    NO_SECONDS,
    Build,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FileChange,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)


def entry(number: int, tests: tuple[TestRun, ...] = ()) -> BuildRecord:
    at = 1_700_000_000.0 + 600 * number
    return BuildRecord(f"{number:032x}", at, at + 60, 60.0, "unit||mark", BuildOutcome.PASSED, tests=tests)


def drawn(seed: int, builds: int = 12) -> list[BuildRecord]:
    draw = random.Random(seed)
    outcomes = [Outcome(letter) for letter in "ppppfcks"]
    return [
        entry(
            number,
            tuple(
                TestRun(f"a.B{n % 3}Test#t{n}", draw.choice(outcomes), draw.choice([NO_SECONDS, draw.random()]))
                for n in range(6)
            ),
        )._replace(
            commit=f"{draw.randrange(4)}",
            stream=draw.choice(["unit||mark", "e2e||mark"]),
            seconds=draw.choice([NO_SECONDS, 60.0]),
            change_known=draw.random() < 0.8,
            source_words={"a.B0Test#t0": ("sleep", "thread", "nosuchword")},
        )
        for number in range(builds)
    ]


def folded(entries: list[BuildRecord]) -> Summary:
    summary = Summary()
    for one in entries:
        summary = apply_record(summary, one.name, decode_record(encode_record(one)))
    return summary


def same(one: Summary, other: Summary) -> bool:
    """Equality in which an unknown time equals an unknown time."""
    known = (one.seen, one.count, one.tests) == (other.seen, other.count, other.tests)
    return known and repr(one.builds) == repr(other.builds)


class TestEncoding:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 10_000))
    def test_stored_summary_goes_on_as_if_never_stored(self, seed: int) -> None:
        """A summary comes back whole and goes on as if it had not been stored."""
        entries = drawn(seed)
        half = folded(entries[:6])
        loaded = decode_summary(encode_summary(half))
        assert same(loaded, half)
        for one in entries[6:]:
            loaded = decode_summary(encode_summary(apply_record(loaded, one.name, decode_record(encode_record(one)))))
        assert same(loaded, folded(entries))

    @given(st.binary(max_size=60) | st.sampled_from([b"[]", b"{}", b"[" * 100_000, b'{"format":1}']))
    def test_bytes_that_are_no_summary_are_a_history_error(self, content: bytes) -> None:
        with pytest.raises(HistoryError):
            decode_summary(content)

    @pytest.mark.parametrize("key", ["tests", "builds", "seen", "count"])
    @pytest.mark.parametrize("value", [None, 5, [], {"ids": ["a"]}, "x"])
    def test_damaged_column_is_an_error_or_an_honest_summary(self, key: str, value: object) -> None:
        """A damaged column is a history error or an honest summary."""
        content = {**json.loads(encode_summary(folded(drawn(1)))), key: value}
        with suppress(HistoryError):
            assert isinstance(decode_summary(json.dumps(content).encode()), Summary)

    @pytest.mark.parametrize("sparse", [True, False])
    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("flips", '"x"'),
            ("runs", "1.5"),
            ("failed_5", "NaN"),
            ("log_seconds", "1e999"),
            ("recent", "3"),
            ("ids", "1"),
        ],
    )
    def test_value_of_another_kind_is_a_history_error(self, column: str, value: str, sparse: bool) -> None:
        """It would otherwise raise where tests are compared, long after it was read."""
        content = json.loads(encode_summary(folded(drawn(1))))
        length = len(content["tests"]["ids"])
        usual = 0 if column in ("flips", "runs", "failed_5", "log_seconds") else ""
        some = {"length": length, "usual": usual, "at": [0], "is": ["@"]}
        content["tests"][column] = some if sparse else ["@", *[usual] * (length - 1)]
        with pytest.raises(HistoryError):
            decode_summary(json.dumps(content).replace('"@"', value).encode())


def filled(home: ProjectStore, entries: list[BuildRecord]) -> Summary:
    for one in entries:
        home.log.append(one)
    summary = load_summary(home).summary
    save_summary(home, summary)
    return summary


class TestCache:
    @pytest.mark.parametrize("damage", [b"", b"{", b"\x00\xff", b"[]"])
    def test_a_damaged_or_missing_summary_is_made_again(self, home: ProjectStore, damage: bytes) -> None:
        summary = filled(home, drawn(2))
        home.write("summary.json", damage)
        assert same(load_summary(home).summary, summary)

    def test_a_schema_with_other_words_renumbers_those_of_names(self, home: ProjectStore) -> None:
        """Nothing else of it depends on the schema; words of sources are unknown until `train` reads them again."""
        filled(home, drawn(3))
        stored = json.loads(home.read("summary.json"))
        other = {**stored, "schema": "0" * 16, "words": "1" * 16, "count": 77}
        words = ["1"] * len(other["tests"]["ids"])
        home.write("summary.json", json.dumps({**other, "tests": {**other["tests"], "name_words": words}}).encode())
        found = load_summary(home).summary
        assert found.count == 77
        assert {test: stats.name_words for test, stats in found.tests.items()} == {
            test: name_words(test) for test in found.tests
        }
        assert {stats.source_words for stats in found.tests.values()} == {None}

    def test_words_that_earlier_versions_wrote_as_lists_are_read(self, home: ProjectStore) -> None:
        """To apply all records again would take half a minute."""
        summary = filled(home, drawn(3))
        stored = json.loads(home.read("summary.json"))
        lists = {
            "name_words": [read_coordinates(stats.name_words) for stats in summary.tests.values()],
            "source_words": [
                None if stats.source_words is None else read_coordinates(stats.source_words)
                for stats in summary.tests.values()
            ],
        }
        earlier = {**stored, "tests": {**stored["tests"], **lists}}
        assert same(decode_summary(json.dumps(earlier).encode()), summary)

    def test_a_schema_with_the_same_words_keeps_the_summary(self, home: ProjectStore) -> None:
        """Of the schema the summary has numbers of words alone: a new feature makes no history read again."""
        filled(home, drawn(3))
        stored = json.loads(home.read("summary.json"))
        home.write("summary.json", json.dumps({**stored, "schema": "0" * 16, "count": 77}).encode())
        assert load_summary(home).summary.count == 77


class TestBuilds:
    def test_one_build_at_a_time_gives_the_summary_of_all(self, home: ProjectStore) -> None:
        """One build after another gives the summary of all at once."""
        entries = drawn(4)
        for one in entries:
            home.log.append(one)
            save_summary(home, load_summary(home).summary)
        step_by_step = load_summary(home).summary
        (Path(home.folder) / "summary.json").unlink()
        assert same(load_summary(home).summary, step_by_step)

    def test_the_same_build_twice_counts_once(self, home: ProjectStore) -> None:
        one = entry(1, (TestRun("a#b", Outcome.PASSED),))
        home.log.append(one)
        home.log.append(one._replace(finished_at=one.finished_at + 5))  # as after a merge of two logs
        assert len(home.log.files()) == 2
        summary = load_summary(home).summary
        assert (summary.count, [stats.runs for stats in summary.tests.values()]) == (1, [1])
        assert list(unprocessed_records(home, summary)) == []

    def test_what_a_build_leaves_behind_is_what_was_planned_of_it(self) -> None:
        ci = CiRun(job="unit", branch="topic", base_branch="main", event="pull_request")
        change = Change("c0ffee", "", "me", (FileChange("pom.xml", 3, 4), FileChange("a/B.java", 1, 0)))
        for known in (change, Unavailable("no git")):
            situation = BuildContext(ci, known, 1_700_000_000.25)
            build = Build("a" * 32, situation, 1_700_000_100.0, Duration(99.0, "mark"), BuildOutcome.FAILED, Reports())
            planned = plan_build(situation, "unit||mark", "author" if known is change else "")
            past = past_build(make_record(build, planned.stream, planned.author))
            assert {name: getattr(past, name) for name in PlannedBuild._fields} == planned._asdict()


class TestPruning:
    def test_old_builds_and_tests_that_no_longer_run_are_forgotten(self) -> None:
        summary = folded([entry(0, (TestRun("gone#a", Outcome.PASSED),))])
        for number in range(1, FORGET_AFTER + 2):
            summary = apply_record(summary, str(number), entry(number, (TestRun("here#a", Outcome.PASSED),)))
        assert list(summary.tests) == ["here#a"]
        assert len(summary.builds) == MAXIMUM_BUILDS
        assert summary.count == FORGET_AFTER + 2

    def test_pruned_records_are_no_longer_named(self, home: ProjectStore) -> None:
        """Pruned records are no longer named, and an empty listing forgets nothing."""
        summary = filled(home, drawn(5))
        home.log.prune(4)
        assert forget_pruned(home, summary).seen == frozenset(home.log.files())
        for name in home.log.files():
            (Path(home.folder) / "builds" / name).unlink()
        assert forget_pruned(home, summary).seen == summary.seen

    def test_a_generation_names_the_set_of_records(self) -> None:
        assert cache_key(Summary(frozenset("ab"))) == cache_key(Summary(frozenset("ba")))
        assert cache_key(Summary(frozenset("ab"))) != cache_key(Summary(frozenset("abc")))
