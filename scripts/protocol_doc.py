#!/usr/bin/env python3
"""Writes the parts of the documentation that come from the code.

    scripts/protocol_doc.py           write them
    scripts/protocol_doc.py --check   only say whether they are up to date

In `docs/*.md` a generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`;
`.env.example` is generated whole. Everything else in those files is written by hand.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastapi import FastAPI  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from app.api import health, messages, rest, sessions, users  # noqa: E402
from app.models import load_manifest  # noqa: E402
from app.observability.metrics import Metrics  # noqa: E402
from app.settings import Settings  # noqa: E402

Schema = dict[str, Any]

COMPUTED = {
    "data_dir": "the user's data folder: `~/.local/share/colloquy` on Linux",
    "master_key_file": "in the user's configuration folder: `~/.config/colloquy/master.key` on Linux",
    "models_dir": "the user's cache folder: `~/.cache/colloquy/models` on Linux",
    "threads": "the cores that the process may use",
}
"""Defaults that differ from machine to machine."""

SOCKET_PARTS = ("AudioFormat", "AudioOut", "TurnDetection")
"""Models inside others, told where they are first used."""


def one_line(text: str | None) -> str:
    """A docstring as one paragraph, fit for a table's cell."""
    return " ".join((text or "").split()).replace("|", "\\|")


# --- messages and bodies, from their JSON schemas -------------------------------------------------


def kind(schema: Schema) -> str:
    """The type of a field, in words, linked where it has a section of its own."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}"
    if schema.get("contentMediaType") or schema.get("format") == "binary":
        return "file"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return f"object of {kind(values)}" if isinstance(values, dict) else "object"
    return str(schema.get("type", "any")) + limits(schema)


def limits(schema: Schema) -> str:
    """What a value must keep to, in words."""
    found = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        found.append(f"{low}–{high}")
    elif low is not None:
        found.append(f"≥ {low}")
    if (longest := schema.get("maxLength")) is not None:
        found.append(f"{schema.get('minLength', 0)}–{longest} characters")
    if pattern := schema.get("pattern"):
        found.append("`{}`".format(pattern.replace("|", "\\|")))
    return f" ({', '.join(found)})" if found else ""


def default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    if "$ref" in schema:
        return "its defaults"
    return f"`{json.dumps(schema.get('default', [] if schema.get('type') == 'array' else None))}`"


def fields(schema: Schema, *, given: bool) -> Iterator[str]:
    """The table of a model's fields. `given`: a client sends it, so defaults matter."""
    # `type` is the heading, and every event has `seq`.
    rows = {name: f for name, f in schema.get("properties", {}).items() if name not in ("type", "seq")}
    if not rows:
        yield "No further fields." if schema.get("properties") else "No fields."
        return
    columns = ["field", "type"]
    if given:
        columns.append("default")
    if any("description" in field or "maxItems" in field for field in rows.values()):
        columns.append("meaning")
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for name, field in rows.items():
        most = f"; at most {field['maxItems']}" if "maxItems" in field else ""
        cells = {
            "field": f"`{name}`",
            "type": kind(field),
            "default": default(field, name in schema.get("required", [])),
            "meaning": one_line(field.get("description")) + most,
        }
        yield f"| {' | '.join(cells[column] for column in columns)} |"


def section(title: str, schema: Schema, *, given: bool) -> Iterator[str]:
    """A heading, what the model is for, and its fields."""
    yield f"### {title}\n"
    if text := one_line(schema.get("description")):
        yield f"{text}\n"
    yield from fields(schema, given=given)
    yield ""


def tagged(union: Any) -> list[type[BaseModel]]:
    """The messages of one direction, in the order of the source."""
    return list(get_args(get_args(union)[0]))


def message_sections(union: Any, *, given: bool) -> str:
    lines: list[str] = []
    for model in tagged(union):
        schema = model.model_json_schema(mode="validation" if given else "serialization")
        lines += section(f"`{schema['properties']['type']['const']}`", schema, given=given)
        for name, part in schema.get("$defs", {}).items():
            if name in ("RoleProgress", "WordOut", "PersonOut"):
                lines += section(name, part, given=given)
    return "\n".join(lines)


