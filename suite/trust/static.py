"""Static checks: what a method's source may not contain, found without running it.

This is a lint, not a proof: it tells an honest author at once what a method
has no use for, and makes a dishonest one write something that a reader notices.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from suite.fingerprint import sources
from suite.registry import Method, RegistryError, packages


@dataclass(frozen=True)
class Offence:
    """One thing that a method's source may not contain.

    Attributes
    ----------
    kind : "clock", "network" or "forbidden".
    where : file name and line.
    message : what it is and why it is refused.
    """

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


CLOCK, NETWORK, FORBIDDEN = "clock", "network", "forbidden"
_WHY = {
    "clock": (CLOCK, "reads the clock; budgets are the suite's, and a run must not depend on time"),
    "network": (NETWORK, "reaches for the network; a method works with what it is given"),
    "files": (FORBIDDEN, "touches files; a method keeps its state in tensors and its state dict"),
    "process": (FORBIDDEN, "reaches for processes, threads or the system; a run is one process with one thread"),
    "inside": (FORBIDDEN, "looks inside the interpreter; a method sees its arguments alone"),
    "tasks": (FORBIDDEN, "reaches for tasks, results or the engine's insides; a method must not know what it runs on"),
    "global": (FORBIDDEN, "changes a setting of the whole process; take a generator, or keep it in the method"),
}

# Modules, and members of modules, by what is wrong with them; the longest match decides.
_REFUSED: dict[str, tuple[str, ...]] = {
    "clock": ("time", "datetime", "timeit", "sched", "torch.cuda.Event", "torch.profiler", "torch.autograd.profiler",
              "torch.utils.benchmark", "numpy.datetime64"),
    "network": ("socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "asyncio", "ftplib",
                "smtplib", "xmlrpc", "socketserver", "select", "selectors", "torch.distributed", "torch.hub",
                "torch.utils.model_zoo",
                "huggingface_hub", "datasets", "wandb"),
    "files": ("io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "pickle", "shelve", "marshal", "sqlite3",
              "mmap", "zipfile", "tarfile", "logging", "joblib", "pandas", "pyarrow", "safetensors", "open", "scipy.io",
              "torch.load", "torch.save", "torch.from_file", "torch.serialization", "torch.storage",
              "torch.UntypedStorage", "torch.TypedStorage", "torch.jit.load", "torch.jit.save", "torch.package",
              "numpy.load", "numpy.save", "numpy.savez", "numpy.savez_compressed", "numpy.memmap", "numpy.fromfile",
              "numpy.loadtxt", "numpy.savetxt", "numpy.genfromtxt", "numpy.lib"),
    "process": ("os", "sys", "subprocess", "multiprocessing", "concurrent", "threading", "_thread", "signal",
                "ctypes", "cffi", "resource", "pty", "fcntl", "platform", "atexit", "torch.multiprocessing",
                "torch.set_num_threads", "torch.set_num_interop_threads", "torch.utils.cpp_extension",
                "torch.utils.data", "torch.ops.load_library", "torch.classes", "torch.jit.fork", "torch.futures",
                "numpy.ctypeslib", "numpy.f2py", "scipy.LowLevelCallable"),
    "inside": ("gc", "inspect", "importlib", "builtins", "dis", "code", "codeop", "traceback", "tracemalloc", "runpy",
               "pkgutil", "ast", "eval", "exec", "compile", "globals", "locals", "breakpoint", "input", "__import__",
               "torch._C", "torch._dynamo", "torch.fx", "torch.overrides", "torch.utils._python_dispatch",
               "torch.library", "operator.attrgetter", "operator.methodcaller", "types.CodeType"),
    "tasks": ("tasks", "leaderboard", "suite.registry", "suite.api", "suite.runner", "suite.store", "suite.cli",
              "suite.gate", "suite.stats", "suite.trust", "suite.cache", "suite.data", "suite.recipe", "suite.seeds",
              "suite.fingerprint", "suite.lock", "suite.task", "suite.tasks", "suite.run", "suite.load_results",
              "suite.load_curves", "suite.define_task", "suite.checker", "suite.contract", "suite.claims",
              "suite.claim_runs", "suite.effort", "suite.noise", "suite.portrait", "suite.pytest_plugin",
              "suite.samples", "suite.tune", "suite.demo", "suite.plain", "suite.train.checkpoint",
              "suite.train.warmstart"),
    "global": ("torch.manual_seed", "torch.seed", "torch.set_rng_state", "torch.random", "torch.cuda.manual_seed",
               "torch.cuda.manual_seed_all", "torch.set_default_dtype", "torch.set_default_device",
               "torch.set_default_tensor_type", "torch.use_deterministic_algorithms", "torch.backends",
               "torch.set_float32_matmul_precision", "torch.set_grad_enabled", "torch.set_flush_denormal",
               "torch.autograd.set_detect_anomaly", "torch.nn.modules.module.register_module_buffer_registration_hook",
               "torch.nn.modules.module.register_module_forward_hook",
               "torch.nn.modules.module.register_module_forward_pre_hook",
               "torch.nn.modules.module.register_module_full_backward_hook", "numpy.random.seed",
               "numpy.random.set_state", "numpy.seterr", "random.seed", "random.setstate"),
}  # fmt: skip
_BY_NAME = {name: why for why, names in _REFUSED.items() for name in names}

# Names that libraries use for something harmless too: refused at the start of a dotted name, not within one.
_HARMLESS_WITHIN = frozenset(("code", "compile", "eval", "http", "input", "open", "platform", "select", "signal"))

_ALLOWED_PACKAGES = frozenset((
    "__future__", "abc", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "einops",
    "enum", "fractions", "functools", "heapq", "itertools", "math", "numbers", "numpy", "operator",
    "opt_einsum", "pytorch_optimizer", "random", "scipy", "statistics", "string", "suite", "torch", "types",
    "typing", "typing_extensions", "warnings", "weakref",
))  # fmt: skip
_BUILTINS = frozenset((
    "open", "eval", "exec", "compile", "globals", "locals", "breakpoint", "input", "__import__",
))  # fmt: skip
_DUNDERS = frozenset((
    "__globals__", "__builtins__", "__subclasses__", "__code__", "__closure__", "__loader__", "__spec__",
    "__import__", "__self__", "__reduce__", "__reduce_ex__", "__levelfield__", "f_globals", "f_locals",
    "f_back", "gi_frame", "tb_frame", "cr_frame", "__getattribute__",
))  # fmt: skip
# Modules that methods import by `from`; of `import X` it is plain that X is one.
_MODULES = frozenset((
    "torch.autograd", "torch.fft", "torch.func", "torch.linalg", "torch.nn", "torch.nn.functional", "torch.nn.init",
    "torch.nn.utils", "torch.nn.utils.parametrize", "torch.optim", "torch.special", "torch.utils", "suite.train",
))  # fmt: skip


def check_method(method: Method) -> list[Offence]:
    """Offences of a method's file and of every project file it imports; its module is not imported.

    Raises
    ------
    RegistryError : a file does not parse.
    """
    return check_files(sources(method.path), [method.requires] if method.requires else [])


def check_files(files: Iterable[Path], extra: Iterable[str] = ()) -> list[Offence]:
    """Offences of source files, in their order.

    Parameters
    ----------
    files : Python files.
    extra : packages beside the usual ones that they may import.
    """
    allowed = _ALLOWED_PACKAGES | set(extra) | (set(packages()) - {"tasks"})
    return [offence for file in files for offence in _check(Path(file), allowed)]


def _check(path: Path, allowed: frozenset[str] | set[str]) -> Iterator[Offence]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise RegistryError(f"{path}:{line}: {error}; fix the file so that it parses") from None
    names = _imported(tree)
    plain = _plain_uses(tree)
    seen = set()
    for node in _walk(tree, names):
        for kind, message in (*_offences(node, names, allowed), *_handed_on(node, names, plain)):
            where = f"{path.name}:{getattr(node, 'lineno', 1)}"
            if (where, message) not in seen:
                seen.add((where, message))
                yield Offence(kind, where, message)


def _walk(node: ast.AST, names: Names) -> Iterator[ast.AST]:
    """Every node; what a ``with torch.random.fork_rng()`` seeds is undone at its end and left out."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.With) and any(_forks(item.context_expr, names) for item in child.items):
            yield from (n for n in ast.walk(child) if not _seeds(n, names))
        else:
            yield from _walk(child, names)


