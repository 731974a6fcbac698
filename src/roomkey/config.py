"""
The configuration of a server: the settings of all components in one value, read once and checked at once.

The command line overrides the environment, which overrides ``roomkey.toml``, which overrides the defaults.
Variables are called ``ROOMKEY_<SECTION>_<NAME>``; a few have shorter names (``SHORT_NAMES``).
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from roomkey.access.settings import AccessSettings
from roomkey.access.settings import problems as problems_of_access
from roomkey.api.settings import ApiSettings
from roomkey.audit.settings import AuditSettings
from roomkey.backends import urls
from roomkey.documents.settings import DocumentSettings
from roomkey.domain.access import EVERYTHING_WRITABLE, Grants
from roomkey.domain.policy import PRESETS, SessionPolicy
from roomkey.encryption.settings import EncryptionSettings
from roomkey.encryption.settings import problems as problems_of_encryption
from roomkey.errors import ConfigurationError, explain
from roomkey.hooks.settings import HookSettings, WebhookSettings
from roomkey.hooks.settings import problems as problems_of_hooks
from roomkey.issuers.settings import Issuer, clashes_of
from roomkey.observability.settings import LogSettings
from roomkey.realtime.protocol.message_types import compile_types
from roomkey.realtime.settings import RealtimeSettings
from roomkey.security import masterkey
from roomkey.security.apikeys import ApiKey, ApiKeys
from roomkey.security.certificates import ClientCertificate, ClientCertificates
from roomkey.security.injection import InspectionSettings
from roomkey.security.login import LoginSettings
from roomkey.security.networks import is_loopback
from roomkey.security.settings import LimitSettings
from roomkey.sessions.settings import JanitorSettings
from roomkey.setting_rules import clashes
from roomkey.settings import SourcedValue, in_words, nearest, read
from roomkey.storage_settings import BrokerSettings, NodesSettings, StorageSettings, location_contradictions
from roomkey.threats.settings import ThreatSettings
from roomkey.transports import HttpSettings, TransportSettings
from roomkey.transports.hosts import LOCAL

FILE: Final = "roomkey.toml"

SHORT_NAMES: Final[Mapping[str, str]] = {
    "SESSION_TTL": "sessions.lifetime",
    "SESSION_STORAGE": "storage.url",
    "REDIS_URL": "storage.redis_url",
    "DATABASE_URL": "storage.database_url",
    "ROOMKEY_MASTER_KEY": "security.master_key",
    "ROOMKEY_MASTER_KEY_FILE": "security.master_key_file",
    "ROOMKEY_API_KEYS": "security.api_keys",
}
"""Variables whose names do not follow from the setting; the first four are those of the specification."""

NOT_SETTINGS: Final = frozenset(
    {"ROOMKEY_CONFIG", "ROOMKEY_URL", "ROOMKEY_KEY", "ROOMKEY_STRICT", "ROOMKEY_VENV", "ROOMKEY_TEST_SERVERS"}
)
"""Variables that set nothing: of the command line, and of the scripts of this repository."""

_OF_KUBERNETES: Final = re.compile(
    r"ROOMKEY(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""What Kubernetes tells every container about services whose names begin with ours (also where links of Docker are)."""

SECRETS: Final = frozenset({"access.secret", "security.master_key", "storage.password"})
"""Settings whose values are never shown."""

URLS: Final = frozenset(
    {
        "access.url",
        "audit.url",
        "broker.url",
        "storage.url",
        "storage.documents",
        "storage.redis_url",
        "storage.database_url",
    }
)
"""Settings that may be URLs with passwords in them, which are not shown."""

