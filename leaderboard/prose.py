"""Docstrings as HTML: numpy-style sections, code, lists, and formulas set as formulas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from markupsafe import Markup

_RULE = re.compile(r"-{3,}\s*$")
_CODE = re.compile(r"``([^`]+)``|`([^`]+)`")
_BULLET = re.compile(r"\s*(?:[-*•]|\d+\.)\s+")
_TERM = re.compile(r"^(?P<names>\S.*?)\s+:\s*(?P<kind>.*)$")

# What makes a run of words a formula, and which words may stand inside one.
_OPERATORS = set("=←→×·⊙∘*/^√ΣΠ∏∑∇‖≥≤<>∈~+−-|≠≈∼%∫∂⟨⟩ᵀ²³⁻½¼")
_FUNCTIONS = frozenset((
    "exp", "log", "sqrt", "min", "max", "sign", "tanh", "sigmoid", "softmax", "softplus", "sin", "cos", "asinh",
    "sinh", "erf", "mean", "var", "std", "sum", "rows", "columns", "clip", "clamp", "RMS", "rms", "diag", "tr",
    "det", "arg", "argmax", "argmin", "round", "relu", "ReLU", "GELU", "SiLU", "Var", "median", "sg", "stopgrad",
    "logsumexp", "sparsemax", "out", "rank", "fan_in", "fan_out", "depth", "width", "N", "U", "E",
))  # fmt: skip
_ARTICLES = frozenset({"a", "A", "I"})
_EDGE = ".,;:"
_SCRIPT = re.compile(
    r"(?<![A-Za-z])(?P<base>(?:[A-Za-zΑ-ωℓ][\u0300-\u036f]?\d?|[∇Σ‖)\]]))"
    r"(?P<mark>[_^])(?:\{(?P<braced>[^{}]+)\}|\((?P<bracketed>[^()]+)\)|(?P<bare>[−-]?[A-Za-z0-9Α-ω∞*]+(?:,[A-Za-z0-9]+)?))"
)


def typeset(doc: str) -> Markup:
    """A docstring as HTML; every character of it is escaped.

    Paragraphs; sections under dashes, their ``name : kind`` entries as a
    definition list; bullet lists; indented blocks as they stand; `code`.
    Formulas in running text get a face of their own, with ``x_i`` and ``x^2``
    as sub- and superscripts.
    """
    parts = []
    for heading, lines in _sections(doc.expandtabs().splitlines()):
        if heading:
            parts.append(f"<h3>{escape(heading)}</h3>")
        entries = _entries(lines) if heading else []
        parts.append(_definitions(entries) if entries else "".join(_blocks(lines)))
    return Markup("".join(parts))


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(heading, lines) of each section; the first has no heading."""
    heading, body = "", list[str]()
    i = 0
    while i < len(lines):
        if i + 1 < len(lines) and lines[i].strip() and _RULE.match(lines[i + 1].strip()):
            yield heading, body
            heading, body = lines[i].strip(), []
            i += 2
        else:
            body.append(lines[i])
            i += 1
    yield heading, body


def _entries(lines: list[str]) -> list[tuple[str, str]]:
    """(term, text) of ``name : text`` entries with indented continuations; [] when the section is prose."""
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        if not line.strip():
            continue
        term = _TERM.match(line) if not line.startswith(" ") else None
        if term:
            found.append((term["names"], [term["kind"]]))
        elif line.startswith(" ") and found:
            found[-1][1].append(line.strip())
        else:
            return []
    return [(name, " ".join(filter(None, text))) for name, text in found]


def _definitions(entries: list[tuple[str, str]]) -> str:
    rows = "".join(f"<dt><code>{escape(name)}</code></dt><dd>{inline(text)}</dd>" for name, text in entries)
    return f'<dl class="terms">{rows}</dl>'


def _blocks(lines: list[str]) -> Iterator[str]:
    for block in _paragraphs(lines):
        if all(line.startswith("    ") for line in block):
            yield "<pre>" + escape("\n".join(line[4:] for line in block)) + "</pre>"
        elif _BULLET.match(block[0]):
            yield "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in _items(block)) + "</ul>"
        else:
            yield f"<p>{inline(' '.join(line.strip() for line in block))}</p>"


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def _items(block: list[str]) -> list[str]:
    items: list[str] = []
    for line in block:
        if _BULLET.match(line):
            items.append(_BULLET.sub("", line, count=1))
        else:
            items[-1] += " " + line.strip()
    return items


