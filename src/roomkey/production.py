"""
What no server should run with that others depend on: a table of rules over the configuration.

It knows settings and nothing else. What needs the machine, such as rights of files, ``roomkey doctor`` looks at itself.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_network
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from roomkey.backends import urls
from roomkey.config import Config
from roomkey.domain.access import Access, Role, covers, reaches
from roomkey.domain.policy import OnReuse
from roomkey.encryption.settings import Mode, Unsealed
from roomkey.observability.settings import LogLevel
from roomkey.realtime.settings import AwarenessIdentity
from roomkey.security.injection import Reaction
from roomkey.security.settings import LimitSettings
from roomkey.threats.settings import SignalPolicy

TOO_HIGH: Final = 100
"""A limit that is this many times its default is none."""

LONGEST_LIFETIME: Final = timedelta(days=30)
"""NIST SP 800-63B-4, 2.1.3: the overall timeout at AAL1."""

LONGEST_GRACE: Final = timedelta(minutes=5)
"""More than a page with a bad connection needs to learn its new token."""

LONGEST_BLINDNESS: Final = timedelta(minutes=1)
"""Time for which a revocation may go unnoticed when nodes do not hear each other."""

WIDEST: Final = {4: 8, 6: 7}
"""Shortest prefix of a network that somebody can have (10.0.0.0/8, fc00::/7), by version of IP."""


class Verdict(StrEnum):
    """Result of a check. Only ``FAILED`` keeps the server from starting, or from being safe in production."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(Struct, frozen=True):
    """One thing that was checked; ``advice`` says what to do if it is not ok."""

    subject: str
    verdict: Verdict
    observed: str
    advice: str = ""


class Rule(Struct, frozen=True):
    """
    One way for a setting to be unsafe. ``FAILED``: nobody should run so; ``WARNING``: whoever does needs a reason.

    ``why`` says what is and what follows; ``advice`` what to do.
    """

    setting: str
    verdict: Verdict
    is_broken: Callable[[Config], bool]
    why: str
    advice: str


def unsafe_settings(config: Config) -> Iterator[Finding]:
    """A finding for every rule that a valid configuration breaks, in the order of the rules."""
    for rule in RULES:
        if rule.is_broken(config):
            yield Finding(rule.setting, rule.verdict, rule.why, rule.advice)


# --- what the rules ask -------------------------------------------------------------------------------


def _has_proxy(config: Config) -> bool:
    """Whether a proxy is named; ``*`` names nobody."""
    return any(each != "*" for each in config.server.trusted_proxies)


def _is_bare(config: Config) -> bool:
    """Whether requests come without TLS, and not from a proxy that could have ended it."""
    return config.server.tls_cert is None and not _has_proxy(config)


def _is_anybody(network: str) -> bool:
    """Whether a network is wider than any that one has. Lists of a few halves of the Internet are no less than all."""
    if network == "*":
        return True
    parsed = ip_network(network)
    return parsed.prefixlen < WIDEST[parsed.version]


def _has_only_admins(config: Config) -> bool:
    keys = config.security.api_keys
    return bool(keys) and all(key.role is Role.ADMIN for key in keys)


def _key_lies_beside_the_data(config: Config) -> bool:
    file, storage = config.security.master_key_file, config.storage
    folders = [folder for folder in (urls.folder_of(storage.location), storage.documents_folder) if folder is not None]
    return file is not None and any(file.absolute().is_relative_to(folder) for folder in folders)


def _location(config: Config, setting: str) -> str:
    """The URL that a setting of a place comes to; empty if it is not a place of its own."""
    storage = config.storage
    match setting:
        case "storage.url":
            return storage.location
        case "storage.documents":
            return "" if storage.documents == "same" else storage.documents_location
        case "broker.url":
            return "" if config.broker.url in ("same", "none") else config.broker.location_beside(storage)
        case _:
            return "" if config.audit.url == "same" else storage.location_of(config.audit.url)


def _is_volatile(url: str) -> bool:
    return url.lower().startswith("memory://")


def _is_plain(url: str) -> bool:
    return urls.crosses_network(url) and not urls.demands_tls(url)


def _is_unverified(url: str) -> bool:
    return urls.crosses_network(url) and urls.demands_tls(url) and not urls.verifies_server(url)


