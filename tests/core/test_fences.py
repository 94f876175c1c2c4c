from hypothesis import given
from hypothesis import strategies as st

from gpcore.fences import Fence, Mint

SEEDS = st.text(max_size=40)


def made(seed: str, count: int) -> list[Fence]:
    """Return the first fences of a seed, each for an object that shows the same."""
    mint, fences = Mint(seed), []
    for _ in range(count):
        fence, mint = mint.fence("old")
        fences.append(fence)
    return fences


@given(seeds=st.lists(SEEDS, min_size=1, max_size=3, unique=True), count=st.integers(1, 20))
def test_no_mark_is_ever_made_twice(seeds: list[str], count: int) -> None:
    marks = [mark for seed in seeds for fence in made(seed, count) for mark in (fence.new, fence.kill)]
    assert len(set(marks)) == len(marks) == 2 * count * len(seeds)


@given(seed=SEEDS, old=st.text(max_size=30))
def test_the_same_mint_makes_the_same_fence_and_a_fence_needs_what_is_there(seed: str, old: str) -> None:
    fence, after = Mint(seed).fence(old)
    assert (fence, after) == Mint(seed).fence(old)
    assert fence.old == old
    assert after != Mint(seed)


def test_a_mark_is_128_bits_of_plain_characters() -> None:
    (fence,) = made("a seed", 1)
    for mark in (fence.new, fence.kill):
        assert len(mark) == 22
        assert mark.isascii()
        assert all(one.isalnum() or one in "-_" for one in mark)
