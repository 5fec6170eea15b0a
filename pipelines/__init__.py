"""Pages in, token shards out. Knows no orchestrator, no tracker and no torch."""
