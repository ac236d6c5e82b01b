"""Tests of the prose check: what counts as prose, what is found, and a baseline that only falls."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.processes import ROOT


def load() -> ModuleType:
    """Return the script as a module; scripts/ is no package."""
    spec = importlib.util.spec_from_file_location("check_prose", ROOT / "scripts/check_prose.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check_prose = load()

WORDS = """
allowed = ["grommet_size", "[grommets]"]

[[vague]]
text = "grommets?"
name = "grommets?"
instead = "part"

[[renamed]]
text = "the blue thing"
name = "blue thing"
instead = "sky"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a list of two words and nothing else."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/prose.toml").write_text(WORDS)
    return tmp_path


def put(project: Path, name: str, content: str) -> Path:
    """Write a file of the project."""
    path = project / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def found(project: Path, name: str, content: str) -> list[tuple[int, str, str]]:
    """Return line, kind and text of what is found in a file."""
    words = check_prose.WordList(project / "scripts/prose.toml")
    findings = check_prose.findings(put(project, name, content), words, tests=name.startswith("tests/"))
    return [(finding.line, finding.kind, finding.found) for finding in findings]


GROMMET = [(2, "vague", "grommet")]
PROSE = {
    "a docstring": ("a.py", '"""A module.\nIt has a grommet."""\n', GROMMET),
    "the docstring of a function": ("a.py", 'def f():\n    """Return a grommet."""\n', GROMMET),
    "a comment": ("a.py", "x = 1\ny = 2  # a grommet\n", GROMMET),
    "a phrase over two comment lines": ("a.py", "# see the blue\n# thing there\n", [(1, "renamed", "the blue thing")]),
    "two comments that do not belong together": ("a.py", "x = 1  # the blue\ny = 2  # thing\n", []),
    "a string": ("a.py", 'x = 1\nraise ValueError("no grommet")\n', GROMMET),
    "a string with values": ("a.py", 'x = 1\nraise ValueError(f"no grommet {x}")\n', GROMMET),
    "a string of a test": ("tests/a.py", 'x = 1\nname = "grommet"\n', []),
    "a docstring of a test": ("tests/a.py", 'def test_it():\n    """A grommet is left."""\n', GROMMET),
    "a function's name": ("a.py", "x = 1\ndef count_grommets(): ...\n", [(2, "vague", "grommets")]),
    "a class's name": ("a.py", "x = 1\nclass ABlueThing: ...\n", [(2, "renamed", "blue thing")]),
    "an argument, only where it is defined": ("a.py", "x = 1\ndef f(grommet): return grommet.grommet\n", GROMMET),
    "an attribute that is set": ("a.py", "x = 1\nx._grommet = 1\n", GROMMET),
    "a module's name": ("grommet.py", "", [(1, "vague", "grommet")]),
    "part of a word": ("a.py", "x = 1\ny = 2  # grommetry\n", []),
    "any case": ("a.md", "# Title\nGrommet it is.\n", GROMMET),
    "a document's heading": ("a.md", "# Title\n# A grommet\n", GROMMET),
    "a document's table": ("a.md", "| a | b |\n| c | grommet |\n", GROMMET),
    "a document's list": ("a.md", "- one\n- a grommet\n", GROMMET),
    "code in a document": ("a.md", "Say `grommet` or ``a `grommet` ``.\n", []),
    "a code block in a document": ("a.md", "Say:\n\n    grommet\n\n```\ngrommet\n```\n", []),
    "a drawn tree in a docstring": ("a.py", '"""Tree.\n\nx\n├── grommet\n└── grommet\n"""\n', []),
    "the address of a link": ("a.md", "See [there](grommet.md).\n", []),
    "a comment of a script": ("a.js", "const x = 1;\n// a grommet\n", GROMMET),
    "a comment over lines": ("a.css", "/*\na grommet */\n", GROMMET),
    "a string of a script": ("a.js", "f(\"// grommet\", 'grommet'); // fine\n", []),
    "an address in a style sheet": ("a.css", "a { b: url(http://x/grommet) }\n", []),
    "a comment of SQL": ("a.sql", "SELECT grommet\n-- a grommet\n", GROMMET),
    "all of a configuration": ("a.toml", "a = 1\n# grommet\n", GROMMET),
    "an exception": ("a.toml", "[grommets]\ngrommet_size = 1\n", []),
    "a name that is an exception": ("a.py", "grommet_size = 1\n", []),
}


