"""The import rule of the architecture, checked on source text."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = "concil"
# From below; a module may import what stands in its own row or under it.
LAYERS = (
    (
        "arguments",
        "errors",
        "config",
        "cancellation",
        "forking",
        "encodings",
        "limits",
        "progress",
        "redaction",
        "tally",
    ),
    ("strict_json", "hashing", "digest", "digest_tags", "content", "reference", "retry", "pace"),
    ("fs",),
    ("registry",),
    ("store",),
    ("transfer",),
    ("plan",),
    (
        "archives",
        "since",
        "stores",
        "opening",
        "file_blobs",
        "engine_parts",
        "engine",
        "layer",
        "dockerhub",
        "docker_path",
        "docker_request",
        "docker_upload",
        "docker_url",
        "verified",
        "bars",
        "page",
        "report",
        "report_file",
        "server",
        "timeline",
    ),
    ("cluster",),
    ("cli",),
    ("__main__",),
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
# The engine is tested on stores in memory: it may not know the real ones.
TRANSFER_SEES = ("concil.store.protocol", "concil.store.partial")
# Who alone may import a library from outside.
OWNERS = {
    "tenacity": "concil.retry",
    "tqdm": "concil.bars",
    "yaml": "concil.plan.yaml_nodes",
    "dask": "concil.cluster",
    "distributed": "concil.cluster",
    "backports": "concil.store.decompress",
    "compression": "concil.store.decompress",  # of the standard library from Python 3.14 on
}
OUTSIDE = {"requests", "urllib3", "tenacity", "tqdm", "yaml", "distributed", "dask"} | {
    "backports",
    "compression",
}
SESSION_OWNER = "concil.registry.http_session"
# Each of these functions builds a Session for one request.
SHORTCUTS = {"get", "head", "post", "put", "patch", "delete", "options", "request", "session"}


@dataclass(frozen=True, slots=True)
class Arrow:
    """One import: who, whom and where."""

    source: str  # module
    target: str  # module
    name: str | None  # what a `from` import takes out of the target
    line: int


@dataclass(frozen=True, slots=True)
class Module:
    """A module's dotted name and its syntax tree."""

    name: str
    tree: ast.Module
    is_package: bool


def read_modules(package: Path) -> dict[str, Module]:
    """Parse all modules of a package directory that is named `concil`."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = [ROOT, *path.relative_to(package).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, ast.parse(path.read_bytes(), str(path)), is_package)
    return modules


def arrows(module: Module, known: dict[str, Module]) -> Iterator[Arrow]:
    """Yield every import of a module, those for type checkers and in functions too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Arrow(module.name, alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in known:
                    yield Arrow(module.name, inner, None, node.lineno)
                else:
                    yield Arrow(module.name, base, alias.name, node.lineno)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    keep = len(parts) - node.level + module.is_package
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def forbidden_imports(package: Path, standard: frozenset[str]) -> list[str]:
    """Return a line for each import that the rule does not allow.

    Args:
        package: The directory of the package.
        standard: The names of the standard library's modules.
    """
    modules = read_modules(package)
    found = []
    for module in modules.values():
        for arrow in arrows(module, modules):
            reason = _wrong(arrow, standard)
            if reason:
                found.append(f"{arrow.source}:{arrow.line} imports {arrow.target}: {reason}")
    return found


def _wrong(arrow: Arrow, standard: frozenset[str]) -> str | None:
    top = arrow.target.partition(".")[0]
    if top == ROOT:
        return _wrong_inside(arrow)
    owner = OWNERS.get(top, "")
    if owner and not f"{arrow.source}.".startswith(f"{owner}."):
        return f"only {owner} may"
    return None if top in OUTSIDE or top in standard else "not a declared dependency"


def _wrong_inside(arrow: Arrow) -> str | None:
    source, target = _row(arrow.source), _row(arrow.target)
    if target == ROOT:
        return None if arrow.name == "__version__" else "only __version__ may be taken from there"
    for name in (source, target):
        if name not in LEVELS and name != ROOT:
            return f"{name} stands in no layer"
    if source == "transfer" and target in ("registry", "store"):
        return None if arrow.target in TRANSFER_SEES else "transfer may not know it"
    # The package itself shows what a library user imports, and that is no command.
    level = LEVELS["engine"] if source == ROOT else LEVELS[source]
    return "upwards" if LEVELS[target] > level else None


def _row(module: str) -> str:
    """Return the name by which a module stands in LAYERS; the root stands for itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ROOT


def import_cycle(package: Path) -> list[str]:
    """Return modules that import each other in a circle, or nothing."""
    modules = read_modules(package)
    graph = {
        module.name: {
            arrow.target
            for arrow in arrows(module, modules)
            if arrow.target in modules and arrow.target != ROOT
        }
        for module in modules.values()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def foreign_sessions(package: Path) -> list[str]:
    """Return a line for each place that builds a requests.Session and may not."""
    found = []
    for module in read_modules(package).values():
        if module.name == SESSION_OWNER:
            continue
        taken = _taken_from_requests(module.tree)
        for node in ast.walk(module.tree):
            built: list[ast.expr] = []
            if isinstance(node, ast.Call):
                built = [node.func]
            elif isinstance(node, ast.ClassDef):
                built = node.bases
            names = {_from_requests(each, taken) for each in built}
            if names & (SHORTCUTS | {"Session"}):
                line = getattr(node, "lineno", 0)
                found.append(f"{module.name}:{line}: only {SESSION_OWNER} builds a Session")
    return found


def _taken_from_requests(tree: ast.Module) -> dict[str, str]:
    """Map local names to what they are in requests; the library itself is ""."""
    taken = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "requests":
                    taken[alias.asname or "requests"] = ""
        elif isinstance(node, ast.ImportFrom):
            top, _, inner = (node.module or "").partition(".")
            if top == "requests" and not node.level and inner in ("", "sessions", "api"):
                for alias in node.names:
                    taken[alias.asname or alias.name] = alias.name
    return taken


def _from_requests(expression: ast.expr, taken: dict[str, str]) -> str | None:
    if isinstance(expression, ast.Name):
        return taken.get(expression.id)
    if isinstance(expression, ast.Attribute):
        owner = expression.value
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        if isinstance(owner, ast.Name) and taken.get(owner.id) == "":
            return expression.attr
    return None


def too_long(package: Path, module_lines: int, function_lines: int) -> list[str]:
    """Return a line for each module and function with more lines than that."""
    found = []
    for path in sorted(package.rglob("*.py")):
        source = path.read_text()
        name = path.relative_to(package.parent)
        size = len(source.splitlines())
        if size > module_lines:
            found.append(f"{name}: {size} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > function_lines:
                    found.append(f"{name}:{node.lineno} {node.name}: {size} lines")
    return found
