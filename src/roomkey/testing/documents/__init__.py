"""
The conformance suite of ``DocumentStore``: what the port promises, as tests that any backend can run.

A backend author writes, in a test module::

    class TestMyDocuments(DocumentStoreConformance):
        durable = True

        @pytest.fixture(autouse=True)
        def _place(self, tmp_path: Path) -> None:
            self.path = tmp_path

        def open(self) -> MyDocumentStore:
            return MyDocumentStore(self.path)

What is said of ``roomkey.testing.storage`` about running coroutines and rewriting assertions applies here, too.
One hook breaks the store on purpose, ``corrupt``; without it, the suite lacks the tests that need it.
"""

from roomkey.testing.documents.compaction import CompactionConformance
from roomkey.testing.documents.content import ContentConformance
from roomkey.testing.documents.damage import DocumentDamageConformance
from roomkey.testing.documents.lineages import LineageConformance
from roomkey.testing.documents.lists import DocumentListConformance
from roomkey.testing.documents.races import DocumentRaceConformance
from roomkey.testing.documents.suite import DocumentSuite
from roomkey.testing.documents.tails import TailConformance
from roomkey.testing.documents.versions import VersionConformance

__all__ = ["DocumentStoreConformance", "DocumentSuite"]


class DocumentStoreConformance(
    LineageConformance,
    ContentConformance,
    TailConformance,
    CompactionConformance,
    VersionConformance,
    DocumentListConformance,
    DocumentRaceConformance,
    DocumentDamageConformance,
):
    """All of it. Subclasses say how to ``open`` the store under test."""
