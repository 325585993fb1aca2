"""What a run's folder holds, the evidence in it, and the report on it. Executes nothing."""
