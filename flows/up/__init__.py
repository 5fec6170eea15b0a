"""`corpusmill up`: Prefect's server, MLflow's, a worker for each pool, and what keeps them running, on one machine."""
