"""What is said of an artifact in a way that can be checked: signed statements, attached to it as referrers.

statement  in-toto statements and the envelopes (DSSE) and bundles (Sigstore) that carry them; pure
keys       elliptic-curve keys in PEM files: the only part that computes signatures
signing    statements about an artifact of the store: made, attached, found and checked
policy     what an artifact must have to be pulled or loaded, from a YAML file

Every signed thing is one Sigstore bundle, so that other tools read it: ``cosign`` the signature of a manifest,
``model_signing`` that of a model's files.
"""
