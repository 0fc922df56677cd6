"""The Kubeflow graphs, compiled and submitted."""
