"""The import rule of the architecture, checked on source text."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = "concil"
# From below; a module may import what stands in its own row or under it.
LAYERS = (
    ("defaults", "errors", "network_errors", "runtime", "config"),
    ("oci",),
    ("fs", "ratelimit", "progress", "retry"),
    ("http",),
    ("auth",),
    ("registry",),
    ("store",),
    ("transfer",),
    ("trust",),
    ("plan",),
    ("engine",),
    ("dockerhub", "report", "display", "server", "service", "metrics", "notify", "tracing"),
    ("cluster", "web"),
    ("cli",),
    ("__main__",),
)
# From below, inside of packages: a sub-package may not import one that stands above it.
SUBLAYERS = {
    "transfer": ("blob", "signatures", "image", "check", "mirror", "fan_out"),
}
# Packages of one row that must not import each other.
APART = frozenset(
    {"dockerhub", "report", "display", "server", "service", "metrics", "notify", "tracing"}
    | {"fs", "ratelimit", "progress"}
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
# The engine is tested on stores in memory: it may not know the real ones.
TRANSFER_MAY_IMPORT = (
    "concil.store.protocols",
    "concil.store.base_store",
    "concil.store.source_wrapper",
)
# Who alone may import a library from outside.
SOLE_IMPORTERS = {
    "tenacity": "concil.retry",
    "tqdm": "concil.display",
    "yaml": "concil.plan.formats.yaml_nodes",
    "argcomplete": "concil.cli",
    "cronsim": "concil.service.run_times",
    "prometheus_client": "concil.metrics.exposition",
    "opentelemetry": "concil.tracing",
    "cryptography": "concil.trust",
    "sigstore": "concil.trust.keyless",
    "dask": "concil.cluster",
    "distributed": "concil.cluster",
    "backports": "concil.store.archive.decompress",
    "compression": "concil.store.archive.decompress",  # of the standard library from Python 3.14 on
}
THIRD_PARTY = {
    "argcomplete",
    "cronsim",
    "prometheus_client",
    "opentelemetry",
    "cryptography",
    "sigstore",
    "requests",
    "urllib3",
    "tenacity",
    "tqdm",
    "yaml",
    "distributed",
    "dask",
} | {
    "backports",
    "compression",
}
# It imports the module only when one of its names is first used.
LAZY = ("concil.errors", "concil.network_errors")
SESSION_MODULE = "concil.http.requests_session"
# Each of these functions builds a Session for one request.
SESSION_SHORTCUTS = {
    "get",
    "head",
    "post",
    "put",
    "patch",
    "delete",
    "options",
    "request",
    "session",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One import: who, whom and where."""

    importer: str  # module
    imported: str  # module
    name: str | None  # what a `from` import takes out of the target
    line: int


@dataclass(frozen=True, slots=True)
class Module:
    """A module's dotted name and its syntax tree."""

    name: str
    tree: ast.Module
    is_package: bool


@functools.cache
def read_modules(package: Path) -> dict[str, Module]:
    """Parse all modules of a package directory that is named `concil`."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = [ROOT, *path.relative_to(package).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, ast.parse(path.read_bytes(), str(path)), is_package)
    return modules


def find_imports(module: Module, known: dict[str, Module]) -> Iterator[Import]:
    """Yield every import of a module, those for type checkers and in functions too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module.name, alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute_module(module, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in known:
                    yield Import(module.name, inner, None, node.lineno)
                else:
                    yield Import(module.name, base, alias.name, node.lineno)


def _absolute_module(module: Module, node: ast.ImportFrom) -> str:
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
        for arrow in find_imports(module, modules):
            reason = _violation(arrow, standard)
            if reason:
                found.append(f"{arrow.importer}:{arrow.line} imports {arrow.imported}: {reason}")
    return found


def _violation(arrow: Import, standard: frozenset[str]) -> str | None:
    top = arrow.imported.partition(".")[0]
    if top == ROOT:
        return _internal_violation(arrow)
    owner = SOLE_IMPORTERS.get(top, "")
    if owner and not f"{arrow.importer}.".startswith(f"{owner}."):
        return f"only {owner} may"
    return None if top in THIRD_PARTY or top in standard else "not a declared dependency"


def _internal_violation(arrow: Import) -> str | None:
    source, target = _layer_name(arrow.importer), _layer_name(arrow.imported)
    if target == ROOT:
        return None if arrow.name == "__version__" else "only __version__ may be taken from there"
    for name in (source, target):
        if name not in LEVELS and name != ROOT:
            return f"{name} stands in no layer"
    if source != target and {source, target} <= APART and LEVELS[source] == LEVELS[target]:
        return f"{source} and {target} stand side by side"
    if _is_above(arrow):
        return "upwards inside its package"
    if source == "transfer" and target in ("http", "auth", "registry", "store"):
        return None if arrow.imported in TRANSFER_MAY_IMPORT else "transfer may not know it"
    # The package itself shows what a library user imports, and that is no command.
    level = LEVELS["dockerhub"] if source == ROOT else LEVELS[source]
    return "upwards" if LEVELS[target] > level else None


def _is_above(arrow: Import) -> bool:
    """Whether the target stands in a sub-package above that of the source."""
    source, target = arrow.importer.split("."), arrow.imported.split(".")
    order = SUBLAYERS.get(source[1] if len(source) > 1 else "", ())
    if len(source) < 3 or len(target) < 3 or source[1] != target[1]:
        return False
    if source[2] not in order or target[2] not in order:
        return target[2] in order  # what the sub-packages share knows none of them
    return order.index(target[2]) > order.index(source[2])


def _layer_name(module: str) -> str:
    """Return the name by which a module stands in LAYERS; the root stands for itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ROOT


def import_cycle(package: Path) -> list[str]:
    """Return modules that import each other in a circle, or nothing."""
    modules = read_modules(package)
    graph = {
        module.name: {
            arrow.imported
            for arrow in find_imports(module, modules)
            if arrow.imported in modules
            and arrow.imported != ROOT
            and (arrow.importer, arrow.imported) != LAZY
        }
        for module in modules.values()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def find_session_construction(package: Path) -> list[str]:
    """Return a line for each place that builds a requests.Session and may not."""
    found = []
    for module in read_modules(package).values():
        if module.name == SESSION_MODULE:
            continue
        taken = _requests_names(module.tree)
        for node in ast.walk(module.tree):
            built: list[ast.expr] = []
            if isinstance(node, ast.Call):
                built = [node.func]
            elif isinstance(node, ast.ClassDef):
                built = node.bases
            names = {_requests_name(each, taken) for each in built}
            if names & (SESSION_SHORTCUTS | {"Session"}):
                line = getattr(node, "lineno", 0)
                found.append(f"{module.name}:{line}: only {SESSION_MODULE} builds a Session")
    return found


def _requests_names(tree: ast.Module) -> dict[str, str]:
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


def _requests_name(expression: ast.expr, taken: dict[str, str]) -> str | None:
    if isinstance(expression, ast.Name):
        return taken.get(expression.id)
    if isinstance(expression, ast.Attribute):
        owner = expression.value
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        if isinstance(owner, ast.Name) and taken.get(owner.id) == "":
            return expression.attr
    return None


def find_oversized(package: Path, module_lines: int, function_lines: int) -> list[str]:
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
