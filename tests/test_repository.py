"""Tests of the repository's files."""

from __future__ import annotations

import re
import shlex
import tokenize
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers.http.page import Page, read_page

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("clients", "common", "config", "handlers", "models", "storage")
# A deadline in seconds in a test, which a busy machine could miss.
OWN_DEADLINE = re.compile(r"asyncio\.timeout\(\d+\)|gen_test\(timeout=|communicate\(timeout=\d|start_timeout=\d")


def test_deadlines_come_from_the_support_package() -> None:
    """A test that needs a deadline takes it from tests/support/patience.py."""
    here = Path(__file__).resolve()
    files = (
        path for path in (ROOT / "tests").rglob("*.py") if path.resolve() not in (here, here.parent / "conftest.py")
    )
    assert not [str(path) for path in files if OWN_DEADLINE.search(path.read_text("utf-8"))]


# Names that a module imports when it is loaded, and that a style sheet uses.
IMPORTED = re.compile(r"""^(?:import|export)\b[^"';]*["']\./([^"']+)["']|url\(["']?(?:\./)?([^"')]+)""", re.MULTILINE)


def first_visit(page: Page) -> dict[str, int]:
    """Return the compressed size of each file that a browser loads for the page, by name.

    These are the index, what it names, and what those import or name in turn. A file that a module imports later, with
    `import()`, is not among them.
    """
    sizes = {"index.html": len(page.index.compressed)}
    waiting = re.findall(rf"/web/{page.digest}/([^\"]+)", page.index.plain.decode())
    while waiting:
        name = waiting.pop()
        if name in sizes:
            continue
        file = page.asset(page.digest, name)
        assert file is not None, f"{name} is named, but missing"
        sizes[name] = len(file.compressed)
        waiting += [match[1] or match[2] for match in IMPORTED.finditer(file.plain.decode())]
    return sizes


def test_the_page_stays_small() -> None:
    """A first visit takes less than 60 kB, compressed by gzip as the server sends it; docs/client.md says so."""
    sizes = first_visit(read_page(ROOT / "web"))
    assert {"index.html", "style.css", "icon.svg", "app.js", "tandem.js", "text.js"} <= sizes.keys()
    assert sum(sizes.values()) < 60_000, sizes


def test_ci_runs_what_the_readme_says() -> None:
    """.ci/run runs the README's commands and nothing else."""
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make")]
    assert commands == ["make check", "make test COVERAGE=1", "make test FRAMES=tornado"]
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{command}`" in readme for command in commands)


def read_yaml(name: str) -> Any:
    """Return a YAML file of the repository, with each scalar as the text that stands there (`on` is no boolean)."""
    return yaml.load((ROOT / name).read_text("utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 (it makes nothing but str)


def recipe(target: str) -> list[str]:
    """Return the commands that the Makefile runs for a target."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert found, target
    return [line.strip().removeprefix("@").replace("$$", "$") for line in found[1].splitlines()]


def test_pre_commit_runs_the_steps_of_make_check() -> None:
    """The hooks run the same commands in the same order, each on the whole checkout."""
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    hooks = repository["hooks"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in hooks] == recipe("check")
    assert {(hook["language"], hook["always_run"], hook["pass_filenames"]) for hook in hooks} == {
        ("system", "true", "false")
    }


def test_the_workflow_runs_what_ci_run_runs() -> None:
    """On pushes and pull requests, with the oldest and the newest Python, it runs that script and nothing else."""
    workflow = read_yaml(".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    _, *commands = [step["run"] for step in job["steps"] if "run" in step]
    assert {"push", "pull_request"} == workflow["on"].keys()
    assert commands == [".ci/run"]
    assert [entry["python"] for entry in job["strategy"]["matrix"]["include"]] == ["3.11", "3.13"]


def test_the_workflow_installs_what_the_readme_asks_for() -> None:
    """Before anything else, it installs the packages that a new machine needs for the README's commands."""
    (job,) = read_yaml(".github/workflows/ci.yml")["jobs"].values()
    installed = shlex.split(job["steps"][0]["run"])
    assert {"python3", "python3-venv", "make", "git", "curl"} < set(installed)


def test_the_workflow_has_no_more_rights_than_it_needs() -> None:
    """The workflow reads the repository, keeps no credentials, and names foreign actions by their commit."""
    workflow = read_yaml(".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    actions = [step for step in job["steps"] if "uses" in step]
    assert workflow["permissions"] == {"contents": "read"}
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]) for step in actions)
    assert [step["with"]["persist-credentials"] for step in actions] == ["false"]


@pytest.mark.parametrize(
    "template", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_templates_are_well_formed(template: Path) -> None:
    """Each form has a name, a description and questions with ids of their own; SECURITY.md is for vulnerabilities."""
    form = read_yaml(str(template.relative_to(ROOT)))
    if template.name == "config.yml":
        assert form == {"blank_issues_enabled": "false"}
        return
    questions = [field for field in form["body"] if field["type"] != "markdown"]
    assert form["name"]
    assert form["description"]
    assert len({field["id"] for field in questions}) == len(questions) > 0
    assert all(field["attributes"]["label"] for field in questions)


def test_the_security_policy_is_linked() -> None:
    """SECURITY.md stands where the forge looks for it, and docs/security.md names it."""
    assert "Report a vulnerability" in (ROOT / "SECURITY.md").read_text("utf-8")
    assert "(../SECURITY.md)" in (ROOT / "docs/security.md").read_text("utf-8")


def test_the_editor_settings_fit_the_formatter() -> None:
    """.editorconfig names the line length that ruff checks."""
    settings = (ROOT / ".editorconfig").read_text("utf-8")
    length = re.search(r"^line-length = (\d+)$", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert length
    assert f"\nmax_line_length = {length[1]}\n" in settings


LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that the forge makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_in_the_documentation_lead_somewhere(page: Path) -> None:
    """Each relative link names a file of the repository and, behind #, one of its headings."""
    for name, anchor in LINK.findall(page.read_text("utf-8")):
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


def test_each_decision_record_is_listed() -> None:
    """Each decision record is in the index with its number and title, and has the usual sections."""
    index = (ROOT / "docs/adr/README.md").read_text("utf-8")
    records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    for number, record in enumerate(records, 1):
        text = record.read_text("utf-8")
        assert record.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number}. ")
        assert f"[{number}]({record.name})" in index
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequences",
            "Alternatives considered",
        ]


def test_the_glossary_names_what_the_code_has() -> None:
    """Each name in the column "in the code today" exists in the code."""
    rows = re.findall(r"^\|[^|]+\|[^|]+\|([^|]+)\|$", (ROOT / "docs/glossary.md").read_text("utf-8"), re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    modules = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    known = {path.stem for path in modules}
    for path in modules:
        with path.open("rb") as file:
            known.update(token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME)
    assert names - known == set()
    assert names
