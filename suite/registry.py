"""The registry: tasks and methods, found in source text without running it.

An entry is a class, function or assignment under a decorator whose name is a
slot (``@activation("golu", ...)``) or ``@task(...)``. The decorator's
arguments are literals and the small facts of `suite.facts` and `suite.space`,
so a scan reads them from the syntax tree; torch is imported only when an
entry is made. Scans are cached by path, size and modification time.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from suite.facts import FACTS, FAMILIES, Metric, Noise, Paper, Tier
from suite.slots import SLOTS
from suite.space import Choice, Domain, IntUniform, LogUniform, Uniform

ENTRY_VARIABLE = "LEVELFIELD_ENTRY"
ENTRY_POINT_GROUP = "levelfield.entries"
_CALLABLES = {**FACTS, **{c.__name__: c for c in (Uniform, LogUniform, IntUniform, Choice)}}
_DECORATORS = {slot.decorator: name for name, slot in SLOTS.items()} | {"define_task": "task"}
_CACHE_VERSION = 1
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")


class RegistryError(Exception):
    """A bad entry; the message names its file and line and says what to do."""


class UnknownName(RegistryError, LookupError):
    """No task or method has this name."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What every entry states, read without importing it."""

    name: str
    path: str
    line: int
    attribute: str
    doc: str = ""
    title: str = ""

    @property
    def summary(self) -> str:
        """First sentence of the docstring, on one line."""
        head = self.doc.strip().split("\n\n")[0]
        return " ".join(head.split())

    @functools.cached_property
    def module(self) -> ModuleType:
        """The imported module that holds the entry."""
        return _import(Path(self.path))

    @property
    def factory(self) -> Any:
        """The registered class or function (imports its module)."""
        registered = _registered(self.module)
        if self.registered_as not in registered:
            raise RegistryError(f"{self.path}:{self.line}: importing the file did not register {self.registered_as!r}")
        return registered[self.registered_as]

    @property
    def registered_as(self) -> str:
        """The name that its decorator states."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class Method(Entry):
    """One registered method.

    Attributes
    ----------
    slot : the slot it fills.
    paper : where its definition comes from.
    defaults, space : hyper-parameters and where to search them; the default lies in the space.
    families : task families it is meant for.
    system : id of the catalogue's system it belongs to (its own name where that is the same).
    confidence : "verified", "known" or "partly": how sure the definition is.
    requires : import name of an extra package it needs, or "".
    surrogate : True where the backward pass is deliberately not the derivative of the forward pass.
    stochastic : True where the forward pass draws random numbers in training mode.
    passes : forward-backward passes one training step costs.
    vmap, compiles : False where torch.func.vmap or torch.compile cannot take it.
    """

    slot: str
    paper: Paper | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Domain] = field(default_factory=dict)
    families: tuple[str, ...] = FAMILIES
    system: str = ""
    confidence: str = "known"
    requires: str = ""
    surrogate: bool = False
    stochastic: bool = False
    passes: float = 1.0
    vmap: bool = True
    compiles: bool = True

    def make(self, *args: Any, **hp: Any) -> Any:
        """Build the method with its defaults, `hp` over them.

        Returns what the slot's signature says: a module for an activation, an
        optimizer for parameter groups, the function with its hyper-parameters
        bound for schedules, losses and inits.
        """
        unknown = set(hp) - set(self.defaults) - _keywords(self.factory)
        if unknown:
            known = ", ".join(sorted(set(self.defaults) | _keywords(self.factory))) or "none"
            raise TypeError(f"{self.name} has no hyper-parameter {sorted(unknown)}; it has: {known}")
        bound = {**self.defaults, **hp}
        if SLOTS[self.slot].bound and not args:
            return functools.partial(self.factory, **bound) if bound else self.factory
        return self.factory(*args, **bound)

    def fits(self, task: TaskInfo) -> bool:
        """Whether the task declares this slot and is of a family the method is meant for."""
        return self.slot in task.slots and task.family in self.families


@dataclass(frozen=True, kw_only=True)
class TaskInfo(Entry):
    """What a task states about itself; `suite.tasks.load` makes the task.

    Attributes
    ----------
    family : one of `suite.facts.FAMILIES`.
    version : bumped by hand whenever anything that moves a score changes.
    metric : the primary statistic.
    unit : the budget's unit ("steps", "gradient evaluations", "generated tokens").
    slots : slots a method may fill here; each reaches every site of the model.
    recipe : slot -> method name, or (method name, hyper-parameters): the frozen reference.
    tiers : sizes by tier name.
    noise : measured noise by tier name.
    lr_scale : factor on every method's default learning rate and its search space.
    data : name of the real data set it needs, or "".
    target : value of the metric that counts as reached, for time-to-target.
    imports : heavy modules it uses; the warm server imports them once.
    requires : import name of an extra package it needs, or ""; its version is part of the task's content hash.
    members : "module:attribute" of a mapping in that package whose keys, with "-" for "_", may take the place of
        the "*" that ends an open task's name; "" for every other task.
    pattern, member : of a task made from an open one: its name, and what took the place of "*".
    """

    family: str
    version: int
    metric: Metric
    slots: tuple[str, ...]
    recipe: Mapping[str, Any]
    tiers: Mapping[str, Tier]
    unit: str = "steps"
    noise: Mapping[str, Noise] = field(default_factory=dict)
    lr_scale: float = 1.0
    data: str = ""
    target: float | None = None
    paper: Paper | None = None
    superseded_by: str = ""
    imports: tuple[str, ...] = ()
    requires: str = ""
    members: str = ""
    pattern: str = ""
    member: str = ""

    @property
    def registered_as(self) -> str:
        return self.pattern or self.name

    def member_names(self) -> list[str] | None:
        """What may take the place of "*" (imports the extra package, not torch); None where that is not installed."""
        if importlib.util.find_spec(self.requires) is None:
            return None
        module, _, attribute = self.members.partition(":")
        return sorted(name.replace("_", "-") for name in getattr(importlib.import_module(module), attribute))

    def of_member(self, member: str) -> TaskInfo:
        """The task that an open task is with `member` in the place of "*"."""
        title = self.title.replace("*", member.replace("-", " "))
        name = self.name.replace("*", member)
        return replace(self, name=name, title=title[:1].upper() + title[1:], pattern=self.name, member=member)


class Registry:
    """All tasks and methods of the installed packages, entry points and extra files.

    Attributes
    ----------
    tasks, methods : entries by name.
    open_tasks : tasks whose name ends in "*", a task for every name of an extra package; in no list of tasks.
    problems : what could not be read.
    """

    def __init__(self, extra: tuple[str, ...] = ()) -> None:
        self.tasks: dict[str, TaskInfo] = {}
        self.open_tasks: dict[str, TaskInfo] = {}
        self.methods: dict[str, Method] = {}
        self.problems: list[RegistryError] = []
        cache = _Cache()
        for path in _sources(extra, self.problems):
            try:
                entries = cache.entries(path)
            except RegistryError as error:
                self.problems.append(error)
                continue
            for entry in entries:
                self._add(entry)
        cache.save()

    def _add(self, entry: Entry) -> None:
        table: dict[str, Any] = self.methods
        if isinstance(entry, TaskInfo):
            table = self.open_tasks if entry.members else self.tasks
        other = table.get(entry.name)
        if other is not None and (other.path, other.line) != (entry.path, entry.line):
            self.problems.append(
                RegistryError(
                    f"{entry.path}:{entry.line}: {entry.name!r} is already registered at "
                    f"{other.path}:{other.line}; choose another name"
                )
            )
            return
        table[entry.name] = entry

    def task(self, name: str) -> TaskInfo:
        found = self.find_task(name)
        return found if found is not None else self._unknown(name, "task", self.task_names(name))

    def method(self, name: str) -> Method:
        return self.methods[name] if name in self.methods else self._unknown(name, "method", self.methods)

    def find_task(self, name: str) -> TaskInfo | None:
        """The task of that name, or None.

        Where the package of an open task is not installed, every name that fits it is taken, so that
        results from elsewhere can be shown; a run then says what is missing.
        """
        if name in self.tasks:
            return self.tasks[name]
        for info in self._open_to(name):
            member, names = name.removeprefix(info.name[:-1]), info.member_names()
            if member in names if names is not None else bool(member) and not set(member) - _NAME:
                return info.of_member(member)
        return None

    def task_names(self, like: str) -> list[str]:
        """Names of all tasks, those of an open task among them where `like` begins as they do."""
        members = [info.name[:-1] + m for info in self._open_to(like) for m in info.member_names() or ()]
        return [*self.tasks, *members]

    def _open_to(self, name: str) -> list[TaskInfo]:
        return [info for info in self.open_tasks.values() if name.startswith(info.name[:-1])]

    def _unknown(self, name: str, kind: str, names: Iterable[str]) -> NoReturn:
        near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"see `levelfield {kind}s`"
        broken = "".join(f"\nnot read: {problem}" for problem in self.problems)
        raise UnknownName(f"no {kind} named {name!r}; {hint}{broken}")


@functools.lru_cache(maxsize=8)
def _registry(extra: tuple[str, ...]) -> Registry:
    return Registry(extra)


def registry() -> Registry:
    """The registry of this process, with the files of ``LEVELFIELD_ENTRY`` in it."""
    extra = os.environ.get(ENTRY_VARIABLE, "")
    return _registry(tuple(p for p in extra.split(os.pathsep) if p))


def rename_task(name: str, alias: str) -> None:
    """Register a task under another name, in this process, instead of its own."""
    known = registry()
    info = known.task(name)
    known.tasks.pop(name, None)
    known.tasks[alias] = replace(info, name=alias, title="", pattern="")
    _registered(info.module)[alias] = info.factory


def add_entry_file(path: str | Path) -> Path:
    """Add a file outside the repository to this process and the workers it starts.

    Raises
    ------
    RegistryError : the file is missing, does not parse or registers nothing.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise RegistryError(f"{path}: no such file; --entry takes the path of a Python file")
    if not scan(file):
        raise RegistryError(f"{path}: registers nothing; decorate a class or function, see `levelfield new --help`")
    known = [p for p in os.environ.get(ENTRY_VARIABLE, "").split(os.pathsep) if p]
    if str(file) not in known:
        os.environ[ENTRY_VARIABLE] = os.pathsep.join([*known, str(file)])
    return file


