"""No module imports another in a circle: also not under ``TYPE_CHECKING``, and not inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def find_modules(*roots: Path) -> dict[str, Path]:
    """Return the modules below some folders by their dotted names."""
    modules = {}
    for root in roots:
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(name: str, path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that one imports, wherever the import stands; a package is imported for the names it hands on."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in modules)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in modules or base in modules:
                    yield inner if inner in modules else base


def find_circles(modules: dict[str, Path]) -> list[list[str]]:
    """Return the groups of modules that reach each other. A package's ``__init__`` only hands names on, and counts as no room."""
    graph = {
        name: {m for m in imports_of(name, path, modules) if m != name and modules[m].name != "__init__.py"}
        for name, path in modules.items()
        if path.name != "__init__.py"
    }
    reach: dict[str, set[str]] = {}
    for name in graph:
        seen, todo = set(), [name]
        while todo:
            for other in graph[todo.pop()]:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        reach[name] = seen
    circles = {tuple(sorted({m for m in reach[n] if n in reach[m]})) for n in graph if n in reach[n]}
    return sorted(map(list, circles))


def test_there_is_no_circle():
    packages = [p for p in (ROOT / "exporters").iterdir() if p.is_dir() and (p / "__init__.py").exists()]
    modules = {
        n: p for n, p in find_modules(ROOT / "exporters").items() if n.split(".")[0] in {q.name for q in packages}
    }
    modules |= {f"fo_onnx.{n}" if n else "fo_onnx": p for n, p in find_modules(ROOT / "fo_onnx").items()}
    assert len(modules) > 100
    assert find_circles(modules) == []


def test_a_circle_is_seen(tmp_path):
    (tmp_path / "a.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from b import B\n")
    (tmp_path / "b.py").write_text("def f():\n    import c\n")
    (tmp_path / "c.py").write_text("from a import A\n")
    (tmp_path / "d.py").write_text("from a import A\n")
    assert find_circles(find_modules(tmp_path)) == [["a", "b", "c"]]
