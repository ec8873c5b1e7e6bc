"""Tools for models and clients: many MCP servers behind one door, and nothing that a hostile one wants gets out.

    clients, agents ── /mcp, /p/<profile>/mcp, stdio ──┐
    served models ── Responses, chat (gateway loop) ───┤
    command line, console ─────────────────────────────┘
                                │
                         Toolbox (toolbox.py): one façade, one order of steps on every path
                                │   visible? → decide → arguments valid? → redact → call → clean → audit
                                │
            pool.py: warm sessions, one per server and owner; health, restarts, idle end, kill of the whole tree
                                │
            runners/: process (sandboxed), container, package (uvx, npx), remote, openapi, function
                                │
                           MCP servers

``model.py`` has the structs that cross these parts, ``sdk.py`` is the only file that knows the ``mcp`` package,
``catalog/`` reads and writes other people's catalogues, ``profiles.py`` and ``lock.py`` say which servers a client
gets and that they are still what they were, ``safety/`` decides and cleans, ``search.py`` finds tools in large sets.
"""
