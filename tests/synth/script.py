"""Random JavaScript, written together with the functions that are in it: where each is, and what it is the value of."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

Name = tuple[str, ...]
"""The parts of a name; one in square brackets stands behind the others without a dot."""

_WORDS = ("a", "b", "run", "get", "set", "async", "of", "static", "value", "$", "_x", "größe", "ins", "news")
_STRINGS = ('"it\'s"', "'}'", "'\\''", '"\\\\"', "'(漢)'", '"😀{"', "'//'", '"/*"', "`plain`", "'a\\\nb'")
_REGEXES = ("/a/", "/[/]/g", "/\\//", "/[}\\]]/u", "/(?:x)/")
_COMMENTS = ("/* } */", "// (\n", "/* é */", "\n", " ", "\r\n", "/* a\n b */")


def shown(name: Name) -> str:
    """Return a name as it is written."""
    return "".join(part if part.startswith("[") else f".{part}" for part in name).removeprefix(".")


@dataclass
class Script:
    """A script under way; ``functions`` are (start, end, name), places in characters, None without a name."""

    random: random.Random
    text: str = ""
    functions: list[tuple[int, int, str | None]] = field(default_factory=list)
    _behind: tuple[int, int] = (0, 0)

    def write(self, text: str) -> None:
        """Add a piece of text, now and then with white space or a comment behind it."""
        self.text += text
        solid = len(self.text)
        if self.random.random() < 0.06 and text not in {"return", "async "} and not text.endswith(("`", "${")):
            self.text += self.random.choice(_COMMENTS[:2] if text.isalpha() else _COMMENTS)
            self._behind = solid, len(self.text)

    def here(self) -> int:
        """Return where the last token ends."""
        solid, behind = self._behind
        return solid if behind == len(self.text) else len(self.text)

    def word(self) -> str:
        """Return some identifier that is none of those that mean something before others."""
        return self.random.choice([w for w in _WORDS if w not in {"async", "static", "get", "set", "of"}])

    def chance(self, share: float) -> bool:
        """Return true in a share of all cases."""
        return self.random.random() < share

    # -- functions ----------------------------------------------------------------------------------------------------

    def function(self, name: Name, depth: int, *, declared: bool = False) -> None:
        """Write a function; a name of its own takes the place of the last part of what it is assigned to."""
        start = len(self.text)
        self.text += self.random.choice(("function", "async function", "function*"))
        own = self.word() if declared or self.chance(0.3) else None
        self.text += f" {own}" if own else self.random.choice(("", " "))
        called = (*name[:-1], own) if own else name
        self.parameters(depth)
        self.block(depth)
        self.functions.append((start, len(self.text), shown(called) or None))

    def parameters(self, depth: int) -> None:
        """Write parameters, some with default values and patterns."""
        self.write("(")
        for at in range(self.random.randint(0, 2)):
            self.write("," if at else "")
            self.write(self.random.choice(("p", "{q}", "[r,,s]", "...t" if at else "u")))
            if self.chance(0.2) and depth > 0 and not self.text.endswith("t"):
                self.write("=")
                self.expression((), depth - 1)
        self.text += ")"

    def block(self, depth: int) -> None:
        """Write a body."""
        self.write("{")
        for _ in range(self.random.randint(0, 2) if depth > 0 else 0):
            self.statement(depth - 1)
        if self.chance(0.4):
            self.text += "return "
            self.expression((), depth - 1)
        self.text += "}"

    def arrow(self, name: Name, depth: int) -> None:
        """Write an arrow function."""
        start = len(self.text)
        self.text += self.random.choice(("x=>", "()=>", "async()=>", "async x=>", "(x,{y},[z])=>", "( ) => "))
        if self.chance(0.5):
            self.block(depth)
        else:
            self.expression((), depth - 1)
        self.functions.append((start, self.here(), shown(name) or None))

    def klass(self, name: Name, depth: int, *, declared: bool = False) -> None:
        """Write a class: functions in its body are named after it, fields and constructors are part of it."""
        start = len(self.text)
        own = self.word() if declared or self.chance(0.4) else None
        self.text += "class" + (f" {own}" if own else "")
        called = (*name, own) if own else name
        if self.chance(0.2):
            self.text += " extends " + self.random.choice(("A", "b.C", "f(1)", "(0,g.h)"))
        self.text += "{"
        for _ in range(self.random.randint(0, 3) if depth > 0 else 0):
            self.member(called, depth - 1)
        self.text += "}"
        self.functions.append((start, len(self.text), f"new {shown(called)}" if called else None))

    def member(self, owner: Name, depth: int) -> None:
        """Write a method, a field or a static block."""
        if self.chance(0.25):
            key = self.word()
            self.text += self.random.choice(("", "static ")) + f"{key}="
            self.expression((*owner, key), depth)
            self.text += self.random.choice((";", ";\n"))
            return
        self.method(owner, depth)

    def method(self, owner: Name, depth: int, *, literal: bool = False) -> None:
        """Write a method, or of a class its constructor."""
        start = len(self.text)
        static = "" if literal or self.chance(0.7) else "static "
        before = self.random.choice(("", "", "get ", "set ", "async ", "*", "async *"))
        if not literal and not before and not static and self.chance(0.2):
            self.text += "constructor"
            self.parameters(depth)
            self.block(depth)
            return
        key, part = self.random.choice(
            [(w, w) for w in _WORDS]
            + [("if", "if"), ("'k'", '<"k">'), ("7", "<7>"), ("[k+1]", "<computed>")]
            + ([] if literal else [("#p", "#p")])
        )
        self.text += static + before + key
        self.parameters(depth)
        self.block(depth)
        prefix = before if before in {"get ", "set "} else ""
        whole = (*(owner or (("<object>",) if literal else ())), part)
        self.functions.append((start, len(self.text), prefix + shown(whole)))

    # -- expressions --------------------------------------------------------------------------------------------------

    def expression(self, name: Name, depth: int) -> None:
        """Write an assignment expression; ``name`` is what it is the value of."""
        if depth <= 0:
            self.write(
                self.random.choice((self.word(), "1", "0x1f", "1.5e-3", ".5", "this", "null", *_STRINGS, *_REGEXES))
            )
            return
        getattr(self, "_" + self.random.choice(_KINDS))(name, depth)

    def _function(self, name: Name, depth: int) -> None:
        self.function(name, depth - 1)

    def _arrow(self, name: Name, depth: int) -> None:
        self.arrow(name, depth - 1)

    def _class(self, name: Name, depth: int) -> None:
        self.klass(name, depth - 1)

    def _call(self, name: Name, depth: int) -> None:
        self.write(self.random.choice((self.word(), "a.b", "a[0]", "new X", "f()", "(0,a.b)", "a?.b")))
        self.write("(")
        for at in range(self.random.randint(1, 2)):
            self.write("," if at else "")
            self.expression(name, depth - 1)
        self.write(")")

    def _array(self, name: Name, depth: int) -> None:
        self.write("[")
        self.expression(name, depth - 1)
        self.write(",")
        self.expression(name, depth - 1)
        self.write("]")

    def _group(self, name: Name, depth: int) -> None:
        self.write("(")
        self.write(self.random.choice(("", "1,", "a/b/c,", "/x/.test(s),")))
        self.expression(name, depth - 1)
        self.write(")")

    def _choice(self, name: Name, depth: int) -> None:
        self.write(self.random.choice(("c?", "a.b?", "x()?", "a<b?")))
        self.expression(name, depth - 1)
        self.write(":")
        self.expression(name, depth - 1)

    def _either(self, name: Name, depth: int) -> None:
        self.write(self.random.choice(("a||", "b&&", "c??", "1+", "a/2/ ", "b++ +", "typeof a==")))
        self.write("(")
        self.expression(name, depth - 1)
        self.write(")")

    def _template(self, name: Name, depth: int) -> None:
        self.text += self.random.choice(("`{${", "tag`${", "`$ \\` é ${"))
        self.expression(name, depth - 1)
        self.text += self.random.choice(("}`", "}${1}}`", "} \n`"))

    def _assign(self, name: Name, depth: int) -> None:
        target, parts = self.random.choice(
            (
                ("x", ("x",)),
                ("a.b", ("a", "b")),
                ("this.c", ("this", "c")),
                ("a.b[0]", ("a", "b", "[0]")),
                ("a['k']", ("a", '["k"]')),
                ("a[i].z", ("a", "[i]", "z")),
                ("a[i+1]", ("a", "[<computed>]")),
                ("f().d", name),
                ("module.exports", ("module", "exports")),
            )
        )
        self.write(target)
        self.write(self.random.choice(("=", " = ", "||=", "+=")))
        self.expression(parts, depth - 1)

    def _object(self, name: Name, depth: int) -> None:
        self.text += "("
        self.text += "{"
        for at in range(self.random.randint(1, 3)):
            self.write("," if at else "")
            if self.chance(0.4):
                self.method(name, depth - 1, literal=True)
                continue
            key = self.random.choice((*_WORDS, "if", "class", "'quoted'", "12", "[k]"))
            self.write(key)
            self.write(":")
            plain = key[0].isalpha() or key[0] in "_$"
            self.expression((*(name or ("<object>",)), key) if plain else name, depth - 1)
        self.text += "}"
        self.text += ")"

    # -- statements ---------------------------------------------------------------------------------------------------

    def statement(self, depth: int) -> None:
        """Write a statement."""
        kind = self.random.choice(
            ("var", "if", "for", "function", "class", "expression", "label", "try", "switch", "do")
        )
        getattr(self, "_s_" + kind)(depth)

    def end(self) -> None:
        """End a statement; a new line is enough before what begins with a name."""
        self.text += self.random.choice((";", ";", ";\n", "\n"))

    def _s_var(self, depth: int) -> None:
        name = self.word()
        self.text += self.random.choice(("var ", "let ", "const ")) + name + "="
        self.expression((name,), depth)
        if self.chance(0.3):
            self.text += ",v="
            self.expression(("v",), depth)
        self.end()

    def _s_expression(self, depth: int) -> None:
        self.text += "call("
        self.expression((), depth)
        self.text += ")"
        self.end()

    def _s_if(self, depth: int) -> None:
        self.text += self.random.choice(
            ("if(a)", "while(a/b)", "if(/}/.test(a))", "for(;;)", "for(var k in o)", "with(o)")
        )
        self.text += "{"
        self.statement(depth - 1) if depth > 0 else None
        self.text += "}"
        if self.text.endswith("if(a){}"):
            self.text += "else{}"

    def _s_for(self, depth: int) -> None:
        self.text += "for(let n="
        self.expression(("n",), depth - 1)
        self.text += ";;)a();"

    def _s_function(self, depth: int) -> None:
        self.function((), depth, declared=True)

    def _s_class(self, depth: int) -> None:
        self.klass((), depth, declared=True)

    def _s_label(self, depth: int) -> None:
        self.text += "here:"
        self.statement(depth - 1) if depth > 0 else self._s_expression(0)

    def _s_try(self, depth: int) -> None:
        self.text += "try"
        self.block(0)
        self.text += self.random.choice(("catch(e)", "catch"))
        self.block(depth - 1)
        self.text += "finally{}"

    def _s_switch(self, depth: int) -> None:
        self.text += "switch(a){case 1:"
        self._s_expression(depth - 1)
        self.text += "default:"
        self._s_expression(depth - 1)
        self.text += "}"

    def _s_do(self, depth: int) -> None:
        self.text += "do "
        self.block(0)
        self.text += "while(a);"
        self._s_expression(depth - 1)


_KINDS = ("function", "arrow", "class", "call", "array", "group", "choice", "either", "template", "assign", "object")


def script(seed: int, statements: int = 3, depth: int = 3) -> Script:
    """Return a script of some statements."""
    made = Script(random.Random(seed))
    for _ in range(statements):
        made.statement(depth)
    return made
