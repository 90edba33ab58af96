"""What a controller of Jenkins would refuse or get wrong, found without one."""

import json
import os
import re
import shutil
import subprocess

import pytest

from tests.helpers.jenkins import JAVA_HOME, LIBRARY, groovy

BROKEN = """
import com.cloudbees.groovy.cps.NonCPS

class Broken {
    String said = sh('date')
    Broken() { echo 'made' }
    String toString() { readFile('name') }
    @NonCPS
    static String read() { return libraryResource('x') + later() + [3, 1].sort { it } }
    static String later() { return 'later' }
    static List sorted(List<String> names) { return names.sort { a, b -> a <=> b } }
    static String plain() { sh('date'); return read() }
}
"""


def rules(*paths):
    process = groovy("rules.groovy", *paths)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    return json.loads(told)


class TestLibrary:
    def test_no_step_is_called_where_jenkins_cannot_suspend_it(self, tmp_path):
        broken = tmp_path / "Broken.groovy"
        broken.write_text(BROKEN)
        assert rules(*LIBRARY.rglob("*.groovy"), broken) == [
            "Broken.groovy:4: class Broken is not Serializable",
            "Broken.groovy:5: step sh in an initial value",
            "Broken.groovy:6: step echo in a constructor",
            "Broken.groovy:7: step readFile in toString",
            "Broken.groovy:9: step libraryResource in a @NonCPS method",
            "Broken.groovy:9: later, which is not @NonCPS, in a @NonCPS method",
            "Broken.groovy:11: a closure for sort outside of @NonCPS",
        ]

    def test_every_method_of_the_helpers_is_outside_of_continuations(self):
        for path in (LIBRARY / "src").rglob("*.groovy"):
            lines = path.read_text().splitlines()
            methods = [
                number for number, line in enumerate(lines) if re.match(r"    (private )?static [^=]*\) \{", line)
            ]
            assert methods
            assert [lines[number] for number in methods if lines[number - 1].strip() != "@NonCPS"] == [], path.name

    @pytest.mark.full
    def test_the_linter_has_nothing_to_say_about_the_library(self, tmp_path):
        npx = shutil.which("npx")
        assert npx, "the linter needs Node.js"
        config = LIBRARY / ".groovylintrc.json"
        words = (npx, "--yes", "npm-groovy-lint@15.2.2", "--noserver", "--failon", "info")
        done = subprocess.run(
            [*words, "--config", config, "--path", LIBRARY, "--files", "**/*.groovy"],
            env=os.environ | {"JAVA_HOME": JAVA_HOME, "npm_config_cache": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        count = len(list(LIBRARY.rglob("*.groovy")))
        assert re.search(
            rf"results in \S*\b{count}\b\S* linted files", done.stdout.replace("\x1b[1m", "").replace("\x1b[22m", "")
        )
