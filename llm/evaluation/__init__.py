"""What a model is measured by: suites, each a declared value, and the statistics that say what a difference is worth."""
