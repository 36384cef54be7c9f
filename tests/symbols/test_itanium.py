from __future__ import annotations

from random import Random

import pytest

from deadreckon.symbols import demangle as demangler
from deadreckon.symbols.itanium import expansion
from synth import itanium as synth

LIMIT = 1 << 19


def printed(name: str) -> int | None:
    runtime = demangler._runtime()
    if runtime is None:
        pytest.skip("no C++ runtime here")
    text = runtime[1](name.encode())
    return None if text is None else len(text)


@pytest.mark.parametrize(
    "name",
    [
        "_ZN3app5PointC1Ei",
        "_Z1fSsSsSsSs",
        "_ZNSsC1ERKSs",
        "_Z1fyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
        "_ZN12_GLOBAL__N_11fEv",
        "_Z1fIJiilldd1aEEvDpT_",
        "_ZN1aIiEcvT_IiEEv",
        "_ZN4ConvIiEcvT_IS_EEv",
        "_ZN3app3sumIJilcEEEDTfrplfp_EDpT_",
        "_ZTch0_h16_N3app1C4selfEv",
        "_ZZ4mainENKUlvE_clEv",
        *map(synth.doubling, range(6)),
        *map(synth.forward_arguments, range(1, 8)),
    ],
)
def test_bound_holds(name: str) -> None:
    length = printed(name)
    bound = expansion(name.encode(), LIMIT)
    assert length is not None
    assert bound is None or bound >= length


@pytest.mark.parametrize(
    "name",
    [
        "_Z1fIiQ1CIT_EEvS0_",
        "_Z1fIiEvT_Q1CIS0_E",
        "_Z1fITk1CiEvT_",
        "_ZNH1a1fES_",
        "_ZN1aC1EDF16bDB8_DU7_u3veci",
        "_ZNW3mod1a1fEv",
        "_Z1fIXsrSt7is_sameIiiE5valueEEvv",
        "_Z1fDv4_fDv_Lj4E_i",
        "_ZNKUlTyTnT_TpTyDpT_E_clEv",
        "_ZGR1x0_",
        "_ZTCN1aE0_1b",
        "_ZGVZ1fvE1x_0",
        "_ZN1aDC1x1yEE",
        "_Z1fDOLb1EFvvEDwiEFvvE",
    ],
)
def test_newer_forms_are_of_the_grammar(name: str) -> None:
    """The C function may or may not know them; it is asked."""
    assert expansion(name.encode(), LIMIT) is not None


@pytest.mark.parametrize(
    "name",
    [
        "_Z1fIiEvT_\xff",
        "_Z1fIiEvT_S9_",
        "_Z1fIiEvT_S_9",
        "_Z1fIiEvT_Z",
        "_Z1fIiEvT_99a",
        "_Z1fIiEvT_999999999999a",
        "_Z1fIiEvT_U",
        "_ZT_",
        "_Z1f" + "S_IS_S_E" * 20,
        "_Z" + "N" * 4000,
        "_Z1f" + "P" * 4000 + "i",
        "_Z1fI" + "1aI" * 1000,
        "_ZN1a" + "cv1bI" * 40 + "E" * 40,
        "_Z1fDTsr1aC",
        "_Z1fDTsr1a1bDE",
        "_ZNS_ET_",
        "_ZSsT_",
    ],
)
def test_refused(name: str) -> None:
    assert expansion(name.encode("latin-1"), LIMIT) is None


@pytest.mark.parametrize("name", ["", "main", "_Z", "_Z1", "_Z99a", "_Z1fS_", "_ZZZZ", "_ZNS_E", "_Z1fSsS_S_S_"])
def test_what_refers_to_little_is_small(name: str) -> None:
    """No grammar is needed to tell, so none of these is refused; the C function may well find nothing in them."""
    bound = expansion(name.encode(), LIMIT)
    assert bound is not None
    assert bound >= (printed(name) or 0)


def test_doubling_is_seen_early() -> None:
    for levels in range(24):
        bound = expansion(synth.doubling(levels).encode(), 1 << 40)
        assert bound is not None
        assert bound > 1 << levels
    assert expansion(synth.doubling(22).encode(), LIMIT) is None
    assert expansion(synth.forward_arguments(22).encode(), LIMIT) is None
    assert expansion(b"_Z1fIJ" + b"i" * 40 + b"EEv" + b"Dp" * 40 + b"T_", LIMIT) is None
    assert expansion(b"_Z1fIiEDT" + b"pp" * 40 + b"fp_ET_", LIMIT) is None


def test_long_symbols_cost_little() -> None:
    assert expansion(b"_Z1f" + b"i" * 4000, 1 << 20) is not None
    assert expansion(b"_Z1f" + b"i" * 1_000_000, LIMIT) is None
    assert expansion(b"_ZN" + b"3foo" * 250_000 + b"Ev", LIMIT) is None
    assert expansion(b"_Z1f" + b"S_" * 500_000, LIMIT) is None


@pytest.mark.parametrize("seed", range(8))
def test_bound_holds_for_random_symbols(seed: int) -> None:
    random = Random(seed)
    accepted = 0
    for _ in range(1500):
        name = synth.symbol(random, random.randint(1, 3))
        if random.random() < 0.3:
            name = synth.mutated(random, name)
        bound = expansion(name.encode(), LIMIT)
        if bound is None:
            continue
        length = printed(name)
        if length is not None:
            accepted += 1
            assert bound >= length, name
    assert accepted > 100