# ---------------------------------------------------------------- decorators


def decorator_for(slot: str) -> Callable[..., Callable[[Any], Any]]:
    """The decorator that registers a method of `slot` (or a task)."""

    def decorate(name: str, **facts: Any) -> Callable[[Any], Any]:
        def register(target: Any) -> Any:
            module = sys.modules[inspect.currentframe().f_back.f_globals["__name__"]]  # type: ignore[union-attr]
            _registered(module)[name] = target
            return target

        return register

    decorate.__name__ = SLOTS[slot].decorator if slot in SLOTS else slot
    decorate.__doc__ = f"Register {'a task' if slot == 'task' else f'a method of slot {slot!r}'}; see suite.registry."
    return decorate


def _registered(module: ModuleType) -> dict[str, Any]:
    return module.__dict__.setdefault("__levelfield__", {})


def _keywords(factory: Any) -> set[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def _import(path: Path) -> ModuleType:
    name = module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    if name.partition(".")[0] in packages():
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def module_name(path: Path) -> str:
    """Import name of a source file: its own inside the packages, a private one outside."""
    for package in packages():
        for root in package_roots(package):
            if path.is_relative_to(root):
                parts = path.relative_to(root).with_suffix("").parts
                return ".".join((package, *(p for p in parts if p != "__init__")))
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    return f"levelfield_entry_{path.stem}_{digest}"


# ---------------------------------------------------------------- scanning


@functools.cache
def packages() -> tuple[str, ...]:
    """Top-level packages whose files are imported under their own names."""
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    return ("tasks", "baselines", *sorted({point.module.partition(".")[0] for point in points}))


@functools.cache
def package_roots(package: str) -> tuple[Path, ...]:
    spec = importlib.util.find_spec(package)
    return tuple(Path(p).resolve() for p in (spec.submodule_search_locations or ())) if spec else ()


def _sources(extra: tuple[str, ...], problems: list[RegistryError]) -> Iterator[Path]:
    for package in ("tasks", "baselines"):
        for root in package_roots(package):
            yield from _python_files(str(root))
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        files = list(_module_sources(point.module))
        if not files:
            problems.append(
                RegistryError(
                    f"entry point {point.name!r} of group {ENTRY_POINT_GROUP}: no module {point.module!r}; "
                    f"reinstall or remove the package that states it"
                )
            )
        yield from files
    yield from (Path(p).resolve() for p in extra)


def _module_sources(name: str) -> Iterator[Path]:
    """Files of a module or of all of a package, found without importing it or its parents."""
    package, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if spec and spec.origin and not roots and not rest:
        yield Path(spec.origin).resolve()
    for root in roots:
        base = Path(root, *rest).resolve()
        if base.is_dir():
            yield from _python_files(str(base))
        elif base.with_suffix(".py").is_file():
            yield base.with_suffix(".py")


def _python_files(folder: str) -> Iterator[Path]:
    with os.scandir(folder) as found:
        for item in sorted(found, key=lambda e: e.name):
            if item.is_dir() and not item.name.startswith(("__", ".")):
                yield from _python_files(item.path)
            elif item.name.endswith(".py"):
                yield Path(item.path)


def scan(path: Path) -> list[Entry]:
    """Entries of one source file, without running it.

    Raises
    ------
    RegistryError : a syntax error, or a decorator that is not literal; names file and line.
    """
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        raise RegistryError(f"{path}:{error.lineno}: {error.msg}; fix the file so that it parses") from None
    except (OSError, ValueError) as error:
        raise RegistryError(f"{path}: cannot be read: {error}") from None
    names: dict[str, Any] = {}
    entries: list[Entry] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for call in node.decorator_list:
                if (kind := decorator_kind(call)) is not None:
                    doc = ast.get_docstring(node) or ""
                    entries.append(_entry(kind, call, names, path, node.name, doc))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            name = targets[0].id if isinstance(targets[0], ast.Name) else ""
            value = node.value
            if isinstance(value, ast.Call) and (kind := decorator_kind(value.func)) is not None:
                entries.append(_entry(kind, value.func, names, path, name, ""))
            elif name:
                try:
                    names[name] = _literal(value, names, path)
                except RegistryError:
                    continue  # an ordinary assignment, no business of the registry's
    module_doc = ast.get_docstring(tree) or ""
    return [_with_doc(entry, module_doc) for entry in entries]


def _with_doc(entry: Entry, module_doc: str) -> Entry:
    return entry if entry.doc else type(entry)(**{**_fields(entry), "doc": module_doc})


def _fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def decorator_kind(node: ast.expr) -> str | None:
    """The slot, or "task", that a call registers for; None when it is no registering call."""
    if isinstance(node, ast.Call):
        target = node.func
        name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", None)
        return _DECORATORS.get(name or "")
    return None


def _entry(kind: str, node: ast.expr, names: Mapping[str, Any], path: Path, attribute: str, doc: str) -> Entry:
    assert isinstance(node, ast.Call)
    where = f"{path}:{node.lineno}"
    if len(node.args) != 1:
        raise RegistryError(f"{where}: @{kind} takes the entry's name and keyword facts")
    name = _literal(node.args[0], names, path)
    bare = name.removesuffix("*") if isinstance(name, str) and kind == "task" else name
    if not isinstance(bare, str) or not bare or set(bare) - _NAME:
        raise RegistryError(f"{where}: a name is lower-case letters, digits, '-' and '.', got {name!r}")
    facts = {k.arg: _literal(k.value, names, path) for k in node.keywords if k.arg}
    common: dict[str, Any] = {"name": name, "path": str(path), "line": node.lineno, "attribute": attribute, "doc": doc}
    cls: type[Entry] = TaskInfo if kind == "task" else Method
    if kind != "task":
        common["slot"] = kind
    stated = set(cls.__dataclass_fields__) - set(common) - {"pattern", "member"}
    if unknown := set(facts) - stated:
        known = sorted(stated)
        raise RegistryError(f"{where}: {name!r} states unknown facts {sorted(unknown)}; known: {', '.join(known)}")
    for key in ("families", "slots", "imports"):
        if isinstance(facts.get(key), list):
            facts[key] = tuple(facts[key])
    if isinstance(facts.get("noise"), Mapping):
        facts["noise"] = {tier: _noise(stated, where) for tier, stated in facts["noise"].items()}
    try:
        entry = cls(**common, **facts)
    except TypeError as error:
        raise RegistryError(f"{where}: {name!r}: {error}") from None
    _check(entry, where)
    return entry


def _noise(stated: Any, where: str) -> Any:
    """A tier's noise; it may be stated as a plain dict, so that a file need not import `Noise` for it."""
    if not isinstance(stated, Mapping):
        return stated
    try:
        return Noise(**stated)
    except TypeError as error:
        raise RegistryError(f"{where}: noise: {error}") from None


# The type of each fact, and of the values of those that are mappings.
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("families", "slots", "imports"), tuple),
    **dict.fromkeys(("defaults", "space", "recipe", "tiers", "noise"), Mapping),
    **dict.fromkeys(("title", "system", "confidence", "requires", "members", "data", "unit", "superseded_by"), str),
    **dict.fromkeys(("passes", "lr_scale"), int | float),
    **dict.fromkeys(("surrogate", "stochastic", "vmap", "compiles"), bool),
    "version": int,
    "metric": Metric,
    "paper": Paper | None,
    "target": int | float | None,
}
_VALUE_TYPES: dict[str, Any] = {"space": Domain, "tiers": Tier, "noise": Noise}


