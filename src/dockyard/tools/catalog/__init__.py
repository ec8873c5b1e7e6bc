"""Catalogues of tool servers: Docker's, the MCP registry's, clients' ``mcpServers``, and our own superset of Docker's."""
