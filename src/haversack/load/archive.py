"""What a .pt2 archive holds, checked record by record before the loader reads it.

``torch.export.load`` (2.13) runs what an archive says in six places: pickled weights and constants
(``use_pickle``, ``*.pt``, custom and opaque objects: ``torch.load(weights_only=False)`` or ``pickle.loads``); the
example inputs, whose safe reading falls back to the unsafe one; compiled libraries (``data/aotinductor``); shape
expressions, which are evaluated (``expressions.py``); operator names, which are looked up anywhere in torch
(``torch.os.system``); and the module names of defaultdicts and enums, which are imported. Each is refused here. The
reader is the loader's own, so both see the same bytes; sizes are bounded by the file's before a record is read.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from haversack.base.errors import Fault, JobError, Refused
from haversack.load.expressions import is_plain
from haversack.load.user_code import first_line

MAX_RECORDS = 100_000
MAX_JSON_BYTES = 256 << 20
MAX_SHOWN = 10
_KNOWN = re.compile(
    r"^(archive_format|archive_version|byteorder|\.data/[A-Za-z_]+|version|extra/.*|models/model\.json"
    r"|data/weights/(model_weights_config\.json|weight_[0-9]+)"
    r"|data/constants/(model_constants_config\.json|tensor_[0-9]+)|data/sample_inputs/model\.pt)$"
)
_OPERATORS = re.compile(
    r"^(torch\.ops\.aten\.(?!from_file\b)[A-Za-z_]\w*\.[A-Za-z_]\w*"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_(int|float|max|min|sqrt|not|ite|sum)|math\.(ceil|floor|trunc)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem))$"
)
_CONTAINERS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})


def check(path: Path, *, allow_pickle: bool) -> None:
    """Check an archive without running anything of it.

    Args:
        path: a .pt2 file.
        allow_pickle: skips what would be refused for running code; sizes and structure are checked all the same.

    Raises:
        JobError: truncated, no zip archive, or none that ``torch.export.save`` wrote.
        Refused: it would run code, or declares more bytes than it has.
    """
    records = Records(path)
    if records.names.isdisjoint({"archive_format"}) or records.read("archive_format") != b"pt2":
        raise JobError("it is a zip archive, but none that torch.export.save wrote", where=str(path), next_step=_AGAIN)
    wanted = [
        "models/model.json",
        "data/weights/model_weights_config.json",
        "data/constants/model_constants_config.json",
    ]
    missing = [name for name in wanted if name not in records.names]
    if not allow_pickle:
        _refuse(path, [Fault(name, _why(name)) for name in sorted(records.names) if not _KNOWN.match(name)])
    if missing:
        raise JobError(f"it lacks {', '.join(missing)}", where=str(path), next_step=_AGAIN)
    faults = [fault for name in wanted[1:] for fault in _payload_faults(records, name)]
    faults += _code_faults(records.json("models/model.json"))
    faults += _example_faults(records)
    if not allow_pickle:
        _refuse(path, faults)


_AGAIN = "write it again with torch.export.save(program, 'program.pt2')"


class Records:
    """The records of a zip archive, read by PyTorch's own reader.

    Args:
        source: the archive.
        where: how messages call it.
        writer: the function that writes such archives.
        again: the next step when it is none.
        compressed: the beginning of the names of records that may be compressed (code); none by default.

    Raises:
        JobError: it is no whole archive.
        Refused: it declares more bytes, or more records, than it can have.
    """

    def __init__(
        self,
        source: Path | io.BytesIO,
        where: str = "",
        *,
        writer: str = "torch.export.save",
        again: str = "",
        compressed: str = "",
    ) -> None:
        import torch

        self.where, again = where or str(source), again or _AGAIN
        size = source.stat().st_size if isinstance(source, Path) else len(source.getbuffer())
        try:
            self._reader = torch._C.PyTorchFileReader(str(source) if isinstance(source, Path) else source)  # noqa: SLF001 - the loader's own reader: what is checked is what is loaded
            names = self._reader.get_all_records()
            sizes = [self._reader.get_record_size(name) for name in names[: MAX_RECORDS + 1]]
        except (RuntimeError, UnicodeDecodeError) as error:
            reason = first_line(error).partition("  (Could this")[0]
            raise JobError(
                f"it is no whole archive of {writer} (truncated, or another kind of file): {reason}",
                where=self.where,
                tried=f"reading its directory of records; the file has {size} bytes",
                next_step=again,
            ) from error
        if len(names) > MAX_RECORDS or len(set(names)) != len(names):
            raise Refused(f"it has {len(names)} records, some of the same name or too many", where=self.where)
        packed = sum(n for name, n in zip(names, sizes, strict=True) if compressed and name.startswith(compressed))
        if sum(sizes) - packed > size or packed > MAX_JSON_BYTES:
            raise Refused(
                f"its records declare {sum(sizes)} bytes in a file of {size}", where=self.where, next_step=again
            )
        self.names = set(names)
        self.sizes = dict(zip(names, sizes, strict=True))

    def read(self, name: str) -> bytes:
        """Return the bytes of a record.

        Raises:
            JobError: the record cannot be read (a wrong checksum).
        """
        try:
            data: bytes = self._reader.get_record(name)
        except RuntimeError as error:
            raise JobError(f"{name} cannot be read: {first_line(error)}", where=self.where, next_step=_AGAIN) from error
        return data

    def json(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return a record's JSON.

        Raises:
            JobError: it is no JSON.
            Refused: it is too large or too deep.
        """
        if self.sizes[name] > MAX_JSON_BYTES:
            raise Refused(f"{name} has {self.sizes[name]} bytes, more than {MAX_JSON_BYTES}", where=self.where)
        try:
            return json.loads(self.read(name))
        except RecursionError as error:
            raise Refused(f"{name} is nested too deeply", where=self.where) from error
        except ValueError as error:
            raise JobError(f"{name} is no JSON: {error}", where=self.where, next_step=_AGAIN) from error


