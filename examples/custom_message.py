"""
A message type of one's own: votes, checked against a JSON Schema before anybody else sees them.

Start a server that knows it, ``script/server --config examples/custom_message.toml``, then, with the package
websockets installed, run ``python examples/custom_message.py``. ``ROOMKEY_URL`` is the server, if it is not
http://127.0.0.1:3000.
"""

import asyncio
import os

import httpx
from two_editors import editor, sign_in


async def main(url: str) -> None:
    """Let Ada vote twice: once as the schema demands, once not."""
    async with httpx.AsyncClient(base_url=url) as api:
        for_ada, for_grace = await sign_in(api, "ada"), await sign_in(api, "grace")
        async with editor("ada", for_ada) as ada, editor("grace", for_grace) as grace:
            await ada.send("vote", option="tea", weight=2)
            await ada.receive("ack")
            vote = await grace.receive("vote")
            print(f"grace sees {vote['session_info']['user_id']} vote for {vote['option']}")

            await ada.send("vote", option="beer", weight=2)
            error = await ada.receive("error")
            print(f"ada is told: {error['code']}, {error['message']}")


if __name__ == "__main__":
    asyncio.run(main(os.environ.get("ROOMKEY_URL", "http://127.0.0.1:3000")))
