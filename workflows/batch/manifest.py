"""What a batch is to make: a folder of pictures, a CSV or a JSONL, as items that know what they set in the workflow.

An item's id is a hash of all that its clip depends on: the workflow with everything set, and each picture's bytes. The
same row has the same id in the next run, wherever it stands by then, and a changed row is another item.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from run_headless import ClipError, Workflow, list_of_nodes, nodes_at, value_for

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LOADERS = re.compile(r"lora|load(?!image)", re.IGNORECASE)
"""Classes of nodes that load or change an expert: while their inputs stay the same, ComfyUI keeps it in memory."""
SHOWN = 8
"""Faults of a manifest that are told at once."""
Place = tuple[str, str]
"""A node's id and the name of its input."""


@dataclass(frozen=True)
class Row:
    """What one line of the manifest says, column by column as it is written there."""

    where: str
    columns: dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A clip to make."""

    id: str
    where: str
    columns: dict[str, Any]
    changes: dict[Place, Any]
    """What the row sets in the workflow. A picture is named by the hash of its bytes."""
    pictures: dict[str, Path] = field(repr=False)
    """That name -> the file."""
    loaded: str = field(repr=False)
    """What the loaders are set to: items that share it should follow one another."""
    seed: int | None

    @property
    def name(self) -> str:
        """Name of the clip's file, without its ending."""
        picture = next(iter(self.pictures.values()), None)
        return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', picture.stem)[:40]}-{self.id}" if picture else self.id


def graph_of(workflow: Workflow, changes: dict[Place, Any], raised: int = 0) -> Workflow:
    """Return the workflow with an item's changes, and its seeds raised by a number."""
    graph = copy.deepcopy(workflow)
    for (node, name), value in changes.items():
        graph[node]["inputs"][name] = value
    for node, name in seeds(graph):
        graph[node]["inputs"][name] += raised
    return graph


def seeds(workflow: Workflow) -> list[Place]:
    return [(key, name) for key, node in workflow.items() for name in ("seed", "noise_seed")
            if isinstance(node["inputs"].get(name), int)]


def read_items(manifest: Path, workflow: Workflow, shared: dict[str, str], variants: int = 1) -> list[Item]:
    """Return the items of a manifest, in its order.

    shared: columns that every row has unless it gives its own. variants: clips of each row, with seeds that are higher
    by one each. Raises ClipError with every fault that was found: columns that the workflow has no place for, pictures
    that are not there, rows that ask for the same clip.
    """
    items: list[Item] = []
    faults: dict[str, str] = {}
    hashes: dict[Path, str] = {}
    folder = manifest.parent if manifest.is_file() else Path()
    for row in read_rows(manifest):
        columns = {**shared, **row.columns}
        try:
            changes, pictures = read_changes(columns, workflow, folder, hashes)
            items += [new_item(row, columns, changes, pictures, workflow, number) for number in range(variants)]
        except ClipError as error:
            faults.setdefault(str(error), row.where)
    rows: dict[str, str] = {}
    for item in items:
        if item.id in rows:
            faults.setdefault(f"asks for the same clip as {rows[item.id]}: give one of them another seed, or remove it",
                              item.where)
        rows.setdefault(item.id, item.where)
    if faults:
        lines = [f"{where}: {fault}" for fault, where in faults.items()]
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise ClipError("\n".join(lines[:SHOWN] + more))
    if not items:
        raise ClipError(f"{manifest} asks for no clip: it needs at least one row, or one picture "
                        f"({', '.join(PICTURES)}).")
    return items


def read_rows(manifest: Path) -> Iterator[Row]:
    """Yield the rows of a folder of pictures, a CSV or a JSONL. Raises ClipError when it is none of these."""
    if manifest.is_dir():
        for path in sorted(manifest.iterdir()):
            if path.suffix.lower() in PICTURES:
                yield Row(path.name, {"picture": str(path)})
        return
    read = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl}.get(manifest.suffix.lower())
    if not read:
        kind = "is no folder of pictures, no .csv and no .jsonl" if manifest.exists() else "is not there"
        raise ClipError(f"{manifest} {kind}")
    try:
        text = manifest.read_text("utf-8-sig")
    except OSError as error:
        raise ClipError(f"{manifest}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ClipError(f"{manifest} is not UTF-8 text. Save it as UTF-8 (CSV UTF-8 in a spreadsheet).") from None
    yield from read(text)


def read_csv(text: str) -> Iterator[Row]:
    """Yield the rows of a CSV with a header, separated by comma, semicolon or tab. An empty cell says nothing.

    Raises ClipError for a table that is none, and where a column is there twice.
    """
    lines = text.splitlines(keepends=True)
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count) if lines else ",", strict=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        refuse_twice("line 1", reader.fieldnames)
        for cells in reader:
            where = f"line {reader.line_num}"
            if None in cells:
                raise ClipError(f"{where} has more cells than the header has columns. Put text with a comma in quotes.")
            yield Row(where, {name: cell for name, cell in cells.items() if cell})
    except csv.Error as error:
        raise ClipError(f"line {reader.line_num + 1}: {error}. Look for a quote that is not closed.") from None