def _may_forget_revocations(config: Config) -> bool:
    """Whether replicas take over that need not have heard of a revocation."""
    scheme = config.storage.location.partition("://")[0].lower()
    return scheme.endswith(("+sentinel", "+cluster")) and config.storage.wait_replicas == 0


def _has_password(config: Config, setting: str) -> bool:
    """Whether a password stands where more people read than in a file of its own."""
    value, file = _value(config, setting), config.storage.url_file
    is_of_file = setting == "storage.url" and file is not None and config.sources.get(setting) == str(file)
    return isinstance(value, str) and not is_of_file and urls.shown(value) != value


def _is_unencrypted(config: Config) -> bool:
    """Whether ``auto`` comes to nothing: where records lie on a server."""
    places = config.storage.location, config.storage.documents_location
    return config.encryption.mode is Mode.AUTO and any(map(urls.is_remote, places))


def _gives_everybody(config: Config, access: Access) -> bool:
    """Whether who was given nothing gets this much, and no more, of all documents."""
    given = [grant.access for grant in config.access.default_grants if covers(grant.documents, "**")]
    most = Access.WRITE if any(reaches(each, Access.WRITE) for each in given) else Access.READ
    return bool(given) and most is access


def _is_idle_for_ever(config: Config) -> bool:
    policy = config.sessions
    return policy.idle_timeout is None or policy.idle_timeout >= policy.lifetime


def _overlooks_thieves(config: Config) -> bool:
    policy = config.sessions
    return policy.on_reuse is OnReuse.COMPARE and policy.reuse_window < timedelta(minutes=1)


def _is_too_high(config: Config, setting: str) -> bool:
    return _value(config, setting) > TOO_HIGH * _value(Config(), setting)


def _value(config: Config, setting: str) -> Any:
    section, _, name = setting.partition(".")
    return getattr(getattr(config, section), name)


# --- rules that hold for several settings -------------------------------------------------------------

PLACES: Final = ("storage.url", "storage.documents", "broker.url", "audit.url")
"""Settings of places, which may be on servers."""

URLS: Final = (*PLACES, "storage.redis_url", "storage.database_url")
"""Settings that may have a password in them."""

_BOUNDS: Final = {
    "limits": tuple(name for name, value in asdict(LimitSettings()).items() if isinstance(value, int | float)),
    "http": ("head_timeout", "body_timeout", "response_timeout", "max_head_bytes", "max_waiting"),
    "api": ("max_body_bytes", "max_document_bytes"),
    "websocket": ("handshake_timeout", "max_handshakes"),
    "realtime": (
        "handshakes_per_second",
        "handshake_burst",
        "max_connections_per_session",
        "max_frame_bytes",
        "max_depth",
        "messages_per_second",
        "message_burst",
        "max_outbox_bytes",
    ),
    "documents": ("max_update_bytes", "messages_per_second", "message_burst", "max_unauthenticated_sockets"),
    "sessions": ("activation_timeout", "cap"),
    "threats": ("max_violations",),
}

LIMITS: Final = tuple(f"{section}.{name}" for section, names in _BOUNDS.items() for name in names)
"""Bounds of what one caller, one address or strangers can make a server do or hold."""


def _places(
    verdict: Verdict, is_broken: Callable[[str], bool], why: str, advice: str, places: Iterable[str] = PLACES
) -> Iterator[Rule]:
    """A rule about each place that has a URL of its own."""
    for setting in places:
        yield Rule(setting, verdict, lambda config, of=setting: is_broken(_location(config, of)), why, advice)


def _passwords() -> Iterator[Rule]:
    why = "a password is in it, which whoever reads the configuration, the environment or a list of processes can see"
    here = "put the URL into a file that only the server reads, and name that in storage.url_file"
    elsewhere = (
        "name one place in storage.url_file, and leave `same` here; or use client certificates, without a password"
    )
    for setting in URLS:
        advice = here if setting == "storage.url" else elsewhere
        yield Rule(setting, Verdict.WARNING, lambda config, of=setting: _has_password(config, of), why, advice)


def _limits() -> Iterator[Rule]:
    why = f"more than {TOO_HIGH} times the default is no limit: one caller can use up the server"
    advice = "choose what honest callers need; limits.exempt_networks and limits.exempt_keys are for the others"
    for setting in LIMITS:
        yield Rule(setting, Verdict.WARNING, lambda config, of=setting: _is_too_high(config, of), why, advice)


