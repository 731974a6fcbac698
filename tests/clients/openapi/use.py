"""A program that knows Roomkey by what openapi-python-client makes of its contract, and by nothing else."""

import json
import sys
from importlib import import_module
from pkgutil import walk_packages

import roomkey_api
from roomkey_api import AuthenticatedClient
from roomkey_api.api.documents import get_document, patch_document, put_document
from roomkey_api.api.sessions import create_session, delete_session
from roomkey_api.api.transitions import suspend
from roomkey_api.api.users import list_user_sessions
from roomkey_api.models import NewGrant, NewSession, Problem, PutDocumentJsonBody, Reason, TextEdits

MODULES = [import_module(module.name) for module in walk_packages(roomkey_api.__path__, "roomkey_api.")]

with AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2], raise_on_unexpected_status=True) as client:
    new = NewSession.from_dict({"user_id": "py", "activate": True, "metadata": {"theme": "dark"}})
    new.grants = [NewGrant.from_dict({"documents": "py/**", "access": "write"})]
    created = create_session.sync(client=client, body=new, idempotency_key="from-python")
    session = created.session

    name = "py/plan"
    put_document.sync(name, client=client, body=PutDocumentJsonBody.from_dict({"content": "Hello"}))
    edits = TextEdits.from_dict({"edits": [{"root": "content", "index": 5, "insert": ", world"}]})
    patched = patch_document.sync_detailed(name, client=client, body=edits)
    read = get_document.sync(name, client=client)
    outdated = put_document.sync(
        name, client=client, body=PutDocumentJsonBody.from_dict({"content": "overwritten"}), if_match='"another.1"'
    )

    suspended = suspend.sync(session.id, client=client, body=Reason(reason="under review"))
    listed = list_user_sessions.sync("py", client=client)
    delete_session.sync_detailed(session.id, client=client)

assert isinstance(outdated, Problem)
print(
    json.dumps(
        {
            "operations": sum(hasattr(module, "sync_detailed") for module in MODULES),
            "state": session.state,
            "text": read.to_dict(),
            "code": outdated.code,
            "then": suspended.state,
            "listed": len(listed.sessions),
        }
    )
)
