"""A gate's verdicts as Markdown, JSON, JUnit XML, GitHub annotations and an exit code."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.etree import ElementTree

from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict
from suite.plain import finite

EXIT = {PASS: 0, FAIL: 1, INCONCLUSIVE: 4}
_ORDER = {FAIL: 0, INCONCLUSIVE: 1, PASS: 2}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Report:
    """All verdicts of one gate.

    Attributes
    ----------
    verdicts : one a cell and question.
    notes : what a reader has to know beside them.
    seconds : wall time of the whole.
    title : what was held.
    """

    verdicts: Sequence[Verdict]
    notes: Sequence[str] = ()
    seconds: float = math.nan
    title: str = "levelfield gate"
    kinds: Sequence[str] = field(default=("task", "method"))

    @property
    def verdict(self) -> str:
        """FAIL if any failed, else INCONCLUSIVE if any is open, else PASS; no verdict at all is a failure."""
        seen = {v.verdict for v in self.verdicts}
        return FAIL if FAIL in seen or not seen else INCONCLUSIVE if INCONCLUSIVE in seen else PASS

    @property
    def exit_code(self) -> int:
        return EXIT[self.verdict]

    @property
    def ordered(self) -> list[Verdict]:
        """What failed first, then what is open."""
        return sorted(self.verdicts, key=lambda v: (_ORDER[v.verdict], v.tier, v.task, v.method, v.question))

    @property
    def rates(self) -> dict[str, float]:
        """False-alarm rate of the quality questions together, and their power a cell; NaN where no noise was met.

        Seeds are taken as independent between base and head (pairing only makes
        both better), and cells as independent of each other.
        """
        noisy = [v for v in self.verdicts if v.question == "quality" and math.isfinite(v.power_2)]
        quiet = math.prod(1.0 - v.false_alarm for v in noisy) if noisy else math.nan
        power = [sum(getattr(v, k) for v in noisy) / len(noisy) if noisy else math.nan for k in ("power_2", "power_3")]
        return {"false_alarm": 1.0 - quiet, "power_2": power[0], "power_3": power[1]}


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; what is not finite is null."""
    facts = {"verdict": report.verdict, "seconds": report.seconds, **report.rates}
    return dict(finite(facts | {"cells": [asdict(v) for v in report.ordered], "notes": list(report.notes)}))


def markdown(report: Report) -> str:
    """A summary for a pull request: the verdict, what failed or is open, then what passed, then what it all means."""
    counts = Counter(v.verdict for v in report.verdicts)
    lines = [f"## {report.title}: {report.verdict}", ""]
    lines.append(
        ", ".join(f"{counts[k]} {k}" for k in (PASS, FAIL, INCONCLUSIVE) if counts[k]) or "nothing was compared"
    )
    told = [v for v in report.ordered if v.verdict != PASS]
    passed = [v for v in report.ordered if v.verdict == PASS]
    if told:
        lines += ["", *_table(report, told)]
    if passed:
        lines += ["", f"<details{'' if told else ' open'}><summary>{len(passed)} passed</summary>", ""]
        lines += [*_table(report, passed), "", "</details>"]
    lines += ["", *(f"- {_escape(line)}" for line in [*_statements(report), *report.notes])]
    return "\n".join(lines) + "\n"


def _table(report: Report, verdicts: Sequence[Verdict]) -> Iterator[str]:
    names = [
        *report.kinds,
        "question",
        "verdict",
        "effect (+ is worse)",
        "interval",
        "margin",
        "detectable",
        "s",
        "rule",
    ]
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for v in verdicts:
        interval = "" if math.isnan(v.low) else f"[{_number(v.low)}, {_number(v.high)}]"
        cost = "" if math.isnan(v.seconds) else f"{v.seconds:.1f}"
        cells = [f"{v.task} ({v.tier})" if v.tier else v.task, v.method, v.question, v.verdict, _number(v.effect)]
        cells += [interval, _number(v.margin), _number(v.detectable), cost, v.rule]
        yield "| " + " | ".join(_escape(c) for c in cells) + " |"


def _statements(report: Report) -> list[str]:
    """What the numbers mean: error rates, detectable effects, cost."""
    lines, rates = [], report.rates
    if math.isfinite(rates["false_alarm"]):
        lines.append(
            f"quality: if nothing changed, {rates['false_alarm']:.1%} of such gates FAIL; a true shift of 2 / 3 seed "
            f"standard deviations FAILs in {rates['power_2']:.0%} / {rates['power_3']:.0%} of the cases a cell "
            "(seeds as if unpaired: the worst case)"
        )
    if any(math.isfinite(v.detectable) for v in report.verdicts):
        lines.append("detectable: the smallest true effect that FAILs, with 80% power where there is noise")
    if math.isfinite(report.seconds):
        lines.append(f"cost: {report.seconds:.0f} s")
    return lines


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.4g}"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def junit(report: Report) -> str:
    """JUnit XML: a test case a cell and question; FAIL is a failure, INCONCLUSIVE is skipped with its reason."""
    counts = Counter(v.verdict for v in report.verdicts)
    totals = {"tests": len(report.verdicts), "failures": counts[FAIL], "skipped": counts[INCONCLUSIVE], "errors": 0}
    stated = {"name": report.title, **{k: str(v) for k, v in totals.items()}}
    if math.isfinite(report.seconds):
        stated["time"] = f"{report.seconds:.3f}"
    suites = ElementTree.Element("testsuites")
    cases = ElementTree.SubElement(suites, "testsuite", stated)
    for v in report.ordered:
        where = ".".join(filter(None, (v.task, v.tier)))
        case = ElementTree.SubElement(cases, "testcase", classname=_xml(where), name=_xml(f"{v.method}: {v.question}"))
        if math.isfinite(v.seconds):
            case.set("time", f"{v.seconds:.3f}")
        if v.verdict != PASS:
            kind = "failure" if v.verdict == FAIL else "skipped"
            ElementTree.SubElement(case, kind, message=_xml(v.rule)).text = _xml(_facts(v))
    if not report.verdicts:
        case = ElementTree.SubElement(cases, "testcase", classname=report.title, name="cells")
        ElementTree.SubElement(case, "failure", message="nothing was compared")
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold; the writer escapes the rest."""
    return _NOT_XML.sub("\ufffd", text)


def _facts(v: Verdict) -> str:
    interval = "" if math.isnan(v.low) else f" [{_number(v.low)}, {_number(v.high)}]"
    return f"effect {_number(v.effect) or 'none'}{interval}, margin {_number(v.margin) or 'none'}: {v.rule}"


def github(report: Report) -> list[str]:
    """GitHub workflow commands: an error a FAIL, a warning an INCONCLUSIVE."""
    if not report.verdicts:
        return [f"::error title={_property(report.title)}::nothing was compared"]
    level = {FAIL: "error", INCONCLUSIVE: "warning"}
    return [
        f"::{level[v.verdict]} title={_property(f'{report.title}: {v.question}')}::"
        + _data(f"{v.task}, {v.method}: {_facts(v)}")
        for v in report.ordered
        if v.verdict != PASS
    ]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
