"""Every example runs: those in docstrings, and the code blocks of README.md and docs/.

A block fenced as ```python is run; the blocks of one page run in order and see each other's names, in an empty folder.
A block that cannot run here (it needs the network, say) has the line `<!-- not run: the reason -->` just above it.
"""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("core", "tokenization", "conversion", "pt", "tf", "cli")
MODULES = ["isobert", "isobert.errors"] + [
    ".".join(["isobert", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
    if path.name != "__main__.py"
]
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()]
PAGES += sorted((ROOT / "docs").rglob("*.md"))

FENCED = re.compile(r"^(?P<fence>```+)python\n(?P<code>.*?)^(?P=fence)$", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: .+ -->\n+\Z")


def blocks(text: str, name: str) -> list[Any]:
    """Compile the Python blocks of a page that are to be run; tracebacks show the page's lines."""
    return [
        compile("\n" * text.count("\n", 0, found.start("code")) + found["code"], name, "exec")
        for found in FENCED.finditer(text)
        if not NOT_RUN.search(text[: found.start()])
    ]


@pytest.mark.parametrize("module", MODULES)
def test_the_docstrings_examples_are_true(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8"), str(page)):
        exec(block, names)


def test_blocks_are_run_in_order_and_share_their_names() -> None:
    page = "# Title\n\n```python\na = 1\n```\n\n```python\na += 1\n```\n\n```console\nb = 1\n```\n"
    names: dict[str, Any] = {}
    for block in blocks(page, "page"):
        exec(block, names)
    assert names["a"] == 2
    assert "b" not in names


def test_a_block_marked_as_not_run_is_left_out() -> None:
    page = "<!-- not run: needs the network -->\n```python\nfetch()\n```\n\n```python\na = 1\n```\n"
    assert len(blocks(page, "page")) == 1
