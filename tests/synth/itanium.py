"""Random C++ symbols: of the grammar but mostly of no program, rich in references, packs and conversions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

__all__ = ["doubling", "forward_arguments", "mutated", "symbol"]


def doubling(levels: int) -> str:
    """Return a symbol whose last parameter holds two of the one before, and so on."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    types = ["1aIiiE"]
    for level in range(levels):
        reference = digits[level] if level < 36 else digits[level // 36 - 1] + digits[level % 36]
        types.append(f"S_IS{reference}_S{reference}_E")
    return "_Z1f" + "".join(types)


def forward_arguments(levels: int) -> str:
    """Return a symbol whose template arguments hold two of the next one each.

    No program has arguments that hold parameters of their own template, but libiberty prints these.
    """
    parameters = ["T_"] + [f"T{n}_" for n in range(levels)]
    arguments = "".join(f"R1gIR{p}R{p}E" for p in parameters[1:])
    return f"_Z1fI{arguments}RiERT_v"


def symbol(random: Random, depth: int = 3) -> str:
    """Return a symbol; about one in three is one that demanglers accept."""
    return "_Z" + _encoding(random, depth)


def _parameter(random: Random) -> str:
    return random.choice(("T_", "T0_", "T1_"))


def _type(random: Random, depth: int) -> str:
    kind = random.random()
    if depth <= 0 or kind < 0.2:
        return random.choice("ijc")
    if kind < 0.45:
        return random.choice(("R", "O", "", "P", "K")) + _parameter(random)
    if kind < 0.55:
        return random.choice(("S_", "S0_", "S1_", "S2_", "S3_"))
    if kind < 0.65:
        return random.choice("ROPG") + _type(random, depth - 1)
    if kind < 0.85:
        return random.choice(("1g", "R1h", "St3map")) + _arguments(random, depth - 1)
    if kind < 0.88:
        return "Dp" + _type(random, depth - 1)
    if kind < 0.91:
        return "DT" + _expression(random, depth - 1) + "E"
    if kind < 0.93:
        return "F" + _type(random, depth - 1) + _type(random, depth - 1) + "E"
    return "Z" + _encoding(random, depth - 1) + "E" + _entity(random, depth - 1)


def _entity(random: Random, depth: int) -> str:
    kind = random.random()
    if kind < 0.3:
        return "1x"
    if kind < 0.6:
        return "Ul" + _type(random, depth) + _type(random, depth) + "E0_"
    if kind < 0.8:
        return "NK1xcv" + _type(random, depth) + "E"
    return "N1x" + _arguments(random, depth) + "1yE"


def _expression(random: Random, depth: int) -> str:
    kind = random.random()
    if depth <= 0 or kind < 0.4:
        return random.choice(("Lj3E", "fp_", "fp0_", "1x")) if kind < 0.3 else _parameter(random)
    if kind < 0.6:
        return "pl" + _expression(random, depth - 1) + _expression(random, depth - 1)
    if kind < 0.7:
        return random.choice(("pp", "pp_", "nt")) + _expression(random, depth - 1)
    if kind < 0.8:
        return "sp" + _expression(random, depth - 1)
    if kind < 0.9:
        return "cv" + _type(random, depth - 1) + _expression(random, depth - 1)
    return "cl" + _expression(random, depth - 1) + _expression(random, depth - 1) + "E"


def _argument(random: Random, depth: int) -> str:
    kind = random.random()
    if kind < 0.75:
        return _type(random, depth)
    if kind < 0.9:
        return "J" + "".join(_type(random, depth) for _ in range(random.randrange(4))) + "E"
    return "X" + _expression(random, depth) + "E"


def _arguments(random: Random, depth: int) -> str:
    return "I" + "".join(_argument(random, depth) for _ in range(random.randint(1, 3))) + "E"


def _encoding(random: Random, depth: int) -> str:
    kind = random.random()
    types = "".join(_type(random, depth) for _ in range(random.randint(1, 3)))
    if kind < 0.7:
        return "1f" + _arguments(random, depth) + random.choice("RO") + _parameter(random) + types
    if kind < 0.8:
        return "N1c" + _arguments(random, depth) + "1f" + _arguments(random, depth) + "E" + types
    if kind < 0.95:
        own = _arguments(random, depth) if kind < 0.9 else ""
        return "NK1c" + _arguments(random, depth) + "cv" + _type(random, depth) + own + "Ev"
    return "1fv"


_TOKENS = (
    "S_ S0_ S1_ S5_ SA_ T_ T0_ RT_ I E N Z J Dp DpT_ 3foo cv cvT_ X sp sr L Lj3E i P R K F v A3_ M St Ss C1 D2 Ul E_"
    " Ut_ B3abi DT pp mm cl fp_ _ 0 U Dv DF16b tl il nw Tp Ty Tn Q fl fr fLpl sZ sP LZ _Z NS_ on dt gs qu W3mod Do DO"
).split()


def mutated(random: Random, name: str) -> str:
    """Return a symbol with some of its parts cut, doubled, moved or replaced by others."""
    for _ in range(random.randint(1, 5)):
        at = random.randint(2, len(name))
        end = min(len(name), at + random.choice((1, 2, 3, 8, 20)))
        kind = random.random()
        if kind < 0.4:
            name = name[:at] + random.choice(_TOKENS) + name[end if kind < 0.2 else at :]
        elif kind < 0.6:
            name = name[:at] + name[end:]
        elif kind < 0.8:
            name = name[:end] + name[at:end] * random.choice((1, 1, 4)) + name[end:]
        else:
            source = random.randint(2, len(name))
            name = name[:at] + name[source : source + random.choice((1, 3, 30))] + name[at:]
    return name