@pytest.mark.parametrize(("name", "content", "expected"), PROSE.values(), ids=PROSE)
def test_words_are_found_in_prose_alone(
    name: str, content: str, expected: list[tuple[int, str, str]], project: Path
) -> None:
    """What people read and what a module names is searched, each word once; data and code are not."""
    assert found(project, name, content) == expected


def sentence(words: int) -> str:
    """Return a sentence of so many words."""
    return " ".join(["Word", *["word"] * (words - 1)]) + "."


LENGTHS = {
    "as many as allowed": ("a.md", sentence(30), 0),
    "one more": ("a.md", sentence(31), 1),
    "over several lines": ("a.md", sentence(31).replace(" ", "\n"), 1),
    "two in a paragraph": ("a.md", f"{sentence(20)} {sentence(20)}", 0),
    "two long ones": ("a.md", f"{sentence(31)} {sentence(31)}", 2),
    "an end in brackets or stars": ("a.md", f"**({sentence(20)})** {sentence(20)}", 0),
    "an abbreviation is no end": ("a.md", sentence(20).replace(".", ", e.g. ") + sentence(20), 1),
    "dashes are no words": ("a.md", sentence(30).replace("Word", "Word – -"), 0),
    "code is one word": ("a.md", sentence(30).replace("Word", "`a b c`"), 0),
    "items of a list": ("a.md", f"- {sentence(20)[:-1]}\n- {sentence(20)}", 0),
    "numbered items": ("a.md", f"1. {sentence(20)[:-1]}\n2. {sentence(20)}", 0),
    "the second paragraph of an item": ("a.md", f"- Item.\n\n      {sentence(31)}", 1),
    "cells of a table": ("a.md", f"| {sentence(20)[:-1]} | {sentence(20)} |", 0),
    "a long cell": ("a.md", f"| a | {sentence(31)} |", 1),
    "paragraphs": ("a.md", f"{sentence(20)[:-1]}\n\n{sentence(20)}", 0),
    "a heading": ("a.md", f"# {sentence(20)[:-1]}\n{sentence(20)}", 0),
    "a code block": ("a.md", f"Code:\n\n    {sentence(31)}", 0),
    "a docstring": ("a.py", f'def f():\n    """{sentence(31)}"""', 1),
    "an indented docstring": ("a.py", f'def f():\n    """Do.\n\n    {sentence(31)}\n    """', 1),
    "a block in a docstring": ("a.py", f'def f():\n    """Do.\n\n        {sentence(31)}\n    """', 1),
    "a comment": ("a.py", f"# {sentence(31)}", 0),
    "a string": ("a.py", f'x = "{sentence(31)}"', 0),
}


@pytest.mark.parametrize(("name", "content", "count"), LENGTHS.values(), ids=LENGTHS)
def test_long_sentences(name: str, content: str, count: int, project: Path) -> None:
    """A sentence of more than 30 words is found in docstrings and documents."""
    assert [kind for _, kind, _ in found(project, name, content)] == ["long"] * count


def run(project: Path, *arguments: str) -> int:
    """Run the check on the project."""
    return int(check_prose.main(arguments, project))


def baseline(project: Path) -> list[str]:
    """Return the lines of the baseline without its comment."""
    return (project / "scripts/prose_baseline.txt").read_text().splitlines()[1:]


@pytest.fixture
def old(project: Path) -> Path:
    """A project with a baseline: two words in one file, one and a long sentence in another."""
    put(project, "docs/a.md", "grommet grommet\n")
    put(project, "docs/b.md", f"the blue thing\n\n{sentence(31)}\n")
    put(project, "docs/c.md", "Nothing to report.\n")
    assert run(project, "--write") == 0
    return project


def test_the_baseline_names_the_files_with_findings(old: Path) -> None:
    """The baseline counts by kind, and leaves out files without findings."""
    assert baseline(old) == ["   2    0    0  docs/a.md", "   0    1    1  docs/b.md"]


