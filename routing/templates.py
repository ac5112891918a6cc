"""Prompt templates: Jinja in a sandbox that can neither reach out nor blow up.

A prompt is written by an administrator and filled with input from outside, in a worker that also holds keys
and other people's jobs. Three fences, outermost first:

* Syntax. Only the nodes in `_ALLOWED` compile: expressions, `if`, `for`, `set`, `with`. No macros (their
  recursion is unbounded), no includes, no captured blocks (they escape the output cap).
* Reach. No globals but a bounded `range`; a short list of filters; of attributes only the read-only
  methods in `_METHODS`. Variables are JSON values, so nothing else is in sight anyway.
* Amount. Strings, numbers and nested values that a template builds are bounded, iterations and CPU time are
  metered, and the output is cut off while it streams. (Jinja's own sandbox bounds only `range`.)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias, cast

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from routing.errors import ConfigurationError

MAX_OUTPUT = 200_000  # characters
_MAX_SOURCE = 100_000  # characters
_MAX_ITERATIONS = 20_000
_MAX_RANGE = 1_000
_MAX_BITS = 256  # of an integer
_MAX_CPU = 1.0  # seconds of this thread
_METER = " meter"  # a variable that no template can name

_Json: TypeAlias = Any  # None, bool, int, float, str, list or dict of these


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Fill the template in.

    Raises ConfigurationError, with the line, for a syntax error, a variable that `variables` lacks, and
    anything the sandbox refuses.
    """
    template = _compiled(source)
    meter = _Meter()
    try:
        return _joined(template.generate({**variables, _METER: meter}))
    except UndefinedError as error:
        raise ConfigurationError(
            f"The prompt template uses something the job's input does not have{_where(error)}: "
            f"{error.message}. Add it to "
            f"the feature's input schema, test it with `is defined`, or remove it from the template."
        ) from None
    except Exception as error:  # whatever an expression can raise is the template's fault, not ours
        raise ConfigurationError(
            f"The prompt template cannot be rendered{_where(error)}: {type(error).__name__}: "
            f"{str(error)[:500]}. Correct the template."
        ) from None


def _where(error: Exception) -> str:
    """` (line n)` of the template: Jinja rewrites tracebacks so that they tell it."""
    line = None
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_filename == "<template>":
            line = place.tb_lineno
        place = place.tb_next
    return "" if line is None else f" (line {line})"


def check(source: str) -> None:
    """Raise ConfigurationError, with the line, where the template would not compile."""
    _compiled(source)


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Template:
    if len(source) > _MAX_SOURCE:
        raise ConfigurationError(
            f"The prompt template is longer than {_MAX_SOURCE:,} characters. Shorten it."
        )
    try:
        tree = _ENVIRONMENT.parse(source)
        _Fence().visit(tree)
        code = _ENVIRONMENT.compile(tree)
    except TemplateSyntaxError as error:
        raise ConfigurationError(
            f"The prompt template is wrong in line {error.lineno}: {error.message}"
        ) from None
    except (RecursionError, MemoryError, OverflowError, SyntaxError, ValueError) as error:
        raise ConfigurationError(
            f"The prompt template cannot be compiled ({type(error).__name__}). Make it simpler."
        ) from None
    return Template.from_code(_ENVIRONMENT, code, {"range": _range})


def _joined(chunks: Iterator[str]) -> str:
    parts: list[str] = []
    room = MAX_OUTPUT
    for chunk in chunks:
        room -= len(chunk)
        if room < 0:
            raise _RefusedError(f"the output exceeds {MAX_OUTPUT:,} characters")
        parts.append(chunk)
    return "".join(parts)


class _RefusedError(Exception):
    """A template asked for more than it may have."""


class _Meter:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self.iterations = _MAX_ITERATIONS
        self.cpu_until = time.thread_time() + _MAX_CPU

    def tick(self) -> None:
        self.iterations -= 1
        if self.iterations < 0:
            raise _RefusedError(f"its loops and filters run more than {_MAX_ITERATIONS:,} times")
        if time.thread_time() > self.cpu_until:
            raise _RefusedError(f"it takes more than {_MAX_CPU:g} s")


# --- amount -------------------------------------------------------------------------------------------