def settings_sections() -> str:
    schema = messages.SessionSettings.model_json_schema()
    lines = list(section("SessionSettings", schema, given=True))
    for name in SOCKET_PARTS:
        lines += section(name, schema["$defs"][name], given=True)
    return "\n".join(lines)


def rest_sections() -> str:
    """Every endpoint, then the bodies that they take and give."""
    app = FastAPI()
    for module in (sessions, users, rest, health):
        app.include_router(module.router)
    document = app.openapi()
    schemas: dict[str, Schema] = document["components"]["schemas"]
    lines = ["| request | takes | answers | |", "|---|---|---|---|"]
    bodies: list[str] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            takes = [
                f"query `{p['name']}`, default {p['schema']['default']}{limits(p['schema'])}"
                for p in operation.get("parameters", [])
                if p["in"] == "query"
            ]
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                name = references(content["schema"])[0]
                if name.startswith("Body_"):
                    form = "multipart" if media.startswith("multipart") else "form"
                    required = schemas[name].get("required", [])
                    takes += [
                        f"{form} `{f}`" + ("" if f in required else " (optional)")
                        for f in schemas[name]["properties"]
                    ]
                else:
                    takes.append(f"JSON {kind({'$ref': name})}")
                    bodies.append(name)
            status, answer = next(iter(operation["responses"].items()))
            content = answer.get("content", {}).get("application/json", {}).get("schema", {})
            bodies += references(content)
            gives = f"{status} {kind(content)}" if content else status
            about = one_line(operation.get("description", "").split("\n\n")[0])
            lines.append(f"| `{method.upper()} {path}` | {'; '.join(takes) or '–'} | {gives} | {about} |")
    lines.append("")
    told = {"SessionSettings", "RoleProgress", "WordOut", "PersonOut", *SOCKET_PARTS}
    for name in bodies:
        if name not in told:
            told.add(name)
            lines += section(name, schemas[name], given=name == "SpeakRequest")
            bodies += references(schemas[name])
    return "\n".join(lines)


def references(schema: Any) -> list[str]:
    """The names of the models that a schema speaks of."""
    return re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema))


# --- settings -------------------------------------------------------------------------------------


def grouped_settings() -> Iterator[tuple[str, list[str]]]:
    """The settings under the headings of their source."""
    group = ""
    names: list[str] = []
    for line in inspect.getsource(Settings).splitlines():
        if heading := re.match(r"\s*# --- (.+) ---", line):
            if names:
                yield group, names
            group, names = heading[1], []
        elif (field := re.match(r"    (\w+):", line)) and field[1] in Settings.model_fields:
            names.append(field[1])
    yield group, names


def written_default(name: str) -> str:
    """The default as it would be written in the environment; empty where there is none."""
    value = Settings.model_fields[name].get_default(call_default_factory=True)
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None or name in COMPUTED:
        return ""
    return json.dumps(value) if isinstance(value, list | bool) else str(value)


def settings_tables() -> str:
    properties = Settings.model_json_schema()["properties"]
    lines: list[str] = []
    for group, names in grouped_settings():
        lines += [f"## {group[:1].upper()}{group[1:]}\n", "| variable | default | meaning |", "|---|---|---|"]
        for name in names:
            written = written_default(name)
            value = COMPUTED.get(name) or (f"`{written}`" if written else "–")
            meaning = one_line(Settings.model_fields[name].description)
            schema = properties[name]
            typed = next(o for o in schema.get("anyOf", [schema]) if o.get("type") != "null")
            if "enum" in typed:
                meaning += f". One of {', '.join(f'`{choice}`' for choice in typed['enum'])}"
            lines.append(f"| `{name.upper()}` | {value} | {meaning}{limits(typed)} |")
        lines.append("")
    return "\n".join(lines)