def inline(text: str) -> Markup:
    """One paragraph's text: code, formulas, everything escaped."""
    parts, place = [], 0
    for match in _CODE.finditer(text):
        parts.append(_formulas(text[place : match.start()]))
        parts.append(f"<code>{escape(match[1] or match[2])}</code>")
        place = match.end()
    return Markup("".join([*parts, _formulas(text[place:])]))


def _formulas(text: str) -> str:
    """Text between code: runs of words that form a formula are marked as such."""
    words = re.split(r"(\s+)", text)
    tokens, gaps = words[::2], [*words[1::2], ""]
    out, i = [], 0
    while i < len(tokens):
        length = _formula_length(tokens, i)
        if not length:
            out.append(escape(tokens[i]) + gaps[i])
            i += 1
            continue
        whole = "".join(t + g for t, g in zip(tokens[i : i + length], gaps[i : i + length], strict=True))
        body = whole.rstrip()
        core = body.rstrip(_EDGE)
        out.append(f'<span class="math">{scripts(core)}</span>{escape(body[len(core) :])}{whole[len(body) :]}')
        i += length
    return "".join(out)


def _formula_length(tokens: list[str], start: int) -> int:
    """How many tokens from `start` on form one formula; 0 when they don't."""
    end, depth = start, 0
    while end < len(tokens) and _is_mathematical(tokens, end, depth > 0):
        depth += tokens[end].count("(") - tokens[end].count(")")
        end += 1
        if tokens[end - 1][-1] in ";:" or (tokens[end - 1][-1] == "," and depth <= 0):
            break
    while end > start and (tokens[end - 1] in _ARTICLES or tokens[end - 1] in _OPERATORS):
        end -= 1
    run = tokens[start:end]
    whole = "".join(run)
    if not run or tokens[start] in _ARTICLES or not any(c.isalnum() for c in whole):
        return 0
    strong = set("=←→√Σ∏∇‖⊙^ᵀ≥≤·×*²³")
    spaced = any(t in _OPERATORS for t in run)
    scripted = bool(_SCRIPT.search(whole))
    return len(run) if spaced or scripted or strong & set(whole) or re.search(r"[A-Za-zΑ-ω]\(", whole) else 0


def _is_mathematical(tokens: list[str], i: int, inside: bool) -> bool:
    """Whether a word can stand in a formula (`inside` its brackets): symbols, numbers, single letters, functions."""
    word = tokens[i]
    core = word.strip(_EDGE + "()")
    if not core:
        return bool(word) and not word.isspace()
    if core in _ARTICLES:
        near = (tokens[i - 1] if i else "", tokens[i + 1] if i + 1 < len(tokens) else "")
        return any(t in _OPERATORS for t in near)
    if inside and set(core) & set("/·×*^+=√"):
        return True
    if re.fullmatch(r"[A-Za-z]+-[A-Za-z-]+|[A-Za-z]+/[a-z]{3,}|\d+-[a-z]+", core):
        return False
    pieces = re.findall(r"[A-Za-z]+", core)
    return all(len(p) == 1 or p in _FUNCTIONS or _is_script(core, p) for p in pieces)


def _is_script(word: str, piece: str) -> bool:
    """Whether a longer word is a sub- or superscript, or a symbol with one."""
    return bool(re.search(rf"[_^][({{]?{piece}|(?<![A-Za-z]){piece}_", word)) and len(piece) <= 6


def scripts(text: str) -> str:
    """A formula's text with its sub- and superscripts raised and lowered, escaped."""
    text = text.replace("<-", "←").replace("-", "−")
    out, place = [], 0
    for match in _SCRIPT.finditer(text):
        inner = match["braced"] or match["bracketed"] or match["bare"]
        tag = "sub" if match["mark"] == "_" else "sup"
        out.append(escape(text[place : match.start("mark")]) + f"<{tag}>{escape(inner)}</{tag}>")
        place = match.end()
    return "".join([*out, escape(text[place:])])
