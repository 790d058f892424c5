"""Which members of a request an operation reads, found in the source without running it.

Theory of operation. The method of an operation is read as a syntax tree, and with it everything it leads to: functions
and constants it names, in its module or imported from another of ours; methods of its own class; methods and properties
of values whose class can be told from an annotation, from ``self.x = Class(...)`` or from ``x = Class(...)``. Out of
all that, the names of members are the texts that stand where something is read: in ``x["Name"]`` or ``x.Name``, as an
argument, in a comparison, in a table. Keys of a dictionary that is being made are answers; texts of messages are none.

It errs on the side of a member being read (a text of the same spelling in a function on the way), never the other way,
and the way it looks at is that of one operation, not of the whole program. What reaches a function as an injected
callable is not seen; `ALSO` in the completeness test names those places.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr


@dataclass
class Module:
    """One of our modules: what it defines, and the names it imports from others of ours."""

    name: str
    defined: dict[str, Definition] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A definition, with the module and the class it stands in."""

    module: str
    node: Definition
    owner: ast.ClassDef | None = None


class Source:
    """All modules of ``bus`` and ``rules``, read once."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {}
        for package in ("bus", "rules"):
            for path in sorted((ROOT / package).rglob("*.py")):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                self.modules[name] = _read(name, ast.parse(path.read_text(encoding="utf-8")))

    def operations(self, name: str) -> list[Place]:
        """The methods that could answer an operation of this name in snake case: coroutines of (call, request)."""
        return [
            Place(module.name, method, node)
            for module in self.modules.values()
            for node in module.defined.values()
            if isinstance(node, ast.ClassDef)
            for method in node.body
            if isinstance(method, ast.AsyncFunctionDef)
            and method.name == name
            and [arg.arg for arg in method.args.args] == ["self", "call", "request"]
        ]

    def names_read(self, start: Place, *also: str) -> set[str]:
        """The names read on the way from an operation's method; ``also`` are whole modules, or functions in them."""
        todo, seen, names = [start, *(place for each in also for place in self._places(each))], set(), set[str]()
        while todo:
            place = todo.pop()
            if id(place.node) in seen:
                continue
            seen.add(id(place.node))
            names |= set(_names(place))
            todo += self._leads_to(place)
        return names

    def _places(self, dotted: str) -> Iterator[Place]:
        if dotted in self.modules:
            for node in self.modules[dotted].defined.values():
                yield Place(dotted, node)
                if isinstance(node, ast.ClassDef):
                    yield from (Place(dotted, method, node) for method in _methods(node).values())
            return
        module, _, name = dotted.rpartition(".")
        yield Place(module, self.modules[module].defined[name])

    def _leads_to(self, place: Place) -> Iterator[Place]:
        kinds = self._kinds(place)
        for node in ast.walk(place.node):
            if isinstance(node, ast.Name):
                yield from self._named(place.module, node.id)
            elif isinstance(node, ast.Attribute):
                yield from self._of_module(place.module, node)
                kind = self._kind(place, node.value, kinds)
                if kind is not None:
                    yield from self._member(kind, node.attr)

    def _of_module(self, module: str, node: ast.Attribute) -> Iterator[Place]:
        """What ``name.attribute`` stands for when the name is that of an imported module."""
        if isinstance(node.value, ast.Name) and node.value.id in self.modules[module].imported:
            yield from self._named(".".join(self.modules[module].imported[node.value.id]), node.attr)

    def _named(self, module: str, name: str) -> Iterator[Place]:
        """What a name stands for in a module; of a class, what making one runs."""
        found = self._find(module, name)
        if found is None:
            return
        if isinstance(found.node, ast.ClassDef):
            yield from self._making(found)
        else:
            yield found

    def _making(self, kind: Place) -> Iterator[Place]:
        yield kind
        for name in ("__init__", "__post_init__", "__call__"):
            yield from self._member(kind, name)

    def _find(self, module: str, name: str) -> Place | None:
        known = self.modules.get(module)
        if known is None:
            return None
        if name in known.defined:
            return Place(module, known.defined[name])
        source = known.imported.get(name)
        return None if source in (None, (module, name)) else self._find(*source)

    def _member(self, kind: Place, name: str) -> Iterator[Place]:
        """A method or property of a class, or of what it inherits from."""
        assert isinstance(kind.node, ast.ClassDef)
        method = _methods(kind.node).get(name)
        if method is not None:
            yield Place(kind.module, method, kind.node)
            return
        for base in kind.node.bases:
            above = self._find(kind.module, base.id) if isinstance(base, ast.Name) else None
            if above is not None and isinstance(above.node, ast.ClassDef):
                yield from self._member(above, name)

    # -- the classes of values

    def _kinds(self, place: Place) -> dict[str, Place]:
        """The classes of a function's parameters and variables, as far as they can be told."""
        kinds: dict[str, Place] = {}
        if place.owner is not None:
            kinds["self"] = Place(place.module, place.owner)
        if not isinstance(place.node, Function):
            return kinds
        arguments = place.node.args
        for argument in (*arguments.args, *arguments.kwonlyargs):
            self._note(kinds, place.module, argument.arg, argument.annotation)
        for node in ast.walk(place.node):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                made = self._made(place, node.value, kinds)
                if made is not None:
                    kinds[node.targets[0].id] = made
        return kinds

    def _note(self, kinds: dict[str, Place], module: str, name: str, annotation: ast.expr | None) -> None:
        for node in ast.walk(annotation) if annotation is not None else ():
            if isinstance(node, ast.Name):
                found = self._find(module, node.id)
                if found is not None and isinstance(found.node, ast.ClassDef):
                    kinds.setdefault(name, found)

    def _kind(self, place: Place, value: ast.expr, kinds: dict[str, Place]) -> Place | None:
        if isinstance(value, ast.Name):
            return kinds.get(value.id)
        if isinstance(value, ast.Attribute):
            holder = self._kind(place, value.value, kinds)
            return None if holder is None else self._fields(holder).get(value.attr)
        return self._made(place, value, kinds)

    def _made(self, place: Place, value: ast.expr, kinds: dict[str, Place]) -> Place | None:
        """The class of what an expression makes: ``Class(...)``, ``given or Class()``, or what a function answers."""
        if isinstance(value, ast.BoolOp):
            return next((made for each in value.values if (made := self._made(place, each, kinds)) is not None), None)
        if isinstance(value, ast.Await):
            return self._made(place, value.value, kinds)
        if isinstance(value, ast.Name):
            return kinds.get(value.id)
        if not isinstance(value, ast.Call):
            return None
        called = value.func
        if isinstance(called, ast.Name):
            found = self._find(place.module, called.id)
        elif isinstance(called, ast.Attribute):
            holder = self._kind(place, called.value, kinds)
            found = None if holder is None else next(self._member(holder, called.attr), None)
        else:
            found = None
        if found is None or isinstance(found.node, ast.ClassDef):
            return found
        answered: dict[str, Place] = {}
        if isinstance(found.node, Function):
            self._note(answered, found.module, "it", found.node.returns)
        return answered.get("it")

    def _fields(self, kind: Place) -> dict[str, Place]:
        """The classes of an object's attributes: from the class's body, and from what its __init__ assigns."""
        assert isinstance(kind.node, ast.ClassDef)
        fields: dict[str, Place] = {}
        for node in kind.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                self._note(fields, kind.module, node.target.id, node.annotation)
        init = _methods(kind.node).get("__init__")
        if init is None:
            return fields
        place = Place(kind.module, init, kind.node)
        kinds: dict[str, Place] = {}
        for argument in (*init.args.args, *init.args.kwonlyargs):
            self._note(kinds, kind.module, argument.arg, argument.annotation)
        for statement in ast.walk(init):
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Attribute):
                continue
            made = self._made(place, statement.value, kinds)
            if made is not None:
                fields[statement.targets[0].attr] = made
        return fields


