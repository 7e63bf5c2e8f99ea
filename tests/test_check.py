"""``levelfield check`` on methods that are broken: each by its own message and exit code, and none hangs."""

from __future__ import annotations

import contextlib
import functools
import json
import operator
from collections.abc import Callable
from pathlib import Path

import pytest

import suite
from suite.checker import Finding, check_contracts
from suite.cli.check import CODES, TAKES, _targets, smoke_tasks

Levelfield = Callable[..., tuple[int, str, str]]

HEAD = "import os, signal, time\nimport torch\nfrom torch import nn\nfrom suite import activation, optimizer\n"


def body(lines: str, name: str = "broken-one", facts: str = "") -> str:
    """A file with one activation whose methods are `lines`."""
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return f'{HEAD}\n@activation("{name}"{facts})\nclass Broken(nn.Module):\n    """Broken on purpose."""\n{indented}'


def verdict(findings: list[Finding]) -> Finding:
    """The first thing that is wrong."""
    return next(f for f in findings if f.verdict != "passed")


# ---------------------------------------------------------------- broken contracts, in this process

CONTRACTS = {
    "no docstring": (
        "def forward(self, x): return x",
        "described",
        "has no docstring",
    ),
    "wrong shape": (
        "def forward(self, x): return x.flatten()",
        "keeps_shape_and_dtype",
        r"takes \(6, 8\) to \(48,\); expected \(6, 8\)",
    ),
    "twice the width unsaid": (
        "def forward(self, x): return torch.cat([x, x], -1)",
        "keeps_shape_and_dtype",
        r"takes \(6, 8\) to \(6, 16\)",
    ),
    "float64 only": (
        "def forward(self, x): return x.double().sin()",
        "keeps_shape_and_dtype",
        "takes torch.float32 to torch.float64; keep the input's dtype",
    ),
    "not a module": (
        "def __new__(cls): return 3",
        "keeps_shape_and_dtype",
        "make.. gives a int, not a torch.nn.Module",
    ),
    "in place": (
        "def forward(self, x): return x.relu_()",
        "leaves_input_alone",
        "changes its input in place",
    ),
    "not a number at 0": (
        "def forward(self, x): return x * x / x",
        "finite_where_finite",
        r"is not finite on \[-50, 50\] in torch.float32 .first at x = 0.0",
    ),
    "overflow": (
        "def forward(self, x): return x * torch.exp(x * x)",
        "finite_where_finite",
        r"is not finite on \[-50, 50\]",
    ),
    "gradient overflow": (
        "def forward(self, x): return torch.where(x > 0, x, torch.sqrt(x.clamp(min=0.0)))",
        "finite_where_finite",
        "has a gradient that is not finite",
    ),
    "random": (
        "def forward(self, x): return x + torch.rand_like(x)",
        "deterministic_in_eval",
        "gives two answers for one input in eval mode: it draws random numbers",
    ),
    "random in training, unsaid": (
        "def forward(self, x): return x + torch.rand_like(x) if self.training else x",
        "deterministic_in_eval",
        "in train mode: it draws random numbers; state stochastic=True",
    ),
    "hidden global state": (
        "calls = []\ndef forward(self, x):\n    self.calls.append(1)\n    return x * len(self.calls)",
        "deterministic_in_eval",
        "gives two answers for one input in eval mode: it remembers earlier calls",
    ),
    "remembers by identity": (  # keeps its inputs alive: an id that is used again would break an earlier contract
        "known = {}\ndef forward(self, x): return self.known.setdefault((id(x), self.training), (x, x.sin()))[1]",
        "answers_by_value",
        "gives an old answer for a tensor whose values have changed; remember nothing by identity",
    ),
    "state outside the state dict": (
        "def __init__(self):\n    super().__init__()\n    self.a = torch.rand(()).item()\n"
        "def forward(self, x): return self.a * x",
        "state_round_trips",
        "does not come back from its state dict",
    ),
    "wrong gradient": (
        "def forward(self, x): return x.detach() * x",
        "gradient_is_the_derivative",
        "its gradient is not the derivative",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRACTS)
def test_a_broken_contract_is_told_apart_by_name_and_message(case: str, entry: Callable[..., Path]) -> None:
    from suite.contract import ContractError, contracts

    lines, broken, message = CONTRACTS[case]
    text = body(lines)
    if case == "no docstring":
        text = text.replace('    """Broken on purpose."""\n', "")
    entry(text)
    method = suite.method("broken-one")
    outcome: dict[str, str] = {}
    for contract in contracts(method):
        try:
            contract(method)
        except ContractError as error:
            outcome[contract.__name__] = str(error)
            break
    assert list(outcome) == [broken]
    with pytest.raises(ContractError, match=message):
        raise ContractError(outcome[broken])


OPTIMIZERS = {
    "not an optimizer": ("return groups", "is_an_optimizer", "gives a list, not a torch.optim.Optimizer"),
    "forgets a group": ("return torch.optim.SGD(groups[:1], lr=lr)", "is_an_optimizer", "every parameter exactly once"),
    "explodes": ("return torch.optim.SGD(groups, lr=1e30)", "steps_are_finite_and_move", "leaves the finite numbers"),
    "stands still": ("return torch.optim.SGD(groups, lr=0.0)", "steps_are_finite_and_move", "does not move any weight"),
    "random": (
        "import random\nreturn torch.optim.SGD(groups, lr=lr * random.random())",
        "optimizer_is_deterministic",
        "gives two trajectories from one start",
    ),
    "moves what has no gradient": (
        "class Eager(torch.optim.SGD):\n"
        "    @torch.no_grad()\n"
        "    def step(self, closure=None):\n"
        "        super().step()\n"
        "        for g in self.param_groups:\n"
        "            for p in g['params']: p.mul_(0.99)\n"
        "return Eager(groups, lr=lr)",
        "skips_missing_gradients",
        "moves a parameter that has no gradient",
    ),
    "forgets on resuming": (
        "class Forgetful(torch.optim.SGD):\n"
        "    count = 0\n"
        "    def step(self, closure=None):\n"
        "        self.count += 1\n"
        "        for g in self.param_groups: g['lr'] = 0.1 / self.count\n"
        "        super().step()\n"
        "return Forgetful(groups, lr=lr)",
        "optimizer_resumes",
        "does not go on from its state dict",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_a_broken_optimizer_is_told_apart_by_name_and_message(case: str, entry: Callable[..., Path]) -> None:
    from suite.contract import ContractError, contracts

    lines, broken, message = OPTIMIZERS[case]
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    facts = "defaults={'lr': 0.1}"
    entry(f"{HEAD}@optimizer('broken-one', {facts})\ndef broken(groups, lr):\n    '''Broken on purpose.'''\n{indented}")
    method = suite.method("broken-one")
    for contract in contracts(method):
        if contract.__name__ == broken:
            with pytest.raises(ContractError, match=message):
                contract(method)
            return
        contract(method)
    raise AssertionError(f"no contract {broken}")


# Other slots: decorator, base class ("" for a function), arguments, body, kind, what the message says.
OTHERS = {
    "schedule without a number": ("schedule", "", "step, total", "pass", "broken", "gives a NoneType, not a number"),
    "loss without a tensor": ("loss", "", "logits, targets", "return 0.0", "broken", "gives a float, not a tensor"),
    "constant loss": ("loss", "", "x, y", "return torch.zeros(())", "broken", "does not depend on the logits"),
    "loss that writes": (
        "loss", "", "x, y", "y.zero_()\nreturn nn.functional.cross_entropy(x, y)", "in-place", "changes the targets",
    ),
    "norm that is none": ("norm", "", "features", "return 3", "broken", "gives a int, not a torch.nn.Module"),
    "norm that writes": ("norm", "", "features", "return nn.ReLU(inplace=True)", "in-place", "its input in place"),
    "norm in float64": (
        "norm", "", "features",
        "class N(nn.Module):\n    def forward(self, x): return x.double()\nreturn N()", "dtype", "to torch.float64",
    ),
    "constant objective": (
        "objective", "Objective", "", "def loss(self, batch, logp): return torch.zeros(())", "broken",
        "does not depend on the log-probabilities",
    ),
    "block of another width": (
        "block", "", "features, hidden, activation", "return nn.Linear(features, hidden)", "shape", "to (2, 6, 16)",
    ),
    "attention that looks ahead": (
        "attention", "", "features, heads, causal",
        "class M(nn.Module):\n    def forward(self, x): return x + x.mean(1, keepdim=True)\nreturn M()", "broken",
        "reads later tokens",
    ),
    "penalty that is no function": ("regularizer", "", "model", "return 0.0", "broken", "a float, not a function"),
    "penalty of three numbers": ("regularizer", "", "model", "return lambda: torch.ones(3)", "broken", "shape (3,)"),
    "average of unknown names": (
        "averaging", "Averager", "", "def weights(self): return {'a': torch.ones(1)}", "broken", "named 'a', which",
    ),
    "average that is not finite": (
        "averaging", "Averager", "", "def weights(self): return {n: t / 0 for n, t in self.tensors().items()}",
        "not-finite", "values that are not finite",
    ),
    "data beyond the data": (
        "data_method", "DataMethod", "", "def subset(self, x, y, generator): return torch.arange(99)", "broken",
        "indices beyond the examples",
    ),
    "data without rows": (
        "data_method", "DataMethod", "", "def subset(self, x, y, generator): return torch.arange(0)", "broken",
        "keeps no example",
    ),
    "data by chance": (
        "data_method", "DataMethod", "", "def subset(self, x, y, generator): return torch.randperm(64)",
        "nondeterministic", "draws from elsewhere",
    ),
}  # fmt: skip
BASES = {"Objective": "suite.train.objective", "Averager": "suite.train.average", "DataMethod": "suite.train.data"}


@pytest.mark.parametrize("case", OTHERS)
def test_a_broken_method_of_another_slot_is_told_what_is_wrong(case: str, entry: Callable[..., Path]) -> None:
    from suite.contract import ContractError, contracts

    decorator, base, arguments, lines, kind, message = OTHERS[case]
    head = f"import torch\nfrom torch import nn\nfrom suite import {decorator}\n"
    head += f"from {BASES[base]} import {base}\n" if base else ""
    head += f"@{decorator}('broken-one')\n"
    head += f"class Broken({base}):\n" if base else f"def broken({arguments}):\n"
    entry(head + "    '''Broken on purpose.'''\n" + "".join(f"    {line}\n" for line in lines.splitlines()))
    method = suite.method("broken-one")
    held = [functools.partial(contract, method) for contract in contracts(method)]
    with pytest.raises(ContractError) as told:
        list(map(operator.call, held))
    assert (told.value.kind, message in str(told.value)) == (kind, True), told.value


def test_a_default_that_the_factory_does_not_take_is_named(entry: Callable[..., Path]) -> None:
    from suite.contract import ContractError, described

    entry(body("def __init__(self, a): super().__init__()", facts=", defaults={'b': 1}"))
    with pytest.raises(ContractError, match=r"its defaults name \['b'\], which its factory does not take"):
        described(suite.method("broken-one"))


# ---------------------------------------------------------------- processes that go wrong

PROCESSES = {
    "raises on import": ("raise OSError('no disk')", "broken", "raises OSError: no disk", "described"),
    "raises": ("def forward(self, x): raise KeyError('x')", "broken", "raises KeyError: 'x'", "keeps_shape_and_dtype"),
    "asks for 100 GB": (
        "def forward(self, x): return x + torch.ones(100 * 2**30, dtype=torch.uint8).sum()",
        "memory",
        "asked for more than 4 GiB of memory",
        "keeps_shape_and_dtype",
    ),
    "kills its own process": (
        "def forward(self, x): os.kill(os.getpid(), signal.SIGKILL)",
        "crashed",
        "ended the process with signal 9",
        "keeps_shape_and_dtype",
    ),
    "leaves as if all were well": (
        "def forward(self, x): os._exit(0)",
        "crashed",
        "ended the process with exit code 0",
        "keeps_shape_and_dtype",
    ),
    "prints without end": (
        "def forward(self, x):\n    while True: print('y' * 10**6)",
        "output",
        "wrote more than 64 MiB of output",
        "keeps_shape_and_dtype",
    ),
    "prints without end, hides the error": (
        "def forward(self, x):\n    try:\n        while os.write(1, b'y' * 9999): 0\n    except OSError: os._exit(5)",
        "output",
        "wrote more than 64 MiB of output",
        "keeps_shape_and_dtype",
    ),
    "never returns": (
        "def forward(self, x):\n    while True: time.sleep(1)",
        "timeout",
        "did not finish within 25 s",
        None,
    ),
    "starts a process": (
        "def forward(self, x):\n    os.system('sleep 600')\n    return x",
        "forbidden",
        "reaches out of the method (os.system)",
        "keeps_shape_and_dtype",
    ),
    "opens a socket behind our back": (
        "def forward(self, x):\n    try: __import__('socket').create_connection(('127.0.0.1', 9), 1)\n"
        "    except OSError: pass\n    return x",
        "network",
        "opens a socket (socket.",
        "keeps_shape_and_dtype",
    ),
    "writes a file": (
        "def forward(self, x):\n    open('/dev/null', 'w').close()\n    return x",
        "forbidden",
        "reaches out of the method (open)",
        "keeps_shape_and_dtype",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", PROCESSES)
def test_a_method_that_goes_wrong_ends_as_a_finding(case: str, entry: Callable[..., Path]) -> None:
    lines, wanted, message, name = PROCESSES[case]
    entry(body(lines))
    findings = check_contracts("broken-one", seconds=25.0)
    found = verdict(findings)
    assert (found.verdict, message in found.message) == (wanted, True), found
    assert name is None or found.name == name
    assert [f for f in findings if f.verdict == "passed" and f.name == name] == []


@pytest.mark.slow
def test_what_a_method_prints_is_no_finding(entry: Callable[..., Path]) -> None:
    forged = {"name": "described", "verdict": "broken", "message": "forged", "end": True}
    text = (
        "def forward(self, x):\n    print('y' * 100_000)\n    print("
        + repr(json.dumps(forged))
        + ", flush=True)\n    return x"
    )
    entry(body(text))
    findings = check_contracts("broken-one")
    assert {f.verdict for f in findings} == {"passed"}
    assert findings[0].name == "described"


@pytest.mark.slow
def test_nothing_that_a_checked_method_started_survives(
    entry: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECK_MARK", str(tmp_path))
    entry(body("def forward(self, x):\n    while True: time.sleep(1)"))
    assert verdict(check_contracts("broken-one", seconds=20.0)).verdict == "timeout"
    mark = f"CHECK_MARK={tmp_path}".encode()
    alive = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            alive += [process.name] if mark in (process / "environ").read_bytes() else []
    assert alive == []


# ---------------------------------------------------------------- the command


def test_exit_codes_differ_by_what_went_wrong() -> None:
    assert len(set(CODES.values())) == len(CODES)
    assert CODES["passed"] == 0
    assert 2 not in CODES.values()  # a file or name that cannot be read


def test_a_file_that_does_not_parse_is_refused_at_once(levelfield: Levelfield, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(body("def forward(self, x: return x"))
    code, out, err = levelfield("check", file)
    assert (code, out) == (2, "")
    assert f"{file}:9: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("name", "what"), [("", "is a folder"), ("none.py", "is not there"), ("none", "is not there")])
def test_what_is_no_file_is_told_apart(name: str, what: str, levelfield: Levelfield, tmp_path: Path) -> None:
    code, _, err = levelfield("check", tmp_path / name)
    assert (code, err) == (2, f"levelfield: {tmp_path / name} {what}; {TAKES}\n")


def test_a_file_that_takes_a_registered_name_is_refused_at_once(levelfield: Levelfield, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(body("pass", name="relu"))
    code, _, err = levelfield("check", file)
    assert code == 2
    assert "'relu' is already registered at" in err


def test_all_methods_of_a_file_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVELFIELD_ENTRY", "")
    file = tmp_path / "mine.py"
    file.write_text(body("pass", name="one") + body("pass", name="two"))
    assert [m.name for m in _targets(str(file))] == ["one", "two"]


def test_smoke_runs_are_made_on_one_embedded_task_of_each_family_that_fits() -> None:
    for method in suite.methods():
        chosen = smoke_tasks(method)
        families = [t.family for t in chosen]
        assert len(families) == len(set(families))
        assert set(families) == {
            t.family for t in suite.tasks() if method.fits(t) and not t.data and "smoke" in t.tiers
        }
        assert all(not t.data for t in chosen)


# Twelve ways to be broken that a newcomer should be told of: what to write, the verdict, what the command says.
BROKEN = {
    "syntax error": ("def forward(self, x: return x", "", "mine.py:9: "),
    "reads the clock": (
        "import time\ndef forward(self, x): return x * min(1.0, time.time())",
        "clock",
        "FAIL source: mine.py:9: time: reads the clock",
    ),
    "opens a socket": (
        "from socket import create_connection\ndef forward(self, x): return x",
        "network",
        "FAIL source: mine.py:9: socket: reaches for the network",
    ),
    "wrong shape": (
        "def forward(self, x): return x.flatten()",
        "shape",
        "FAIL keeps shape and dtype: takes (6, 8) to (48,)",
    ),
    "in place": ("def forward(self, x): return x.relu_()", "in-place", "changes its input in place"),
    "non-deterministic": (
        "def forward(self, x): return x + torch.rand_like(x)",
        "nondeterministic",
        "it draws random numbers",
    ),
    "float64 only": ("def forward(self, x): return x.double().sin()", "dtype", "takes torch.float32 to torch.float64"),
    "not a number at 0": ("def forward(self, x): return x * x / x", "not-finite", "first at x = 0.0"),
    "hidden global state": (
        "calls = []\ndef forward(self, x):\n    self.calls.append(1)\n    return x * len(self.calls)",
        "state",
        "it remembers earlier calls",
    ),
    "prints without end": (
        "def forward(self, x):\n    while True: print('y' * 10**6)",
        "output",
        "wrote more than 64 MiB of output",
    ),
    "never returns": ("def forward(self, x):\n    while True: pass", "timeout", "did not finish within 40 s"),
    "allocates 100 GB": (
        "def forward(self, x): return x + torch.ones(100 * 2**30, dtype=torch.uint8).sum()",
        "memory",
        "asked for more than 4 GiB of memory",
    ),
}
QUICK = ("syntax error", "reads the clock", "opens a socket", "wrong shape")


def plain(lines: str, facts: str = "") -> str:
    """An activation that imports nothing which a method has no use for."""
    return body(lines, facts=facts).replace("import os, signal, time\n", "\n")


@pytest.mark.parametrize("case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in BROKEN])
def test_each_way_to_be_broken_has_its_message_and_its_exit_code(
    case: str, levelfield: Levelfield, tmp_path: Path
) -> None:
    lines, wanted, message = BROKEN[case]
    file = tmp_path / "mine.py"
    file.write_text(plain(lines))
    code, out, err = levelfield("check", file)
    assert code == (CODES[wanted] if wanted else 2), out + err
    assert message in (out if wanted else err)
    assert f"broken-one: FAILED ({wanted})" in out or not wanted
    assert "Traceback" not in out + err


def test_the_twelve_ways_have_twelve_exit_codes() -> None:
    assert len({CODES.get(wanted, 2) for _, wanted, _ in BROKEN.values()}) == len(BROKEN) == 12


@pytest.mark.slow
def test_a_method_that_looks_at_the_tasks_name_is_told_apart(levelfield: Levelfield, tmp_path: Path) -> None:
    known = sorted(t.name for t in suite.tasks("pde"))
    file = tmp_path / "mine.py"
    file.write_text(
        "from suite import pde_method\nfrom suite.train.pinn import PdeMethod\n"
        f"KNOWN = {known!r}\n@pde_method('knows-all', families=('pde',))\nclass Knows(PdeMethod):\n"
        '    """Another loss for tasks it knows."""\n    def penalty(self, residual):\n'
        "        return residual.square() * (2.0 if self.problem.target.name in KNOWN else 1.0)\n"
    )
    code, out, err = levelfield("check", file)
    assert code == CODES["name"], out + err
    assert "when that has another name: it looks at what it runs on" in out


@pytest.mark.slow
def test_a_sound_method_passes_the_command(levelfield: Levelfield) -> None:
    code, out, err = levelfield("check", "golu", "--json")
    assert code == 0, out + err
    (report,) = json.loads(out)
    assert report["verdict"] == "passed"
    assert {row["status"] for row in report["smoke"]} == {"ok"}
    assert len(report["smoke"]) == len(smoke_tasks(suite.method("golu")))


@pytest.mark.slow
def test_a_method_whose_runs_differ_is_told_apart(levelfield: Levelfield, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = """def __init__(self):
    super().__init__()
    self.calls = 0
def forward(self, x):
    self.calls += self.training
    noise = id(object()) % 997 / 997 if self.calls > 9 else 0.0
    return x.relu() * (1 + noise)"""
    file.write_text(plain(text, facts=', families=("vision",)'))
    code, out, _ = levelfield("check", file)
    assert code == CODES["nondeterministic"], out
    assert "FAILED (nondeterministic)" in out