def _refuse(path: Path, faults: list[Fault]) -> None:
    if faults:
        raise Refused(
            "reading it would run code that the file brings along",
            where=str(path),
            tried="nothing of it was loaded",
            faults=tuple(faults[:MAX_SHOWN]),
            next_step="ask for a plain export, or trust the file with --allow-pickle",
        )


def _why(name: str) -> str:
    if name.startswith("data/aotinductor/"):
        return "is compiled code"
    if name.endswith(".pt") or "custom_obj" in name or "opaque_obj" in name:
        return "is a pickle"
    return "is no part of a plain exported program"


def _payload_faults(records: Records, config: str) -> Iterator[Fault]:
    """Yield pickled tensors of a table of weights or constants; a table that does not fit its records is an error."""
    folder = config.rpartition("/")[0]
    table = records.json(config)
    entries = table.get("config") if isinstance(table, dict) else None
    if not isinstance(entries, dict):
        raise JobError(f"{config} is no table of tensors", where=records.where, next_step=_AGAIN)
    for name, entry in entries.items():
        record = f"{folder}/{entry.get('path_name') if isinstance(entry, dict) else entry}"
        if record not in records.names:
            raise JobError(f"{name} points to {record}, which is not there", where=records.where, next_step=_AGAIN)
        if entry.get("use_pickle") is not False:
            yield Fault(name, "is a pickle")
        elif not records.sizes[record] and _elements(entry.get("tensor_meta")):
            raise Refused(f"{name} declares elements, but its record is empty", where=records.where)


def _elements(meta: Any) -> int:  # noqa: ANN401 - JSON
    count = 1
    for size in meta.get("sizes", ()) if isinstance(meta, dict) else ():
        count *= size.get("as_int", 1) if isinstance(size, dict) else 1
    return count


def _code_faults(value: Any) -> Iterator[Fault]:  # noqa: ANN401 - JSON
    """Yield every operator, shape expression and container in the program's JSON that is not plain."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack += item
        if not isinstance(item, dict):
            continue
        stack += item.values()
        for name in ("target", "as_operator"):
            text = item.get(name)
            if isinstance(text, str) and not _OPERATORS.match(text):
                yield Fault(str(item.get("name") or ""), f"calls {text}, which is no ATen operator")
        text = item.get("expr_str")
        if text is not None and not (isinstance(text, str) and is_plain(text)):
            yield Fault("a size", f"is no plain arithmetic: {str(text)[:80]}")
        for name in ("in_spec", "out_spec"):
            if isinstance(item.get(name), str) and not _is_plain_spec(item[name]):
                yield Fault(name, "holds a container that imports a module of the file's choice")


def _is_plain_spec(text: str) -> bool:
    if "__enum__" in text:
        return False
    try:
        stack = [json.loads(text)]
    except (ValueError, RecursionError):
        return False
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack += item
        elif isinstance(item, dict):
            kind = item.get("type")
            if kind not in _CONTAINERS and not str(kind).startswith("transformers."):
                return False
            stack += item.get("children_spec", ())
    return True


def _example_faults(records: Records) -> Iterator[Fault]:
    """Yield the example inputs if they cannot be read safely."""
    import pickle

    import torch

    name = "data/sample_inputs/model.pt"
    if not records.sizes.get(name):
        return
    stream = io.BytesIO(records.read(name))
    try:
        Records(stream, where=f"{records.where}: {name}")
        stream.seek(0)
        torch.load(stream, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, JobError, RuntimeError, EOFError, ValueError, KeyError) as error:
        yield Fault(name, f"are no plain tensors: {first_line(error)}")
