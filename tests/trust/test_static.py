"""What a method's source may not contain is found without running it, with the line and a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

import suite
from suite.registry import RegistryError
from suite.trust.static import CLOCK, FORBIDDEN, NETWORK, Offence, check_files, check_method

REFUSED = {
    "import time": CLOCK,
    "import time as t\nt.time()": CLOCK,
    "from time import perf_counter": CLOCK,
    "import torch\ntorch.cuda.Event(enable_timing=True)": CLOCK,
    "import torch\nx = getattr(torch.cuda, 'Event')": CLOCK,
    "import datetime": CLOCK,
    "import socket": NETWORK,
    "from urllib.request import urlopen": NETWORK,
    "import torch\ntorch.hub.load('a', 'b')": NETWORK,
    "import torch.distributed as dist": NETWORK,
    "import os": FORBIDDEN,
    "import sys": FORBIDDEN,
    "import subprocess": FORBIDDEN,
    "import threading": FORBIDDEN,
    "import ctypes": FORBIDDEN,
    "import gc": FORBIDDEN,
    "import inspect": FORBIDDEN,
    "import pickle": FORBIDDEN,
    "import numpy as np\nnp.load('a.npy')": FORBIDDEN,
    "import torch\ntorch.load('a.pt')": FORBIDDEN,
    "from torch import save": FORBIDDEN,
    "open('/etc/passwd')": FORBIDDEN,
    "eval('1')": FORBIDDEN,
    "exec('1')": FORBIDDEN,
    "__import__('os')": FORBIDDEN,
    "import importlib": FORBIDDEN,
    "().__class__.__base__.__subclasses__()": FORBIDDEN,
    "f = (lambda: 0).__globals__": FORBIDDEN,
    "import torch\ng = getattr(torch, '__builtins__')": FORBIDDEN,
    "import torch\ng = getattr(torch, 'lo' + 'ad')": FORBIDDEN,
    "import torch\ntorch.set_num_threads(8)": FORBIDDEN,
    "import torch\ntorch.manual_seed(0)": FORBIDDEN,
    "from torch import manual_seed as m\nm(0)": FORBIDDEN,
    "import random\nrandom.seed(0)": FORBIDDEN,
    "import torch\ntorch.backends.cudnn.benchmark = True": FORBIDDEN,
    "import torch.nn.functional as F\nF.cross_entropy = None": FORBIDDEN,
    "import torch\ntorch.nn.functional.relu = None": FORBIDDEN,
    "from torch import nn\nsetattr(nn, 'ReLU', None)": FORBIDDEN,
    "from suite.train import loop\nloop.Trainer.step = None": FORBIDDEN,
    "from suite.train.loop import Trainer\nTrainer.step, x = None, 1": FORBIDDEN,
    "import tasks.vision.digits_cnn": FORBIDDEN,
    "from suite import task": FORBIDDEN,
    "import suite\nsuite.task('digits-cnn')": FORBIDDEN,
    "from suite.registry import registry": FORBIDDEN,
    "from suite.seeds import seed_for": FORBIDDEN,
    "def f():\n    global known\n    known = 1": FORBIDDEN,
    "from . import helper": FORBIDDEN,
    "import random\nrandom._os.system('x')": FORBIDDEN,
    "from contextlib import sys": FORBIDDEN,
    "import torch.nn as nn\nnn.modules.module.torch.save(1, 'x')": FORBIDDEN,
    "from suite.train.loop import time": CLOCK,
    "from suite.train.warmstart import cache": FORBIDDEN,
    "from torch import *": FORBIDDEN,
    "import torch\nt = torch\nt.save(1, 'x')": FORBIDDEN,
    "import torch\ndef f(t=torch):\n    t.save(1, 'x')": FORBIDDEN,
    "import torch\nmatch torch:\n    case object(save=f):\n        f(1, 'x')": FORBIDDEN,
    "import functools, torch\nfunctools.partial(getattr, torch.nn)": FORBIDDEN,
    "put = setattr": FORBIDDEN,
    "from operator import attrgetter": FORBIDDEN,
    "from torch import nn\nvars(nn)['Linear']": FORBIDDEN,
    "import torch\nvars(torch.nn.functional).update(relu=None)": FORBIDDEN,
    "import torch.nn.functional as F\nF.__dict__['relu']": FORBIDDEN,
    "import torch.nn.functional as F\nfor F.relu in (None,):\n    pass": FORBIDDEN,
    "import torch.nn.functional as F\nwith open_one as F.relu:\n    pass": FORBIDDEN,
    "from torch import nn\ntype.__setattr__(nn.Linear, 'forward', None)": FORBIDDEN,
    "from torch.overrides import TorchFunctionMode": FORBIDDEN,
    "def f(x):\n    x.numpy().tofile('a')": FORBIDDEN,
    "import some_package": FORBIDDEN,
}
FINE = [
    "import math, functools, itertools, copy\nfrom collections.abc import Callable",
    "import torch\nfrom torch import nn\nimport torch.nn.functional as F\ny = F.relu(torch.ones(1))",
    "import numpy as np\nrng = np.random.default_rng(0)",
    "import random\nrng = random.Random(0)",
    "from suite import activation, Paper\nfrom suite.train.roles import named_parameters",
    "import baselines.activation.channels",
    "import torch\nwith torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)",
    "import torch\nwith torch.no_grad():\n    x = torch.ones(1)\n    x.grad = None",
    "class A:\n    def f(self, group):\n        self.time = 1\n        group['lr'] = self.time\n        time = 2\n        return time",
    "def f(x):\n    return getattr(x, 'width_factor', 1)",
    "import numpy as np\nnp.select([np.ones(1) > 0], [1.0])",
    "import scipy.signal\nscipy.signal.lfilter([1.0], [1.0], [1.0])",
    "import torch\nfrom torch import nn\nx = getattr(torch, 'float32') if hasattr(nn, 'RMSNorm') else None",
    "class A:\n    def f(self, name):\n        setattr(self, name, vars(self))\n        self.rows[0] = self.__dict__",
]


def offences(text: str, folder: Path) -> list[Offence]:
    file = folder / "mine.py"
    file.write_text(text)
    return check_files([file])


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_method_has_no_use_for_is_refused(text: str, tmp_path: Path) -> None:
    found = offences(text, tmp_path)
    assert [o.kind for o in found][:1] == [REFUSED[text]], found
    assert str(found[0]).startswith("mine.py:")


@pytest.mark.parametrize("text", FINE)
def test_ordinary_code_is_fine(text: str, tmp_path: Path) -> None:
    assert offences(text, tmp_path) == []


def test_the_line_and_the_reason_are_told(tmp_path: Path) -> None:
    (found,) = offences("import torch\n\n\nx = torch.load('a')\n", tmp_path)
    assert str(found) == "mine.py:4: torch.load: touches files; a method keeps its state in tensors and its state dict"


def test_every_registered_method_is_fine() -> None:
    """A rule that one of them breaks is a wrong rule, or a wrong method."""
    assert {m.name: check_method(m) for m in suite.methods() if check_method(m)} == {}


def test_a_package_that_a_method_states_may_be_imported(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import some_package")
    assert check_files([file], ["some_package"]) == []


@pytest.mark.parametrize("text", ["def f(:", "x = '\0'"])
def test_what_does_not_parse_is_one_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"mine\.py:1: "):
        offences(text, tmp_path)


def test_nothing_of_the_source_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    assert offences(f"open({str(mark)!r}, 'w')\nraise SystemExit", tmp_path)
    assert not mark.exists()
