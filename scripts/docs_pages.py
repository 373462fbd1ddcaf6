"""A hook for mkdocs: makes the API pages from the modules in src/outlay, and the methods page from the catalog.

Nothing here names a family, so a new one appears in the documentation as soon as its folder exists.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docs_plain_text import escape
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

    from outlay.catalog import Entry

PACKAGE = Path(__file__).parent.parent / "src" / "outlay"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the generated pages to the navigation."""
    nav: list[Any] = [*(config.nav or []), {"Methods": "methods.md"}]
    nav.append({"API": [{path.stem: f"api/{path.stem}.md"} for path in _top_level()]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site's files."""
    files.append(File.generated(config, "methods.md", content=_methods_page()))
    for path in _top_level():
        files.append(File.generated(config, f"api/{path.stem}.md", content=_api_page(path)))
    return files


def _top_level() -> list[Path]:
    """Modules and families directly under the package, by name."""
    return sorted((path for path in PACKAGE.iterdir() if _is_module(path)), key=lambda path: path.stem)


def _is_module(path: Path) -> bool:
    if path.stem.startswith("_"):
        return False
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def _api_page(path: Path) -> str:
    parts = [f"# {path.stem}\n"]
    for module in _modules(path):
        face = module.name == "__init__.py"
        dotted = ".".join(("outlay", *(module.parent if face else module.with_suffix("")).relative_to(PACKAGE).parts))
        top = module in (path, path / "__init__.py")
        options = [f"show_root_heading: {'false' if top else 'true'}", "heading_level: 2"]
        if face:  # what a face only passes on is shown where it is defined
            options.append(f"members: {_defined(module) or 'false'}")
        parts.append(f"::: {dotted}\n    options:\n" + "".join(f"      {option}\n" for option in options))
    return "\n".join(parts)


def _modules(path: Path) -> Iterator[Path]:
    """The source files of a module or family: its face first, then the seam, then the methods by name."""
    if path.is_file():
        yield path
        return
    yield path / "__init__.py"
    inner = (item for item in path.iterdir() if _is_module(item))
    for item in sorted(inner, key=lambda item: (item.name != "base.py", item.stem)):
        yield from _modules(item)


def _defined(module: Path) -> list[str]:
    """Public functions and classes written in this file, as against imported by it."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if not name.startswith("_")]


def _methods_page() -> str:
    catalog = importlib.import_module("outlay.catalog")
    families = [family for family in catalog.FAMILIES if _is_module(PACKAGE / family)]
    parts = [
        "# Methods\n",
        "Everything a recipe can name, by family. In YAML a method is its name, or `{name: {field: value}}`; in Python import the class,",
        'or call `outlay.make("family/name", field=value)`. `outlay methods` prints the same list in a terminal.\n',
    ]
    for family in families:
        parts.append(f"## {family}\n")
        parts.extend(_method_entry(entry) for entry in catalog.listing(family))
    return "\n".join(parts)


def _method_entry(entry: Entry) -> str:
    lines = [f"### {entry.name}\n", f"**{entry.title}.** {escape(entry.summary)}\n"]
    if entry.paper:
        link = f" ([arXiv:{entry.paper.arxiv}](https://arxiv.org/abs/{entry.paper.arxiv}))" if entry.paper.arxiv else ""
        lines.append(f"*{entry.paper.title}*, {entry.paper.year}{link}\n")
    lines += [f"- `{field.name}`: `{field.type}`{', required' if field.required else f' = `{field.default!r}`'}" for field in entry.fields]
    return "\n".join(lines) + "\n"
