"""Counting the tokens of inputs, exactly where a tokenizer is given and by learning where none is."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from gpadapters.router.counting import EXACT_BYTES, counter, texts
from gpcore.errors import ConfigError
from tests.cluster.waiting import eventually
from tests.routerworld import FakePool, RouterProcess, aggregated, chat, disaggregated
from tests.routerworld.answers import ask


def _body(**fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    made = Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))  # noqa: S106 - no password
    made.pre_tokenizer = Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_text_is_counted_wherever_it_stands(tokenizer: Path) -> None:
    count = counter(tokenizer)
    assert count(_body(messages=[{"role": "user", "content": "a b c"}, {"role": "assistant", "content": None}])) == 11
    assert count(_body(messages=[{"content": [{"type": "text", "text": "a a"}, {"type": "text", "text": "b"}]}])) == 7
    assert count(_body(prompt="a b")) == count(_body(prompt=["a", "b"])) == count(_body(input=["a b"])) == 2


def test_what_is_not_text_or_is_long_is_not_counted(tokenizer: Path) -> None:
    count = counter(tokenizer)
    assert count(_body(messages=[{"content": [{"type": "image_url", "image_url": {"url": "x"}}]}])) is None
    assert count(_body(prompt=[1, 2, 3])) is None
    assert count(_body(prompt="a " * EXACT_BYTES)) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_texts_or_none(data: bytes) -> None:
    texts(data)


def test_a_file_that_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no tokenizer"):
        counter(tmp_path / "x.json")


def _by_length() -> dict[str, object]:
    """Return a configuration whose decode pool depends on the length alone: `long` from 100 tokens on."""
    config = disaggregated(["p"], ["short", "long"])
    strategy = config["decode_pool_selection_strategy"]
    strategy |= {"context_length_max": 200, "context_length_resolution": 2, "decode_pool_mapping": [[0, 0], [1, 1]]}
    config["decode_pool_priorities"] = [0, 0]
    return config


def test_the_exact_length_chooses_the_pool(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "pools"
    folder.mkdir()
    with FakePool("p", folder) as p, FakePool("short", folder) as short, FakePool("long", folder) as long:
        pools = [f"{one.name}={one.url}" for one in (p, short, long)]
        with RouterProcess(tmp_path, _by_length(), pools=pools, flags=("--tokenizer", str(tokenizer))) as router:
            words = ask(router.port, chat(messages=[{"role": "user", "content": "a " * 95}]))
            more = ask(router.port, chat(messages=[{"role": "user", "content": "a " * 96}]))
            letters = ask(router.port, chat(messages=[{"role": "user", "content": "a" * 4000}]))
    assert [one.headers["x-gp-pool"] for one in (words, more, letters)] == ["short", "long", "short"]


def test_the_length_is_learned_from_what_engines_count_and_misroutes_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "pools"
    folder.mkdir()
    with FakePool("p", folder) as p, FakePool("short", folder) as short, FakePool("long", folder) as long:
        pools = [f"{one.name}={one.url}" for one in (p, short, long)]
        request = chat(messages=[{"role": "user", "content": "x" * 500}])  # the engine says that it is 7 tokens
        with RouterProcess(tmp_path, _by_length(), pools=pools) as router:
            assert ask(router.port, request).headers["x-gp-pool"] == "long"
            assert router.measure("gp_router_misroutes_total", dynamo_namespace="long") == 1

            def learned() -> bool:
                return ask(router.port, request).headers["x-gp-pool"] == "short"

            eventually(learned, every_s=0.05)


def test_the_output_counts_by_half_where_that_is_switched_on(tmp_path: Path) -> None:
    folder = tmp_path / "pools"
    folder.mkdir()
    with FakePool("p", folder) as p, FakePool("short", folder) as short, FakePool("long", folder) as long:
        pools = [f"{one.name}={one.url}" for one in (p, short, long)]
        (tmp_path / "off").mkdir()
        with RouterProcess(tmp_path / "off", _by_length(), pools=pools) as router:
            assert ask(router.port, chat()).headers["x-gp-pool"] == "short"
        with RouterProcess(tmp_path, _by_length(), pools=pools, flags=("--half-output",)) as router:
            assert ask(router.port, chat()).headers["x-gp-pool"] == "long", "256 tokens are expected at first"


def test_at_debug_each_request_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "pools"
    folder.mkdir()
    with (
        FakePool("slow", folder) as pool,
        RouterProcess(
            tmp_path, aggregated("slow"), pools=[f"slow={pool.url}"], flags=("--log-level", "debug")
        ) as router,
    ):
        assert ask(router.port, chat()).status == 200
        eventually(lambda: "200 from 127.0.0.1" in router.log)
