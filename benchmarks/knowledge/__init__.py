"""Knowledge bases against their bars: indexing, searching, retrieval, kills and grounded answers."""
