"""
Signing and publishing heads, so that two that contradict each other are never signed.

Before a head is signed it is compared with every one of which something is known here: the one that was signed last,
which is in the storage; the one that a file outside the storage remembers; those that witnesses have seen. Only what
continues all of them is signed, and is durable before it leaves.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from roomkey.audit.checkpoints import Checkpoint
from roomkey.audit.merkle import EMPTY_ROOT
from roomkey.audit.notes import Note, Signature, Signer, VerifierKey
from roomkey.audit.remembered import RememberedHead
from roomkey.audit.stored import Heads, StoredLog, Tree, head_of
from roomkey.audit.witnessing import Witnesses
from roomkey.errors import Conflict, ContradictingHead, Storage

ADVICE: Final = (
    "nothing is signed until then, and entries are recorded as before. Restore a backup that has them; if there is "
    "none, they are lost: give the log another name (audit.origin), so that everybody can see that it begins anew"
)
"""What an operator does when the log would contradict itself."""


class Publisher:
    """Signs and publishes the heads of one log."""

    def __init__(
        self,
        stored: StoredLog,
        *,
        origin: str,
        signers: Sequence[Signer],
        remembered: RememberedHead,
        witnesses: Witnesses,
        quorum: int = 0,
    ) -> None:
        """All ``signers`` sign: several, while keys are changed. The first is the current one."""
        self._stored = stored
        self._origin = origin
        self._signers = signers
        self._remembered = remembered
        self._witnesses = witnesses
        self._quorum = quorum

    @property
    def keys(self) -> Sequence[VerifierKey]:
        """The keys that sign."""
        return [signer.key for signer in self._signers]

    @property
    def failures(self) -> Mapping[str, str]:
        """Why witnesses do not sign, by their names."""
        return self._witnesses.failures

    def is_due(self, heads: Heads) -> bool:
        """Whether there is anything to be published."""
        published = heads.published.value
        if published is None or published.text != self._head(heads.tree.value).text:
            return True
        signed = {(signature.name, signature.key_id) for signature in published.signatures}
        return not all((key.name, key.id) in signed for key in self.keys)

    async def publish(self) -> Checkpoint:
        """
        Sign the tree as it is, ask the witnesses, and publish it; returns the published head.

        Raises:
            ContradictingHead: If it would contradict one that was signed. Nothing was signed.
            Storage: If too few witnesses sign.
            Conflict: If another node does it, too.
        """
        heads = await self._stored.heads()
        head = self._head(heads.tree.value)
        if not self.is_due(heads):
            await self._check_remembered(heads.tree.value)
            return head
        await self._check(heads)
        signed = self._signed(head)
        if heads.signed.value is None or str(heads.signed.value) != str(signed):
            await self._stored.sign(heads, signed)
        await self._remembered.keep(head, signed)
        seen = await self._ask(head, signed)
        if len(seen) < self._quorum:
            raise Storage(self._too_few(len(seen)))
        await self._stored.publish(heads, signed.with_signatures(seen))
        return head

    async def watch(self) -> None:
        """
        Remember what another node has signed; a head that contradicts what is remembered is found, too.

        Raises:
            ContradictingHead: If so.
        """
        heads = await self._stored.heads()
        signed = self._own(heads)
        if signed is not None and heads.signed.value is not None:
            await self._check_remembered(heads.tree.value)
            await self._remembered.keep(signed, heads.signed.value)

    async def _check(self, heads: Heads) -> None:
        tree, signed = heads.tree.value, self._own(heads)
        if signed is not None:
            await self._check_continues(signed, tree, "the storage")
        await self._check_remembered(tree)
        if self._witnesses.unasked:
            # With a head that is signed already, or is of no entries: it contradicts nothing that they may have seen.
            first = signed or Checkpoint(self._origin, 0, EMPTY_ROOT)
            await self._ask(first, self._signed(first))
            asked = len(self._witnesses) - self._witnesses.unasked
            if asked < self._quorum:
                raise Storage(self._too_few(asked))

    async def _check_remembered(self, tree: Tree) -> None:
        remembered = await self._remembered.head()
        if remembered is not None:
            await self._check_continues(remembered, tree, "audit.remembered_head")

    async def _check_continues(self, signed: Checkpoint, tree: Tree, where: str) -> None:
        if (signed.size, signed.root) == (tree.size, tree.root):
            return
        if signed.size > tree.size:
            raise ContradictingHead(
                f"a head of {signed.size} entries was signed, as {where} knows, and there are {tree.size}: an older "
                f"backup was restored; {ADVICE}"
            )
        if signed.root != await self._stored.root(signed.size):
            raise ContradictingHead(
                f"a head of {signed.size} entries was signed, as {where} knows, and the entries that there are now are "
                f"others: an older backup was restored and written to, or they were changed; {ADVICE}"
            )

    async def _ask(self, head: Checkpoint, signed: Note) -> Sequence[Signature]:
        try:
            return await self._witnesses.sign(head, signed)
        except ContradictingHead as error:
            now = self._own(await self._stored.heads())
            if now is not None and now.size > head.size:
                raise Conflict("another node has signed a larger head meanwhile") from None
            raise ContradictingHead(f"{error}; {ADVICE}") from None

    def _own(self, heads: Heads) -> Checkpoint | None:
        """The head that was signed last under the name that the log has now."""
        signed = head_of(heads.signed.value)
        return signed if signed is not None and signed.origin == self._origin else None

    def _head(self, tree: Tree) -> Checkpoint:
        return Checkpoint(self._origin, tree.size, tree.root)

    def _signed(self, head: Checkpoint) -> Note:
        return Note(head.text, [signer.sign(head.text) for signer in self._signers])

    def _too_few(self, count: int) -> str:
        reasons = "; ".join(f"{name}: {why}" for name, why in self.failures.items())
        return f"{count} witnesses have answered, and audit.quorum is {self._quorum}: {reasons}"
