"""
Threats: what sessions do that honest clients do not, how long that counts, and what follows.

``watch`` and ``books`` await: they are told of violations and of clients, keep ledgers and patterns, and give commands.
Everything else is pure: it decides.
"""