def test_what_is_in_the_baseline_passes(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check prints the totals, and nothing about lowering."""
    capsys.readouterr()
    assert run(old) == 0
    assert capsys.readouterr().out == "prose: 2 vague words, 1 renamed words, 1 long sentences\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("docs/a.md", "grommet grommet grommet\n"),
        ("docs/a.md", "grommet grommet the blue thing\n"),
        ("docs/c.md", "grommet\n"),
        ("docs/new.md", "grommet\n"),
        ("docs/c.md", sentence(31)),
    ],
)
def test_more_than_the_baseline_fails(name: str, content: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A word or sentence above the baseline, in an old file or a new one, fails and names the file."""
    put(old, name, content)
    capsys.readouterr()
    assert run(old) == 1
    output = capsys.readouterr()
    assert f"{name}:1: " in output.out
    assert f"{name}: " in output.err


def test_less_in_one_file_does_not_pay_for_more_in_another(old: Path) -> None:
    """The baseline holds for each file."""
    put(old, "docs/a.md", "grommet\n")
    put(old, "docs/c.md", "grommet\n")
    assert run(old) == 1


def test_a_moved_file_takes_its_counts_along(old: Path) -> None:
    """A moved file takes its counts along, also when it is split or merged, but no more than that."""
    (old / "docs/a.md").unlink()
    put(old, "docs/moved/a1.md", "grommet\n")
    put(old, "docs/moved/a2.md", "grommet\n")
    assert run(old) == 0
    put(old, "docs/moved/a3.md", "grommet\n")
    assert run(old) == 1


def test_a_lower_count_can_be_written(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A count below the baseline passes, and the check says that it can be written; afterwards the old count fails."""
    put(old, "docs/a.md", "grommet\n")
    assert run(old) == 0
    assert "can be lowered" in capsys.readouterr().out
    assert run(old, "--write") == 0
    assert baseline(old)[0] == "   1    0    0  docs/a.md"
    put(old, "docs/a.md", "grommet grommet\n")
    assert run(old) == 1


def test_a_higher_total_is_not_written(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The baseline is not written if the total of any kind rises; what moved within a total is written."""
    before = baseline(old)
    put(old, "docs/a.md", "the blue thing\n")
    assert run(old, "--write") == 1
    assert "not written" in capsys.readouterr().err
    assert baseline(old) == before
    put(old, "docs/a.md", "grommet\n")
    put(old, "docs/c.md", "grommet\n")
    assert run(old, "--write") == 0


def test_findings_are_listed(old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--list` shows the findings of a file, a folder or all files, each with its line and advice, and succeeds."""
    monkeypatch.chdir(old)
    capsys.readouterr()
    assert run(old, "--list", "docs/b.md") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "docs/b.md:1: renamed: the blue thing: sky"
    assert [line.split(":")[1] for line in lines] == ["1", "3"]
    run(old, "--list", "docs")
    in_folder = capsys.readouterr().out
    run(old, "--list")
    assert capsys.readouterr().out == in_folder


def test_words_are_counted(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--words` counts each word, the most frequent first."""
    capsys.readouterr()
    assert run(old, "--words") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["2", "1", "2"]


def test_files_of_others_are_not_read(project: Path) -> None:
    """Hidden folders, data and other projects' packages are left out."""
    for folder in (".venv", "data", "node_modules"):
        put(project, f"{folder}/a.md", "grommet\n")
    assert run(project) == 0


@pytest.mark.parametrize(
    "text", ["in place of it", "it takes the place of another", "it takes place later", "in one place", "a mushroom"]
)
def test_plain_english_is_not_reported(text: str) -> None:
    """The project's own list leaves idioms alone that only share a word with what it looks for."""
    words = check_prose.WordList(ROOT / "scripts/prose.toml")
    assert list(words.in_text(check_prose.Text(1, text))) == []


@pytest.mark.parametrize("text", ["nobody asks", "a message's way", "the next place", "who  asks", "no\nroom"])
def test_vague_words_are_reported(text: str) -> None:
    """The project's own list finds what it is for, also over white space of any kind."""
    words = check_prose.WordList(ROOT / "scripts/prose.toml")
    assert [finding.kind for finding in words.in_text(check_prose.Text(1, text))] == ["vague"]
