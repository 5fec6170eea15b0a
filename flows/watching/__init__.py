"""What a person, a log or Prometheus sees of runs."""
