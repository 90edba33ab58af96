"""Inspections and diagnoses as text and JSON: numbers as they are, names from outside as harmless lines."""

import json

from fedstep.report.inspection import (
    MOST,
    AuditRecord,
    Coefficient,
    InspectedField,
    InspectedTask,
    InspectedToken,
    InspectedUpdate,
    Inspection,
    Leak,
    LeakProof,
    PastUpdate,
    inspection_text,
    record_text,
)
from fedstep.report.json import diagnosis_json, inspection_json, record_json
from fedstep.report.text import diagnosis_text
from fedstep.report.units import columns
from fedstep.results import OK, PROBLEM, WARNING, Diagnosis, DiagnosticCheck
from fedstep.types import Dropped, Unavailable

MANY = tuple(Coefficient(f"name=word{number}", 0.5 - number / 100) for number in range(MOST + 7))


def inspection(name: str = "x") -> Inspection:
    tasks = (
        InspectedTask("flaky", 64, 3446, 0.29, 1.0, MANY),
        InspectedTask(name, 0, 2, 0.1, 0.0, (Coefficient(name, -0.1),)),
    )
    fields = (InspectedField("base", "3", "version of the model it was learned from"), InspectedField(name, name, "?"))
    update = InspectedUpdate("outbox", "it waits in the outbox", 14_672, 2_141, "ab" * 32, fields, tasks)
    token = InspectedToken("jwt", 900, "", (InspectedField(name, name, "", "a person"),))
    proof = LeakProof(1, 40, 3, 2, (Leak(name, "in the numbers"),), (Dropped(name, name),))
    return Inspection(update, token, (InspectedField("Accept", "application/json", "constant"),), proof, (name,))


def record(name: str = "x") -> AuditRecord:
    sent = PastUpdate("2026-11-21T22:00Z", "cd" * 32, 14_672, ((name, 64),), name, name, name, 0)
    return AuditRecord(
        (sent, PastUpdate("2026-11-21T23:00Z", "ef" * 32, 900, (("flaky", 64),), "3", "s", "h", 202)), 1, 20
    )


def diagnosis(name: str = "x") -> Diagnosis:
    checks = (
        DiagnosticCheck("CI", OK, name),
        DiagnosticCheck("Git", WARNING, name, name),
        DiagnosticCheck("Reports", PROBLEM, name, name),
    )
    return Diagnosis(checks)


def harmless(text: str) -> None:
    assert text.replace("\n", "").isprintable()
    assert max(map(columns, text.splitlines())) <= 100
    assert "##[" not in text
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())


class TestHostileNames:
    def test_hostile_names_are_harmless_lines(self, hostile: str) -> None:
        for text in (inspection_text(inspection(hostile), True), diagnosis_text(diagnosis(hostile))):
            harmless(text)

    def test_hostile_names_on_record_are_harmless(self, hostile: str) -> None:
        harmless(record_text(record(hostile)))

    def test_hostile_names_are_json_strings(self, hostile: str) -> None:
        update = json.loads(inspection_json(inspection(hostile)))
        assert len(update["update"]["heads"]["flaky"]["coefficients"]) == len(MANY)
        assert len(json.loads(record_json(record(hostile)))["sent"]) == 2
        assert [check["state"] for check in json.loads(diagnosis_json(diagnosis(hostile)))["checks"]] == [
            "ok",
            "warning",
            "problem",
        ]


class TestInspection:
    def test_largest_coefficients_are_shown_and_the_rest_counted(self) -> None:
        """The largest coefficients are shown, and how many are left."""
        some, all_of_them = inspection_text(inspection()), inspection_text(inspection(), True)
        assert "flaky from 64+ examples: 17 of 3,446, length 0.29, of at most 1" in some
        assert some.count("name=word") == MOST
        assert "and 7 smaller (--all)" in some
        assert all_of_them.count("name=word") == len(MANY)
        assert "(--all)" not in all_of_them

    def test_sizes_are_bytes_and_the_proof_is_a_sentence(self) -> None:
        text = " ".join(inspection_text(inspection()).split())
        assert "14,672 bytes, 2,141 compressed as they are sent" in text
        assert "40 strings of 1 report looked for, 1 found (3 words of the public list and 2 short strings" in text

    def test_an_empty_proof_claims_nothing(self) -> None:
        empty = Inspection(inspection().update, InspectedToken("none"), proof=LeakProof())
        assert "nothing is shown" in inspection_text(empty)

    def test_nothing_to_look_at_has_a_reason(self) -> None:
        none = Inspection(Unavailable("no batch is full yet"), InspectedToken("none"))
        assert "none: no batch is full yet" in inspection_text(none)
        assert json.loads(inspection_json(none))["update"] == {"origin": None, "reason": "no batch is full yet"}

    def test_the_record_tells_an_answer_from_none(self) -> None:
        first, _, second, *_ = record_text(record()).splitlines()[3:]
        assert "none" in first
        assert "accepted" in second
        assert "1 line of the record cannot be read" in record_text(record())
        assert "nothing" in record_text(AuditRecord())
        assert [one["answer"] for one in json.loads(record_json(record()))["sent"]] == [None, 202]

    def test_a_diagnosis_counts_and_names_the_fix(self) -> None:
        text = diagnosis_text(diagnosis("run this"))
        assert text.count("-> run this") == 2
        assert text.endswith("1 problem, 1 warning.\n")
        assert diagnosis_text(Diagnosis((DiagnosticCheck("CI", OK, "none"),))).endswith("Nothing needs fixing.\n")