SHARED: Final[Mapping[str, str]] = {
    "api.allowed_origins": "security.allowed_origins",
    "api.websocket_path": "realtime.path",
    "realtime.allowed_origins": "security.allowed_origins",
}
"""Settings of components that cannot be set there, and the one setting that replaces them."""


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Address, TLS and limits of the server."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 3000
    """Port to listen on; 0 lets the system choose."""
    workers: int | Literal["auto"] = 1
    """Number of processes that serve the port, each a node of its own; ``auto``: one per core."""
    node: str | None = None
    """Name with which ``Roomkey-Node`` begins in responses, before what is random for each process. Off: just that."""
    dev: bool = False
    """Allow everything to everyone on this machine, and serve the demo."""
    backlog: int = 4096
    """Maximum number of connections that the system keeps waiting until they are accepted."""
    keep_alive: timedelta = timedelta(seconds=15)
    """Time after which an idle HTTP connection is closed."""
    max_connections: int | None = None
    """Maximum number of open connections; beyond it requests get 503. Off: the limit on open files, less a reserve."""
    drain: timedelta = timedelta(seconds=10)
    """Time that open sockets and requests have to finish when the server stops."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that requests may name, such as ``*.example.com``; others get 421. None given: in ``--dev`` the local ones,
    otherwise all, as for ``*``."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks (CIDR) of proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed."""
    tls_cert: Path | None = None
    """File with the certificate chain (PEM)."""
    tls_key: Path | None = None
    """File with the private key of the certificate (PEM)."""
    tls_client_ca: Path | None = None
    """File with the authority that must have signed the certificates of clients (PEM)."""
    tls_client_auth: Literal["required", "optional"] = "required"
    """Whether clients without a certificate are turned away, where there is an authority for them."""
    tls_handshake_timeout: timedelta = timedelta(seconds=10)
    """Time from connecting to the end of the TLS handshake."""
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """Header in which trusted proxies write who asked them; they must drop what clients wrote there."""

    @property
    def worker_count(self) -> int:
        """Number of processes that serve the port."""
        return _usable_cores() if self.workers == "auto" else self.workers

    @property
    def hosts(self) -> Sequence[str] | None:
        """Hosts that requests may name; ``None``: any."""
        if "*" in self.allowed_hosts or not (self.allowed_hosts or self.dev):
            return None
        return self.allowed_hosts or (*LOCAL, self.host)

    @property
    def is_local(self) -> bool:
        """Whether nobody outside this machine can connect."""
        return is_loopback(self.host)


class HealthSettings(Struct, frozen=True, kw_only=True):
    """When health is degraded."""

    degraded_from: int = 10_000
    """Number of sessions from which health is ``degraded``."""


class SecuritySettings(Struct, frozen=True, kw_only=True):
    """Keys of the server, keys of its callers, and limits on browsers."""

    master_key: str | None = None
    """Key that all other keys are derived from. Without one a storage on this machine gets a key file; one on a server
    needs it, the same on all nodes."""
    master_key_file: Path | None = None
    """File with the master key, which only its owner may read."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may use REST and open sockets from a browser."""
    api_keys: tuple[ApiKey, ...] = ()
    """Names, roles and digests of API keys, as ``roomkey keys generate`` prints them."""
    client_certificates: tuple[ClientCertificate, ...] = ()
    """Certificates of clients, and the name of the API key that stands behind each."""
    issuers: tuple[Issuer, ...] = ()
    """Issuers of JSON Web Tokens, such as OpenID providers, whose users get sessions for them."""

    def __repr__(self) -> str:
        return f"SecuritySettings(allowed_origins={self.allowed_origins!r}, api_keys={self.api_keys!r})"


