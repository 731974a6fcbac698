"""
A title column and a search index in a database of one's own, kept up to date by hooks.

Run it from the checkout: ``python examples/search_index.py``. Roomkey runs in this program, in memory; the database is
SQLite. Whoever edits documents does so as always: nothing here is on the way of a keystroke.
"""

import asyncio
import sqlite3

import roomkey
from roomkey import DocumentChanged, DocumentDeleted

rooms = roomkey.asgi(
    storage={"url": "memory"}, server={"dev": True}, hooks={"debounce": "100ms"}, log={"level": "error"}
)
database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
database.executescript(
    """
    CREATE TABLE pages (document TEXT PRIMARY KEY, lineage TEXT, version INTEGER, title TEXT, changed_by TEXT);
    CREATE VIRTUAL TABLE search USING fts5 (document UNINDEXED, text);
    """
)


@rooms.on("document.changed", documents="notes/**", content="text")
async def keep_page(event: DocumentChanged) -> None:
    """Write down the first line as the title, and the text into the index."""
    if event.content is not None:  # it may be too large, or gone by now: `content_omitted` says why
        await asyncio.to_thread(_write, event)


@rooms.on("document.deleted", documents="notes/**")
async def forget_page(event: DocumentDeleted) -> None:
    """Forget a document, unless another one of its name is there already."""
    gone = {"document": event.document, "lineage": event.lineage}
    found = database.execute("DELETE FROM pages WHERE document = :document AND lineage = :lineage", gone)
    if found.rowcount:
        database.execute("DELETE FROM search WHERE document = :document", gone)


def _write(event: DocumentChanged) -> None:
    text: str = event.content
    title = text.partition("\n")[0].lstrip("# ")
    # An event may come twice, and after a newer one: what is older than what is there changes nothing.
    found = database.execute(
        """
        INSERT INTO pages VALUES (?, ?, ?, ?, ?) ON CONFLICT (document) DO UPDATE SET
        lineage = excluded.lineage, version = excluded.version, title = excluded.title, changed_by = excluded.changed_by
        WHERE pages.lineage != excluded.lineage OR pages.version < excluded.version
        """,
        (event.document, event.lineage, event.version, title, event.actor),
    )
    if found.rowcount:
        database.execute("DELETE FROM search WHERE document = ?", (event.document,))
        database.execute("INSERT INTO search VALUES (?, ?)", (event.document, text))


def titles() -> list[tuple[str, str, str]]:
    """Every page with its title, and who changed it last."""
    return database.execute("SELECT document, title, changed_by FROM pages ORDER BY document").fetchall()


def pages_with(words: str) -> list[str]:
    """The documents in which there are these words, the best first."""
    found = database.execute("SELECT document FROM search WHERE search MATCH ? ORDER BY rank", (words,))
    return [document for (document,) in found]


async def main() -> None:
    """Let two people write, and look at the database."""
    async with rooms.lifespan():
        ada = await rooms.sessions.create_session("ada", activate=True)
        grace = await rooms.sessions.create_session("grace", activate=True)
        await rooms.documents.write("notes/engine", {"content": "# The engine\nIt weaves patterns."}, session=ada)
        await rooms.documents.write("notes/moth", {"content": "# The moth\nFound in a relay."}, session=ada)
        await rooms.documents.edit(
            "notes/moth", [{"root": "content", "index": 11, "insert": "First bug. "}], session=grace
        )
    # When it stops, everything that was stored has been told.
    for document, title, actor in titles():
        print(f"{document}: {title} ({actor})")
    print("relay:", *pages_with("relay"))


if __name__ == "__main__":
    asyncio.run(main())
