"""Signed notes, against examples of the specifications, which others have made."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.audit.checkpoints import Checkpoint, checkpoint
from roomkey.audit.merkle import EMPTY_ROOT
from roomkey.audit.notes import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Note,
    Signature,
    SignatureType,
    Signer,
    note,
    signatures,
    verifier_key,
)
from roomkey.errors import InvalidInput, NotProven

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

# golang.org/x/mod/sumdb/note, package documentation
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """\
If you think cryptography is the answer to your problem,
then you don't know what your problem is.

\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
# C2SP signed-note and tlog-cosignature
ITALIAN = """\
Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

\u2014 quasimodo.example/salvatore \
NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""
SOFA = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u2014 example.com/behind-the-sofa \
Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
\u2014 witness.example.com/w1 \
jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""

LOG = Signer("example.com/log", bytes(range(32)))
WITNESS = Signer("example.com/witness", bytes(range(1, 33)), SignatureType.COSIGNATURE)


def test_a_note_that_others_have_signed_is_verified() -> None:
    key = verifier_key(GO_KEY)

    assert str(key) == GO_KEY
    assert note(GO_NOTE).verified([key]) == {key: None}


@pytest.mark.parametrize("text", [GO_NOTE, ITALIAN, SOFA])
def test_the_notes_of_the_specifications_are_written_as_they_were_read(text: str) -> None:
    assert str(note(text.encode())) == text


def test_the_checkpoint_of_the_specification_says_what_it_should() -> None:
    head = checkpoint(note(SOFA).text)

    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert head.text == note(SOFA).text
    assert int.from_bytes(note(SOFA).signatures[1].content[:8]) == 1_679_315_147


def test_a_changed_text_is_not_signed() -> None:
    with pytest.raises(NotProven, match="PeterNeumann"):
        note(GO_NOTE.replace("answer", "question")).verified([verifier_key(GO_KEY)])


def test_signatures_of_unknown_keys_are_ignored_even_if_they_share_name_or_id() -> None:
    namesake = Signer(LOG.key.name, bytes(32))
    signed = Note("text\n", [namesake.sign("text\n"), LOG.sign("text\n")])
    same_id = Signature("somebody else", LOG.key.id, b"nothing")

    assert signed.with_signatures([same_id]).verified([LOG.key]) == {LOG.key: None}
    assert signed.verified([WITNESS.key]) == {}


def test_several_keys_sign_one_note() -> None:
    new = Signer(LOG.key.name, bytes(reversed(range(32))))
    signed = Note("text\n", [new.sign("text\n"), LOG.sign("text\n")])

    assert note(str(signed)).verified([LOG.key, new.key]).keys() == {LOG.key, new.key}


def test_a_cosignature_says_when_it_was_made() -> None:
    text = Checkpoint("example.com/log", 0, EMPTY_ROOT).text
    signed = Note(text, [WITNESS.sign(text, NOON)])

    assert note(str(signed)).verified([WITNESS.key]) == {WITNESS.key: NOON}


def test_the_time_of_a_cosignature_is_signed_and_it_is_no_plain_signature() -> None:
    text = "text\n"
    signature = WITNESS.sign(text, NOON)
    later = (int(NOON.timestamp()) + 1).to_bytes(8) + signature.content[8:]
    for content in (later, b"\xff" * 8 + signature.content[8:], signature.content[8:], b""):
        with pytest.raises(NotProven):
            WITNESS.key.signed_at(text, content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text\n",
        "text\n\n",
        "text\n\n\u2014 name AAAAAAA=",
        "text\n\n- name AAAAAAA=\n",
        "text\n\n\u2014 name AAAA\n",
        "text\n\n\u2014 na+me AAAAAAA=\n",
        "text\n\n\u2014 name AAAAAAB=\n",
        "text\n\n\u2014  AAAAAAA=\n",
        "te\rxt\n\n\u2014 name AAAAAAA=\n",
        "te\0xt\n\n\u2014 name AAAAAAA=\n",
        "text\n\n\u2014 name AAAAAAA=\nmore\n",
        b"\xff\n\n\xe2\x80\x94 name AAAAAAA=\n",
    ],
)
def test_what_is_no_signed_note_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidInput):
        note(text)


def test_notes_are_bounded() -> None:
    line = LOG.sign("text\n").line
    assert len(signatures(line * MAX_SIGNATURES)) == MAX_SIGNATURES
    with pytest.raises(InvalidInput, match="signatures"):
        signatures(line * (MAX_SIGNATURES + 1))
    with pytest.raises(InvalidInput, match="bytes"):
        note("x" * (MAX_NOTE_BYTES + 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+c74f20a3",
        "name+c74f20a3+",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("Peter", "Petra"),
        GO_KEY[:-1],
        GO_KEY.replace("+AR", "+BR"),
        "a b+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        verifier_key(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b"])
def test_a_key_has_a_proper_name(name: str) -> None:
    with pytest.raises(InvalidInput):
        Signer(name, bytes(32))


@given(st.text(), st.binary(max_size=200))
def test_any_bytes_are_a_note_or_refused(text: str, more: bytes) -> None:
    for content in (
        text.encode(errors="surrogatepass"),
        more,
        f"{text}\n\n\u2014 a AAAAAAA=\n".encode("utf-8", "replace"),
    ):
        try:
            read = note(content)
        except InvalidInput:
            continue
        assert str(read).encode() == content


@pytest.mark.parametrize(
    "text",
    [
        "origin\n1\n",
        "origin\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n\u0661\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n9223372036854775808\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxqw==\n",
        "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
        "origin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        checkpoint(text)
