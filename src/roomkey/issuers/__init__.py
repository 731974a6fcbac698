"""
Sessions for users whom somebody else knows: a JSON Web Token of a configured issuer is exchanged for a session.

``exchange`` does that. ``settings`` says whose tokens, ``tokens`` reads and checks one, ``key_sets`` has the issuers'
keys, ``ended_users`` sees to it that no token brings back a user who was ended after it was issued.
"""
