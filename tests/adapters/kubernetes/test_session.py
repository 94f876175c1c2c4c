"""Which configurations are accepted, and how the environment decides between them."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpadapters.kubernetes.cluster import connect
from gpadapters.kubernetes.session import LostError, Session, load_configuration
from gpcore.errors import ConfigError
from tests.adapters.kubernetes.scripted import DOMAIN, Scripted


async def problems_of(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        async with connect(["ns"], domain=DOMAIN, kubeconfig=path):
            pass
    return str(refused.value)


async def test_a_server_that_is_not_verified_is_refused(tmp_path: Path) -> None:
    options = {"server": "https://api.example", "insecure-skip-tls-verify": True}
    path = Scripted().kubeconfig(tmp_path, **options)  # type: ignore[arg-type]
    assert "insecure-skip-tls-verify is set" in await problems_of(path)


@pytest.mark.parametrize("server", ["http://api.example", "http://192.0.2.1:80", "ftp://api.example"])
async def test_a_token_is_not_sent_in_the_clear_to_another_machine(server: str, tmp_path: Path) -> None:
    assert "must be an https URL" in await problems_of(Scripted().kubeconfig(tmp_path, server=server))


@pytest.mark.parametrize(
    "content", ["", "[]", "clusters: 7", "{", '{"current-context": "x"}', "a: !!python/object:x {}"]
)
async def test_a_file_that_is_no_kubeconfig_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    assert f"{path} is not usable" in await problems_of(path)


async def test_a_missing_file_and_a_missing_context_are_refused(tmp_path: Path) -> None:
    assert "is not usable" in await problems_of(tmp_path / "none")
    path = Scripted().kubeconfig(tmp_path, server="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="nowhere"):
        await load_configuration(path, "nowhere")


async def test_the_token_of_a_kubeconfig_is_used(tmp_path: Path) -> None:
    path = Scripted().kubeconfig(tmp_path, server="http://127.0.0.1:1/")
    configuration = await load_configuration(path)
    assert configuration.host == "http://127.0.0.1:1"
    assert configuration.api_key == {"BearerToken": "Bearer the-token"}


async def test_a_server_that_is_not_there_is_lost(tmp_path: Path) -> None:
    path = Scripted().kubeconfig(tmp_path, server="http://127.0.0.1:1")
    async with Session(lambda: load_configuration(path)) as session:
        with pytest.raises(LostError, match="Cannot connect"):
            await session.request("GET", "/")


def test_the_official_client_is_whole_for_everybody_else() -> None:
    script = (
        "import sys, gpadapters.kubernetes.session as ours\n"
        "assert 'kubernetes' not in sys.modules\n"
        "import kubernetes, kubernetes.aio.config\n"
        "assert kubernetes.client.CoreV1Api and kubernetes.aio.client.CoreV1Api\n"
        "assert ours.Configuration is not kubernetes.aio.client.Configuration\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)
