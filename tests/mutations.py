"""Small ways of breaking the code that carries out a clause, in memory.

The code of a clause is every function whose docstring cites it: the methods of a class that cites it, and the private
helpers that these call in their file. A mutant is such a function with one small change: a comparison flipped, a number
off by one, a branch or an assignment dropped. Left alone are words of errors, asserts and `strict=` of zip.
"""

import ast
import copy
import functools
import importlib
import inspect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from looplm import spec
from looplm.spec import check as spec_check

ROOT = Path(__file__).parents[1]
ALSO = (
    "halting.freeze",
    "halting.loops-taken",
    "architecture.causal",
    "architecture.padding",
    "architecture.cache",
    "architecture.any-loops",
    "training.weight-decay",
    "training.checkpoint",
)
"""Clauses that compute nothing, and whose code is broken all the same; the others are all that carry Python."""

_FLIPPED: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
_PAIRS = "min max, maximum minimum, any all, sin cos, cummax cummin, amax amin, argmax argmin, ones_like zeros_like, ones zeros"
_RENAMED = {one: other for pair in _PAIRS.split(", ") for one, other in (pair.split(), reversed(pair.split()))}
_DROPPED = {"abs", "clamp", "masked_fill", "reversed"}
_UNTOUCHED = ast.Raise | ast.Assert | ast.JoinedStr | ast.arguments
"""What only words an error, or is an invariant of ours or a signature."""


@dataclass(frozen=True)
class Function:
    """A function that carries out clauses."""

    module: str
    qualname: str
    clauses: tuple[str, ...]
    """All that it cites itself, or that cite it through their class or caller."""

    @property
    def name(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.qualname}"


@dataclass(frozen=True)
class Mutant:
    """A function with one small change."""

    function: Function
    line: int
    original: str
    """The statement that is changed, on one line."""
    mutated: str
    code: CodeType

    @property
    def key(self) -> tuple[str, str, str]:
        """What finds its explanation again when lines have moved."""
        return self.function.name, self.original, self.mutated

    def inject(self) -> None:
        """Let everyone who calls the function, in this process, run the mutant."""
        owner: Any = importlib.import_module(self.function.module)
        for part in self.function.qualname.split("."):
            owner = inspect.getattr_static(owner, part)
        owner = owner.fget if isinstance(owner, property) else owner
        function = inspect.unwrap(owner)
        assert isinstance(function, FunctionType)
        function.__code__ = self.code


def in_scope() -> list[str]:
    """Clauses whose code is broken, in the order of the spec; those of the kernels are proven elsewhere, and slowly."""
    return [id for id, clause in spec.clauses().items() if (clause.code or id in ALSO) and not id.startswith("kernels.")]


