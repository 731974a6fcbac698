"""Every setting with what whoever writes a configuration needs to know of it, read from the classes of the settings."""

import ast
import inspect
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

from msgspec import Struct

from roomkey import config
from roomkey.config import SECTIONS, SHARED, Config
from roomkey.domain.policy import PRESETS
from roomkey.settings import in_words

INTRODUCTION: Final = """\
# Settings

What can be set, and what each setting is for. `roomkey settings` prints it in a terminal; with words, the settings that
mention them. `roomkey config` prints what holds here, and where each value came from.

```console
$ roomkey settings idle
$ roomkey config --set sessions.idle_timeout=15m
```

A setting stands in a section of `roomkey.toml`, in a variable of the environment, or behind `--set` on the command
line, which overrides the others:

```toml
[sessions]
idle_timeout = "15m"
cap = 3
```

A **duration** is a number of seconds, or text such as `500ms`, `30s`, `10m`, `24h` or `90d`; a **size** is a number of
bytes, or text such as `64KiB` or `1MiB`. Both are more than 0 where nothing else is said. What can be **off** is
switched off by `off`. In a variable, a **list** has commas between its items, and a **table** is JSON. Unknown settings
and variables are refused, with the nearest name. [operations.md](operations.md) is about running the server. This page
is made from the code by `roomkey settings --markdown`.
"""

PRESET: Final = "The policy that the other settings of this section start from: assurance levels of NIST SP 800-63B-4."


class Entry(Struct, frozen=True, kw_only=True):
    """A setting. ``variables`` are those of the environment that set it; the first follows from its name."""

    name: str
    variables: Sequence[str]
    type: str
    default: str
    meaning: str

    @property
    def section(self) -> str:
        """The section of the file that it stands in."""
        return self.name.partition(".")[0]

    def mentions(self, words: Sequence[str]) -> bool:
        """Whether each of the words is somewhere in it, whatever their case."""
        text = f"{self.name} {' '.join(self.variables)} {self.meaning}".casefold()
        return all(word.casefold() in text for word in words)


def entries() -> Iterator[Entry]:
    """Every setting, in the order of the sections and of the fields in them."""
    variables: dict[str, list[str]] = {}
    for variable, name in config.variables().items():
        variables.setdefault(name, []).append(variable)
    for section, kind in _classes().items():
        if section == "sessions":
            name, types = f"{section}.preset", _one_of(PRESETS)
            yield Entry(name=name, variables=variables[name], type=types, default="default", meaning=PRESET)
        meanings, hints, defaults = docstrings_of(kind), get_type_hints(kind), kind()
        for field in kind.__struct_fields__:
            name, is_size = f"{section}.{field}", field.endswith("_bytes")
            if name not in SHARED:
                yield Entry(
                    name=name,
                    variables=variables[name],
                    type=_type_in_words(hints[field], is_size=is_size),
                    default=_shown(getattr(defaults, field), is_size=is_size),
                    meaning=meanings.get(field, ""),
                )


def markdown() -> str:
    """The page of the documentation."""
    parts, known = [INTRODUCTION], list(entries())
    for section, kind in _classes().items():
        about = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
        rows = "".join(_row(entry) for entry in known if entry.section == section)
        head = "| setting | type | default | |\n|---|---|---|---|\n"
        parts.append(f"## {section}\n\n{_on_a_line(about)}\n\n{head}{rows}")
    return "\n".join(parts)


def docstrings_of(kind: type[Struct]) -> Mapping[str, str]:
    """The texts that stand below the fields of a class, each on one line."""
    found: dict[str, str] = {}
    for definition in ast.parse(textwrap.dedent(inspect.getsource(kind))).body:
        if isinstance(definition, ast.ClassDef):
            for statement, following in pairwise(definition.body):
                match statement, following:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = _on_a_line(text)
                    case _:
                        pass
    return found


def _classes() -> Mapping[str, type[Struct]]:
    """The class of the settings of each section."""
    defaults = Config()
    return {section: cast("type[Struct]", type(getattr(defaults, section))) for section in SECTIONS}


def _on_a_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _row(entry: Entry) -> str:
    variables = "<br>".join(f"`{variable}`" for variable in entry.variables)
    name = entry.name.partition(".")[2]
    default = f"`{entry.default}`" if entry.default != "off" else "off"
    return f"| `{name}`<br>{variables} | {entry.type} | {default} | {entry.meaning.replace('|', '&#124;')} |\n"


def _shown(value: Any, *, is_size: bool) -> str:
    if is_size and isinstance(value, int):
        return _size_in_words(value)
    if isinstance(value, float):
        return f"{value:g}"
    return in_words(value) or "none"


def _size_in_words(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


_NAMES: Final[Mapping[Any, str]] = {
    bool: "`true` or `false`",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    timedelta: "duration",
}


def _type_in_words(kind: Any, *, is_size: bool = False) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _NAMES:
        words = "size" if is_size and kind is int else _NAMES[kind]
    elif origin is Literal:
        words = _one_of(arguments)
    elif origin in (Union, types.UnionType):
        some = [_type_in_words(each, is_size=is_size) for each in arguments if each is not types.NoneType]
        words = " or ".join([*some, "off"] if types.NoneType in arguments else some)
    elif isinstance(origin, type):
        words = "table" if issubclass(origin, Mapping) else f"list of {_type_in_words(arguments[0])}"
        words = words.replace("of table with", "of tables with")
    elif issubclass(kind, Enum):
        words = _one_of(kind)
    else:
        words = f"table with {_one_of(kind.__struct_fields__)}"
    return words


def _one_of(values: Iterable[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)