def _forks(node: ast.expr, names: Names) -> bool:
    return isinstance(node, ast.Call) and _dotted(node.func, names) == "torch.random.fork_rng"


def _seeds(node: ast.AST, names: Names) -> bool:
    return isinstance(node, ast.Attribute) and _dotted(node, names).startswith(("torch.random", "torch.manual_seed"))


@dataclass(frozen=True)
class Names:
    """What a file's imports bind.

    Attributes
    ----------
    dotted : name -> the dotted name that it stands for.
    modules : those of the names that are modules.
    """

    dotted: dict[str, str]
    modules: set[str]


def _imported(tree: ast.Module) -> Names:
    """Names that imports bind anywhere in the file."""
    dotted: dict[str, str] = {}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                dotted[alias.asname or first] = alias.name if alias.asname else first
                modules.add(alias.asname or first)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = dotted[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if name in _MODULES or node.module == "suite.train":
                    modules.add(alias.asname or alias.name)
    return Names(dotted, modules)


_BY_WORD = ("getattr", "setattr", "delattr")


def _plain_uses(tree: ast.Module) -> set[int]:
    """Names (ids of their nodes) whose use is plain to see: `name.x`, `getattr(name, "x")`, a call of `getattr`."""
    plain: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name() as owner):
                plain.add(id(owner))
            case ast.Call(func=ast.Name(id=word) as function, args=[owner, *rest]) if word in (*_BY_WORD, "hasattr"):
                plain.add(id(function))
                if rest and isinstance(rest[0], ast.Constant):
                    plain.add(id(owner))
    return plain