class Config(Struct, frozen=True, kw_only=True):
    """All settings by section. ``sources`` says where each was set; a setting that is not in it has its default."""

    server: ServerSettings = ServerSettings()
    storage: StorageSettings = StorageSettings()
    broker: BrokerSettings = BrokerSettings()
    nodes: NodesSettings = NodesSettings()
    sessions: SessionPolicy = SessionPolicy()
    access: AccessSettings = AccessSettings()
    hooks: HookSettings = HookSettings()
    webhooks: WebhookSettings = WebhookSettings()
    security: SecuritySettings = SecuritySettings()
    login: LoginSettings = LoginSettings()
    limits: LimitSettings = LimitSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    http: HttpSettings = HttpSettings()
    api: ApiSettings = ApiSettings()
    websocket: TransportSettings = TransportSettings()
    realtime: RealtimeSettings = RealtimeSettings()
    documents: DocumentSettings = DocumentSettings()
    janitor: JanitorSettings = JanitorSettings()
    health: HealthSettings = HealthSettings()
    threats: ThreatSettings = ThreatSettings()
    audit: AuditSettings = AuditSettings()
    inspection: InspectionSettings = InspectionSettings()
    log: LogSettings = LogSettings()
    sources: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def default_grants(self) -> Grants:
        """The grants of a session that was created without any."""
        if self.server.dev and "access.default_grants" not in self.sources:
            return EVERYTHING_WRITABLE
        return self.access.default_grants

    def master_key(self) -> bytes | None:
        """
        The master key; ``None`` if none is given and sessions are in memory or on a server. Beside files it is made.

        Raises:
            ConfigurationError: If the key that is given or found cannot be used.
        """
        if self.security.master_key is not None:
            return masterkey.check(self.security.master_key)
        if self.security.master_key_file is not None:
            return masterkey.load(self.security.master_key_file)
        file = self.storage.key_file
        return None if file is None else masterkey.load_or_create(file)


SECTIONS: Final = tuple(name for name in Config.__struct_fields__ if name != "sources")

Layer = dict[str, SourcedValue]
"""The settings of one source, by names such as ``server.port``."""


def load(
    file: Path | None = None,
    overrides: Mapping[str, SourcedValue] | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    listening: bool = False,
) -> Config:
    """
    The configuration made of ``overrides`` (the command line), ``environment`` and ``file``.

    ``file`` defaults to the one that ``ROOMKEY_CONFIG`` names, or else to ``roomkey.toml`` in the working directory
    if it exists. With ``listening`` the configuration must also be safe to listen with.

    Raises:
        ConfigurationError: With everything that is wrong.
    """
    problems: list[str] = []
    given = _from_file(_chosen_file(file, environment), problems)
    given |= _from_environment(environment, problems)
    given |= overrides or {}
    problems.extend(
        f"{name}: set {SHARED[name]} instead, which holds for all ({given[name].source})"
        for name in given.keys() & SHARED
    )
    config = Config(
        **{section: _read_section(section, given, problems) for section in SECTIONS},
        sources={name: entry.source for name, entry in given.items()},
    )
    config = _with_url_of_file(config, problems)
    problems.extend(_misspelt(environment))
    problems.extend(contradictions(config))
    if listening:
        problems.extend(exposure(config))
        problems.extend(secrets_apart(config))
    if problems:
        raise ConfigurationError(*problems)
    return config


class Setting(Struct, frozen=True):
    """One line of the effective configuration, as it may be shown."""

    name: str
    value: str
    source: str


def describe(config: Config) -> list[Setting]:
    """Every setting with its value in words, secrets hidden, and where it came from."""
    lines: list[Setting] = []
    for name, value in _values(config):
        shown = "<hidden>" if name in SECRETS and value is not None else in_words(value)
        if name == "webhooks.endpoints":
            shown = in_words([str(endpoint) for endpoint in config.webhooks.endpoints])  # without their secrets
        if name in URLS:
            shown = urls.shown(shown)
        lines.append(Setting(name, shown, config.sources.get(name, "default")))
    return lines


def contradictions(config: Config) -> Iterator[str]:
    """Problems of settings that can be read, alone or together with others."""
    server, security = config.server, config.security
    yield from clashes({name: value for name, value in _values(config) if name.endswith("path")})
    if (server.tls_cert is None) != (server.tls_key is None):
        yield "server.tls_cert and server.tls_key belong together: only one is given"
    if server.tls_client_ca is not None and server.tls_cert is None:
        yield "server.tls_client_ca: client certificates need server.tls_cert and server.tls_key"
    if security.master_key is not None and security.master_key_file is not None:
        yield "security.master_key and security.master_key_file: give one of them"
    yield from location_contradictions(config.storage, config.broker)
    yield from problems_of_encryption(config.encryption)
    yield from _workers_apart(config)
    try:
        ApiKeys(security.api_keys)
    except ValueError as error:
        yield f"security.api_keys: {error}"
    yield from _certificates_without_keys(config)
    yield from _issuers_not_to_trust(config)
    yield from problems_of_access(config.access)
    yield from problems_of_hooks(config.hooks, config.webhooks)
    try:
        compile_types(config.realtime.message_types)
    except ConfigurationError as error:
        yield from error.problems


