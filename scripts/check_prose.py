"""Report words and sentences that make the project's text hard to read, and refuse more of them.

Words of scripts/prose.toml are counted in docstrings, comments, names, help texts, errors and documentation. Sentences
of more than 30 words are counted in docstrings and documentation. scripts/prose_baseline.txt holds the counts that are
left from before, for each file. A count above the baseline is an error. A count below it can be written down:

    check_prose.py              compare with the baseline
    check_prose.py --write      lower the baseline; refused if a total would rise
    check_prose.py --list PATH  show what is found in these files, or in all of them
    check_prose.py --words      show how often each word is found

A new file starts at zero. A file that was moved or merged takes the counts of the files that are gone.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 30  # words of a sentence
KINDS = ("vague", "renamed", "long")
OTHERS_FOLDERS = {"data", "node_modules", "__pycache__"}
OWN_FILES = {"scripts/prose.toml", "scripts/prose_baseline.txt"}


class Text(NamedTuple):
    """A stretch of prose; `line` is where it begins. Only of docstrings and documents, `sentences` are measured."""

    line: int
    text: str
    sentences: bool = False


class Word(NamedTuple):
    """An entry of the list: what it looks for in prose and in names, and what to write instead."""

    kind: str
    text: re.Pattern[str] | None
    name: re.Pattern[str] | None
    instead: str


class Finding(NamedTuple):
    """A word of the list or a long sentence, and the advice."""

    line: int
    kind: str
    found: str
    advice: str


class WordList:
    """The words of prose.toml, and the exceptions."""

    def __init__(self, path: Path) -> None:
        content = tomllib.loads(path.read_text("utf-8"))
        self._allowed: list[str] = content["allowed"]
        self._words = [
            Word(kind, _pattern(entry.get("text")), _pattern(entry.get("name")), entry["instead"])
            for kind in KINDS
            for entry in content.get(kind, ())
        ]

    def in_text(self, text: Text) -> Iterator[Finding]:
        """Find words in prose."""
        prose = text.text
        for allowed in self._allowed:
            prose = prose.replace(allowed, " " * len(allowed))
        for word in self._words:
            for match in word.text.finditer(prose) if word.text else ():
                line = text.line + prose.count("\n", 0, match.start())
                yield Finding(line, word.kind, " ".join(match[0].split()).lower(), word.instead)

    def in_name(self, line: int, name: str) -> Iterator[Finding]:
        """Find words in a name that a module defines."""
        if name in self._allowed:
            return
        spaced = " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)).lower()
        for word in self._words:
            for match in word.name.finditer(spaced) if word.name else ():
                yield Finding(line, word.kind, match[0], f"{word.instead} (in the name {name})")


def _pattern(expression: str | None) -> re.Pattern[str] | None:
    """Compile an entry's expression; None if it has none."""
    if expression is None:
        return None
    return re.compile(rf"\b(?:{expression})\b".replace(" ", r"\s+"), re.IGNORECASE)


def findings(path: Path, words: WordList, *, tests: bool) -> list[Finding]:
    """Return what is found in a file, by line. Strings of tests are data, so they are not prose."""
    content = path.read_text("utf-8")
    found: list[Finding] = []
    texts: list[Text] = []
    if path.suffix == ".py":
        nodes = list(ast.walk(ast.parse(content)))
        texts += _comments(content)
        texts += _strings(nodes, tests=tests)
        for line, name in [(1, path.stem), *_names(nodes)]:
            found += words.in_name(line, name)
    elif path.suffix == ".md":
        texts += _paragraphs(content, 1)
    elif path.suffix in (".js", ".mjs", ".css"):
        texts += _script_comments(content)
    elif path.suffix in (".lua", ".sql"):
        texts += [Text(number, line) for number, line in _after_mark(content, "--")]
    else:
        texts.append(Text(1, content))
    for text in texts:
        found += words.in_text(text)
        if text.sentences:
            found += _long_sentences(text)
    return sorted(found)


def _comments(content: str) -> Iterator[Text]:
    """Yield the comments of Python code; those on lines of their own are one text, since sentences go on."""
    block: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type != tokenize.COMMENT:
            continue
        row = token.start[0]
        if block and (row != last + 1 or token.line[: token.start[1]].strip()):
            yield Text(last - len(block) + 1, "\n".join(block))
            block = []
        block.append(_without_code(token.string.lstrip("#")))
        last = row
    if block:
        yield Text(last - len(block) + 1, "\n".join(block))


