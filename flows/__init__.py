"""The only package that knows Prefect and MLflow: flows, tracking, recipes and the command line."""
