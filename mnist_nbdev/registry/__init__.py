"""Which run is released, and by whom: a journal, and MLflow's pages after it. Trains and judges nothing."""