def functions() -> list[Function]:
    """Every function that carries out a clause in scope, with all the clauses that it stands for."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    citing: dict[str, list[str]] = defaultdict(list)
    for id, names in spec_check._implementations(ROOT).items():
        for name in names:
            if name.startswith("looplm."):
                citing[name].append(id)
    for name, ids in citing.items():
        if set(ids) & set(in_scope()):
            module = _module_of(name)
            for qualname in _reached(module, name.removeprefix(f"{module}."), set(citing)):
                found[module, qualname].update(ids)
    return [Function(*where, clauses=tuple(sorted(ids))) for where, ids in sorted(found.items())]


def mutants(function: Function) -> Iterator[Mutant]:
    """Every small change of the function, always in the same order."""
    tree, known = copy.deepcopy(_tree(function.module)), vars(importlib.import_module(function.module))
    definition = _definitions(tree)[function.qualname]
    numbers = {name for name, value in known.items() if name.isupper() and isinstance(value, int | float)}
    owner = _definitions(tree).get(function.qualname.rpartition(".")[0])
    for statement in owner.body if owner else []:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            numbers |= {f"self.{target.id}" for target in statement.targets if isinstance(target, ast.Name)}
    assert isinstance(definition, ast.FunctionDef)
    if isinstance(owner, ast.ClassDef):
        owner.body = [definition]
    tree.body = [owner or definition]  # the rest need not be compiled again each time
    bound = {argument.arg for argument in ast.walk(definition.args) if isinstance(argument, ast.arg)}
    for parent, field, index, node, statement in _sites(definition, definition):
        siblings = getattr(parent, field)
        before = ast.unparse(statement).splitlines()[0]
        for variant in _variants(node, bound, numbers):
            ast.copy_location(variant, node)
            if index is None:
                setattr(parent, field, variant)
            else:
                siblings[index] = variant
            after = ast.unparse(variant if node is statement else statement).splitlines()[0]
            code = compile(ast.fix_missing_locations(tree), f"<mutant of {function.name}>", "exec")
            yield Mutant(function, statement.lineno, before, after, _code_of(code, function.qualname))
            if index is None:
                setattr(parent, field, node)
            else:
                siblings[index] = node
        bound |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}


def _variants(node: ast.AST, bound: set[str], numbers: set[str]) -> Iterator[ast.expr | ast.stmt]:
    """What may stand in the place of `node`; `bound` names have a value before it, `numbers` are named constants."""
    match node:
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                yield ast.Compare(left, [*ops[:i], _FLIPPED[type(op)](), *ops[i + 1 :]], comparators)
        case ast.BinOp(left, op, right) if type(op) in _FLIPPED:
            yield ast.BinOp(left, _FLIPPED[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(_FLIPPED[type(op)](), values)
        case ast.UnaryOp(ast.Not() | ast.Invert() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
            if value >= 1:
                yield ast.Constant(value - 1)
        case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()) if ast.unparse(node) in numbers:
            yield ast.BinOp(node, ast.Add(), ast.Constant(1))
        case ast.IfExp(_, body, orelse):
            yield body
            yield orelse
        case ast.Call(ast.Attribute(_, "where") as where, [condition, one, other], keywords):
            yield ast.Call(where, [condition, other, one], keywords)
        case ast.Call(ast.Attribute(value, name, context), arguments, keywords) if name in _RENAMED:
            yield ast.Call(ast.Attribute(value, _RENAMED[name], context), arguments, keywords)
        case ast.Call(ast.Name(name, context), arguments, keywords) if name in _RENAMED:
            yield ast.Call(ast.Name(_RENAMED[name], context), arguments, keywords)
        case ast.Call(ast.Attribute(value, name), _, _) | ast.Call(ast.Name(name), [value], _) if name in _DROPPED:
            yield value
        case ast.If(test, body, orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Assign() | ast.AugAssign():
            stored = (name for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store))
            if all(name.id in bound for name in stored):  # else whoever reads the name fails at once
                yield ast.Pass()
        case ast.Break() | ast.Expr(ast.Call()) if "super()" not in ast.unparse(node):
            yield ast.Pass()


def _sites(node: ast.AST, statement: ast.stmt) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, ast.stmt]]:
    """Parent, field, index, node and its statement, for all that may change below `node`."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            guard = isinstance(child, ast.keyword) and child.arg == "strict"  # of our own, like an assert
            if isinstance(child, ast.AST) and not isinstance(child, _UNTOUCHED) and not guard:
                inner = child if isinstance(child, ast.stmt) else statement
                yield node, field, index if isinstance(value, list) else None, child, inner
                yield from _sites(child, inner)


def _reached(module: str, qualname: str, citing: set[str]) -> set[str]:
    """The function; of a class its methods that cite nothing themselves; and the private helpers that these use."""
    defined = _definitions(_tree(module))
    if isinstance(defined[qualname], ast.ClassDef):
        pending = [name for name in defined if name.startswith(f"{qualname}.") and f"{module}.{name}" not in citing]
    else:
        pending = [qualname]
    reached: set[str] = set()
    while pending:
        name = pending.pop()
        reached.add(name)
        used = {ast.unparse(node) for node in ast.walk(defined[name]) if isinstance(node, ast.Name | ast.Attribute)}
        helpers = {use.replace("self.", f"{name.rpartition('.')[0]}.") for use in used} & defined.keys()
        pending += [h for h in helpers - reached if h.split(".")[-1].startswith("_") and f"{module}.{h}" not in citing]
    return {name for name in reached if isinstance(defined[name], ast.FunctionDef)}


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file_of(module).read_text(encoding="utf-8"))


def _file_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _module_of(name: str) -> str:
    while not _file_of(name).is_file():
        name = name.rpartition(".")[0]
        assert name, "no module of this checkout holds it"
    return name


def _definitions(tree: ast.AST, inside: str = "") -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Functions, classes and methods by qualified name; a function within a function belongs to the outer one."""
    found: dict[str, ast.FunctionDef | ast.ClassDef] = {}
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            found[inside + child.name] = child
            if isinstance(child, ast.ClassDef):
                found |= _definitions(child, f"{inside}{child.name}.")
    return found


def _code_of(code: CodeType, qualname: str) -> CodeType:
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    if code.co_qualname == qualname:
        return code
    return next(_code_of(const, qualname) for const in inner if f"{qualname}.".startswith(f"{const.co_qualname}."))
