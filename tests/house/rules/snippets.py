"""Every snippet of the README and of docs/ runs: Python is executed, commands are held against the real help."""

from __future__ import annotations

import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rules.imports_run import command_line, has_cli, run
from rules.source import place

FENCE = re.compile(r"^(?P<mark>```+)(?P<kind>[^\n`]*)\n(?P<text>.*?)^(?P=mark)\s*$", re.MULTILINE | re.DOTALL)
SHELLS = frozenset({"bash", "console", "sh", "shell"})
CHEAP = frozenset({"parts", "doctor", "--help", "--version"})
KNOWN_KINDS = SHELLS | {"python", "toml", "json", "text", "mermaid", "html", "make"}


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its place, its language and its text."""

    where: str
    kind: str
    text: str


def check_python_snippets(root: Path) -> list[str]:
    """Every ``python`` block runs; the blocks of one page run in order in one folder, so that a job file may be named.

    A block whose first line is ``# file: NAME`` is written to that file first, and then run as it.
    """
    faults = []
    for path in _pages(root):
        with tempfile.TemporaryDirectory() as folder:
            for number, snippet in enumerate(each for each in _snippets(root, path) if each.kind == "python"):
                named = re.match(r"#\s*file:\s*([\w.-]+)", snippet.text)
                script = Path(folder, named.group(1) if named else f"snippet_{number}.py")
                script.write_text(snippet.text, encoding="utf-8")
                done = run(root, str(script), cwd=Path(folder))
                if done.returncode:
                    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                    faults.append(f"{snippet.where}: the snippet fails: {last}")
    return faults


def check_command_snippets(root: Path) -> list[str]:
    """Every ``haversack …`` line names a command and flags that exist; those that cost nothing are run."""
    faults = []
    helps: dict[str, str] = {}
    for where, words in _commands(root):
        if not has_cli(root):
            faults.append(f"{where}: there is no command line to run {shlex.join(words)}")
            continue
        verb = words[1] if len(words) > 1 else "--help"
        if verb not in helps:
            done = command_line(root, *(() if verb.startswith("-") else (verb,)), "--help")
            helps[verb] = "" if done.returncode else done.stdout
        if not helps[verb]:
            faults.append(f"{where}: haversack has no command {verb}")
            continue
        flags = [word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)]
        faults += [f"{where}: haversack {verb} has no flag {flag}" for flag in flags if not _has(helps[verb], flag)]
        if verb in CHEAP and len(words) == 2 and (done := command_line(root, verb)).returncode:
            faults.append(f"{where}: haversack {verb} ends with {done.returncode}: {done.stderr.strip()[-200:]}")
    return faults


def check_fences(root: Path) -> list[str]:
    """Every fenced block says its language, so that it is known how to check it."""
    return [
        f"{snippet.where}: a block of kind {snippet.kind!r} (one of {', '.join(sorted(KNOWN_KINDS))})"
        for path in _pages(root)
        for snippet in _snippets(root, path)
        if snippet.kind not in KNOWN_KINDS
    ]


def _pages(root: Path) -> list[Path]:
    pages = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]
    return [page for page in pages if page.exists()]


def _snippets(root: Path, path: Path) -> list[Snippet]:
    text = path.read_text(encoding="utf-8")
    return [
        Snippet(
            f"{place(root, path)}:{text[: match.start()].count(chr(10)) + 1}",
            (match["kind"].strip().split() or [""])[0].lower(),
            match["text"],
        )
        for match in FENCE.finditer(text)
    ]


def _commands(root: Path) -> list[tuple[str, list[str]]]:
    """Return (place, words) of each haversack command in shell blocks; a backslash joins lines, ``·`` or # ends one."""
    found = []
    for path in _pages(root):
        for snippet in _snippets(root, path):
            if snippet.kind not in SHELLS:
                continue
            for line in snippet.text.replace("\\\n", " ").splitlines():
                command = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
                if command == "haversack" or command.startswith("haversack "):
                    found.append((snippet.where, shlex.split(command, comments=True)))
    return found


def _has(text: str, flag: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text) is not None