def env_example() -> str:
    lines = [
        "# Settings of Colloquy, with their defaults. Copy this file to .env and uncomment what you change.",
        "# The same names work as environment variables, which win. All of them: docs/settings.md",
        "# Written by scripts/protocol_doc.py.",
    ]
    for group, names in grouped_settings():
        lines.append(f"\n# --- {group} ---")
        for name in names:
            meaning = one_line(Settings.model_fields[name].description)
            if name in COMPUTED:
                meaning += f"; default: {COMPUTED[name]}".replace("`", "")
            value = written_default(name)
            lines += [f"# {meaning}", f"#{name.upper()}=" + (f"'{value}'" if " " in value else value)]
    return "\n".join(lines) + "\n"


# --- operations and licences ----------------------------------------------------------------------


def metrics_table() -> str:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for collector in vars(Metrics()).values():
        for family in collector.describe() if hasattr(collector, "_labelnames") else ():
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in collector._labelnames) or "–"
            lines.append(f"| `{name}` | {family.type} | {labels} | {one_line(family.documentation)} |")
    return "\n".join(lines)


def models_table() -> str:
    lines = ["| model | for | size | licence | |", "|---|---|---|---|---|"]
    for m in load_manifest().models:
        lines.append(f"| `{m.name}` | {m.role} | {m.size / 1e6:.0f} MB | {m.licence} | {m.licence_note} |")
    return "\n".join(lines)


SPELLED = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "ISC License (ISCL)": "ISC",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL",
    "3-Clause BSD License": "BSD-3-Clause",
}


def declared_licence(package: str) -> str | None:
    """What an installed package declares; None where it is not installed."""
    try:
        about = metadata(package)
    except PackageNotFoundError:
        return None

    def first(field: str) -> str:
        return next(iter(about.get_all(field) or ()), "")

    classifiers = [
        c.rpartition(":: ")[2] for c in about.get_all("Classifier") or () if c.startswith("License")
    ]
    free = first("License").strip().split("\n")[0]
    short = free if re.fullmatch(r"[\w. +()-]{3,40}", free) and free != "UNKNOWN" else ""
    found = first("License-Expression") or " or ".join(classifiers) or short
    # A classifier says only "BSD", and not whether several are to be had together or by choice; the
    # field beside it may.
    if found == "BSD License" or " or " in found:
        found = short or found.removesuffix(" License")
    return SPELLED.get(found, found)


def packages_table() -> str:
    """The packages of the embedded deployment, but for those that only Windows or a browser needs. One
    that this machine has no use for keeps its row."""
    before = dict(re.findall(r"^\| `([\w.-]+)` \| (.+?) \|$", (ROOT / "docs/licences.md").read_text(), re.M))
    lock = (ROOT / "requirements.embedded.txt").read_text()
    lines = ["| package | licence |", "|---|---|"]
    for package, marker in dict(re.findall(r"^([\w.-]+)==\S+ (.*)$", lock, re.M)).items():
        if not re.search("== '(win32|emscripten)'", marker):
            licence = declared_licence(package) or before.get(package, "not known")
            lines.append(f"| `{package}` | {licence} |")
    return "\n".join(lines)


# --- files ----------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "session settings": settings_sections,
    "client messages": lambda: message_sections(messages.ClientMessage, given=True),
    "server messages": lambda: message_sections(messages.ServerMessage, given=False),
    "rest": rest_sections,
    "settings": settings_tables,
    "metrics": metrics_table,
    "models": models_table,
    "packages": packages_table,
}
PART = re.compile(r"<!-- generated: ([\w ]+) -->\n.*?<!-- end -->", re.DOTALL)


def generated() -> dict[Path, str]:
    """Every file with generated parts, as it should be."""

    def filled(part: re.Match[str]) -> str:
        return f"<!-- generated: {part[1]} -->\n\n{PARTS[part[1]]().strip()}\n\n<!-- end -->"

    pages = sorted((ROOT / "docs").glob("*.md"))
    files = {path: PART.sub(filled, path.read_text(encoding="utf-8")) for path in pages}
    return files | {ROOT / ".env.example": env_example()}


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = {
        path: text
        for path, text in generated().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        name = path.relative_to(ROOT)
        if arguments:
            print(f"{name} is out of date: run scripts/protocol_doc.py")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{name} written")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