def _weighed(value: _Json) -> _Json:
    """`value`, unless writing it out would take more than the output may hold.

    Lists that hold one list twice, forty times over, cost nothing to build and 2⁴⁰ elements to print.
    """
    room = MAX_OUTPUT
    pending = [value]
    while pending:
        item = pending.pop()
        room -= len(item) if isinstance(item, str) else 1
        if room < 0:
            raise _RefusedError(f"a value exceeds {MAX_OUTPUT:,} characters or elements")
        if isinstance(item, Mapping):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
        elif isinstance(item, Undefined):
            str(item)  # a missing variable raises here and names itself; `x if y` without else is just empty
        elif not isinstance(item, str | int | float | None):
            raise _RefusedError(f"a {type(item).__name__} is no value; turn a generator into a `list`")
    return value


def _text(value: _Json) -> str:
    """As the output shows it: nothing for None, so that an absent optional field leaves no trace."""
    return "" if value is None else str(_weighed(value))


@pass_context  # also keeps Jinja from evaluating constant expressions while it compiles
def _output(_context: Context, value: _Json) -> str:
    return _text(value)


def _bounded(length: int) -> None:
    if length > MAX_OUTPUT:
        raise _RefusedError(f"a text exceeds {MAX_OUTPUT:,} characters")


def _concat(values: list[_Json]) -> str:
    parts = [_text(value) for value in values]
    _bounded(sum(map(len, parts)))
    return "".join(parts)


def _arithmetic(operator: Callable[[Any, Any], Any], symbol: str, left: _Json, right: _Json) -> _Json:
    if symbol == "+" and isinstance(left, str) and isinstance(right, str):
        _bounded(len(left) + len(right))
        return left + right
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise _RefusedError(f"`{symbol}` works on numbers only (and `+` on two texts)")
    if symbol == "**" and abs(right) > _MAX_BITS:
        raise _RefusedError(f"the exponent exceeds {_MAX_BITS}")
    result = operator(left, right)
    if not isinstance(result, int | float) or (isinstance(result, int) and result.bit_length() > _MAX_BITS):
        raise _RefusedError(f"the result of `{symbol}` is no number of at most {_MAX_BITS} bits")
    return result


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > _MAX_RANGE:
        raise _RefusedError(f"range() yields more than {_MAX_RANGE:,} numbers")
    return numbers


@pass_context
def _ticked(context: Context, value: Iterable[_Json]) -> Iterator[_Json]:
    meter = cast(_Meter, context.resolve(_METER))
    for item in value:
        meter.tick()
        yield item


def _metered(native: Callable[..., Any]) -> Callable[..., Any]:
    """One of Jinja's own context filters, with its iterations counted."""

    @pass_context
    def metered(context: Context, value: Iterable[_Json], *args: Any, **kwargs: Any) -> Any:
        if "default" in kwargs:
            raise _RefusedError("`default` is not available here; use the filter `default`")
        return native(context, _ticked(context, value), *args, **kwargs)

    return metered


def _charged(native: Callable[..., Any]) -> Callable[..., Any]:
    """One of Jinja's own filters, which counts as a step: sorting a long text two thousand times has no loop
    that would count."""
    wanted = getattr(native, "jinja_pass_arg", None)

    @pass_context
    def charged(context: Context, *args: Any, **kwargs: Any) -> Any:
        cast(_Meter, context.resolve(_METER)).tick()
        if wanted is None:
            return native(*args, **kwargs)
        given = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        return native(given[wanted.name], *args, **kwargs)

    return charged


# --- filters ------------------------------------------------------------------------------------------


