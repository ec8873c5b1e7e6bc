"""Answers from documents: sources are parsed, cut into passages, embedded, searched, and cited down to the span.

    sources/   where documents come from: files and folders, URLs, Git, S3
    parsers/   bytes to text with its structure: headings, pages, tables
    chunkers/  text to passages, each a span of it
    vectors/   where vectors are kept and searched: lancedb, pgvector, qdrant
    model ledger bases            what is kept of a base, and where
    sync feed                     the documents of the sources become the index: whole, or not at all
    models                        who embeds, ranks and writes: a protocol, and one that asks a server
    retrieve fusion rewrite expand  from a question to passages
    answer claims                 from passages to an answer whose every citation was checked
    measure evaluate questions    how good that is
    portable                      an index as an artifact

A base is a folder of the home. Its ledger, a small SQLite file, says which documents there are and which state of the
vector store belongs to them; a sync changes it in one transaction at its end, so whoever reads sees the old index or
the new one.
"""
