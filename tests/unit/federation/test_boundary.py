"""What is made to leave: no string of a build in any encoding, whole batches alone, counts in buckets, no clock."""

import hashlib
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from urllib.parse import quote
from zlib import crc32

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedstep.federation.messages import MOST_ROWS, TrialScore, Update, bucket, norm, pack_update, unpack_update
from fedstep.federation.model_cache import CachedModel, load_starter_model
from fedstep.federation.update_builder import make_update
from fedstep.history.project_store import ProjectStore
from fedstep.history.records import Example
from fedstep.model.labels import LabelledExample, count_subjects
from fedstep.model.linear import zeros
from fedstep.model.state import ExampleQueue
from fedstep.model.training import learn_new_records
from fedstep.pipeline.train import evaluate_build, record_build
from fedstep.schema.schema import schema
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Dropped,
    Duration,
    FileChange,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
)
from tests.helpers.narrow import present

HEADS = schema().tasks
SECRET = st.text(min_size=8, max_size=24).filter(lambda text: not anyhow(text))  # words of ours are drawn, too
SECRETS = st.lists(SECRET, min_size=3, max_size=6, unique=True)
COUNTS = st.fixed_dictionaries({name: st.integers(0, 130) for name in HEADS})
BUILDS = 10  # two more than a batch of builds
MORNING = 1_780_041_600  # Friday, 2026-05-29 08:00 UTC
YEAR = 52 * 7 * 86_400  # the same weekday and hour
HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s")
NOTHING = Update(
    schema().digest,
    0,
    "0" * 32,
    "0" * 32,
    dict.fromkeys(HEADS, 1),
    {name: zeros(task.size()) for name, task in HEADS.items()},
    dict.fromkeys(HEADS, TrialScore(0, 0.0)),
)
RANDOM_LOOKING = re.compile(rb"[0-9a-f]{32}")


def traces(text: str) -> Iterator[bytes]:
    """The bytes that would give this string away: encoded, escaped, or hashed without a key."""
    plain = [form.encode(code) for form in {text, text.lower(), text.upper()} for code in ("utf-8", "utf-16-le")]
    for raw in plain:
        yield from (raw, raw.hex().encode(), raw.hex().upper().encode(), quote(raw, safe="").encode())
        yield from _base64(raw)
        digests = [hashlib.new(name, raw).digest() for name in HASHES]
        digests += [hashlib.blake2b(raw, digest_size=size).digest() for size in (8, 16, 32)]
        for digest in digests:  # a part of a hash tells as much as the whole
            yield from (digest[:8], digest.hex()[:16].encode(), b64encode(digest)[:10])
        yield f"{crc32(raw):08x}".encode() + b'"'


def _base64(raw: bytes) -> Iterator[bytes]:
    """As it would stand inside any longer text in base64, whatever comes before it."""
    for before in range(3):
        for code in (b64encode, urlsafe_b64encode):
            whole = code(bytes(before) + raw)
            end = len(whole) - {0: 0, 1: 2, 2: 3}[-(before + len(raw)) % 3]
            yield whole[(0, 2, 3)[before] : end]


def anyhow(text: str) -> bool:
    """Whether it is in every update, as `data_offsets` is: then it gives nothing away."""
    return bool(found([text], NOTHING))


def found(secrets: Sequence[str], update: Update) -> list[str]:
    body = pack_update(update)
    return [secret for secret in secrets for trace in traces(secret) if trace in body]


def drawn(count: int, size: int, distinct: int, secrets: Sequence[str], dice: Random) -> tuple[LabelledExample, ...]:
    """Rows whose names are secrets, of so many distinct tests or builds."""
    return tuple(
        LabelledExample(
            Example(
                f"{secrets[n % len(secrets)]} {n % distinct}",
                n,
                tuple(sorted(dice.sample(range(size), 3))),
                (1.0, dice.random(), 1.0),
                (f"test={secrets[n % len(secrets)]}",),
            ),
            float(dice.random() < 0.3),
        )
        for n in range(count)
    )


