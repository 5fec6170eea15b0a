"""What is deployed on Prefect: scheduled flows, their turns, and what follows what."""
