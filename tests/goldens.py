"""Golden files: what a table of cases is known to produce. The first case of a table is there as a
whole (`tests/golden/aws/default.json`); each other is a JSON Patch against it (RFC 6902), with an
operation a line, so that a reviewer reads what a case is about and nothing twice.

After a wanted change: delete the files that it concerns, or the whole folder, run the test once,
which writes them and fails, and read the difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent / "golden"
Operation = dict[str, Any]
"""Of a JSON Patch: https://www.rfc-editor.org/rfc/rfc6902#section-4"""


def check(folder: Path, cases: Mapping[str, Any]) -> None:
    """Fails unless each case is what its file in `folder` says, byte for byte, and each file has
    its case. Writes the files that are missing, and fails then too."""
    produced = {name_of(case): json.loads(json.dumps(value)) for case, value in cases.items()}
    assert len(produced) == len(cases), "two cases have one file"
    folder.mkdir(parents=True, exist_ok=True)
    unknown = {file.stem for file in folder.iterdir()} - produced.keys()
    assert not unknown, f"files in {folder} without a case: {sorted(unknown)}"
    first = next(iter(produced))
    missing = [name for name in produced if not (folder / f"{name}.json").exists()]
    for name in missing:
        content = whole(produced[name])
        if name != first:
            content = lines(difference(produced[first], produced[name]))
        (folder / f"{name}.json").write_text(content, "utf-8")
    if missing:
        pytest.fail(
            f"written to {folder}, since they were missing: {missing}; read, then run again"
        )
    base = read(folder, first)
    for name, value in produced.items():
        expected = base if name == first else patched(base, read(folder, name))
        assert canonical(expected) == canonical(value), (
            f"{folder.name}/{name}, from what the file says to what is produced:\n"
            + lines(difference(expected, value))
        )


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text("utf-8"))


def name_of(case: str) -> str:
    """`spot, then on demand` is in spot-then-on-demand.json."""
    return re.sub(r"[^a-z0-9]+", "-", case.lower()).strip("-")


def whole(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def canonical(value: Any) -> str:
    """The same for what is the same in JSON, where the order of keys means nothing, and 1, 1.0 and
    true are three things."""
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True)


def lines(patch: list[Operation]) -> str:
    """An operation a line."""
    rows = [json.dumps(operation, ensure_ascii=False) for operation in patch]
    return "[\n" + ",\n".join(rows) + "\n]\n" if rows else "[]\n"


# --- making a patch


def difference(old: Any, new: Any, path: str = "") -> list[Operation]:
    """A patch that makes `new` of `old`; a short one, not the shortest."""
    if canonical(old) == canonical(new):
        return []
    replaced = [{"op": "replace", "path": path, "value": new}]
    if isinstance(old, dict) and isinstance(new, dict):
        return shorter(list(_of_objects(old, new, path)), replaced)
    if isinstance(old, list) and isinstance(new, list):
        return shorter(list(_of_lists(old, new, path)), replaced)
    return replaced


def shorter(one: list[Operation], other: list[Operation]) -> list[Operation]:
    return min((one, other), key=lambda patch: len(lines(patch)))


def _of_objects(old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[Operation]:
    for key in old:
        if key not in new:
            yield {"op": "remove", "path": below(path, key)}
    for key, value in new.items():
        if key in old:
            yield from difference(old[key], value, below(path, key))
        else:
            yield {"op": "add", "path": below(path, key), "value": value}


def _of_lists(old: list[Any], new: list[Any], path: str) -> Iterator[Operation]:
    """From the front to the back, so that what stands before an index is as in `new` already."""
    matcher = SequenceMatcher(
        None, [canonical(one) for one in old], [canonical(one) for one in new], autojunk=False
    )
    for _, start, end, begin, stop in (one for one in matcher.get_opcodes() if one[0] != "equal"):
        both = min(end - start, stop - begin)
        for number in range(both):
            at = below(path, begin + number)
            yield from difference(old[start + number], new[begin + number], at)
        for _ in range(both, end - start):
            yield {"op": "remove", "path": below(path, begin + both)}
        for number in range(begin + both, stop):
            yield from _added(new, number, path)


def _added(new: list[Any], number: int, path: str) -> list[Operation]:
    """As a whole, or as what its neighbour is but for a few words: rungs of a ladder are alike."""
    here = below(path, number)
    plain: list[Operation] = [{"op": "add", "path": here, "value": new[number]}]
    if not number:
        return plain
    like: Operation = {"op": "copy", "from": below(path, number - 1), "path": here}
    return shorter([like, *difference(new[number - 1], new[number], here)], plain)


def below(path: str, key: str | int) -> str:
    """A JSON Pointer: https://www.rfc-editor.org/rfc/rfc6901#section-3"""
    return f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"


# --- following one


def patched(document: Any, patch: list[Operation]) -> Any:
    """A copy of the document after the operations. KeyError and IndexError: it does not fit."""
    root = {"": deepcopy(document)}
    for operation in patch:
        value = operation.get("value")
        if operation["op"] == "copy":
            holder, key = _place(root, operation["from"])
            value = holder[key]
        holder, key = _place(root, operation["path"])
        match operation["op"]:
            case "replace":
                holder[key]  # which is there: else the patch is of another document
                holder[key] = deepcopy(value)
            case "remove":
                del holder[key]
            case "add" | "copy" if isinstance(holder, list):
                if key > len(holder):
                    raise IndexError(operation["path"])
                holder.insert(key, deepcopy(value))
            case "add" | "copy":
                holder[key] = deepcopy(value)
            case unknown:
                raise ValueError(f"{unknown} is no operation that is written here")
    return root[""]


def _place(root: dict[str, Any], path: str) -> tuple[Any, Any]:
    """What holds the thing at a pointer, and the key or index it has there."""
    holder: Any = root
    keys = [one.replace("~1", "/").replace("~0", "~") for one in path.split("/")]
    for key in keys[:-1]:
        holder = holder[int(key) if isinstance(holder, list) else key]
    return holder, int(keys[-1]) if isinstance(holder, list) else keys[-1]