def _strings(nodes: Sequence[ast.AST], *, tests: bool) -> Iterator[Text]:
    """Yield docstrings by paragraph and, unless these are tests, all other strings: help texts, errors, log events."""
    docstrings: set[ast.AST] = set()
    for node in nodes:
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            docstrings.add(first.value)
            yield from _paragraphs(first.value.value, first.value.lineno, indented=True)
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings and not tests:
            yield Text(node.lineno, _without_code(node.value))


def _names(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield the names that a module defines, each where it is first written to: what it only uses is another's."""
    seen: set[str] = set()
    for node in nodes:
        name = ""
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        if name and name not in seen:
            seen.add(name)
            yield getattr(node, "lineno", 1), name


ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ")  # of a list
TREE = ("│", "├", "└")  # what a line of a drawn tree begins with


def _paragraphs(content: str, line: int, *, indented: bool = False) -> Iterator[Text]:
    """Yield the paragraphs, list items, headings and table cells of a document or docstring, without code.

    A block that is indented by four columns more than the rest is code; of a docstring, the first line tells nothing
    about the rest.
    """
    lines = content.split("\n")
    rest = [len(each) - len(each.lstrip()) for each in lines[indented:] if each.strip()]
    margin = min(rest, default=0)
    block: list[str] = []
    begun, fenced, code, in_item = line, False, False, False
    for number, raw in enumerate([*lines, ""], line):
        each = raw.strip() if indented and number == line else raw[margin:].rstrip()
        fence = each.lstrip().startswith("```")
        drawn = each.lstrip().startswith(TREE)
        if not block:
            code = each.startswith("    ") and not in_item
        ends = not each or fence or fenced or code or drawn or each.startswith(("#", "|")) or bool(ITEM.match(each))
        if ends and block:
            yield Text(begun, _without_code("\n".join(block)), sentences=True)
            block = []
            code = each.startswith("    ") and not in_item
        if fence:
            fenced = not fenced
        elif fenced or code or drawn or not each:
            in_item = in_item and not each
        elif each.startswith("|"):
            for cell in each.strip("|").split("|"):
                yield Text(number, _without_code(cell), sentences=True)
        else:
            in_item = bool(ITEM.match(each)) or (in_item and each.startswith(" "))
            begun = begun if block else number
            block.append(ITEM.sub("", each, count=1))
            if each.startswith("#"):
                yield Text(number, _without_code("\n".join(block)))
                block = []


def _script_comments(content: str) -> Iterator[Text]:
    """Yield the comments of JavaScript and CSS."""
    strings_and_comments = r"'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|`(?:\\.|[^`\\])*`|/\*.*?\*/|(?<![:\\])//[^\n]*"
    for match in re.finditer(strings_and_comments, content, re.DOTALL):
        if match[0].startswith("/"):
            yield Text(content.count("\n", 0, match.start()) + 1, _without_code(match[0]))


def _after_mark(content: str, mark: str) -> Iterator[tuple[int, str]]:
    """Yield each line's comment, and the line's number."""
    for number, line in enumerate(content.splitlines(), 1):
        _, found, comment = line.partition(mark)
        if found:
            yield number, comment


def _without_code(text: str) -> str:
    """Put one word for each piece of code, and a link's text for the link; lines stay."""

    def lines(match: re.Match[str]) -> str:
        return "_" + "\n" * match[0].count("\n")

    return re.sub(r"\]\([^)\s]*\)", "]", re.sub(r"``[^`]+``|`[^`]+`", lines, text))


ENDS = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<!\bvs\.)(?<=[.!?])[)\"'*_]*\s+")


def _long_sentences(text: Text) -> Iterator[Finding]:
    """Find sentences of more than LONGEST words."""
    start = 0
    for end in [*(match.end() for match in ENDS.finditer(text.text)), len(text.text)]:
        sentence = text.text[start:end]
        length = sum(bool(re.search(r"\w", word)) for word in sentence.split())
        if length > LONGEST:
            line = text.line + text.text.count("\n", 0, start)
            beginning = " ".join(sentence.split()[:6])
            yield Finding(line, "long", f"{beginning} …", f"{length} words; make it two or more sentences")
        start = end