def _check(entry: Entry, where: str) -> None:
    for fact, value in _fields(entry).items():
        values = value.values() if fact in _VALUE_TYPES and isinstance(value, Mapping) else ()
        odd = [v for v in values if not isinstance(v, _VALUE_TYPES[fact])]
        if odd or not isinstance(value, _TYPES.get(fact, object)):
            wanted = _VALUE_TYPES[fact] if odd else _TYPES[fact]
            wanted = wanted.__name__ if isinstance(wanted, type) else wanted
            raise RegistryError(f"{where}: {entry.name!r}: {fact} takes {wanted}, got {(odd or [value])[0]!r}")
    if isinstance(entry, Method):
        bad = [k for k, domain in entry.space.items() if k not in entry.defaults or entry.defaults[k] not in domain]
        if bad:
            raise RegistryError(f"{where}: {entry.name!r}: the default of {bad} is missing or outside its space")
        if set(entry.families) - set(FAMILIES):
            raise RegistryError(f"{where}: {entry.name!r}: families are {', '.join(FAMILIES)}, got {entry.families}")
    elif isinstance(entry, TaskInfo):
        wrong = set(entry.slots) - set(SLOTS) | set(entry.recipe) - set(SLOTS)
        if wrong or entry.family not in FAMILIES:
            raise RegistryError(
                f"{where}: {entry.name!r}: unknown family or slots {sorted(wrong)}; slots: {', '.join(SLOTS)}"
            )
        if entry.name.endswith("*") != bool(entry.members) or (entry.members and not entry.requires):
            raise RegistryError(
                f"{where}: {entry.name!r}: a name that ends in '*', `members` and `requires` go together: "
                "the star stands for the names of an extra package"
            )


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.BitOr: operator.or_,
}


