"""
What is activity of the user, in every protocol: it alone moves the idle deadline (ASVS 7.3.1).

Programs keep talking without anyone at the keyboard: by timers, after a reconnection, and because the server asked.
Nothing of that counts, or a session whose user has left would never end. So the table says of every message whether
it can be activity at all, and what can be counts only if it is new: nobody has said it before.

Nor are these: a handshake and its credential (providers reconnect by themselves), pings and pongs of WebSockets, and
whatever the server sends.
"""

from collections.abc import Mapping
from typing import Final

from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.protocol.json_messages import MessageType

CAN_BE_ACTIVITY: Final[Mapping[str | type[yjs.Message], bool]] = {
    # --- /ws; messages of the application can be, too ---
    MessageType.REALTIME_EDIT: True,  # new unless its id is repeated
    MessageType.CURSOR_POSITION: True,  # new if it is not where it was
    MessageType.USER_PRESENCE: False,  # programs say "away" and "online"
    MessageType.HEARTBEAT: False,
    MessageType.SUBSCRIBE: False,  # said again after every reconnection
    MessageType.UNSUBSCRIBE: False,
    MessageType.SESSION_REFRESH: False,  # the answer to `session_expiring`
    # --- the Yjs protocols ---
    yjs.Update: True,  # new if the document does not have it; else it came from others, or from the page's own storage
    yjs.AwarenessUpdate: True,  # new if it replaces another state: y-protocols repeats the same every 15 seconds
    yjs.SyncStep2: False,  # the answer to our step 1
    yjs.SyncStep1: False,  # by a timer of the provider, too
    yjs.QueryAwareness: False,
    yjs.Token: False,  # the answer to our question for one, before a session expires
    yjs.Sign: False,
    yjs.Stateless: False,
    yjs.Detach: False,
}


def is_activity(kind: str | type[yjs.Message], *, is_new: bool) -> bool:
    """Whether a message of this kind is something that the user did just now."""
    return is_new and CAN_BE_ACTIVITY.get(kind, True)
