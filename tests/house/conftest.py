"""The repository that the house rules read, and a small clean one for planting faults into."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CLEAN = {
    "pyproject.toml": """
[tool.mypy]
strict = true
[tool.ruff.lint]
select = ["ALL"]
ignore = [
    "COM812", # the formatter's business
]
[tool.pytest.ini_options]
addopts = ["--import-mode=importlib", "--strict-markers"]
filterwarnings = ["error", "error:::haversack"]
""",
    "README.md": "# A house\n\n`haversack.greet()` greets.\n\n"
    "```python\nimport haversack\n```\n\n```bash\nhaversack greet\n```\n",
    "src/haversack/__init__.py": '"""A house.\n\nPublic names:\n    greet  says hello\n"""\n\n__all__ = ["greet"]\n',
    "src/haversack/base/__init__.py": '"""Values."""\n',
    "src/haversack/base/words.py": '"""Words."""\n\n\ndef hello(name: str) -> str:\n    """Hi."""\n    return name\n',
    "src/haversack/tools/__init__.py": '"""Know-how."""\n',
    "src/haversack/tools/numerics/__init__.py": '"""Numbers."""\n',
    "src/haversack/tools/store/__init__.py": '"""Blobs."""\n\nfrom haversack.tools import numerics as _numerics\n',
    "src/haversack/metrics/__init__.py": '"""Metrics."""\n\n\ndef shelf() -> object:\n    """Say where."""\n'
    '    return Shelf("haversack.metrics", "metric")\n',
    "src/haversack/metrics/contract.py": '"""What a metric is."""\n',
    "src/haversack/metrics/top1.py": '"""Accuracy."""\n\n\nclass Top1:\n    """The share of right answers."""\n',
    "src/haversack/load/__init__.py": '"""Load."""\n\nfrom haversack.base import words as _words\n',
    "src/haversack/measure/__init__.py": '"""Measure."""\n',
    "src/haversack/cli/__init__.py": '"""Commands."""\n\nimport sys\n\n\ndef main() -> int:\n    """Run."""\n'
    '    print("greet" if "greet" in sys.argv else "--help")\n'
    '    return 0 if {"greet", "--help"} & set(sys.argv[1:2]) else 2\n',
    "tests/test_words.py": "import pytest\n\n\ndef test_words():\n    assert 'a' == 'a'\n"
    + "\n".join(f"\n\ndef test_{n}():\n    with pytest.raises(ValueError):\n        int('x{n}')" for n in range(24)),
}


@pytest.fixture(scope="session")
def root() -> Path:
    """This repository."""
    return ROOT


@pytest.fixture
def small_house(tmp_path: Path) -> Path:
    """A repository without a fault."""
    for name, text in CLEAN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path
