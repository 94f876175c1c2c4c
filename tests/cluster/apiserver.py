"""A real kube-apiserver and its etcd, in a folder of their own, on the loopback interface only.

Rules of this file: nothing is shared with another server of the same machine (ports, folder, store: each is checked);
nothing stays behind, not even when the tests are killed; both programs can be killed, paused and started again on the
same ports and data.
"""

import base64
import contextlib
import fcntl
import http.client
import json
import os
import random
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import attrs

from tests.cluster.client import Access, ApiError, Client, Json, path_of
from tests.cluster.processes import Leashed

_HOST = "127.0.0.1"
_AUDIENCE = "https://kubernetes.default.svc"
_FOLDER = "gp-apiserver-"
_PROGRAMS = ("etcd", "kube-apiserver")
_PORTS = (20_000, 32_000)  # below the 32768 where Linux starts to hand out ports
_JUST_MADE_S = 60  # between making a folder and locking it
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "RequestResponse", "resources": [{"group": "nvidia.com"}]}, {"level": "Metadata"}],
}


@attrs.frozen
class Options:
    """How to run the server.

    Without *fsync* writes are faster and survive every crash but the machine's; turn it on where times are compared.
    """

    fsync: bool = False
    audit: bool = False
    etcd_flags: tuple[str, ...] = ()
    apiserver_flags: tuple[str, ...] = ()
    ready_within_s: float = 60.0


class StartError(Exception):
    """A program of the fixture did not start; that is a fault of the infrastructure, not of what is tested."""


class ApiServer:
    """One kube-apiserver with one etcd. Use it as a context manager, or `start` and `stop` it."""

    url: str  # the base URL of the API
    folder: Path  # the server's own temporary folder; it goes with the server
    admin: Access  # of a member of system:masters
    client: Client  # with the admin's access
    etcd: Leashed  # to pause or kill
    apiserver: Leashed  # to pause or kill

    def __init__(self, assets: Path, options: Options | None = None) -> None:
        """Prepare to run the programs found in *assets*; nothing runs yet."""
        for program in _PROGRAMS:
            if not os.access(assets / program, os.X_OK):
                msg = f"{assets / program} is not an executable file"
                raise StartError(msg)
        self._assets = assets
        self._options = options or Options()
        self._stack = contextlib.ExitStack()
        self._token = secrets.token_urlsafe(24)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def start(self, *, tries: int = 3) -> Self:
        """Start both programs and wait until they are ready, on other ports when somebody took one of ours."""
        for left in reversed(range(tries)):
            try:
                self._start_once(_Ports(etcd=free_port(), peer=free_port(), api=free_port()))
            except BaseException as fault:
                self.stop()
                if not (left and isinstance(fault, _PortTakenError)):
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """Kill both programs with all their children and remove the folder; no harm when called twice."""
        self._stack.close()

    def kill(self) -> None:
        """Kill -9 the apiserver; etcd and its data stay."""
        self.apiserver.kill()

    def restart(self) -> None:
        """Start the apiserver again after a `kill`, on the same port, data and keys, and wait until it is ready."""
        self.apiserver.start()
        self._wait(self.apiserver, self._api_ready)

    @property
    def ca_file(self) -> Path:
        """Give the file of the certificate authority that signed the server's certificate."""
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def key_file(self) -> Path:
        """Give the file of the server's private key, for a webhook that serves on the same address."""
        return self.folder / "certificates" / "apiserver.key"

    @property
    def audit_file(self) -> Path:
        """Give the file of the audit log: one JSON object a line, when the option is on."""
        return self.folder / "audit.log"

    def namespace(self, prefix: str = "test") -> str:
        """Create a Kubernetes namespace with a new name that starts with *prefix* and give the name."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def service_account(self, namespace: str, name: str, *, seconds: int = 3600) -> Access:
        """Give the access of a ServiceAccount by a TokenRequest; the account is created when it does not exist."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        with existing_is_fine():
            self.client.create(account)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [_AUDIENCE], "expirationSeconds": seconds},
        }
        path = path_of("v1", "serviceaccounts", namespace=namespace, name=name, sub="token")
        return attrs.evolve(self.admin, token=self.client.request("POST", path, request)["status"]["token"])

    def _start_once(self, ports: "_Ports") -> None:
        nonce = f"gp-{secrets.token_hex(8)}"
        self.folder = self._stack.enter_context(_own_folder())
        self.url = f"https://{_HOST}:{ports.api}"
        self.etcd = Leashed("etcd", self._etcd_command(nonce, ports), log=self.folder / "etcd.log")
        self.apiserver = Leashed(
            "kube-apiserver", self._apiserver_command(ports), log=self.folder / "kube-apiserver.log"
        )
        self._stack.callback(self.etcd.kill)
        self._stack.callback(self.apiserver.kill)
        self._write_files()
        self.etcd.start()
        self._wait(self.etcd, lambda: _etcd_answers(ports.etcd))
        _verify_store(ports.etcd, nonce)
        self.apiserver.start()
        self._wait(self.apiserver, self._api_ready)
        self.admin = self._access()
        self.client = self._stack.enter_context(Client(self.admin))

    def _write_files(self) -> None:
        (self.folder / "tokens.csv").write_text(f'{self._token},admin,admin,"system:masters"\n')
        (self.folder / "service-account.key").write_text(_signing_key())
        (self.folder / "audit.json").write_text(json.dumps(_AUDIT_POLICY))

    def _etcd_command(self, nonce: str, ports: "_Ports") -> list[str]:
        client, peer = (f"http://{_HOST}:{port}" for port in (ports.etcd, ports.peer))
        return [
            str(self._assets / "etcd"),
            f"--name={nonce}",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={nonce}={peer}",
            *(() if self._options.fsync else ("--unsafe-no-fsync",)),
            *self._options.etcd_flags,
        ]

    def _apiserver_command(self, ports: "_Ports") -> list[str]:
        keys = self.folder / "service-account.key"
        audit = (f"--audit-policy-file={self.folder / 'audit.json'}", f"--audit-log-path={self.audit_file}")
        return [
            str(self._assets / "kube-apiserver"),
            f"--etcd-servers=http://{_HOST}:{ports.etcd}",
            f"--bind-address={_HOST}",
            f"--advertise-address={_HOST}",
            "--endpoint-reconciler-type=none",  # it refuses a loopback address, every ten seconds
            f"--secure-port={ports.api}",
            f"--cert-dir={self.ca_file.parent}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-account-issuer={_AUDIENCE}",
            f"--api-audiences={_AUDIENCE}",
            f"--service-account-signing-key-file={keys}",
            f"--service-account-key-file={keys}",
            *(audit if self._options.audit else ()),
            *self._options.apiserver_flags,
        ]

    def _wait(self, program: Leashed, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._options.ready_within_s
        while not ready():
            if not program.running:
                taken = "address already in use" in program.tail()
                msg = f"{program.name} ended while starting:\n{program.tail()}"
                raise (_PortTakenError if taken else StartError)(msg)
            if time.monotonic() > deadline:
                msg = f"{program.name} is not ready after {self._options.ready_within_s} s:\n{program.tail()}"
                raise StartError(msg)
            time.sleep(0.02)

    def _access(self) -> Access:
        return Access(url=self.url, ca=self.ca_file.read_text(), token=self._token)

    def _api_ready(self) -> bool:
        try:
            with Client(self._access(), timeout_s=5) as probe:
                probe.get("/readyz")
                probe.get(path_of("v1", "namespaces", name="default"))  # made by a controller, a little later
        except (ApiError, OSError, http.client.HTTPException):
            return False  # not listening yet, certificate half written, hooks still running
        return True


@contextlib.contextmanager
def existing_is_fine() -> Iterator[None]:
    """Pass over a 409: what was to be created is there."""
    try:
        yield
    except ApiError as error:
        if error.status != http.HTTPStatus.CONFLICT:
            raise


class _PortTakenError(StartError):
    """Somebody else listens where we wanted to."""


@attrs.frozen
class _Ports:
    etcd: int
    peer: int
    api: int


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Make a temporary folder that others know to be in use as long as this process holds its lock."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of servers whose tests were killed: those whose lock nobody holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*/lock"):
        with contextlib.suppress(OSError), path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - path.stat().st_mtime > _JUST_MADE_S:
                shutil.rmtree(path.parent, ignore_errors=True)