RULES: Final[tuple[Rule, ...]] = (
    # --- the server -----------------------------------------------------------------------------------
    Rule(
        "server.dev",
        Verdict.FAILED,
        lambda config: config.server.dev,
        "everybody on this machine may do everything",
        "leave `--dev` to the machine that you write on",
    ),
    Rule(
        "server.tls_cert",
        Verdict.FAILED,
        lambda config: _is_bare(config) and not config.server.is_local,
        "tokens and documents cross the network unencrypted",
        "give server.tls_cert and server.tls_key, or name the proxy that ends TLS in server.trusted_proxies",
    ),
    Rule(
        "server.tls_cert",
        Verdict.WARNING,
        lambda config: _is_bare(config) and config.server.is_local,
        "no TLS, and no proxy: behind one that is not named, all clients share one address and its limits",
        "name the proxy on this machine in server.trusted_proxies, such as 127.0.0.1",
    ),
    Rule(
        "server.trusted_proxies",
        Verdict.FAILED,
        lambda config: any(map(_is_anybody, config.server.trusted_proxies)),
        "whoever writes another address into a header is believed: no limit per address holds, the log blames others",
        "name the addresses of your proxies",
    ),
    Rule(
        "server.allowed_hosts",
        Verdict.WARNING,
        lambda config: config.server.hosts is None,
        "requests may name any host, and are told to come back there; pages can have their own name resolved to it",
        "name the hosts under which the server is reached",
    ),
    Rule(
        "api.public_url",
        Verdict.FAILED,
        lambda config: (config.api.public_url or "").lower().startswith("http:"),
        "clients are told to come without TLS, with their tokens",
        "give an address that begins with https://",
    ),
    # --- keys and pages -------------------------------------------------------------------------------
    Rule(
        "security.api_keys",
        Verdict.WARNING,
        lambda config: not config.security.api_keys,
        "none is configured; whether keys are stored cannot be told from the configuration",
        "`roomkey keys generate --role admin` makes the first one; `roomkey keys list` names those that are stored",
    ),
    Rule(
        "security.api_keys",
        Verdict.WARNING,
        _has_only_admins,
        "every key that is configured may do everything, that of the application, too",
        "give the application a key with the role service",
    ),
    Rule(
        "security.master_key",
        Verdict.WARNING,
        lambda config: config.security.master_key is not None,
        "the key of all keys is in a text or a variable, which backups, child processes and crash reports take along",
        "put it into a file that only the server reads: security.master_key_file",
    ),
    Rule(
        "security.master_key_file",
        Verdict.WARNING,
        lambda config: config.security.master_key is None and config.security.master_key_file is None,
        "no master key is given: it is made beside the data, so that whoever copies these has both, or at each start",
        "`roomkey keys generate --master` makes one; keep it in a file elsewhere, and a copy in a safe place",
    ),
    Rule(
        "security.master_key_file",
        Verdict.WARNING,
        _key_lies_beside_the_data,
        "the master key lies among the data: whoever copies these has both",
        "keep it elsewhere",
    ),
    Rule(
        "security.allowed_origins",
        Verdict.FAILED,
        lambda config: any(origin.startswith("http:") for origin in config.security.allowed_origins),
        "pages that come without TLS may act for users, and whoever is on their way can change these pages",
        "name origins that begin with https:// only",
    ),
    # --- places ---------------------------------------------------------------------------------------
    *_places(
        Verdict.FAILED,
        _is_volatile,
        "what is kept in memory is gone after a restart, and with it what was revoked, written or recorded",
        "choose file, redis or database",
        ("storage.url", "storage.documents", "audit.url"),
    ),
    *_places(
        Verdict.FAILED,
        _is_plain,
        "what is said to that server crosses the network unencrypted, with its password",
        "begin with rediss://, or add sslmode=verify-full to the URL of a database",
    ),
    *_places(
        Verdict.WARNING,
        _is_unverified,
        "the server's certificate is not verified: whoever is on the way can be the server",
        "add sslmode=verify-full, and sslrootcert if its authority is your own",
    ),
    *_passwords(),
    Rule(
        "storage.password",
        Verdict.WARNING,
        lambda config: config.storage.password is not None,
        "the password is in a text or a variable, which backups, child processes and crash reports take along",
        "put the URL with its password into a file that only the server reads, and name that in storage.url_file",
    ),
    Rule(
        "storage.wait_replicas",
        Verdict.WARNING,
        _may_forget_revocations,
        "after a failover of Redis a session may be back that was revoked just before",
        "1, so that a replica has a revocation before it is answered",
    ),
    # --- encryption -----------------------------------------------------------------------------------
    Rule(
        "encryption.mode",
        Verdict.FAILED,
        lambda config: config.encryption.mode is Mode.OFF,
        "what is stored is not encrypted",
        "on; what is stored already is taken along by `roomkey encryption rotate`",
    ),
    Rule(
        "encryption.mode",
        Verdict.WARNING,
        _is_unencrypted,
        "auto does not encrypt what is stored on a server",
        "on, while all nodes are stopped",
    ),
    Rule(
        "encryption.unsealed",
        Verdict.WARNING,
        lambda config: config.encryption.unsealed is not Unsealed.REFUSE,
        "in a storage from before, records that are not encrypted are read until a rotation, whoever put them there",
        "refuse, when `roomkey encryption rotate` has run; a new storage can have it from the start",
    ),
    Rule(
        "encryption.key",
        Verdict.WARNING,
        lambda config: config.encryption.key.startswith("env:"),
        "the key is in the environment, which child processes and crash reports take along",
        "file:PATH, or a key service",
    ),
    Rule(
        "encryption.previous_key",
        Verdict.WARNING,
        lambda config: config.encryption.previous_key is not None,
        "the old key still opens everything",
        "run `roomkey encryption rewrap`, and take the setting away",
    ),
    # --- the audit log --------------------------------------------------------------------------------
    Rule(
        "audit.record",
        Verdict.FAILED,
        lambda config: config.audit.record == "off",
        "nobody can say afterwards who did what",
        "auto or on",
    ),
    Rule(
        "audit.witnesses",
        Verdict.WARNING,
        lambda config: not config.audit.witnesses,
        "nobody outside notices if the log is rewritten by whoever has the master key",
        "name a witness that somebody else runs (docs/security/audit.md)",
    ),
    Rule(
        "audit.quorum",
        Verdict.WARNING,
        lambda config: bool(config.audit.witnesses) and config.audit.quorum == 0,
        "heads of the log are published that no witness has signed",
        "1 or more",
    ),
    Rule(
        "audit.public_tree",
        Verdict.WARNING,
        lambda config: config.audit.public_tree,
        "anybody can see how much happens, and when",
        "leave it off unless outsiders verify the log",
    ),
    Rule(
        "audit.remembered_head",
        Verdict.WARNING,
        lambda config: config.storage.folder is not None and config.audit.remembered_head is None,
        "the head that was signed last is remembered beside the log: restoring a backup brings back an older one",
        "name a file on another disk",
    ),
    Rule(
        "audit.end_sessions_when_behind",
        Verdict.WARNING,
        lambda config: config.audit.end_sessions_when_behind,
        "operators may end sessions while nothing can be recorded",
        "leave it off unless to end a session matters more to you than to know who did it",
    ),
    # --- sockets and documents ------------------------------------------------------------------------
    Rule(
        "realtime.query_tokens",
        Verdict.FAILED,
        lambda config: config.realtime.query_tokens,
        "tokens stand in URLs, which logs of proxies and histories of browsers keep",
        "leave it off; pages use tickets",
    ),
    Rule(
        "realtime.awareness_identity",
        Verdict.FAILED,
        lambda config: config.realtime.awareness_identity is AwarenessIdentity.OFF,
        "whoever edits can show the name of somebody else",
        "stamp or check",
    ),
    Rule(
        "access.default_grants",
        Verdict.FAILED,
        lambda config: _gives_everybody(config, Access.WRITE),
        "a session that was given nothing may write all documents",
        "leave it empty, and let the application give each session its grants",
    ),
    Rule(
        "access.default_grants",
        Verdict.WARNING,
        lambda config: _gives_everybody(config, Access.READ),
        "a session that was given nothing may read all documents",
        "leave it empty, and let the application give each session its grants",
    ),
    # --- sessions -------------------------------------------------------------------------------------
    Rule(
        "sessions.lifetime",
        Verdict.FAILED,
        lambda config: config.sessions.lifetime > LONGEST_LIFETIME,
        "sessions live longer than the 30 days of NIST SP 800-63B-4 at its lowest level",
        "30d at most; the preset aal2 has 24h",
    ),
    Rule(
        "sessions.idle_timeout",
        Verdict.WARNING,
        _is_idle_for_ever,
        "a session that nobody uses stays open until its lifetime ends",
        "1h, or what your users can bear",
    ),
    Rule(
        "sessions.rotation_grace",
        Verdict.WARNING,
        lambda config: config.sessions.rotation_grace > LONGEST_GRACE,
        "a token that was replaced stays good for more than 5 minutes",
        "30s",
    ),
    Rule(
        "sessions.on_reuse",
        Verdict.WARNING,
        _overlooks_thieves,
        "compare looks back less than a minute (sessions.reuse_window), and so overlooks most thieves",
        "revoke, or a reuse_window of 10m",
    ),
    Rule(
        "login.reauthentication_age",
        Verdict.WARNING,
        lambda config: config.login.reauthentication_age is None,
        "whoever finds an open session may end all others of its user and delete documents",
        "15m, if your application can ask users again who they are",
    ),
    Rule(
        "nodes.blind_grace",
        Verdict.WARNING,
        lambda config: config.nodes.blind_grace > LONGEST_BLINDNESS,
        "sockets go on for more than a minute at a node that hears of no revocation",
        "10s",
    ),
    Rule(
        "nodes.near_cache_age",
        Verdict.WARNING,
        lambda config: config.nodes.near_cache_age > LONGEST_BLINDNESS,
        "a revocation that a node did not hear of is not noticed for more than a minute",
        "2s",
    ),
    # --- attacks --------------------------------------------------------------------------------------
    *_limits(),
    Rule(
        "limits.max_failure_delay",
        Verdict.WARNING,
        lambda config: config.limits.max_failure_delay < timedelta(seconds=1),
        "whoever guesses tokens and keys hardly has to wait",
        "1m",
    ),
    Rule(
        "limits.exempt_networks",
        Verdict.FAILED,
        lambda config: any(map(_is_anybody, config.limits.exempt_networks)),
        "no limit per address holds for a large part of all addresses",
        "name your own networks",
    ),
    Rule(
        "threats.on_network_change",
        Verdict.WARNING,
        lambda config: {config.threats.on_network_change, config.threats.on_program_change} == {SignalPolicy.IGNORE},
        "with on_program_change ignored, too, nobody notices a session that goes on at somebody else's",
        "flag, for one of them at least",
    ),
    Rule(
        "threats.on_key_change",
        Verdict.FAILED,
        lambda config: config.threats.on_key_change is SignalPolicy.IGNORE,
        "nobody notices a token that is used without the key that its session is bound to",
        "flag, or revoke",
    ),
    Rule(
        "threats.weights",
        Verdict.WARNING,
        lambda config: 0 in config.threats.weights.values(),
        "a kind of violation does not count, however often it happens",
        "1, if it must count for little",
    ),
    Rule(
        "inspection.identities",
        Verdict.WARNING,
        lambda config: config.inspection.identities is Reaction.OFF,
        "SQL and active HTML in ids and names are not looked for",
        "reject or flag",
    ),
    Rule(
        "inspection.free_text",
        Verdict.WARNING,
        lambda config: config.inspection.free_text is Reaction.OFF,
        "SQL and active HTML in messages are not looked for",
        "flag",
    ),
    # --- the log --------------------------------------------------------------------------------------
    Rule(
        "log.level",
        Verdict.WARNING,
        lambda config: config.log.level is LogLevel.DEBUG,
        "the log tells more of people and their work than is needed to run the server",
        "info",
    ),
    Rule(
        "log.level",
        Verdict.WARNING,
        lambda config: config.log.level is LogLevel.ERROR,
        "security events are not in the log",
        "info or warning",
    ),
    Rule(
        "log.access",
        Verdict.WARNING,
        lambda config: config.log.access,
        "every request is logged with its path, in which documents and users are named",
        "leave it off, or keep the log for a short time",
    ),
)
"""What is unsafe, by section, the worst of a setting first."""
