"""How long an input or an output will be, learned from how long they were.

Rules of this file: values only, and every estimate says how far off its like has been. What is learned from came from
outside, so nothing that an answer claims can move an estimate out of its bounds, and no name can fill the memory.
"""

from typing import NamedTuple

import attrs

from gpcore.indexes import Index

MAX_LEARNED = 4_096
"""The most models and routes that are told apart; further ones share what their model has taught."""

MAX_UNITS = 1 << 30
"""The most units that one answer can teach about."""

_KEPT = 1 - 1 / 256
"""What one more answer leaves of the weight of those before it: some 256 of them count."""


class Estimate(NamedTuple):
    """Say how many *tokens* there will be; most such estimates were off by at most *error* tokens, either way."""

    tokens: int
    error: int


@attrs.frozen
class Rate:
    """Hold how many tokens come of one unit, which is never less than *least* nor more than *most*.

    What was seen counts as *tokens* of *units*, more recent answers more; *off* is by which part of themselves
    answers have differed from what was estimated.
    """

    units: float
    tokens: float
    least: float
    most: float
    off: float = 0.5
    seen: int = 0

    def estimate(self, units: int) -> Estimate:
        """Return what *units* will come to."""
        tokens = units * self.tokens / self.units
        return Estimate(round(tokens), round(tokens * self.off))

    def learned(self, units: object, tokens: object) -> "Rate":
        """Return the rate that also knows that *units* came to *tokens*; what cannot be teaches nothing."""
        if type(units) is not int or type(tokens) is not int or not 0 < units <= MAX_UNITS or tokens < 0:
            return self
        real = min(max(tokens, units * self.least), units * self.most)
        expected = units * self.tokens / self.units
        weight = max(1 / (self.seen + 2), 1 - _KEPT)
        return attrs.evolve(
            self,
            units=self.units * _KEPT + units,
            tokens=self.tokens * _KEPT + real,
            off=self.off + (abs(real - expected) / max(real, expected) - self.off) * weight,
            seen=self.seen + 1,
        )


PROMPT = Rate(units=4_000, tokens=1_000, least=1 / 64, most=1.0)
"""Tokens of a byte of input, before anything is known: four bytes are a token of English, and none has no byte."""

OUTPUT = Rate(units=4, tokens=1_024, least=1.0, most=131_072.0)
"""Tokens of an output, before anything is known."""


@attrs.frozen
class Lengths:
    """Hold what was learned for each model, and for each of its routes.

    >>> lengths = Lengths(PROMPT)
    >>> for _ in range(100):
    ...     lengths = lengths.learned("m", "/v1/chat/completions", units=3_000, tokens=1_000)
    >>> 1_950 < lengths.estimate("m", "/v1/chat/completions", units=6_000).tokens <= 2_000
    True
    """

    prior: Rate
    _rates: Index[tuple[str, str | None], Rate] = attrs.field(factory=Index, repr=False)

    def rate(self, model: str, route: str) -> Rate:
        """Return what is known of *route*, else of *model*, else of anything."""
        return self._rates.get((model, route)) or self._rates.get((model, None)) or self.prior

    def estimate(self, model: str, route: str, *, units: int = 1) -> Estimate:
        """Return how many tokens *units* on *route* of *model* will come to."""
        return self.rate(model, route).estimate(units)

    def learned(self, model: str, route: str, *, units: object = 1, tokens: object) -> "Lengths":
        """Return these lengths with what one answer taught."""
        rates = self._rates
        for key, start in (((model, None), self.prior), ((model, route), self.rate(model, route))):
            known = rates.get(key)
            if known is not None or len(rates) < MAX_LEARNED:
                rates = rates.put(key, (known or start).learned(units, tokens))
        return attrs.evolve(self, rates=rates)


def context_length(isl: int, osl: Estimate | None = None) -> int:
    """Return the context for the decode grid: the prompt alone as the peer has it, or with half of the output.

    Half, because that is what the context has grown by on average while the output is written.
    """
    return isl if osl is None else isl + osl.tokens // 2