def made(home: ProjectStore, waiting: Mapping[str, tuple[LabelledExample, ...]]) -> Update | None:
    update, _ = make_update(ExampleQueue(waiting=waiting), load_starter_model(), home.keyed_hash)
    return update if isinstance(update, Update) else None


def telling_builds(secrets: Sequence[str], began: int = MORNING) -> Iterator[FinishedBuild]:
    """Finished builds, an hour apart, with secrets in every string there is. Every third fails."""
    for number in range(BUILDS):

        def word(place: int, number: int = number) -> str:
            return f"{secrets[(place + number) % len(secrets)]}"

        failed = number % 3 == 0
        tests = tuple(
            TestRun(f"{word(n)}#{n}", Outcome.FAILED if failed and n == 3 else Outcome.PASSED, 0.5, word(n), word(n), n)
            for n in range(25)
        )
        files = (FileChange(f"{word(1)}/{word(2)}", 3, 1, word(3)),)
        change = Change(word(4), word(5), word(6), files, word(7), word(8))
        job, cell = secrets[0], secrets[1]  # of one stream: the times of others are not comparable
        ci = CiRun(word(0), f"{word(1)}{number}", 1, job, cell, word(4), word(5), word(6), word(7), word(8))
        reports = Reports(tests, 1, (Dropped(word(1), word(2), kept=True),), f"{word(3)}{number}")
        began_now = began + number * 3600
        outcome = BuildOutcome.FAILED if failed else BuildOutcome.PASSED
        yield FinishedBuild(
            BuildContext(ci, change, began_now),
            began_now + 300 + number,
            Duration(300 + number, "given"),
            outcome,
            reports,
        )


def learned(folder: Path, secrets: Sequence[str], key: str = "ab" * 32, began: int = MORNING) -> Update:
    """The update that a project with these builds would send."""
    home, model = ProjectStore(str(folder)), load_starter_model()
    folder.mkdir()
    home.write("key", key.encode())
    for evidence in telling_builds(secrets, began):
        assert record_build(
            home, evaluate_build(home, evidence, CachedModel(model)), lambda _: {secrets[0]: (secrets[1],)}
        )
    backlog = learn_new_records(home, model.production).state.backlog
    update, _ = make_update(backlog, model, home.keyed_hash)
    assert isinstance(update, Update), update
    return update


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> ProjectStore:
    made = ProjectStore(str(tmp_path_factory.mktemp("key") / "history"))
    made.prepare()
    return made


class TestStrings:
    @given(SECRETS, st.integers(0, 2**32))
    @hypothesis_settings(deadline=None, max_examples=25)
    def test_no_string_of_a_row_is_in_its_update_in_any_encoding(
        self, home: ProjectStore, secrets: list[str], seed: int
    ) -> None:
        dice = Random(seed)
        update = made(home, {name: drawn(60, task.size(), 60, secrets, dice) for name, task in HEADS.items()})
        assert update is not None
        assert update.deltas.keys() == HEADS.keys()
        assert found(secrets, update) == []

    def test_only_what_every_update_says_is_no_secret(self) -> None:
        assert anyhow("DATA_OFF")
        assert not anyhow("CartTest#totals")

    def test_a_string_that_were_in_an_update_would_be_found(self) -> None:
        """The search itself finds a string in an update, in each encoding."""
        secret = "Überweisung#läuft"
        update = Update("0" * 16, 1, "0" * 32, "1" * 32, {"flaky": 64}, {})
        for hidden in (hashlib.md5(secret.encode()).hexdigest(), hashlib.sha256(secret.encode()).hexdigest()[:32]):
            body = str(update._replace(project=hidden)).encode()
            assert any(trace in body for trace in traces(secret))
        for form in (secret, secret.encode().hex(), b64encode(b"x" + secret.encode()).decode(), secret.upper()):
            assert any(trace in f"..{form}..".encode() for trace in traces(secret)), form


