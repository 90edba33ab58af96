"""Annotations of a real `fedstep triage` in a job of GitHub's: beside the test's own lines, inside the workspace."""

import os
import subprocess

import pytest

CART = """import time

SECONDS = 3


class TestCart:
    def test_adds(self):
        assert 1 + 1 == 3

    def test_waits(self):
        time.sleep(SECONDS)
"""


@pytest.fixture
def annotate(repository, tmp_path, fedstep):
    """A function that judges test cases, given as XML, and returns the annotations; two source files are tracked."""
    (repository / "tests").mkdir()
    (repository / "tests" / "test_cart.py").write_text(CART)
    (repository / "src" / "test" / "acme").mkdir(parents=True)
    (repository / "src" / "test" / "acme" / "PayTest.java").write_text(
        "class PayTest {\n  @Test void pays() {\n  }\n}\n"
    )
    (tmp_path / "outside.py").write_text("def test_secret():\n    pass\n")
    (repository / "tests" / "test_link.py").symlink_to(tmp_path / "outside.py")
    subprocess.run(["git", "-C", repository, "add", "-A"], check=True, timeout=20)

    def run(*cases):
        failed = "".join(f"<testcase {case}><failure message='no'/></testcase>" for case in cases)
        passed = "".join(f"<testcase classname='more' name='n{number}'/>" for number in range(50))
        (repository / "cases.xml").write_text(f"<testsuite>{failed}{passed}</testsuite>")
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "1"}
        command = [fedstep, "triage", "--junit", "cases.xml"]
        done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("::")]

    return run


def of_the_test(lines):
    """Return the only annotation of a test; beside it stands what fedstep says of itself, as that no build is known."""
    (line,) = [line for line in lines if " title=fedstep::" not in line]
    return line


class TestAnnotations:
    @pytest.mark.parametrize(
        ("case", "place"),
        [
            ("classname='tests.test_cart.TestCart' name='test_waits'", "file=tests/test_cart.py,line=10,"),
            ("classname='tests.test_cart.TestCart' name='test_adds[1-2]'", "file=tests/test_cart.py,line=7,"),
            ("classname='acme.PayTest' name='pays()'", "file=src/test/acme/PayTest.java,line=2,"),
            ("classname='x' name='y' file='tests/test_cart.py' line='8'", "file=tests/test_cart.py,line=8,"),
            ("classname='x' name='y' file='acme/PayTest.java' line='3'", "file=src/test/acme/PayTest.java,line=3,"),
            ("classname='tests.test_cart' name='unknown'", "file=tests/test_cart.py,"),
        ],
    )
    def test_an_annotation_stands_beside_the_failing_test(self, annotate, case, place):
        line = of_the_test(annotate(case))
        assert line.startswith(f"::warning {place}")

    @pytest.mark.parametrize(
        "case",
        [
            "classname='x' name='y' file='/etc/passwd' line='1'",
            "classname='x' name='y' file='../outside.py' line='1'",
            "classname='x' name='y' file='tests/no_such_file.py' line='1'",
            "classname='nowhere.to.be.found' name='y'",
        ],
    )
    def test_a_place_that_is_not_in_the_repository_is_not_named(self, annotate, case):
        line = of_the_test(annotate(case))
        assert "file=" not in line
        assert "line=" not in line

    def test_a_link_out_of_the_repository_is_not_read(self, annotate):
        line = of_the_test(annotate("classname='tests.test_link' name='test_secret'"))
        assert "line=" not in line

    def test_of_many_failures_the_ten_least_likely_flaky_are_placed(self, annotate):
        cases = [f"classname='tests.test_cart.TestCart' name='test_adds[{number}]'" for number in range(14)]
        lines = annotate(*cases)
        assert len(lines) == 10
        assert all("file=tests/test_cart.py,line=7" in line for line in lines[:9])
        assert "and 5 more" in lines[9]
