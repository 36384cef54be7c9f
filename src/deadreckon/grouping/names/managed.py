"""Names of managed and scripted code: Java, Kotlin and their proxies, C#, JavaScript, Python, Ruby, PHP."""

from __future__ import annotations

import re

__all__ = ["dotnet", "java", "javascript", "php", "python", "ruby"]

_GENERATED = (
    # What is made up while a program runs is numbered in the order of its making.
    r"(\$\$Lambda\$[A-Za-z]\w*)\$[\w-]{16,}"
    r"|(\$\$Lambda)(?:\$\d+/(?:0x)?[0-9a-f]+|\$\d+|[$/]0x[0-9a-f]+)"
    r"|(LambdaForm\$[A-Z]+)(?:\$\d+)?(?:/0x[0-9a-f]+|/\d+)?"
    r"|((?:Enhancer|FastClass)By\w+)\$\$[0-9a-f]+(?:_\d+)?"
    r"|(\$\$(?:Spring|Quarkus)?CGLIB)\$\$(?:[0-9a-f]+|\d+)"
    r"|(\$(?:ByteBuddy|HibernateProxy|MockitoMock|HibernateInstantiator|HibernateAccessOptimizer|auxiliary))\$\w+"
    r"|(_\$\$_(?:javassist(?:_seam)?|jvst\w{3}|Weld\w+))_[0-9a-f]+"
    r"|(Generated(?:Serialization)?(?:Method|Constructor)Accessor)\d+"
    r"|(\$Proxy)\d+"
    r"|(\$\$ExternalSynthetic\w+?)\d+"
    r"|(\$r8\$lambda)\$[\w-]+"
    r"|(\$\$anonfun\$\w*|\$anonfun\$\w*?)(?:\$\d+)+"
)
_PROXY_PACKAGE = r"^(?:jdk\.proxy\d+|com\.sun\.proxy)\."


def java(text: str) -> str:
    """Return a class or method name of the JVM without numbers of lambdas, anonymous classes, proxies and accessors."""
    text = text.partition("(")[0] or text
    if "$" in text or "Generated" in text or "LambdaForm" in text:
        text = re.sub(_GENERATED, lambda m: next(g for g in m.groups() if g), text)
        text = re.sub(_PROXY_PACKAGE, "", text)
        text = re.sub(r"(lambda\$\w*?|access)\$\d+\b", r"\1", text)
        text = re.sub(r"(?:\$\d+)+(?=$|[.$/])", "$", text)  # Anonymous classes, one in another.
        text = re.sub(r"(?<=\w)\$\w+_(?:debug|release)$", "", text)  # Kotlin's internal functions name their module.
    text = re.sub(r"__\d+(?=$|[.$])", "", text)  # Clojure's fn__1234.
    return re.sub(r"(?<=\w)-(?=[\w-]*[A-Z0-9_-])[A-Za-z0-9_-]{7}$", "", text)  # Kotlin: a hash of value classes.


def dotnet(text: str) -> str:
    """Return a .NET name without arguments, arity and numbers; what the compiler split off has its method's name."""
    text = re.sub(r" ?\(.*", "", text, flags=re.DOTALL) or text
    text = re.sub(r"`\d+(?:\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\])?", "", text)
    text = re.sub(r"\[[\w.,` ]*\]$", "", text)
    if "<" in text:
        text = re.sub(r"<>c(?:__DisplayClass\d+_\d+|__\d+)?[.+]", "", text)
        text = re.sub(r"<(\w+)>g__(\w+)\|\d+(?:_\d+)?", r"\1.\2", text)
        text = re.sub(r"<(\w*)>b__\d+(?:_\d+)?", r"\1.lambda", text)
        text = re.sub(r"<(\w+)>d(?:__\d+)?(?:[.+]MoveNext)?", r"\1", text)
    text = re.sub(r"\b(lambda_method)\d+", r"\1", text)
    return re.sub(r"_m[0-9A-F]{40}(?:_gshared)?$", "", text)  # IL2CPP.


_JS_ANONYMOUS = frozenset(
    {"", "?", "<anonymous>", "anonymous", "Anonymous function", "<anonymous function>", "<unknown>"}
)


def javascript(text: str) -> str:
    """Return the last part of a JavaScript function's name, ``anonymous`` where it has none.

    What stands before the last dot is the receiver, which only some engines tell, and not all the same way.
    """
    text = re.sub(r" \[as [^\]]*\]$", "", text.strip())
    text = re.sub(r"^(?:async |new |get |set |static |bound )+", "", text)
    if match := re.match(r"(?:Module|Object)\.(\.{0,2}/.*)", text, re.DOTALL):  # webpack calls modules by their paths.
        return file_in_bundle(match[1])
    text = re.sub(r"^\?anon_\d+_", "", text)
    text = re.sub(r"(?:/?<)+$", "", text)  # Firefox: what is defined inside.
    text = text.rpartition("/")[2] if "/" in text else text
    if text.endswith(("<anonymous>", "<computed>")):
        return "anonymous"
    text = text.rpartition(".")[2]
    text = re.sub(r"^(_callee)\d*(\$?)$", r"\1", text)
    if text.isdecimal() or text in _JS_ANONYMOUS:
        return "anonymous"
    return text


def file_in_bundle(path: str) -> str:
    """Return a module's path inside a bundle, without the loaders before it and the query after it."""
    return path.rpartition("!")[2].partition("?")[0].removeprefix("./")


def python(text: str) -> str:
    """Return a Python function's qualified name without the word for "inside of"; Cython's wrappers have its name."""
    text = text.replace(".<locals>", "")
    if "__pyx_p" in text:
        text = re.sub(r"^__pyx_p[wf]_(?:\d+\w+?_)*\d+_{0,2}", "", text) or text
    return text


def ruby(text: str) -> str:
    """Return the method that a block, a rescue or an ensure stands in; without the numbers that templates get."""
    text = re.sub(r"^(?:(?:block|rescue|ensure)(?: \(\d+ levels\))? in )+", "", text)
    return re.sub(r"__+\d{4,}(?:_\d+)*$", "", text)


def php(text: str) -> str:
    """Return a PHP name without where its anonymous class or closure stands in the source."""
    text = re.sub(r"(class@anonymous)[\0:/][^$]*(?:\$[0-9a-f]+)?", r"\1", text)
    return re.sub(r"\{closure:[^{}]*\}", "{closure}", text)