def free_port() -> int:
    """Give a free port outside the range from which the kernel takes ports for outgoing connections."""
    low, high = _PORTS
    for port in random.SystemRandom().sample(range(low, high), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((_HOST, port))
            return port
    msg = f"100 ports of {_HOST} between {low} and {high} are all taken"
    raise StartError(msg)


def _etcd_answers(port: int) -> bool:
    try:
        _ask_etcd(port, "/v3/cluster/member/list", {})
    except (OSError, http.client.HTTPException):
        return False
    return True


def _verify_store(port: int, nonce: str) -> None:
    # A neighbour's etcd on our port would answer too, and we would silently share its store.
    members = [member["name"] for member in _ask_etcd(port, "/v3/cluster/member/list", {})["members"]]
    first = base64.b64encode(b"\0").decode()
    stored = _ask_etcd(port, "/v3/kv/range", {"key": first, "range_end": first, "count_only": True})
    if members != [nonce] or int(stored.get("count", 0)):
        msg = f"the etcd on port {port} is not ours: members {members}, {stored.get('count', 0)} keys"
        raise _PortTakenError(msg)


def _ask_etcd(port: int, path: str, body: Json) -> Json:
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer: Json = json.load(connection.getresponse())
        return answer


def _signing_key() -> str:
    """Make a P-256 private key in PEM (SEC 1, without the optional public half), which needs no library."""
    secret = secrets.randbelow(_P256_ORDER - 1) + 1
    der = bytes.fromhex("303102010104 20") + secret.to_bytes(32, "big") + bytes.fromhex("a00a06082a8648ce3d030107")
    return f"-----BEGIN EC PRIVATE KEY-----\n{base64.encodebytes(der).decode()}-----END EC PRIVATE KEY-----\n"
