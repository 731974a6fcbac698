"""Admission of handshakes: each becomes a client with an active session, or a refusal."""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import TypeVar

from roomkey import errors, problems
from roomkey.domain.lifecycle import check_usable
from roomkey.domain.session import Client, Session, SessionId
from roomkey.ports import Authenticator
from roomkey.realtime.clients.client import RealtimeClient
from roomkey.realtime.connection_counts import ConnectionCounts
from roomkey.realtime.connections import Connections
from roomkey.realtime.refusals import Refusal, too_many, unavailable
from roomkey.realtime.session.limits import SessionLimits
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Handshake
from roomkey.security.credentials import Credential, CredentialKind, client_of, find, origin_allowed
from roomkey.security.possession import NO_EVIDENCE, Attempt, Possession
from roomkey.security.tickets import Tickets
from roomkey.wire.close import CloseCode, CloseReason

ClientT = TypeVar("ClientT", bound=RealtimeClient)


class Admission:
    """The decision about every handshake, on all paths: from a handshake to a session, from a session to a client."""

    def __init__(
        self,
        sessions: Authenticator,
        connections: Connections,
        *,
        settings: RealtimeSettings,
        tickets: Tickets,
        counts: ConnectionCounts | None = None,
        possession: Possession | None = None,
        public_url: str | None = None,
        is_audit_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        ``counts`` knows of the connections on other nodes, if there are any; ``possession`` looks at proofs.

        Clients find us at ``public_url``, or where they asked. ``is_audit_behind``: what is done cannot be recorded, so
        that nobody is let in who might do something.
        """
        self._possession = possession
        self._public_url = public_url
        self._is_audit_behind = is_audit_behind
        self._sessions = sessions
        self._connections = connections
        self._settings = settings
        self._tickets = tickets
        self._counts = counts
        self.is_draining = False
        """Whether every handshake is refused."""
        self.is_blind = False
        """Whether it cannot be known what happens to sessions, so that nobody is let in."""

    def check_open(self) -> None:
        """
        Raise if nobody is let in at this time.

        Raises:
            Refusal: If so.
        """
        if self.is_draining:
            raise unavailable("draining", "The server is about to stop.")
        if self.is_blind:
            raise unavailable(
                errors.Storage.code, "It cannot be known now what happens to sessions.", reason=CloseReason.UNAVAILABLE
            )

        if self._is_audit_behind():
            raise unavailable(
                errors.AuditBehind.code, "What is done cannot be recorded now.", reason=CloseReason.UNAVAILABLE
            )

    # --- from a handshake to a session ----------------------------------------------------------------

    async def authenticate_handshake(self, handshake: Handshake) -> Session:
        """
        The active session that the handshake's credential opens.

        Raises:
            Refusal: If there is none, or it may not be used from where it came.
            RoomkeyError: If the credential opens nothing, or nothing that may be used.
        """
        credential = self._find(handshake)
        if credential is None:
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                CloseReason.CREDENTIALS_MISSING,
                "A credential is needed here.",
                *problems.CHALLENGE,
                reason=CloseReason.CREDENTIALS_MISSING,
            )
        self._check_origin(handshake, credential)
        session = await self._session(handshake, credential)
        check_usable(session)
        return session

    async def authenticate_token(self, token: str, client: Client) -> Session:
        """
        The active session that ``token`` opens, if it needs no proof: there is no room for one beside it.

        Raises:
            RoomkeyError: If it opens nothing, or nothing that may be used.
        """
        session = await self._sessions.authenticate(token, client=client, is_activity=False)
        check_usable(session)
        return session

    def has_credential(self, handshake: Handshake) -> bool:
        """Whether the handshake has a credential of any kind."""
        return self._find(handshake) is not None

    def check_page(self, handshake: Handshake) -> None:
        """
        Raise if the handshake comes from a page that may not connect, whatever its credential.

        Raises:
            Refusal: If it does.
        """
        origin, allowed = handshake.headers.get("origin"), self._settings.allowed_origins
        if origin is not None and allowed and not origin_allowed(origin, handshake.headers.get("host"), allowed):
            raise _foreign_page()

    def _find(self, handshake: Handshake) -> Credential | None:
        return find(
            handshake.headers,
            query=handshake.query,
            subprotocols=handshake.subprotocols,
            allow_query_token=self._settings.query_tokens,
        )

    async def _session(self, handshake: Handshake, credential: Credential) -> Session:
        client = client_of(handshake.headers, handshake.client_ip)
        if credential.kind is not CredentialKind.TICKET:
            attempt = self._attempt(handshake, credential)
            return await self.authenticate_attempt(attempt, credential.secret, client)
        # It was taken with a proof, if the session needs one.
        session = await self._tickets.session_of(credential.secret, self._sessions)
        check_usable(session)
        await self._sessions.recognise(session, client)
        return session

    async def authenticate_attempt(self, attempt: Attempt, token: str, client: Client) -> Session:
        """
        The session that ``token`` opens for whoever has proved what the attempt shows; it may be pending.

        Raises:
            RoomkeyError: If it opens nothing, or a proof does not hold.
        """
        possession = self._possession
        evidence = NO_EVIDENCE if possession is None else possession.look(attempt, token)
        session = await self._sessions.authenticate(token, client=client, is_activity=False, held=evidence.held)
        if possession is not None:
            await possession.accept(evidence)
        return session

    def attempt(self, handshake: Handshake, proof: str | None) -> Attempt:
        """What ``proof``, which came with the handshake or later on its socket, must be about."""
        certificate = handshake.certificate
        return Attempt(
            method="GET",
            urls=handshake.addresses(self._public_url),
            proof=proof,
            certificate=None if certificate is None else certificate.thumbprint,
        )

    def _attempt(self, handshake: Handshake, credential: Credential) -> Attempt:
        proof = handshake.headers.get("dpop")
        if credential.kind is CredentialKind.DPOP and proof is None:
            raise errors.InvalidProof("a token that is presented as DPoP comes with a proof")
        # RFC 9449, 7.2: a token that is presented as Bearer is a bearer's, whatever stands beside it.
        return self.attempt(handshake, None if credential.kind is CredentialKind.BEARER else proof)

    def _check_origin(self, handshake: Handshake, credential: Credential) -> None:
        """Browsers send cookies for any page, so they count only on allowed pages (ASVS 4.4.2, RFC 6455, 10.2)."""
        if credential.kind is not CredentialKind.COOKIE:
            self.check_page(handshake)
        elif not origin_allowed(
            handshake.headers.get("origin"), handshake.headers.get("host"), self._settings.allowed_origins
        ):
            raise _foreign_page()

    # --- from a session to a client -------------------------------------------------------------------

    async def admit(self, session: Session, make: Callable[[SessionLimits, datetime], ClientT]) -> ClientT:
        """
        The client of ``session`` that ``make`` makes: counted, registered, and its session checked once more.

        Raises:
            Refusal, RoomkeyError: If there is no room for it, or the session has ended meanwhile.
        """
        connections = self._connections
        if len(connections.registry.of_session(session.id)) >= self._settings.max_connections_per_session:
            raise _too_many_connections()
        now = connections.now()
        client = make(connections.limits.open(session.id), now)
        connections.entered(client)
        connections.deadlines.set(client, now + self._settings.opening_timeout)
        try:
            await self._check_elsewhere(session.id)
            await self._check_again(client, session)
        except BaseException:
            client.closed(CloseCode.NO_CLOSE)
            raise
        return client

    async def _check_elsewhere(self, id: SessionId) -> None:
        """The connections on other nodes count, too. Of two that come at the same moment none may be the last one."""
        if self._counts is None:
            return
        elsewhere = await self._counts.elsewhere(id)
        if elsewhere + len(self._connections.registry.of_session(id)) > self._settings.max_connections_per_session:
            raise _too_many_connections()

    async def _check_again(self, client: RealtimeClient, session: Session) -> None:
        # The session was read before its events were listened to: it may have ended in between.
        # And who was let in before the drain, but is not among those who are drained, must go, too.
        current = await self._sessions.get_session(session.id)
        if current is None:
            raise errors.InvalidToken("the session was deleted")
        check_usable(current)
        if client.guard.is_over:
            raise errors.Invalidated("the session was ended")
        self.check_open()
        # Its grants may be other ones than those with which it was made.
        client.carry_out(client.guard.learn(current), self._connections.now())


def _too_many_connections() -> Refusal:
    return too_many("too_many_connections", "The session has as many connections as it may.")


def _foreign_page() -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, "origin_rejected", "Pages of this origin may not connect.")