def _issuers_not_to_trust(config: Config) -> Iterator[str]:
    issuers, retention = config.security.issuers, config.janitor.event_retention
    yield from (f"security.issuers: {clash}" for clash in clashes_of(issuers))
    if any(each.max_age + each.leeway > retention for each in issuers):
        # The log says which users were ended since their tokens were issued.
        yield f"security.issuers: max_age must be at most janitor.event_retention, which is {in_words(retention)}"


def exposure(config: Config) -> Iterator[str]:
    """Reasons not to listen on an address that others can reach."""
    server = config.server
    if server.is_local:
        return
    if server.dev:
        yield f"server.dev: --dev lets everyone in, so it listens on this machine only, not on {server.host}"
    elif not config.security.api_keys and not config.security.issuers:
        yield f"security.api_keys: without any the server listens on this machine only, not on {server.host}"


def secrets_apart(config: Config) -> Iterator[str]:
    """Reasons not to work on a storage that other nodes may use, and this one after a restart."""
    storage, security = config.storage, config.security
    has_key = security.master_key is not None or security.master_key_file is not None
    if config.server.dev or has_key or "://" not in storage.location or not urls.is_remote(storage.location):
        return
    yield (
        "security.master_key: nodes on one server need the same, or what one makes is a forgery to the others; "
        "`roomkey keys generate --master` makes one"
    )


def _certificates_without_keys(config: Config) -> Iterator[str]:
    """Client certificates that lead nowhere."""
    entries, names = config.security.client_certificates, {key.name for key in config.security.api_keys}
    if entries and config.server.tls_client_ca is None:
        yield "security.client_certificates: they are verified by server.tls_client_ca, which is not given"
    yield from (
        f"security.client_certificates: there is no API key with the name {entry.key!r}"
        for entry in entries
        if entry.key not in names
    )
    try:
        ClientCertificates(entries)
    except ValueError as error:
        yield f"security.client_certificates: {error}"


def _workers_apart(config: Config) -> Iterator[str]:
    """Reasons for one process only."""
    if config.server.worker_count == 1:
        return
    advice = "run one worker, or give keys and a storage that processes share: file, redis or database"
    if config.server.dev:
        yield f"server.workers: --dev is for a look at one process; {advice}"
    if any(place.lower().startswith("memory://") for place in _locations(config)):
        yield f"server.workers: in memory every worker would have sessions and documents of its own; {advice}"


def _locations(config: Config) -> Sequence[str]:
    try:
        return config.storage.location, config.storage.documents_location
    except ConfigurationError:
        return ()  # said already


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    """Every setting that can be set, with its value."""
    for section in SECTIONS:
        settings = getattr(config, section)
        for name in settings.__struct_fields__:
            if (full := f"{section}.{name}") not in SHARED:
                yield full, getattr(settings, name)