def _literal(node: ast.expr, names: Mapping[str, Any], path: Path) -> Any:
    """Value of a literal expression; facts and spaces may be called, nothing else."""

    def value(n: ast.expr) -> Any:
        match n:
            case ast.Constant(value=str() | int() | float() | None):
                return n.value
            case ast.Tuple():
                return tuple(value(e) for e in n.elts)
            case ast.List():
                return [value(e) for e in n.elts]
            case ast.Dict():
                merged: dict[Any, Any] = {}
                for k, v in zip(n.keys, n.values, strict=True):
                    merged |= {value(k): value(v)} if k is not None else value(v)
                return merged
            case ast.UnaryOp(op=ast.USub()):
                return -value(n.operand)
            case ast.BinOp() if type(n.op) in _OPERATORS:
                return _OPERATORS[type(n.op)](value(n.left), value(n.right))
            case ast.Name() if n.id in names:
                return names[n.id]
            case ast.Call(func=ast.Name()) if n.func.id in _CALLABLES:  # type: ignore[attr-defined]
                cls = _CALLABLES[n.func.id]  # type: ignore[attr-defined]
                try:
                    return cls(*map(value, n.args), **{k.arg: value(k.value) for k in n.keywords if k.arg})
                except (TypeError, ValueError) as error:
                    raise RegistryError(f"{path}:{n.lineno}: {cls.__name__}: {error}") from None
        raise RegistryError(
            f"{path}:{n.lineno}: {ast.unparse(n)!r} is not a literal; an entry's facts are read without "
            f"running the file, so write them as numbers, strings, dicts or {', '.join(_CALLABLES)}"
        )

    try:
        return value(node)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RegistryError(f"{path}:{node.lineno}: {ast.unparse(node)!r}: {error}") from None