def _handed_on(node: ast.AST, names: Names, plain: set[int]) -> Iterator[tuple[str, str]]:
    """A module, or `getattr` and its kin, as a value: what is done with it elsewhere cannot be seen."""
    if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load) or id(node) in plain:
        return
    if node.id in names.modules or node.id in _BY_WORD:
        yield FORBIDDEN, f"hands {node.id} on as a value, which hides what is used of it; name that where it is used"


def _offences(node: ast.AST, names: Names, allowed: Iterable[str]) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Import():
            for alias in node.names:
                yield from _import(alias.name, allowed)
        case ast.ImportFrom(module=str()) if not node.level:
            for alias in node.names:
                if alias.name == "*":
                    yield FORBIDDEN, f"imports * from {node.module}; name what it uses"
                yield from _import(f"{node.module}.{alias.name}", allowed)
        case ast.ImportFrom():
            yield FORBIDDEN, "imports relative to its own place; name the package (baselines.activation.relu)"
        case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
            yield from _assignment(node, names)
        case ast.Attribute(value=ast.Name(id="type"), attr="__setattr__" | "__delattr__"):
            yield _refusal("inside", ast.unparse(node))
        case ast.Attribute(attr="tofile"):
            yield _refusal("files", "tofile")
        case ast.Attribute():
            if node.attr in _DUNDERS:
                yield _refusal("inside", node.attr)
            elif dotted := _dotted(node, names):
                yield from _use(dotted)
        case ast.Name(ctx=ast.Load()) if node.id in names.dotted:
            yield from _use(names.dotted[node.id])
        case ast.Name(ctx=ast.Load()) if node.id in _BUILTINS:
            yield from _use(node.id)
        case ast.Call(func=ast.Name(id="vars"), args=[ast.expr() as owner]) if _dotted(owner, names):
            yield _refusal("inside", ast.unparse(node))
        case ast.Call(func=ast.Name(id="setattr" | "delattr" | "getattr" as name)):
            yield from _attribute_call(name, node, names)
        case ast.Global():
            yield FORBIDDEN, f"keeps state outside the method (global {', '.join(node.names)}); keep it in the object"


def _import(dotted: str, allowed: Iterable[str]) -> Iterator[tuple[str, str]]:
    found = list(_use(dotted))
    if found:
        yield from found
    elif dotted.partition(".")[0] not in allowed:
        package = dotted.partition(".")[0]
        yield FORBIDDEN, f'imports {package}, which methods do not come with; state requires="{package}" if it needs it'


def _use(dotted: str) -> Iterator[tuple[str, str]]:
    """The refusal of a dotted name, by its longest prefix that has one; a module within another is held too."""
    parts = dotted.split(".")
    starts = [i for i, part in enumerate(parts) if i == 0 or part.lstrip("_") not in _HARMLESS_WITHIN]
    for start in starts:
        inner = [parts[start] if start == 0 else parts[start].lstrip("_"), *parts[start + 1 :]]
        for end in range(len(inner), 0, -1):
            prefix = ".".join(inner[:end])
            if prefix in _BY_NAME:
                yield _refusal(_BY_NAME[prefix], ".".join(parts[: start + end]))
                return
    if "__dict__" in parts:
        yield _refusal("inside", dotted)


def _refusal(why: str, name: str) -> tuple[str, str]:
    kind, reason = _WHY[why]
    return kind, f"{name}: {reason}"


def _dotted(node: ast.expr, names: Names) -> str:
    """The dotted name of an attribute chain on an imported name; "" for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in names.dotted:
        return ".".join([names.dotted[node.id], *reversed(parts)])
    return ""


def _assignment(target: ast.expr, names: Names) -> Iterator[tuple[str, str]]:
    """Assigning to an attribute or item of something imported changes it for everybody."""
    inner = target
    while isinstance(inner, ast.Attribute | ast.Subscript):
        inner = inner.value
    if isinstance(inner, ast.Name) and inner.id in names.dotted:
        yield FORBIDDEN, f"changes {ast.unparse(target)}, which is not its own; keep the change in the method"


def _attribute_call(name: str, node: ast.Call, names: Names) -> Iterator[tuple[str, str]]:
    """`setattr` and `getattr` on something imported: by a literal name as if written out, else refused."""
    owner = node.args[0] if node.args else None
    dotted = _dotted(owner, names) if isinstance(owner, ast.Attribute) else ""
    if isinstance(owner, ast.Name) and owner.id in names.dotted:
        dotted = names.dotted[owner.id]
    constant = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else None
    if constant in _DUNDERS:
        yield _refusal("inside", str(constant))
    elif dotted and name != "getattr":
        yield FORBIDDEN, f"changes {dotted}, which is not its own; keep the change in the method"
    elif dotted and isinstance(constant, str):
        yield from _use(f"{dotted}.{constant}")
    elif dotted and dotted.count(".") == 0:
        yield _refusal("inside", f"getattr({dotted}, ...)")