def _read(name: str, tree: ast.Module) -> Module:
    module = Module(name)
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            module.defined[node.name] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    module.defined[target.id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            module.defined[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("bus", "rules"):
            for alias in node.names:
                module.imported[alias.asname or alias.name] = (str(node.module), alias.name)
    return module


def _methods(kind: ast.ClassDef) -> dict[str, Function]:
    return {node.name: node for node in kind.body if isinstance(node, Function)}


def _names(place: Place) -> Iterator[str]:
    """The texts of a definition that may name a member that is read, and the renamed fields of a struct."""
    if isinstance(place.node, ast.ClassDef):
        renamed = any(keyword.arg == "rename" for keyword in place.node.keywords)
        for node in place.node.body:
            if renamed and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield "".join(word.capitalize() for word in node.target.id.split("_"))
        return
    if not isinstance(place.node, Function):
        yield from _texts(place.node)
        return
    for default in (*place.node.args.defaults, *place.node.args.kw_defaults):
        if default is not None:
            yield from _texts(default)
    for statement in place.node.body:
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            yield from _texts(statement)


def _texts(tree: ast.AST) -> Iterator[str]:
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                yield node.value
        elif isinstance(node, ast.Dict):
            todo += node.values
            # In a table of the module a key is a name that is looked up; a dictionary made in a function is an answer.
            if node is tree:
                todo += [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            todo.append(node.value)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            todo.append(node.value)
            if node.attr[0].isupper():  # a struct whose fields have the names of the members
                yield node.attr
        elif not isinstance(node, ast.JoinedStr):
            todo += ast.iter_child_nodes(node)