def _join(value: Iterable[_Json], separator: str = "", attribute: str | None = None) -> str:
    items = [item if attribute is None else _ENVIRONMENT.getitem(item, attribute) for item in value]
    parts = [_text(item) for item in items]
    _bounded(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def _replace(value: str, old: str, new: str, count: int = -1) -> str:
    text = _text(value)
    hits = text.count(old)
    _bounded(len(text) + hits * len(new))
    return text.replace(old, new, count)


def _indent(value: str, width: int = 4, first: bool = False) -> str:
    margin = " " * max(0, min(width, 40))
    text = _text(value)
    _bounded(len(text) + len(margin) * (text.count("\n") + 1))
    indented = text.replace("\n", "\n" + margin)
    return margin + indented if first else indented


def _tojson(value: _Json, indent: int | None = None) -> str:
    """Compact JSON in plain letters. (Jinja's own writes `\\u003c` for `<`: right for HTML, noise here.)"""
    margin = None if indent is None else max(0, min(indent, 8))
    separators = (",", ":") if margin is None else (",", ": ")
    plain = _weighed(list(value) if isinstance(value, Iterator) else value)
    return json.dumps(plain, ensure_ascii=False, separators=separators, indent=margin, default=dict)


def _round(value: float, precision: int = 0) -> float:
    return round(value, max(-15, min(precision, 15)))


def _sum(value: Iterable[_Json]) -> _Json:
    total: _Json = 0
    for number in value:
        total = _arithmetic(lambda a, b: a + b, "+", total, number)
    return total


_PLAIN = frozenset(
    {
        *("abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last"),
        *("length", "list", "lower", "max", "min", "reverse", "sort", "title", "trim", "truncate", "unique"),
        *("upper", "wordcount"),
    }
)
_ITERATING = ("map", "select", "reject", "selectattr", "rejectattr")
_FILTERS: Mapping[str, Callable[..., Any]] = {
    **{name: _charged(FILTERS[name]) for name in _PLAIN},
    **{name: _metered(FILTERS[name]) for name in _ITERATING},
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "string": _text,
    "sum": _sum,
    "tojson": _tojson,
    "_concat": _concat,
    "_ticked": _ticked,
    "_weighed": _weighed,
}


# --- syntax and reach ---------------------------------------------------------------------------------

_ALLOWED: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.With),
    *(nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Call, nodes.Filter),
    *(nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow, nodes.Concat),
    *(nodes.CondExpr, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword),
)

_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        {
            *("capitalize", "count", "endswith", "find", "isalnum", "isalpha", "isdigit", "lower", "lstrip"),
            *("rstrip", "split", "splitlines", "startswith", "strip", "title", "upper"),
        }
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    LoopContext: frozenset(
        {
            *(
                "changed",
                "cycle",
                "depth",
                "depth0",
                "first",
                "index",
                "index0",
                "last",
                "length",
                "nextitem",
            ),
            *("previtem", "revindex", "revindex0"),
        }
    ),
}


class _Fence(NodeTransformer):
    """Refuses what is not allowed, and wraps what can grow or repeat into the guards above."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if not isinstance(node, _ALLOWED):
            raise TemplateSyntaxError(f"`{type(node).__name__}` is not available in prompts", node.lineno)
        if getattr(node, "dyn_args", None) or getattr(node, "dyn_kwargs", None):
            raise TemplateSyntaxError("`*` and `**` arguments are not available in prompts", node.lineno)
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the visitor's protocol
        if node.recursive:
            raise TemplateSyntaxError("recursive loops are not available in prompts", node.lineno)
        self.generic_visit(node)
        node.iter = _guarded(cast(nodes.Expr, node.iter), "_ticked")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _guarded(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return _guarded(cast(nodes.Expr, self.generic_visit(node)), "_weighed")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return _guarded(cast(nodes.Expr, self.generic_visit(node)), "_weighed")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return node if node.ctx == "store" else _guarded(node, "_weighed")


def _guarded(node: nodes.Expr, guard: str) -> nodes.Filter:
    return nodes.Filter(node, guard, [], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return _arithmetic(self.binop_table[operator], operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

    def wrap_str_format(self, value: Any) -> None:
        """Jinja hands out a sandboxed `str.format` before it asks `is_safe_attribute`; a width of a billion
        is safe to it. Without one, `format` is a method like others, and not among those allowed."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A member of the input before a method of its container: `input.items` is a field, if given."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _environment() -> _Environment:
    # The optimizer is off: it would run filters on constants while compiling, before any meter exists.
    environment = _Environment(
        undefined=StrictUndefined, autoescape=False, finalize=_output, optimized=False, cache_size=0
    )
    environment.globals.clear()
    environment.filters = dict(_FILTERS)
    return environment


_ENVIRONMENT = _environment()
