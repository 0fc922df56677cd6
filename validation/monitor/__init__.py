"""What the journal says of the model: windows, drift, and the decision to retrain."""