_ENCODED: dict[str, type] = {c.__name__: c for c in (Method, TaskInfo)} | _CALLABLES


def _encode(value: Any) -> Any:
    """JSON form of an entry; classes and tuples are marked so that they come back as they were."""
    if isinstance(value, tuple):
        return {"!": "tuple", "of": [_encode(v) for v in value]}
    if isinstance(value, list):
        return [_encode(v) for v in value]
    if isinstance(value, Mapping):
        return {"!": "dict", "of": [[_encode(k), _encode(v)] for k, v in value.items()]}
    if type(value).__name__ in _ENCODED:
        return {"!": type(value).__name__, "of": {k: _encode(v) for k, v in _fields(value).items()}}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    kind, of = value["!"], value["of"]
    if kind == "tuple":
        return tuple(_decode(v) for v in of)
    if kind == "dict":
        return {_decode(k): _decode(v) for k, v in of}
    if kind == "Choice":
        return Choice(*_decode(of["options"]))
    return _ENCODED[kind](**{k: _decode(v) for k, v in of.items()})


class _Cache:
    """Scans by (path, size, modification time), kept in the user's cache folder.

    The cache only saves time: unreadable or unwritable, it is left out.
    """

    def __init__(self) -> None:
        version = f"{_CACHE_VERSION}-{sys.version_info.major}.{sys.version_info.minor}"
        home = Path(os.environ.get("LEVELFIELD_CACHE") or Path.home() / ".cache" / "levelfield")
        here = hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:12]
        self.file = home / f"registry-{version}-{here}.json"
        own = [Path(__file__).with_name(f"{name}.py").stat() for name in ("facts", "registry", "slots", "space")]
        self.reader = [[stat.st_size, stat.st_mtime_ns] for stat in own]
        self.changed = False
        self.scans: dict[str, Any] = {}
        try:
            stored = json.loads(self.file.read_text())
            if stored["reader"] == self.reader:
                self.scans = dict(stored["scans"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):  # no cache, or a damaged one: scan again
            self.changed = True

    def entries(self, path: Path) -> list[Entry]:
        try:
            stat = path.stat()
        except OSError as error:
            raise RegistryError(f"{path}: cannot be read: {error.strerror}") from None
        stamp = [stat.st_size, stat.st_mtime_ns]
        if (kept := self._kept(path, stamp)) is not None:
            return kept
        entries = scan(path)
        self.changed = True
        self.scans[str(path)] = [stamp, [_encode(entry) for entry in entries]]
        return entries

    def _kept(self, path: Path, stamp: list[int]) -> list[Entry] | None:
        """The file's entries as they were scanned before; None when it has changed or the cache is damaged."""
        try:
            known, encoded = self.scans[str(path)]
            entries = [_decode(entry) for entry in encoded]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return None
        return entries if known == stamp and all(isinstance(entry, Entry) for entry in entries) else None

    def save(self) -> None:
        if not self.changed:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.file.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({"reader": self.reader, "scans": self.scans}))
            os.replace(temporary, self.file)
        except OSError:
            return
