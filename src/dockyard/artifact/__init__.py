"""Artifacts: names, manifests, the store, registries and sources. Knows nothing of inference.

``reference`` names them, ``store`` keeps them (an OCI image layout), ``manifest`` reads and writes what they say,
``materialize`` lays a model out for an engine, ``archive`` carries artifacts in tar files, ``lineage`` tells where one
came from. Import from those modules; nothing is loaded here.
"""
