"""Token shards in, weights and measurements out. Knows no orchestrator and no tracker."""