def _usable_cores() -> int:
    """Cores that this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _with_url_of_file(config: Config, problems: list[str]) -> Config:
    """What ``storage.url_file`` says stands for ``storage.url``."""
    file = config.storage.url_file
    if file is None:
        return config
    if "storage.url" in config.sources:
        problems.append("storage.url and storage.url_file: give one of them")
        return config
    try:
        url = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = explain(error) if isinstance(error, OSError) else "it is not text"
        problems.append(f"storage.url_file: {file} cannot be read: {reason}")
        return config
    sources = {**config.sources, "storage.url": str(file)}
    return replace(config, storage=replace(config.storage, url=url), sources=sources)


def _chosen_file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    if file is not None:
        return file
    if named := environment.get("ROOMKEY_CONFIG"):
        return Path(named)
    try:
        Path(FILE).stat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # to go on without one that cannot be looked at would be another configuration: reading it says why
    return Path(FILE)


def _from_file(file: Path | None, problems: list[str]) -> Layer:
    if file is None:
        return {}
    try:
        # Some editors on Windows put a byte order mark first.
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        problems.append(f"{file} cannot be read: {explain(error)}")
        return {}
    except UnicodeDecodeError:
        problems.append(f"{file} is not UTF-8: save it in that encoding")
        return {}
    except ValueError as error:
        problems.append(f"{file} is not TOML: {error}")
        return {}
    given: Layer = {}
    for section, entries in content.items():
        if section not in SECTIONS:
            problems.append(f"{section}: there is no such section{nearest(section, SECTIONS)} ({file})")
        elif not isinstance(entries, dict):
            problems.append(f"{section}: is a section, [{section}], and not a value ({file})")
        else:
            table: dict[str, Any] = msgspec.convert(entries, dict[str, Any])
            if section == "realtime":
                _read_schemas(table, file.parent, problems)
            given |= {f"{section}.{name}": SourcedValue(value, str(file)) for name, value in table.items()}
    return given


def _read_schemas(table: dict[str, Any], folder: Path, problems: list[str]) -> None:
    """JSON Schemas usually stand in files of their own: a text is the path of one, from where ``roomkey.toml`` is."""
    named = table.get("message_types")
    if not isinstance(named, dict):
        return
    schemas: dict[str, Any] = msgspec.convert(named, dict[str, Any])
    for name, schema in schemas.items():
        if isinstance(schema, str):
            try:
                schemas[name] = msgspec.json.decode((folder / schema).read_bytes())
            except (OSError, msgspec.DecodeError) as error:
                reason = explain(error) if isinstance(error, OSError) else error
                problems.append(f"realtime.message_types.{name}: {folder / schema} cannot be read: {reason}")
                schemas[name] = {}
    table["message_types"] = schemas


def variables() -> dict[str, str]:
    """Every variable that sets something, with the setting's name."""
    names = [
        f"{section}.{name}"
        for section in SECTIONS
        for name in (*getattr(Config(), section).__struct_fields__, *_EXTRA_NAMES.get(section, ()))
    ]
    return {f"ROOMKEY_{name.replace('.', '_')}".upper(): name for name in names if name not in SHARED} | SHORT_NAMES


_EXTRA_NAMES: Final = {"sessions": ("preset",)}
"""Settings that stand for several others."""


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> Layer:
    given: Layer = {}
    for variable, name in variables().items():
        value = environment.get(variable)
        # An empty variable is how many tools say that there is none, and Kubernetes describes
        # a service called roomkey-server in names of ours: ROOMKEY_SERVER_PORT=tcp://10.0.0.7:3000.
        if not value or _is_of_kubernetes(variable, value):
            continue
        other = given.get(name)
        if other is not None and other.value != value:
            problems.append(f"{name}: {other.source} and {variable} say different things")
        given[name] = SourcedValue(value, variable, as_text=True)
    return given


def _is_of_kubernetes(variable: str, value: str) -> bool:
    return value.startswith(("tcp://", "udp://", "sctp://")) or _OF_KUBERNETES.fullmatch(variable) is not None


def _misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like ours and are not: whoever set one believes that it holds."""
    known = variables().keys() | NOT_SETTINGS
    for variable, value in sorted(environment.items()):
        if variable.startswith("ROOMKEY_") and variable not in known and not _is_of_kubernetes(variable, value):
            yield f"{variable}: there is no such variable{nearest(variable, sorted(known))}"


def _read_section(section: str, given: Layer, problems: list[str]) -> Any:
    entries = {name.partition(".")[2]: entry for name, entry in given.items() if name.startswith(section + ".")}
    start = getattr(Config(), section)
    if section == "sessions":
        start = _preset(entries, problems)
    return read(start, section, entries, problems)


def _preset(entries: dict[str, SourcedValue], problems: list[str]) -> SessionPolicy:
    chosen = entries.pop("preset", None)
    if chosen is None:
        return SessionPolicy()
    if chosen.value not in PRESETS:
        problems.append(f"sessions.preset: {chosen.value!r} is none of {', '.join(PRESETS)} ({chosen.source})")
        return SessionPolicy()
    return replace(PRESETS[chosen.value])
