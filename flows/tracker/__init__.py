"""What MLflow is told, and what it is asked."""
