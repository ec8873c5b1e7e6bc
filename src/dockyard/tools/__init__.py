"""Tools for models and clients: many MCP servers behind one door, and nothing that a hostile one wants gets out.

    clients, agents ── /mcp, /p/<profile>/mcp, stdio ──┐
    served models ── Responses, chat (gateway loop) ───┤
    command line, console ─────────────────────────────┘
                                │
                         Toolbox (toolbox.py): one façade; steps.py: one order of steps on every path
                                │   visible? → decide → arguments valid? → redact → call → clean → audit
                                │
            pool.py: warm sessions, one per server and owner; health, restarts, idle end, kill of the whole tree
                                │
            runners/: process (sandboxed), container, package (uvx, npx), remote, openapi, function
                                │
                           MCP servers

``model.py`` has the structs that cross these parts. Only ``sdk*.py`` know the ``mcp`` package: ``sdk.py`` the client's
half, ``sdk_front.py`` the server's, ``sdk_lines.py`` messages on pipes. ``bridge.py`` stands between the protocol's two
eras. ``directory.py`` keeps what servers list, ``view.py`` and ``naming.py`` make of it what a profile shows,
``watching.py`` passes on what changes.
``catalog/`` reads and writes other people's catalogues, ``profiles.py`` and ``lock.py`` say which servers a client
gets and that they are still what they were, ``safety/`` decides and cleans, ``search.py`` finds tools in large sets.
"""