def read_jsonl(text: str) -> Iterator[Row]:
    """Yield the rows of a JSONL: an object in each line. null says nothing. Raises ClipError as `read_csv` does."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            columns = json.loads(line, object_pairs_hook=partial(object_at, f"line {number}"))
        except (ValueError, RecursionError):
            columns = None
        if not isinstance(columns, dict):
            raise ClipError(f'line {number} is not a JSON object such as {{"picture": "cat.png", "seed": 7}}.')
        yield Row(f"line {number}", {name: value for name, value in columns.items() if value is not None})


def object_at(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; JSON itself would keep the last of two columns of one name. Raises ClipError."""
    refuse_twice(where, [name for name, _ in pairs])
    return dict(pairs)


def refuse_twice(where: str, names: Sequence[str]) -> None:
    """Raise ClipError when a name is there twice: which one is meant?"""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ClipError(f"{where} has {', '.join(map(repr, twice))} twice. Remove one.")


def places_of(workflow: Workflow, column: str) -> list[Place]:
    """Return where a column belongs. Raises ClipError when the workflow has no place for it."""
    if column == "seed":
        found = seeds(workflow)
    elif column in ("prompt", "negative_prompt"):
        found = [(key, column) for key, node in workflow.items() if isinstance(node["inputs"].get(column), str)]
    elif column == "picture":
        found = [(key, "image") for key, node in workflow.items() if node["class_type"] == "LoadImage"]
    elif column == "lora":
        found = [(key, "source") for key, node in workflow.items() if node["class_type"] == "Wan22Lora"]
        if len(found) > 1:
            raise ClipError(f"the workflow has {len(found)} LoRA nodes: in place of the column lora use "
                            + ", ".join(f"{key}.source" for key, _ in found))
    else:
        nodes, name = nodes_at(workflow, column)
        found = [(key, name) for key in nodes]
        if not found:
            raise ClipError(f"column {column!r} is none of picture, prompt, negative_prompt, seed, lora, and no "
                            f"NODE.INPUT of the workflow, which has {list_of_nodes(workflow)}")
    if not found:
        raise ClipError(f"column {column!r} has no place in the workflow, which has {list_of_nodes(workflow)}")
    return found


def read_changes(columns: dict[str, Any], workflow: Workflow, folder: Path, hashes: dict[Path, str],
                 ) -> tuple[dict[Place, Any], dict[str, Path]]:
    """Return what columns set, and the pictures to upload; `picture` first, so that a NODE.INPUT overrules it.

    folder: what paths of pictures are relative to. hashes: of pictures that were read before; filled in.
    """
    changes: dict[Place, Any] = {}
    pictures: dict[str, Path] = {}
    for column in sorted(columns, key=lambda name: "." in name):
        value = columns[column]
        for place in places_of(workflow, column):
            node, name = workflow[place[0]], place[1]
            if node["class_type"].startswith("LoadImage") and name == "image":
                path = folder / str(value)
                changes[place] = hashes.get(path) or hashes.setdefault(path, picture_name(path))
                pictures[changes[place]] = path
            else:
                changes[place] = value_for(node, name, value) if isinstance(value, str) else value
                if name in ("seed", "noise_seed") and type(changes[place]) is not int:
                    raise ClipError(f"{column} is {value!r}; it must be a whole number")
    used = {value for (key, _), value in changes.items() if workflow[key]["class_type"].startswith("LoadImage")}
    return changes, {name: path for name, path in pictures.items() if name in used}


def picture_name(path: Path) -> str:
    """Return a name that tells the content. Raises ClipError when the file cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] + path.suffix.lower()
    except OSError as error:
        raise ClipError(f"picture {path}: {error.strerror}") from None


def new_item(row: Row, columns: dict[str, Any], changes: dict[Place, Any], pictures: dict[str, Path],
             workflow: Workflow, variant: int) -> Item:
    """Return the item of a row, or its variant of another seed."""
    graph = graph_of(workflow, changes, variant)
    if variant:
        changes = {**changes, **{(key, name): graph[key]["inputs"][name] for key, name in seeds(graph)}}
    content = {key: [node["class_type"], node["inputs"]] for key, node in graph.items()}
    loaders = [part for part in content.values() if LOADERS.search(part[0])]
    seed = next((graph[key]["inputs"][name] for key, name in seeds(graph)), None)
    return Item(digest(content)[:16], row.where, columns, changes, pictures, digest(loaders), seed)


def digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