def files(root: Path) -> Iterator[Path]:
    """Yield the project's own text files, in order."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each not in OTHERS_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            suffixes = (".py", ".md", ".js", ".mjs", ".css", ".lua", ".sql", ".toml", ".yaml", ".service")
            if (path.suffix in suffixes or name == "Makefile") and path.relative_to(root).as_posix() not in OWN_FILES:
                yield path


Counts = dict[str, Counter[str]]  # by path: by kind


def read_baseline(path: Path) -> Counts:
    """Return the counts that are allowed, by path."""
    counts: Counts = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        if line and not line.startswith("#"):
            *numbers, name = line.split(maxsplit=len(KINDS))
            counts[name] = Counter(dict(zip(KINDS, map(int, numbers), strict=True)))
    return counts


def write_baseline(path: Path, counts: Counts) -> None:
    """Write the counts, those of files with none left out."""
    lines = [
        "# Written by scripts/check_prose.py --write; counts only fall. "
        "Words that are vague, words that were renamed, long sentences, file."
    ]
    lines += [
        " ".join(f"{counts[name][kind]:4}" for kind in KINDS) + f"  {name}"
        for name in sorted(counts)
        if counts[name].total()
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def risen(counts: Counts, baseline: Counts) -> list[tuple[str, str, int, int]]:
    """Return what is above the baseline: path, kind, count, and the count that is allowed.

    Files that the baseline does not know share what it allows to files that are gone.
    """
    above = []
    for kind in KINDS:
        left = sum(allowed[kind] for name, allowed in baseline.items() if name not in counts)
        for name in sorted(counts):
            count = counts[name][kind]
            if name in baseline:
                allowed = baseline[name][kind]
            else:
                allowed = min(count, left)
                left -= allowed
            if count > allowed:
                above.append((name, kind, count, allowed))
    return above


def totals(counts: Counts) -> Counter[str]:
    """Return the sum of all files' counts, by kind."""
    return sum(counts.values(), Counter())


def said(counts: Counter[str]) -> str:
    """Return counts in words."""
    return f"{counts['vague']} vague words, {counts['renamed']} renamed words, {counts['long']} long sentences"


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Run the check; return the exit status."""
    parser = argparse.ArgumentParser(description="report vague words, renamed words and long sentences")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="lower the baseline to what is found now")
    what.add_argument("--list", nargs="*", metavar="PATH", help="show what is found in these files, or in all")
    what.add_argument("--words", action="store_true", help="show how often each word is found")
    options = parser.parse_args(arguments)
    words = WordList(root / "scripts/prose.toml")
    baseline_path = root / "scripts/prose_baseline.txt"
    found = {
        path.relative_to(root).as_posix(): findings(path, words, tests=path.is_relative_to(root / "tests"))
        for path in files(root)
    }
    counts = {name: Counter(finding.kind for finding in each) for name, each in found.items()}
    if options.list is not None:
        wanted = {Path(name).resolve() for name in options.list}
        for name in found:
            if not wanted or any((root / name).is_relative_to(each) for each in wanted):
                _show(name, found[name])
        return 0
    if options.words:
        spoken = Counter((each.kind, each.found) for all_of in found.values() for each in all_of if each.kind != "long")
        for (kind, word), count in spoken.most_common():
            print(f"{count:5}  {kind:8} {word}")
        print(said(totals(counts)))
        return 0
    baseline = read_baseline(baseline_path)
    before, now = totals(baseline), totals(counts)
    above = risen(counts, baseline)
    if options.write:
        if baseline and any(now[kind] > before[kind] for kind in KINDS):
            print(f"prose: the baseline has {said(before)}; now there are {said(now)}: not written", file=sys.stderr)
            return 1
        write_baseline(baseline_path, counts)
        print(f"prose: baseline written: {said(now)}")
        return 0
    for name, kind, count, allowed in above:
        _show(name, [finding for finding in found[name] if finding.kind == kind])
        print(f"{name}: {count} {kind}, at most {allowed} are allowed", file=sys.stderr)
    if above:
        print("prose: say it in the words of docs/glossary.md, one idea a sentence", file=sys.stderr)
        return 1
    print(f"prose: {said(now)}")
    if counts_differ(counts, baseline):
        print("prose: the baseline can be lowered: .venv/bin/python scripts/check_prose.py --write")
    return 0


def counts_differ(counts: Counts, baseline: Counts) -> bool:
    """Return whether the baseline is not what would be written."""
    return {name: each for name, each in counts.items() if each.total()} != baseline


def _show(name: str, found: Sequence[Finding]) -> None:
    for finding in found:
        print(f"{name}:{finding.line}: {finding.kind}: {finding.found}: {finding.advice}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
