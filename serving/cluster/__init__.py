"""What is asked of Kubernetes: InferenceService and TrainJob."""
