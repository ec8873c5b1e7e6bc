"""The bars of the foundation: install, gateway, engine, cold start, transfer, interoperability, failure, container."""
