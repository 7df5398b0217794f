"""Training CIFAR MoEs: one trial, resumable at every epoch, and the trials of an experiment."""