class TestCounts:
    @given(SECRETS, COUNTS, st.integers(1, 60), st.integers(0, 2**32))
    @hypothesis_settings(deadline=None, max_examples=40)
    def test_task_is_sent_with_a_whole_batch_clipped_and_bucketed(
        self, home: ProjectStore, secrets: list[str], counts: dict[str, int], distinct: int, seed: int
    ) -> None:
        """A task is sent with a whole batch only, clipped, and with its count in a bucket."""
        dice = Random(seed)
        waiting = {name: drawn(count, HEADS[name].size(), distinct, secrets, dice) for name, count in counts.items()}
        whole = {
            name
            for name, rows in waiting.items()
            if len(rows) >= HEADS[name].minimum_rows and count_subjects(rows) >= HEADS[name].minimum_groups
        }
        update = made(home, waiting)
        assert (set(update.deltas) if update else set()) == whole
        for name in whole:
            examples = present(update).examples[name]
            assert examples & (examples - 1) == 0
            assert examples <= counts[name] < 2 * examples
            assert norm(present(update).deltas[name]) <= HEADS[name].clip

    @pytest.mark.parametrize(("task", "rows", "distinct"), [("flaky", 50, 20), ("triage", 50, 20)])
    def test_tasks_about_tests_wait_for_fifty_of_twenty_tests(self, task: str, rows: int, distinct: int) -> None:
        assert (HEADS[task].minimum_rows, HEADS[task].minimum_groups) == (rows, distinct)

    @pytest.mark.parametrize("task", ["build-failure", "build-duration"])
    def test_tasks_about_builds_wait_for_eight_builds(self, task: str) -> None:
        assert (HEADS[task].minimum_rows, HEADS[task].minimum_groups) == (8, 8)

    @given(st.integers(1, 1 << 40))
    def test_a_count_is_told_as_a_power_of_two_that_is_not_above_it(self, count: int) -> None:
        told = bucket(count)
        assert told & (told - 1) == 0
        assert told <= count
        assert told == MOST_ROWS or count < 2 * told

    def test_the_fields_of_an_update_are_these_and_none_is_a_time(self) -> None:
        assert Update._fields == ("schema", "base", "id", "project", "examples", "deltas", "scores")
        assert not [name for task in HEADS.values() for name in (task.name,) if re.search("time|date|clock", name)]


class TestBuilds:
    @given(SECRETS)
    @hypothesis_settings(
        deadline=None, max_examples=4, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    def test_no_string_of_a_build_is_in_the_update_learned_from_it(
        self, tmp_path_factory: pytest.TempPathFactory, secrets: list[str]
    ) -> None:
        update = learned(tmp_path_factory.mktemp("told") / "history", secrets)
        assert {"build-failure", "build-duration"} <= update.deltas.keys()
        assert found(secrets, update) == []

    def test_the_same_builds_a_year_earlier_make_the_same_update(self, tmp_path: Path) -> None:
        """The same builds a year earlier make the same update, so no date is in it.

        The hour of the day and the weekday act through features of the public list.
        """
        secrets = ("payments", "checkout", "warehouse")
        now, before = (learned(tmp_path / str(began), secrets, began=began) for began in (MORNING, MORNING - YEAR))
        assert now._replace(deltas={}) == before._replace(deltas={})
        for name, delta in now.deltas.items():
            assert list(delta) == pytest.approx(list(before.deltas[name]), abs=1e-7)

    def test_other_key_gives_other_id_and_pseudonym(self, tmp_path: Path) -> None:
        """Under another key, the same builds have another id and another pseudonym."""
        secrets = ("payments", "checkout", "warehouse")
        one, other = (learned(tmp_path / key, secrets, key=key * 32) for key in ("ab", "cd"))
        assert one.id != other.id
        assert one.project != other.project
        assert unpack_update(pack_update(one)).deltas == unpack_update(pack_update(other)).deltas
        assert len(set(RANDOM_LOOKING.findall(pack_update(one)))) == 2
