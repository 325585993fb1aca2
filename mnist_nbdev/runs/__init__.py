"""What a run's folder holds, how it is proved, and the report that it makes. Executes nothing."""
